"""What a congestion controller without a model of its path leaves out of `seamless.interfaces.CongestionController`."""

from __future__ import annotations

from seamless.link.pacing import MIN_BURST_BYTES


class Plain:
    """A controller that learns from acknowledgements and losses only, and has no deadline."""

    min_burst_bytes = MIN_BURST_BYTES

    def on_sent(self, bytes_in_flight: int, is_application_limited: bool, now: float) -> None:
        """Do nothing: what is in flight comes with each acknowledgement."""

    def on_abandoned(self) -> None:
        """Do nothing: the link begins where it has ended."""

    def next_timeout(self) -> float | None:
        """Return None: there is no deadline."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Do nothing."""
