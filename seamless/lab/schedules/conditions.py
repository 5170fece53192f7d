"""Which nodes could reach each other, and when: what decides whether a reset was justified, or a stall a fault.

Faults tell `Conditions` what they take away and give back. A pair of nodes is *connected* while a chain of wires that
carry in both directions joins them over running nodes, of which those between them are neither leaves nor drop bulk.
Neither losses nor a smaller MTU part two nodes: the overlay promises to cope with them.

A connection helps only once links have come up over it. So it counts as *steady* from some seconds after its
beginning, and what lies between two steady times is a *gap*. Only a gap as long as ``give up`` justifies that a stream
is given up; shorter ones in a row add up unless there was a steady time between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

SETTLING: Final = 3.0
"""Seconds after which links, routes and sessions are back once there is a path."""
SETTLING_LOSSY: Final = 15.0
"""The same while some wire loses more than ``LOSSY`` of what it carries."""
LOSSY: Final = 0.1


class Conditions:
    """What is broken now, and for each pair of nodes that talks, when it was connected."""

    def __init__(
        self, wires: Iterable[tuple[str, str]], leaves: frozenset[str], pairs: Iterable[frozenset[str]]
    ) -> None:
        self.down: Counter[tuple[str, str]] = Counter()
        """Directions of wires that carry nothing, each with by how many faults."""
        self.absent: Counter[str] = Counter()
        """Nodes that are crashed or stopped."""
        self.dropping: Counter[str] = Counter()
        """Relays that drop bulk."""
        self.lossy: Counter[tuple[str, str]] = Counter()
        """Directions of wires that lose more than ``LOSSY``."""
        self.was_lossy = False
        self.was_absent = False
        self.asking_rarely_until = 0.0
        """Until when a session may still ask rarely, since nothing was heard for long while routes stayed."""
        self._wires = tuple(wires)
        self._leaves = leaves
        self._histories: dict[frozenset[str], list[tuple[float, bool]]] = {pair: [(0.0, True)] for pair in pairs}

    def changed(self, now: float) -> None:
        """Note who is connected from now on."""
        self.was_absent = self.was_absent or any(self.absent.values())
        self.was_lossy = self.was_lossy or any(self.lossy.values())
        for pair, history in self._histories.items():
            connected = self._are_connected(pair)
            if connected != history[-1][1]:
                history.append((now, connected))

    def _are_connected(self, pair: frozenset[str]) -> bool:
        one, other = sorted(pair)
        if self.absent[one] or self.absent[other]:
            return False
        reached, to_visit = {one}, [one]
        while to_visit:
            node = to_visit.pop()
            if node != one and (node in self._leaves or self.dropping[node]):
                continue
            for ends in self._wires:
                if node in ends and not self.down[ends] and not self.down[ends[::-1]]:
                    neighbor = ends[1 - ends.index(node)]
                    if neighbor not in reached and not self.absent[neighbor]:
                        reached.add(neighbor)
                        to_visit.append(neighbor)
        return other in reached

    def connected_since(self, pair: frozenset[str]) -> float | None:
        """Return since when a pair is connected; None when it is not."""
        at, connected = self._histories[pair][-1]
        return at if connected else None

    def excuse_stalls(self, now: float) -> bool:
        """Return whether a pair may stall though it is connected: a wire loses much, or a relay has dropped bulk.

        A session whose path carries hellos but no bulk doubles the time between two probes; no route changes when the
        relay is honest again, so that takes as long again.
        """
        return any(self.lossy.values()) or now < self.asking_rarely_until

    def gap_begun_at(self, pair: frozenset[str]) -> float | None:
        """Return since when a pair has no connection at all; None while it has."""
        at, connected = self._histories[pair][-1]
        return None if connected else at

    def longest_gap(self, pair: frozenset[str], since: float, now: float) -> float:
        """Return the length of the longest gap that was not over at ``since``, as far as it has lasted ``now``."""
        settling = SETTLING_LOSSY if self.was_lossy else SETTLING
        longest = 0.0
        begun_at = 0.0
        history = self._histories[pair]
        for index, (at, connected) in enumerate(history):
            until = history[index + 1][0] if index + 1 < len(history) else now
            if connected and until - at >= settling:
                if at + settling > since:
                    longest = max(longest, at + settling - begun_at)
                begun_at = until
        return max(longest, now - begun_at)
