"""Loop-free alternates on random graphs: what leaves the shortest path still arrives, and nothing better was left."""

from __future__ import annotations

from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.alternates import loop_free_alternate
from seamless.routing.spf import Graph
from seamless.routing.table import compute_table, table_of
from seamless.test.routing.test_detours import GRAPHS, NODES, random_graph


class AlternateTests(SynchronousTestCase):
    """Node 0 gets a packet back from its shortest path's first hop."""

    def test_packets_arrive_and_none_is_nearer(self) -> None:
        """Behind the first hop every node forwards by its own shortest path."""
        found = 0
        for seed in range(GRAPHS):
            graph = random_graph(Random(seed))
            for destination, first in compute_table(graph, 0).items():
                route = loop_free_alternate(graph, 0, 0, destination, {first.next_hop})
                others = {
                    neighbor: link.cost + (0 if neighbor == destination else onward.distance)
                    for neighbor, link in graph.links[0].items()
                    if neighbor != first.next_hop and (neighbor == destination or neighbor != NODES - 1)
                    for onward in [compute_table(graph, neighbor).get(destination, first)]
                    if neighbor == destination or 0 not in onward.path
                }
                if route is None:
                    self.assertEqual(others, {})
                    continue
                found += 1
                self.assertEqual(route.distance, min(others.values()))
                self.assertNotEqual(route.next_hop, first.next_hop)
                way = [0, route.next_hop]
                while way[-1] != destination:
                    way.append(compute_table(graph, way[-1])[destination].next_hop)
                self.assertEqual(tuple(way), route.path)
        self.assertGreater(found, GRAPHS)

    def test_it_meets_no_node_that_does_not_know_its_source_or_destination(self) -> None:
        for seed in range(GRAPHS):
            graph = random_graph(Random(seed))
            lacking: Graph = attrs.evolve(graph, unknown={5: frozenset({1, 2}), 6: frozenset({3})}, tables={})
            route = loop_free_alternate(lacking, 0, 6, 5, {4})
            if route is not None:
                self.assertTrue({1, 2, 3}.isdisjoint(route.path[:-1]), route)

    def test_the_tables_of_neighbors_are_computed_once(self) -> None:
        graph = random_graph(Random(1))
        self.assertIs(table_of(graph, 3), table_of(graph, 3))
