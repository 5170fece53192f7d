"""The graph that is kept up to date is the one that would be made anew, and what changes nothing costs nothing."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.graph import LiveGraph
from seamless.routing.lsa import Lsa, LsaLink
from seamless.routing.lsdb import Lsdb
from seamless.routing.table import compute_table
from seamless.test.routing.core import TOPOLOGY, RoutingTestCase, lsa_bytes
from seamless.test.routing.network import graph_of, make_topology
from seamless.test.work import lines_run

NODES = st.integers(0, 5)


@st.composite
def lsa_of(draw: st.DrawFn, origin: int) -> Lsa:
    """Return an LSA that says something of its origin, with links and unknown nodes out of few."""
    neighbors = sorted(draw(st.sets(NODES.filter(lambda node: node != origin), max_size=3)))
    links = tuple(LsaLink(neighbor, draw(st.integers(1, 2)), 1400) for neighbor in neighbors)
    unknown = tuple(sorted(draw(st.sets(st.integers(4, 6), max_size=1))))
    return Lsa(origin, draw(st.integers(1, 3)), draw(st.booleans()) and not origin % 3, links, unknown)


DATABASES = st.lists(NODES, unique=True).flatmap(lambda origins: st.tuples(*map(lsa_of, origins)))


class PropertyTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(st.lists(DATABASES, max_size=6))
    def test_any_changes_lead_to_the_graph_of_the_last_lsas(self, databases: list[tuple[Lsa, ...]]) -> None:
        live = LiveGraph()
        former = live.graph
        for lsas in databases:
            graph = live.update(lsas)
            said = {(lsa.origin, link.neighbor): link for lsa in lsas for link in lsa.links}
            both = {ends: link for ends, link in said.items() if ends[::-1] in said}
            found = {(one, other): link for one, links in graph.links.items() for other, link in links.items()}
            self.assertEqual((found, set(graph.links)), (both, {lsa.origin for lsa in lsas}))
            self.assertEqual(graph.leaves, {lsa.origin for lsa in lsas if lsa.leaf})
            unknown = {node: {lsa.origin for lsa in lsas if node in lsa.unknown} for node in (4, 5, 6)}
            self.assertEqual(dict(graph.unknown), {node: origins for node, origins in unknown.items() if origins})
            self.assertEqual(graph is former, graph == former)
            former = graph


class UnchangedTests(SynchronousTestCase):
    RING = tuple(
        Lsa(node, 1, False, tuple(LsaLink(other, 1, 1400) for other in sorted(((node - 1) % 9, (node + 1) % 9))))
        for node in range(9)
    )

    def test_routes_that_stay_are_the_same_objects(self) -> None:
        before = compute_table(graph_of(self.RING), 0)
        dearer = attrs.evolve(self.RING[3], links=(LsaLink(2, 1, 1400), LsaLink(4, 2, 1400)))
        after = compute_table(graph_of([*self.RING[:3], dearer, *self.RING[4:]]), 0, before)
        self.assertEqual(after, compute_table(graph_of([*self.RING[:3], dearer, *self.RING[4:]]), 0))
        self.assertEqual([node for node in before if after[node] is not before[node]], [4])

    def test_a_database_that_changes_in_one_place_is_not_walked(self) -> None:
        """What ends the time of LSAs, and what answers a summary of few origins, runs as many lines for 9
        as for 900."""
        costs = []
        for nodes in (9, 900):
            lsdb = Lsdb(make_topology([(node, node + 1) for node in range(nodes)]))
            for node in range(nodes):
                lsdb.offer(Lsa(node, 1, False, ()), bytes(80), 0.0)
            costs.append(lines_run(lambda: (lsdb.expire(1.0), list(lsdb.between(2, 4)))))  # noqa: B023
            self.assertEqual([entry.lsa.origin for entry in lsdb.between(2, 4)], [2, 3, 4])
        self.assertEqual(costs[0], costs[1])


class HalfAnnouncedTests(RoutingTestCase):
    def test_a_link_that_one_end_announces_costs_no_computation(self) -> None:
        self.core.receive_lsa(lsa_bytes(2, 5, [1, 3]), 2, 2.0)
        self.core.receive_lsa(lsa_bytes(3, 5, [1, 2]), 3, 2.1)
        self.core.handle_timeout(3.0)
        self.core.next_event()
        before = self.core.counters.table_computations
        self.core.receive_lsa(lsa_bytes(2, 6, [1, 3, 4]), 2, 4.0)
        self.assertIsNone(self.core.next_event())
        self.assertEqual(self.core.counters.table_computations, before)
        self.core.receive_lsa(lsa_bytes(4, 1, [2]), 2, 5.0)
        self.core.handle_timeout(6.0)
        event = self.core.next_event()
        assert event is not None
        self.assertEqual((event.destinations, self.core.next_hop(4)), ({4}, 2))
        self.assertIn(4, TOPOLOGY.leaves)
        self.assertEqual(self.core.counters.table_computations, before + 1)
