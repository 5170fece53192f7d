"""Records on the wire: a sealed record cut into fragments that each fit an overlay packet, and put together again.

Python's work is per record, not per fragment, wherever it can be: one seal, one open, one join. Per fragment there is
one slice on the way out, and one slice and one list slot on the way in. Relays may cut fragments further
(`seamless.wire.fragment`), so pieces are kept by their offsets, and of two that overlap the later one counts only where
there was none. What comes in here is hostile: a relay on the path may forge, repeat or mix fragments (others cannot
name its records, `seamless.session.receiver`). A forged one can spoil its record, which then is as good as lost, and
take memory up to a bound; no more.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from seamless.wire.fragment import OFFSET_UNIT_BYTES, decode_place, encode_place
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    INITIAL_HOP_LIMIT,
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
    SEALED_HEADER_BYTES,
    TAG_BYTES,
    WORD_BYTES,
)
from seamless.wire.session_frames import MAX_SEALED_BYTES, MAX_SEALED_PACKET_BYTES
from seamless.wire.traffic_class import TRAFFIC_CLASSES

MAX_INCOMPLETE: Final = 4096
"""Records in reassembly at once: a second of 16 kB records at 500 Mb/s."""

INCOMPLETE_AGE_MAX: Final = 5.0
"""Seconds after which the missing fragments of a record count as lost: no hop goes on resending for so long."""

RECORD_MEMORY_BYTES: Final = 512
SLOT_MEMORY_BYTES: Final = 96
"""What a record, and a fragment of it, take besides their bytes, as CPython makes objects."""

PIECE_MIN_BYTES: Final = 64
"""A path that carries less than this in a packet carries no session; no fragment but a record's last is shorter."""

MAX_PIECES: Final = 512
"""Pieces of one record that are kept apart. An honest one has 56 at most, of 1,180 bytes; cut in two ways, three times
as many."""


_read_place: Final = struct.Struct(">H").unpack_from
"""Reads the place of a fragment, of which only the usual one is of interest: that behind the last, without a flag."""


class Cutter:
    """Cuts sealed records for one path, from ``local`` to ``peer``."""

    __slots__ = ("piece_bytes", "record_bytes", "_places", "_last_places", "_heads")

    def __init__(self, local: int, peer: int, room_bytes: int) -> None:
        """``room_bytes``: what a packet holds behind the fragment header, at least `PIECE_MIN_BYTES`."""
        self.piece_bytes = room_bytes & -OFFSET_UNIT_BYTES
        fragments = max(1, MAX_SEALED_BYTES // self.piece_bytes)
        self.record_bytes = min(MAX_SEALED_BYTES, fragments * self.piece_bytes)
        """Bytes of a sealed record that fills all its fragments."""
        offsets = range(0, MAX_SEALED_PACKET_BYTES, self.piece_bytes)
        self._places = [encode_place(offset, False) for offset in offsets]
        self._last_places = [encode_place(offset, True) for offset in offsets]
        self._heads = [PACKET_HEADER.pack(each.number, INITIAL_HOP_LIMIT, local, peer) for each in TRAFFIC_CLASSES]

    @property
    def plaintext_bytes(self) -> int:
        """Return the bytes of frames that fill a record."""
        return self.record_bytes - TAG_BYTES

    def cut(self, lane: int, nonce: bytes, sealed: bytes) -> list[bytes]:
        """Return the overlay packets that carry a record sealed under ``nonce``."""
        size = self.piece_bytes
        head = self._heads[lane] + nonce
        last = (len(sealed) - 1) // size
        packets = [
            head + place + sealed[start : start + size]
            for place, start in zip(self._places, range(0, last * size, size))
        ]
        packets.append(head + self._last_places[last] + sealed[last * size :])
        return packets

    def whole(self, lane: int, message: bytes) -> bytes:
        """Return the overlay packet that carries ``message`` as it is."""
        return self._heads[lane] + message


def complete_records(packets: Iterable[bytes]) -> set[int]:
    """Return the names (number and proof, 64 bits) of the records of which these overlay packets, of one session, hold
    every fragment."""
    lengths: dict[int, int] = {}
    totals: dict[int, int] = {}
    for packet in packets:
        if TRAFFIC_CLASSES[packet[0]].has_fragments:
            payload = packet[PACKET_HEADER_BYTES:]
            number = int.from_bytes(payload[WORD_BYTES:SEALED_HEADER_BYTES], "big")
            offset, is_last = decode_place(payload)
            length = len(payload) - FRAGMENT_HEADER_BYTES
            lengths[number] = lengths.get(number, 0) + length
            if is_last:
                totals[number] = offset + length
    return {number for number, total in totals.items() if lengths[number] == total}


class _Incomplete:
    """The pieces of one record that are there: they ascend by offset, and do not overlap."""

    __slots__ = ("starts", "pieces", "total", "nbytes", "end", "memory_bytes", "begun_at")

    def __init__(self, now: float) -> None:
        self.starts: list[int] = []
        self.pieces: list[bytes] = []
        self.total: int | None = None
        """The record's length, once its last fragment has said it."""
        self.nbytes = 0
        self.end = 0
        """The highest offset that is kept, and where the next piece begins, usually."""
        self.memory_bytes = RECORD_MEMORY_BYTES
        self.begun_at = now

    def fits(self, offset: int, length: int, is_last: bool) -> bool:
        """Return whether a fragment may be one of this record, by what the others say."""
        end = offset + length
        if is_last:
            return (self.total is None and end >= self.end) or end == self.total
        if length < PIECE_MIN_BYTES or length % OFFSET_UNIT_BYTES:
            return False
        return end <= (MAX_SEALED_PACKET_BYTES if self.total is None else self.total)

    def put(self, offset: int, piece: bytes) -> bool:
        """Keep of a piece what is not there yet; return False when all of it is."""
        starts, pieces = self.starts, self.pieces
        if offset >= self.end:
            starts.append(offset)
            pieces.append(piece)
            self.end = offset + len(piece)
            self.nbytes += len(piece)
            self.memory_bytes += len(piece) + SLOT_MEMORY_BYTES
            return True
        index = bisect_right(starts, offset)
        if index:
            covered = starts[index - 1] + len(pieces[index - 1]) - offset
            if covered > 0:
                piece = piece[covered:]
                offset += covered
        if not piece:
            return False
        return self._insert(index, offset, piece)

    def _insert(self, index: int, offset: int, piece: bytes) -> bool:
        """Keep a piece before the one at ``index``: up to there, or in its place where it reaches beyond it."""
        starts, pieces = self.starts, self.pieces
        end = offset + len(piece)
        self.end = max(self.end, end)
        beyond = index
        while beyond < len(starts) and starts[beyond] + len(pieces[beyond]) <= end:
            beyond += 1
        if beyond < len(starts) and starts[beyond] < end:
            piece = piece[: starts[beyond] - offset]
        replaced = sum(map(len, pieces[index:beyond]))
        if len(piece) == replaced:
            return False
        starts[index:beyond] = [offset]
        pieces[index:beyond] = [piece]
        self.nbytes += len(piece) - replaced
        self.memory_bytes += len(piece) - replaced + SLOT_MEMORY_BYTES * (1 - (beyond - index))
        return True


class Reassembly:
    """Records whose fragments are not all there, by nonce (the word and the number: what all fragments begin with)."""

    def __init__(self, max_bytes: int) -> None:
        self.memory_bytes = 0
        self.evicted_records = 0
        self.refused_fragments = 0
        self.repeated_fragments = 0
        self.max_bytes = max_bytes
        self._incomplete: dict[bytes, _Incomplete] = {}

    def __len__(self) -> int:
        """Return the number of records in reassembly."""
        return len(self._incomplete)

    def __contains__(self, nonce: bytes) -> bool:
        return nonce in self._incomplete

    def append(self, nonce: bytes, payload: bytes) -> bool:
        """Take in a fragment that follows the last one of a record and is not its last, as nearly all do.

        Return False for any other, which is then to be added.
        """
        record = self._incomplete.get(nonce)
        if record is None:
            return False
        offset = record.end
        length = len(payload) - FRAGMENT_HEADER_BYTES
        if (
            _read_place(payload, SEALED_HEADER_BYTES)[0] != offset // OFFSET_UNIT_BYTES
            or record.total is not None
            or length % OFFSET_UNIT_BYTES
            or length < PIECE_MIN_BYTES
            or offset + length > MAX_SEALED_PACKET_BYTES
            or len(record.pieces) >= MAX_PIECES
        ):
            return False
        record.starts.append(offset)
        record.pieces.append(payload[FRAGMENT_HEADER_BYTES:])
        record.end = offset + length
        record.nbytes += length
        record.memory_bytes += length + SLOT_MEMORY_BYTES
        self.memory_bytes += length + SLOT_MEMORY_BYTES
        if self.memory_bytes > self.max_bytes:
            self._evict_oldest()
        return True

    def add(self, nonce: bytes, payload: bytes, now: float) -> bytes | None:
        """Take a fragment in; return the whole sealed record when it was the last that was missing."""
        offset, is_last = decode_place(payload)
        piece = payload[FRAGMENT_HEADER_BYTES:]
        known = self._incomplete.get(nonce)
        record = _Incomplete(now) if known is None else known
        is_absurd = offset + len(piece) > MAX_SEALED_PACKET_BYTES or len(record.pieces) >= MAX_PIECES
        if is_absurd or not record.fits(offset, len(piece), is_last):
            self.refused_fragments += 1
            return None
        before = 0 if known is None else known.memory_bytes
        if is_last:
            record.total = offset + len(piece)
        if not record.put(offset, piece):
            self.repeated_fragments += 1
            return None
        self._incomplete[nonce] = record
        self.memory_bytes += record.memory_bytes - before
        if record.nbytes == record.total:
            self.forget(nonce)
            return b"".join(record.pieces)
        while self.memory_bytes > self.max_bytes or len(self._incomplete) > MAX_INCOMPLETE:
            self._evict_oldest()
        return None

    def forget(self, nonce: bytes) -> None:
        """Drop what there is of a record."""
        record = self._incomplete.pop(nonce, None)
        if record is not None:
            self.memory_bytes -= record.memory_bytes

    def _evict_oldest(self) -> None:
        self.forget(next(iter(self._incomplete)))
        self.evicted_records += 1

    def next_timeout(self) -> float | None:
        """Return when `expire` has something to forget."""
        for oldest in self._incomplete.values():
            return oldest.begun_at + INCOMPLETE_AGE_MAX
        return None

    def expire(self, now: float) -> None:
        """Forget the records whose missing fragments will not come any more."""
        while self._incomplete:
            oldest = next(iter(self._incomplete.values()))
            if now < oldest.begun_at + INCOMPLETE_AGE_MAX:
                break
            self._evict_oldest()
