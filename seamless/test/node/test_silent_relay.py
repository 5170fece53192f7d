"""Relays that keep their links UP and do not forward: nothing at all, or only what is small."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.interfaces import DataReceived, LinkDown, StreamOpened, StreamReset
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.link import Link
from seamless.routing.detours import FIRST_SECONDS
from seamless.test.lab.test_simulated import Applications, settle, simulation
from seamless.test.node.test_reroute import DIAMOND

SMALL_BYTES = 300
UPLOAD_BYTES = 4_000_000
WINDOW_BYTES = 20_000_000
"""More than a stream's window."""


class Silence:
    """Makes a relay drop what it should forward: all packets longer than ``longest_bytes``."""

    def __init__(self, net: Simulation, relay: str, longest_bytes: int) -> None:
        self.dropped = 0
        self.ends = False
        forwarding = net.node(relay)._forwarding
        honest = forwarding.receive

        def receive(packets: list[bytes], link: Link, now: float) -> None:
            kept = [packet for packet in packets if self.ends or len(packet) <= longest_bytes]
            self.dropped += len(packets) - len(kept)
            if kept:
                honest(kept, link, now)

        forwarding.receive = receive  # type: ignore[method-assign]


class DiamondTests(SynchronousTestCase):
    """Two ways of equal length from src to dst."""

    def setUp(self) -> None:
        self.net = Simulation(load_text(DIAMOND, "diamond.conf"), private_key, Random(1))
        settle(self.net)
        self.relay = self.path()[1]
        self.other = {"r1": "r2", "r2": "r1"}[self.relay]
        self.downs: list[LinkDown] = []
        for relay in ("r1", "r2"):
            self.net.nodes[relay].on_event = lambda event: (
                self.downs.append(event) if isinstance(event, LinkDown) else None
            )

    def path(self) -> list[str]:
        """Return the way from src to dst that src's own packets take."""
        core = self.net.node("src")
        routes = core.status(self.net.now).routing.routes
        (route,) = [route for route in routes if route.destination == self.net.node("dst").identifier]
        return [core.peer_name(each) for each in route.path]

    def open(self, request: bytes, answer: bytes) -> Applications:
        """Open a stream from src to dst."""
        applications = Applications(self, self.net, "src", "dst")
        applications.open(b"bulk", request, answer)
        return applications

    def longest_pause(self, applications: Applications) -> float:
        """Let the stream end; return for how long no byte arrived at either end."""
        longest, grew_at, so_far = 0.0, self.net.now, -1
        sent = [*applications.up.values(), *applications.down.values()]
        while not applications.done() and self.net.now < 120.0:
            self.net.run(self.net.now + 0.02)
            arrived = sum(len(each.received) for each in sent)
            if arrived > so_far:
                longest = max(longest, self.net.now - grew_at)
                so_far, grew_at = arrived, self.net.now
        applications.check()
        self.assertEqual(self.downs, [])
        return longest

    def check_in_mid_stream(self, longest_bytes: int, request: bytes, answer: bytes, pause: float) -> None:
        applications = self.open(request, answer)
        self.net.run(self.net.now + 0.5)
        silence = Silence(self.net, self.relay, longest_bytes)
        self.assertLess(self.longest_pause(applications), pause)
        self.assertGreater(silence.dropped, 0)
        self.assertGreater(self.net.node("src").status(self.net.now).routing.counters.detours, 0)

    def test_nothing_passes(self) -> None:
        self.check_in_mid_stream(0, Random(1).randbytes(UPLOAD_BYTES), b"", 6.0)

    def test_only_what_is_small_passes(self) -> None:
        """Handshakes, probes and acknowledgements pass; bulk does not."""
        self.check_in_mid_stream(SMALL_BYTES, Random(1).randbytes(UPLOAD_BYTES), b"", 2.5)

    def test_both_directions(self) -> None:
        """Each end finds out for itself what it sends in vain."""
        data = Random(1).randbytes(UPLOAD_BYTES // 2)
        self.check_in_mid_stream(SMALL_BYTES, data, data, 2.5)

    def test_from_the_start(self) -> None:
        """There is no session yet: neither handshakes nor answers to them pass."""
        silence = Silence(self.net, self.relay, 0)
        applications = self.open(b"request", b"answer")
        self.assertLess(self.longest_pause(applications), 7.0)
        self.assertGreater(silence.dropped, 3)

    def test_the_way_back(self) -> None:
        """The relay has been mended: in the end the shortest path is used again."""
        applications = self.open(bytes(UPLOAD_BYTES), b"")
        self.net.run(self.net.now + 0.5)
        silence = Silence(self.net, self.relay, 0)
        self.net.run(self.net.now + 10.0, lambda: self.path()[1] == self.other)
        self.assertEqual(self.path(), ["src", self.other, "dst"])
        silence.ends = True
        self.net.run(self.net.now + FIRST_SECONDS + 0.1)
        self.assertEqual(self.path(), ["src", self.relay, "dst"])
        self.longest_pause(applications)
        self.assertEqual(self.net.node("src").status(self.net.now).routing.counters.detours, 1)

    def test_a_stopped_reader(self) -> None:
        """A reader that does not read for a minute is no lack of progress."""
        net = self.net
        stream = net.command("src", lambda node, now: node.open_stream("dst", b"", now))
        net.run(net.now + 0.5)
        theirs = next(event.stream for event in net.nodes["dst"].events if isinstance(event, StreamOpened))
        net.command("dst", lambda node, now: node.accept_stream(theirs, now))
        net.command("src", lambda node, now: node.send(stream, bytes(WINDOW_BYTES), now))
        net.run(net.now + 60.0)
        events = net.nodes["src"].events + net.nodes["dst"].events
        self.assertEqual([event for event in events if isinstance(event, StreamReset)], [])
        unread = sum(sum(map(len, event.chunks)) for event in events if isinstance(event, DataReceived))
        self.assertLess(unread, WINDOW_BYTES)
        for name in ("src", "dst"):
            self.assertEqual(net.node(name).status(net.now).routing.counters.detours, 0)


class ChainTests(SynchronousTestCase):
    """There is no other way."""

    def test_give_up(self) -> None:
        """What is small passes, and bulk does not: after ``give up`` the stream is reset."""
        net = simulation(1)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"bulk", bytes(3 * WINDOW_BYTES), b"")
        net.run(net.now + 0.5)
        silence = Silence(net, "r1", SMALL_BYTES)
        begin = net.now
        net.run(begin + 60.0, lambda: bool(applications.resets))
        self.assertTrue(applications.resets)
        self.assertTrue(29.0 < net.now - begin < 32.0, net.now - begin)
        self.assertGreater(silence.dropped, 100)
