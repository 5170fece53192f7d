"""Shortest path first: from the links of all nodes (`seamless.routing.graph`) to the shortest path to each of them.

Dijkstra's algorithm (RFC 2328, section 16.1) under three rules. A path does not lead through a leaf, nor through a node
that says it does not know the destination. Of equally short paths all nodes take the one with the lowest identifiers,
compared from its start: then the rest of a path, seen from any node on it, is that node's own path, and a packet takes
the way that its first node computed for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Set
from typing import TypeAlias

import attrs

from seamless.routing.lsa import LsaLink

Path: TypeAlias = tuple[int, ...]
"""Node identifiers from the source to the destination, both included."""


@attrs.frozen
class Route:
    """The way to one destination; ``path`` begins with the local node, ``mtu_bytes`` is that of its narrowest link."""

    destination: int
    next_hop: int
    path: Path
    distance: int
    mtu_bytes: int


@attrs.frozen
class Graph:
    """The links that may be used: for each node its links by neighbor; and the nodes that no path leads through."""

    links: Mapping[int, Mapping[int, LsaLink]]
    leaves: frozenset[int]
    unknown: Mapping[int, frozenset[int]] = attrs.field(factory=dict)
    """By destination: the nodes that say that they do not know it."""
    tables: dict[int, Mapping[int, Route]] = attrs.field(factory=dict, eq=False, repr=False)
    """Routing tables computed from this graph so far, by node (`seamless.routing.table.table_of`)."""


def shortest_paths(graph: Graph, source: int, avoided: Set[int] = frozenset()) -> dict[int, tuple[int, Path]]:
    """Return (distance, path) for every node that can be reached from ``source``, itself included, nearest first.

    No path leads through a node of ``avoided``; it may begin or end there.
    """
    found: dict[int, tuple[int, Path]] = {}
    best: dict[int, tuple[int, Path]] = {source: (0, (source,))}
    heap = list(best.values())
    no_transit = graph.leaves | avoided
    while heap:
        shortest = heapq.heappop(heap)
        distance, path = shortest
        node = path[-1]
        if node in found:
            continue
        found[node] = shortest
        if node in no_transit and node != source:
            continue
        for neighbor, link in graph.links[node].items():
            longer = distance + link.cost
            known = best.get(neighbor)
            if known is None or longer < known[0] or (longer == known[0] and (*path, neighbor) < known[1]):
                best[neighbor] = longer, (*path, neighbor)
                heapq.heappush(heap, best[neighbor])
    return found
