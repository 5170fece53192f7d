"""What a session sends again when its way changes: what died with the old way, and nothing while that still carries."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.session.events import SessionStatus
from seamless.test.lab.test_simulated import Applications, settle
from seamless.test.node.network import node

DIAMOND = "\n".join(
    (
        "overlay diamond { }",
        node("src", "10.0.1.1, 10.0.2.1"),
        node("r1", "10.0.1.2, 10.0.3.1"),
        node("r2", "10.0.2.2, 10.0.4.1"),
        node("dst", "10.0.3.2, 10.0.4.2"),
        *(f"host {name} {{ }}" for name in ("src", "r1", "r2", "dst")),
        *(
            f"wire {one} {other} {{ between 10.0.{number}.1/24 10.0.{number}.2/24; delay 5 ms; }}"
            f" link {one} {other} {{ between 10.0.{number}.1 10.0.{number}.2; rate 20 mbit; congestion off; }}"
            for number, (one, other) in enumerate((("src", "r1"), ("src", "r2"), ("r1", "dst"), ("r2", "dst")), 1)
        ),
    )
)
TWO_PATHS = "\n".join(
    (
        "overlay two-paths { }",
        node("src", "10.0.1.1, [fd00::1]:7400"),
        node("dst", "10.0.1.2, [fd00::2]:7400"),
        "host src { } host dst { }",
        "wire src dst { between 10.0.1.1/24 10.0.1.2/24; delay 5 ms; }",
        "wire src dst { between fd00::1/64 fd00::2/64; delay 50 ms; }",
        "link src dst { between 10.0.1.1 10.0.1.2; between [fd00::1]:7400 [fd00::2]:7400; rate 20 mbit;"
        " congestion off; }",
    )
)
"""IPv6 leaves each packet 20 bytes less."""
LONG_BYTES = 16_000_000
"""Six seconds of the links' rate: longer than nodes take to see that a link has become slower."""
SHORT_BYTES = 4_000_000


class RerouteTests(SynchronousTestCase):
    """Two ways of equal length from src to dst, and a transfer over one of them."""

    def begin(self, nbytes: int) -> None:
        """Be in the middle of a transfer."""
        self.net = Simulation(load_text(DIAMOND, "diamond.conf"), private_key, Random(1))
        settle(self.net)
        self.relay = self.path()[1]
        self.other = {"r1": "r2", "r2": "r1"}[self.relay]
        self.applications = Applications(self, self.net, "src", "dst")
        self.applications.open(b"bulk", bytes(nbytes), b"")
        self.net.run(self.net.now + 0.5)

    def path(self) -> list[str]:
        """Return the way from src to dst."""
        core = self.net.node("src")
        (route,) = [
            route
            for route in core.status(self.net.now).routing.routes
            if route.destination == self.net.node("dst").identifier
        ]
        return [core.peer_name(each) for each in route.path]

    def session(self) -> SessionStatus:
        """Return the sender's figures."""
        return self.net.node("src").status(self.net.now).sessions["dst"]

    def finish(self) -> None:
        """Let the transfer end."""
        self.net.run(self.net.now + 30.0, self.applications.done)
        self.applications.check()

    def test_a_better_way(self) -> None:
        """The way in use becomes slower and is left, with all that is on it: nothing is sent twice."""
        self.begin(LONG_BYTES)
        for ends in (("src", self.relay), (self.relay, "src")):
            self.net.impair(*ends, delay=0.040)
        self.net.run(self.net.now + 20.0, lambda: self.path()[1] == self.other)
        self.assertEqual(self.path(), ["src", self.other, "dst"])
        self.assertFalse(self.applications.done())
        before = self.session()
        self.assertGreater(before.records_sent, before.records_acked + 10)
        self.finish()
        self.assertEqual((self.session().records_lost, self.session().records_spurious), (0, 0))

    def test_a_dead_relay(self) -> None:
        """What it took with it is sent again at once."""
        self.begin(SHORT_BYTES)
        self.assertEqual(self.session().records_lost, 0)
        self.net.crash(self.relay)
        self.net.run(self.net.now + 0.5)
        self.assertEqual(self.path(), ["src", self.other, "dst"])
        self.assertGreater(self.session().records_lost, 0)
        self.finish()

    def test_a_link_beyond_the_next_hop(self) -> None:
        """Not the next hop goes down, but the link behind it: what was on that is sent again, too."""
        self.begin(SHORT_BYTES)
        for ends in ((self.relay, "dst"), ("dst", self.relay)):
            self.net.impair(*ends, down=True)
        self.net.run(self.net.now + 1.0)
        self.assertEqual(self.path(), ["src", self.other, "dst"])
        self.assertGreater(self.session().records_lost, 0)
        self.finish()


class TwoPathsTests(SynchronousTestCase):
    """A link over IPv4 and over IPv6."""

    def test_the_better_path_carries_shorter_packets(self) -> None:
        """No link goes up or down, and yet the next packets must be shorter."""
        net = Simulation(load_text(TWO_PATHS, "two.conf"), private_key, Random(1))
        settle(net)
        for delay in (0.050, 0.001, 0.050):
            for one, other in (("src", "dst"), ("dst", "src")):
                net.impair(one, other, delay=delay)  # the wire that was named last
            net.run(net.now + 20.0)
            before = net.counters("src", "dst").packets_out
            applications = Applications(self, net, "src", "dst")
            applications.open(b"bulk", bytes(1_000_000), b"")
            net.run(net.now + 5.0, applications.done)
            applications.check()
            by_ipv6 = net.counters("src", "dst").packets_out - before > 500
            self.assertEqual(by_ipv6, delay == 0.001)
            self.assertEqual([link.too_big for link in net.node("src").status(net.now).links], [0, 0])
