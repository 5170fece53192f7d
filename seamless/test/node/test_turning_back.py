"""Packets that go back to the neighbor that they came from: a few hops, and not all that their hop limit allows."""

from __future__ import annotations

from itertools import combinations
from typing import Any, cast

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.events import Accepted
from seamless.node.forwarding import TURNED_BACK_HOPS, Forwarding
from seamless.node.status import NodeCounters
from seamless.routing.lsdb import Topology
from seamless.routing.policies import ShortestPath
from seamless.wire.header import INITIAL_HOP_LIMIT, PACKET_HEADER
from seamless.wire.traffic_class import CLASS_BULK


@attrs.define
class _Settings:
    neighbor_id: int


@attrs.define
class _Link:
    """A link to a neighbor that only keeps what is queued."""

    settings: _Settings
    packets: list[bytes] = attrs.Factory(list)

    def enqueue(self, packets: list[bytes], packet_class: int, flow: bytes, now: float) -> Accepted:
        self.packets += packets
        return Accepted(0, 0.0)


class _View:
    """What one node believes: its path to each destination, and a link to each neighbor."""

    def __init__(self, *paths: tuple[int, ...]) -> None:
        self.paths = {path[-1]: path for path in paths}
        self.links = {path[1]: _Link(_Settings(path[1])) for path in paths}

    def transit_path(self, destination: int) -> tuple[int, ...]:
        return self.paths.get(destination, ())

    def next_hop(self, destination: int) -> int | None:
        return self.paths[destination][1] if destination in self.paths else None

    def best(self, neighbor: int) -> _Link:
        return self.links[neighbor]


def relay(identifier: int, view: _View) -> tuple[Forwarding, NodeCounters]:
    counters = NodeCounters()
    forwarding = Forwarding(
        identifier=identifier,
        topology=Topology(frozenset(range(10)), frozenset(map(frozenset, combinations(range(10), 2)))),
        links=cast(Any, view),
        routing=cast(Any, view),
        policy=ShortestPath(identifier, cast(Any, view)),
        counters=counters,
        deliver_here=lambda *_: None,
    )
    return forwarding, counters


class TurningBackTests(SynchronousTestCase):
    """Nodes 1 and 2 between source 0 and destination 9; what each believes is given."""

    def bounce(self, one: _View, two: _View) -> tuple[int, NodeCounters]:
        """Let a packet for 9 come to node 1 from 0; return how often 1 and 2 handed it to one another."""
        sides = {1: relay(1, one), 2: relay(2, two)}
        views = {1: one, 2: two}
        packet = PACKET_HEADER.pack(CLASS_BULK, INITIAL_HOP_LIMIT, 0, 9) + b"payload"
        at, came_by, hops = 1, _Link(_Settings(0)), 0
        while True:
            sides[at][0].receive([packet], cast(Any, came_by), 0.0)
            sent = [link for link in views[at].links.values() if link.packets]
            if not sent or sent[0].settings.neighbor_id not in sides:
                return hops, sides[at][1]
            packet = sent[0].packets.pop()
            at, came_by, hops = sent[0].settings.neighbor_id, _Link(_Settings(at)), hops + 1

    def test_two_that_disagree(self) -> None:
        """Each takes the other for the way: without a bound it takes 31 hops."""
        hops, counters = self.bounce(_View((1, 2, 9)), _View((2, 1, 9)))
        self.assertEqual(hops, 2 + TURNED_BACK_HOPS + 1)
        self.assertEqual(counters.hop_limit, 1)

    def test_one_that_knows_more(self) -> None:
        """Node 2 has lost its link to 9 and turns the packet back; node 1 sends it the other way, however long."""
        view = _View((2, 1, 3, 4, 5, 6, 9))
        forwarding, counters = relay(2, view)
        packet = PACKET_HEADER.pack(CLASS_BULK, INITIAL_HOP_LIMIT - 1, 0, 9) + b"payload"
        forwarding.receive([packet], cast(Any, _Link(_Settings(1))), 0.0)
        (back,) = view.links[1].packets
        self.assertEqual(PACKET_HEADER.unpack_from(back)[1], 6 + TURNED_BACK_HOPS)
        self.assertEqual(counters.turned_back, 1)

    def test_what_is_not_turned_back_keeps_its_hops(self) -> None:
        view = _View((1, 2, 9))
        forwarding, counters = relay(1, view)
        forwarding.receive([PACKET_HEADER.pack(CLASS_BULK, 20, 0, 9)], cast(Any, _Link(_Settings(0))), 0.0)
        self.assertEqual(PACKET_HEADER.unpack_from(view.links[2].packets[0])[1], 19)
        self.assertEqual(counters.turned_back, 0)
