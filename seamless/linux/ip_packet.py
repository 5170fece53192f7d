"""Parses, checks and changes the headers of whole IP packets, as a gateway does.

The problem: a queue hands over packets that no wire has ever seen. They are up to 64 kB long and their checksums are
half done, since both were left to the network card; and what another host sends us to release may be anything. So here
headers are read with suspicion (`parse` raises `MalformedPacketError`, which names a reason to count), checksums are
completed and verified, and TCP's MSS is clamped. How packets are cut is in `seamless.linux.segmentation`.

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
IPV6_FRAGMENT: Final = 44
_IPV6_STEERING: Final = frozenset((0, 43, 60, 135, 139, 140))
"""IPv6 headers that tell routers or hosts what to do with a packet: hop-by-hop and destination options, routing..."""

IPV4_HEADER_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40
FRAGMENT_HEADER_BYTES: Final = 8
_TCP_HEADER_BYTES: Final = 20
_UDP_HEADER_BYTES: Final = 8
_SHORTEST_TRANSPORT: Final = {TCP: _TCP_HEADER_BYTES, UDP: _UDP_HEADER_BYTES, ICMP: 4, ICMPV6: 4}
CHECKSUM_AT: Final = {TCP: 16, UDP: 6, ICMPV6: 2, ICMP: 2}
_SYN: Final = 0x02
_MSS_OPTION: Final = 2
MORE_FRAGMENTS: Final = 0x2000
_OFFSET_MASK: Final = 0x1FFF

_IPV4: Final = Struct("!BBHHHBBH4s4s")
_WORD: Final = Struct("!H")
_LONG: Final = Struct("!I")

Reason: TypeAlias = Literal["truncated", "version", "length", "options", "expired", "checksum", "fragment"]


class MalformedPacketError(ValueError):
    """A packet that no honest host sends; ``reason`` is one word for a counter."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"a malformed packet: {reason}")
        self.reason = reason


class Header(NamedTuple):
    """The parsed headers of a packet. Addresses are packed; ports are 0 where the protocol has none."""

    version: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    transport: int
    """Offset of the transport header, in bytes."""
    offset: int
    """Offset of a fragment, in bytes; 0 for the first and for whole packets."""
    more: bool
    """Whether further fragments follow."""

    @property
    def is_fragment(self) -> bool:
        """Return whether this is a fragment."""
        return self.more or self.offset > 0

    @property
    def is_whole_tcp(self) -> bool:
        """Return whether this is a TCP packet and no fragment."""
        return self.protocol == TCP and not self.is_fragment


# Reading.


def parse(packet: Buffer) -> Header:
    """Return the parsed headers of a whole packet; raise `MalformedPacketError` if they are not sane."""
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
    offset, more = (flags & _OFFSET_MASK) * 8, bool(flags & MORE_FRAGMENTS)
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
    if protocol == IPV6_FRAGMENT:
        if len(packet) < IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES:
            raise MalformedPacketError("truncated")
        protocol, where = packet[40], _WORD.unpack_from(packet, 42)[0]
        transport += FRAGMENT_HEADER_BYTES
        offset, more = where & 0xFFF8, bool(where & 1)
        if offset + len(packet) - transport > 0xFFFF:
            raise MalformedPacketError("fragment")
    if protocol in _IPV6_STEERING or protocol == IPV6_FRAGMENT:
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
        if protocol == TCP and not _TCP_HEADER_BYTES <= tcp_header_bytes(packet, transport) <= len(packet) - transport:
            raise MalformedPacketError("length")
        if protocol == UDP and not more and _WORD.unpack_from(packet, transport + 4)[0] != len(packet) - transport:
            raise MalformedPacketError("length")
    return Header(version, protocol, bytes(source), bytes(destination), *ports, transport, offset, more)


def tcp_header_bytes(packet: Buffer, transport: int) -> int:
    """Return the length of a TCP header, which begins at byte ``transport`` of a packet."""
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
    """Return whether the transport's checksum is right; True where there is none, or only a part of what it covers."""
    if header.is_fragment or header.protocol not in CHECKSUM_AT:
        return True
    if header.protocol == UDP and header.version == 4 and not _WORD.unpack_from(packet, header.transport + 6)[0]:
        return True
    return _transport_sum(packet, header) % 65535 == 0


def with_checksum(packet: Buffer, header: Header) -> bytearray:
    """Return the packet with its transport checksum computed anew."""
    changed = bytearray(packet)
    if not header.is_fragment and header.protocol in CHECKSUM_AT:
        at = header.transport + CHECKSUM_AT[header.protocol]
        changed[at : at + 2] = b"\0\0"
        _put_checksum(changed, at, _transport_sum(changed, header), header.protocol)
    return changed


def _put_checksum(packet: bytearray, at: int, total: int, protocol: int) -> None:
    checksum = -total % 65535
    # A UDP checksum of zero means that there is none (RFC 768).
    _WORD.pack_into(packet, at, 0xFFFF if protocol == UDP and not checksum else checksum)


# Changing.


def clamped(packet: Buffer, header: Header, mss_bytes: int) -> Buffer:
    """Return a TCP packet whose SYN offers no larger segments than these; any other packet as it is."""
    if header.protocol != TCP or header.offset or not packet[header.transport + 13] & _SYN:
        return packet
    at = header.transport + _TCP_HEADER_BYTES
    end = header.transport + tcp_header_bytes(packet, header.transport)
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
