"""Beds for tests of whole packets with real programs, and what these programs do.

There is a native wire that would carry all of it. Its counters show that nothing captured took it, and, where an
interceptor is killed, that the connection lived on there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.config.load import load_file
from seamless.lab.lab import Lab
from seamless.lab.servers import web_file
from seamless.test.lab.bedtest import (
    LONG,
    NODES,
    PATIENCE,
    TestBed,
    Writer,
    digest,
    pattern,
    read_exactly,
    wait_until,
)
from seamless.test.lab.ground import why_not

ETC: Final = Path(seamless.__file__).parents[1] / "etc"
FILE_BYTES: Final = 200_000_000 if LONG else 20_000_000
FILE_TIMEOUT: Final = 300.0
"""Seconds: 200 MB at 6 Mb/s, a tenth of what was seen."""
WEB_BYTES: Final = 5_000_000
TRANSFER_BYTES: Final = 40_000_000
"""More than the buffers of both ends hold, so that some is left for when the interceptor is back."""
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DO: Final = 2


class WholePacketCase(SynchronousTestCase):
    """One bed for all tests of a class, with its nodes up when a test begins."""

    skip = why_not()
    configuration: ClassVar[str]
    table: ClassVar[str]
    """Where in the firewall this interceptor has its rules."""
    _shared: ClassVar[TestBed | None] = None

    @classmethod
    def open_bed(cls) -> TestBed:
        """Return the bed of this class, which the first of its tests brings up."""
        if cls._shared is None:
            path = cls.configuration_path()
            path.write_text(cls.configuration, encoding="utf-8")
            cls._shared = TestBed(Lab(load_file(path), configuration_file=path).__enter__())
            cls._shared.lab.start_servers()
        return cls._shared

    @classmethod
    def configuration_path(cls) -> Path:
        """Return where the bed's configuration is."""
        return Path(f"_{cls.__name__}-{os.getpid()}.conf").absolute()

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
        self.wait_until_both_carry()
        self.native = self.bed.native_packets()

    def wait_until_both_carry(self) -> None:
        for near, far in (("src", "dst"), ("dst", "src")):
            wait_until(partial(self.carries, near, far), f"{near} carries for {far}")

    def carries(self, node: str, peer: str) -> bool:
        """Return whether a node has a path to its peer, and its rules, and its queues."""
        if not self.bed.reaches(node, peer) or not self.bed.has_rules(node):
            return False
        return bool(self.lab.run(node, ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout)

    def counter(self, node: str, name: str) -> int:
        """Return a figure of a node's whole-packet interceptor..."""
        return self.counters(node)[name]

    def counters(self, node: str) -> dict[str, int]:
        """...or all of them."""
        (report,) = (one for one in self.bed.report(node)["interceptors"] if one["name"] == "whole packets")
        return dict(report["counters"])

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

    # Programs.

    def copies(self, near: str, far: str) -> None:
        """Copy a file with scp, and compare what arrived."""
        sent, received = self.lab.host_directory(near) / "sent", self.lab.host_directory(far) / "received"
        sent.write_bytes(pattern(FILE_BYTES))
        self.lab.run(near, ["scp", "-q", str(sent), f"{far}:{received}"], timeout=FILE_TIMEOUT)
        self.assertEqual(digest(received), digest(sent))

    def fetches(self, near: str, far: str, address: str) -> None:
        """Fetch a file from nginx with curl, and compare what arrived."""
        served = web_file(self.lab.host_directory(far), "served", WEB_BYTES)
        fetched = self.lab.host_directory(near) / "fetched"
        self.lab.run(near, ["curl", "-sf", "-o", str(fetched), f"http://{address}/{served.name}"])
        self.assertEqual(digest(fetched), digest(served))

    def iperf3(self, near: str, address: str, *words: str) -> list[int]:
        """Return how many bytes iperf3 received on each of its connections; it may have to wait for the server."""
        argv = ["iperf3", "-c", address, "-J", "-t", "2", *words]
        results: list[Any] = []

        def is_served() -> bool:
            results.append(json.loads(self.lab.run(near, argv, check=False).stdout))
            return "error" not in results[-1]

        wait_until(is_served, f"iperf3 {' '.join(argv)}")
        return [stream["receiver"]["bytes"] for stream in results[-1]["end"]["streams"]]

    def is_killed(self, victim: str, near: str, far: str, address: str) -> None:
        """Kill a node in mid-transfer: TCP lives on, on the native wire; when it is back, on the overlay again."""
        client, server = self.pair(near, far, address, 5204)
        data = pattern(TRANSFER_BYTES)
        writer = Writer(client, data)
        got = read_exactly(server, 1_000_000)
        self.assertEqual(self.bed.native_packets(), self.native)
        self.lab.stop_node(victim, signal.SIGKILL)
        got += read_exactly(server, 1_000_000)
        wait_until(lambda: self.bed.native_packets() > self.native + 100, "the native way")
        self.lab.start_nodes([victim])
        self.wait_until_both_carry()
        before = {node: self.counter(node, "captured") for node in ("src", "dst")}
        got += read_exactly(server, TRANSFER_BYTES - len(got))
        self.assertTrue(got == data)
        self.assertIsNone(writer.outcome())
        wait_until(lambda: all(self.counter(node, "captured") > before[node] for node in before), "captured again")
        self.native = self.bed.native_packets()

    # Rules.

    def rules(self, host: str) -> list[str]:
        """Return the table of a host that this interceptor's rules are in, without counters and dates."""
        lines = self.lab.run(host, ["iptables-save", "-t", self.table]).stdout.splitlines()
        return [line.partition(" [")[0] for line in lines if line[:1] in ":-"]

    def rules_come_and_go(self, node: str, peer: str) -> None:
        """Foreign rules stay to the byte; a node that ended has none; started again, it has the same."""
        foreign = ["OUTPUT", "-p", "udp", "--dport", "9", "-j", "ACCEPT"]
        with_ours = self.rules(node)
        self.lab.run(node, ["iptables", "-t", self.table, "-A", *foreign])
        self.addCleanup(self.lab.run, node, ["iptables", "-t", self.table, "-D", *foreign])
        before = [line for line in self.rules(node) if "SEAMLESS" not in line]
        self.lab.stop_node(node)
        self.assertEqual(self.rules(node), before)
        self.lab.start_nodes([node])
        wait_until(lambda: self.carries(node, peer), f"{node} carries")
        ours = [line for line in with_ours if "SEAMLESS" in line]
        self.assertGreater(len(ours), 2)
        self.assertEqual([line for line in self.rules(node) if "SEAMLESS" in line], ours)
