"""The text that Prometheus scrapes, read by its own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from seamless.test.transport.reported import Reported
from seamless.transport.metrics import exposition
from seamless.transport.report import Report


class MetricsTests(SynchronousTestCase):
    bed: Reported
    report: Report

    def setUp(self) -> None:
        bed = Reported("src")
        bed.transfer(self, 1_000_000)
        bed.pass_time(1.0)
        (port,) = bed.service.driver.ports
        port.counters.send_errors["EPERM"] = 4
        self.report = bed.report()
        self.families = list(text_string_to_metric_families(exposition(self.report)))

    def value(self, name: str, **labels: str) -> float:
        """Return the only sample of this name that has these labels."""
        (value,) = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return value

    def test_counters_end_in_total_and_nothing_else_does(self) -> None:
        samples = [(family.type, sample.name) for family in self.families for sample in family.samples]
        self.assertGreater(len(samples), 80)
        for kind, name in samples:
            self.assertEqual(kind == "counter", name.endswith("_total"), name)
            self.assertTrue(name.startswith("seamless_"), name)

    def test_every_family_says_what_it_is(self) -> None:
        self.assertEqual([family.name for family in self.families if not family.documentation], [])

    def test_links(self) -> None:
        (link,) = self.report.links
        labels = {"neighbor": "r1", "local": "10.1.1.1:7400", "remote": "10.1.1.2:7400"}
        self.assertEqual(self.value("seamless_link_up", **labels), 1.0)
        self.assertEqual(self.value("seamless_link_sent_bytes_total", **labels), link.sent_bytes)
        self.assertGreater(link.sent_bytes, 1_000_000)
        self.assertAlmostEqual(self.value("seamless_link_rtt_seconds", **labels), link.rtt)

    def test_sessions_routes_interceptors_and_ports(self) -> None:
        (session,) = self.report.sessions
        self.assertEqual(self.value("seamless_session_records_sent_total", peer="dst"), session.records_sent)
        self.assertEqual(self.value("seamless_path_hops", to="dst"), 3.0)
        self.assertEqual(self.value("seamless_interceptor_total", interceptor="payload ingress", event="captured"), 7.0)
        self.assertEqual(self.value("seamless_udp_send_errors_total", local="10.1.1.1:7400", errno="EPERM"), 4.0)

    def test_a_link_that_is_down_and_a_node_out_of_reach(self) -> None:
        bed = Reported("src")
        bed.net.crash("r1")
        bed.pass_time(2.0)
        self.families = list(text_string_to_metric_families(exposition(bed.report())))
        self.assertEqual(self.value("seamless_link_up", neighbor="r1"), 0.0)
        self.assertEqual(self.value("seamless_node_reachable", to="dst"), 0.0)

    def test_two_nodes_of_one_process_do_not_mix(self) -> None:
        other = Reported("dst").report()
        texts = [exposition(self.report), exposition(other), exposition(self.report)]
        self.assertIn('node="src"', texts[0])
        self.assertNotIn('node="src"', texts[1])
        self.assertEqual(texts[0], texts[2])
