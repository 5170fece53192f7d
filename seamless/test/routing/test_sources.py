"""Which sources may come over which link, with networkx as the oracle."""

from __future__ import annotations

import networkx
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.lsdb import Topology
from seamless.routing.sources import feasible_sources

NODES = st.integers(0, 7)
PAIRS = st.frozensets(st.frozensets(NODES, min_size=2, max_size=2), max_size=16)


def topology(links: frozenset[frozenset[int]], leaves: frozenset[int]) -> Topology:
    """Return what a configuration of these links and leaves allows."""
    return Topology(nodes=frozenset(range(8)), links=links, leaves=leaves)


def line(*leaves: int) -> Topology:
    """Return 0 - 1 - 2 - 3 - 4."""
    return topology(frozenset(frozenset((end, end + 1)) for end in range(4)), frozenset(leaves))


class FeasibleSourcesTests(SynchronousTestCase):
    def test_a_line(self) -> None:
        self.assertEqual(feasible_sources(line(), 2), {1: {0, 1}, 3: {3, 4}})

    def test_a_leaf_speaks_for_itself_alone(self) -> None:
        self.assertEqual(feasible_sources(line(1), 2), {1: {1}, 3: {3, 4}})
        self.assertEqual(feasible_sources(line(1, 4), 2), {1: {1}, 3: {3, 4}})

    @given(PAIRS, st.frozensets(NODES, max_size=4), NODES)
    def test_as_a_path_may_lead(self, links: frozenset[frozenset[int]], leaves: frozenset[int], local: int) -> None:
        graph = networkx.Graph(tuple(link) for link in links)
        graph.add_node(local)
        expected: dict[int, set[int]] = {}
        for neighbor in graph[local]:
            expected[neighbor] = set()
            for source in set(graph) - {local}:
                transit = graph.subgraph(set(graph) - leaves - {local} | {source})
                may = neighbor == source or (neighbor in transit and networkx.has_path(transit, source, neighbor))
                expected[neighbor] |= {source} if may else set()
        self.assertEqual(feasible_sources(topology(links, leaves), local), expected)
