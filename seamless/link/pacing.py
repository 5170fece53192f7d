"""The pacer: how many bytes may go out now, so that a link sends at its rate and not faster (RFC 9002, section 7.7).

In the way of a byte it stands between the queue and the sealing. It is a token bucket. A reactor's timer wakes us a
millisecond late, or several on a busy machine, so what was not sent meanwhile must be allowed afterwards, or the rate
is lost; and it must be bounded, or a link that was idle bursts into its path's buffer. Hence the one rule: in any
interval of T seconds at most ``rate * T`` and one burst go out. What was spent beyond the budget (CONTROL is sent
without asking) is a debt, repaid before anything else goes.

The burst is short after a pause in which there was nothing to send. After one in which packets waited and the
processor was somewhere else it is longer: the path's buffer has drained meanwhile, and what is not sent now is lost
for good.
"""

from __future__ import annotations

from typing import Final

from seamless.delivery.token_bucket import TokenBucket

LATENESS_INTERVAL: Final = 0.004
"""Seconds by which a wake-up may be late without costing rate: a time slice of the scheduler, and a batch of work.
Measured on two cores beside four processes that were busy 70 % of the time: 99 % under 2.3 ms, the worst 4.9 ms."""
BACKLOG_LATENESS_INTERVAL: Final = 0.010
"""Seconds by which a wake-up may be late while packets wait: a few time slices, on a machine whose processors are all
busy. Four nodes on two processors ran at 408 to 448 Mb/s of 471 without it, and at 446 to 465 with it."""
UNUSED_BURST: Final = 0.75
"""Of a burst: turns use up half of one, and acknowledgements in between use a little of it on any link."""
MIN_BURST_BYTES: Final = 15_000
"""Ten datagrams: what RFC 9002, section 7.7 allows as a burst on any path."""


class Pacer:
    """A token bucket of bytes; rates in bits per second of IP packets."""

    def __init__(self, rate_bps: float, now: float, min_burst_bytes: int = MIN_BURST_BYTES) -> None:
        """``min_burst_bytes``: what may go out at once after a pause, however low the rate is."""
        self._rate_bps = rate_bps
        self._min_burst_bytes = min_burst_bytes
        self._burst_bytes = self._burst_bytes_at(rate_bps)
        self._bucket = TokenBucket(self._burst_bytes, rate_bps / 8, now)
        self.has_backlog = False
        """Whether packets wait for nothing but the budget."""

    @property
    def burst_bytes(self) -> int:
        """Return how much may go out at once after a pause."""
        return self._burst_bytes

    def set_rate(self, rate_bps: float, now: float) -> None:
        """Go on with another rate; what accrued at the former one is kept up to the new burst."""
        if rate_bps == self._rate_bps:
            return
        bucket = self._bucket
        bucket.refill(now)
        self._rate_bps = rate_bps
        self._burst_bytes = self._burst_bytes_at(rate_bps)
        bucket.tokens = min(bucket.tokens, self._burst_bytes)
        bucket.per_second = rate_bps / 8
        bucket.burst = self._limit_bytes()

    def set_min_burst(self, min_burst_bytes: int, now: float) -> None:
        """Let so much go out at once after a pause, however low the rate is."""
        self._min_burst_bytes = min_burst_bytes
        self._bucket.refill(now)
        self._burst_bytes = self._burst_bytes_at(self._rate_bps)
        self._bucket.burst = self._limit_bytes()

    def budget_bytes(self, now: float) -> int:
        """Return how many bytes may go out now; 0 while there is a debt."""
        return max(0, int(self._bucket.refill(now)))

    def is_unused(self, now: float) -> bool:
        """Return whether most of a burst may go out now: what was sent lately did not use up the rate."""
        return self._bucket.refill(now) >= UNUSED_BURST * self._burst_bytes

    def forgive_debt(self, now: float) -> None:
        """Begin anew: what was spent beyond the budget, at a rate that is over, need not be repaid."""
        self._bucket.tokens = max(0.0, self._bucket.refill(now))

    def set_backlog(self, has_backlog: bool, now: float) -> None:
        """Take note whether packets wait from now on for nothing but the budget."""
        if has_backlog is not self.has_backlog:
            self._bucket.refill(now)
            self.has_backlog = has_backlog
            self._bucket.burst = self._limit_bytes()

    def spend(self, size_bytes: int, now: float) -> None:
        """Take note that ``size_bytes`` went out."""
        self._bucket.spend(size_bytes, now)

    def ready_at(self, needed_bytes: int) -> float:
        """Return when the budget reaches ``needed_bytes``, or a whole burst when that is less."""
        # A byte more than needed: a wake-up just before the time would send nothing.
        return self._bucket.ready_at(min(needed_bytes, self._burst_bytes), rounding=1)

    def _limit_bytes(self) -> float:
        """Return what may accrue."""
        if self.has_backlog:
            return max(self._burst_bytes, self._rate_bps * BACKLOG_LATENESS_INTERVAL / 8)
        return self._burst_bytes

    def _burst_bytes_at(self, rate_bps: float) -> int:
        return max(self._min_burst_bytes, int(rate_bps * LATENESS_INTERVAL / 8))
