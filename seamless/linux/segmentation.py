"""Cuts packets that exceed an MTU: TCP into segments (here or by the kernel), all others into fragments.

What comes out is to the byte what the kernel's own segmentation would have made: lengths, identification, sequence
numbers, flags and checksums. (RFC 9293; RFC 791, section 3.2; RFC 8200, section 4.5; linux/virtio_net.h.)
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from seamless.linux.ip_packet import (
    CHECKSUM_AT,
    FRAGMENT_HEADER_BYTES,
    IPV4_HEADER_BYTES,
    IPV6_FRAGMENT,
    IPV6_HEADER_BYTES,
    MORE_FRAGMENTS,
    TCP,
    Buffer,
    Header,
    sum16,
    tcp_header_bytes,
)

_FIN_OR_PSH: Final = 0x09
_CWR: Final = 0x80
_TWO_WORDS: Final = Struct("!HH")
_WORD: Final = Struct("!H")
_LONG: Final = Struct("!I")
_VNET: Final = Struct("=BBHHHH")
"""``struct virtio_net_hdr`` (linux/virtio_net.h), in host byte order."""
_VNET_NEEDS_CHECKSUM: Final = 1
_VNET_TCP: Final = {4: 1, 6: 4}
_VNET_ECN: Final = 0x80


def segments(packet: Buffer, header: Header, mtu_bytes: int) -> list[bytes]:
    """Return a TCP packet as segments that fit an MTU, as the kernel's own segmentation would have made them."""
    body = header.transport + tcp_header_bytes(packet, header.transport)
    step = mtu_bytes - body
    if len(packet) <= mtu_bytes or step <= 0:
        return [bytes(packet)]
    template = _Template(packet, header, body)
    payload = memoryview(packet)[body:]
    starts = range(0, len(payload), step)
    return [
        template.segment(index, start, payload[start : start + step], start == starts[-1])
        for index, start in enumerate(starts)
    ]


def segment_count(packet: Buffer, header: Header, mtu_bytes: int) -> int:
    """Return how many segments a TCP packet makes; 0 if the MTU has no room for any payload."""
    body = header.transport + tcp_header_bytes(packet, header.transport)
    step = mtu_bytes - body
    return max(1, -(-(len(packet) - body) // step)) if step > 0 else 0


def split_last(packet: Buffer, header: Header, mtu_bytes: int) -> tuple[bytearray, bytes]:
    """Return a TCP packet of several segments as (all but the last, in one piece; the last)."""
    body = header.transport + tcp_header_bytes(packet, header.transport)
    start = (segment_count(packet, header, mtu_bytes) - 1) * (mtu_bytes - body)
    rest = memoryview(packet)[body + start :]
    last = _Template(packet, header, body).segment(start // (mtu_bytes - body), start, rest, True)
    first = bytearray(packet[: body + start])
    first[header.transport + 13] &= ~_FIN_OR_PSH & 0xFF
    if header.version == 4:
        _finish_ipv4(first)
    else:
        _WORD.pack_into(first, 4, len(first) - IPV6_HEADER_BYTES)
    return first, last


def unsegmented(packet: Buffer, header: Header, mtu_bytes: int, link_header: bytes) -> bytes:
    """Return a TCP packet as a packet socket takes it, for the kernel to cut into segments that fit an MTU.

    The checksum is left half done, as the kernel's own TCP leaves it to a network card: only the pseudo-header is in.
    """
    at = header.transport
    body = at + tcp_header_bytes(packet, at)
    pseudo = sum16(header.source) + sum16(header.destination) + TCP + len(packet) - at
    changed = bytearray(packet)
    _WORD.pack_into(changed, at + CHECKSUM_AT[TCP], pseudo % 65535)
    kind = _VNET_TCP[header.version] | (_VNET_ECN if packet[at + 13] & _CWR else 0)
    link = len(link_header)
    vnet = _VNET.pack(_VNET_NEEDS_CHECKSUM, kind, link + body, mtu_bytes - body, link + at, CHECKSUM_AT[TCP])
    return b"".join((vnet, link_header, changed))


class _Template:
    """The headers of a TCP packet, from which those of its segments are made: their sums are taken once."""

    def __init__(self, packet: Buffer, header: Header, body: int) -> None:
        self._head = bytearray(packet[:body])
        self._version = header.version
        self._transport = header.transport
        self._identification = _WORD.unpack_from(packet, 4)[0]
        self._sequence = _LONG.unpack_from(packet, header.transport + 4)[0]
        self._flags = packet[header.transport + 13]
        # What changes from segment to segment is left out of the sums.
        blank = bytearray(self._head)
        at = header.transport
        for first, end in ((2, 6), (10, 12)) if header.version == 4 else ():
            blank[first:end] = bytes(end - first)
        for first, end in ((at + 4, at + 8), (at + 13, at + 14), (at + 16, at + 18)):
            blank[first:end] = bytes(end - first)
        self._ip_sum = sum16(blank[:IPV4_HEADER_BYTES])
        self._tcp_sum = sum16(blank[at:]) + sum16(header.source) + sum16(header.destination) + TCP + body - at

    def segment(self, index: int, start: int, payload: memoryview, is_last: bool) -> bytes:
        """Return one segment, whose payload begins at byte ``start`` of the packet's."""
        head, at = self._head, self._transport
        sequence = (self._sequence + start) & 0xFFFFFFFF
        flags = self._flags & (0xFF if is_last else ~_FIN_OR_PSH) & (~_CWR if index else 0xFF)
        _LONG.pack_into(head, at + 4, sequence)
        head[at + 13] = flags
        total = self._tcp_sum + sum16(payload) + len(payload) + (sequence >> 16) + (sequence & 0xFFFF) + flags
        _WORD.pack_into(head, at + CHECKSUM_AT[TCP], -total % 65535)
        length = len(head) + len(payload)
        if self._version == 4:
            identification = (self._identification + index) & 0xFFFF
            _TWO_WORDS.pack_into(head, 2, length, identification)
            _WORD.pack_into(head, 10, -(self._ip_sum + length + identification) % 65535)
        else:
            _WORD.pack_into(head, 4, length - IPV6_HEADER_BYTES)
        return b"".join((head, payload))


def fragments(packet: Buffer, header: Header, mtu_bytes: int, identification: int) -> list[bytes]:
    """Return the IP fragments of a packet, each within an MTU. ``identification``: for IPv6, whose header has none."""
    cut = _fragments_ipv4 if header.version == 4 else _fragments_ipv6
    return [bytes(packet)] if len(packet) <= mtu_bytes else cut(packet, header, mtu_bytes, identification)


def _fragments_ipv4(packet: Buffer, header: Header, mtu_bytes: int, _: int) -> list[bytes]:
    payload = memoryview(packet)[IPV4_HEADER_BYTES:]
    step = (mtu_bytes - IPV4_HEADER_BYTES) & ~7
    made = []
    for start in range(0, len(payload), step):
        fragment = bytearray(packet[:IPV4_HEADER_BYTES]) + payload[start : start + step]
        more = header.more or start + step < len(payload)
        _WORD.pack_into(fragment, 6, (header.offset + start) // 8 | (MORE_FRAGMENTS if more else 0))
        _finish_ipv4(fragment)
        made.append(bytes(fragment))
    return made


def _fragments_ipv6(packet: Buffer, header: Header, mtu_bytes: int, identification: int) -> list[bytes]:
    if header.is_fragment:
        identification = _LONG.unpack_from(packet, 44)[0]
    payload = memoryview(packet)[header.transport :]
    step = (mtu_bytes - IPV6_HEADER_BYTES - FRAGMENT_HEADER_BYTES) & ~7
    made = []
    for start in range(0, len(payload), step):
        piece = payload[start : start + step]
        head = bytearray(packet[:IPV6_HEADER_BYTES])
        _WORD.pack_into(head, 4, len(piece) + FRAGMENT_HEADER_BYTES)
        head[6] = IPV6_FRAGMENT
        more = header.more or start + step < len(payload)
        where = _WORD.pack(header.offset + start | more)
        made.append(b"".join((head, bytes((header.protocol, 0)), where, _LONG.pack(identification), piece)))
    return made


def _finish_ipv4(packet: bytearray) -> None:
    """Write the length and the header checksum."""
    _WORD.pack_into(packet, 2, len(packet))
    packet[10:12] = b"\0\0"
    _WORD.pack_into(packet, 10, -sum16(packet[:IPV4_HEADER_BYTES]) % 65535)
