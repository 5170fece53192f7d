"""Real wires that carry 1400 bytes under links that may use 1500, as in many clouds: everything works at once."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Final

from twisted.trial.runner import TestSuite

from seamless.test.lab.bedtest import NODES, wait_until
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.wholebed import ETC, WholePacketCase

WIRE_BYTES: Final = 1400
NARROW: Final = {"mtu 1500 bytes;": f"mtu {WIRE_BYTES} bytes;"}
TRANSFER_BYTES: Final = 5_000_000


class NarrowCase(WholePacketCase):
    """What both kinds of interceptors have to do."""

    def found(self, node: str) -> dict[str, Any]:
        """Return what a node's links found, by neighbor."""
        return {link["neighbor"]: (link["mtu_bytes"], link["mtu_state"]) for link in self.bed.report(node)["links"]}

    def check_wires(self) -> None:
        for node in NODES:
            wait_until(partial(self.is_found, node), f"{node} has found its MTUs")
            self.assertIn(f"carries IP packets of {WIRE_BYTES} bytes; `mtu` allows 1500", self.bed.log(node))
        self.assertEqual({link.mtu_bytes for link in self.lab.configuration.links}, {1500})
        self.assertEqual({wire.mtu_bytes for wire in self.lab.configuration.wires}, {WIRE_BYTES})

    def is_found(self, node: str) -> bool:
        return set(self.found(node).values()) == {(WIRE_BYTES, "search complete")}

    def transfer(self) -> None:
        client, server = self.pair("src", "dst", "10.1.9.2", 5202)
        self.both_ways(client, server, TRANSFER_BYTES)
        self.nothing_native()


class PayloadTests(NarrowCase):
    """``intercept payload``."""

    table = "nat"
    configuration: ClassVar[str] = (ETC / "lab.conf").read_text().replace(*next(iter(NARROW.items())))

    def carries(self, node: str, peer: str) -> bool:
        return self.bed.reaches(node, peer) and self.bed.has_rules(node)

    def test_at_once(self) -> None:
        self.transfer()
        self.check_wires()


class LocalTests(NarrowCase):
    """``intercept local``."""

    table = "filter"
    configuration: ClassVar[str] = (ETC / "local.conf").read_text().replace(*next(iter(NARROW.items())))

    def test_at_once(self) -> None:
        self.transfer()
        self.udp("src", "dst", "10.1.9.2", 5203, 9000)
        self.check_wires()


def testSuite() -> TestSuite:
    """Return the tests; each class has a bed of its own."""
    return TestSuite(map(ClassSuite, (PayloadTests, LocalTests)))
