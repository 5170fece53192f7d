"""Link state advertisements: what a node says of its own links, signed by it.

Every node announces its links in an LSA (RFC 2328, section 12, in miniature), and the LSA is handed from neighbor to
neighbor until all have it. So it passes through nodes that must not be able to change it: it ends with one Ed25519
signature by its origin, over `SIGNATURE_CONTEXT` and all bytes before the signature. No node but the origin can make an
LSA that another accepts, and a copy that was altered goes no further than the next node.

What a signature does not give: an origin may sign two LSAs with one sequence number. So all LSAs of an origin are in
one order, by `Lsa.sequence` and then by the digest of the body, which every node computes alike (`Rank`); all keep the
same one, and a node that receives both reports the origin.

``unknown`` names nodes that the origin was asked to carry packets for and that its configuration does not have: paths
to them do not lead through it (`seamless.routing.spf`).

On the wire, big-endian: kind (8, 1), origin (32), sequence (64), flags (8, bit 0: leaf), number of links (8), number of
unknown nodes (8); for each link neighbor (32), cost (32), MTU (16), rate and latency (8 each,
`seamless.routing.capacity`); the unknown nodes (32 each); signature (64 bytes).
At most 64 links and 16 unknown nodes: 912 bytes, which fit a datagram on every path (RFC 8200, section 5: 1280 bytes).
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Final, TypeAlias

import attrs

from seamless.errors import RemoteProtocolError
from seamless.routing.capacity import UNKNOWN_CAPACITY, LinkCapacity

KIND_LSA: Final = 1
"""The first byte of an LSA; `seamless.routing.summary` has the other kind."""
SIGNATURE_BYTES: Final = 64
SIGNATURE_CONTEXT: Final = b"seamless 1 lsa\0"
"""What is signed begins with this, so that a signature of an LSA is none of anything else."""
DIGEST_BYTES: Final = 16
"""An origin that searches for two bodies with one digest must find a collision of 128 bits."""
MAX_LINKS: Final = 64
MAX_UNKNOWN: Final = 16
MAX_COST: Final = (1 << 32) - 1
MAX_MTU_BYTES: Final = (1 << 16) - 1

_HEADER: Final = struct.Struct(">BIQBBB")
_LINK: Final = struct.Struct(">IIHBB")
_UNKNOWN: Final = struct.Struct(">I")
_FLAG_LEAF: Final = 0x01
MIN_LSA_BYTES: Final = _HEADER.size + SIGNATURE_BYTES
MAX_LSA_BYTES: Final = MIN_LSA_BYTES + MAX_LINKS * _LINK.size + MAX_UNKNOWN * _UNKNOWN.size

Rank: TypeAlias = tuple[int, bytes]
"""Sequence and digest of an LSA: of two LSAs of one origin, the one of the higher rank counts."""


class Refusal(enum.Enum):
    """Why an LSA was refused; the names of the counters."""

    MALFORMED = "malformed"
    UNKNOWN_ORIGIN = "unknown origin"
    NOT_AUTHENTIC = "not authentic"
    NOT_A_LEAF = "leaf that offers transit"
    OVER_BUDGET = "over budget"


class LsaRefusedError(RemoteProtocolError):
    """An LSA that is not believed; ``refusal`` says which rule it broke, the text says it for the log."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


@attrs.frozen
class LsaLink:
    """One direction of a link, as its sending end announces it: cost of 1 or more, MTU of an overlay packet."""

    neighbor: int
    cost: int
    mtu_bytes: int
    capacity: LinkCapacity = UNKNOWN_CAPACITY


@attrs.frozen
class Lsa:
    """The links of ``origin``, as it announces them; a higher ``sequence`` replaces a lower one.

    Links ascend by neighbor. ``unknown`` ascends: identifiers of nodes that the origin carries no packets to.
    """

    origin: int
    sequence: int
    leaf: bool
    links: tuple[LsaLink, ...]
    unknown: tuple[int, ...] = ()

    def says_the_same_as(self, other: Lsa) -> bool:
        """Return whether the two differ in nothing but their sequence."""
        return (self.origin, self.leaf, self.links, self.unknown) == (
            other.origin,
            other.leaf,
            other.links,
            other.unknown,
        )


def encode_lsa(lsa: Lsa, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the bytes of ``lsa``; ``sign`` gives the Ed25519 signature of its origin."""
    flags = _FLAG_LEAF if lsa.leaf else 0
    body = _HEADER.pack(KIND_LSA, lsa.origin, lsa.sequence, flags, len(lsa.links), len(lsa.unknown))
    body += b"".join(map(_packed, lsa.links))
    body += b"".join(map(_UNKNOWN.pack, lsa.unknown))
    return body + sign(SIGNATURE_CONTEXT + body)


def decode_lsa(data: bytes) -> Lsa:
    """Return the LSA in ``data``, its signature not yet verified; raise `LsaRefusedError` unless its form is right."""
    if not MIN_LSA_BYTES <= len(data) <= MAX_LSA_BYTES:
        raise _malformed(f"an LSA of {len(data)} bytes")
    kind, origin, sequence, flags, link_count, unknown_count = _HEADER.unpack_from(data)
    if kind != KIND_LSA or flags & ~_FLAG_LEAF:
        raise _malformed(f"an LSA of kind {kind} with flags {flags:#04x}")
    unknown_at = _HEADER.size + link_count * _LINK.size
    end = unknown_at + unknown_count * _UNKNOWN.size
    if end + SIGNATURE_BYTES != len(data) or link_count > MAX_LINKS or unknown_count > MAX_UNKNOWN:
        raise _malformed(f"an LSA of {len(data)} bytes that claims {link_count} links, {unknown_count} unknown nodes")
    links = tuple(map(_unpacked, _LINK.iter_unpack(data[_HEADER.size : unknown_at])))
    unknown = tuple(node for (node,) in _UNKNOWN.iter_unpack(data[unknown_at:end]))
    _check_content(links, unknown)
    return Lsa(origin, sequence, bool(flags & _FLAG_LEAF), links, unknown)


def _packed(link: LsaLink) -> bytes:
    capacity = link.capacity
    return _LINK.pack(link.neighbor, link.cost, link.mtu_bytes, capacity.rate_code, capacity.latency_code)


def _unpacked(fields: tuple[int, ...]) -> LsaLink:
    neighbor, cost, mtu_bytes, rate_code, latency_code = fields
    return LsaLink(neighbor, cost, mtu_bytes, LinkCapacity(rate_code, latency_code))


def origin_of(data: bytes) -> int:
    """Return the origin of the LSA in ``data``, whatever else is in it."""
    return int.from_bytes(data[1:5], "big")


def digest_of(data: bytes) -> bytes:
    """Return the digest of the LSA in ``data``, its signature left out: an origin can make many for one body."""
    return hashlib.blake2s(data[:-SIGNATURE_BYTES], digest_size=DIGEST_BYTES).digest()


def signed_part(data: bytes) -> tuple[bytes, bytes]:
    """Return (signature, signed bytes) of the LSA in ``data``."""
    return data[-SIGNATURE_BYTES:], SIGNATURE_CONTEXT + data[:-SIGNATURE_BYTES]


def _check_content(links: tuple[LsaLink, ...], unknown: tuple[int, ...]) -> None:
    neighbors = [link.neighbor for link in links]
    if any(one >= other for one, other in pairwise(neighbors)):
        raise _malformed("an LSA whose links do not ascend by neighbor")
    if any(not link.cost or not link.mtu_bytes for link in links):
        raise _malformed("an LSA with a link of cost 0 or MTU 0")
    if any(one >= other for one, other in pairwise(unknown)):
        raise _malformed("an LSA whose unknown nodes do not ascend")


def _malformed(what: str) -> LsaRefusedError:
    return LsaRefusedError(Refusal.MALFORMED, f"{what} was received; do both nodes run the same version of seamless?")
