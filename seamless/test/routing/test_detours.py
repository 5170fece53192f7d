"""Detours on random graphs: they never loop, and avoid what failed where a first hop can."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.detours import FIRST_SECONDS, Detours
from seamless.routing.lsa import LsaLink
from seamless.routing.spf import Graph
from seamless.routing.table import compute_table

NODES = 8
GRAPHS = 200


def random_graph(randomness: Random) -> Graph:
    """Return a graph in which about a third of all pairs of nodes have a link, and node 7 is a leaf."""
    links: dict[int, dict[int, LsaLink]] = {node: {} for node in range(NODES)}
    for one in range(NODES):
        for other in range(one):
            if randomness.random() < 0.35:
                links[one][other] = LsaLink(other, randomness.randint(1, 9), 1400)
                links[other][one] = LsaLink(one, randomness.randint(1, 9), 1400)
    return Graph(links, frozenset({7}))


class DetourTests(SynchronousTestCase):
    """Node 0 finds that paths fail, one after the other."""

    def test_packets_arrive(self) -> None:
        """Behind the first hop every node forwards by its own shortest path, and the packet does not come back."""
        taken = 0
        for seed in range(GRAPHS):
            graph = random_graph(Random(seed))
            table = compute_table(graph, 0)
            for destination, first in table.items():
                detours, route, hops = Detours(0), first, {first.next_hop}
                while detours.avoid(route, graph, 0.0):
                    taken += 1
                    route = detours.apply(table, graph)[destination]
                    self.assertNotIn(route.next_hop, hops)
                    hops.add(route.next_hop)
                    at, passed = route.next_hop, [0]
                    while at != destination:
                        self.assertNotIn(at, passed)
                        passed.append(at)
                        at = compute_table(graph, at)[destination].next_hop
                    self.assertEqual((*passed, destination), route.path)
                self.assertEqual(detours.apply(table, graph)[destination], first)
        self.assertGreater(taken, GRAPHS)

    def test_it_ends(self) -> None:
        """The second time it lasts twice as long."""
        graph = Graph(
            {0: {1: LsaLink(1, 1, 1400), 2: LsaLink(2, 2, 1400)}, 1: {3: LsaLink(3, 1, 1400)}}
            | {2: {3: LsaLink(3, 1, 1400)}, 3: {}},
            frozenset(),
        )
        table, detours = compute_table(graph, 0), Detours(0)
        for begin, seconds in ((0.0, FIRST_SECONDS), (20.0, 2 * FIRST_SECONDS)):
            self.assertTrue(detours.avoid(table[3], graph, begin))
            self.assertEqual(detours.apply(table, graph)[3].path, (0, 2, 3))
            self.assertEqual(detours.next_expiry(), begin + seconds)
            self.assertFalse(detours.expire(begin + seconds - 1.0))
            self.assertTrue(detours.expire(begin + seconds))
            self.assertEqual(detours.apply(table, graph)[3].path, (0, 1, 3))
