"""A search for the capacity of one direction of a link's path, after RFC 9097: load at changing rates.

It stands in for the link's congestion controller while it runs: packets go at the rate that it says, and padding fills
what they leave (`seamless.link.sender`). It is written as a script of *steps*, each a rate and a time; of every step
the search sees what was delivered and lost of what was sent in it, and for how long it waited in the path's queue.

The script:

1. The rate doubles until a step shows that the path is full: a queue that stands, or much less delivered than sent.
2. A step well below what was delivered then shows the *loss floor*, what is lost without a queue.
3. Three times a queue is made, kept for a moment, and left to drain. While it stands the path is busy, so what is
   delivered then, and what the loss floor takes of it, is the capacity. The median of the three counts.
4. A last step, a little below the capacity, shows the queueing delay there, and that no policer lies in wait.

The rules:

* At most `RATE_MAX_BPS` for at most `SEARCH_SECONDS_MAX`, whatever the neighbor acknowledges. What it says about time
  is believed only where our own clock says nearly the same.
* A queue is made no longer than it has to be: other traffic of this path waits in it.
* Of a path that carries more than this process sends, or the neighbor's takes, the result says "at least".
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf, sqrt
from typing import Final, TypeAlias

import attrs

from seamless.interfaces import AckEvent, PathEstimate
from seamless.link.congestion.plain import Plain

# Bounds of a search.

RATE_MAX_BPS: Final = 2e9
"""Bits per second: more than a process sends."""
RATE_START_BPS: Final = 1e6
SEARCH_SECONDS: Final = 5.0
SEARCH_RTTS: Final = 10
"""Seconds and round trips of one direction at the most. On a path of 10 ms it takes two and a half seconds, a little
more on a busy machine."""
WINDOW_INTERVAL: Final = 0.25
"""Seconds of the rate, beyond a round trip, that may be in flight: it bounds what is sent to a path that died."""
WINDOW_MIN_BYTES: Final = 30_000
MISSING_ACK_MAX: Final = 0.5
"""Seconds without an acknowledgement for anything sent in a step, after which the search gives up."""

# Steps.

STEP_SECONDS_MIN: Final = 0.02
STEP_DATAGRAMS: Final = 20
"""Sent in a step of the ramp at least, so that losses are a share of something."""
QUEUE_STANDS: Final = 0.006
"""Seconds in the queue of the datagram that waits least in a step: more than a busy machine makes of a moment."""
QUEUE_ENOUGH: Final = 0.015
"""Seconds of queue at which the path is busy for sure; more would only delay others."""
QUEUE_GONE: Final = 0.0015
DELIVERED_SHORT: Final = 0.85
"""Less than this share of what was sent, the loss floor taken off, means that the path is full, queue or not."""
LOSS_BEYOND_FLOOR: Final = 0.01
DEVIATIONS: Final = 3
"""Standard deviations of a share lost at random, beyond which it is not taken for that."""
FLOOR_SHARE: Final = 0.7
FLOOR_SECONDS: Final = 0.4
FLOOR_TRIES: Final = 3
FEW_DATAGRAMS: Final = 100
"""A step of fewer says little of what is lost, and so of what is delivered."""
ARRIVES_SHARE: Final = 0.95
FILL_SHARE: Final = 1.25
"""Of the capacity as known, to fill the queue."""
FILL_SECONDS: Final = 0.2
KEEP_SHARE: Final = 1.0
"""While a queue stands; where there is room for none, as much as to fill it."""
KEEP_SECONDS: Final = 0.12
DRAIN_SHARE: Final = 0.6
DRAIN_SECONDS: Final = 0.25
KEEPS: Final = 3
FILLS_MAX: Final = 6
HOLD_SHARE: Final = 0.96
HOLD_SECONDS: Final = 0.3
LATEST_SAMPLES: Final = 5
LOSS_MAX: Final = 0.9
"""No loss floor is higher: of what is left nothing could be said."""
RATE_MIN_BPS: Final = 100e3
RTT_MAX: Final = 0.5
"""Seconds: what a longer one asks for would be in flight, or last, for too long."""
SEARCH_SECONDS_MAX: Final = SEARCH_SECONDS + SEARCH_RTTS * RTT_MAX
CLOCKS_AGREE: Final = 0.25
"""By what share the neighbor's clock may differ from ours over a step before ours counts: our clock sees ACKs in
bunches, the neighbor's can lie."""


@attrs.frozen
class PathCapacity:
    """What a search has found of one direction; rates in bits per second of IP packets."""

    capacity_bps: float
    """What the path takes in, and delivers but for the loss floor."""
    rate_bps: float
    """The rate that leaves no queue: the last step passed at it."""
    loss_floor: float
    """The share that is lost without a queue."""
    queue_delay: float
    """Seconds that most datagrams (90 %) waited for at most, sent at ``rate_bps``."""
    is_least: bool = False
    """Whether the path carries more than this: the processes at its ends do not."""


@attrs.frozen
class Step:
    """A rate for a time; it ends sooner once the queue is longer than ``queue_max``, or ``queue_min`` at most."""

    rate_bps: float
    seconds: float
    queue_max: float = inf
    queue_min: float = -1.0


@attrs.define
class Seen:
    """What was acknowledged, and lost, of what was sent in one step."""

    begins_at: float
    acked_bytes: int = 0
    lost_bytes: int = 0
    waits: list[float] = attrs.Factory(list)
    """Delay variations, in their order."""
    _first: tuple[float, float] | None = None
    _last: tuple[float, float] | None = None
    _timed_bytes: int = 0

    def add(self, event: AckEvent) -> None:
        """Take in an ACK; what was sent before the step does not count."""
        self.lost_bytes += sum(size for sent_at, size in event.lost_batches if sent_at >= self.begins_at)
        if not event.acked_bytes or event.sent_at < self.begins_at:
            return
        if self._first is not None:
            self.acked_bytes += event.acked_bytes
        if event.receive_time is None or event.rtt is None:
            return
        self.waits.append(event.delay_variation)
        self._last = (event.receive_time, event.now)
        self._timed_bytes = self.acked_bytes
        self._first = self._first or self._last

    @property
    def rate_bps(self) -> float:
        """Return the rate at which bytes were delivered; 0 while there is nothing to divide."""
        if self._first is None or self._last is None:
            return 0.0
        there, here = (last - first for last, first in zip(self._last, self._first))
        seconds = there if abs(there - here) <= CLOCKS_AGREE * here else here
        return self._timed_bytes * 8 / seconds if seconds > 0 else 0.0

    @property
    def loss(self) -> float:
        """Return the share that was lost."""
        return _share(self.lost_bytes, self.acked_bytes)

    @property
    def queue(self) -> float:
        """Return what the datagram waited for that waited least, of the second half of those seen."""
        return min(self.waits[len(self.waits) // 2 :], default=0.0)

    @property
    def latest_queue(self) -> float:
        """Return the same of the last few; 0 while they are too few."""
        return min(self.waits[-LATEST_SAMPLES:]) if len(self.waits) >= LATEST_SAMPLES else 0.0


def _share(lost_bytes: int, acked_bytes: int) -> float:
    return min(LOSS_MAX, lost_bytes / (lost_bytes + acked_bytes)) if lost_bytes else 0.0


@attrs.define
class Losses:
    """What was lost in several steps."""

    acked_bytes: int = 0
    lost_bytes: int = 0

    def add(self, seen: Seen) -> None:
        """Add a step's."""
        self.acked_bytes += seen.acked_bytes
        self.lost_bytes += seen.lost_bytes

    @property
    def share(self) -> float:
        """Return the share that was lost."""
        return _share(self.lost_bytes, self.acked_bytes)


Script: TypeAlias = Generator[Step, Seen, PathCapacity]


class CapacitySearch(Plain):
    """The search, as a congestion controller (`seamless.interfaces.CongestionController`)."""

    name = "measuring"

    def __init__(self, begin_bps: float, rtt: float, datagram_bytes: int, now: float) -> None:
        """``begin_bps``: what is sent already, below which the search need not begin; ``rtt`` in seconds;
        ``datagram_bytes``: of a full IP packet."""
        self.result: PathCapacity | None = None
        """What was found, once `is_over`; None when the path fell silent."""
        self.is_over = False
        self._rtt = min(rtt, RTT_MAX)
        self._datagram_bytes = datagram_bytes
        self._ends_at = now + SEARCH_SECONDS + SEARCH_RTTS * self._rtt
        self._known: PathCapacity | None = None
        self._below = Losses()
        self._script = self._steps(min(max(begin_bps, RATE_START_BPS), RATE_MAX_BPS))
        self._step = next(self._script)
        self._begin_step(now)

    # The script.

    def _steps(self, rate_bps: float) -> Script:
        capacity = yield from self._ramp(rate_bps)
        capacity, is_least = yield from self._capacity(capacity)
        rate_bps = capacity * HOLD_SHARE
        seen = yield Step(rate_bps, max(HOLD_SECONDS, 2 * self._rtt))
        if self._is_overloaded(seen, rate_bps):
            # What is delivered while a queue stands is the capacity, and it is less than it seemed.
            capacity = min(capacity, self._before_loss(seen))
            rate_bps = min(rate_bps, capacity * HOLD_SHARE)
        elif self._is_beyond_floor(seen):
            # A policer lets bursts pass; what it delivers now is what it delivers.
            rate_bps = min(rate_bps, self._before_loss(seen))
        else:
            self._below.add(seen)
        waits = sorted(seen.waits) or [0.0]
        return PathCapacity(capacity, rate_bps, self._floor, waits[len(waits) * 9 // 10], is_least)

    @property
    def _floor(self) -> float:
        return self._below.share

    def _ramp(self, rate_bps: float) -> Generator[Step, Seen, float]:
        """Double the rate until the path is full, then go well below, for the loss floor; return a first capacity."""
        self._below = Losses()
        was_short = False
        while True:
            seconds = max(STEP_SECONDS_MIN, self._rtt, STEP_DATAGRAMS * self._datagram_bytes * 8 / rate_bps)
            seen = yield Step(rate_bps, seconds, queue_max=QUEUE_ENOUGH)
            is_short = seen.rate_bps < DELIVERED_SHORT * rate_bps * (1 - self._floor)
            if seen.queue >= QUEUE_STANDS or (is_short and was_short) or rate_bps >= RATE_MAX_BPS:
                break
            was_short = is_short
            if not is_short:
                self._below.add(seen)
                rate_bps = min(2 * rate_bps, RATE_MAX_BPS)
        # What is delivered is no more than the capacity, whatever is lost, and by what.
        delivered_bps = seen.rate_bps
        for _ in range(FLOOR_TRIES):
            yield Step(delivered_bps * DRAIN_SHARE, DRAIN_SECONDS, queue_min=QUEUE_GONE)
            seen = yield Step(delivered_bps * FLOOR_SHARE, FLOOR_SECONDS)
            if not self._is_overloaded(seen, delivered_bps * FLOOR_SHARE):
                break
            # A short step on a busy machine has shown more than the path carries.
            delivered_bps = seen.rate_bps
        self._below = Losses()
        self._below.add(seen)
        capacity = max(RATE_MIN_BPS, delivered_bps / (1 - self._floor))
        self._known = self._known or PathCapacity(capacity, capacity * HOLD_SHARE, self._floor, 0.0, is_least=True)
        return capacity

    def _is_overloaded(self, seen: Seen, rate_bps: float) -> bool:
        """Return whether a queue stood in a step, and less arrived than was sent: a busy machine makes queues alone."""
        return seen.queue >= QUEUE_STANDS and self._before_loss(seen) < ARRIVES_SHARE * rate_bps

    def _is_beyond_floor(self, seen: Seen) -> bool:
        """Return whether more was lost than the loss floor, and chance, account for."""
        floor, below = self._floor, self._below
        # Both shares are of few datagrams where the rate is low.
        counts = [(each.acked_bytes + each.lost_bytes) / self._datagram_bytes for each in (seen, below)]
        variance = max(floor, LOSS_BEYOND_FLOOR) * (1 - floor) * sum(1 / max(count, 1) for count in counts)
        deviation = sqrt(variance)
        return seen.loss > floor + LOSS_BEYOND_FLOOR + DEVIATIONS * deviation

    def _capacity(self, capacity: float) -> Generator[Step, Seen, tuple[float, bool]]:
        """Fill the path, see what it delivers, and let it drain, several times; return the median, and whether the path
        was never full."""
        found: list[float] = []
        is_least = True
        for _ in range(FILLS_MAX):
            rate_bps = min(capacity * FILL_SHARE, RATE_MAX_BPS)
            seen = yield Step(rate_bps, max(FILL_SECONDS, 2 * self._rtt), queue_max=QUEUE_ENOUGH)
            has_queue = seen.queue >= QUEUE_STANDS
            is_full = has_queue or self._is_beyond_floor(seen)
            has_few = seen.acked_bytes + seen.lost_bytes < FEW_DATAGRAMS * self._datagram_bytes
            has_more = has_few or self._before_loss(seen) > (1 + FILL_SHARE) / 2 * capacity
            if not is_full and has_more and rate_bps < RATE_MAX_BPS:
                # It was not the path that was full before.
                capacity = yield from self._ramp(rate_bps)
                continue
            is_least = is_least and not is_full
            if has_queue:
                capacity = max(capacity, self._before_loss(seen))
            keep_share = KEEP_SHARE if has_queue else FILL_SHARE
            seen = yield Step(capacity * keep_share, max(KEEP_SECONDS, 2 * self._rtt))
            found.append(self._taken_in_bps(seen, has_queue))
            capacity = sorted(found)[len(found) // 2]
            self._known = PathCapacity(capacity, capacity * HOLD_SHARE, self._floor, 0.0, is_least)
            yield Step(capacity * DRAIN_SHARE, DRAIN_SECONDS, queue_min=QUEUE_GONE)
            if len(found) >= KEEPS:
                break
        return capacity, is_least

    def _before_loss(self, seen: Seen) -> float:
        """Return the rate at which the path took in what it delivered, and what the loss floor took of that."""
        return max(RATE_MIN_BPS, seen.rate_bps / (1 - self._floor))

    def _taken_in_bps(self, seen: Seen, has_queue: bool) -> float:
        """Return the same of a step in which the path was busy."""
        if has_queue and not self._is_beyond_floor(seen):
            # Nothing was dropped from the queue: what was lost is this step's own share of the loss floor.
            self._below.add(seen)
            return max(RATE_MIN_BPS, seen.rate_bps / (1 - seen.loss))
        return self._before_loss(seen)

    # Steps.

    def _begin_step(self, now: float) -> None:
        self._seen = Seen(now)
        self._step_ends_at = now + self._step.seconds
        self._gives_up_at = self._step_ends_at + self._rtt + MISSING_ACK_MAX

    def _end_step(self, now: float) -> None:
        try:
            step = self._script.send(self._seen)
        except StopIteration as stop:
            self._end(stop.value)
            return
        self._step = attrs.evolve(step, rate_bps=min(max(step.rate_bps, RATE_MIN_BPS), RATE_MAX_BPS))
        self._begin_step(now)

    def _end(self, result: PathCapacity | None) -> None:
        self.result = result
        self.is_over = True

    def _is_step_over(self, event: AckEvent) -> bool:
        """Return whether all that was sent in this step's time is acknowledged or lost, or enough was seen."""
        if event.sent_at >= self._step_ends_at:
            return True
        seen = self._seen
        if event.sent_at < seen.begins_at + self._rtt or not seen.waits:
            return False
        return seen.latest_queue > self._step.queue_max or event.delay_variation <= self._step.queue_min

    # What a congestion controller is asked and told.

    def window_bytes(self) -> int:
        """Return what may be in flight: enough for any queue that the search makes."""
        return max(WINDOW_MIN_BYTES, int(self._step.rate_bps / 8 * (self._rtt + WINDOW_INTERVAL)))

    def pacing_rate_bps(self) -> float:
        """Return the rate of this step."""
        return self._step.rate_bps

    def on_ack(self, event: AckEvent) -> None:
        """Take note of what arrived; go on to the next step when this one is over."""
        if self.is_over:
            return
        self._rtt = min(max(event.smoothed_rtt - self._seen.queue, 0.0), RTT_MAX)
        self._seen.add(event)
        if self._is_step_over(event):
            self._end_step(event.now)

    def on_abandoned(self) -> None:
        """End without a result: the link went down or its neighbor restarted."""
        self._end(None)

    def next_timeout(self) -> float | None:
        """Return when the search ends at the latest."""
        return None if self.is_over else min(self._ends_at, self._gives_up_at)

    def handle_timeout(self, now: float) -> None:
        """End: with what is known by then, or without anything when the path fell silent."""
        if now >= self._gives_up_at:
            self._end(None)
        elif now >= self._ends_at:
            self._end(self._known)

    def path_estimate(self) -> PathEstimate:
        """Return that the rate is a measurement's."""
        return PathEstimate(state="measuring", reason="the capacity of the path is being measured")
