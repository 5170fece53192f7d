"""A constant rate on a path that does not carry it is seen to overload it; loss that is the path's own is not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.congestion.overload import OVERLOAD_PERIODS, PERIOD, passing_rate
from seamless.link.status import LinkStatus
from seamless.test.lab.test_simulated import Applications
from seamless.test.node.network import node

WIRE_BPS = 8e6
BUFFER_SECONDS = 0.03


class OverloadTests(SynchronousTestCase):
    """Node a sends to b, as much as goes, on a wire of 8 Mb/s and 10 ms there and back."""

    def start(self, rate_mbit: float, wire: str = "", buffer_seconds: float = BUFFER_SECONDS) -> None:
        queue_bytes = int(WIRE_BPS / 8 * buffer_seconds)
        text = (
            "overlay test { }",
            node("a", "10.0.1.1"),
            node("b", "10.0.1.2"),
            f"link a b {{ rate {rate_mbit} mbit; congestion off; }}",
            "host a { } host b { }",
            "wire a b { between 10.0.1.1/30 10.0.1.2/30; delay 5 ms;",
            f"    rate 8 mbit; queue {queue_bytes} bytes; {wire} }}",
        )
        self.net = Simulation(load_text("\n".join(text), "test.conf"), private_key, Random(1))
        self.net.run(10.0, lambda: self.link.mtu_state == "search complete")
        self.applications = Applications(self, self.net, "a", "b")

    @property
    def link(self) -> LinkStatus:
        (link,) = self.net.node("a").status(self.net.now).links
        return link

    def send(self, seconds: float, rate_bps: float = 12e6) -> None:
        """Send for so long; at the rate of an application, or as fast as the link goes."""
        until = self.net.now + seconds
        while self.net.now < until:
            self.applications.open(b"part", bytes(int(rate_bps / 8 * 0.1)), b"")
            self.net.run(self.net.now + 0.1)

    def run_until(self, reached: Callable[[], bool], seconds: float) -> None:
        until = self.net.now + seconds
        while not reached() and self.net.now < until:
            self.net.run(self.net.now + 0.1)

    def test_a_rate_beyond_the_wire(self) -> None:
        self.start(12)
        self.send(OVERLOAD_PERIODS * PERIOD + 1.5)
        link = self.link
        self.assertGreater(self.net.counters("a", "b").queue_dropped, 50)
        self.assertEqual(link.congestion_state, "overload")
        assert link.bottleneck_bps is not None
        self.assertLess(abs(link.bottleneck_bps / WIRE_BPS - 1), 0.05)
        self.assertGreater(link.queue_delay, 0.01)
        self.assertLess(passing_rate(link.bottleneck_bps), WIRE_BPS)

    def test_a_rate_just_beyond_the_wire(self) -> None:
        """The queue stands before much is lost."""
        self.start(8.2)
        self.send(OVERLOAD_PERIODS * PERIOD + 3.0)
        self.assertEqual(self.link.congestion_state, "overload")
        assert self.link.bottleneck_bps is not None
        self.assertLess(abs(self.link.bottleneck_bps / WIRE_BPS - 1), 0.05)

    def test_a_rate_that_passes(self) -> None:
        for wire in ("", "loss 5 %;"):
            self.start(7.6, wire)
            self.send(OVERLOAD_PERIODS * PERIOD + 1.5)
            link = self.link
            self.assertEqual((link.congestion_state, link.congestion_reason), ("constant", "it is configured"), wire)
            self.assertIsNone(link.bottleneck_bps)
            self.assertLess(link.queue_delay, 0.005)

    def test_loss_that_follows_the_rate(self) -> None:
        """A buffer that holds no queue worth the name: but light traffic loses nothing, and full traffic a third."""
        self.start(12, buffer_seconds=0.005)
        self.send(8.0, 0.3e6)
        self.assertEqual(self.link.congestion_state, "constant")
        self.send(OVERLOAD_PERIODS * PERIOD + 1.5)
        link = self.link
        self.assertEqual(link.congestion_state, "overload")
        self.assertLess(link.queue_delay, 0.005)
        self.assertGreater(link.congestion_loss, 0.2)
        assert link.bottleneck_bps is not None
        self.assertLess(abs(link.bottleneck_bps / WIRE_BPS - 1), 0.06)

    def test_it_is_over_when_the_traffic_is(self) -> None:
        self.start(12)
        self.send(OVERLOAD_PERIODS * PERIOD + 1.5)
        self.assertEqual(self.link.congestion_state, "overload")
        self.net.run(self.net.now + 10.0)
        self.send(2 * PERIOD, 0.3e6)
        self.assertEqual(self.link.congestion_state, "constant")

    def test_a_rate_to_write(self) -> None:
        for capacity_bps, rate_bps in ((20_004_321.0, 19_200_000), (499.0, 479), (0.0, 1)):
            self.assertEqual(passing_rate(capacity_bps), rate_bps)
