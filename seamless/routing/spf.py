"""Shortest path first: from what all nodes say of their links to the shortest path to each of them.

Dijkstra's algorithm (RFC 2328, section 16.1) under four rules. A link counts only when both ends announce it, so that
the LSA of a dead node leads no packet into it. A path does not lead through a leaf, nor through a node that says it
does not know the destination. Of equally short paths all nodes take the one with the lowest identifiers, compared from
its start: then the rest of a path, seen from any node on it, is that node's own path, and a packet takes the way that
its first node computed for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Set
from typing import TypeAlias

import attrs

from seamless.routing.lsa import Lsa, LsaLink

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


def two_way_graph(lsas: Iterable[Lsa]) -> Graph:
    """Return the graph of the links that both of their ends announce."""
    said = {lsa.origin: lsa for lsa in lsas}
    announced = {(lsa.origin, link.neighbor) for lsa in said.values() for link in lsa.links}
    links = {
        origin: {link.neighbor: link for link in lsa.links if (link.neighbor, origin) in announced}
        for origin, lsa in said.items()
    }
    unknown: dict[int, set[int]] = {}
    for origin, lsa in said.items():
        for destination in lsa.unknown:
            unknown.setdefault(destination, set()).add(origin)
    return Graph(
        links,
        frozenset(origin for origin, lsa in said.items() if lsa.leaf),
        {destination: frozenset(origins) for destination, origins in unknown.items()},
    )


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
