"""Link state advertisements: what a node says of its own links, and why the others believe it.

Every node announces its links in an LSA (RFC 2328, section 12, in miniature), and the LSA is handed from neighbor to
neighbor until all have it. So it passes through hands that must not be able to change it. Nodes have X25519 keys
and nothing else in the configuration, and these agree on secrets but do not sign. An LSA therefore carries one tag for
each node of the configuration: keyed BLAKE2s under a key that only the origin and that node can compute
(an *authenticator vector*, as in Castro and Liskov's PBFT, section 2.1). A node looks for its own tag and
ignores the rest.

What this gives: nobody but the origin makes an LSA that a third node accepts, neither a neighbor nor a relay.
What it does not give: a relay may spoil somebody else's tag. That node then refuses this copy and takes the LSA from
another neighbor; where the only ways lead through the relay, it could as well have withheld it. Signatures would
notice spoiled copies one hop earlier, at the price of a second key for every node in the configuration.

Tags carry no names: a receiver computes the tag it expects and looks for it anywhere in the vector, which at
128 bits makes no forgery likelier and lets nodes whose configurations differ by a few nodes understand each other.
The origin's own tag is among them, so that a restarted node knows an LSA of its former life from a forgery.

On the wire, big-endian: origin (32), sequence (64), flags (8, bit 0: leaf), number of links (16); for each link
neighbor (32), cost (32), MTU (16); then tags of 16 bytes to the end. Fifty nodes with five links each: 865 bytes.
A link carries an LSA in one datagram, which at 1500 bytes bounds a network to about 80 nodes (`lsa_bytes`);
``seamless check`` refuses a configuration in which one would not fit.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from hashlib import blake2s
from hmac import compare_digest
from typing import Final

import attrs

from seamless.errors import RemoteProtocolError

TAG_BYTES: Final = 16
"""128 bits: as many as the AEAD tags of the links."""
MAX_LSA_BYTES: Final = 8192
"""Far beyond what one datagram carries; refuses nonsense before anything is computed."""
MAX_COST: Final = (1 << 32) - 1
MAX_MTU_BYTES: Final = (1 << 16) - 1

_HEADER: Final = struct.Struct(">IQBH")
_LINK: Final = struct.Struct(">IIH")
_FLAG_LEAF: Final = 0x01


class Refusal(enum.Enum):
    """Why an LSA was refused; the names of the counters."""

    MALFORMED = "malformed"
    UNKNOWN_ORIGIN = "unknown origin"
    NOT_AUTHENTIC = "not authentic"
    UNKNOWN_LINK = "unknown link"
    NOT_A_LEAF = "leaf that offers transit"


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


@attrs.frozen
class Lsa:
    """What ``origin`` says of itself; a higher ``sequence`` replaces a lower one. Links ascend by neighbor."""

    origin: int
    sequence: int
    leaf: bool
    links: tuple[LsaLink, ...]

    def says_the_same_as(self, other: Lsa) -> bool:
        """Tell whether the two differ in nothing but their sequence."""
        return self == attrs.evolve(other, sequence=self.sequence)


def encode_lsa(lsa: Lsa, keys: Iterable[bytes]) -> bytes:
    """Return the bytes of ``lsa`` with one tag under each of the pairwise ``keys``."""
    body = _HEADER.pack(lsa.origin, lsa.sequence, _FLAG_LEAF if lsa.leaf else 0, len(lsa.links))
    body += b"".join(_LINK.pack(link.neighbor, link.cost, link.mtu_bytes) for link in lsa.links)
    return body + b"".join(_tag(body, key) for key in keys)


def lsa_bytes(links: int, nodes: int) -> int:
    """Return the length of the LSA of a node with so many neighbors, in an overlay of so many nodes."""
    return _HEADER.size + links * _LINK.size + nodes * TAG_BYTES


def decode_lsa(data: bytes) -> Lsa:
    """Return the LSA in ``data``, not yet authenticated; raise `LsaRefusedError` unless its form is right."""
    if not _HEADER.size <= len(data) <= MAX_LSA_BYTES:
        raise _malformed(f"an LSA of {len(data)} bytes")
    origin, sequence, flags, link_count = _HEADER.unpack_from(data)
    if flags & ~_FLAG_LEAF:
        raise _malformed(f"an LSA with unknown flags {flags:#04x}")
    tags_at = _HEADER.size + link_count * _LINK.size
    if tags_at > len(data):
        raise _malformed(f"an LSA of {len(data)} bytes that claims {link_count} links")
    if (len(data) - tags_at) % TAG_BYTES:
        raise _malformed("an LSA that does not end with whole tags")
    links = tuple(LsaLink(*fields) for fields in _LINK.iter_unpack(data[_HEADER.size : tags_at]))
    _check_links(links)
    return Lsa(origin, sequence, bool(flags & _FLAG_LEAF), links)


def is_authentic(data: bytes, lsa: Lsa, key: bytes) -> bool:
    """Tell whether ``data``, which decoded to ``lsa``, holds the tag under the pairwise ``key``."""
    tags_at = _HEADER.size + len(lsa.links) * _LINK.size
    expected = _tag(data[:tags_at], key)
    return any(compare_digest(expected, data[at : at + TAG_BYTES]) for at in range(tags_at, len(data), TAG_BYTES))


def _tag(body: bytes, key: bytes) -> bytes:
    return blake2s(body, key=key, digest_size=TAG_BYTES).digest()


def _check_links(links: tuple[LsaLink, ...]) -> None:
    previous = -1
    for link in links:
        if link.neighbor <= previous:
            raise _malformed("an LSA whose links do not ascend by neighbor")
        if not link.cost or not link.mtu_bytes:
            raise _malformed("an LSA with a link of cost 0 or MTU 0")
        previous = link.neighbor


def _malformed(what: str) -> LsaRefusedError:
    return LsaRefusedError(Refusal.MALFORMED, f"{what} was received; do both nodes run the same version of seamless?")
