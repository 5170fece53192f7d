"""Detours: other ways to destinations whose path carries nothing although its links are UP.

Links and hellos say nothing about a relay that forwards nothing, or only what is small. The two ends of a session
notice, and ask for another way for what they send themselves. Forwarding is hop by hop, so a node chooses its first hop
alone: a detour begins with a loop-free alternate (`seamless.routing.alternates`), of those with the one whose path has
the fewest relays in common with the paths that failed.

The rules:

* A detour is for packets of this node's own sessions. Packets in transit go by the shortest path at every relay, so a
  detour ends in shortest paths after one hop, and cannot loop, whatever detours other nodes have.
* A detour lasts `FIRST_SECONDS`, then the shortest path gets another chance; twice as long each time that it fails
  again, up to `MAX_SECONDS`; and begins anew when it was good for `FORGET_SECONDS`.
* A detour that fails as well is left for the next one. When none is left, the shortest path is tried again.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import attrs

from seamless.routing.alternates import loop_free_alternate
from seamless.routing.spf import Graph, Route
from seamless.routing.table import Table

FIRST_SECONDS: Final = 10.0
"""Several times what it takes to notice that the shortest path still fails."""
MAX_SECONDS: Final = 300.0
FORGET_SECONDS: Final = 600.0


@attrs.define
class Detour:
    """What is avoided on the way to one destination: first hops, and relays of the paths that failed."""

    first_hops: set[int] = attrs.Factory(set)
    relays: set[int] = attrs.Factory(set)
    until: float = float("-inf")
    failures: int = 0


class Detours:
    """All detours of the node ``local``."""

    def __init__(self, local: int) -> None:
        self._local = local
        self._detours: dict[int, Detour] = {}

    def avoid(self, route: Route, graph: Graph, now: float) -> bool:
        """Avoid the path of ``route``; return False when there is no other."""
        detour = self._detours.setdefault(route.destination, Detour())
        if now >= detour.until:
            detour.failures = 1 if now >= detour.until + FORGET_SECONDS else detour.failures + 1
            detour.first_hops.clear()
            detour.relays.clear()
        detour.first_hops.add(route.next_hop)
        detour.relays.update(route.path[1:-1])
        if self._alternate(graph, route.destination, detour) is None:
            # All have failed. The shortest path is as good as any, and whether it may be left again is up to the next.
            detour.first_hops.clear()
            detour.relays.clear()
            return False
        detour.until = now + min(FIRST_SECONDS * 2.0 ** (detour.failures - 1), MAX_SECONDS)
        return True

    def keep_only(self, destinations: Set[int]) -> None:
        """Forget the detours to all other nodes."""
        self._detours = {node: detour for node, detour in self._detours.items() if node in destinations}

    def next_expiry(self) -> float | None:
        """Return when `expire` has something to do."""
        return min((detour.until for detour in self._detours.values() if detour.first_hops), default=None)

    def expire(self, now: float) -> bool:
        """End the detours that lasted long enough; return whether there were any."""
        over = [detour for detour in self._detours.values() if detour.first_hops and now >= detour.until]
        for detour in over:
            detour.first_hops.clear()
        return bool(over)

    def apply(self, table: Table, graph: Graph) -> Table:
        """Return ``table`` with the detours in it."""
        routes = {
            destination: self._alternate(graph, destination, detour)
            for destination, detour in self._detours.items()
            if detour.first_hops and destination in table
        }
        found = {destination: route for destination, route in routes.items() if route is not None}
        return {**table, **found} if found else table

    def _alternate(self, graph: Graph, destination: int, detour: Detour) -> Route | None:
        return loop_free_alternate(graph, self._local, self._local, destination, detour.first_hops, detour.relays)
