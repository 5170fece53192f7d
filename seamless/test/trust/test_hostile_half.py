"""A daemon that was taken over: what its privileged part does for it all the same, and what it never does.

The privileged part is real, in a namespace of its own; the test is the daemon, and says what it likes. A firewall rule
counts every packet that leaves.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.packet import Packet  # noqa: E402

from seamless.intercept.firewall import MODULE, START_TIMEOUT  # noqa: E402
from seamless.linux.capture import BIND, COUNTERS, ORDER, OUTLET, CaptureCounters, decode_counters  # noqa: E402
from seamless.linux.privileged_channel import CAPTURE, INSTALL, INSTALLED, READY, PrivilegedPart  # noqa: E402
from seamless.test.intercept.packets.in_namespaces import LOCAL, NODES  # noqa: E402
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace  # noqa: E402
from seamless.transport.capture_reader import capture_channel  # noqa: E402

PATIENCE: Final = 20.0
OWN, PEER, OTHER_PEER, STRANGER = "10.1.9.2", "10.1.9.1", "10.1.9.3", "192.0.2.1"
SYN: Final = TCP(sport=40000, dport=22, flags="S")
GOOD: Final = IP(src=PEER, dst=OWN) / SYN
GOOD_V6: Final = IPv6(src="2001:db8:1::1", dst="2001:db8:2::2") / SYN

FORGED: Final[tuple[Packet | bytes, ...]] = (
    IP(src=STRANGER, dst=OWN) / SYN,  # from whom nobody serves
    IP(src=OTHER_PEER, dst=OWN) / SYN,  # from a node that captures nothing
    IP(src=OWN, dst=OWN) / SYN,
    IP(src="127.0.0.1", dst=OWN) / SYN,
    IP(src=PEER, dst=STRANGER) / SYN,  # to whom we do not serve
    IP(src=PEER, dst=PEER) / SYN,
    IP(src=OWN, dst=PEER) / TCP(sport=22, dport=40000, flags="SA"),  # in our own hosts' name
    IP(src=PEER, dst="127.0.0.1") / SYN,
    IP(src=PEER, dst="224.0.0.1") / UDP(dport=53),
    IP(src=PEER, dst="255.255.255.255") / UDP(dport=53),
    IP(src=PEER, dst=OWN) / TCP(dport=23, flags="S"),  # on ports that no interceptor names
    IP(src=PEER, dst=OWN) / UDP(dport=22),
    IP(src=PEER, dst=OWN) / ICMP(),
    IP(src=PEER, dst=OWN, flags="MF") / bytes(SYN)[:8],
    IP(src=PEER, dst=OWN, frag=1, proto=6) / bytes(16),
    IP(src=PEER, dst=OWN, options=[b"\x83\x07\x04\xc0\x00\x02\x01"]) / SYN,  # a source route
    IP(src=PEER, dst=OWN, ttl=0) / SYN,
    IPv6(src="2001:db8:9::1", dst="2001:db8:2::2") / SYN,
    IPv6(src="2001:db8:1::1", dst="2001:db8:9::2") / SYN,
    IPv6(src="2001:db8:1::1", dst="ff02::1") / SYN,
    bytes(GOOD)[:19],
    bytes(GOOD) + b"x",
    b"\x00",
    b"\xff" * 1500,
    bytes(IP(src=PEER, dst=OWN) / TCP(dport=22) / bytes(65_495)) + bytes(2000),
)


class HostileHalfTests(SynchronousTestCase):
    """The node b, whose peer a may have connections to port 22 of what b serves."""

    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        self.namespace = Namespace()
        self.addCleanup(self.namespace.remove)
        for tool in ("iptables", "ip6tables"):
            self.namespace.run(tool, "-A", "OUTPUT", "-m", "comment", "--comment", "counted")
        # A way for every packet, so that none is lost for want of one.
        for words in (("address", "add", f"{OWN}/32", "dev", "lo"), ("route", "add", "default", "dev", "lo"),
                      ("address", "add", "2001:db8:2::2/128", "dev", "lo", "nodad"),
                      ("-6", "route", "add", "default", "dev", "lo")):  # fmt: skip
            self.namespace.run("ip", *words)
        folder = Path(tempfile.mkdtemp(prefix="seamless-half-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "b.conf").write_text(NODES + LOCAL)
        with self.namespace.entered():
            self.part = PrivilegedPart(MODULE, ["--config", str(folder / "b.conf"), "--node", "b"])
        self.addCleanup(self.part.close)
        self.part.wait_for(READY, START_TIMEOUT)
        self.counters = CaptureCounters()
        self.channel, theirs = capture_channel()
        self.addCleanup(self.channel.close)
        self.channel.settimeout(PATIENCE)
        self.part.hand_over(CAPTURE, theirs)
        message, (descriptor,), _, _ = socket.recv_fds(self.channel, 100, 1)
        self.assertEqual(message, bytes((OUTLET,)))
        self.outlet = socket.socket(fileno=descriptor)
        self.addCleanup(self.outlet.close)

    def left(self) -> int:
        """Return how many packets have left the host, or gone to itself."""
        saved = self.namespace.run("iptables-save", "-c") + self.namespace.run("ip6tables-save", "-c")
        counts = re.findall(r"^\[(\d+):\d+\] -A OUTPUT .*counted", saved, re.MULTILINE)
        self.assertEqual(len(counts), 2)
        return sum(map(int, counts))

    def hear(self, forged: int, released: int) -> None:
        """Wait until the privileged part has counted so many."""
        until = time.monotonic() + PATIENCE
        while (self.counters.forged, self.counters.released) != (forged, released):
            self.assertLess(time.monotonic(), until, self.counters)
            message = self.channel.recv(1000)
            self.assertEqual(message[0], COUNTERS)
            self.counters = decode_counters(message)

    def test_it_is_given_no_raw_socket(self) -> None:
        self.assertEqual((self.outlet.family, self.outlet.type), (socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def test_spoofed_packets(self) -> None:
        # The kernel itself says something now and then: an answer to what is let through, a neighbor's solicitation.
        for tool in ("iptables", "ip6tables"):
            self.namespace.run(tool, "-I", "OUTPUT", "-m", "mark", "!", "--mark", "0x1000", "-j", "DROP")
        for packet in FORGED:
            self.outlet.send(bytes(packet))
        self.hear(forged=len(FORGED), released=0)
        self.assertEqual(self.left(), 0)
        # That a packet which leaves is counted, the allowed ones show.
        for good in (GOOD, GOOD_V6):
            self.outlet.send(bytes(good))
        self.hear(forged=len(FORGED), released=2)
        self.assertEqual(self.left(), 2)

    def test_random_changes(self) -> None:
        """Whatever is changed in a good packet: it leaves as that peer's, to that port, or not at all."""
        for tool in ("iptables", "ip6tables"):
            self.namespace.run(tool, "-I", "OUTPUT", "-m", "mark", "!", "--mark", "0x1000", "-j", "DROP")
        self.namespace.run(
            "iptables", "-I", "OUTPUT", "-s", PEER, "-d", OWN, "-p", "tcp", "--dport", "22", "-m", "mark",
            "--mark", "0x1000", "-j", "ACCEPT",
        )  # fmt: skip
        random = Random(1)
        for _ in range(2000):
            packet = bytearray(bytes(GOOD))
            for _ in range(random.randint(1, 3)):
                packet[random.randrange(len(packet))] = random.randrange(256)
            self.outlet.send(bytes(repaired(packet)))
        until = time.monotonic() + PATIENCE
        while self.counters.forged + self.counters.released + self.counters.not_sent < 2000:
            self.assertLess(time.monotonic(), until, self.counters)
            self.counters = decode_counters(self.channel.recv(1000))
        self.assertGreater(self.counters.forged, 500)
        self.assertGreater(self.counters.released, 100)
        self.assertEqual(self.left(), 0, "beside what is allowed")

    def test_queues_that_are_not_the_nodes(self) -> None:
        """Only the queues of the configuration are bound, whatever is asked."""
        for queue in (0, 1, 7399, 7402, 65_535, 7400):
            self.channel.send(ORDER.pack(BIND, queue))
        until = time.monotonic() + PATIENCE
        while "7400" not in self.bound():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.02)
        self.assertEqual(self.bound(), ["7400"])

    def bound(self) -> list[str]:
        lines = self.namespace.run("cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
        return [line.split()[0] for line in lines]

    def test_nonsense(self) -> None:
        """Words that are none, and a second way back, do nothing; the rules are still looked after."""
        self.part.send("rm -rf /")
        self.part.send("x" * 4000)
        again, theirs = capture_channel()
        self.addCleanup(again.close)
        self.part.hand_over(CAPTURE, theirs)
        self.part.send(INSTALL)
        self.part.wait_for(INSTALLED, START_TIMEOUT)
        self.assertEqual(again.recv(1), b"", "it is closed")

    def test_a_descriptor_that_is_no_socket(self) -> None:
        """Who sends that is no daemon: the rules go, and the part ends in good order."""
        self.part.send(INSTALL)
        self.part.wait_for(INSTALLED, START_TIMEOUT)
        self.assertIn("SEAMLESS-b", self.namespace.run("iptables-save"))
        with open(os.devnull, "rb") as file, socket.socket(fileno=os.dup(self.part.fileno())) as channel:
            socket.send_fds(channel, [b"capture"], [file.fileno()])
        with self.assertRaises(EOFError):
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                self.part.receive()
                time.sleep(0.02)
        self.assertIn("ended with exit code 0", str(self.part.death()))
        self.assertNotIn("SEAMLESS-b", self.namespace.run("iptables-save"))


def repaired(packet: bytearray) -> bytes:
    """Return a packet whose header's checksum is right, so that it is not refused for that."""
    packet[10:12] = b"\0\0"
    total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, 20, 2)) % 65535
    packet[10:12] = (65535 - total).to_bytes(2, "big")
    return bytes(packet)
