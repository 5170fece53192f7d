"""Digests of a configuration's sections: the body of the DIGEST frames of links and of sessions (docs/protocol.rst).

An item is a subject and a digest, 32 bits each, which mean something only to a node with the same configuration: the
receiver compares them with its own and shows nothing of them. A section of more items than fit is folded into buckets.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

from seamless.errors import RemoteProtocolError

MAX_ITEMS: Final = 64
"""Items of a section: 512 bytes, so that a frame fits every datagram beside others."""
_HEADER: Final = struct.Struct(">BBB")
_ITEM: Final = struct.Struct(">II")


@attrs.frozen
class ConfigurationDigest:
    """Digests of one section of a configuration.

    ``items`` are (subject, digest); with ``is_folded`` the subject is a bucket from 0 to 63.
    """

    section: int
    is_folded: bool
    items: tuple[tuple[int, int], ...]

    def encode_body(self) -> bytes:
        """Return the body of a DIGEST frame, in bytes: all but its type, which differs between link and session."""
        header = _HEADER.pack(self.section, self.is_folded, len(self.items))
        return header + b"".join(_ITEM.pack(*item) for item in self.items)


def decode_digest(data: bytes, offset: int) -> tuple[ConfigurationDigest, int]:
    """Return (digest, offset after it); raise `RemoteProtocolError` for a malformed body."""
    items_at = offset + _HEADER.size
    if items_at > len(data):
        raise RemoteProtocolError("a DIGEST runs past the end")
    section, folded, count = _HEADER.unpack_from(data, offset)
    end = items_at + count * _ITEM.size
    if end > len(data) or count > MAX_ITEMS or folded > 1:
        raise RemoteProtocolError(f"a DIGEST that claims {count} items")
    return ConfigurationDigest(section, bool(folded), tuple(_ITEM.iter_unpack(data[items_at:end]))), end
