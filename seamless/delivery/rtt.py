"""The round trip time of a path, as RFC 9002, section 5 estimates it, and the probe timeout that follows from it."""

from __future__ import annotations

from typing import Final

GRANULARITY: Final = 0.001
"""Seconds (kGranularity of RFC 9002, section 6.1.2)."""
WAIT_MAX: Final = 0.1
"""Seconds of a process's wait that are reckoned with the next time: a longer one was a stop, and no habit."""
WAIT_DECAY: Final = 7 / 8
"""What is left of the longest wait with each further sample."""


class RttEstimator:
    """RTT estimates in seconds; ``initial_rtt`` until there is a sample."""

    __slots__ = ("latest_rtt", "min_rtt", "smoothed_rtt", "rttvar", "wait", "has_sample")

    def __init__(self, initial_rtt: float) -> None:
        self.latest_rtt = initial_rtt
        self.min_rtt = initial_rtt
        self.smoothed_rtt = initial_rtt
        self.rttvar = initial_rtt / 2
        self.wait = 0.0
        """Seconds for which datagrams and ACKs lately waited for the processes of both ends, at most."""
        self.has_sample = False

    def restart_min_rtt(self) -> None:
        """Begin a new period over which ``min_rtt`` is taken (RFC 9002, section 5.2 allows it)."""
        self.min_rtt = self.smoothed_rtt

    def update(self, latest_rtt: float, ack_delay: float) -> None:
        """Take in one sample; ``ack_delay`` is how long the receiver says that it waited with the ACK."""
        self.latest_rtt = latest_rtt
        if self._is_first(latest_rtt):
            return
        self.min_rtt = min(self.min_rtt, latest_rtt)
        self._smooth(latest_rtt - ack_delay if latest_rtt - ack_delay >= self.min_rtt else latest_rtt)

    def update_path(self, path_rtt: float, wait: float) -> None:
        """Take in one sample of which is known what the path took, and for how long both ends' processes let wait.

        The estimates are the path's; ``latest_rtt`` and the probe timeout include the wait.
        """
        wait = min(wait, WAIT_MAX)
        self.wait = max(wait, self.wait * WAIT_DECAY)
        self.latest_rtt = path_rtt + wait
        if not self._is_first(path_rtt):
            self.min_rtt = min(self.min_rtt, path_rtt)
            self._smooth(path_rtt)

    def _is_first(self, rtt: float) -> bool:
        if self.has_sample:
            return False
        self.has_sample = True
        self.min_rtt = self.smoothed_rtt = rtt
        self.rttvar = rtt / 2
        return True

    def _smooth(self, adjusted_rtt: float) -> None:
        self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.smoothed_rtt - adjusted_rtt)
        self.smoothed_rtt = 0.875 * self.smoothed_rtt + 0.125 * adjusted_rtt

    def probe_timeout(self, max_ack_delay: float) -> float:
        """Return the probe timeout without backoff (RFC 9002, section 6.2.1), in seconds."""
        return self.smoothed_rtt + max(4 * self.rttvar, GRANULARITY) + max(max_ack_delay, self.wait)
