"""Shortest paths and the table made of them, with networkx as the oracle."""

from __future__ import annotations

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.lsa import Lsa, LsaLink
from seamless.routing.spf import shortest_paths
from seamless.routing.table import changed_destinations, compute_table
from seamless.test.routing.network import graph_of

Announced = dict[tuple[int, int], int]
"""Costs by (origin, neighbor): one direction each."""

NODES = st.integers(0, 9)
ANNOUNCED: st.SearchStrategy[Announced] = st.dictionaries(
    st.tuples(NODES, NODES).filter(lambda pair: pair[0] != pair[1]), st.integers(1, 4), max_size=50
)
LEAVES = st.frozensets(NODES, max_size=4)


def make_lsas(announced: Announced, leaves: frozenset[int] = frozenset(), mtu_bytes: int = 1400) -> list[Lsa]:
    origins = {node for pair in announced for node in pair}
    return [
        Lsa(
            origin,
            1,
            origin in leaves,
            tuple(LsaLink(b, cost, mtu_bytes - a) for (a, b), cost in sorted(announced.items()) if a == origin),
        )
        for origin in sorted(origins | {0})
    ]


def both_ways(costs: Announced) -> Announced:
    return {**costs, **{(b, a): cost for (a, b), cost in costs.items()}}


def oracle(announced: Announced, leaves: frozenset[int], source: int) -> networkx.DiGraph:
    graph = networkx.DiGraph()
    graph.add_node(source)
    for (a, b), cost in announced.items():
        if (b, a) in announced and (a == source or a not in leaves):
            graph.add_edge(a, b, weight=cost)
    return graph


class PropertyTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(ANNOUNCED, LEAVES)
    def test_distances_are_those_of_networkx(self, announced: Announced, leaves: frozenset[int]) -> None:
        found = shortest_paths(graph_of(make_lsas(announced, leaves)), 0)
        expected = networkx.single_source_dijkstra_path_length(oracle(announced, leaves, 0), 0)
        self.assertEqual({node: distance for node, (distance, _) in found.items()}, expected)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(ANNOUNCED, LEAVES)
    def test_of_equal_paths_all_take_the_lowest(self, announced: Announced, leaves: frozenset[int]) -> None:
        found = shortest_paths(graph_of(make_lsas(announced, leaves)), 0)
        graph = oracle(announced, leaves, 0)
        for node, (_, path) in found.items():
            if node:
                ways = networkx.all_shortest_paths(graph, 0, node, weight="weight")
                self.assertEqual(path, min(tuple(way) for way in ways))

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(ANNOUNCED, LEAVES)
    def test_a_packet_takes_the_path_that_its_first_node_computed(
        self, announced: Announced, leaves: frozenset[int]
    ) -> None:
        graph = graph_of(make_lsas(announced, leaves))
        tables = {node: compute_table(graph, node) for node in graph.links}
        for destination, route in tables[0].items():
            way = [0]
            while way[-1] != destination:
                way.append(tables[way[-1]][destination].next_hop)
            self.assertEqual(tuple(way), route.path)


class PathTests(SynchronousTestCase):
    def test_link_that_one_end_announces_does_not_count(self) -> None:
        found = shortest_paths(graph_of(make_lsas({(0, 1): 1, (1, 2): 1, (2, 1): 1})), 0)
        self.assertEqual(found, {0: (0, (0,))})

    def test_leaf_is_reached_but_not_crossed(self) -> None:
        costs = both_ways({(0, 1): 1, (1, 2): 1, (0, 3): 10, (3, 2): 10})
        found = shortest_paths(graph_of(make_lsas(costs, frozenset({1}))), 0)
        self.assertEqual(found[1], (1, (0, 1)))
        self.assertEqual(found[2], (20, (0, 3, 2)))

    def test_leaf_reaches_all(self) -> None:
        costs = both_ways({(0, 1): 1, (1, 2): 1})
        found = shortest_paths(graph_of(make_lsas(costs, frozenset({0}))), 0)
        self.assertEqual(found[2], (2, (0, 1, 2)))

    def test_each_direction_has_its_own_cost(self) -> None:
        graph = graph_of(make_lsas({(0, 1): 5, (1, 0): 7}))
        self.assertEqual(shortest_paths(graph, 0)[1], (5, (0, 1)))
        self.assertEqual(shortest_paths(graph, 1)[0], (7, (1, 0)))


class TableTests(SynchronousTestCase):
    def test_path_mtu_is_that_of_the_narrowest_link(self) -> None:
        # make_lsas lowers the MTU by the identifier of the sending end.
        table = compute_table(graph_of(make_lsas(both_ways({(0, 1): 1, (1, 2): 1, (2, 3): 1}))), 0)
        self.assertEqual({node: route.mtu_bytes for node, route in table.items()}, {1: 1400, 2: 1399, 3: 1398})

    def test_changes_are_gained_lost_moved_and_narrowed_destinations(self) -> None:
        costs = both_ways({(0, 1): 1, (1, 2): 1, (0, 2): 5, (0, 3): 1})
        before = compute_table(graph_of(make_lsas(costs)), 0)
        self.assertEqual(changed_destinations(before, before), frozenset())
        self.assertEqual(changed_destinations({}, before), {1, 2, 3})
        moved = compute_table(graph_of(make_lsas({**costs, (0, 2): 1, (2, 0): 1})), 0)
        self.assertEqual(changed_destinations(before, moved), {2})
        narrowed = compute_table(graph_of(make_lsas(costs, mtu_bytes=1300)), 0)
        self.assertEqual(changed_destinations(before, narrowed), {1, 2, 3})
        dearer = compute_table(graph_of(make_lsas({**costs, (0, 3): 2})), 0)
        self.assertEqual(changed_destinations(before, dearer), frozenset())
