"""A relay whose file lacks a node: what goes there takes another path, or fails at once; nothing is black-holed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.interfaces import Event, PeerUnreachable, StreamOpened
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.test.node.network import node

NODES = {name: node(name, f"10.0.0.{number}:7400") for number, name in enumerate(("src", "r1", "r2", "r3", "dst"), 1)}
CHAIN = ("link src r1 { cost 1; }", "link r1 r2 { cost 1; }", "link r2 dst { cost 1; }")
DETOUR = ("link src r3 { cost 100; }", "link r3 dst { cost 100; }")
SOON = 1.0
"""Seconds: an LSA's way there, and a handshake. The session would wait for 30 s, its clients for 20."""


def file(*links: str, without: str = "") -> Configuration:
    """Return the configuration with these links; one of a host whose file lacks a node and its links, too."""
    nodes = [block for name, block in NODES.items() if name != without]
    links = tuple(link for link in links if without not in link.split() or not without)
    return load_text("\n".join(("overlay test { }", *nodes, *links)), "test.conf")


class UnknownNodeTests(SynchronousTestCase):
    """src - r1 - r2 - dst, and a longer way over r3."""

    def start(self, *links: str, **others: Configuration) -> None:
        self.net = Simulation(file(*links), private_key, Random(1), others=others)
        self.net.run(5.0)

    def events(self, name: str, kind: type[Event], since: float = 0.0) -> list[Event]:
        return [event for event in self.net.nodes[name].events if isinstance(event, kind)]

    def foreign(self, name: str) -> int:
        return self.net.node(name).status(self.net.now).counters.foreign_packets

    def within(self, seconds: float, done: Callable[[], object]) -> float:
        """Return after how long ``done()`` is true; fail when it is not in time."""
        began = self.net.now
        self.net.run(began + seconds, lambda: bool(done()))
        self.assertTrue(done(), f"not within {seconds} s")
        return self.net.now - began

    def are_up(self, name: str) -> bool:
        return all(link.state == "UP" for link in self.net.node(name).status(self.net.now).links)

    def open(self, one: str, other: str) -> None:
        self.net.command(one, lambda each, now: each.open_stream(other, b"target", now))

    def check_detour(self, relay: str, one: str, other: str) -> None:
        """Check that a stream gets there although the shortest path leads over this relay, which dropped its first."""
        self.open(one, other)
        self.within(SOON, lambda: self.events(other, StreamOpened))
        self.assertGreater(self.foreign(relay), 0)
        self.net.run(self.net.now + 5)
        before = self.foreign(relay)
        self.open(one, other)
        self.within(SOON, lambda: len(self.events(other, StreamOpened)) == 2)
        self.assertEqual(self.foreign(relay), before)

    def test_a_relay_that_lacks_the_destination(self) -> None:
        links = (*CHAIN, *DETOUR)
        self.start(*links, r1=file(*links, without="dst"))
        self.check_detour("r1", "src", "dst")

    def test_a_relay_that_lacks_the_source(self) -> None:
        links = (*CHAIN, *DETOUR)
        self.start(*links, r2=file(*links, without="src"))
        self.check_detour("r2", "src", "dst")

    def test_a_relay_that_lacks_the_one_that_answers(self) -> None:
        links = (*CHAIN, *DETOUR)
        self.start(*links, r2=file(*links, without="src"))
        self.check_detour("r2", "dst", "src")

    def test_a_relay_that_lacks_a_neighbor_of_others(self) -> None:
        """It takes what r2 says of itself, but for the link to dst: its own way to r2 and r3 is the shortest."""
        links = (*CHAIN, *DETOUR)
        self.start(*links, src=file(*links, without="dst"))
        status = self.net.node("src").status(self.net.now)
        self.assertEqual({link.state for link in status.links}, {"UP"})
        names = {self.net.node("src").peer_name(route.destination) for route in status.routing.routes}
        self.assertEqual(names, {"r1", "r2", "r3"})
        self.assertGreater(status.routing.counters.unknown_links, 0)
        self.open("src", "r2")
        self.within(SOON, lambda: self.events("r2", StreamOpened))

    def check_no_path(self, restarted: str, without: str) -> None:
        """Check that a relay's start with the wrong file makes the ends unreachable at once for one another."""
        self.start(*CHAIN)
        self.open("src", "dst")
        self.within(SOON, lambda: self.events("dst", StreamOpened))
        self.net.configurations[restarted] = file(*CHAIN, without=without)
        self.net.crash(restarted)
        self.within(SOON, lambda: not self.net.node("src").is_reachable("dst"))
        self.net.start(restarted)
        self.within(
            SOON, lambda: {link.state for link in self.net.node(restarted).status(self.net.now).links} == {"UP"}
        )
        self.open("src", "dst")
        self.net.run(self.net.now + 2 * SOON)
        self.assertGreater(self.foreign(restarted), 0)
        self.assertFalse(self.net.node("src").is_reachable("dst"))
        said = [event for event in self.net.nodes["src"].events if getattr(event, "peer", "") == "dst"]
        self.assertEqual(said[-1], PeerUnreachable("dst", "no path to it is left"))
        self.net.run(self.net.now + 60)
        self.assertFalse(self.net.node("src").is_reachable("dst"))

    def test_without_another_path_the_destination_is_unreachable(self) -> None:
        self.check_no_path("r1", "dst")

    def test_without_another_path_the_source_is_unreachable(self) -> None:
        self.check_no_path("r2", "src")
