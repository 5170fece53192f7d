"""Whole packets with real programs: one bed with ``intercept local``, one with two sites behind ``intercept router``.

There is a native wire that would carry all of it. Its counters show that nothing captured took it, and, where an
interceptor is killed, that the connection lived on there. The links of the local bed carry 1300 bytes, so every full
packet is fragmented on its way.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path
from typing import ClassVar, Final

from twisted.trial.runner import TestLoader, TestSuite
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.config.load import load_file
from seamless.lab.lab import Lab
from seamless.linux.nfqueue import COPY_BYTES
from seamless.test.lab.bedtest import PATIENCE, TestBed, Writer, digest, pattern, read_exactly, wait_until
from seamless.test.lab.ground import why_not

ETC: Final = Path(seamless.__file__).parents[1] / "etc"
NODES: Final = ("src", "r1", "r2", "dst")
FILE_BYTES: Final = 8_000_000
TRANSFER_BYTES: Final = 60_000_000
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DO: Final = 2
UDP_OVERHEAD: Final = 28


class WholePacketCase(SynchronousTestCase):
    """One bed for all tests of a class, with its nodes up when a test begins."""

    skip = why_not()
    configuration: ClassVar[str]
    _shared: ClassVar[TestBed | None] = None

    @classmethod
    def open_bed(cls) -> TestBed:
        """Return the bed of this class, which the first of its tests brings up."""
        if cls._shared is None:
            path = Path(f"_{cls.__name__}-{os.getpid()}.conf").absolute()
            path.write_text(cls.configuration, encoding="utf-8")
            cls._shared = TestBed(Lab(load_file(path), configuration_file=path).__enter__())
            cls._shared.lab.start_servers()
        return cls._shared

    @classmethod
    def close_bed(cls) -> None:
        """Take it down, if it is up."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared.lab.close()
            cls._shared = None

    def setUp(self) -> None:
        self.bed = self.open_bed()
        self.lab = self.bed.lab
        self.lab.start_nodes([name for name in NODES if not self.bed.is_running(name)])
        for near, far in (("src", "dst"), ("dst", "src")):
            wait_until(lambda near=near, far=far: self.carries(near, far), f"{near} carries for {far}")  # type: ignore[misc]
        self.native = self.bed.native_packets()

    def carries(self, node: str, peer: str) -> bool:
        """Tell whether a node has a path to its peer, and its rules, and its queues."""
        if not self.bed.reaches(node, peer) or not self.bed.has_rules(node):
            return False
        return bool(self.lab.run(node, ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout)

    def counter(self, node: str, name: str) -> int:
        """Return a figure of a node's whole-packet interceptor."""
        (report,) = (one for one in self.bed.report(node)["interceptors"] if one["name"] == "whole packets")
        return int(report["counters"][name])

    def nothing_native(self) -> None:
        self.assertEqual(self.bed.native_packets(), self.native, "packets on the native wire")

    def new_socket(self, host: str, kind: str = "t") -> socket.socket:
        made = self.bed.new_socket(host, kind)
        self.addCleanup(made.close)
        return made

    def pair(self, near: str, far: str, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        """Return a connection between two hosts: the client's end, the server's end."""
        with self.bed.listen(far, port) as listening:
            client = self.new_socket(near)
            client.connect((address, port))
            server, _ = listening.accept()
        self.addCleanup(server.close)
        server.settimeout(PATIENCE)
        return client, server

    def both_ways(self, client: socket.socket, server: socket.socket, size: int) -> None:
        """Carry data in both directions at once."""
        data = pattern(size)
        there, back = Writer(client, data), Writer(server, data)
        self.assertTrue(read_exactly(server, size) == data)
        self.assertTrue(read_exactly(client, size) == data)
        self.assertEqual((there.outcome(), back.outcome()), (None, None))

    def udp(self, near: str, far: str, address: str, port: int, size: int, fragmentable: bool = True) -> None:
        """Send one datagram until it arrives: whatever is not TCP may be lost, but not again and again."""
        data = pattern(size)
        with self.bed.new_socket(far, "u") as receiver, self.bed.new_socket(near, "u") as sender:
            receiver.bind((address, port))
            receiver.settimeout(0.5)
            if not fragmentable:
                sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            for _ in range(5):
                sender.sendto(data, (address, port))
                try:
                    self.assertTrue(receiver.recv(70_000) == data)
                    return
                except TimeoutError:
                    pass
        self.fail(f"a datagram of {size} bytes does not arrive")


class ClassSuite(TestSuite):
    """The tests of a class, and after them its bed goes."""

    def __init__(self, case: type[WholePacketCase]) -> None:
        super().__init__(TestLoader().loadClass(case))
        self._case = case

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Run them all; whatever happens, nothing of the bed is left."""
        try:
            super().run(result)
        finally:
            self._case.close_bed()
        return result


class LocalTests(WholePacketCase):
    """``intercept local``, over links of 1300 bytes."""

    configuration = (ETC / "local.conf").read_text().replace("congestion off; }", "congestion off; mtu 1300 bytes; }")

    def test_the_links_are_narrow(self) -> None:
        self.assertEqual({link.mtu_bytes for link in load_file(ETC / "local.conf").links}, {1500})
        self.assertEqual({link.mtu_bytes for link in self.lab.configuration.links}, {1300})

    def test_ssh_scp_and_curl(self) -> None:
        file = self.lab.host_directory("src") / "file"
        file.write_bytes(pattern(FILE_BYTES))
        self.assertEqual(self.lab.run("src", ["ssh", "dst", "hostname"]).stdout, "dst\n")
        copy = self.lab.host_directory("dst") / "copy"
        self.lab.run("src", ["scp", str(file), f"dst:{copy}"])
        self.assertEqual(digest(copy), digest(file))
        back = self.lab.host_directory("src") / "back"
        self.lab.run("src", ["scp", f"dst:{copy}", str(back)])
        self.assertEqual(digest(back), digest(file))
        status = self.lab.run("src", ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://10.1.9.2/"]).stdout
        self.assertEqual(status, "403")
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
        """TCP lives on, on the native wire; when the interceptor is back, on the overlay again."""
        for victim in ("src", "dst"):
            client, server = self.pair("src", "dst", "10.1.9.2", 5204)
            data = pattern(TRANSFER_BYTES)
            writer = Writer(client, data)
            got = read_exactly(server, 1_000_000)
            self.assertEqual(self.bed.native_packets(), self.native)
            self.lab.stop_node(victim, signal.SIGKILL)
            got += read_exactly(server, 1_000_000)
            wait_until(lambda: self.bed.native_packets() > self.native + 100, "the native way")
            self.lab.start_nodes([victim])
            for near, far in (("src", "dst"), ("dst", "src")):
                wait_until(lambda near=near, far=far: self.carries(near, far), f"{near} carries")  # type: ignore[misc]
            before = self.counter("src", "captured")
            got += read_exactly(server, TRANSFER_BYTES - len(got))
            self.assertTrue(got == data)
            self.assertIsNone(writer.outcome())
            wait_until(lambda before=before: self.counter("src", "captured") > before, "captured again")  # type: ignore[misc]
            self.native = self.bed.native_packets()

    def test_rules(self) -> None:
        """Foreign rules stay to the byte; a node that ended has none."""
        foreign = ["-p", "udp", "--dport", "9", "-j", "ACCEPT"]
        with_ours = self.rules("dst")
        self.lab.run("dst", ["iptables", "-A", "OUTPUT", *foreign])
        self.addCleanup(self.lab.run, "dst", ["iptables", "-D", "OUTPUT", *foreign])
        before = [line for line in self.rules("dst") if "SEAMLESS" not in line]
        self.lab.stop_node("dst")
        self.assertEqual(self.rules("dst"), before)
        self.lab.start_nodes(["dst"])
        wait_until(lambda: self.carries("dst", "src"), "dst carries")
        self.assertEqual(
            [line for line in self.rules("dst") if "SEAMLESS" in line],
            [line for line in with_ours if "SEAMLESS" in line],
        )

    def rules(self, host: str) -> list[str]:
        """Return a host's filter table, without counters and dates."""
        lines = self.lab.run(host, ["iptables-save", "-t", "filter"]).stdout.splitlines()
        return [line.partition(" [")[0] for line in lines if line[:1] in ":-"]


class RouterTests(WholePacketCase):
    """``intercept router``: hosts that have never heard of us."""

    configuration = (ETC / "router.conf").read_text()

    def test_hosts_have_no_rules(self) -> None:
        for host in ("a1", "b1"):
            self.assertNotIn("-A", self.lab.run(host, ["iptables-save"]).stdout)

    def test_ssh_and_scp(self) -> None:
        file = self.lab.host_directory("a1") / "file"
        file.write_bytes(pattern(FILE_BYTES))
        copy = self.lab.host_directory("b2") / "copy"
        self.lab.run("a1", ["scp", str(file), f"b2:{copy}"])
        self.assertEqual(digest(copy), digest(file))
        self.nothing_native()

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
    """Return all tests, by bed (trial asks for this name)."""
    return TestSuite([ClassSuite(LocalTests), ClassSuite(RouterTests)])
