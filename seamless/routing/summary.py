"""Summaries of the link state database: how two neighbors find out which LSAs each of them lacks.

The same as the database description of OSPF (RFC 2328, section 10.6): 28 bytes for an LSA in place of all of it. A
summary covers a range of origins and names the sequence and the digest of each LSA that its sender counts in it; so
each summary can be answered by itself, in any order. It is answered with the LSAs that its sender lacks or has older
ones of. A summary of one origin therefore is a request for the LSA of that origin.

On the wire, big-endian: kind (8, 2), first and last origin of the range (32 each), then for each LSA origin (32),
sequence (64), digest (128 bits), ascending by origin.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from seamless.routing.lsa import LsaRefusedError, Rank, Refusal

KIND_SUMMARY: Final = 2
MAX_ENTRIES: Final = 40
"""In one summary: 1,129 bytes, which fit a datagram on every path, as an LSA does."""
MAX_IDENTIFIER: Final = (1 << 32) - 1

_HEADER: Final = struct.Struct(">BII")
_ENTRY: Final = struct.Struct(">IQ16s")
MAX_SUMMARY_BYTES: Final = _HEADER.size + MAX_ENTRIES * _ENTRY.size


@attrs.frozen
class Summary:
    """The ranks of all LSAs that the sender counts, by origin, from ``first`` to ``last`` and both included."""

    first: int
    last: int
    ranks: dict[int, Rank]


def encode_summary(summary: Summary) -> bytes:
    """Return the bytes of ``summary``."""
    entries = (_ENTRY.pack(origin, *rank) for origin, rank in sorted(summary.ranks.items()))
    return _HEADER.pack(KIND_SUMMARY, summary.first, summary.last) + b"".join(entries)


def decode_summary(data: bytes) -> Summary:
    """Return the summary in ``data``; raise `LsaRefusedError` unless its form is right."""
    if not _HEADER.size <= len(data) <= MAX_SUMMARY_BYTES or (len(data) - _HEADER.size) % _ENTRY.size:
        raise _malformed(f"a summary of {len(data)} bytes")
    kind, first, last = _HEADER.unpack_from(data)
    ranks = {origin: (sequence, digest) for origin, sequence, digest in _ENTRY.iter_unpack(data[_HEADER.size :])}
    origins = list(ranks)
    if kind != KIND_SUMMARY or first > last or len(origins) * _ENTRY.size != len(data) - _HEADER.size:
        raise _malformed("a summary of an empty range, or with an origin twice")
    if origins != sorted(origins) or (origins and not first <= origins[0] <= origins[-1] <= last):
        raise _malformed("a summary whose origins do not ascend within its range")
    return Summary(first, last, ranks)


def summaries_of(ranks: Iterable[tuple[int, Rank]]) -> Iterator[Summary]:
    """Return the summaries of a whole database, which cover all identifiers between them."""
    entries = sorted(ranks)
    first = 0
    for at in range(0, max(1, len(entries)), MAX_ENTRIES):
        chunk = entries[at : at + MAX_ENTRIES]
        last = MAX_IDENTIFIER if at + MAX_ENTRIES >= len(entries) else chunk[-1][0]
        yield Summary(first, last, dict(chunk))
        first = last + 1


def _malformed(what: str) -> LsaRefusedError:
    return LsaRefusedError(Refusal.MALFORMED, f"{what} was received; do both nodes run the same version of seamless?")
