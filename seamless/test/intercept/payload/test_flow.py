"""Targets of captured connections, and who may capture and release what."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Configuration, InterceptConfig, Match, NodeConfig, Overlay
from seamless.errors import RemoteProtocolError
from seamless.intercept.payload.flow import (
    CaptureTable,
    Flow,
    OpeningLimit,
    ReleaseTable,
    Route,
    canonical,
    decode_flow,
)

addresses = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
ports = st.integers(1, 65535)
flows = st.one_of(*(st.builds(Flow, st.tuples(address, ports), st.tuples(address, ports)) for address in addresses))


def configuration() -> Configuration:
    """Two sites; ``third`` captures only web connections to ``dst``, ``src`` ssh as well."""
    nodes = {
        "src": NodeConfig("src", (("10.1.1.1", 7400),), (ip_network("10.1.9.1/32"),), b"s" * 32),
        "dst": NodeConfig(
            "dst", (("10.1.3.2", 7400),), (ip_network("10.1.9.2/32"), ip_network("fd00:9::/64")), b"d" * 32
        ),
        "third": NodeConfig("third", (("10.1.4.2", 7400),), (), b"t" * 32),
    }
    web = InterceptConfig("payload", (Match("tcp", None, ((80, 80), (8000, 8099))),), when_unreachable="refuse")
    ssh = InterceptConfig("payload", (Match("tcp", (ip_network("10.1.9.2/32"),), ((22, 22),)),), on=("src",))
    whole = InterceptConfig("local", (Match("tcp", None, ((443, 443),)),))
    return Configuration(Overlay("lab"), nodes, intercepts=(web, ssh, whole))


class TargetTests(SynchronousTestCase):
    @settings(derandomize=True, max_examples=200)
    @given(flows)
    def test_round_trip(self, flow: Flow) -> None:
        self.assertEqual(decode_flow(flow.encode()), flow)

    @settings(derandomize=True, max_examples=300)
    @given(st.one_of(st.binary(max_size=60), flows.map(Flow.encode).map(bytearray)), st.integers(0, 60), ports)
    def test_any_bytes_raise_only_protocol_errors(self, target: bytes, position: int, value: int) -> None:
        broken = bytearray(target)
        if position < len(broken):
            broken[position] = value & 255
        try:
            flow = decode_flow(bytes(broken))
        except RemoteProtocolError:
            return
        self.assertEqual(flow.encode(), bytes(broken))

    def test_every_truncation_is_refused(self) -> None:
        for flow in (Flow(("10.1.9.2", 22), ("10.1.9.1", 4000)), Flow(("fd00::2", 22), ("fd00::1", 4000))):
            target = flow.encode()
            for length in range(len(target)):
                self.assertRaises(RemoteProtocolError, decode_flow, target[:length])
            self.assertRaises(RemoteProtocolError, decode_flow, target + b"\0")

    def test_port_zero_is_refused(self) -> None:
        self.assertRaises(RemoteProtocolError, decode_flow, Flow(("10.1.9.2", 0), ("10.1.9.1", 4000)).encode())

    def test_written_for_people(self) -> None:
        flow = Flow(("10.1.9.2", 22), ("10.1.9.1", 4000))
        self.assertEqual(str(flow), "10.1.9.1 port 4000 to 10.1.9.2 port 22")

    def test_canonical(self) -> None:
        spellings = {"::ffff:10.1.9.2": "10.1.9.2", "fd00:0:0::1": "fd00::1", "fe80::1%eth0": "fe80::1"}
        self.assertEqual({host: str(canonical(host)) for host in spellings}, spellings)


class CaptureTests(SynchronousTestCase):
    def test_route(self) -> None:
        table = CaptureTable(configuration(), "src")
        self.assertEqual(table.route(("10.1.9.2", 22)), Route("dst", "direct"))
        self.assertEqual(table.route(("10.1.9.2", 8099)), Route("dst", "refuse"))
        self.assertEqual(table.route(("::ffff:10.1.9.2", 80)), Route("dst", "refuse"))
        self.assertEqual(table.route(("fd00:9::7", 80)), Route("dst", "refuse"))

    def test_nothing_else_is_captured(self) -> None:
        table = CaptureTable(configuration(), "src")
        for destination in (("10.1.9.2", 23), ("10.1.9.2", 443), ("10.1.9.1", 80), ("10.9.9.9", 80), ("fd00:9::7", 22)):
            self.assertIsNone(table.route(destination), destination)


class ReleaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = ReleaseTable(configuration(), "dst", [("10.1.9.2", 8042), ("0.0.0.0", 8043)])

    def test_allowed(self) -> None:
        for peer, destination in (
            ("src", ("10.1.9.2", 22)),
            ("src", ("10.1.9.2", 80)),
            ("third", ("10.1.9.2", 8000)),
            ("third", ("fd00:9::1", 8000)),
            ("third", ("::ffff:10.1.9.2", 8000)),
            ("third", ("fd00:9::1", 8042)),
        ):
            self.assertIsNone(self.table.refusal(peer, destination), destination)

    def test_refused_with_the_reason(self) -> None:
        expected = {
            ("third", ("10.1.9.2", 22)): "no interceptor lets node third connect to 10.1.9.2 port 22",
            ("stranger", ("10.1.9.2", 80)): "no interceptor lets node stranger connect to 10.1.9.2 port 80",
            ("src", ("10.1.9.2", 443)): "no interceptor lets node src connect to 10.1.9.2 port 443",
            ("src", ("10.1.9.3", 80)): "this node does not serve 10.1.9.3",
            ("src", ("10.1.9.2", 8042)): "10.1.9.2 port 8042 is this daemon's own",
            ("src", ("fd00:9::1", 8043)): "fd00:9::1 port 8043 is this daemon's own",
        }
        self.assertEqual({key: self.table.refusal(*key) for key in expected}, expected)

    def test_addresses_of_this_host_only_are_refused_even_when_served(self) -> None:
        served = tuple(
            ip_network(text) for text in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::/0", "0.0.0.0/8")
        )
        one = NodeConfig("src", (("10.1.1.1", 7400),), (), b"s" * 32)
        other = NodeConfig("dst", (("10.1.3.2", 7400),), served, b"d" * 32)
        everything = InterceptConfig("payload", (Match("tcp"),))
        table = ReleaseTable(Configuration(Overlay("lab"), {"src": one, "dst": other}, intercepts=(everything,)), "dst")
        hosts = ("127.0.0.1", "::ffff:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::1", "169.254.169.254", "fe80::1")
        for host in (*hosts, "224.0.0.1", "ff02::1", "0.0.0.0", "::"):
            self.assertIn("no address that another host may ask for", table.refusal("src", (host, 22)) or "", host)


class WaitingTests(SynchronousTestCase):
    def test_one_client_does_not_take_all(self) -> None:
        waiting = OpeningLimit(4, 3)
        self.assertEqual([waiting.enter("a") for _ in range(4)], [True, True, True, False])
        self.assertEqual([waiting.enter("b"), waiting.enter("c")], [True, False])
        waiting.leave("a")
        self.assertTrue(waiting.enter("c"))
        self.assertEqual(waiting.count, 4)
