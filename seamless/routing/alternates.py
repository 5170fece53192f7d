"""Loop-free alternates (RFC 5286): first hops other than that of the shortest path.

Forwarding is hop by hop, so a node that leaves its shortest path chooses its first hop alone. A neighbor will do when
its own shortest path to the destination does not lead back through this node: from there the packet goes by shortest
paths, and cannot loop. Detours (`seamless.routing.detours`) and packets that a link has given back
(`seamless.routing.policies`) are sent this way.
"""

from __future__ import annotations

from collections.abc import Set

from seamless.routing.spf import Graph, Route
from seamless.routing.table import table_of


def loop_free_alternate(
    graph: Graph,
    local: int,
    source: int,
    destination: int,
    avoided_first_hops: Set[int],
    avoided_relays: Set[int] = frozenset(),
) -> Route | None:
    """Return the best route from ``local`` for packets of ``source`` that begins with no avoided first hop, or None.

    The best has the fewest relays in ``avoided_relays``, and of those the least distance. It meets no node that does
    not know the source or the destination.
    """
    without_transit = graph.leaves | graph.unknown.get(destination, frozenset())
    lacking_source = graph.unknown.get(source, frozenset())
    best: tuple[int, int, tuple[int, ...]] | None = None
    mtu_bytes = 0
    for neighbor, link in graph.links.get(local, {}).items():
        if neighbor in avoided_first_hops or neighbor in lacking_source:
            continue
        if neighbor == destination:
            onward = Route(destination, destination, (destination,), 0, link.mtu_bytes)
        elif neighbor in without_transit:
            continue
        else:
            found = table_of(graph, neighbor).get(destination)
            if found is None or local in found.path or not lacking_source.isdisjoint(found.path):
                continue
            onward = found
        relays = sum(relay in avoided_relays for relay in onward.path[:-1])
        candidate = relays, link.cost + onward.distance, (local, *onward.path)
        if best is None or candidate < best:
            best, mtu_bytes = candidate, min(link.mtu_bytes, onward.mtu_bytes)
    return None if best is None else Route(destination, best[2][1], best[2], best[1], mtu_bytes)
