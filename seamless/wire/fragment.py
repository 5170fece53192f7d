"""Fragments of a sealed record: the encoding of their offsets, and how a relay cuts one that exceeds a link's MTU.

The place of a fragment is 16 bits: the offset of its first byte in the record, in units of four bytes, and in the top
bit whether it is the last (as in IPv4, where the flag says the opposite). It says nothing of the other fragments. So
one that is too long for a link is cut anew on the way, by any node and as often as needed, and the far end puts
together whatever arrives: pieces of different cuts, too, when a packet went two ways.
"""

from __future__ import annotations

from typing import Final

from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    PACKET_HEADER_BYTES,
    SEALED_HEADER_BYTES,
)
from seamless.wire.traffic_class import TRAFFIC_CLASSES

OFFSET_UNIT_BYTES: Final = 4
"""Offsets are multiples of these bytes, and so is the length of every fragment but the last."""
LAST: Final = 0x8000
"""Bit of a fragment's place that marks the last fragment."""
OFFSET_MASK: Final = 0x7FFF
PLACE_BYTES: Final = 2
WHOLE_PLACE: Final = LAST.to_bytes(PLACE_BYTES, "big")
"""The place of a fragment that is a whole record."""

_NOT_CUT: Final = frozenset(each.number for each in TRAFFIC_CLASSES if not each.has_fragments)
_PLACE_AT: Final = PACKET_HEADER_BYTES + SEALED_HEADER_BYTES
_PIECE_AT: Final = PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES


def encode_place(offset: int, is_last: bool) -> bytes:
    """Return the place of a fragment at ``offset``, a multiple of `OFFSET_UNIT_BYTES`, in bytes."""
    return (offset // OFFSET_UNIT_BYTES | (LAST if is_last else 0)).to_bytes(PLACE_BYTES, "big")


def decode_place(payload: bytes) -> tuple[int, bool]:
    """Return (offset in bytes, whether it is the last) of a fragment: an overlay packet without its packet header."""
    place = payload[SEALED_HEADER_BYTES] << 8 | payload[SEALED_HEADER_BYTES + 1]
    return (place & OFFSET_MASK) * OFFSET_UNIT_BYTES, place >= LAST


def cut_packet(packet: bytes, limit_bytes: int) -> list[bytes]:
    """Return the overlay packets of at most ``limit_bytes``, nearly equally long, into which ``packet`` is cut.

    None, when it cannot be cut: a handshake message, or something that no node of ours has made.
    """
    piece_bytes = len(packet) - _PIECE_AT
    room = (limit_bytes - _PIECE_AT) & -OFFSET_UNIT_BYTES
    if room <= 0 or piece_bytes <= 0 or packet[0] in _NOT_CUT:
        return []
    offset, is_last = decode_place(packet[PACKET_HEADER_BYTES:_PIECE_AT])
    count = -(-piece_bytes // room)
    step = -(-piece_bytes // count) + OFFSET_UNIT_BYTES - 1 & -OFFSET_UNIT_BYTES
    starts = range(0, piece_bytes, step)
    if (offset + starts[-1]) // OFFSET_UNIT_BYTES > OFFSET_MASK:
        return []
    head = packet[:_PLACE_AT]
    return [
        b"".join(
            (
                head,
                encode_place(offset + start, is_last and start == starts[-1]),
                packet[_PIECE_AT + start : _PIECE_AT + start + step],
            )
        )
        for start in starts
    ]
