"""What the model answers about itself: who serves an address, and what a node captures."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import (
    Configuration,
    InterceptConfig,
    Match,
    Network,
    NodeConfig,
    Overlay,
    without,
)


def serving(name: str, *serves: str) -> NodeConfig:
    return NodeConfig(name, (("10.0.0.1", 7400),), tuple(ip_network(one) for one in serves), name.encode() * 32)


def overlay(*intercepts: InterceptConfig) -> Configuration:
    nodes = (serving("a", "10.1.0.0/16", "2001:db8::/64"), serving("b", "10.2.0.1"), serving("c"))
    return Configuration(Overlay("x"), {node.name: node for node in nodes}, intercepts=intercepts)


class ServingNode(SynchronousTestCase):
    def name(self, address: str) -> str | None:
        node = overlay().serving_node(address)
        return None if node is None else node.name

    def test_by_address(self) -> None:
        self.assertEqual([self.name("10.1.255.255"), self.name("10.2.0.1"), self.name("10.2.0.2")], ["a", "b", None])
        self.assertEqual([self.name("2001:db8::5"), self.name("2001:db8:1::5")], ["a", None])

    def test_address_mapped_into_ipv6(self) -> None:
        self.assertEqual([self.name("::ffff:10.2.0.1"), self.name("::ffff:10.2.0.2")], ["b", None])

    def test_address_objects(self) -> None:
        node = overlay().serving_node(ip_address("10.2.0.1"))
        assert node is not None
        self.assertEqual(node.name, "b")

    def test_no_address(self) -> None:
        self.assertRaises(ValueError, overlay().serving_node, "everywhere")


class Captures(SynchronousTestCase):
    def captured(self, node: str, *intercepts: InterceptConfig) -> list[list[str]]:
        return [[str(to) for to in capture.to] for capture in overlay(*intercepts).captures(node)]

    def test_left_out_to_is_all_that_others_serve(self) -> None:
        everything = InterceptConfig("payload", (Match("tcp"),))
        self.assertEqual(self.captured("a", everything), [["10.2.0.1/32"]])
        self.assertEqual(self.captured("b", everything), [["10.1.0.0/16", "2001:db8::/64"]])
        self.assertEqual(self.captured("c", everything), [["10.1.0.0/16", "2001:db8::/64", "10.2.0.1/32"]])

    def test_own_addresses_are_cut_out(self) -> None:
        both = InterceptConfig("payload", (Match("tcp", (ip_network("10.0.0.0/15"), ip_network("10.2.0.0/30"))),))
        self.assertEqual(self.captured("a", both), [["10.0.0.0/16", "10.2.0.0/30"]])
        self.assertEqual(self.captured("b", both), [["10.0.0.0/15", "10.2.0.0/32", "10.2.0.2/31"]])

    def test_a_rule_of_which_nothing_is_left_is_left_out(self) -> None:
        two = InterceptConfig("local", (Match("tcp", (ip_network("10.2.0.1"),)), Match("udp", None, ((53, 53),))))
        (capture,) = overlay(two).captures("b")
        self.assertEqual((capture.protocol, capture.ports, capture.intercept), ("udp", ((53, 53),), two))

    def test_only_where_it_is_on(self) -> None:
        on_c = InterceptConfig("payload", (Match("tcp"),), on=("c",))
        self.assertEqual([len(self.captured(node, on_c)) for node in "abc"], [0, 0, 1])

    def test_unknown_node(self) -> None:
        self.assertRaises(KeyError, overlay().captures, "d")


def some_network(draw: st.DrawFn) -> Network:
    return IPv4Network((draw(st.integers(0, 63)), draw(st.integers(26, 32))), strict=False)


networks = st.lists(st.composite(some_network)(), max_size=4)


class Without(SynchronousTestCase):
    """Networks are sets of addresses, and `without` is the difference of sets."""

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(networks, networks)
    def test_difference(self, ones: list[Network], others: list[Network]) -> None:
        def members(networks: list[Network] | tuple[Network, ...]) -> set[str]:
            return {str(address) for network in networks for address in network}

        self.assertEqual(members(without(ones, others)), members(ones) - members(others))

    def test_other_versions_do_not_matter(self) -> None:
        four, six = ip_network("0.0.0.0/0"), ip_network("::/0")
        self.assertEqual(without([four, six], [six]), (four,))
