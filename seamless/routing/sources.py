"""Which sources a packet that comes from a neighbor may have: feasible-path reverse path forwarding (RFC 3704, 2.3).

It stands at a node's entrance, before anything is done for an overlay packet. By configuration, and not by the paths of
now, since these differ from node to node while a link's death is being flooded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from seamless.routing.lsdb import Topology


def feasible_sources(topology: Topology, local: int) -> dict[int, frozenset[int]]:
    """Return, for every neighbor of ``local``, the nodes from which a path leads to it and on to ``local``.

    A path leads neither through ``local`` before it ends there, nor through a leaf: from a leaf come packets in its own
    name only.
    """
    neighbors: defaultdict[int, set[int]] = defaultdict(set)
    for one, other in map(tuple, topology.links):
        neighbors[one].add(other)
        neighbors[other].add(one)
    sources: dict[int, frozenset[int]] = {}
    for neighbor in neighbors[local]:
        if neighbor in topology.leaves:
            sources[neighbor] = frozenset((neighbor,))
        elif neighbor not in sources:
            reached = _reached(neighbors, topology.leaves, neighbor, local)
            relays = (neighbors[local] & reached) - topology.leaves
            sources.update(dict.fromkeys(relays, reached))
    return sources


def _reached(neighbors: Mapping[int, set[int]], leaves: frozenset[int], start: int, without: int) -> frozenset[int]:
    """Return the nodes from which a path leads to the relay ``start`` while ``without`` is not there."""
    reached = {start}
    waiting = [start]
    while waiting:
        for node in neighbors[waiting.pop()] - reached - {without}:
            reached.add(node)
            if node not in leaves:
                waiting.append(node)
    return frozenset(reached)
