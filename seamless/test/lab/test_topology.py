"""From host and wire blocks to addresses and routes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.lab.topology import WireEnds, host_addresses, host_setup, is_router, wire_ends

TEXT = """
overlay two-sites { }
host pc { address 10.5.9.1; gateway gate; }
host gate { }
host far { address 10.5.9.2, fd00:5::2; }
wire pc gate { between 10.5.1.1/24 10.5.1.2/24; }
wire gate far { between 10.5.2.1/24 10.5.2.2/24; carries 10.5.9.1 10.5.9.2; mtu 1400 bytes; }
wire gate far { between fd00:52::1/64 fd00:52::2/64; }
"""


class Topology(SynchronousTestCase):
    def setUp(self) -> None:
        self.configuration = load_text(TEXT, "test")

    def commands(self, name: str) -> tuple[str, ...]:
        return host_setup(self.configuration, self.configuration.hosts[name]).commands

    def test_devices_are_named_after_the_neighbor_and_numbered_when_there_are_several(self) -> None:
        self.assertEqual(
            wire_ends(self.configuration),
            (
                WireEnds(("pc", "gate"), ("gate", "pc")),
                WireEnds(("gate", "far"), ("far", "gate")),
                WireEnds(("gate", "far"), ("far.2", "gate.2")),
            ),
        )

    def test_carried_networks_are_routed_from_both_ends(self) -> None:
        self.assertIn("route add 10.5.9.2/32 dev far metric 2", self.commands("gate"))
        self.assertIn("route add 10.5.9.1/32 dev gate metric 2 src 10.5.9.2", self.commands("far"))

    def test_a_gateway_is_the_default_route_and_knows_the_way_back(self) -> None:
        self.assertIn("route add 0.0.0.0/0 dev gate src 10.5.9.1", self.commands("pc"))
        self.assertIn("route add 10.5.9.1/32 dev pc", self.commands("gate"))

    def test_only_routers_forward(self) -> None:
        hosts = self.configuration.hosts.values()
        self.assertEqual({host.name for host in hosts if is_router(self.configuration, host)}, {"gate"})

    def test_ipv6_addresses_are_there_at_once(self) -> None:
        self.assertIn("address add fd00:5::2 dev lo nodad", self.commands("far"))

    def test_every_host_has_a_name_that_resolves(self) -> None:
        self.assertEqual(host_addresses(self.configuration), {"pc": "10.5.9.1", "gate": "10.5.1.2", "far": "10.5.9.2"})
