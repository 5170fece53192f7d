"""Two processes with one key: the neighbor takes the one that came last; when that closes, it takes the other again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import LinkUp, StreamOpened
from seamless.link.misbehavior import VIOLATIONS_MAX
from seamless.link.status import LinkStatus
from seamless.node import Node
from seamless.test.node.network import Network, node, overlay

HOME = ("10.0.0.1", 7400)
ELSEWHERE = ("10.0.0.3", 7400)
R1 = node("r1", "10.0.0.2:7400")
RIGHT = overlay(node("src", "10.0.0.1:7400"), R1, "link src r1 { rate 100 mbit; congestion off; }")
WRONG = overlay(node("src", "10.0.0.3:7400"), R1, "link src r1 { rate 100 mbit; congestion off; }")


class TwinTests(SynchronousTestCase):
    """Node src runs where it should, r1 beside it; and for a while src runs elsewhere, too."""

    def setUp(self) -> None:
        self.network = Network()
        self.r1 = self.network.start(RIGHT, "r1")
        self.src = self.network.start(RIGHT, "src")
        self.network.run(1)
        self.assertEqual((self.link().state, self.link().remote), ("UP", HOME))

    def link(self) -> LinkStatus:
        """Return r1's link."""
        (link,) = self.r1.status(self.network.now).links
        return link

    def carry(self, sender: Node, receiver: Node) -> bool:
        """Tell whether a stream that one node opens now reaches the other soon."""
        self.network.events.clear()
        sender.open_stream(receiver.name, b"target", self.network.now)
        self.network.run(2)
        return any(each is receiver and isinstance(event, StreamOpened) for each, event in self.network.events)

    def test_the_right_one_is_back_at_once(self) -> None:
        """A second after the twin closed its link, the link carries again, both ways."""
        for _ in range(3):
            twin = self.network.start(WRONG, "src")
            self.network.run(3)
            self.assertEqual((self.link().state, self.link().remote), ("UP", ELSEWHERE))
            self.network.stop(twin)
            self.network.run(1)
            self.assertEqual((self.link().state, self.link().remote), ("UP", HOME))
            (link,) = self.src.status(self.network.now).links
            self.assertEqual((link.state, link.malformed, self.link().malformed), ("UP", 0, 0))
        self.network.run(10)
        ups = [event for each, event in self.network.events if each is self.r1 and isinstance(event, LinkUp)]
        self.assertEqual([event.remote for event in ups], [HOME, ELSEWHERE, HOME, ELSEWHERE, HOME, ELSEWHERE, HOME])

    def test_what_is_sent_afterwards_arrives(self) -> None:
        self.network.run(5)
        twin = self.network.start(WRONG, "src")
        self.network.run(3)
        self.network.stop(twin)
        self.network.run(1)
        self.assertTrue(self.carry(self.src, self.r1))
        self.assertTrue(self.carry(self.r1, self.src))

    def test_a_goodbye_and_a_return(self) -> None:
        """An ordinary restart: the link is DOWN, and UP again, within 0.1 s, without a timer of either end."""
        self.network.stop(self.src)
        self.network.run(0.1)
        self.assertEqual((self.link().state, self.link().reason), ("DOWN", "src says: the daemon is stopping"))
        self.network.run(20)
        self.src = self.network.start(RIGHT, "src")
        self.network.run(0.1)
        self.assertEqual(self.link().state, "UP")
        self.assertTrue(self.carry(self.r1, self.src))

    def test_one_that_comes_and_says_goodbye_all_the_time(self) -> None:
        """The neighbor blocks its key, which the other process has too."""
        for _ in range(VIOLATIONS_MAX):
            twin = self.network.start(WRONG, "src")
            self.network.run(0.1)
            self.network.stop(twin)
            self.network.run(0.1)
        self.assertIn("again and again; blocked for", self.link().reason)
        self.assertGreater(self.link().restarts, VIOLATIONS_MAX // 4)

    def test_a_node_that_stops_answers_no_handshake(self) -> None:
        """Its neighbor sends a handshake at once; if that were answered, the link would seem to come up again."""
        self.src.close("the daemon is stopping")
        self.network.run(1)
        self.assertGreater(self.src.counters.refused_handshakes, 0)
        self.assertEqual(self.link().state, "DOWN")
