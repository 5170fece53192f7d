"""Whole IP packets as bytes: what their headers say, whether they are sane, and the few changes that a gateway makes.

The problem: a queue hands over packets that no wire has ever seen. They are up to 64 kB long and their checksums are
half done, since both were left to the network card; and what another host sends us to release may be anything. So here
headers are read with suspicion (`parse` raises `MalformedPacketError`, which names a reason to count), checksums are
completed and verified, TCP is cut into segments and everything else into fragments that fit an MTU, and TCP's MSS is
clamped.

Checksums are those of RFC 1071. 2**16 leaves the remainder 1 when divided by 65535, so the ones' complement sum of a
packet is the remainder of the packet itself, read as one large number: Python does that faster than any loop.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Literal, NamedTuple, TypeAlias, Union

Buffer: TypeAlias = Union[bytes, bytearray, memoryview]

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
_IPV6_FRAGMENT: Final = 44
_IPV6_STEERING: Final = frozenset((0, 43, 60, 135, 139, 140))
"""IPv6 headers that tell routers or hosts what to do with a packet: hop-by-hop and destination options, routing..."""

IPV4_HEADER_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40
_FRAGMENT_HEADER_BYTES: Final = 8
_TCP_HEADER_BYTES: Final = 20
_UDP_HEADER_BYTES: Final = 8
_SHORTEST_TRANSPORT: Final = {TCP: _TCP_HEADER_BYTES, UDP: _UDP_HEADER_BYTES, ICMP: 4, ICMPV6: 4}
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6, ICMPV6: 2, ICMP: 2}
_FIN_OR_PSH: Final = 0x09
_SYN: Final = 0x02
_CWR: Final = 0x80
_MSS_OPTION: Final = 2
_DONT_FRAGMENT: Final = 0x4000
_MORE_FRAGMENTS: Final = 0x2000
_OFFSET_MASK: Final = 0x1FFF

_IPV4: Final = Struct("!BBHHHBBH4s4s")
_VNET: Final = Struct("=BBHHHH")
"""``struct virtio_net_hdr`` (linux/virtio_net.h), in host byte order."""
_VNET_NEEDS_CHECKSUM: Final = 1
_VNET_TCP: Final = {4: 1, 6: 4}
_VNET_ECN: Final = 0x80
_WORD: Final = Struct("!H")
_TWO_WORDS: Final = Struct("!HH")
_LONG: Final = Struct("!I")

Reason: TypeAlias = Literal["truncated", "version", "length", "options", "expired", "checksum", "fragment"]


class MalformedPacketError(ValueError):
    """A packet that no honest host sends; ``reason`` is one word for a counter."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"a malformed packet: {reason}")
        self.reason = reason


class Header(NamedTuple):
    """What a packet says of itself. Addresses are packed; ports are 0 where the protocol has none."""

    version: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    transport: int
    """Where the transport header begins, in bytes."""
    offset: int
    """Of a fragment, in bytes; 0 for the first and for whole packets."""
    more: bool
    """Whether further fragments follow."""

    @property
    def is_fragment(self) -> bool:
        """Tell whether this is a part of a packet only."""
        return self.more or self.offset > 0


# Reading.


def parse(packet: Buffer) -> Header:
    """Return what the headers of a whole packet say; raise `MalformedPacketError` for what nobody should release."""
    if not packet:
        raise MalformedPacketError("truncated")
    version = packet[0] >> 4
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        return _parse_ipv6(packet)
    raise MalformedPacketError("version")


def _parse_ipv4(packet: Buffer) -> Header:
    if len(packet) < IPV4_HEADER_BYTES:
        raise MalformedPacketError("truncated")
    first, _, total, _, flags, ttl, protocol, _, source, destination = _IPV4.unpack_from(packet)
    if first != 0x45:
        raise MalformedPacketError("options" if first > 0x45 else "length")
    if total != len(packet):
        raise MalformedPacketError("length")
    if ttl == 0:
        raise MalformedPacketError("expired")
    if sum16(packet[:IPV4_HEADER_BYTES]):
        raise MalformedPacketError("checksum")
    offset, more = (flags & _OFFSET_MASK) * 8, bool(flags & _MORE_FRAGMENTS)
    if offset + total - IPV4_HEADER_BYTES > 0xFFFF - IPV4_HEADER_BYTES:
        raise MalformedPacketError("fragment")
    return _with_ports(packet, 4, protocol, source, destination, IPV4_HEADER_BYTES, offset, more)


def _parse_ipv6(packet: Buffer) -> Header:
    if len(packet) < IPV6_HEADER_BYTES:
        raise MalformedPacketError("truncated")
    if _WORD.unpack_from(packet, 4)[0] != len(packet) - IPV6_HEADER_BYTES:
        raise MalformedPacketError("length")
    if packet[7] == 0:
        raise MalformedPacketError("expired")
    protocol, transport, offset, more = packet[6], IPV6_HEADER_BYTES, 0, False
    if protocol == _IPV6_FRAGMENT:
        if len(packet) < IPV6_HEADER_BYTES + _FRAGMENT_HEADER_BYTES:
            raise MalformedPacketError("truncated")
        protocol, where = packet[40], _WORD.unpack_from(packet, 42)[0]
        transport += _FRAGMENT_HEADER_BYTES
        offset, more = where & 0xFFF8, bool(where & 1)
        if offset + len(packet) - transport > 0xFFFF:
            raise MalformedPacketError("fragment")
    if protocol in _IPV6_STEERING or protocol == _IPV6_FRAGMENT:
        raise MalformedPacketError("options")
    source, destination = bytes(packet[8:24]), bytes(packet[24:40])
    return _with_ports(packet, 6, protocol, source, destination, transport, offset, more)


def _with_ports(
    packet: Buffer,
    version: int,
    protocol: int,
    source: bytes,
    destination: bytes,
    transport: int,
    offset: int,
    more: bool,
) -> Header:
    ports = (0, 0)
    if offset == 0:
        # A first fragment that is too short to hold its ports could have them overwritten by the second (RFC 1858).
        if len(packet) - transport < _SHORTEST_TRANSPORT.get(protocol, 0):
            raise MalformedPacketError("fragment" if more else "truncated")
        if protocol in (TCP, UDP):
            ports = (_WORD.unpack_from(packet, transport)[0], _WORD.unpack_from(packet, transport + 2)[0])
        if protocol == TCP and not _TCP_HEADER_BYTES <= _tcp_header_bytes(packet, transport) <= len(packet) - transport:
            raise MalformedPacketError("length")
        if protocol == UDP and not more and _WORD.unpack_from(packet, transport + 4)[0] != len(packet) - transport:
            raise MalformedPacketError("length")
    return Header(version, protocol, bytes(source), bytes(destination), *ports, transport, offset, more)


def _tcp_header_bytes(packet: Buffer, transport: int) -> int:
    return (packet[transport + 12] >> 4) * 4


# Checksums.

_FOLD_BITS: Final = [1 << power for power in range(18, 9, -1)]
_FOLDS: Final = [(bits, (1 << bits) - 1) for bits in _FOLD_BITS]
_LONG_BYTES: Final = 2048
"""From here on halving the number before the division pays: a division takes time for every digit."""


def sum16(data: Buffer) -> int:
    """Return the ones' complement sum of 16-bit words, 0 to 65534; a sum of 65535 counts as 0."""
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    if len(data) > _LONG_BYTES:
        for bits, mask in _FOLDS:
            total = (total >> bits) + (total & mask)
    return total % 65535


def _transport_sum(packet: Buffer, header: Header) -> int:
    """Return the sum of pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1), transport header and payload."""
    total = sum16(memoryview(packet)[header.transport :])
    if header.protocol != ICMP:
        total += sum16(header.source) + sum16(header.destination) + header.protocol + len(packet) - header.transport
    return total


def is_intact(packet: Buffer, header: Header) -> bool:
    """Tell whether the transport's checksum is right; True where there is none, or only a part of what it covers."""
    if header.is_fragment or header.protocol not in _CHECKSUM_AT:
        return True
    if header.protocol == UDP and header.version == 4 and not _WORD.unpack_from(packet, header.transport + 6)[0]:
        return True
    return _transport_sum(packet, header) % 65535 == 0


def with_checksum(packet: Buffer, header: Header) -> bytearray:
    """Return the packet with its transport checksum computed, whatever stood in its place."""
    changed = bytearray(packet)
    if not header.is_fragment and header.protocol in _CHECKSUM_AT:
        at = header.transport + _CHECKSUM_AT[header.protocol]
        changed[at : at + 2] = b"\0\0"
        _put_checksum(changed, at, _transport_sum(changed, header), header.protocol)
    return changed


def _put_checksum(packet: bytearray, at: int, total: int, protocol: int) -> None:
    checksum = -total % 65535
    # A UDP checksum of zero means that there is none (RFC 768).
    _WORD.pack_into(packet, at, 0xFFFF if protocol == UDP and not checksum else checksum)


def _finish_ipv4(packet: bytearray) -> None:
    """Write the length and the header checksum."""
    _WORD.pack_into(packet, 2, len(packet))
    packet[10:12] = b"\0\0"
    _WORD.pack_into(packet, 10, -sum16(packet[:IPV4_HEADER_BYTES]) % 65535)


# Changing.


def segments(packet: Buffer, header: Header, mtu_bytes: int) -> list[bytes]:
    """Return a TCP packet as segments that fit an MTU, as the kernel's own segmentation would have made them."""
    body = header.transport + _tcp_header_bytes(packet, header.transport)
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
    body = header.transport + _tcp_header_bytes(packet, header.transport)
    step = mtu_bytes - body
    return max(1, -(-(len(packet) - body) // step)) if step > 0 else 0


def split_last(packet: Buffer, header: Header, mtu_bytes: int) -> tuple[bytearray, bytes]:
    """Return a TCP packet of several segments as (all but the last, in one piece; the last)."""
    body = header.transport + _tcp_header_bytes(packet, header.transport)
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
    body = at + _tcp_header_bytes(packet, at)
    pseudo = sum16(header.source) + sum16(header.destination) + TCP + len(packet) - at
    changed = bytearray(packet)
    _WORD.pack_into(changed, at + _CHECKSUM_AT[TCP], pseudo % 65535)
    kind = _VNET_TCP[header.version] | (_VNET_ECN if packet[at + 13] & _CWR else 0)
    link = len(link_header)
    vnet = _VNET.pack(_VNET_NEEDS_CHECKSUM, kind, link + body, mtu_bytes - body, link + at, _CHECKSUM_AT[TCP])
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
        _WORD.pack_into(head, at + _CHECKSUM_AT[TCP], -total % 65535)
        length = len(head) + len(payload)
        if self._version == 4:
            identification = (self._identification + index) & 0xFFFF
            _TWO_WORDS.pack_into(head, 2, length, identification)
            _WORD.pack_into(head, 10, -(self._ip_sum + length + identification) % 65535)
        else:
            _WORD.pack_into(head, 4, length - IPV6_HEADER_BYTES)
        return b"".join((head, payload))


def fragments(packet: Buffer, header: Header, mtu_bytes: int, identification: int) -> list[bytes]:
    """Return a packet as fragments that fit an MTU. ``identification`` is for IPv6, where whole packets have none."""
    cut = _fragments_ipv4 if header.version == 4 else _fragments_ipv6
    return [bytes(packet)] if len(packet) <= mtu_bytes else cut(packet, header, mtu_bytes, identification)


def _fragments_ipv4(packet: Buffer, header: Header, mtu_bytes: int, _: int) -> list[bytes]:
    payload = memoryview(packet)[IPV4_HEADER_BYTES:]
    step = (mtu_bytes - IPV4_HEADER_BYTES) & ~7
    made = []
    for start in range(0, len(payload), step):
        fragment = bytearray(packet[:IPV4_HEADER_BYTES]) + payload[start : start + step]
        more = header.more or start + step < len(payload)
        _WORD.pack_into(fragment, 6, (header.offset + start) // 8 | (_MORE_FRAGMENTS if more else 0))
        _finish_ipv4(fragment)
        made.append(bytes(fragment))
    return made


def _fragments_ipv6(packet: Buffer, header: Header, mtu_bytes: int, identification: int) -> list[bytes]:
    if header.is_fragment:
        identification = _LONG.unpack_from(packet, 44)[0]
    payload = memoryview(packet)[header.transport :]
    step = (mtu_bytes - IPV6_HEADER_BYTES - _FRAGMENT_HEADER_BYTES) & ~7
    made = []
    for start in range(0, len(payload), step):
        piece = payload[start : start + step]
        head = bytearray(packet[:IPV6_HEADER_BYTES])
        _WORD.pack_into(head, 4, len(piece) + _FRAGMENT_HEADER_BYTES)
        head[6] = _IPV6_FRAGMENT
        more = header.more or start + step < len(payload)
        where = _WORD.pack(header.offset + start | more)
        made.append(b"".join((head, bytes((header.protocol, 0)), where, _LONG.pack(identification), piece)))
    return made


def clamped(packet: Buffer, header: Header, mss_bytes: int) -> Buffer:
    """Return a TCP packet whose SYN offers no larger segments than these; any other packet as it is."""
    if header.protocol != TCP or header.offset or not packet[header.transport + 13] & _SYN:
        return packet
    at = header.transport + _TCP_HEADER_BYTES
    end = header.transport + _tcp_header_bytes(packet, header.transport)
    while at + 1 < end and packet[at] != 0:
        if packet[at] == 1:
            at += 1
            continue
        if packet[at] == _MSS_OPTION and at + 4 <= end and _WORD.unpack_from(packet, at + 2)[0] > mss_bytes:
            changed = bytearray(packet)
            _WORD.pack_into(changed, at + 2, mss_bytes)
            return with_checksum(changed, header)
        at += max(2, packet[at + 1])
    return packet
