"""Records on the wire: a sealed record cut into fragments that each fit an overlay packet, and put together again.

Python's work is per record, not per fragment, wherever it can be: one seal, one open, one join. Per fragment there is
one slice on the way out, and one slice and one list slot on the way in. What comes in here is hostile: any relay may
forge, repeat or mix fragments. A forged one can spoil its record, which then is as good as lost, and take memory up to
a bound; no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from seamless.wire.header import (
    CLASS_HANDSHAKE,
    FRAGMENT_HEADER,
    FRAGMENT_HEADER_BYTES,
    INITIAL_HOP_LIMIT,
    PACKET_CLASSES,
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
    SEALED_HEADER_BYTES,
    TAG_BYTES,
)
from seamless.wire.session_frames import MAX_SEALED_BYTES, MAX_SEALED_PACKET_BYTES

MAX_FRAGMENTS: Final = 256
"""Fragments of one record: their index is one byte."""

MAX_INCOMPLETE: Final = 4096
"""Records in reassembly at once: a second of 16 kB records at 500 Mb/s."""

INCOMPLETE_AGE_MAX: Final = 5.0
"""Seconds after which the missing fragments of a record count as lost: no hop goes on resending for so long."""

RECORD_MEMORY_BYTES: Final = 512
SLOT_MEMORY_BYTES: Final = 48
"""What a record, and a fragment of it, take besides their bytes, as CPython makes objects."""

PIECE_MIN_BYTES: Final = 64
"""A path that carries less than this in a packet carries no session."""

_FRAGMENT_OF: Final = [[bytes((index, last)) for index in range(last + 1)] for last in range(MAX_FRAGMENTS)]
"""The last two bytes of a fragment header, made once."""


class Cutter:
    """Cuts sealed records for one path, from ``local`` to ``peer``."""

    __slots__ = ("piece_bytes", "record_bytes", "_heads")

    def __init__(self, local: int, peer: int, piece_bytes: int) -> None:
        self.piece_bytes = piece_bytes
        fragments = min(MAX_FRAGMENTS, max(1, MAX_SEALED_BYTES // piece_bytes))
        self.record_bytes = min(MAX_SEALED_BYTES, fragments * piece_bytes)
        """Bytes of a sealed record that fills all its fragments."""
        self._heads = [PACKET_HEADER.pack(lane, INITIAL_HOP_LIMIT, local, peer) for lane in PACKET_CLASSES]

    @property
    def plaintext_bytes(self) -> int:
        """Return the bytes of frames that fill a record."""
        return self.record_bytes - TAG_BYTES

    def cut(self, lane: int, nonce: bytes, sealed: bytes) -> list[bytes]:
        """Return the overlay packets that carry a record sealed under ``nonce``."""
        size = self.piece_bytes
        head = self._heads[lane] + nonce
        last = (len(sealed) - 1) // size
        return [
            head + fragment + sealed[start : start + size]
            for fragment, start in zip(_FRAGMENT_OF[last], range(0, len(sealed), size))
        ]

    def whole(self, lane: int, message: bytes) -> bytes:
        """Return the overlay packet that carries ``message`` as it is."""
        return self._heads[lane] + message


def complete_records(packets: Iterable[bytes]) -> set[int]:
    """Return the numbers of the records of which these overlay packets, of one session, hold every fragment."""
    missing: dict[int, int] = {}
    for packet in packets:
        if packet[0] != CLASS_HANDSHAKE:
            _, number, _, last = FRAGMENT_HEADER.unpack_from(packet, PACKET_HEADER_BYTES)
            missing[number] = missing.get(number, last + 1) - 1
    return {number for number, count in missing.items() if count == 0}


class _Incomplete:
    """The fragments of one record that are there."""

    __slots__ = ("slots", "missing", "nbytes", "memory_bytes", "begun_at")

    def __init__(self, last: int, now: float) -> None:
        self.slots: list[bytes] = [b""] * (last + 1)
        self.missing = last + 1
        self.nbytes = 0
        self.memory_bytes = RECORD_MEMORY_BYTES + (last + 1) * SLOT_MEMORY_BYTES
        self.begun_at = now


class Reassembly:
    """Records whose fragments are not all there, by nonce (the word and the number: what all fragments begin with)."""

    def __init__(self, max_bytes: int) -> None:
        self.memory_bytes = 0
        self.evicted_records = 0
        self.refused_fragments = 0
        self.repeated_fragments = 0
        self._max_bytes = max_bytes
        self._incomplete: dict[bytes, _Incomplete] = {}

    def __len__(self) -> int:
        """Return the number of records in reassembly."""
        return len(self._incomplete)

    def __contains__(self, nonce: bytes) -> bool:
        return nonce in self._incomplete

    def add(self, nonce: bytes, payload: bytes, now: float) -> bytes | None:
        """Take a fragment in; return the whole sealed record when it was the last that was missing."""
        record = self._incomplete.get(nonce)
        index, last = payload[SEALED_HEADER_BYTES], payload[SEALED_HEADER_BYTES + 1]
        if record is None:
            if index > last:
                self.refused_fragments += 1
                return None
            record = self._incomplete[nonce] = _Incomplete(last, now)
            self.memory_bytes += record.memory_bytes
        slots = record.slots
        if last != len(slots) - 1 or index > last:
            self.refused_fragments += 1
            return None
        if slots[index]:
            self.repeated_fragments += 1
            return None
        piece = payload[FRAGMENT_HEADER_BYTES:]
        slots[index] = piece
        record.missing -= 1
        record.nbytes += len(piece)
        record.memory_bytes += len(piece)
        self.memory_bytes += len(piece)
        if record.missing == 0 or record.nbytes > MAX_SEALED_PACKET_BYTES:
            return self._finish(nonce, record)
        if self.memory_bytes > self._max_bytes or len(self._incomplete) > MAX_INCOMPLETE:
            self._evict_oldest()
        return None

    def _finish(self, nonce: bytes, record: _Incomplete) -> bytes | None:
        del self._incomplete[nonce]
        self.memory_bytes -= record.memory_bytes
        if record.nbytes > MAX_SEALED_PACKET_BYTES:
            self.evicted_records += 1
            return None
        return b"".join(record.slots)

    def _evict_oldest(self) -> None:
        nonce = next(iter(self._incomplete))
        self.memory_bytes -= self._incomplete.pop(nonce).memory_bytes
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
