"""The routing table: what a node looks up when it has a batch for some destination."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TypeAlias

import attrs

from seamless.routing.spf import Graph, shortest_paths


@attrs.frozen
class Route:
    """The way to one destination; ``path`` begins with the local node, ``mtu_bytes`` is that of its narrowest link."""

    destination: int
    next_hop: int
    path: tuple[int, ...]
    distance: int
    mtu_bytes: int


Table: TypeAlias = Mapping[int, Route]
"""Routes by destination; who is not in it cannot be reached. The local node is not in it."""


def compute_table(graph: Graph, local: int) -> Table:
    """Return the routes from ``local`` to all nodes that can be reached."""
    routes = {}
    for destination, (distance, path) in shortest_paths(graph, local).items():
        if destination != local:
            mtu_bytes = min(graph.links[node][neighbor].mtu_bytes for node, neighbor in pairwise(path))
            routes[destination] = Route(destination, path[1], path, distance, mtu_bytes)
    return routes


def changed_destinations(before: Table, after: Table) -> frozenset[int]:
    """Return the destinations that were gained, lost, or have another path or MTU."""
    return frozenset(
        destination
        for destination in before.keys() | after.keys()
        if _way(before, destination) != _way(after, destination)
    )


def severed_destinations(before: Table, after: Table, graph: Graph) -> frozenset[int]:
    """Return the destinations of ``after`` to which packets under way may not get there: their path before has lost a
    link, carried longer packets, or was none at all. On a path that is merely not the best any more they do."""
    return frozenset(
        destination for destination in after if not _still_carries(before.get(destination), after[destination], graph)
    )


def _still_carries(old: Route | None, new: Route, graph: Graph) -> bool:
    if old is None or new.mtu_bytes < old.mtu_bytes:
        return False
    return all(neighbor in graph.links.get(node, ()) for node, neighbor in pairwise(old.path))


def _way(table: Table, destination: int) -> tuple[tuple[int, ...], int] | None:
    route = table.get(destination)
    return None if route is None else (route.path, route.mtu_bytes)
