"""Does a constant rate overload its path? What a link with ``congestion off`` knows of it, for ``seamless status``.

The problem: a rate that is as high as the path's capacity leaves a queue standing in it, and a higher one loses what
the path does not carry; but so much is lost on other paths anyway, and a rate that is configured does not change.

The rules:

* Time is cut into periods. In a *busy* one the link sends at half of its rate at least, in a *light* one at less than a
  fifth.
* The path is overloaded when for several busy periods in a row even the fastest datagram waited in a queue, or clearly
  more was lost than in light periods. Without light periods loss alone says nothing: it may be the path's own.
* What was delivered meanwhile, and what light periods lose of it, is what the path carries.
* The RTT without a queue is the lowest of some minutes, so a path that became longer counts as a queue for that time,
  unless the link is idle now and then: then it is seen to be as long without load.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

import attrs

from seamless.interfaces import AckEvent

PERIOD: Final = 0.5
"""Seconds."""
BUSY_SHARE: Final = 0.5
LIGHT_SHARE: Final = 0.2
"""Of the configured rate."""
OVERLOAD_PERIODS: Final = 4
"""Periods in a row: two seconds of it are no burst."""
QUEUE_MIN: Final = 0.005
QUEUE_SHARE: Final = 0.15
"""A queue of so many seconds, or of this share of the RTT, whichever is more, is one that should not stand."""
LOSS_BEYOND: Final = 0.02
DEVIATIONS: Final = 3
FLOOR_DATAGRAMS_MIN: Final = 100
"""Datagrams in light periods from which their loss is known."""
FLOOR_DECAY: Final = 0.9
BASE_INTERVAL: Final = 150.0
"""Seconds: the lowest RTT is that of this time and the one before."""
DATAGRAM_BYTES: Final = 1500
PASSING_SHARE: Final = 0.96
"""Of the capacity: a rate that leaves no queue."""


@attrs.frozen
class Overload:
    """A path that carries less than the link sends; rates in bits per second of IP packets."""

    capacity_bps: float
    queue: float
    """Seconds for which every datagram waited."""
    loss: float
    """The share lost beyond that of light periods."""


def passing_rate(capacity_bps: float) -> int:
    """Return a rate that leaves no queue in a path of this capacity, in three digits."""
    rate_bps = max(1, int(capacity_bps * PASSING_SHARE))
    step: int = 10 ** max(0, len(str(rate_bps)) - 3)
    return rate_bps // step * step


@attrs.define
class _Period:
    ends_at: float = -inf
    acked_bytes: int = 0
    lost_bytes: int = 0
    shortest_rtt: float = inf


class OverloadWatch:
    """What is acknowledged and lost of a constant ``rate_bps``."""

    def __init__(self, rate_bps: float) -> None:
        self.overload: Overload | None = None
        """What is wrong now; None while nothing is."""
        self.queue = 0.0
        """Seconds for which the fastest datagram of the last busy period waited."""
        self._rate_bps = rate_bps
        self._period = _Period()
        self._overload_periods = 0
        self._capacity_bps = 0.0
        self._light_bytes = self._light_lost_bytes = 0.0
        self._shortest_rtt = self._shortest_before = inf
        self._base_ends_at = -inf

    @property
    def loss_floor(self) -> float:
        """Return the share that is lost in light periods; 0 while that is not known."""
        return self._light_lost_bytes / self._light_bytes if self._is_floor_known else 0.0

    @property
    def _is_floor_known(self) -> bool:
        return self._light_bytes >= FLOOR_DATAGRAMS_MIN * DATAGRAM_BYTES

    def add(self, event: AckEvent) -> None:
        """Take in an ACK."""
        period = self._period
        if event.now >= period.ends_at:
            self._end_period(event.now)
            period = self._period
        period.acked_bytes += event.acked_bytes
        period.lost_bytes += event.lost_bytes
        if event.rtt is not None and event.rtt < period.shortest_rtt:
            period.shortest_rtt = event.rtt

    def _end_period(self, now: float) -> None:
        period, self._period = self._period, _Period(now + PERIOD)
        # A period that nothing ended in time was one of silence, for the most part.
        seconds = PERIOD + now - period.ends_at
        sent_bytes = period.acked_bytes + period.lost_bytes
        self._note_rtt(period.shortest_rtt, now)
        if not sent_bytes or seconds > 2 * PERIOD:
            self._calm()
            return
        share = sent_bytes * 8 / seconds / self._rate_bps
        if share < LIGHT_SHARE:
            self._light_bytes = FLOOR_DECAY * self._light_bytes + sent_bytes
            self._light_lost_bytes = FLOOR_DECAY * self._light_lost_bytes + period.lost_bytes
        if share < BUSY_SHARE:
            self._calm()
        else:
            self._judge(period, sent_bytes, seconds)

    def _note_rtt(self, rtt: float, now: float) -> None:
        if now >= self._base_ends_at:
            self._shortest_before, self._shortest_rtt = self._shortest_rtt, inf
            self._base_ends_at = now + BASE_INTERVAL
        self._shortest_rtt = min(self._shortest_rtt, rtt)

    def _calm(self) -> None:
        self._overload_periods, self.overload, self.queue = 0, None, 0.0

    def _judge(self, period: _Period, sent_bytes: int, seconds: float) -> None:
        shortest = min(self._shortest_rtt, self._shortest_before)
        self.queue = period.shortest_rtt - shortest if period.shortest_rtt < inf else 0.0
        floor = self.loss_floor
        loss = period.lost_bytes / sent_bytes
        chance = DEVIATIONS * sqrt(max(floor, LOSS_BEYOND) * DATAGRAM_BYTES / sent_bytes)
        loses_more = self._is_floor_known and loss > floor + LOSS_BEYOND + chance
        if not loses_more and self.queue < max(QUEUE_MIN, QUEUE_SHARE * shortest):
            self._overload_periods, self.overload = 0, None
            return
        delivered_bps = period.acked_bytes * 8 / seconds / (1 - min(floor, 0.9))
        self._overload_periods += 1
        # The mean of the first periods, then one that follows slowly.
        weight = 1 / min(self._overload_periods, 2 * OVERLOAD_PERIODS)
        self._capacity_bps += weight * (delivered_bps - self._capacity_bps)
        if self._overload_periods >= OVERLOAD_PERIODS:
            self.overload = Overload(self._capacity_bps, self.queue, max(0.0, loss - floor))
