"""Whole packets as bytes: scapy says what is right, hypothesis what may come."""

from __future__ import annotations

import logging

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
)
from scapy.packet import Packet, Raw  # noqa: E402

from seamless.linux.ip_packet import (  # noqa: E402
    MalformedPacketError,
    clamped,
    is_intact,
    parse,
    sum16,
    with_checksum,
)
from seamless.linux.segmentation import fragments, segments  # noqa: E402

V4 = IP(src="10.1.9.1", dst="10.1.9.2", id=0xFFF0, flags="DF")
V6 = IPv6(src="2001:db8:1::1", dst="2001:db8:2::1")
TIMESTAMP = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]


def tcp() -> Packet:
    return TCP(sport=40000, dport=22, seq=0xFFFF_FF00, ack=7, flags="PAF", options=TIMESTAMP)


class ParseTests(SynchronousTestCase):
    """What headers say, and what is refused."""

    def reason(self, packet: bytes) -> str:
        return str(self.assertRaises(MalformedPacketError, parse, packet).reason)

    def test_tcp_udp_and_others(self) -> None:
        for network, version, transport in ((V4, 4, 20), (V6, 6, 40)):
            for layer, protocol, ports in (
                (TCP(sport=1, dport=2), 6, (1, 2)),
                (UDP(sport=3, dport=4), 17, (3, 4)),
                (ICMP() if version == 4 else ICMPv6EchoRequest(), 1 if version == 4 else 58, (0, 0)),
            ):
                header = parse(bytes(network / layer / b"x"))
                self.assertEqual(
                    (header.version, header.protocol, header.source_port, header.destination_port, header.transport),
                    (version, protocol, *ports, transport),
                )
                self.assertFalse(header.is_fragment)

    def test_refused(self) -> None:
        whole = bytes(V4 / UDP() / b"12345678")
        self.assertEqual(self.reason(b""), "truncated")
        self.assertEqual(self.reason(whole[:19]), "truncated")
        self.assertEqual(self.reason(whole + b"trailing"), "length")
        self.assertEqual(self.reason(whole[:-1]), "length")
        self.assertEqual(self.reason(b"\x75" + whole[1:]), "version")
        self.assertEqual(self.reason(b"\x44" + whole[1:]), "length")
        self.assertEqual(self.reason(whole[:10] + b"xx" + whole[12:]), "checksum")
        self.assertEqual(self.reason(bytes(IP(dst="10.1.9.2", ttl=0) / UDP())), "expired")
        self.assertEqual(
            self.reason(bytes(IP(dst="10.1.9.2", options=[b"\x83\x07\x04\x0a\x01\x01\x01\x00"]))), "options"
        )
        self.assertEqual(self.reason(bytes(V4 / UDP(len=9))), "length")
        self.assertEqual(self.reason(bytes(V4 / TCP(dataofs=4))), "length")
        self.assertEqual(self.reason(bytes(V4 / TCP(dataofs=15))), "length")
        self.assertEqual(self.reason(bytes(IP(dst="10.1.9.2", proto=6) / b"short")), "truncated")

    def test_refused_ipv6(self) -> None:
        whole = bytes(V6 / UDP() / b"12345678")
        self.assertEqual(self.reason(whole[:39]), "truncated")
        self.assertEqual(self.reason(whole + b"trailing"), "length")
        self.assertEqual(self.reason(bytes(IPv6(dst="2001:db8:2::1", hlim=0) / UDP())), "expired")
        self.assertEqual(self.reason(bytes(V6 / IPv6ExtHdrRouting() / UDP())), "options")
        self.assertEqual(self.reason(bytes(V6 / IPv6ExtHdrHopByHop() / UDP())), "options")
        self.assertEqual(self.reason(bytes(V6 / IPv6ExtHdrFragment() / IPv6ExtHdrRouting() / UDP())), "options")

    def test_fragments(self) -> None:
        later = parse(bytes(IP(dst="10.1.9.2", proto=17, frag=3, flags="MF") / bytes(16)))
        self.assertEqual((later.offset, later.more, later.source_port), (24, True, 0))
        later = parse(bytes(V6 / IPv6ExtHdrFragment(nh=17, offset=3, m=0, id=1) / bytes(16)))
        self.assertEqual((later.offset, later.more, later.protocol, later.transport), (24, False, 17, 48))
        # A first fragment that hides its ports, and one that reaches beyond the longest packet.
        self.assertEqual(self.reason(bytes(IP(dst="10.1.9.2", proto=6, flags="MF") / bytes(8))), "fragment")
        self.assertEqual(self.reason(bytes(IP(dst="10.1.9.2", proto=17, frag=8191) / bytes(64))), "fragment")

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.binary(max_size=100), st.sampled_from((b"", b"\x45", b"\x60")))
    def test_anything(self, packet: bytes, first: bytes) -> None:
        """Whatever the bytes, one kind of error."""
        try:
            header = parse(first + packet)
        except MalformedPacketError:
            return
        is_intact(first + packet, header)
        with_checksum(first + packet, header)
        clamped(first + packet, header, 1000)


class ChecksumTests(SynchronousTestCase):
    """The kernel's half-done checksums completed, and wrong ones found."""

    def test_as_scapy(self) -> None:
        layers = (tcp() / bytes(range(7)), UDP(sport=1, dport=2) / b"odd", UDP(sport=1, dport=2) / bytes(60_001))
        for network in (V4, V6):
            for layer in layers:
                right = bytes(network / layer)
                header = parse(right)
                self.assertTrue(is_intact(right, header))
                at = header.transport + (16 if header.protocol == 6 else 6)
                half_done = right[:at] + b"\x12\x34" + right[at + 2 :]
                self.assertFalse(is_intact(half_done, header))
                self.assertEqual(bytes(with_checksum(half_done, header)), right)

    def test_others(self) -> None:
        for right in (bytes(V4 / ICMP() / b"abc"), bytes(V6 / ICMPv6EchoRequest(data=b"abc"))):
            self.assertTrue(is_intact(right, parse(right)))
            self.assertFalse(is_intact(right[:-1] + b"x", parse(right)))
        without = bytes(V4 / UDP(chksum=0) / b"abc")
        self.assertTrue(is_intact(without, parse(without)))

    @settings(derandomize=True, max_examples=50, deadline=None)
    @given(st.integers(0, 70_000), st.integers(0, 255))
    def test_sums_of_all_lengths(self, length: int, byte: int) -> None:
        """Long data is halved before it is divided: the same as word by word."""
        data = bytes((index * 7 + byte) & 255 for index in range(length))
        padded = data + b"\0" * (length & 1)
        words = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
        self.assertEqual(sum16(data), words % 65535)


class CutTests(SynchronousTestCase):
    """Long packets made to fit."""

    def test_segments(self) -> None:
        payload = bytes(range(251)) * 200
        for network in (V4, V6):
            whole = bytes(network / tcp() / payload)
            pieces = segments(whole, parse(whole), 1500)
            self.assertEqual(len(pieces), -(-len(payload) // (1500 - (len(whole) - len(payload)))))
            got, sequence = b"", 0xFFFF_FF00
            for index, piece in enumerate(pieces):
                self.assertLessEqual(len(piece), 1500)
                self.assertTrue(is_intact(piece, parse(piece)))
                packet = type(network)(piece)
                self.assertEqual(packet[TCP].seq, (sequence + len(got)) & 0xFFFF_FFFF)
                self.assertEqual(packet[TCP].options, whole_options(network, whole))
                self.assertEqual(str(packet[TCP].flags), "FPA" if piece is pieces[-1] else "A")
                if network is V4:
                    self.assertEqual(packet.id, (0xFFF0 + index) & 0xFFFF)
                got += bytes(packet[Raw])
            self.assertEqual(got, payload)

    def test_what_fits_stays(self) -> None:
        small = bytes(V4 / tcp() / b"x")
        self.assertEqual(segments(small, parse(small), 1500), [small])
        self.assertEqual(fragments(small, parse(small), 1500, 1), [small])

    def test_fragments(self) -> None:
        payload = bytes(range(253)) * 240
        whole = bytes(V4 / UDP(sport=1, dport=2) / payload)
        pieces = fragments(whole, parse(whole), 1500, 1)
        self.assertTrue(all(len(piece) <= 1500 and parse(piece).is_fragment for piece in pieces))
        (together,) = defragment([IP(piece) for piece in pieces])
        self.assertEqual(bytes(together[UDP].payload), payload)
        whole = bytes(V6 / UDP(sport=1, dport=2) / payload)
        pieces = fragments(whole, parse(whole), 1500, 77)
        self.assertTrue(all(len(piece) <= 1500 and parse(piece).is_fragment for piece in pieces))
        self.assertEqual(bytes(defragment6([IPv6(piece) for piece in pieces])[UDP].payload), payload)

    def test_fragments_of_fragments(self) -> None:
        whole = bytes(V4 / UDP(sport=1, dport=2) / (bytes(range(200)) * 30))
        pieces = [again for piece in fragments(whole, parse(whole), 3000, 1)
                  for again in fragments(piece, parse(piece), 900, 1)]  # fmt: skip
        (together,) = defragment([IP(piece) for piece in pieces])
        self.assertEqual(bytes(together[UDP]), whole[20:])


def whole_options(network: Packet, whole: bytes) -> object:
    return type(network)(whole)[TCP].options


class ClampTests(SynchronousTestCase):
    """TCP's MSS."""

    def test_syn(self) -> None:
        for network in (V4, V6):
            options = [("SAckOK", b""), ("MSS", 1460), ("WScale", 7)]
            syn = bytes(network / TCP(flags="S", options=options))
            changed = clamped(syn, parse(syn), 1300)
            self.assertTrue(is_intact(changed, parse(changed)))
            options[1] = ("MSS", 1300)
            self.assertEqual(type(network)(bytes(changed))[TCP].options[:3], options)
            self.assertIs(clamped(syn, parse(syn), 1460), syn)

    def test_others_stay(self) -> None:
        for layer in (tcp(), TCP(flags="S"), UDP()):
            packet = bytes(V4 / layer)
            self.assertIs(clamped(packet, parse(packet), 100), packet)
        broken = bytes(V4 / TCP(flags="S", dataofs=6) / b"\x02\x00\x05\xb4")
        self.assertIs(clamped(broken, parse(broken), 2000), broken)
