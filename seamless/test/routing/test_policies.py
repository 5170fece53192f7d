"""Route policies: chosen by name, and what the shortest path answers."""

from __future__ import annotations

from seamless.errors import LocalProtocolError
from seamless.routing.policies import ShortestPath, make_policy
from seamless.test.routing.core import RoutingTestCase, lsa_bytes
from seamless.wire.traffic_class import CLASS_BULK


class ShortestPathTests(RoutingTestCase):
    """Node 1 between 2 and 3, which both have a link to 4."""

    def setUp(self) -> None:
        super().setUp()
        for origin, neighbors in ((2, [1, 4]), (3, [1, 4]), (4, [2, 3])):
            self.core.receive_lsa(lsa_bytes(origin, 5, neighbors), 2, 2.0)
        self.policy = make_policy(ShortestPath.name, 1, self.core)

    def test_one_neighbor(self) -> None:
        for source in (1, 3):
            self.assertEqual(self.policy.next_hops(source, 4, CLASS_BULK), (2,))
            self.assertEqual(self.policy.next_hops_around(2, source, 4, CLASS_BULK), (3,))

    def test_detours_are_for_packets_of_our_own(self) -> None:
        self.assertTrue(self.core.avoid_path(4, 3.0))
        self.assertEqual(self.policy.next_hops(1, 4, CLASS_BULK), (3,))
        self.assertEqual(self.policy.next_hops(3, 4, CLASS_BULK), (2,))

    def test_no_path(self) -> None:
        self.core.link_down(2, 3.0)
        self.assertEqual(self.policy.next_hops_around(3, 1, 4, CLASS_BULK), ())
        self.core.link_down(3, 3.0)
        self.assertEqual(self.policy.next_hops(1, 4, CLASS_BULK), ())

    def test_names(self) -> None:
        refused = self.assertRaises(LocalProtocolError, make_policy, "widest path", 1, self.core)
        self.assertIn("'shortest path'", str(refused))
