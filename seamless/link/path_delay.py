"""Samples of a link's path from the times in ACKs: its round trip time, and the delay variation of the way there.

A link's ACK says when its largest number was received, and how long it was kept back since (docs/protocol.rst). Both
are counted from the moment at which the kernel took the datagram in; so is the ACK's own arrival here. What is left of
the time since the datagram was sent is the path's, without what either process let wait.

The rules:

* The neighbor's clock is its own: only differences between its receive times count.
* What a neighbor says cannot be checked. A sample is never negative nor zero, nor longer than it took; an ACK that
  claims to have waited since before its datagram was sent is taken as one that did not wait; and the delay variation is
  at most the round trip time. A clock that jumps begins a new period, and nothing else.
"""

from __future__ import annotations

from math import inf
from typing import Final

import attrs

from seamless.wire.ack import Ack

RTT_MIN: Final = 1e-5
"""Seconds: no shorter round trip is believed."""
BASE_INTERVAL: Final = 5.0
"""Seconds: the lowest one-way delay is that of this period and the one before. Clocks of two hosts drift apart by 50 us
in a second at most, and a path that became longer is believed after a while."""


@attrs.frozen
class PathDelaySample:
    """What the acknowledgement of one datagram says about the path, in seconds."""

    rtt: float
    """The round trip time, without what the processes of both ends let wait."""
    variation: float
    """How much longer the way there took than the fastest lately (PDV of RFC 5481): what waits in queues there."""


class PathDelay:
    """Makes samples of the times in one neighbor's ACKs."""

    __slots__ = ("_lowest", "_lowest_before", "_period_ends_at")

    def __init__(self) -> None:
        self._lowest = inf
        self._lowest_before = inf
        self._period_ends_at = -inf

    def sample(self, ack: Ack, sent_at: float, now: float, received_at: float) -> PathDelaySample:
        """Return what ``ack`` says, received at ``received_at`` and read at ``now``, for a number sent at ``sent_at``.

        An ACK that came before its datagram was sent is one whose receive time is wrong: the time of reading counts.
        """
        elapsed = (received_at if received_at > sent_at else now) - sent_at
        rtt = max(elapsed - ack.delay if ack.delay < elapsed else elapsed, RTT_MIN)
        return PathDelaySample(rtt, self._variation(ack.received_at - sent_at, rtt, now))

    def _variation(self, one_way: float, rtt: float, now: float) -> float:
        """Return how much more ``one_way`` is than the lowest; both have the same unknown offset."""
        if now >= self._period_ends_at:
            self._lowest_before, self._lowest = self._lowest, inf
            self._period_ends_at = now + BASE_INTERVAL
        self._lowest = min(self._lowest, one_way)
        variation = one_way - min(self._lowest, self._lowest_before)
        if variation > rtt:
            # Longer than there and back: the neighbor's clock has jumped.
            self._lowest, self._lowest_before = one_way, inf
            return rtt
        return variation
