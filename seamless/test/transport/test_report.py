"""What a node reports of itself, from whole nodes on virtual time."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.test.transport.reported import Reported

OPERATING = Path(__file__).parents[3] / "docs" / "operating.rst"


def keys(value: object, below: str = "") -> set[str]:
    """Return every key of what JSON will say, but for those that counters have by reason."""
    if isinstance(value, dict):
        found = {key for key in value if below not in COUNTED_BY_REASON}
        return found.union(*(keys(inner, key) for key, inner in value.items()))
    if isinstance(value, (list, tuple)):
        return set().union(*(keys(inner, below) for inner in value))
    return set()


COUNTED_BY_REASON = ("counters", "packets", "handshakes", "routing", "firewall")


class LinkTests(SynchronousTestCase):
    def test_before_the_first_second_there_are_no_rates(self) -> None:
        rates = Reported().link("r2").rates
        self.assertEqual(
            (rates.interval, rates.sent_bps, rates.arrived_ratio, rates.lost_ratio), (0.0, 0.0, None, None)
        )

    def test_what_is_sent_what_arrives_and_what_is_lost(self) -> None:
        bed = Reported()
        for end in (("r1", "r2"), ("r2", "r1")):
            bed.net.impair(*end, loss=0.2)
        bed.transfer(self, 50_000_000)
        bed.pass_time(1.0)
        link = bed.link("r2")
        self.assertGreater(bed.net.counters("r1", "r2").lost, 1000)
        self.assertEqual(link.rates.interval, 1.0)
        self.assertGreater(link.rates.sent_bps, 300e6)
        self.assertApproximates(link.rates.sent_bps, 8 * bed.net.counters("r1", "r2").bytes_in, 20e6)
        assert link.rates.arrived_ratio is not None and link.rates.lost_ratio is not None
        self.assertApproximates(link.rates.arrived_ratio, 0.8, 0.03)
        self.assertApproximates(link.rates.lost_ratio, 0.2, 0.03)
        self.assertGreater(link.resent, 1000)
        self.assertEqual(link.congestion, "off")

    def test_rates_are_those_of_the_last_second(self) -> None:
        bed = Reported()
        bed.transfer(self, 10_000_000)
        bed.pass_time(1.0)
        busy = bed.link("r2")
        bed.pass_time(3.0)
        idle = bed.link("r2")
        self.assertGreater(busy.rates.sent_bps, 50e6)
        self.assertLess(idle.rates.sent_bps, 1e6)
        self.assertGreater(idle.sent_bytes, 10_000_000)
        self.assertIsNone(idle.rates.arrived_ratio, "hellos alone are too few to tell")

    def test_a_link_tells_since_when_and_why(self) -> None:
        bed = Reported()
        bed.pass_time(2.0)
        for end in (("r1", "r2"), ("r2", "r1")):
            bed.net.impair(*end, down=True)
        bed.pass_time(2.0)
        self.assertIn("no datagram for 3", bed.link("r2").reason)
        bed.pass_time(3.0)
        link = bed.link("r2")
        self.assertGreater(bed.net.counters("r1", "r2").outage, 0)
        self.assertEqual(link.state, "DOWN")
        self.assertEqual(link.reason, "nothing has come from it since")
        self.assertApproximates(bed.unix_time - link.since, 5.0 - 0.3, 0.2)
        self.assertEqual(bed.link("src").state, "UP")

    def test_what_is_said_to_have_arrived_can_be_compared_with_what_was_sent(self) -> None:
        bed = Reported()
        bed.transfer(self, 10_000_000)
        bed.pass_time(2.0)
        # Towards src go acknowledgements only, and nothing is lost on this link.
        link = bed.link("src")
        self.assertGreater(link.neighbor_received, 100)
        self.assertGreater(link.control_sent, link.data_sent)
        self.assertApproximates(link.sent_at_report, link.neighbor_received, 2)

    def test_a_neighbor_that_began_to_count_anew(self) -> None:
        bed = Reported()
        bed.transfer(self, 200_000_000)
        bed.pass_time(2.0)
        before = bed.link("r2")
        bed.net.start("r2")
        bed.pass_time(1.0)
        link = bed.link("r2")
        self.assertEqual(link.state, "UP")
        self.assertLess(link.neighbor_received, before.neighbor_received)
        self.assertGreater(link.sent_at_report - before.sent_at_report, 1000)
        self.assertIsNone(link.rates.arrived_ratio)


class ReportTests(SynchronousTestCase):
    def test_who_and_for_how_long(self) -> None:
        bed = Reported()
        bed.pass_time(3.0)
        report = bed.report()
        self.assertEqual((report.node, report.overlay, report.version), ("r1", "lab", seamless.__version__))
        self.assertAlmostEqual(report.uptime, 3.0)
        self.assertEqual(report.time, bed.unix_time)

    def test_paths_are_names(self) -> None:
        bed = Reported("src")
        paths = {route.node: route.path for route in bed.report().routes}
        self.assertEqual(paths, {"r1": ("src", "r1"), "r2": ("src", "r1", "r2"), "dst": ("src", "r1", "r2", "dst")})
        self.assertEqual(bed.reporter.path("dst"), paths["dst"])

    def test_a_node_that_cannot_be_reached_is_listed(self) -> None:
        bed = Reported("src")
        bed.net.crash("r2")
        bed.pass_time(2.0)
        routes = {route.node: route for route in bed.report().routes}
        self.assertEqual((routes["dst"].path, routes["dst"].cost, routes["dst"].mtu_bytes), ((), None, None))
        self.assertEqual(routes["r1"].path, ("src", "r1"))

    def test_sessions_have_the_name_of_the_peer(self) -> None:
        bed = Reported("src")
        self.assertEqual(bed.report().sessions, ())
        applications = bed.transfer(self, 1_000_000)
        bed.pass_time(2.0)
        (session,) = bed.report().sessions
        self.assertEqual((session.peer, session.established, session.unsent_bytes), ("dst", True, 0))
        self.assertGreater(session.records_sent, 50)
        self.assertEqual(applications.closed, 2)

    def test_interceptors_and_ports(self) -> None:
        report = Reported().report()
        (interceptor,) = report.interceptors
        self.assertEqual((interceptor.name, interceptor.connections, interceptor.waiting), ("payload ingress", 3, 1))
        self.assertEqual((interceptor.counters["captured"], interceptor.counters["gave_up"]), (7, 2))
        self.assertEqual([port.local for port in report.ports], [("10.1.1.2", 7400), ("10.1.2.1", 7400)])

    def test_a_report_is_a_snapshot(self) -> None:
        bed = Reported("src")
        before = bed.report()
        (port,) = bed.service.driver.ports
        port.counters.kernel_drops = 5
        port.counters.send_errors["EPERM"] = 1
        bed.transfer(self, 1_000_000)
        bed.pass_time(1.0)
        self.assertEqual(before.ports[0].counters.kernel_drops, 0)
        self.assertEqual(dict(before.ports[0].counters.send_errors), {})
        self.assertEqual(before.packets.delivered, 0)
        self.assertGreater(bed.report().packets.delivered, 0)

    def test_every_reason_is_there_from_the_start(self) -> None:
        report = Reported().report()
        self.assertLessEqual({"admitted", "answered", "unknown_key", "wrong_mac1"}, set(report.handshakes))
        self.assertLessEqual({"lsas_received", "refused_not_authentic"}, set(report.routing))

    def test_no_timer_is_left_behind(self) -> None:
        bed = Reported()
        bed.pass_time(2.0)
        bed.reporter.stopService()
        self.assertEqual(bed.clock.getDelayedCalls(), [])

    def test_every_key_is_documented(self) -> None:
        bed = Reported("src")
        bed.transfer(self, 100_000)
        bed.pass_time(1.0)
        said = keys(attrs.asdict(bed.report()))
        self.assertGreater(len(said), 60)
        documented = set(re.findall(r"``(\w+)``", OPERATING.read_text().partition("For programs")[2]))
        self.assertEqual(sorted(said - documented), [])
