"""The routing table: what a node looks up when it has a batch for some destination."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import pairwise
from typing import Final, TypeAlias

from seamless.routing.lsa import MAX_MTU_BYTES
from seamless.routing.spf import Graph, Path, Route, shortest_paths

Table: TypeAlias = Mapping[int, Route]
"""Routes by destination; a node that is not in it cannot be reached. The local node is not in it."""
NO_ROUTES: Final[Table] = {}

MAX_UNKNOWN_SETS: Final = 64
"""Computations for destinations that some nodes do not know: one for each set of such nodes."""
MAX_NEIGHBORS_ASKED: Final = 8
"""Neighbors whose routes are computed for a way around nodes that do not know us."""


def compute_table(graph: Graph, local: int, former: Table = NO_ROUTES) -> Table:
    """Return the routes from ``local`` to all nodes that can be reached; those that are as in ``former`` are the same
    objects."""
    found = shortest_paths(graph, local)
    routes = {}
    mtu: dict[int, int] = {local: MAX_MTU_BYTES}
    for destination, (distance, path) in found.items():
        if destination != local:
            # The node before it on the path is nearer, so its MTU is known.
            before = path[-2]
            mtu_bytes = mtu[destination] = min(mtu[before], graph.links[before][destination].mtu_bytes)
            known = former.get(destination)
            if known is None or (known.distance, known.mtu_bytes, known.path) != (distance, mtu_bytes, path):
                known = Route(destination, path[1], path, distance, mtu_bytes)
            routes[destination] = known
    _lead_around_unknown(graph, local, routes)
    return routes


def table_of(graph: Graph, node: int) -> Table:
    """Return the routes from ``node``, computed once for each graph."""
    table = graph.tables.get(node)
    if table is None:
        table = graph.tables[node] = compute_table(graph, node)
    return table


def _lead_around_unknown(graph: Graph, local: int, routes: dict[int, Route]) -> None:
    """Lead ``routes`` around the nodes that do not know their destination; without a way around there is no route.

    Beyond `MAX_UNKNOWN_SETS` sets of such nodes a destination has no route: an announcement costs less than a
    computation.
    """
    around: dict[frozenset[int], dict[int, tuple[int, Path]]] = {}
    for destination, avoided in sorted(graph.unknown.items()):
        route = routes.get(destination)
        if route is None or avoided.isdisjoint(route.path[1:-1]):
            continue
        if avoided not in around and len(around) < MAX_UNKNOWN_SETS:
            around[avoided] = shortest_paths(graph, local, avoided)
        found = around.get(avoided, {}).get(destination)
        if found is None:
            del routes[destination]
        else:
            distance, path = found
            mtu_bytes = min(graph.links[node][neighbor].mtu_bytes for node, neighbor in pairwise(path))
            routes[destination] = Route(destination, path[1], path, distance, mtu_bytes)


def own_table(graph: Graph, local: int, table: Table) -> Table:
    """Return the routes of the packets of ``local``: ``table`` without paths through nodes that do not know ``local``.

    Those drop its packets, and announce that they do not know it. Packets are forwarded by destination, so a way around
    is one of a neighbor's own routes: the cheapest of those that meet no such node, and do not lead back here.
    """
    lacking_us = graph.unknown.get(local)
    if not lacking_us:
        return table
    kept = {destination: route for destination, route in table.items() if lacking_us.isdisjoint(route.path)}
    lost = table.keys() - kept.keys() - lacking_us
    by_cost = sorted((link.cost, neighbor) for neighbor, link in graph.links[local].items())
    for _, neighbor in [each for each in by_cost if each[1] not in lacking_us][:MAX_NEIGHBORS_ASKED] if lost else ():
        link = graph.links[local][neighbor]
        theirs = {} if neighbor in graph.leaves else table_of(graph, neighbor)
        for destination in lost & theirs.keys():
            onward = theirs[destination]
            distance = link.cost + onward.distance
            known = kept.get(destination)
            if local in onward.path or not lacking_us.isdisjoint(onward.path):
                continue
            if known is None or distance < known.distance:
                mtu_bytes = min(link.mtu_bytes, onward.mtu_bytes)
                kept[destination] = Route(destination, neighbor, (local, *onward.path), distance, mtu_bytes)
    return kept


def changed_destinations(before: Table, after: Table) -> frozenset[int]:
    """Return the destinations that were gained, lost, or have another path or MTU."""
    here_now = (node for node, route in after.items() if not _is_the_same_way(before.get(node), route))
    return frozenset(before.keys() - after.keys()).union(here_now)


def severed_destinations(destinations: Set[int], before: Table, after: Table, graph: Graph) -> frozenset[int]:
    """Return those of ``destinations`` that are in ``after`` and to which packets under way may not get there: their
    path before has lost a link, or was none at all. On a path that is merely not the best any more they do, and on one
    that carries shorter packets than before relays cut them anew."""
    return frozenset(
        destination
        for destination in destinations
        if destination in after and not _still_carries(before.get(destination), graph)
    )


def _still_carries(old: Route | None, graph: Graph) -> bool:
    return old is not None and all(neighbor in graph.links.get(node, ()) for node, neighbor in pairwise(old.path))


def _is_the_same_way(one: Route | None, other: Route) -> bool:
    return one is other or (one is not None and one.path == other.path and one.mtu_bytes == other.mtu_bytes)
