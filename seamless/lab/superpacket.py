"""Super-packets as a TUN device hands them over (``IFF_VNET_HDR``): up to 64 kB that stand for many wire packets.

The kernel leaves segmentation and checksums to the device. The emulator is that device, and would rather not do either:
it carries a super-packet whole, and cuts it only where something happened to one of its wire packets. A *piece* that is
cut out is again a valid super-packet (or a single packet): lengths, IPv4 identification, TCP sequence number and flags
are those which the kernel's own segmentation would have given it.

The format of the header is ``struct virtio_net_hdr`` of include/uapi/linux/virtio_net.h, in host byte order.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from seamless.lab.impair import corrupted

VNET_BYTES: Final = 10
"""Size of ``struct virtio_net_hdr``; TUN's default."""
_VNET: Final = Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
_VNET_GSO_SIZE: Final = Struct("=H")
_NEEDS_CHECKSUM: Final = 1
_GSO_NONE: Final = 0

_IPV4_HEADER_WORDS: Final = Struct("!10H")
_WORD: Final = Struct("!H")
_LONG: Final = Struct("!I")

_TCP: Final = 6
_UDP: Final = 17
_TCP_MINIMUM_BYTES: Final = 20
_UDP_HEADER_BYTES: Final = 8
_ICMP_HEADER_BYTES: Final = 8
_IPV6_HEADER_BYTES: Final = 40
_ONLY_ON_LAST: Final = 0x01 | 0x08
"""TCP's FIN and PSH: segmentation leaves them to the last segment."""


class Shape(NamedTuple):
    """How a packet with its vnet header is cut: ``segment_bytes`` of payload under ``header_bytes`` each."""

    header_bytes: int
    payload_bytes: int
    segment_bytes: int


def shape(packet: bytes) -> Shape:
    """Return the shape of what was read from a TUN device; a packet that is no super-packet has one segment."""
    header_bytes = _headers_bytes(packet)
    payload_bytes = len(packet) - VNET_BYTES - header_bytes
    if packet[1] == _GSO_NONE:
        return Shape(header_bytes, payload_bytes, payload_bytes or 1)
    return Shape(header_bytes, payload_bytes, _VNET_GSO_SIZE.unpack_from(packet, 4)[0] or payload_bytes or 1)


def _headers_bytes(packet: bytes) -> int:
    """Return the length of the IP and transport headers; of the IP header only where there is no transport header.

    IPv6 extension headers count as payload: only TCP and UDP right behind the IPv6 header come as super-packets.
    """
    if packet[VNET_BYTES] >> 4 == 6:
        ip_bytes, protocol, fragment = _IPV6_HEADER_BYTES, packet[VNET_BYTES + 6], 0
    else:
        ip_bytes = (packet[VNET_BYTES] & 15) * 4
        protocol = packet[VNET_BYTES + 9]
        fragment = _WORD.unpack_from(packet, VNET_BYTES + 6)[0] & 0x1FFF
    length = len(packet) - VNET_BYTES
    transport_bytes = 0
    if fragment:
        pass
    elif protocol == _TCP and length >= ip_bytes + _TCP_MINIMUM_BYTES:
        transport_bytes = (packet[VNET_BYTES + ip_bytes + 12] >> 4) * 4
    elif protocol == _UDP:
        transport_bytes = _UDP_HEADER_BYTES
    elif protocol in (1, 58):
        transport_bytes = _ICMP_HEADER_BYTES
    return min(length, ip_bytes + transport_bytes)


def cut(packet: bytes, shape: Shape, first: int, count: int) -> bytes:
    """Return wire packets ``first .. first + count - 1`` of a super-packet as a packet of their own."""
    header_bytes, payload_bytes, segment_bytes = shape
    start = first * segment_bytes
    end = min(payload_bytes, start + count * segment_bytes)
    body = VNET_BYTES + header_bytes
    header = bytearray(packet[:body])
    if end - start <= segment_bytes:
        header[1] = _GSO_NONE
        header[4:6] = b"\0\0"
    transport = _cut_ip_header(header, end - start + header_bytes, first)
    if header[VNET_BYTES + (6 if header[VNET_BYTES] >> 4 == 6 else 9)] == _TCP:
        sequence = _LONG.unpack_from(header, transport + 4)[0] + start
        _LONG.pack_into(header, transport + 4, sequence & 0xFFFFFFFF)
        if end < payload_bytes:
            header[transport + 13] &= ~_ONLY_ON_LAST & 0xFF
    else:
        _WORD.pack_into(header, transport + 4, end - start + _UDP_HEADER_BYTES)
    _shorten_partial_checksum(header, end - start - payload_bytes)
    return bytes(header) + packet[body + start : body + end]


def _cut_ip_header(header: bytearray, length: int, first: int) -> int:
    """Write the IP header of a piece of ``length`` bytes; return where the transport header starts."""
    if header[VNET_BYTES] >> 4 == 6:
        _WORD.pack_into(header, VNET_BYTES + 4, length - _IPV6_HEADER_BYTES)
        return VNET_BYTES + _IPV6_HEADER_BYTES
    _WORD.pack_into(header, VNET_BYTES + 2, length)
    identification = _WORD.unpack_from(header, VNET_BYTES + 4)[0] + first
    _WORD.pack_into(header, VNET_BYTES + 4, identification & 0xFFFF)
    header_bytes = (header[VNET_BYTES] & 15) * 4
    header[VNET_BYTES + 10 : VNET_BYTES + 12] = b"\0\0"
    words = sum(_IPV4_HEADER_WORDS.unpack_from(header, VNET_BYTES))
    words += sum(_WORD.unpack_from(header, VNET_BYTES + at)[0] for at in range(20, header_bytes, 2))
    _WORD.pack_into(header, VNET_BYTES + 10, ~_folded(words) & 0xFFFF)
    return VNET_BYTES + header_bytes


def _shorten_partial_checksum(header: bytearray, difference: int) -> None:
    """Correct the pseudo-header's sum, which holds the length of the whole super-packet, by this much.

    Super-packets always come with a partial checksum: the kernel cannot complete it before it is cut.
    """
    flags, _, _, _, start, offset = _VNET.unpack_from(header)
    if not flags & _NEEDS_CHECKSUM:
        return
    at = VNET_BYTES + start + offset
    partial = _WORD.unpack_from(header, at)[0] + 0xFFFF + difference
    _WORD.pack_into(header, at, _folded(partial))


def _folded(total: int) -> int:
    """Return the ones' complement sum of 16 bits (RFC 1071)."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def corrupt(packet: bytes, position: float) -> bytes:
    """Return a single packet with a change in its payload that every checksum misses; see `impair.corrupted`."""
    body = VNET_BYTES + _headers_bytes(packet)
    return packet[:body] + corrupted(packet[body:], position)
