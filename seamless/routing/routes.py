"""The routes of a node as they are now: when they are computed, and what changed since the node last looked.

Rules:

* What our own links do counts at once.
* What this node sends itself may take a detour (`seamless.routing.detours`), what it forwards never does: so there are
  two tables, and what changes in the node's own is announced.
* The news of others is gathered: after a quiet time it counts at once, then the table is computed at most every
  `SPF_NODE_INTERVAL` for each node in the database. Lookups meanwhile answer from the table that there is.
* News that changes no link that both ends announce computes nothing (`seamless.routing.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

import attrs

from seamless.routing.alternates import loop_free_alternate
from seamless.routing.capacity import PathCapacity, path_capacity
from seamless.routing.counters import RoutingCounters
from seamless.routing.detours import Detours
from seamless.routing.graph import LiveGraph
from seamless.routing.lsa import Lsa
from seamless.routing.spf import Graph, Route
from seamless.routing.table import (
    MAX_UNKNOWN_SETS,
    Table,
    changed_destinations,
    compute_table,
    own_table,
    severed_destinations,
)

SPF_NODE_INTERVAL: Final = 0.0002
"""Seconds for each node in the database, between two computations of the table that other nodes' LSAs cause: twenty
times what one takes, so that no news can take more than a twentieth of a processor. 0.2 s with 1,000 nodes."""


@attrs.frozen
class RoutesChanged:
    """These destinations were gained, lost, or are reached by another path or with another MTU.

    Of those that can be reached, what is under way to the ``severed`` ones may be gone.
    """

    destinations: frozenset[int]
    severed: frozenset[int]


class Routes:
    """The table of the node ``local``, computed from what ``lsas()`` returns."""

    def __init__(self, local: int, lsas: Callable[[], list[Lsa]], counters: RoutingCounters) -> None:
        self._local = local
        self._lsas = lsas
        self._counters = counters
        self._nodes = 0
        self._live_graph = LiveGraph()
        self._graph: Graph = self._live_graph.graph
        self._table: Table = {}
        self._known_table: Table = {}
        """The shortest routes that meet no node that does not know us..."""
        self._own_table: Table = {}
        """...and these with their detours."""
        self._announced_table: Table = {}
        self._detours = Detours(local)
        self._left: set[int] = set()
        self._computed_at = float("-inf")
        self._compute_at: float | None = None

    def keep_only(self, nodes: Set[int]) -> None:
        """Forget what is remembered of all other nodes."""
        self._detours.keep_only(nodes)
        self._left &= nodes

    def changed_here(self, now: float) -> None:
        """Compute the routes at the next look: our own links, or which nodes count, have changed."""
        self._compute_at = now

    def changed_elsewhere(self, now: float) -> None:
        """Compute the routes soon: another node's LSA says something new."""
        if self._compute_at is None:
            computations = 1 + min(MAX_UNKNOWN_SETS, len(set(self._graph.unknown.values())))
            self._compute_at = max(now, self._computed_at + SPF_NODE_INTERVAL * self._nodes * computations)

    def next_timeout(self, now: float) -> float | None:
        """Return when `handle_timeout` has something to do; None when all is good, or done with the next look."""
        compute_at, expires_at = self._compute_at, self._detours.next_expiry()
        if compute_at is None or compute_at <= now:
            return expires_at
        return compute_at if expires_at is None else min(compute_at, expires_at)

    def handle_timeout(self, now: float) -> None:
        """End the detours whose time is over."""
        if self._detours.expire(now):
            self.table(now)
            self._own_table = self._detours.apply(self._known_table, self._graph)

    def avoid(self, destination: int, now: float) -> bool:
        """Send our own packets to ``destination`` another way for a while; return False when there is none."""
        route = self.own(destination, now)
        if route is None:
            return False
        found = self._detours.avoid(route, self._graph, now)
        self._counters.detours += found
        self._left.add(destination)
        self._own_table = self._detours.apply(self._known_table, self._graph)
        return found

    def table(self, now: float) -> Table:
        """Return the shortest routes by destination, for packets in transit."""
        if self._compute_at is not None and now >= self._compute_at:
            lsas = self._lsas()
            self._nodes = len(lsas)
            self._compute_at, self._computed_at = None, now
            graph = self._live_graph.update(lsas)
            if graph is not self._graph:
                self._compute(graph)
        return self._table

    def _compute(self, graph: Graph) -> None:
        self._graph = graph
        self._table = compute_table(graph, self._local, self._table)
        self._known_table = own_table(graph, self._local, self._table)
        self._own_table = self._detours.apply(self._known_table, graph)
        self._counters.table_computations += 1

    def get(self, destination: int, now: float) -> Route | None:
        """Return the shortest route to ``destination``; None when there is no way, or it is ourselves."""
        return self.table(now).get(destination)

    def own_table(self, now: float) -> Table:
        """Return the routes of our own packets by destination."""
        self.table(now)
        return self._own_table

    def own(self, destination: int, now: float) -> Route | None:
        """Return the route of our own packets to ``destination``; None when there is no way."""
        return self.own_table(now).get(destination)

    def capacity(self, destination: int, now: float) -> PathCapacity | None:
        """Return what the path of our own packets carries from ``destination`` to us; None when it is not known."""
        route = self.own(destination, now)
        return None if route is None else path_capacity(self._graph, route.path)

    def around(self, neighbor: int, source: int, destination: int, now: float) -> Route | None:
        """Return the best route for packets of ``source`` that neither begins with ``neighbor`` nor leads back here."""
        self.table(now)
        return loop_free_alternate(self._graph, self._local, source, destination, {neighbor})

    def next_event(self, now: float) -> RoutesChanged | None:
        """Return what changed in the table since the last event, all at once."""
        table = self.own_table(now)
        if table is self._announced_table:
            return None
        changed = changed_destinations(self._announced_table, table)
        # What is on a path that was left because it carried nothing is as good as lost.
        severed = severed_destinations(changed, self._announced_table, table, self._graph) | (self._left & changed)
        self._left.clear()
        self._announced_table = table
        return RoutesChanged(changed, severed) if changed else None
