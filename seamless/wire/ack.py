"""Acknowledgements: the body of an ACK frame, in links and in sessions (RFC 9000, section 19.3).

The receiver of datagrams or records keeps their numbers in a `RangeSet`; an ACK says the newest of its ranges to the
sender. The fields, all varints: largest acked, ack delay (microseconds), count of further ranges, length of the first
range less one, then for each further range, downwards, the gap below the one before it (less two, since ranges never
touch) and its length less one. The byte of frame type before the body belongs to the floor above.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container
from typing import Final

import attrs

from seamless.errors import RemoteProtocolError
from seamless.wire.ranges import RangeSet
from seamless.wire.varint import MAX_VARINT, decode_varint, encode_varint

MAX_ACK_RANGES: Final = 256
"""Ranges in one ACK: about 1 kB, which bounds what hostile bytes make us allocate. Earlier ACKs had older ranges."""

MICROSECONDS: Final = 1_000_000


@attrs.frozen
class Ack:
    """A decoded ACK: ``ranges`` are (first, last), both included, from the newest down; ``delay`` is in seconds."""

    largest: int
    delay: float
    ranges: list[tuple[int, int]]
    received_at: float = 0.0
    """When ``largest`` was received, in seconds on a clock of the receiver; only ACKs of links say it."""


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


def decode_ack(data: bytes, offset: int, received_at: float = 0.0) -> tuple[Ack, int]:
    """Return (ACK, offset after it); raise `RemoteProtocolError` for a body that is cut short or malformed.

    ``received_at``: what stood before the body, in an ACK of a link.
    """
    largest, offset = decode_varint(data, offset)
    microseconds, offset = decode_varint(data, offset)
    count, offset = decode_varint(data, offset)
    if count >= MAX_ACK_RANGES:
        raise RemoteProtocolError(f"an ACK of {count + 1} ranges; at most {MAX_ACK_RANGES} are allowed")
    length, offset = decode_varint(data, offset)
    last, first = largest, largest - length
    ranges = [(first, last)]
    end = len(data)
    for _ in range(count):
        # Nearly all are of one byte: a call for each would be most of the work of an ACK.
        if offset + 1 < end and data[offset] < 0x40 and data[offset + 1] < 0x40:
            last = first - data[offset] - 2
            first = last - data[offset + 1]
            offset += 2
        else:
            gap, offset = decode_varint(data, offset)
            length, offset = decode_varint(data, offset)
            last = first - gap - 2
            first = last - length
        ranges.append((first, last))
    if first < 0:
        raise RemoteProtocolError("an ACK reaches below number 0")
    return Ack(largest, microseconds / MICROSECONDS, ranges, received_at), offset


class AckReader:
    """Finds the packet numbers that an ACK acknowledges for the first time.

    An ACK repeats what those before it said. Numbers above all that were acknowledged are looked at one by one, once
    each; of those below only the ones that are still awaited, which the first ACK that went past them left out. So an
    ACK takes time in proportion to the numbers that are new and to its own bytes, never to the length of its ranges.
    """

    __slots__ = ("_covered", "_left_out")

    def __init__(self, next_number: int) -> None:
        """``next_number``: the number of the next packet to be sent; numbers below it are ignored."""
        self._covered = next_number - 1
        self._left_out: list[int] = []

    def take(self, ack: Ack, awaited: Container[int], also_awaited: Container[int] = ()) -> list[int]:
        """Return the numbers that ``ack`` acknowledges and no earlier ACK did."""
        arrived = self._take_left_out(ack)
        covered = self._covered
        if ack.largest > covered:
            news = []
            for pair in ack.ranges:
                if pair[1] <= covered:
                    break
                news.append(pair)
            for first, last in reversed(news):
                for number in range(covered + 1, first):
                    if number in awaited or number in also_awaited:
                        self._left_out.append(number)
                arrived.extend(range(max(first, covered + 1), last + 1))
                covered = last
            self._covered = covered
        return arrived

    def _take_left_out(self, ack: Ack) -> list[int]:
        left_out = self._left_out
        arrived: list[int] = []
        for first, last in ack.ranges:
            if not left_out or last < left_out[0]:
                break
            low = bisect_left(left_out, first)
            if low < len(left_out) and left_out[low] <= last:
                high = bisect_right(left_out, last, low)
                arrived += left_out[low:high]
                del left_out[low:high]
        return arrived

    def forget(self, number: int) -> None:
        """Ignore ``number`` in later ACKs."""
        index = bisect_left(self._left_out, number)
        if index < len(self._left_out) and self._left_out[index] == number:
            del self._left_out[index]

    def forget_to(self, number: int) -> None:
        """Ignore all numbers up to and including ``number`` in later ACKs."""
        del self._left_out[: bisect_right(self._left_out, number)]
