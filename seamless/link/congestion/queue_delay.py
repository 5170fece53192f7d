"""What datagrams wait for in the queue of a path, told from its round trip times and the receiver's receive times.

The queue is what the round trip takes longer than the least lately (`min_rtt`). Where the receiver says when it
received (on its own clock), it is at most what the way there takes longer than the least: a queue on the way back, or a
process that lets acknowledgements wait, is none of ours. What the receiver says can only lower the estimate, so a
receiver that lies gets a longer queue, before itself.

On busy machines samples are late by milliseconds, and some are early by as much. So a queue counts only where a row of
samples shows it: all of a round (`standing`), or the last few (`recent`); and the least round trip follows the least of
each round, and not the one that was ever the shortest.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

MIN_RTT: Final = 1e-5
"""Seconds: no shorter round trip is believed."""
NEAR_MIN: Final = 0.0005
"""Seconds, or `NEAR_MIN_RATIO` of it, by which a sample may exceed the minimum and still confirm it."""
NEAR_MIN_RATIO: Final = 1 / 16
FIRST_ROUNDS: Final = 4
"""Rounds in which the least is taken as it is."""
MIN_WEIGHT: Final = 1 / 4
"""How fast the least round trip follows the rounds."""
RECENT_SAMPLES: Final = 8
"""As many as HyStart++ takes (RFC 9406)."""


class QueueDelay:
    """Estimates for one direction of a link, in seconds."""

    def __init__(self) -> None:
        self.min_rtt = inf
        """The least round trip lately."""
        self.confirmed_at = -inf
        """When a sample was last about as short as that."""
        self.latest = 0.0
        self.standing = 0.0
        """The least wait of the last whole round."""
        self._round_min = inf
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self._lowest_rtt = inf
        self._round_rtt = inf
        self._rounds = 0

    @property
    def recent(self) -> float:
        """Return the least of the last few samples; 0 while there are fewer."""
        return min(self._recent) if len(self._recent) == RECENT_SAMPLES else 0.0

    def sample(self, rtt: float, delay_variation: float, now: float) -> None:
        """Take in a round trip time, and how much longer than usual the way there took (infinity: not known)."""
        rtt = max(rtt, MIN_RTT)
        if self._rounds < FIRST_ROUNDS:
            self.min_rtt = min(self.min_rtt, rtt)
        self._round_rtt = min(self._round_rtt, rtt)
        if rtt <= self.min_rtt + max(NEAR_MIN, self.min_rtt * NEAR_MIN_RATIO):
            self.confirmed_at = now
        self._lowest_rtt = min(self._lowest_rtt, rtt)
        excess = max(0.0, min(rtt - self.min_rtt, delay_variation))
        self.latest = excess
        self._round_min = min(self._round_min, excess)
        self._recent.append(excess)

    def end_round(self) -> None:
        """Begin another round."""
        if self._round_min != inf:
            self.standing = self._round_min
            self._rounds += 1
        if self._round_rtt < self.min_rtt:
            self.min_rtt += MIN_WEIGHT * (self._round_rtt - self.min_rtt)
        self._round_min = self._round_rtt = inf

    def drained(self) -> None:
        """Take note that what is left of the queue is what stays when we send slower: it belongs to the path."""
        self.min_rtt += MIN_WEIGHT * self.standing

    def mark(self) -> None:
        """Begin to look for the lowest from here (`rebase`)."""
        self._lowest_rtt = inf

    def rebase(self, now: float) -> None:
        """Take the lowest since `mark` for the path without a queue."""
        if self._lowest_rtt != inf:
            self.min_rtt = self._lowest_rtt
            self.confirmed_at = now
        self.standing = self.latest = 0.0
        self._recent.clear()
        self._round_min = self._round_rtt = inf
