"""What is acknowledged at once beyond what the path delivers in that time (BBR.extra_acked of the draft).

A path that keeps acknowledgements back and lets them go together (Wi-Fi, a busy process) leaves a sender without any
for a while; so much more must be in flight. What this takes in is bytes, seconds, and bits per second.
"""

from __future__ import annotations

from typing import Final

MEMORY_ACKS: Final = 400
"""ACKs over which the maximum is taken at least: about ten round trips of 80 ms, and never fewer than that of 10 ms."""


class AckAggregation:
    """The most that was acknowledged beyond expectation lately."""

    def __init__(self) -> None:
        self._maxima = [0.0, 0.0]
        self._acks = 0
        self._began_at = 0.0
        self._acked = 0.0

    @property
    def extra_acked(self) -> float:
        """Return it, in bytes."""
        return max(self._maxima)

    def restart(self, now: float) -> None:
        """Begin a new interval: nothing was in flight."""
        self._began_at, self._acked = now, 0.0

    def on_ack(self, acked_bytes: int, bottleneck_bps: float, now: float) -> None:
        """Take note of an ACK, on a path of this rate."""
        expected = bottleneck_bps * (now - self._began_at) / 8
        if self._acked <= expected:
            self._began_at, self._acked, expected = now, 0.0, 0.0
        self._acked += acked_bytes
        extra = self._acked - expected
        if extra > self._maxima[0]:
            self._maxima[0] = extra
        self._acks += 1
        if self._acks >= MEMORY_ACKS:
            self._acks = 0
            self._maxima = [0.0, self._maxima[0]]
