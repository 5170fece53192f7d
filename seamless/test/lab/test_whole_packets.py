"""``intercept local`` with real programs. The links carry 1300 bytes, so every full packet is fragmented on its way."""

from __future__ import annotations

import subprocess
from typing import Final

from twisted.trial.runner import TestSuite

from seamless.config.load import load_file
from seamless.linux.nfqueue import COPY_BYTES
from seamless.test.lab.bedtest import wait_until
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.wholebed import ETC, WholePacketCase

UDP_OVERHEAD: Final = 28


class LocalTests(WholePacketCase):
    """``intercept local``, over links of 1300 bytes."""

    table = "filter"
    configuration = (ETC / "local.conf").read_text().replace("congestion off; }", "congestion off; mtu 1300 bytes; }")

    def test_the_links_are_narrow(self) -> None:
        self.assertEqual({link.mtu_bytes for link in load_file(ETC / "local.conf").links}, {1500})
        self.assertEqual({link.mtu_bytes for link in self.lab.configuration.links}, {1300})

    def test_ssh_scp_and_curl(self) -> None:
        self.assertEqual(self.lab.run("src", ["ssh", "dst", "hostname"]).stdout, "dst\n")
        self.copies("src", "dst")
        self.fetches("src", "dst", "10.1.9.2")
        self.nothing_native()

    def test_iperf3(self) -> None:
        for words, connections in (((), 1), (("-R",), 1), (("-P", "4"), 4)):
            received = self.iperf3("src", "10.1.9.2", *words)
            self.assertEqual(len(received), connections)
            self.assertGreater(min(received), 100_000, words)
        self.nothing_native()

    def test_tcp_is_between_the_applications(self) -> None:
        """What TCP negotiates reaches the receiver as it was sent, and the server sees the client's own address."""
        options = "tcp[tcpflags] == tcp-syn and dst port 5202"
        tcpdump = self.lab.popen(
            "dst",
            ["tcpdump", "-i", "lo", "-nn", "-l", "-c", "1", options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert tcpdump.stdout is not None and tcpdump.stderr is not None
        while b"listening on" not in tcpdump.stderr.readline():
            pass
        client, server = self.pair("src", "dst", "10.1.9.2", 5202)
        self.assertEqual(server.getpeername(), client.getsockname())
        self.assertEqual(server.getpeername()[0], "10.1.9.1")
        syn = tcpdump.stdout.readline().decode()
        for option in ("mss 1460", "sackOK", "TS val", "wscale"):
            self.assertIn(option, syn)
        self.both_ways(client, server, 2_000_000)
        self.nothing_native()

    def test_refused_at_once(self) -> None:
        client = self.new_socket("src")
        self.assertRaises(ConnectionRefusedError, client.connect, ("10.1.9.2", 5209))
        self.nothing_native()

    def test_udp_of_all_sizes(self) -> None:
        for size in (1, 1000, 1272, 1273, 1472, 1473, 9000, COPY_BYTES - UDP_OVERHEAD):
            self.udp("src", "dst", "10.1.9.2", 5203, size)
        self.udp("src", "dst", "10.1.9.2", 5203, 1472, fragmentable=False)
        self.nothing_native()

    def test_the_longest_datagrams_go_the_native_way(self) -> None:
        self.udp("src", "dst", "10.1.9.2", 5203, 65_507)
        wait_until(lambda: self.counter("src", "passed_truncated") > 0, "it is counted")
        self.assertGreater(self.bed.native_packets(), self.native)

    def test_the_interceptor_is_killed(self) -> None:
        for victim in ("src", "dst"):
            self.is_killed(victim, "src", "dst", "10.1.9.2")

    def test_rules(self) -> None:
        self.rules_come_and_go("dst", "src")


def testSuite() -> TestSuite:
    """Return all tests, with their bed (trial asks for this name)."""
    return ClassSuite(LocalTests)
