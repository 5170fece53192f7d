"""Congestion control ``off``: a constant rate that the operator answers for.

Loss says nothing about the rate, but for people (`seamless.link.congestion.overload`); the window only bounds memory.
"""

from __future__ import annotations

from typing import Final

from seamless.interfaces import AckEvent, PathEstimate
from seamless.link.congestion.overload import OverloadWatch
from seamless.link.congestion.plain import Plain

OFF_WINDOW_ROUNDS: Final = 4
"""Round trips that ``off`` may have in flight: a datagram lost twice in a row needs three before it is acknowledged."""
OFF_WINDOW_MIN_INTERVAL: Final = 0.1
"""Seconds of the rate that ``off`` may always have in flight: acknowledgements may be late on a busy machine."""


class Off(Plain):
    """A constant rate, whatever gets lost."""

    name = "off"

    def __init__(self, rate_bps: float) -> None:
        self._rate_bps = rate_bps
        self._interval = OFF_WINDOW_MIN_INTERVAL
        self._watch = OverloadWatch(rate_bps)

    def window_bytes(self) -> int:
        """Return the bound on memory: some round trips' worth of the rate."""
        return int(self._rate_bps * self._interval / 8)

    def pacing_rate_bps(self) -> float:
        """Return the configured rate."""
        return self._rate_bps

    def on_ack(self, event: AckEvent) -> None:
        """Take note of the RTT; losses are resent at the same rate."""
        self._watch.add(event)
        if event.acked_bytes:
            self._interval = max(OFF_WINDOW_ROUNDS * event.smoothed_rtt, OFF_WINDOW_MIN_INTERVAL)

    def path_estimate(self) -> PathEstimate:
        """Return that the rate is configured, and what is known of a path that it overloads."""
        overload, watch = self._watch.overload, self._watch
        if overload is None:
            return PathEstimate("constant", "it is configured", queue_delay=watch.queue, loss_floor=watch.loss_floor)
        return PathEstimate(
            state="overload",
            reason="it is configured, and more than the path carries",
            bottleneck_bps=overload.capacity_bps,
            queue_delay=overload.queue,
            loss_floor=watch.loss_floor,
            congestion_loss=overload.loss,
        )
