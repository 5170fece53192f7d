"""Congestion control ``cubic``: fair on shared networks.

CUBIC (RFC 9438) with HyStart++ (RFC 9406), paced, with the recovery period of RFC 9002, section 7.3.2. A configured
rate bounds it.
"""

from __future__ import annotations

from typing import Final

from seamless.interfaces import AckEvent, PathEstimate
from seamless.link.congestion.plain import Plain

# Fixed by RFC 9438, section 4: the multiplicative decrease, the scale of the cubic (segments per second cubed), and the
# additive increase that makes an AIMD flow with this decrease as fast as Reno.
BETA: Final = 0.7
CUBE_SCALE: Final = 0.4
RENO_INCREASE: Final = 3 * (1 - BETA) / (1 + BETA)
MAX_GROWTH_PER_ROUND: Final = 1.5

# Fixed by RFC 9406, section 4.2 and 4.3.
MIN_RTT_THRESHOLD: Final = 0.004
MAX_RTT_THRESHOLD: Final = 0.016
RTT_THRESHOLD_DIVISOR: Final = 8
RTT_SAMPLES: Final = 8
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5

# Fixed by RFC 9002, section 7.2 (and section 7.7 for the pacing gain outside slow start).
INITIAL_WINDOW_DATAGRAMS: Final = 10
MIN_WINDOW_DATAGRAMS: Final = 2
PACING_GAIN: Final = 1.25

# Our own choices.
SLOW_START_PACING_GAIN: Final = 2.0
"""The window doubles in a round trip, and what paces it must not be slower."""
INITIAL_RTT: Final = 0.1
"""Seconds, until there is a sample: ten datagrams in half of it, which no path takes for a load."""
MIN_RTT: Final = 1e-5
"""Seconds: no shorter RTT is believed, so that the pacing rate stays finite."""
MAX_WINDOW_BYTES: Final = 64 << 20
"""A gigabit per second for half a second; bounds what a link keeps for resending."""


class SlowStartExit:
    """HyStart++ (RFC 9406): leave slow start when the RTT begins to rise, before a queue overflows.

    A *round* ends with the first acknowledgement of something sent after it began. In conservative slow start (CSS) the
    window grows a quarter as fast, until it is confirmed for five rounds or the RTT falls back.
    """

    def __init__(self) -> None:
        self.growth_divisor = 1
        self._round_began_at = float("-inf")
        self._last_min_rtt = float("inf")
        self._min_rtt = float("inf")
        self._samples = 0
        self._css_rounds = 0
        self._css_baseline_rtt = float("inf")

    def sees_queue(self, sent_at: float, rtt: float, now: float) -> bool:
        """Take note of one raw RTT sample in seconds; return whether slow start is over."""
        if sent_at >= self._round_began_at:
            self._begin_round(now)
        self._samples += 1
        self._min_rtt = min(self._min_rtt, rtt)
        if self._samples < RTT_SAMPLES:
            return False
        if self.growth_divisor > 1:
            if self._min_rtt < self._css_baseline_rtt:
                self.growth_divisor, self._css_rounds = 1, 0
        elif self._min_rtt >= self._last_min_rtt + self._threshold():
            self._css_baseline_rtt = self._min_rtt
            self.growth_divisor = CSS_GROWTH_DIVISOR
        return self._css_rounds >= CSS_ROUNDS

    def _begin_round(self, now: float) -> None:
        self._round_began_at = now
        self._last_min_rtt, self._min_rtt = self._min_rtt, float("inf")
        self._samples = 0
        if self.growth_divisor > 1:
            self._css_rounds += 1

    def _threshold(self) -> float:
        return max(MIN_RTT_THRESHOLD, min(self._last_min_rtt / RTT_THRESHOLD_DIVISOR, MAX_RTT_THRESHOLD))


class Cubic(Plain):
    """CUBIC; the names are those of RFC 9438, the windows in bytes.

    ``rate_bps``, where there is one, bounds the pacing rate; ``datagram_bytes`` is the size of a full IP packet.
    """

    name = "cubic"

    def __init__(self, rate_bps: float | None, datagram_bytes: int, now: float) -> None:
        self._max_rate_bps = rate_bps
        self._datagram_bytes = datagram_bytes
        self._cwnd = float(INITIAL_WINDOW_DATAGRAMS * datagram_bytes)
        self._ssthresh = float("inf")
        self._rtt = INITIAL_RTT
        self._slow_start_exit = SlowStartExit()
        self._recovery_began_at = float("-inf")
        self._acked_at = now
        # Of the congestion avoidance since the last congestion event, which begins with the first ACK after it:
        self._epoch_at: float | None = None
        self._k = 0.0
        self._w_max = 0.0
        self._w_est = 0.0
        self._cwnd_prior = 0.0

    def window_bytes(self) -> int:
        """Return the congestion window."""
        return int(self._cwnd)

    def pacing_rate_bps(self) -> float:
        """Return a little more than a window per round trip, so that the window and not the pacer is what limits."""
        gain = SLOW_START_PACING_GAIN if self._in_slow_start() else PACING_GAIN
        rate_bps = gain * self._cwnd * 8 / self._rtt
        return rate_bps if self._max_rate_bps is None else min(rate_bps, self._max_rate_bps)

    def on_ack(self, event: AckEvent) -> None:
        """Let the window grow by what is acknowledged, and shrink it for what is lost."""
        if event.acked_bytes:
            self._acked(event)
        if event.lost_bytes:
            self._lost(event.lost_batches[-1][0], event.now)

    def _acked(self, event: AckEvent) -> None:
        now = event.now
        since_last_ack = now - self._acked_at
        self._acked_at = now
        self._rtt = max(event.smoothed_rtt, MIN_RTT)
        if event.sent_at <= self._recovery_began_at:
            return
        if self._is_application_limited(event.acked_bytes + event.bytes_in_flight):
            if self._epoch_at is not None:
                # Time in which we did not use the window says nothing about it (RFC 9438, section 5.8).
                self._epoch_at += since_last_ack
        elif self._in_slow_start():
            self._slow_start(event)
        else:
            self._avoid_congestion(event.acked_bytes, now)

    def _lost(self, sent_at: float, now: float) -> None:
        """Shrink the window, once per round trip: not again for what was sent before the last time."""
        if sent_at <= self._recovery_began_at:
            return
        self._recovery_began_at = now
        self._epoch_at = None
        self._cwnd_prior = self._cwnd
        # Fast convergence (RFC 9438, section 4.7): who must shrink before it is back makes room for a newcomer.
        self._w_max = self._cwnd * (1 + BETA) / 2 if self._cwnd < self._w_max else self._cwnd
        self._cwnd = max(self._cwnd * BETA, float(MIN_WINDOW_DATAGRAMS * self._datagram_bytes))
        self._ssthresh = self._cwnd

    def path_estimate(self) -> PathEstimate:
        """Return the phase, and what bounds the rate."""
        state = "slow start" if self._in_slow_start() else "congestion avoidance"
        is_bounded = self._max_rate_bps is not None and self.pacing_rate_bps() >= self._max_rate_bps
        return PathEstimate(state, "it is the configured bound" if is_bounded else "the congestion window allows it")

    def _in_slow_start(self) -> bool:
        return self._cwnd < self._ssthresh

    def _is_application_limited(self, used_bytes: int) -> bool:
        return used_bytes < self._cwnd / 2

    def _slow_start(self, event: AckEvent) -> None:
        if event.rtt is not None and self._slow_start_exit.sees_queue(event.sent_at, event.rtt, event.now):
            self._ssthresh = self._cwnd
            self._w_max = self._cwnd
            self._cwnd_prior = self._cwnd
            return
        self._grow_to(self._cwnd + event.acked_bytes / self._slow_start_exit.growth_divisor)

    def _avoid_congestion(self, acked_bytes: int, now: float) -> None:
        if self._epoch_at is None:
            self._begin_epoch(now)
        elapsed = now - (self._epoch_at or now)
        increase = 1.0 if self._w_est >= self._cwnd_prior else RENO_INCREASE
        self._w_est += increase * self._datagram_bytes * acked_bytes / self._cwnd
        if self._w_cubic(elapsed) < self._w_est:
            self._grow_to(max(self._cwnd, self._w_est))
            return
        target = self._w_cubic(elapsed + self._rtt)
        target = max(self._cwnd, min(target, MAX_GROWTH_PER_ROUND * self._cwnd))
        self._grow_to(self._cwnd + (target - self._cwnd) * acked_bytes / self._cwnd)

    def _begin_epoch(self, now: float) -> None:
        self._epoch_at = now
        self._w_est = self._cwnd
        self._w_max = max(self._w_max, self._cwnd)
        self._k = ((self._w_max - self._cwnd) / self._datagram_bytes / CUBE_SCALE) ** (1 / 3)

    def _w_cubic(self, elapsed: float) -> float:
        return CUBE_SCALE * (elapsed - self._k) ** 3 * self._datagram_bytes + self._w_max

    def _grow_to(self, cwnd: float) -> None:
        self._cwnd = min(cwnd, float(MAX_WINDOW_BYTES))
