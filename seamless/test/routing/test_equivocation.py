"""A node that signs two different LSAs with one sequence number, and one that says which nodes it does not know."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.lsa import MAX_UNKNOWN, Lsa, LsaLink, decode_lsa, digest_of, encode_lsa
from seamless.routing.origination import REFRESH_INTERVAL, UNKNOWN_PER_SECOND
from seamless.routing.spf import shortest_paths
from seamless.routing.table import MAX_UNKNOWN_SETS, compute_table
from seamless.test.routing.core import TOPOLOGY, RoutingTestCase, lsa_bytes
from seamless.test.routing.network import INCARNATION, MTU_BYTES, Network, graph_of, sign_as

COSTS = {(0, 1): 1, (1, 2): 1, (2, 3): 1, (0, 3): 1, (2, 9): 1, (0, 9): 1, (1, 4): 5, (3, 5): 5}
"""A ring of four with a villain, 9, across it, and two nodes beyond."""
LATER = INCARNATION + 5_000 << 22


class Deaf(Network):
    """A network in which node 9 is a villain: its core hears nothing."""

    def _deliver(self, times_cut: int, node: int, neighbor: int, data: bytes) -> None:
        if neighbor != 9:
            super()._deliver(times_cut, node, neighbor, data)


def announcement(sequence: int, *links: tuple[int, int]) -> bytes:
    """Return an LSA of node 9 with these links and costs."""
    return encode_lsa(Lsa(9, sequence, False, tuple(LsaLink(*link, MTU_BYTES) for link in links)), sign_as(9))


class EquivocationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Deaf(COSTS, seed=5, loss=0.1)
        self.network.join_all()
        self.network.run(2.0)

    def say(self, neighbor: int, data: bytes) -> None:
        self.network.cores[neighbor].receive_lsa(data, 9, self.network.now)
        self.network._drain(neighbor)

    def kept(self) -> set[bytes]:
        """Return the digests of the LSAs of node 9 that the others have."""
        return {
            digest_of(entry.data)
            for node, core in self.network.cores.items()
            for entry in core.status().lsas
            if entry.lsa.origin == 9 and node != 9
        }

    def test_all_keep_the_same_one_and_know_the_origin(self) -> None:
        """Whichever side hears which; without an order between the two, half of the nodes would keep either."""
        for turn in range(6):
            one = announcement(LATER + turn, (0, 1), (2, 1))
            other = announcement(LATER + turn, (0, 40 + turn), (2, 1))
            sides = (one, other) if turn % 2 else (other, one)
            self.say(0, sides[0])
            self.say(2, sides[1])
            self.network.run(2.0)
            self.assertEqual(self.kept(), {max(digest_of(one), digest_of(other))})
        for node, core in self.network.cores.items():
            if node != 9:
                for destination in set(self.network.cores) - {node, 9}:
                    self.assertEqual(self.network.walk(node, destination), core.path(destination))
        witnesses = [node for node, core in self.network.cores.items() if core.status().equivocators == {9}]
        self.assertTrue({0, 2} <= set(witnesses), witnesses)
        self.assertEqual(self.network.cores[0].take_equivocators(), [9])
        self.assertEqual(self.network.cores[0].take_equivocators(), [])

    def test_another_signature_of_the_same_is_no_contradiction(self) -> None:
        data = announcement(LATER, (0, 1), (2, 1))
        self.say(0, data)
        self.network.run(1.0)
        self.say(2, data[:-1] + bytes([data[-1] ^ 1]))
        self.assertEqual(self.network.cores[2].counters.lsas_equivocal, 0)
        self.assertEqual(self.network.cores[2].counters.lsas_duplicate > 0, True)

    def test_many_contradictions_are_bounded(self) -> None:
        """Only one that ranks higher goes on, and as rarely as any news of one origin; the origin is told of once."""
        delivered = self.network.delivered
        for number in range(400):
            self.say(0, announcement(LATER, (0, 1 + number), (2, 1)))
            self.network.run(0.002)
        self.network.run(2.0)
        self.assertEqual(len(self.kept()), 1)
        self.assertGreater(self.network.cores[0].counters.lsas_equivocal, 1)
        self.assertEqual(self.network.cores[0].take_equivocators(), [9])
        self.assertLess(self.network.delivered - delivered, 20 * 2 * len(COSTS))


class UnknownTests(RoutingTestCase):
    def announced(self) -> tuple[int, ...]:
        (lsa,) = self.own_lsas()
        return lsa.unknown

    def test_it_is_announced_at_once_and_once(self) -> None:
        self.core.note_unknown(77, 5.0)
        self.assertEqual(self.announced(), (77,))
        self.core.note_unknown(77, 6.0)
        self.assertEqual(self.own_lsas(), [])

    def test_nodes_that_are_known_are_not(self) -> None:
        self.core.note_unknown(4, 5.0)
        self.assertEqual(self.own_lsas(), [])

    def test_changes_of_links_keep_it(self) -> None:
        self.core.note_unknown(77, 5.0)
        self.own_lsas()
        self.core.link_down(3, 6.0)
        self.assertEqual(self.announced(), (77,))

    def test_made_up_nodes_cannot_flood(self) -> None:
        before = self.core.counters.lsas_originated
        seconds = 100
        for number in range(seconds * 100):
            now = 5.0 + number / 100
            self.core.note_unknown(1000 + number, now)
            self.core.handle_timeout(now)
        originated = self.core.counters.lsas_originated - before
        self.assertLessEqual(originated, MAX_UNKNOWN + seconds * UNKNOWN_PER_SECOND + 1 + seconds / REFRESH_INTERVAL)
        (newest,) = [lsa for lsa in self.own_lsas()]
        self.assertEqual(len(newest.unknown), MAX_UNKNOWN)
        self.assertEqual(decode_lsa(encode_lsa(newest, sign_as(1))), newest)

    def test_no_path_through_a_node_that_does_not_know_the_destination(self) -> None:
        self.core.receive_lsa(lsa_bytes(2, 5, [1, 3, 4]), 2, 2.0)
        self.core.receive_lsa(lsa_bytes(3, 5, [1, 2, 4]), 3, 2.0)
        self.core.receive_lsa(lsa_bytes(4, 5, [2, 3]), 3, 2.0)
        self.assertEqual(self.core.path(4), (1, 2, 4))
        links = tuple(LsaLink(neighbor, 10, MTU_BYTES) for neighbor in (1, 3, 4))
        ignorant = Lsa(2, 6, False, links, (4,))
        self.core.receive_lsa(encode_lsa(ignorant, sign_as(2)), 2, 3.0)
        self.assertEqual(self.core.path(4), (1, 3, 4))
        self.core.receive_lsa(encode_lsa(attrs.evolve(ignorant, sequence=7, unknown=()), sign_as(2)), 2, 4.0)
        self.assertEqual(self.core.path(4), (1, 2, 4))
        self.assertIn(4, TOPOLOGY.nodes)


def ladder(rungs: int, unknown: dict[int, tuple[int, ...]]) -> list[Lsa]:
    """Return a ladder 0-2-4-... over 1-3-5-..., its upper side the cheaper one, with what nodes do not know."""
    links: dict[int, dict[int, int]] = {node: {} for node in range(2 * rungs)}
    for rung in range(rungs):
        upper = 2 * rung
        for one, other, cost in ((upper, upper + 1, 1), (upper, upper + 2, 1), (upper + 1, upper + 3, 3)):
            if other < 2 * rungs:
                links[one][other] = links[other][one] = cost
    return [
        Lsa(
            node,
            1,
            False,
            tuple(LsaLink(other, cost, 1400) for other, cost in sorted(ends.items())),
            unknown.get(node, ()),
        )
        for node, ends in links.items()
    ]


class DetourTests(SynchronousTestCase):
    def test_every_node_on_the_way_goes_on_the_same_way(self) -> None:
        graph = graph_of(ladder(6, {4: (10, 11), 6: (9,)}))
        tables = {node: compute_table(graph, node) for node in graph.links}
        for source, table in tables.items():
            for destination, route in table.items():
                way = [source]
                while way[-1] != destination:
                    way.append(tables[way[-1]][destination].next_hop)
                self.assertEqual(tuple(way), route.path)
                self.assertTrue(graph.unknown.get(destination, frozenset()).isdisjoint(route.path[1:-1]))
                self.assertEqual(route.mtu_bytes, 1400)
        self.assertEqual(tables[0][8].path, (0, 2, 4, 6, 8))
        self.assertEqual(tables[0][10].path[:4], (0, 2, 3, 5))

    def test_no_way_around(self) -> None:
        graph = graph_of(ladder(6, {4: (10,), 5: (10,)}))
        self.assertNotIn(10, compute_table(graph, 0))
        self.assertIn(10, compute_table(graph, 4))
        self.assertIn(11, compute_table(graph, 0))

    def test_it_may_begin_or_end_where_it_must_not_lead_through(self) -> None:
        graph = graph_of(ladder(3, {}))
        self.assertEqual(shortest_paths(graph, 0, frozenset({0, 4}))[4][1], (0, 2, 4))

    def test_computations_are_bounded(self) -> None:
        """Each of many destinations is unknown to a set of nodes of its own."""
        rungs = 2 * MAX_UNKNOWN_SETS
        unknown: dict[int, list[int]] = {}
        for number in range(2 * MAX_UNKNOWN_SETS):
            destination = 2 * rungs - 2 - 2 * (number % 16) if number < 16 else 2 * rungs - 1 - number
            unknown.setdefault(2 * (number // 16) + 2, []).append(destination)
            unknown.setdefault(60 + 2 * (number % 16), []).append(destination)
        graph = graph_of(ladder(rungs, {node: tuple(sorted(set(lost))) for node, lost in unknown.items()}))
        table = compute_table(graph, 0)
        unreachable = set(graph.links) - set(table) - {0}
        self.assertTrue(unreachable)
        self.assertTrue(unreachable <= set(graph.unknown))
