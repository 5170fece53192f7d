"""Which losses are ours: those that go away when we send slower.

Datagrams are counted by the *phase* in which they were sent, one of the states of the controller. The *loss floor* is
the share that is lost while less is sent than the path has just delivered, so it cannot be our doing: radio, a bad
cable, somebody else's queue. What a phase loses beyond the floor, and beyond what chance may do, is *excess*: then the
controller sends slower for some round trips, and what is lost in these is the floor from then on. If that is less than
before, the excess was congestion.

On some paths losses come in bursts. So chance reckons with the mean length of the runs that were lost, and a trial
lasts until some runs would have been lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Final

import attrs

LOSS_THRESH: Final = 0.01
"""Share of losses beyond the floor that is not looked at; half of BBR.LossThresh of the draft."""
EXCESS_PACKETS_MIN: Final = 6
"""Losses beyond the floor that a phase needs (BBRStartupFullLossCnt of the draft)."""
DEVIATIONS: Final = 4
"""Standard deviations beyond the floor that chance does not reach."""
MEMORY_PACKETS: Final = 1000
"""The floor is what was lost of about so many datagrams."""
PRIOR_PACKETS: Final = 200.0
"""Datagrams of which none was lost, before any was sent: most paths lose little."""
FLOOR_MAX: Final = 0.6
"""More than this is lost on no path that is worth a link."""
VARIANCE_MIN: Final = 0.02
"""Of losses per datagram, at any floor."""
RUN_MEMORY_PACKETS: Final = 200
"""The mean run is that of about so many lost datagrams."""
TELLING_RUNS: Final = 4
"""A phase in which so many runs should have been lost and none was is no chance (2 %)."""
TELLING_PACKETS_MAX: Final = 1000
"""Longer than this many datagrams no trial takes for that."""


@attrs.define
class Phase:
    """What was sent in one phase, from ``began_at`` on, and what became of it; in bytes but for ``lost_packets``."""

    began_at: float
    acked: int = 0
    lost: int = 0

    @property
    def settled(self) -> int:
        """Return the bytes that were acknowledged or are lost."""
        return self.acked + self.lost

    @property
    def loss(self) -> float:
        """Return the share of bytes that was lost; 0 while nothing is settled."""
        return self.lost / self.settled if self.settled else 0.0


class LossFloor:
    """The phases of one link, and its loss floor."""

    def __init__(self, datagram_bytes: int, now: float) -> None:
        self.floor = 0.0
        self._datagram_bytes = datagram_bytes
        self._lost_packets = 1.0
        self._lost_runs = 1.0
        self._known = PRIOR_PACKETS
        self.phase = Phase(now)
        """That in which we send now."""
        self.previous = Phase(now)
        self.window = Phase(now)
        """What was sent lately in this phase."""

    def begin_phase(self, now: float) -> None:
        """Count what is sent from now on by itself."""
        self.previous, self.phase = self.phase, Phase(now)
        self.window = Phase(now)

    def begin_window(self, now: float) -> None:
        """Count what is sent from now on by itself, within the phase."""
        self.window = Phase(now)

    def on_ack(
        self, acked_bytes: int, sent_at: float, lost_batches: Iterable[tuple[float, int]], lost_runs: int = 0
    ) -> None:
        """Take note of what is acknowledged, the newest of it sent at ``sent_at``, and of what is lost, with the times
        at which that was sent, in so many runs of consecutive datagrams."""
        self._lost_runs += lost_runs
        phase, previous, window = self.phase, self.previous, self.window
        if acked_bytes and sent_at >= window.began_at:
            window.acked += acked_bytes
        if acked_bytes:
            if sent_at >= phase.began_at:
                phase.acked += acked_bytes
            elif sent_at >= previous.began_at:
                previous.acked += acked_bytes
        for lost_sent_at, lost_bytes in lost_batches:
            self._lost_packets += lost_bytes / self._datagram_bytes
            if lost_sent_at >= window.began_at:
                window.lost += lost_bytes
            if lost_sent_at >= phase.began_at:
                phase.lost += lost_bytes
            elif lost_sent_at >= previous.began_at:
                previous.lost += lost_bytes

        if self._lost_packets > RUN_MEMORY_PACKETS:
            self._lost_packets /= 2
            self._lost_runs /= 2

    def packets(self, phase: Phase) -> float:
        """Return how many full datagrams are settled of a phase."""
        return phase.settled / self._datagram_bytes

    def has_excess(self, phase: Phase, threshold: float = LOSS_THRESH) -> bool:
        """Return whether a phase loses this share more than the floor, and more than chance makes of that."""
        count = self.packets(phase)
        excess = phase.lost / self._datagram_bytes - count * self.floor
        return excess >= EXCESS_PACKETS_MIN + count * threshold and excess > DEVIATIONS * self._deviation(count)

    def _deviation(self, count: float) -> float:
        """Return the standard deviation of losses among so many datagrams, and of the floor that they compare with."""
        return sqrt(self._variance_per_packet() * count * (1 + count / self._known))

    def _variance_per_packet(self) -> float:
        return max(self.floor * (1 - self.floor) * (2 * self._mean_run() - 1), VARIANCE_MIN)

    def _mean_run(self) -> float:
        """Return how many consecutive datagrams are lost at once in the mean."""
        return max(self._lost_packets / max(self._lost_runs, 1.0), 1.0)

    def telling_packets(self, excess: float) -> float:
        """Return how many datagrams show whether a share of losses has gone."""
        return min(TELLING_RUNS * self._mean_run() / max(excess, 1e-3), TELLING_PACKETS_MAX)

    def learn(self, phase: Phase, is_sure: bool = False) -> None:
        """Add to the floor what a phase has lost in which we sent slower than the path delivers.

        ``is_sure``: a trial has shown so, and what it lost counts for as much as all before, if it is less.
        """
        count = self.packets(phase)
        if count < 1:
            return
        deviation = phase.lost / self._datagram_bytes - count * self.floor
        if deviation < -EXCESS_PACKETS_MIN - DEVIATIONS * self._deviation(count):
            self.set(phase)
            return
        self._known = min(self._known, count if is_sure and deviation < 0 else MEMORY_PACKETS)
        self.floor = min((self.floor * self._known + phase.loss * count) / (self._known + count), FLOOR_MAX)
        self._known += count

    def forget(self) -> None:
        """Begin to look for the floor again."""
        self.floor, self._known = 0.0, PRIOR_PACKETS

    def set(self, *phases: Phase) -> None:
        """Take what these phases have lost for the floor."""
        settled = sum(phase.settled for phase in phases)
        if settled:
            self.floor = min(sum(phase.lost for phase in phases) / settled, FLOOR_MAX)
            self._known = settled / self._datagram_bytes
