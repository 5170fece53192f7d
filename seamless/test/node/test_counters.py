"""Counters that tell an operator what a link does unasked, and what it leaves undone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.lab.simulated import Simulation
from seamless.link.status import LinkStatus
from seamless.test.lab.test_simulated import settle, simulation


class CopyTests(SynchronousTestCase):
    """The bed of etc/lab.conf, of which the hop in the middle loses a tenth."""

    def setUp(self) -> None:
        self.net: Simulation = simulation(7)
        settle(self.net)
        for ends in (("r1", "r2"), ("r2", "r1")):
            self.net.impair(*ends, loss=0.1)
        self.net.run(self.net.now + 2.0)

    def link(self, name: str, neighbor: str) -> LinkStatus:
        """Return how a node sees its link to a neighbor."""
        return next(link for link in self.net.node(name).status(self.net.now).links if link.neighbor == neighbor)

    def send(self, packets: int, is_recovered: bool) -> None:
        """Send small packets from src to dst, one every 10 ms."""
        for _ in range(packets):
            self.net.command(
                "src", lambda node, now: node.send_packet("dst", bytes(100), now, is_recovered=is_recovered)
            )
            self.net.run(self.net.now + 0.01)
        self.net.run(self.net.now + 1.0)

    def test_copies_are_counted_where_they_are_made_and_where_they_are_dropped(self) -> None:
        self.send(100, True)
        self.assertGreater(self.net.counters("r1", "r2").lost, 0)
        sent, received = self.link("r1", "r2"), self.link("r2", "r1")
        self.assertGreater(sent.redundant, 100)
        self.assertTrue(0 < received.duplicates_dropped <= sent.redundant)
        self.assertEqual((self.link("src", "r1").redundant, self.link("r1", "src").duplicates_dropped), (0, 0))

    def test_what_is_lost_for_good_is_counted(self) -> None:
        self.send(300, False)
        link = self.link("r1", "r2")
        self.assertGreater(link.forgotten, 10)
        self.assertLessEqual(link.forgotten, link.lost)
        self.assertEqual(self.link("src", "r1").forgotten, 0)
