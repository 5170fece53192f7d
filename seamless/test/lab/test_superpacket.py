"""Whatever is cut out of a super-packet is what the kernel would have sent; scapy is the judge."""

from __future__ import annotations

from struct import pack

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from scapy.utils import checksum
from twisted.trial.unittest import SynchronousTestCase

from seamless.lab.superpacket import VNET_BYTES, corrupt, cut, shape

SEGMENT = 100
GSO = {(4, "tcp"): 1, (6, "tcp"): 4, (4, "udp"): 5, (6, "udp"): 5}
"""VIRTIO_NET_HDR_GSO_TCPV4, TCPV6 and UDP_L4 of linux/virtio_net.h."""


def pseudo_header(packet: Packet, length: int, protocol: int) -> bytes:
    """Return what a transport checksum covers besides the packet (RFC 793, RFC 8200)."""
    raw = bytes(packet)
    if packet.version == 4:
        return raw[12:20] + pack("!BBH", 0, protocol, length)
    return raw[8:40] + pack("!IHBB", length, 0, 0, protocol)


def super_packet(version: int, transport: str, payload: bytes) -> bytes:
    """Return a super-packet as the kernel hands it over: a partial checksum, the whole length, all the flags."""
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=65530) if version == 4 else IPv6(src="fd00::1", dst="fd00::2")
    options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    head = (
        TCP(sport=1, dport=2, seq=2**32 - 150, flags="FPA", options=options)
        if transport == "tcp"
        else UDP(sport=1, dport=2)
    )
    packet = bytearray(bytes(ip / head / Raw(payload)))
    start = 20 if version == 4 else 40
    offset = 16 if transport == "tcp" else 6
    protocol = 6 if transport == "tcp" else 17
    partial = ~checksum(pseudo_header(type(ip)(bytes(packet)), len(packet) - start, protocol)) & 0xFFFF
    packet[start + offset : start + offset + 2] = partial.to_bytes(2, "big")
    return pack("=BBHHHH", 1, GSO[version, transport], 0, SEGMENT, start, offset) + bytes(packet)


def completed(piece: bytes) -> bytes:
    """Do what the kernel does with a partial checksum."""
    flags, _, _, _, start, offset = (piece[0], piece[1], 0, 0, piece[6], piece[8])
    packet = bytearray(piece[VNET_BYTES:])
    if flags & 1:
        packet[start + offset : start + offset + 2] = checksum(bytes(packet[start:])).to_bytes(2, "big")
    return bytes(packet)


def rebuilt(raw: bytes) -> bytes:
    """Return the packet with every length and checksum computed anew by scapy."""
    packet = IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if layer in packet:
            for field in fields:
                packet[layer].delfieldval(field)
    return bytes(packet)


class Cut(SynchronousTestCase):
    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(
        st.sampled_from(sorted(GSO)),
        st.integers(SEGMENT + 1, 12 * SEGMENT),
        st.lists(st.integers(1, 3), min_size=12, max_size=12),
    )
    def test_pieces_of_pieces_are_the_wire_packets(self, kind: tuple[int, str], size: int, runs: list[int]) -> None:
        payload = bytes(index & 0xFF for index in range(size))
        whole = super_packet(*kind, payload)
        form = shape(whole)
        self.assertEqual((form.payload_bytes, form.segment_bytes), (size, SEGMENT))
        packets = []
        first, total = 0, -(-size // SEGMENT)
        for run in runs:
            run = min(run, total - first)
            if run:
                piece = cut(whole, form, first, run)
                packets += [cut(piece, shape(piece), index, 1) for index in range(run)] if run > 1 else [piece]
            first += run
        self.assert_is_segmentation(kind, payload, packets)

    def assert_is_segmentation(self, kind: tuple[int, str], payload: bytes, pieces: list[bytes]) -> None:
        version, transport = kind
        received = b""
        for number, piece in enumerate(pieces):
            self.assertEqual(piece[1], 0, "still marked as a super-packet")
            raw = completed(piece)
            self.assertEqual(raw, rebuilt(raw), "a length or a checksum is wrong")
            packet = IP(raw) if version == 4 else IPv6(raw)
            if version == 4:
                self.assertEqual(packet.id, (65530 + number) & 0xFFFF)
            if transport == "tcp":
                self.assertEqual(packet[TCP].seq, (2**32 - 150 + number * SEGMENT) % 2**32)
                self.assertEqual(str(packet[TCP].flags), "FPA" if number == len(pieces) - 1 else "A")
            received += bytes(packet[Raw].load)
        self.assertEqual(received, payload)


class Corrupt(SynchronousTestCase):
    def test_the_checksum_stays_true_and_the_headers_stay(self) -> None:
        for head in (UDP(sport=1, dport=2), TCP(sport=1, dport=2, options=[("MSS", 1400)]), ICMP()):
            raw = bytes(IP(dst="10.0.0.2") / head / Raw(b"abcdefgh"))
            damaged = corrupt(bytes(VNET_BYTES) + raw, 0.5)[VNET_BYTES:]
            self.assertNotEqual(damaged, raw)
            self.assertEqual(damaged[:-8], raw[:-8])
            self.assertEqual(rebuilt(damaged), damaged)

    def test_later_fragments_have_no_transport_header(self) -> None:
        fragment = bytes(VNET_BYTES) + bytes(IP(dst="10.0.0.2", proto=17, frag=10) / Raw(b"abcdefgh"))
        self.assertEqual(shape(fragment), (20, 8, 8))
