"""Ways of a node's own packets around nodes that do not know it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.table import compute_table, own_table
from seamless.test.routing.network import graph_of
from seamless.test.routing.test_equivocation import ladder


class OwnTableTests(SynchronousTestCase):
    def test_without_such_nodes_it_is_the_table(self) -> None:
        graph = graph_of(ladder(6, {4: (10,)}))
        table = compute_table(graph, 0)
        self.assertIs(own_table(graph, 0, table), table)

    def test_packets_meet_no_node_that_does_not_know_their_source(self) -> None:
        """By the tables of those that forward them."""
        graph = graph_of(ladder(6, {4: (0, 10), 7: (0, 1), 6: (11,)}))
        transit = {node: compute_table(graph, node) for node in graph.links}
        detours = 0
        for source, table in transit.items():
            own = own_table(graph, source, table)
            strangers = graph.unknown.get(source, frozenset())
            for destination, route in own.items():
                way = [source, route.next_hop]
                while way[-1] != destination:
                    way.append(transit[way[-1]][destination].next_hop)
                self.assertEqual(tuple(way), route.path)
                self.assertTrue(strangers.isdisjoint(route.path))
                detours += destination in table and route.path != table[destination].path
        self.assertGreater(detours, 0)

    def test_who_does_not_know_us_is_no_destination(self) -> None:
        graph = graph_of(ladder(6, {4: (0,)}))
        own = own_table(graph, 0, compute_table(graph, 0))
        self.assertNotIn(4, own)
        self.assertIn(3, own)
