"""TCP in one piece through a packet socket: what the kernel makes of it, read from the far side of a TUN or TAP device.

The device has no offload, so the kernel cuts and sums in software, and what is read is what a wire would carry.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from fcntl import ioctl

from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import IP, TCP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.packet import Packet  # noqa: E402

from seamless.linux.ip_packet import parse  # noqa: E402
from seamless.linux.nexthop import NextHop, next_hop  # noqa: E402
from seamless.linux.rawip import RawReleaser  # noqa: E402
from seamless.linux.rawsocket import PACKET_SOCKET, open_packet, open_raw  # noqa: E402
from seamless.linux.segmentation import segments  # noqa: E402
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace, NamespaceTestCase  # noqa: E402

MARK = 0x1000
MTU_BYTES = 1400
TIMEOUT = 5.0
TUNSETIFF = 0x400454CA
TUN, TAP, NO_PI = 0x0001, 0x0002, 0x1000
NEIGHBOR = "02:00:00:00:00:02"
FAR = {4: "10.77.0.2", 6: "fd77::2"}
BEYOND = {4: "10.78.0.9", 6: "fd78::9"}


def packed(address: str) -> bytes:
    """Return an address as packets hold it."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def open_device(kind: int) -> int:
    """Return the far end of a new device named ``wire``."""
    wire = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(wire, TUNSETIFF, struct.pack("16sH22x", b"wire", kind | NO_PI))
    return wire


def open_sockets(case: SynchronousTestCase) -> dict[int, socket.socket]:
    """Return what a gateway releases packets through, until the test is over."""
    sending = open_packet(MARK)
    assert sending is not None
    sockets = {4: open_raw(4, MARK), 6: open_raw(6, MARK), PACKET_SOCKET: sending}
    for one in sockets.values():
        case.addCleanup(one.close)
    return sockets


class DeviceTestCase(NamespaceTestCase):
    """A namespace with one device, whose wire this test is."""

    skip = SKIP_WITHOUT_ROOT
    kind = TAP

    def setUp(self) -> None:
        super().setUp()
        self.wire = open_device(self.kind)
        self.addCleanup(os.close, self.wire)
        ip = self.namespace.run
        ip("ip", "link", "set", "wire", "mtu", str(MTU_BYTES), "up")
        ip("ip", "address", "add", "10.77.0.1/24", "dev", "wire")
        ip("ip", "address", "add", "fd77::1/64", "dev", "wire", "nodad")
        for version, network in ((4, "10.78.0.0/24"), (6, "fd78::/64")):
            ip("ip", "route", "add", network, "via", FAR[version])

    def neighbor(self, address: str, state: str) -> None:
        self.namespace.run("ip", "neigh", "replace", address, "lladdr", NEIGHBOR, "dev", "wire", "nud", state)

    def read(self, source: bytes, count: int) -> list[bytes]:
        """Return so many frames that come out of the device and hold these bytes; the kernel says a few words, too."""
        frames: list[bytes] = []
        until = time.monotonic() + TIMEOUT
        while len(frames) < count and time.monotonic() < until:
            try:
                frame = os.read(self.wire, 70_000)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if source in frame:
                frames.append(frame)
        return frames

    def check_as_python_would(self, packet: Packet, link_header: bytes) -> None:
        """Release a packet; the kernel must make of it, to the byte, what `segments` makes."""
        releaser = RawReleaser(open_sockets(self))
        data = bytes(packet)
        header = parse(data)
        releaser.release(data, header, 0.0)
        wanted = [link_header + segment for segment in segments(data, header, MTU_BYTES)]
        self.assertGreater(len(wanted), 10)
        self.assertEqual(self.read(header.source, len(wanted)), wanted)
        counters = releaser.counters
        self.assertEqual((counters.cut_by_kernel, counters.cut, counters.refused), (1, 1, 0))
        self.assertEqual(counters.released, len(wanted))


def tcp_packets(version: int, destination: str) -> list[Packet]:
    """Return super-packets with every flag that cutting has an opinion on."""
    network = IP(src="10.2.1.1", dst=destination, id=65_530, flags="DF") if version == 4 else IPv6(
        src="2001:db8:1::1", dst=destination
    )  # fmt: skip
    options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    return [
        network / TCP(sport=5201, dport=40000, seq=(1 << 32) - 3000, flags=flags, options=options) / os.urandom(20_001)
        for flags in ("A", "PA", "FPA", "CA")
    ]


class EthernetTests(DeviceTestCase):
    """A device with link headers, and neighbors that have to be known."""

    def link_header(self, version: int) -> bytes:
        own = self.namespace.run("cat", "/sys/class/net/wire/address").strip()
        ends = bytes.fromhex((NEIGHBOR + own).replace(":", ""))
        return ends + (b"\x08\x00" if version == 4 else b"\x86\xdd")

    def test_as_python_would_cut_it(self) -> None:
        for version, address in FAR.items():
            self.neighbor(address, "permanent")
            for packet in tcp_packets(version, address):
                self.check_as_python_would(packet, self.link_header(version))

    def test_beyond_a_gateway(self) -> None:
        for version, address in BEYOND.items():
            self.neighbor(FAR[version], "reachable")
            self.check_as_python_would(tcp_packets(version, address)[0], self.link_header(version))

    def test_only_neighbors_that_are_alive(self) -> None:
        for version, address in FAR.items():
            self.assertIsNone(next_hop(version, packed(address), MTU_BYTES))
            for state, is_alive in (("stale", False), ("permanent", True), ("failed", False), ("reachable", True)):
                self.neighbor(address, state)
                hop = next_hop(version, packed(address), MTU_BYTES)
                wanted = NextHop("wire", 0x0800 if version == 4 else 0x86DD, self.link_header(version))
                self.assertEqual(hop, wanted if is_alive else None, state)

    def test_ways_that_are_not_plain(self) -> None:
        self.neighbor(FAR[4], "permanent")
        far = packed(FAR[4])
        self.assertIsNotNone(next_hop(4, far, MTU_BYTES))
        self.assertIsNone(next_hop(4, far, MTU_BYTES - 100), "something on the way takes 100 bytes")
        self.assertIsNone(next_hop(4, packed("127.0.0.1"), 65_536))
        self.assertIsNone(next_hop(4, packed("10.77.0.1"), MTU_BYTES), "our own")
        self.assertIsNone(next_hop(4, packed("10.77.0.255"), MTU_BYTES), "everybody")
        self.assertIsNone(next_hop(4, packed("192.0.2.1"), MTU_BYTES), "no route")
        self.namespace.run("ip", "route", "replace", "10.78.0.0/24", "via", "inet6", FAR[6], "dev", "wire")
        self.assertIsNone(next_hop(4, packed(BEYOND[4]), MTU_BYTES), "IPv4 by way of IPv6")


class PlainTests(DeviceTestCase):
    """A device without link headers, as the lab's are."""

    kind = TUN

    def test_as_python_would_cut_it(self) -> None:
        for version, address in FAR.items():
            for packet in tcp_packets(version, address):
                self.check_as_python_would(packet, b"")


class GatewayTests(SynchronousTestCase):
    """A gateway with a strict firewall, a host behind it with a real TCP, and this test as the other end."""

    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        gateway, host = Namespace(), Namespace()
        self.addCleanup(gateway.remove)
        self.addCleanup(host.remove)
        gateway.join(host, "10.77.0.1/24", "10.77.0.2/24")
        host.run("ip", "route", "add", "default", "via", "10.77.0.1")
        gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        gateway.run("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        with host.entered():
            self.server = socket.create_server((FAR[4], 22))
        self.addCleanup(self.server.close)
        self.server.settimeout(TIMEOUT)
        with gateway.entered():
            self.wire = open_device(TUN)
            self.addCleanup(os.close, self.wire)
            self.releaser = RawReleaser(open_sockets(self))
        gateway.run("ip", "link", "set", "wire", "up")
        gateway.run("ip", "route", "add", "10.2.1.0/24", "dev", "wire")
        self.inside = gateway

    def release(self, packet: Packet) -> None:
        data = bytes(packet)
        with self.inside.entered():
            self.releaser.release(data, parse(data), time.monotonic())

    def answer(self, is_wanted: Callable[[Packet], bool]) -> Packet:
        """Return the first answer to come by the gateway that is wanted."""
        until = time.monotonic() + TIMEOUT
        while time.monotonic() < until:
            try:
                packet = os.read(self.wire, 70_000)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            tcp = IP(packet).getlayer(TCP) if packet[0] == 0x45 else None
            if tcp is not None and is_wanted(tcp):
                return tcp
        self.fail("no such answer passes the gateway")

    def test_connection_tracking_believes_the_answers(self) -> None:
        """It sees a part of what is released, and must not take acknowledgements of the rest for invalid."""
        network = IP(src="10.2.1.1", dst=FAR[4])
        self.release(network / TCP(sport=40000, dport=22, seq=1000, flags="S", options=[("MSS", 1460)]))
        answer = self.answer(lambda tcp: tcp.flags == "SA")
        acknowledged = answer.seq + 1
        self.release(network / TCP(sport=40000, dport=22, seq=1001, ack=acknowledged, flags="A"))
        accepted, _ = self.server.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(TIMEOUT)
        data = os.urandom(40_000)
        for start in (0, 20_000):
            piece = data[start : start + 20_000]
            self.release(network / TCP(sport=40000, dport=22, seq=1001 + start, ack=acknowledged, flags="PA") / piece)
        self.assertEqual(accepted.recv(len(data), socket.MSG_WAITALL), data)
        self.answer(lambda tcp: tcp.ack == 1001 + len(data))
        self.assertEqual(self.releaser.counters.cut_by_kernel, 2)
