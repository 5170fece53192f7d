"""Route policies: which of its links a node sends a run of packets by.

A policy stands between the routing tables and forwarding. It is asked once for each run of packets with the same
header, and answers with neighbors: the run goes to each of them, so an empty answer drops it. All nodes of an overlay
should have the same policy, since hop-by-hop paths are free of loops only when every node chooses alike.

A further policy is a class here and one line in `_POLICIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from seamless.errors import LocalProtocolError


class RoutePolicy(Protocol):
    """Chooses the neighbors that a node sends packets to."""

    name: str

    def next_hops(self, source: int, destination: int, packet_class: int) -> Sequence[int]:
        """Return the neighbors to which packets of this header go, a copy to each; none when there is no path."""
        ...

    def next_hops_around(self, neighbor: int, source: int, destination: int, packet_class: int) -> Sequence[int]:
        """Return the neighbors to which packets go that the links to ``neighbor`` could not deliver."""
        ...


class NextHops(Protocol):
    """What policies ask of routing (`seamless.routing.routing.Routing`)."""

    def next_hop(self, destination: int) -> int | None:
        """Return the next hop of packets in transit."""
        ...

    def own_next_hop(self, destination: int) -> int | None:
        """Return the next hop of packets that this node itself sends."""
        ...

    def next_hop_around(self, neighbor: int, source: int, destination: int) -> int | None:
        """Return the next hop of the best path that does not begin with ``neighbor``."""
        ...


class ShortestPath:
    """Hop-by-hop shortest paths: one neighbor. Only the node's own packets may take a detour."""

    name = "shortest path"

    def __init__(self, local: int, routing: NextHops) -> None:
        self._local = local
        self._routing = routing

    def next_hops(self, source: int, destination: int, packet_class: int) -> Sequence[int]:
        """Return the next hop of the shortest path."""
        routing = self._routing
        hop = routing.own_next_hop(destination) if source == self._local else routing.next_hop(destination)
        return () if hop is None else (hop,)

    def next_hops_around(self, neighbor: int, source: int, destination: int, packet_class: int) -> Sequence[int]:
        """Return the best loop-free alternate."""
        hop = self._routing.next_hop_around(neighbor, source, destination)
        return () if hop is None else (hop,)


_POLICIES: Final[Mapping[str, Callable[[int, NextHops], RoutePolicy]]] = {ShortestPath.name: ShortestPath}


def make_policy(name: str, local: int, routing: NextHops) -> RoutePolicy:
    """Return the policy of this name for the node ``local``; raise `LocalProtocolError` when there is none."""
    if name not in _POLICIES:
        raise LocalProtocolError(f"there is no route policy {name!r}; there is {', '.join(map(repr, _POLICIES))}")
    return _POLICIES[name](local, routing)
