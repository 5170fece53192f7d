"""Acknowledgements: the body of an ACK frame, in links and in sessions (RFC 9000, section 19.3).

The receiver of datagrams or records keeps their numbers in a `RangeSet`; an ACK says the newest of its ranges to the
sender. The fields, all varints: largest acked, ack delay (microseconds), count of further ranges, length of the first
range less one, then for each further range, downwards, the gap below the one before it (less two, since ranges never
touch) and its length less one. The byte of frame type before the body belongs to the floor above.
"""

from __future__ import annotations

from typing import Final

import attrs

from seamless.errors import RemoteProtocolError
from seamless.wire.ranges import RangeSet
from seamless.wire.varint import MAX_VARINT, decode_varint, encode_varint

MAX_ACK_RANGES: Final = 256
"""Ranges in one ACK: about 1 kB, and a bound on what hostile bytes make us allocate. Older ranges were told before."""

MICROSECONDS: Final = 1_000_000


@attrs.frozen
class Ack:
    """A decoded ACK: ``ranges`` are (first, last), both included, from the newest down; ``delay`` is in seconds."""

    largest: int
    delay: float
    ranges: list[tuple[int, int]]


def encode_ack(ranges: RangeSet, delay: float) -> bytes:
    """Return the body of an ACK of the newest ``MAX_ACK_RANGES`` of ``ranges`` (not empty), ``delay`` seconds late."""
    firsts, lasts = ranges.firsts, ranges.lasts
    index = len(lasts) - 1
    lowest = max(0, len(lasts) - MAX_ACK_RANGES)
    first, last = firsts[index], lasts[index]
    microseconds = min(max(0, int(delay * MICROSECONDS)), MAX_VARINT)
    head = (last, microseconds, index - lowest, last - first)
    parts = [encode_varint(value) for value in head]
    while index > lowest:
        index -= 1
        parts.append(encode_varint(first - lasts[index] - 2))
        first = firsts[index]
        parts.append(encode_varint(lasts[index] - first))
    return b"".join(parts)


def decode_ack(data: bytes, offset: int) -> tuple[Ack, int]:
    """Return (ACK, offset after it); raise `RemoteProtocolError` for a body that is cut short or says nonsense."""
    largest, offset = decode_varint(data, offset)
    microseconds, offset = decode_varint(data, offset)
    count, offset = decode_varint(data, offset)
    if count >= MAX_ACK_RANGES:
        raise RemoteProtocolError(f"an ACK of {count + 1} ranges; at most {MAX_ACK_RANGES} are allowed")
    length, offset = decode_varint(data, offset)
    last, first = largest, largest - length
    ranges = [(first, last)]
    for _ in range(count):
        gap, offset = decode_varint(data, offset)
        length, offset = decode_varint(data, offset)
        last = first - gap - 2
        first = last - length
        ranges.append((first, last))
    if first < 0:
        raise RemoteProtocolError("an ACK reaches below number 0")
    return Ack(largest, microseconds / MICROSECONDS, ranges), offset
