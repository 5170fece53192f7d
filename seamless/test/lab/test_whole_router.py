"""``intercept router`` with real programs: two sites of three hosts each that have never heard of us."""

from __future__ import annotations

import errno
import socket
import time
from typing import Final

from twisted.trial.runner import TestSuite

from seamless.linux.nfqueue import COPY_BYTES
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.wholebed import ETC, IP_MTU_DISCOVER, IP_PMTUDISC_DO, WholePacketCase

UDP_OVERHEAD: Final = 28


class RouterTests(WholePacketCase):
    """``intercept router``: hosts that have never heard of us."""

    table = "mangle"
    configuration = (ETC / "router.conf").read_text()

    def test_hosts_have_no_rules(self) -> None:
        for host in ("a1", "a2", "a3", "b1", "b2", "b3"):
            self.assertNotIn("-A", self.lab.run(host, ["iptables-save"]).stdout)

    def test_ssh_scp_and_curl(self) -> None:
        self.assertEqual(self.lab.run("a1", ["ssh", "b1", "hostname"]).stdout, "b1\n")
        self.copies("a2", "b2")
        self.fetches("a3", "b3", "10.2.2.3")
        self.nothing_native()

    def test_iperf3(self) -> None:
        for near, address, words, connections in (
            ("a1", "10.2.2.2", (), 1),
            ("a2", "10.2.2.3", ("-R",), 1),
            ("a3", "10.2.2.1", ("-P", "4"), 4),
        ):
            received = self.iperf3(near, address, *words)
            self.assertEqual(len(received), connections)
            self.assertGreater(min(received), 100_000, words)
        self.nothing_native()

    def test_the_interceptor_is_killed(self) -> None:
        for victim in ("src", "dst"):
            self.is_killed(victim, "a1", "b1", "10.2.2.1")

    def test_rules(self) -> None:
        self.rules_come_and_go("src", "dst")

    def test_real_addresses_both_ways(self) -> None:
        client, server = self.pair("a2", "b1", "10.2.2.1", 5202)
        self.assertEqual(server.getpeername(), client.getsockname())
        self.both_ways(client, server, 1_000_000)
        client, server = self.pair("b3", "a2", "10.2.1.2", 5202)
        self.both_ways(client, server, 1_000_000)
        self.nothing_native()

    def test_ipv6(self) -> None:
        for argv in (["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://[2001:db8:2::1]/"],):
            self.assertEqual(self.lab.run("a1", argv).stdout, "403")
        self.nothing_native()
        self.assertGreater(self.counter("src", "captured"), 0)

    def test_jumbo_frames(self) -> None:
        client, server = self.pair("a3", "b3", "10.2.2.3", 5202)
        self.both_ways(client, server, 2_000_000)
        client, server = self.pair("a3", "b1", "10.2.2.1", 5202)
        self.both_ways(client, server, 2_000_000)
        self.nothing_native()

    def test_a_firewall_that_drops_what_is_invalid(self) -> None:
        """Connection tracking believes the answers, however much of what they answer it has seen."""
        invalid = ["FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"]
        for gateway in ("src", "dst"):
            self.lab.run(gateway, ["iptables", "-I", *invalid])
            self.addCleanup(self.lab.run, gateway, ["iptables", "-D", *invalid])
        client, server = self.pair("a1", "b1", "10.2.2.1", 5202)
        self.both_ways(client, server, 5_000_000)
        self.nothing_native()

    def test_udp_of_all_sizes(self) -> None:
        """Hosts send them in fragments; the far gateway cuts them anew."""
        for size in (1, 1472, 1473, 9000, COPY_BYTES - UDP_OVERHEAD):
            self.udp("a1", "b1", "10.2.2.1", 5203, size)
        self.udp("a3", "b3", "10.2.2.3", 5203, 8972)
        self.udp("a3", "b1", "10.2.2.1", 5203, 8972)
        self.nothing_native()

    def test_unfragmentable_and_longer_than_the_native_route(self) -> None:
        """The gateway's kernel answers for its native route before anything is captured: the sender is told."""
        with self.bed.new_socket("a3", "u") as sender:
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            refused = None
            for _ in range(20):
                try:
                    sender.sendto(bytes(8972), ("10.2.2.3", 5203))
                except OSError as error:
                    refused = error.errno
                    break
                time.sleep(0.1)
        self.assertEqual(refused, errno.EMSGSIZE)


def testSuite() -> TestSuite:
    """Return all tests, with their bed (trial asks for this name)."""
    return ClassSuite(RouterTests)
