"""The receiving half of a packet number space: which numbers came, and when to say so (RFC 9000, section 13.2).

The rules: the first datagram after a silence is acknowledged at once, so that a lost keystroke is missed soon; under
load one ACK goes out per `ACK_INTERVAL`, whatever the rate, and costs nothing per datagram. Ranges are repeated until
an ACK that carried them is acknowledged in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seamless.wire.ack import MAX_ACK_RANGES, encode_ack
from seamless.wire.link_frames import ACK
from seamless.wire.ranges import RangeSet

ACK_INTERVAL: Final = 0.002
"""Seconds between two ACKs under load: a fifth of a short hop's round trip, and a batch of a fast link."""
PING_RANGES: Final = 32
"""With so many ranges to repeat, it is time to have an ACK acknowledged."""
PING_INTERVAL: Final = 0.02
"""Seconds between two such requests."""


class Acknowledger:
    """Numbers received, and the ACK that is due for them."""

    def __init__(self) -> None:
        self.datagrams = 0
        self.restart()

    def restart(self) -> None:
        """Forget what another process of the neighbor has sent, whose numbers were others."""
        self.received = RangeSet()
        self.largest = -1
        self._largest_at = 0.0
        self._due_at: float | None = None
        self._sent_at = float("-inf")
        self._pinged_at = float("-inf")

    def on_received(self, numbers: Sequence[int], ack_eliciting: bool, now: float) -> None:
        """Note a batch of numbers, none of them received before."""
        add = self.received.add
        first = last = numbers[0]
        # Without a gap, and in order but for what lies between the ends: the usual batch.
        whole = numbers[-1] - first + 1 == len(numbers) and max(numbers) == numbers[-1] and min(numbers) == first
        for number in () if whole else numbers[1:]:
            if number != last + 1:
                add(first, last)
                first = number
            last = number
        add(first, max(last, numbers[-1]))
        self.received.keep_newest(MAX_ACK_RANGES)
        self.datagrams += len(numbers)
        if numbers[-1] > self.largest:
            self.largest = numbers[-1]
            self._largest_at = now
        if ack_eliciting and self._due_at is None:
            self._due_at = max(now, self._sent_at + ACK_INTERVAL)

    @property
    def due_at(self) -> float | None:
        """Return when an ACK must go out."""
        return self._due_at

    def take(self, now: float) -> bytes:
        """Return the ACK frame for what was received so far; it counts as sent."""
        self._due_at = None
        self._sent_at = now
        return bytes([ACK]) + encode_ack(self.received, now - self._largest_at)

    def wants_ping(self, now: float) -> bool:
        """Tell whether this ACK should ask to be acknowledged itself, to shorten those that follow."""
        if len(self.received) < PING_RANGES or now - self._pinged_at < PING_INTERVAL:
            return False
        self._pinged_at = now
        return True

    def on_ack_acknowledged(self, largest: int) -> None:
        """The neighbor knows of all up to ``largest``: repeat it no more."""
        self.received.forget_below(largest)
