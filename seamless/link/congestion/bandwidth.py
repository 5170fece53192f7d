"""The bottleneck's rate: the most that was delivered in this cycle of probes and the one before (BBR.max_bw).

What is lost whatever the rate is has used the bottleneck as well, if it is lost behind it: a wire that delivers 80 Mb/s
and loses a fifth is one of 100. So the rate is what is delivered divided by what is not lost (the loss floor), but not
more than has reached the bottleneck in a round, losses included: that has no noise of chance.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seamless.delivery.rate import RateSample

RECENT_ROUNDS: Final = 3


class Bandwidth:
    """A maximum over two cycles; rates in bits per second."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT_ROUNDS)
        self._delivered = [0.0, 0.0]
        self._settled = [0.0, 0.0]

    def bottleneck_bps(self, floor: float) -> float:
        """Return the rate at which to send; 0 without a sample."""
        return min(max(self._delivered) / (1 - floor), max(self._settled))

    @property
    def recent_bps(self) -> float:
        """Return the most that was delivered in one of the last few rounds."""
        return max(self._recent, default=0.0)

    def of(self, sample: RateSample, floor: float) -> float:
        """Return what one sample says of that rate."""
        return min(sample.delivered_bps / (1 - floor), sample.settled_bps)

    def update(self, sample: RateSample, floor: float) -> None:
        """Take in a sample; one that is application-limited only if it is higher than what is known."""
        if not sample.is_stalled:
            self._recent.append(sample.delivered_bps)
        if sample.is_application_limited and self.of(sample, floor) < self.bottleneck_bps(floor):
            return
        self._delivered[0] = max(self._delivered[0], sample.delivered_bps)
        self._settled[0] = max(self._settled[0], sample.settled_bps)

    def advance(self) -> None:
        """Begin another cycle, and forget the one before the last."""
        if self._delivered[0]:
            self._delivered = [0.0, self._delivered[0]]
            self._settled = [0.0, self._settled[0]]

    def replace(self, delivered_bps: float, floor: float) -> None:
        """Forget all samples, and take this for what the path delivers."""
        self._delivered = [delivered_bps, 0.0]
        self._settled = [delivered_bps / (1 - floor), 0.0]
