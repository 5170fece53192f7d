"""Measurements of links, in virtual time: what is found on which path, and that nothing is left of them."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.errors import SeamlessError, UsageError
from seamless.interfaces import Event, LinkDown, MeasurementEnded
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.capacity_search import SEARCH_SECONDS
from seamless.link.status import LinkStatus
from seamless.node.measurement import REQUEST_INTERVAL
from seamless.test.lab.test_simulated import Applications
from seamless.test.node.network import node
from seamless.wire.link_frames import Measure, MeasureAct

BUFFER_SECONDS = 0.05


def wired(rate_mbit: float, wire: str = "", link: str = "", buffer_seconds: float = BUFFER_SECONDS) -> Configuration:
    """Return nodes a and b with a wire of this rate and 10 ms there and back, and c behind b on a perfect wire."""
    queue_bytes = int(rate_mbit * 1e6 / 8 * buffer_seconds)
    return load_text(
        "\n".join(
            (
                "overlay test { }",
                node("a", "10.0.1.1"),
                node("b", "10.0.1.2, 10.0.2.1"),
                node("c", "10.0.2.2"),
                f"link a b {{ {link} }}",
                "link b c { between 10.0.2.1 10.0.2.2; }",
                "host a { } host b { } host c { }",
                "wire b c { between 10.0.2.1/30 10.0.2.2/30; }",
                "wire a b { between 10.0.1.1/30 10.0.1.2/30; delay 5 ms;",
                f"    rate {rate_mbit} mbit; queue {queue_bytes} bytes; {wire} }}",
            )
        ),
        "test.conf",
    )


class MeasurementCase(SynchronousTestCase):
    def start(self, configuration: Configuration, seed: int = 1) -> None:
        self.net = Simulation(configuration, private_key, Random(seed))
        self.net.run(10.0, lambda: all(self.status(name).mtu_state == "search complete" for name in "ab"))
        self.net.run(self.net.now + 0.5)
        self.before = self.status("a"), self.status("b")

    def status(self, name: str) -> LinkStatus:
        neighbor = {"a": "b", "b": "a"}[name]
        (link,) = [each for each in self.net.node(name).status(self.net.now).links if each.neighbor == neighbor]
        return link

    def begin(self, asking: str = "a", neighbor: str = "b") -> None:
        self.net.command(asking, lambda node, now: node.measure(neighbor, now))

    def ended(self, asking: str = "a", seconds: float = 20.0) -> MeasurementEnded:
        """Let time pass until the measurement is over; return what became of it."""

        def found() -> list[MeasurementEnded]:
            return [event for event in self.net.nodes[asking].events if isinstance(event, MeasurementEnded)]

        self.net.run(self.net.now + seconds, lambda: bool(found()))
        (event,) = found()
        self.net.nodes[asking].events.remove(event)
        return event

    def assert_near(self, value: float, wanted: float, within: float) -> None:
        self.assertLessEqual(abs(value - wanted), within, f"{value}, not {wanted}")

    def assert_as_before(self) -> None:
        """Check that both ends send as they did, and nothing of a measurement."""
        self.net.run(self.net.now + 1.0)
        for name, before in zip("ab", self.before):
            now = self.status(name)
            self.assertEqual((now.state, now.congestion), ("UP", before.congestion))
            self.assertLess(now.bytes_in_flight + now.queued_bytes, 1280)
            if before.congestion == "off":
                self.assertEqual(now.rate_bps, before.rate_bps)
        sent = [self.status(name).load_sent for name in "ab"]
        self.net.run(self.net.now + 1.0)
        self.assertEqual([self.status(name).load_sent for name in "ab"], sent)


class CapacityTests(MeasurementCase):
    """What is found is what the wire is."""

    def check(self, rate_mbit: float, loss: float, burst: int = 1, buffer_seconds: float = BUFFER_SECONDS) -> None:
        wire = f"loss {loss * 100} %; burst {burst} packets;" if loss else ""
        self.start(wired(rate_mbit, wire, buffer_seconds=buffer_seconds))
        began_at = self.net.now
        self.begin()
        event = self.ended()
        self.assertLess(self.net.now - began_at, 6.0)
        for way, (one, other) in ((event.out, "ab"), (event.back, "ba")):
            assert way is not None, event.reason
            self.assert_near(way.capacity_bps / rate_mbit / 1e6, 1.0, 0.05)
            self.assertLess(way.rate_bps, rate_mbit * 1e6)
            self.assertGreater(way.rate_bps, 0.9 * rate_mbit * 1e6)
            counters = self.net.counters(one, other)
            lost = counters.lost / counters.packets_in
            self.assert_near(way.loss_floor, lost, 0.002 + 0.25 * loss * burst**0.5)
            self.assertLess(way.queue_delay, 0.008)
            self.assertEqual((way.mtu_bytes, way.is_least), (1500, False))
            # Bursts take all hellos of a dead interval now and then, once there is nothing else.
            self.net.impair(one, other, loss=0.0)
        self.assert_as_before()

    def test_20_mbit(self) -> None:
        self.check(20, 0.0)
        self.check(20, 0.05)

    def test_100_mbit(self) -> None:
        self.check(100, 0.0)
        self.check(100, 0.05)
        self.check(100, 0.05, burst=8)

    def test_500_mbit(self) -> None:
        self.check(500, 0.0)
        self.check(500, 0.05)

    def test_a_buffer_of_two_milliseconds(self) -> None:
        self.check(100, 0.0, buffer_seconds=0.002)
        self.assertGreater(self.net.counters("a", "b").queue_dropped, 100)

    def test_a_deep_buffer_is_not_filled(self) -> None:
        """Others who wait in it do so for no longer than a few hundredths of a second."""
        self.check(100, 0.0, buffer_seconds=0.06)
        self.assertEqual(self.net.counters("a", "b").queue_dropped, 0)

    def test_directions_that_differ(self) -> None:
        self.start(wired(100, "from b { rate 20 mbit; queue 125000 bytes; }"))
        self.begin()
        event = self.ended()
        assert event.out is not None and event.back is not None
        self.assert_near(event.out.capacity_bps / 1e6, 100, 5)
        self.assert_near(event.back.capacity_bps / 1e6, 20, 1)


class TrafficTests(MeasurementCase):
    """A measurement beside a transfer."""

    def test_live_traffic_goes_first(self) -> None:
        """A transfer at the constant rate of its link goes on at that rate, and the wire's capacity is found."""
        self.start(wired(40, link="rate 15 mbit; congestion off;"))
        applications = Applications(self, self.net, "a", "b")
        applications.open(b"bulk", bytes(12_000_000), b"answer")
        place = self.net.nodes["a"]
        for_applications = place.on_event
        assert for_applications is not None

        def on_event(event: Event) -> None:
            place.events.append(event)
            for_applications(event)

        place.on_event = on_event
        self.net.run(self.net.now + 1.0)
        received = self.status("b").data_received
        self.begin()
        began_at = self.net.now
        event = self.ended()
        seconds = self.net.now - began_at
        rate_bps = (self.status("b").data_received - received) * 1500 * 8 / seconds
        self.assertGreater(rate_bps, 0.9 * 15e6)
        assert event.out is not None and event.back is not None
        self.assertGreater(self.status("b").load_sent, 1000)
        self.assert_near(event.out.capacity_bps / 1e6, 40, 2)
        self.assert_near(event.back.capacity_bps / 1e6, 40, 2)
        self.net.run(self.net.now + 20, applications.done)
        applications.check()


class RefusalTests(MeasurementCase):
    """One at a time."""

    def test_at_the_same_node(self) -> None:
        self.start(wired(20))
        self.begin()
        for asking, neighbor in (("a", "b"), ("b", "a"), ("b", "c")):
            self.net.run(self.net.now + 0.1)
            with self.assertRaisesRegex(SeamlessError, "a measurement of the link to . runs already: wait until it is"):
                self.begin(asking, neighbor)
        self.assertIsNotNone(self.ended().out)

    def test_at_the_neighbor(self) -> None:
        self.start(wired(20))
        self.begin()
        self.net.run(self.net.now + 0.1)
        self.begin("c", "b")
        self.assertIn("node b takes part in another measurement", self.ended("c").reason)
        self.assertIsNotNone(self.ended().out)
        self.assert_as_before()

    def test_too_soon_after_the_last(self) -> None:
        self.start(wired(20))
        self.begin()
        self.net.run(self.net.now + 0.5)
        self.net.command("a", lambda node, now: node.stop_measuring(now))
        self.net.run(self.net.now + 0.1)
        self.begin()
        self.assertIn("node b has just been measured: try again in a few seconds", self.ended().reason)
        self.net.run(self.net.now + REQUEST_INTERVAL)
        self.begin()
        self.assertIsNotNone(self.ended().out)

    def test_who_is_no_neighbor(self) -> None:
        self.start(wired(20))
        for stranger in ("c", "a", "x"):
            with self.assertRaisesRegex(UsageError, f"node a has no link to {stranger}: measure the link to one of b"):
                self.begin("a", stranger)


class EndTests(MeasurementCase):
    """Whatever ends a measurement, both ends go on as before."""

    def interrupt(self, after: float) -> None:
        self.start(wired(20, link="rate 15 mbit; congestion off;"))
        self.begin()
        self.net.run(self.net.now + after)

    def test_the_one_who_asked_goes_away(self) -> None:
        for after, loaded in ((1.0, "b"), (4.0, "a")):
            self.interrupt(after)
            self.assertEqual(self.status(loaded).congestion, "measuring")
            self.net.command("a", lambda node, now: node.stop_measuring(now))
            self.net.run(self.net.now + 0.1)
            self.assert_as_before()
            self.assertFalse([each for each in self.net.nodes["a"].events if isinstance(each, MeasurementEnded)])

    def test_the_wire_dies_in_the_middle(self) -> None:
        for after in (1.0, 4.0):
            self.interrupt(after)
            for one, other in ("ab", "ba"):
                self.net.impair(one, other, down=True)
            self.assertIn("the link to b went down, or node b started again", self.ended(seconds=2.0).reason)
            self.assertTrue([each for each in self.net.nodes["a"].events if isinstance(each, LinkDown)])
            for one, other in ("ab", "ba"):
                self.net.impair(one, other, down=False)
            self.net.run(self.net.now + 5.0)
            self.assert_as_before()

    def test_one_direction_dies_in_the_middle(self) -> None:
        """Padding that is never acknowledged is bounded by the window."""
        self.interrupt(4.0)
        sent = self.status("a").load_sent
        self.net.impair("a", "b", down=True)
        self.assertTrue(self.ended(seconds=3.0).reason)
        self.assertLess((self.status("a").load_sent - sent) * 1500 * 8 / 25e6, 0.5)

    def test_the_neighbor_starts_again_in_the_middle(self) -> None:
        for after in (1.0, 4.0):
            self.interrupt(after)
            self.net.crash("b")
            self.net.start("b")
            self.assertIn("started again", self.ended(seconds=3.0).reason)
            self.net.run(self.net.now + 5.0)
            self.assert_as_before()

    def test_the_one_who_asked_starts_again_in_the_middle(self) -> None:
        self.interrupt(1.0)
        self.net.crash("a")
        self.net.start("a")
        self.net.run(self.net.now + 5.0)
        self.assert_as_before()
        self.begin()
        self.assertIsNotNone(self.ended().out)

    def test_words_that_get_lost(self) -> None:
        """They are sent again until they are acknowledged."""
        self.start(wired(20, "loss 20 %;"), seed=5)
        self.begin()
        self.assertIsNotNone(self.ended().out)
        self.assertGreater(self.net.counters("a", "b").lost, 50)

    def test_a_request_that_comes_twice(self) -> None:
        """Its acknowledgement was lost: it is no other request, and not refused."""
        self.interrupt(1.0)
        running = self.net.node("a")._measurements._running
        assert running is not None
        running.link.send_measure(Measure(running.token, MeasureAct.START))
        self.net.command("a", lambda node, now: None)
        self.assertIsNotNone(self.ended().out)

    def test_a_link_that_is_configured_anew_in_the_middle(self) -> None:
        """The new rate counts as soon as the measurement is over; a link that is removed ends it."""
        self.interrupt(4.0)
        self.net.apply("a", wired(20, link="rate 12 mbit; congestion off;"))
        self.assertEqual(self.status("a").congestion, "measuring")
        self.assertIsNotNone(self.ended().out)
        self.assertEqual((self.status("a").congestion, self.status("a").rate_bps), ("off", 12e6))


class HostileTests(MeasurementCase):
    """A neighbor that asks for more than it should get."""

    def test_requests_without_end(self) -> None:
        """Only one in `REQUEST_INTERVAL` is taken, and none for longer than a search takes."""
        self.start(wired(20))
        (link,) = [each for each in self.net.node("a")._links if each.settings.neighbor == "b"]
        loaded = 0
        for number in range(200):
            link.send_measure(Measure(number, MeasureAct.START))
            link.send_measure(Measure(max(0, number - 1), MeasureAct.STOP))
            self.net.command("a", lambda node, now: None)
            self.net.run(self.net.now + 0.05)
            loaded += self.status("b").congestion == "measuring"
        self.assertLess(loaded * 0.05, 10.0 / REQUEST_INTERVAL * (SEARCH_SECONDS + 1.0))
        self.assertEqual(self.status("b").restarts, self.before[1].restarts)

    def test_words_that_nobody_waits_for(self) -> None:
        self.start(wired(20))
        (link,) = [each for each in self.net.node("a")._links if each.settings.neighbor == "b"]
        for act in (MeasureAct.FOUND, MeasureAct.REFUSED, MeasureAct.STOP):
            link.send_measure(Measure(7, act, 1, 1 << 60, 1 << 60, 1 << 30))
        self.net.command("a", lambda node, now: None)
        self.net.run(self.net.now + 1.0)
        self.assertEqual(self.status("b").load_sent, 0)
        self.assert_as_before()
