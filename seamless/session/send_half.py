"""The sending half of a stream: what the application wrote, until the peer has it.

Bytes go through three states: *unsent* (in ``chunks``), *under way* (in a `Piece`, which the record that carries it
refers to), *acknowledged* (gone). A lost piece goes back to the scheduler as it is, and is cut only where a record has
no room for it. Nothing is copied until a record is sealed: pieces are views of what the application handed over.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, Protocol

from seamless.interfaces import Buffer
from seamless.wire.session_frames import EARLY_WINDOW_BYTES

SPARSE_BYTES: Final = 16 << 10
SPARSE_INTERVAL: Final = 0.1
"""A stream that sent fewer than so many bytes within so many seconds is sparse: a keystroke, a small request."""


class Resender(Protocol):
    """Takes back pieces that were lost."""

    def resend(self, piece: Piece) -> None:
        """Send this piece again, before anything new."""
        ...

    def half_ended(self, half: SendHalf) -> None:
        """Note a stream that may be over: all of this half, or the RESET of its stream, is acknowledged."""
        ...


class Piece:
    """Consecutive bytes of a stream in one record."""

    __slots__ = ("half", "offset", "data", "fin", "express", "settled", "cuts")

    def __init__(self, half: SendHalf, offset: int, data: Buffer, fin: bool, express: bool) -> None:
        self.half = half
        self.offset = offset
        self.data = data
        self.fin = fin
        self.express = express
        self.settled = False
        self.cuts: tuple[Piece, Piece] | None = None

    def acked(self) -> None:
        """Count these bytes as delivered, also those of its parts if it was cut for a resend."""
        if self.cuts is not None:
            for part in self.cuts:
                part.acked()
            self.cuts = None
        elif not self.settled:
            self.settled = True
            self.half.piece_acked(len(self.data), self.fin)
            self.data = b""

    def lost(self) -> None:
        """Queue it for a resend, unless another record has delivered it or the stream is closed."""
        if self.cuts is not None:
            for part in self.cuts:
                part.lost()
        elif not self.settled and not self.half.dropped:
            self.half.resends += 1
            self.half.resender.resend(self)

    def cut(self, nbytes: int) -> tuple[Piece, Piece]:
        """Replace this piece by two, the first of ``nbytes`` bytes."""
        view = memoryview(self.data)
        first = Piece(self.half, self.offset, view[:nbytes], False, self.express)
        second = Piece(self.half, self.offset + nbytes, view[nbytes:], self.fin, self.express)
        self.cuts = (first, second)
        self.data = b""
        return self.cuts


class SendHalf:
    """One direction of a stream, at the end that sends."""

    __slots__ = (
        "stream",
        "resender",
        "limit",
        "next_offset",
        "unsent",
        "under_way",
        "chunks",
        "finishing",
        "fin_sent",
        "fin_acked",
        "dropped",
        "starved",
        "turns",
        "reserved",
        "sparse_left",
        "sparse_at",
        "early",
        "resends",
    )

    def __init__(self, stream: int, resender: Resender) -> None:
        self.stream = stream
        self.resender = resender
        self.limit = EARLY_WINDOW_BYTES
        self.next_offset = 0
        self.unsent = 0
        self.under_way = 0
        self.chunks: deque[Buffer] | None = None
        self.finishing = False
        self.fin_sent = False
        self.fin_acked = False
        self.dropped = False
        self.starved = False
        self.turns: OrderedDict[SendHalf, None] | None = None
        """The scheduler's queue in which it stands."""
        self.reserved = 0
        """Unsent bytes that the session's window is charged with already: of a stream that was reset, all of them."""
        self.sparse_left = SPARSE_BYTES
        self.sparse_at = 0.0
        self.resends = 0
        """How often a piece was lost."""
        self.early: list[Buffer] | None = None
        """All bytes that were taken, for as long as they may have to be sent again from the first (`Stream`)."""

    @property
    def ended(self) -> bool:
        """Return whether every byte and the FIN are acknowledged."""
        return self.fin_acked and self.under_way == 0

    def write(self, data: Buffer) -> None:
        """Append to what is unsent."""
        if self.chunks is None:
            self.chunks = deque()
        self.chunks.append(data)
        self.unsent += len(data)

    def ready(self) -> int:
        """Return how many new bytes the stream's window lets go now."""
        return max(0, min(self.unsent, self.limit - self.next_offset))

    def sendable(self, session_room: int) -> int:
        """Return how many new bytes both windows let go now."""
        return min(self.ready(), self.reserved or session_room)

    @property
    def final(self) -> int:
        """Return the offset at which this half ends, if nothing more is written: what a RESET announces."""
        return self.next_offset + self.unsent

    def fin_due(self) -> bool:
        """Return whether the FIN can be sent now, and has not been."""
        return self.finishing and not self.fin_sent and self.unsent == 0

    def take(self, nbytes: int, express: bool) -> Piece:
        """Take ``nbytes`` new bytes, and the FIN when they are the last."""
        piece = Piece(self, self.next_offset, self._take_bytes(nbytes) if nbytes else b"", False, express)
        if self.early is not None:
            self.early.append(piece.data)
        self.next_offset += nbytes
        self.unsent -= nbytes
        self.under_way += nbytes
        if self.fin_due():
            piece.fin = self.fin_sent = True
        return piece

    def _take_bytes(self, nbytes: int) -> Buffer:
        """Return the first ``nbytes`` of ``chunks``: a view where one chunk has them all."""
        assert self.chunks is not None
        parts: list[Buffer] = []
        while nbytes:
            chunk = self.chunks.popleft()
            if len(chunk) > nbytes:
                view = memoryview(chunk)
                self.chunks.appendleft(view[nbytes:])
                chunk = view[:nbytes]
            parts.append(chunk)
            nbytes -= len(chunk)
        if not self.chunks:
            self.chunks = None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def piece_acked(self, nbytes: int, fin: bool) -> None:
        """Count ``nbytes`` as acknowledged, and the FIN with ``fin``."""
        self.under_way -= nbytes
        self.early = None
        if fin:
            self.fin_acked = True
        if self.under_way == 0 and self.unsent == 0 and not self.dropped:
            self.resender.half_ended(self)

    def from_the_first(self) -> list[Buffer]:
        """Return all that the application ever wrote; only while ``early`` is kept."""
        assert self.early is not None
        return [*self.early, *(self.chunks or ())]

    def keep(self, session_room: int) -> int:
        """Discard the unsent bytes that the two windows do not allow, and an unsent FIN; reserve the rest.

        Return how many bytes were dropped.
        """
        kept = min(self.ready(), session_room)
        excess = self.unsent - kept
        if excess:
            data = self._take_bytes(kept) if kept else b""
            self.chunks = deque([data]) if kept else None
            self.unsent = kept
        self.reserved = kept
        self.finishing = False
        return excess

    def drop(self) -> int:
        """Discard all that is not acknowledged; return how many unsent bytes there were."""
        unsent, self.unsent = self.unsent, 0
        self.reserved = 0
        self.chunks = None
        self.dropped = True
        self.finishing = False
        return unsent

    def sparse_allowance(self, now: float) -> int:
        """Return how many bytes may go express: a bucket of ``SPARSE_BYTES``, filled in ``SPARSE_INTERVAL``."""
        filled = self.sparse_left + int((now - self.sparse_at) * (SPARSE_BYTES / SPARSE_INTERVAL))
        self.sparse_left = min(SPARSE_BYTES, filled)
        self.sparse_at = now
        return self.sparse_left
