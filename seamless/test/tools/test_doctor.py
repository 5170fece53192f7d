"""What ``seamless doctor`` says of a node's report, when something in it is broken."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.test.intercept.test_node_rules import NODES
from seamless.test.transport.reported import Reported
from seamless.tools.doctor_command import Facts, findings

CAPTURING = load_text(NODES + "intercept payload { tcp port 22; }", "test")


class FindingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.report: Any = json.loads(json.dumps(attrs.asdict(Reported("src").report())))
        self.report["firewall"] = {"installed": 1, "restored": 0, "deaths": 0}
        self.facts = Facts(self.report, CAPTURING, conntrack=(100, 65536))

    def found(self, **changes: Any) -> list[str]:
        return [f"{each.what}: {each.advice}" for each in findings(attrs.evolve(self.facts, **changes))]

    def test_a_healthy_node(self) -> None:
        self.assertEqual(self.found(), [])

    def test_rules(self) -> None:
        (ahead,) = self.found(rules_ahead=("iptables nat: -A OUTPUT -j ACCEPT",))
        self.assertIn("takes our traffic first (iptables nat: -A OUTPUT -j ACCEPT): remove it", ahead)
        self.report["firewall"]["installed"] = 0
        self.assertRegex(self.found()[0], "rules are not installed, so nothing is captured: see the log")

    def test_links(self) -> None:
        self.report["links"][0].update(state="DOWN", reason="nothing has ever come from it")
        self.assertRegex(self.found()[0], "is DOWN: nothing has ever come from it: .*UDP port 7400 pass, both ways")
        self.report["links"][0].update(state="UP", mtu_bytes=1400)
        self.assertRegex(self.found()[0], "carries IP packets of 1400 bytes, not 1500")
        self.report["links"][0].update(mtu_bytes=1500, failed_authentication=1)
        self.assertRegex(self.found()[0], "is its key used twice")

    def test_the_host(self) -> None:
        self.report["ports"][0]["counters"].update(kernel_drops=12)
        self.report["ports"][0]["offload"] = False
        drops, offload = self.found()
        self.assertRegex(drops, "dropped by the kernel 12: .*net.core.rmem_max")
        self.assertRegex(offload, "one by one: .*UDP_SEGMENT")
        self.assertRegex(self.found(conntrack=(60_000, 65_536))[-1], "60000 of 65536 .*nf_conntrack_max to 131072")
        lossy = "net.ipv4.conf.all.src_valid_mark"
        self.assertRegex(self.found(lossy_settings=(lossy,))[-1], f"sysctl -w {lossy}=0")

    def test_another_configuration(self) -> None:
        self.report["configuration"] = [{"node": "r1", "differences": ["rate of link r1 src"]}]
        self.assertEqual(
            self.found(),
            ["the configuration of r1 differs in rate of link r1 src: give both nodes the same file, and reload them"],
        )
