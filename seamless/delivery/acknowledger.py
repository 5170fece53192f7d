"""The receiving half of a packet number space: which numbers came, and when an ACK for them is due (RFC 9000, 13.2).

The rules:

* An ACK is due a delay after the first number that asks for it, which the owner says; no sooner than an interval after
  the last ACK, and at once when so many numbers wait for it. So under load ACKs cost nothing per number.
* Ranges are repeated until an ACK that carried them is acknowledged in turn (RFC 9000, section 13.2.4).
* Memory is bounded: of too many ranges the oldest are forgotten, and count as lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

import attrs

from seamless.wire.ack import encode_ack
from seamless.wire.ranges import RangeSet

PING_RANGES: Final = 32
"""With so many ranges to repeat, it is time to have an ACK acknowledged."""
PING_INTERVAL: Final = 0.02
"""Seconds between two such requests."""


@attrs.frozen
class AckPolicy:
    """When ACKs are due, and what is remembered for them."""

    min_interval: float
    """Seconds between two ACKs at least."""
    at_once_count: float
    """Requests that wait for an ACK and make it due at once; infinity for never."""
    max_ranges: int
    kept_count: int
    """Numbers below the largest one that the sender knows to be acknowledged which are remembered."""


class Acknowledger:
    """Numbers received, and the ACK that is due for them."""

    def __init__(self, policy: AckPolicy) -> None:
        self._policy = policy
        self.count = 0
        """Numbers received so far, of all processes of the sender."""
        self.restart()

    def restart(self) -> None:
        """Forget what another process of the sender has sent, whose numbers were others."""
        self.received = RangeSet()
        self.largest = -1
        self.floor = 0
        """Numbers below it are forgotten: whether they were received is not known any more."""
        self.largest_at = 0.0
        """When ``largest`` was received."""
        self.due_at: float | None = None
        """When an ACK must go out; None while none is asked for."""
        self._waiting = 0
        self._sent_at = -inf
        self._pinged_at = -inf

    def receive(self, numbers: Sequence[int], received_at: float) -> None:
        """Enter a batch of numbers, none of them received before."""
        add = self.received.add
        first = last = numbers[0]
        largest = max(numbers)
        # Without a gap, and in order but for what lies between the ends: the usual batch.
        whole = numbers[-1] - first + 1 == len(numbers) and largest == numbers[-1] and min(numbers) == first
        for number in () if whole else numbers[1:]:
            if number != last + 1:
                add(first, last)
                first = number
            last = number
        add(first, max(last, numbers[-1]))
        self.count += len(numbers)
        if largest > self.largest:
            self.largest = largest
            self.largest_at = received_at
        if len(self.received) > self._policy.max_ranges:
            self.received.keep_newest(self._policy.max_ranges)
            self.floor = self.received.firsts[0]

    def ask(self, delay: float, now: float) -> None:
        """Take note that what was just received asks for an ACK, within ``delay`` seconds."""
        self._waiting += 1
        due_at = now
        if self._waiting < self._policy.at_once_count:
            due_at = max(now + delay, self._sent_at + self._policy.min_interval)
        if self.due_at is None or due_at < self.due_at:
            self.due_at = due_at

    def take(self, now: float) -> bytes:
        """Return the body of an ACK for what was received so far; it counts as sent."""
        self.due_at = None
        self._waiting = 0
        self._sent_at = now
        return encode_ack(self.received, now - self.largest_at)

    def wants_ping(self, now: float) -> bool:
        """Return whether this ACK should ask to be acknowledged itself, to shorten those that follow."""
        if len(self.received) < PING_RANGES or now - self._pinged_at < PING_INTERVAL:
            return False
        self._pinged_at = now
        return True

    def ack_acknowledged(self, largest: int) -> None:
        """Take note that the sender has an ACK that reached up to ``largest``."""
        floor = largest - self._policy.kept_count
        if floor > self.floor:
            self.floor = floor
            self.received.forget_below(floor)
