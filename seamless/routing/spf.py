"""Shortest path first: from what all nodes say of their links to the shortest path to each of them.

Dijkstra's algorithm (RFC 2328, section 16.1) under three rules. A link counts only when both ends announce it, so that
the LSA of a dead node leads nobody into it. A path does not lead through a leaf. Of equally short paths the one with
the lowest identifiers, compared from its start, is taken by everybody: then the rest of a path, seen from any node on
it, is that node's own path, and a packet takes the way that its first node computed for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import attrs

from seamless.routing.lsa import Lsa, LsaLink

Path: TypeAlias = tuple[int, ...]
"""Node identifiers from the source to the destination, both included."""


@attrs.frozen
class Graph:
    """The links that may be used: for each node its links by neighbor; and the nodes that no path leads through."""

    links: Mapping[int, Mapping[int, LsaLink]]
    leaves: frozenset[int]


def two_way_graph(lsas: Iterable[Lsa]) -> Graph:
    """Return the graph of the links that both of their ends announce."""
    said = {lsa.origin: lsa for lsa in lsas}
    announced = {(lsa.origin, link.neighbor) for lsa in said.values() for link in lsa.links}
    links = {
        origin: {link.neighbor: link for link in lsa.links if (link.neighbor, origin) in announced}
        for origin, lsa in said.items()
    }
    return Graph(links, frozenset(origin for origin, lsa in said.items() if lsa.leaf))


def shortest_paths(graph: Graph, source: int) -> dict[int, tuple[int, Path]]:
    """Return (distance, path) for every node that can be reached from ``source``, itself included."""
    found: dict[int, tuple[int, Path]] = {}
    heap: list[tuple[int, Path]] = [(0, (source,))]
    while heap:
        distance, path = heapq.heappop(heap)
        node = path[-1]
        if node in found:
            continue
        found[node] = distance, path
        if node == source or node not in graph.leaves:
            for neighbor, link in graph.links[node].items():
                if neighbor not in found:
                    heapq.heappush(heap, (distance + link.cost, (*path, neighbor)))
    return found
