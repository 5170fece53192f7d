"""Whole packets with nodes that hold no privilege: queues and raw sockets are touched by the privileged part alone."""

from __future__ import annotations

from twisted.trial.runner import TestSuite

from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.wholebed import ETC, WholePacketCase
from seamless.test.trust.unprivileged import Shed, Standing


class Packets(WholePacketCase):
    """``intercept local`` with real programs."""

    table = "filter"
    configuration = (ETC / "local.conf").read_text()

    def test_ssh_and_scp(self) -> None:
        before = {node: self.counter(node, "captured") for node in ("src", "dst")}
        self.assertEqual(self.lab.run("src", ["ssh", "dst", "hostname"]).stdout, "dst\n")
        self.copies("src", "dst")
        for node, captured in before.items():
            self.assertGreater(self.counter(node, "captured"), captured, node)
        self.nothing_native()

    def test_the_node_is_killed(self) -> None:
        """TCP lives on, on the native wire; the next life of the node takes it back."""
        for victim in ("src", "dst"):
            self.is_killed(victim, "src", "dst", "10.1.9.2")


class ShedTests(Shed, Packets):
    pass


class StandingTests(Standing, Packets):
    pass


def testSuite() -> TestSuite:
    """Return all tests, by bed (trial asks for this name)."""
    return TestSuite([ClassSuite(ShedTests), ClassSuite(StandingTests)])
