"""What a routing core answers its node: next hops, paths, what changed, and whose mistake something is."""

from __future__ import annotations

import attrs

from seamless.errors import LocalProtocolError
from seamless.routing.lsa import Lsa, LsaLink
from seamless.routing.lsdb import MAX_AGE_SECONDS
from seamless.routing.routes import RoutesChanged
from seamless.test.routing.core import TOPOLOGY, RoutingTestCase, lsa_bytes
from seamless.test.routing.network import MTU_BYTES, make_core


class LookupTests(RoutingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.core.receive_lsa(lsa_bytes(2, 5, [1, 3, 4]), 2, 2.0)
        self.core.receive_lsa(lsa_bytes(3, 5, [1, 2, 4]), 3, 2.0)
        self.core.receive_lsa(lsa_bytes(4, 5, [2, 3]), 3, 2.0)

    def test_next_hop_path_and_mtu(self) -> None:
        self.core.link_up(2, 10, 1300, 2.0)
        self.assertEqual(self.core.next_hop(4), 2)
        self.assertEqual(self.core.path(4), (1, 2, 4))
        self.assertEqual(self.core.path_mtu_bytes(4), 1300)

    def test_nobody_and_ourselves(self) -> None:
        for destination in (1, 99):
            self.assertIsNone(self.core.next_hop(destination))
            self.assertEqual(self.core.path(destination), ())
            self.assertIsNone(self.core.path_mtu_bytes(destination))

    def test_traffic_moves_at_once_when_a_link_falls(self) -> None:
        self.core.link_down(2, 3.0)
        self.assertEqual(self.core.path(4), (1, 3, 4))

    def test_one_event_tells_all_that_changed(self) -> None:
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({2, 3, 4}), frozenset({2, 3, 4})))
        self.assertIsNone(self.core.next_event())
        self.core.link_down(2, 3.0)
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({2, 4}), frozenset({2, 4})))
        self.core.link_down(3, 3.0)
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({2, 3, 4}), frozenset()))

    def test_a_path_that_lost_a_link_beyond_the_next_hop_is_severed(self) -> None:
        self.core.next_event()
        self.assertEqual(self.core.path(4), (1, 2, 4))
        self.core.receive_lsa(lsa_bytes(2, 6, [1, 3]), 2, 3.0)
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({4}), frozenset({4})))

    def test_a_better_path_leaves_the_old_one_whole(self) -> None:
        self.core.next_event()
        self.core.link_cost(2, 100, 3.0)
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({2, 4}), frozenset()))

    def test_a_narrower_path_severs_nothing(self) -> None:
        """Relays cut anew what is longer than their links carry; only what is sent from now on should be shorter."""
        self.core.next_event()
        for mtu_bytes, now in ((MTU_BYTES - 1, 3.0), (MTU_BYTES, 3.1)):
            self.core.link_mtu(2, mtu_bytes, now)
            self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({2, 4}), frozenset()))
            self.assertEqual(self.core.path_mtu_bytes(2), mtu_bytes)
        self.core.link_mtu(2, MTU_BYTES, 3.2)
        self.assertIsNone(self.core.next_event())

    def test_change_that_was_taken_back_is_no_event(self) -> None:
        self.core.next_event()
        self.core.link_down(2, 3.0)
        self.core.link_up(2, 10, MTU_BYTES, 3.0)
        self.assertIsNone(self.core.next_event())

    def test_refresh_costs_no_computation(self) -> None:
        self.core.next_event()
        before = self.core.counters.table_computations
        self.core.receive_lsa(lsa_bytes(4, 6, [2, 3]), 3, 3.0)
        self.assertIsNone(self.core.next_event())
        self.assertEqual(self.core.counters.lsas_refreshed, 1)
        self.assertEqual(self.core.counters.table_computations, before)

    def test_node_that_is_silent_for_too_long_is_gone(self) -> None:
        self.core.next_event()
        self.core.receive_lsa(lsa_bytes(2, 6, [1, 3, 4]), 2, 600.0)
        self.core.receive_lsa(lsa_bytes(3, 6, [1, 2, 4]), 3, 600.0)
        self.core.handle_timeout(2.0 + MAX_AGE_SECONDS)
        self.assertEqual(self.core.next_event(), RoutesChanged(frozenset({4}), frozenset()))
        self.assertIsNone(self.core.next_hop(4))

    def test_status_is_a_snapshot(self) -> None:
        status = self.core.status()
        self.core.link_down(2, 3.0)
        self.core.receive_lsa(lsa_bytes(4, 9, []), 3, 3.0)
        self.assertEqual([link.neighbor for link in status.links], [2, 3])
        self.assertEqual([(route.destination, route.next_hop) for route in status.routes], [(2, 2), (3, 3), (4, 2)])
        self.assertEqual([entry.lsa.origin for entry in status.lsas], [1, 2, 3, 4])
        self.assertEqual(status.counters.lsas_received, 3)


class LocalMistakeTests(RoutingTestCase):
    def test_mistakes_of_the_owner_are_his(self) -> None:
        core = self.core
        self.assertRaises(LocalProtocolError, core.link_up, 4, 10, MTU_BYTES, 2.0)
        self.assertRaises(LocalProtocolError, core.link_up, 2, 0, MTU_BYTES, 2.0)
        self.assertRaises(LocalProtocolError, core.link_up, 2, 10, 1 << 16, 2.0)
        self.assertRaises(LocalProtocolError, core.receive_lsa, b"", 4, 2.0)
        core.link_down(2, 2.0)
        self.assertRaises(LocalProtocolError, core.link_cost, 2, 10, 2.0)
        core.link_down(2, 2.0)

    def test_bad_construction(self) -> None:
        self.assertRaises(LocalProtocolError, make_core, 99, TOPOLOGY)
        self.assertRaises(LocalProtocolError, make_core, 1, TOPOLOGY, incarnation=1 << 42)
        self.assertRaises(LocalProtocolError, make_core, 1, TOPOLOGY, without_key_of=1)

    def test_lsa_fields_survive(self) -> None:
        """What was told by commands is what the LSA says."""
        self.core.link_cost(2, 77, 5.0)
        (lsa,) = self.own_lsas()
        self.assertEqual(lsa.links, (LsaLink(2, 77, MTU_BYTES), LsaLink(3, 10, MTU_BYTES)))
        self.assertEqual(attrs.evolve(lsa, sequence=0), Lsa(1, 0, False, lsa.links))
