"""What a node says that it would do with a connection, against what its tables do; and nonsense."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.errors import UsageError
from seamless.intercept.explain import Explanation, destination_of, explain
from seamless.intercept.payload.flow import CaptureTable
from seamless.test.node.network import node

NAMES = ("src", "r1", "dst")


def configuration(interceptors: str, src: str = "serves 10.1.9.1;") -> Configuration:
    def block(name: str, more: str) -> str:
        return node(name, f"10.0.0.{NAMES.index(name) + 1}:7400").replace("}", f"{more} }}")

    nodes = (block("src", src), block("r1", ""), block("dst", "serves 10.1.9.2, fd00::/64;"))
    return load_text("\n".join(("overlay test { }", *nodes, "link src r1 { } link r1 dst { }", interceptors)), "test")


PAYLOAD = configuration("intercept payload { tcp port 22, 8000-8099; on src; }")


class ExplainTests(SynchronousTestCase):
    def explained(
        self, to: str, by: Configuration = PAYLOAD, at: str = "src", path: tuple[str, ...] = NAMES
    ) -> Explanation:
        return explain(by, at, destination_of(to), lambda peer: path)

    def test_captured(self) -> None:
        found = self.explained("10.1.9.2:8080")
        self.assertEqual((found.captured, found.egress, found.path), (True, "dst", NAMES))
        self.assertEqual(found.rule, "intercept payload in line 6: tcp to 10.1.9.2/32, fd00::/64 port 22, 8000-8099")
        self.assertTrue(self.explained("[fd00::5]:22").captured)
        self.assertTrue(self.explained("[::ffff:10.1.9.2]:22").captured, "that is the IPv4 address")

    def test_whom_the_server_sees(self) -> None:
        known = configuration("intercept payload { tcp to 10.1.9.2 port 22; on src; source client; }")
        self.assertRegex(
            self.explained("10.1.9.2:22", known).reason, "the server sees the client, .* that node src serves"
        )
        self.assertNotIn("client", self.explained("10.1.9.2:8080").reason)

    def test_no_path(self) -> None:
        self.assertRegex(self.explained("10.1.9.2:22", path=()).reason, "no path to node dst now, so it goes directly")
        refusing = configuration("intercept payload { tcp port 22; on src; when unreachable refuse; }")
        found = self.explained("10.1.9.2:22", refusing, path=())
        self.assertEqual(found.captured, True)
        self.assertRegex(found.reason, "no path to node dst now, so it is refused")

    def test_why_not(self) -> None:
        for to, at, why in (
            ("10.1.9.2:25", "src", r"name 10.1.9.2, but not port 25 \(they name 22, 8000-8099\)"),
            ("192.0.2.1:22", "src", "no node serves 192.0.2.1"),
            ("10.1.9.1:22", "src", "this node serves 10.1.9.1 itself"),
            ("10.1.9.2:22", "r1", "capture 10.1.9.2 port 22 on src, not on r1: see `on`"),
            ("10.1.9.2:443", "r1", "node dst serves 10.1.9.2, but no interceptor of r1 names it"),
        ):
            found = self.explained(to, at=at)
            self.assertEqual((found.captured, found.path), (False, ()), to)
            self.assertRegex(found.reason, why)

    def test_whole_packets(self) -> None:
        udp = configuration("intercept local { udp port 53; on src; }")
        self.assertRegex(self.explained("10.1.9.2:53", udp).reason, "name 10.1.9.2 for UDP only")
        local = "intercept local { ip; on src; }"
        self.assertTrue(self.explained("10.1.9.2:53", configuration(local)).captured)
        found = self.explained("10.1.9.2:53", configuration("intercept local { ip; on r1; }"), at="r1")
        self.assertFalse(found.captured)
        self.assertRegex(found.reason, "node r1 serves none that could be the source")

    def test_it_decides_as_the_ingress_does(self) -> None:
        table = CaptureTable(PAYLOAD, "src")
        for host in ("10.1.9.1", "10.1.9.2", "10.1.9.3", "fd00::1", "fd01::1"):
            for port in (21, 22, 23, 7999, 8000, 8099, 8100):
                text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                route = table.route((host, port))
                self.assertEqual(self.explained(text).captured, route is not None, text)

    def test_nonsense(self) -> None:
        nonsense: tuple[Any, ...] = (
            None, 22, "", ":", "10.1.9.2", "10.1.9.2:", ":22", "10.1.9.2:0", "10.1.9.2:65536", "10.1.9.2:1e3",
            "10.1.9.2:99999999999999999999999", "10.1.9:22", "dst:22", "fd00::1:22", "[10.1.9.2]:22", "[fd00::1]",
            "10.1.9.2:\u0662\u0662", "10.1.9.2:-1", "10.1.9.2 :22", "\x1b[2J:22", ["10.1.9.2:22"],
        )  # fmt: skip
        for each in nonsense:
            error = self.assertRaises(UsageError, destination_of, each)
            self.assertIn("write 10.1.9.2:22 or [fd00::1]:22", str(error))
            self.assertTrue(str(error).isprintable(), each)
