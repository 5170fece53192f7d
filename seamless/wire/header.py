"""Headers of underlay datagrams, overlay packets and session fragments (docs/protocol.rst)."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

# The types, in the top 8 bits of the first word.
INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE: Final = 3
DATA: Final = 4
CONTROL: Final = 5
RECORD: Final = 6
"""Of the fragments of a session's records."""

LOAD: Final = 8
"""Padding of a measurement: acknowledged, and dropped. (7 stands in the nonce of a record's proof.)"""
SEALED_TYPES: Final = frozenset((DATA, CONTROL, LOAD))
"""What is sealed under the keys of a link."""

INDEX_BITS: Final = 24
"""Bits of a receiver index in the first word of every datagram; the type is above them."""
INDEX_MASK: Final = (1 << INDEX_BITS) - 1

WORD_BYTES: Final = 4
SEALED_HEADER: Final = struct.Struct(">IQ")
"""Word (type and receiver index) and number; these twelve bytes are the AEAD nonce."""
SEALED_HEADER_BYTES: Final = SEALED_HEADER.size
TAG_BYTES: Final = 16

IPV4_UDP_BYTES: Final = 28
IPV6_UDP_BYTES: Final = 48

PACKET_HEADER: Final = struct.Struct(">BBII")
"""Class, hop limit, source, destination of an overlay packet."""
PACKET_HEADER_BYTES: Final = PACKET_HEADER.size

INITIAL_HOP_LIMIT: Final = 32

FRAGMENT_HEADER: Final = struct.Struct(">IQH")
"""Word, record number, place of this fragment in the record (`seamless.wire.fragment`)."""
FRAGMENT_HEADER_BYTES: Final = FRAGMENT_HEADER.size

PACKET_ENDS: Final = slice(2, PACKET_HEADER_BYTES)
"""Where source and destination stand in an overlay packet."""
FRAGMENT_NAME: Final = slice(PACKET_HEADER_BYTES, PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES)
"""Where the fragment header does: sorted by it, packets of a session are in the order of its records."""


def word(datagram_type: int, index: int) -> int:
    """Return the first 32 bits of a datagram."""
    return datagram_type << INDEX_BITS | index


def ip_udp_bytes(host: str) -> int:
    """Return the length of the IP and UDP headers of datagrams at this numeric address."""
    return IPV6_UDP_BYTES if ":" in host else IPV4_UDP_BYTES


def node_identifier(public_key: bytes) -> int:
    """Return the 32-bit identifier of the node with this raw Ed25519 public key."""
    return int.from_bytes(hashlib.blake2s(public_key).digest()[:4], "big")
