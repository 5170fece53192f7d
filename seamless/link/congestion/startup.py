"""The search for a new path's rate (Startup of draft-ietf-ccwg-bbr): a window that doubles until the path is full.

Full is when a queue forms, when what is delivered no more grows with the window, or when the share of losses grows with
it. What is application-limited neither grows the window nor ends the search.
"""

from __future__ import annotations

from typing import Final

from seamless.delivery.rate import RateSample
from seamless.interfaces import AckEvent
from seamless.link.congestion.path_model import PathModel

# Of the draft, and of RFC 9002, section 7.2.
FULL_BW_GROWTH: Final = 1.25
FULL_BW_ROUNDS: Final = 3
INITIAL_WINDOW_DATAGRAMS: Final = 10

# Our own choices.
STARTUP_GAIN: Final = 1.25
"""Of a window per round trip: while the window doubles, more than one and less than two of it leave in one."""
DOUBLING_BYTES: Final = 256 << 10
"""Startup doubles the window up to this, and then lets it grow by half: the last step overshoots by what it grows."""
SLOW_GROWTH: Final = 0.5
STARTUP_LOSS: Final = 0.35
STARTUP_LOSS_PACKETS: Final = 40
"""Startup ends at once when so much of what was sent lately is lost, of so many datagrams at least."""
MAX_WINDOW_BYTES: Final = 64 << 20
"""A gigabit per second for half a second; bounds what a link keeps for resending."""


class Startup:
    """The window, and whether it is enough."""

    def __init__(self, model: PathModel) -> None:
        self._model = model
        self.window_bytes = float(INITIAL_WINDOW_DATAGRAMS * model.datagram_bytes)
        self._full_bw = 0.0
        self._full_bw_count = 0

    def pacing_rate_bps(self) -> float:
        """Return a little more than a window per round trip."""
        return STARTUP_GAIN * self.window_bytes * 8 / self._model.smoothed_rtt

    def on_ack(self, event: AckEvent) -> bool:
        """Let the window grow if it was used; return whether a queue or losses show that it is enough."""
        if event.acked_bytes + event.bytes_in_flight < self.window_bytes / 2:
            return False
        growth = 1.0 if self.window_bytes < DOUBLING_BYTES else SLOW_GROWTH
        self.window_bytes = min(self.window_bytes + growth * event.acked_bytes, float(MAX_WINDOW_BYTES))
        losses, delay = self._model.losses, self._model.delay
        phase = losses.phase
        is_lossy = losses.packets(phase) >= STARTUP_LOSS_PACKETS and phase.loss > STARTUP_LOSS
        return is_lossy or delay.recent > self._model.queue_limit

    def end_round(self, sample: RateSample, now: float) -> bool:
        """Return whether the path is full by the end of a round."""
        losses = self._model.losses
        has_excess = losses.has_excess(losses.previous)
        if has_excess:
            if losses.floor:
                return True
            # Of losses that do not depend on the rate the next round, which is faster, has no greater share.
            losses.set(losses.previous)
        losses.begin_phase(now)
        if sample.is_application_limited:
            return False
        if sample.delivered_bps >= self._full_bw * FULL_BW_GROWTH:
            self._full_bw = sample.delivered_bps
            self._full_bw_count = 0
            return False
        self._full_bw_count += 1
        return self._full_bw_count >= (1 if has_excess else FULL_BW_ROUNDS)
