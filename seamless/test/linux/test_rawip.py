"""Released packets: whole where the way takes them whole, cut where it does not."""

from __future__ import annotations

import errno
import logging

from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402

from seamless.linux.ip_packet import is_intact, parse  # noqa: E402
from seamless.linux.nexthop import NextHop  # noqa: E402
from seamless.linux.rawip import HOP_MEMORY, MTU_MEMORY, RawReleaser  # noqa: E402
from seamless.linux.rawsocket import PACKET_SOCKET  # noqa: E402

VNET_BYTES = 10
"""What stands before every frame that goes into a packet socket."""


class Kernel:
    """Takes what is sent, as long as it fits."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []
        self.error: OSError | None = None

    def sendto(self, packet: bytes, address: tuple[str, int], /) -> int:
        if self.error is not None:
            raise self.error
        self.sent.append((packet, address[0]))
        return len(packet)


class RawReleaserTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.kernel = Kernel()
        self.mtu_bytes = 1500
        self.asked: list[tuple[int, str]] = []
        self.releaser = RawReleaser({4: self.kernel, 6: self.kernel}, self.mtu_of)

    def mtu_of(self, version: int, host: str) -> int:
        self.asked.append((version, host))
        return self.mtu_bytes

    def release(self, packet: bytes, now: float = 0.0) -> list[bytes]:
        self.kernel.sent.clear()
        self.releaser.release(packet, parse(packet), now)
        return [sent for sent, _ in self.kernel.sent]

    def test_what_fits(self) -> None:
        for packet, host in (
            (bytes(IP(dst="10.1.9.2") / TCP() / bytes(1400)), "10.1.9.2"),
            (bytes(IPv6(dst="2001:db8::2") / TCP() / bytes(1400)), "2001:db8::2"),
        ):
            self.assertEqual(self.release(packet), [packet])
            self.assertEqual(self.kernel.sent[0][1], host)
        self.assertEqual((self.releaser.counters.released, self.releaser.counters.cut), (2, 0))

    def test_tcp_is_segmented_and_the_rest_fragmented(self) -> None:
        for network in (IP(dst="10.1.9.2", flags="DF"), IPv6(dst="2001:db8::2")):
            segments = self.release(bytes(network / TCP(flags="A") / bytes(20_000)))
            self.assertEqual(len(segments), 14)
            self.assertTrue(all(is_intact(one, parse(one)) and not parse(one).is_fragment for one in segments))
            fragments = self.release(bytes(network / UDP() / bytes(20_000)))
            self.assertEqual(len(fragments), 14)
            self.assertTrue(all(parse(one).is_fragment and len(one) <= 1500 for one in fragments))
        self.assertEqual(self.releaser.counters.cut, 4)

    def test_loopback_takes_super_packets(self) -> None:
        self.mtu_bytes = 65_535
        packet = bytes(IP(dst="10.1.9.2") / TCP() / bytes(60_000))
        self.assertEqual(self.release(packet), [packet])

    def test_the_way_is_looked_up_now_and_then(self) -> None:
        packet = bytes(IP(dst="10.1.9.2") / UDP() / bytes(1400))
        self.release(packet)
        self.release(packet, now=MTU_MEMORY / 2)
        self.assertEqual(len(self.asked), 1)
        self.mtu_bytes = 1000
        self.assertEqual(len(self.release(packet, now=MTU_MEMORY + 1)), 2)
        self.assertEqual(self.asked, [(4, "10.1.9.2")] * 2)

    def with_packet_socket(self, hop: NextHop | None) -> None:
        """Give the releaser a packet socket, and a way that is plain, or not."""
        self.hops: list[bytes] = []

        def hop_of(version: int, destination: bytes, mtu_bytes: int) -> NextHop | None:
            self.assertEqual(mtu_bytes, self.mtu_bytes)
            self.hops.append(destination)
            return hop

        self.packet_socket = Kernel()
        sockets = {4: self.kernel, 6: self.kernel, PACKET_SOCKET: self.packet_socket}
        self.releaser = RawReleaser(sockets, self.mtu_of, hop_of)

    def test_the_packet_socket_takes_long_tcp_and_nothing_else(self) -> None:
        self.with_packet_socket(NextHop("eth1", 0x0800, b"link header"))
        network = IP(dst="10.1.9.2")
        long = bytes(network / TCP(flags="A") / bytes(20_000))
        (last,) = self.release(long)
        self.assertEqual(len(last), 40 + 20_000 - 13 * 1460)
        self.assertTrue(is_intact(last, parse(last)))
        ((frame, device),) = self.packet_socket.sent
        self.assertEqual((device, frame[VNET_BYTES:].startswith(b"link header\x45")), ("eth1", True))
        self.assertEqual((self.releaser.counters.cut_by_kernel, self.releaser.counters.released), (1, 14))
        for other, pieces in (
            (network / TCP() / bytes(1400), 1),
            (network / TCP() / bytes(2000), 2),
            (network / UDP() / bytes(20_000), 14),
            (IP(dst="10.1.9.2", proto=6, flags="MF") / bytes(TCP()) / bytes(3000), 3),
        ):
            self.assertEqual(len(self.release(bytes(other))), pieces)
        self.assertEqual(len(self.packet_socket.sent), 1)

    def test_a_way_that_is_not_plain(self) -> None:
        """It is asked for again after a while, and not for every packet."""
        self.with_packet_socket(None)
        long = bytes(IP(dst="10.1.9.2") / TCP(flags="A") / bytes(20_000))
        for now, asked in ((0.0, 1), (HOP_MEMORY / 2, 1), (HOP_MEMORY + 1, 2)):
            self.assertEqual(len(self.release(long, now)), 14)
            self.assertEqual(len(self.hops), asked)
        self.assertEqual((self.releaser.counters.cut_by_kernel, self.packet_socket.sent), (0, []))

    def test_what_the_packet_socket_refuses(self) -> None:
        """A full queue is a loss, as everywhere; whatever else it is, the raw sockets do it, and not only once."""
        self.with_packet_socket(NextHop("eth1", 0x0800, b""))
        long = bytes(IP(dst="10.1.9.2") / TCP(flags="A") / bytes(20_000))
        self.packet_socket.error = OSError(errno.ENOBUFS, "full")
        self.assertEqual(len(self.release(long)), 1)
        self.assertEqual((self.releaser.counters.refused, self.releaser.counters.released), (13, 1))
        self.packet_socket.error = OSError(errno.ENODEV, "gone")
        self.assertEqual(len(self.release(long)), 14)
        self.packet_socket.error = None
        self.assertEqual(len(self.release(long)), 14)
        self.assertEqual(len(self.release(long, HOP_MEMORY + 1)), 1)
        self.assertEqual(len(self.packet_socket.sent), 1)

    def test_what_the_kernel_refuses_is_lost_and_counted(self) -> None:
        self.kernel.error = BlockingIOError()
        self.assertEqual(self.release(bytes(IP(dst="10.1.9.2") / UDP())), [])
        self.assertEqual((self.releaser.counters.refused, self.releaser.counters.released), (1, 0))
        self.releaser = RawReleaser({4: self.kernel}, self.mtu_of)
        self.kernel.error = None
        self.assertEqual(self.release(bytes(IPv6(dst="2001:db8::2") / UDP())), [])
        self.assertEqual(self.releaser.counters.refused, 1)
