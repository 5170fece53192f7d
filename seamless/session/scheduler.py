"""Whose bytes go next: resends first, then sparse streams, then everybody in turn, a record each.

A stream that sends little is *sparse*, and its bytes go in express records, which no bulk waits in front of, here or
at any relay. What a stream may send that way is bounded by a bucket per stream and one for all, so bulk cannot pass
itself off as express.

The scheduler also holds the session window that the peer opened, and says how much more an application may write: a
share of what is left of the buffer for all, so that back-pressure reaches every writer, and the more writers the
sooner.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seamless.interfaces import Buffer
from seamless.session.send import Piece, SendHalf
from seamless.wire.header import CLASS_BULK, CLASS_EXPRESS
from seamless.wire.session_frames import MAX_STREAM_BYTES, SESSION_WINDOW_INITIAL_BYTES, STREAM_LENGTH_BYTES

UNSENT_MAX_BYTES: Final = 256 << 10
"""Unsent bytes that one stream may hold: 2 ms at 1 Gb/s, which is how late an event loop may be to refill it."""

UNSENT_MIN_BYTES: Final = 16 << 10
"""What it may hold in any case: one record."""

SHARE_OF_FREE: Final = 8
"""One stream's unsent bytes are at most an eighth of what is left of the buffer for all."""

EXPRESS_BYTES: Final = 64 << 10
EXPRESS_BPS: Final = 16_000_000
"""Express data of all streams: bits per second, and how much at once. Links serve express first: it must stay small."""

CUT_MIN_BYTES: Final = 256
"""A piece is cut for a resend only if at least this much of it fits: headers would eat the gain."""


def _header_bytes(stream: int, offset: int) -> int:
    """Return the length of a STREAM frame's header."""
    size = 1 + STREAM_LENGTH_BYTES
    for value in (stream, offset):
        size += 1 if value < 0x40 else 2 if value < 0x4000 else 4 if value < 0x4000_0000 else 8
    return size


class Scheduler:
    """All streams of a session that have something to send."""

    def __init__(self, send_buffer_max: int) -> None:
        self.limit = SESSION_WINDOW_INITIAL_BYTES
        self.used = 0
        self.buffered = 0
        self.writable: list[int] = []
        self.ended: list[int] = []
        self._send_buffer_max = send_buffer_max
        self._turns: tuple[deque[SendHalf], deque[SendHalf]] = (deque(), deque())
        self._resends: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._express_left = EXPRESS_BYTES
        self._express_at = 0.0

    def write(self, half: SendHalf, data: Buffer, now: float) -> int:
        """Take all of ``data``; return the room that is left, in bytes."""
        if data:
            half.write(data)
            self.buffered += len(data)
            self.wake(half, now)
        room = self._allowed() - half.unsent
        half.starved = room <= 0
        return room

    def _allowed(self) -> int:
        """Return how many unsent bytes a stream may hold now."""
        return max(UNSENT_MIN_BYTES, min(UNSENT_MAX_BYTES, (self._send_buffer_max - self.buffered) // SHARE_OF_FREE))

    def wake(self, half: SendHalf, now: float) -> None:
        """Something changed that may let ``half`` send."""
        if half.queued or half.dropped:
            return
        ready = half.ready()
        if ready or half.fin_due():
            half.queued = True
            express = ready <= half.sparse_allowance(now) and ready <= self._express_allowance(now)
            self._turns[CLASS_EXPRESS if express else CLASS_BULK].append(half)

    def _express_allowance(self, now: float) -> int:
        filled = self._express_left + int((now - self._express_at) * EXPRESS_BPS / 8)
        self._express_left = min(EXPRESS_BYTES, filled)
        self._express_at = now
        return self._express_left

    def resend(self, piece: Piece) -> None:
        """Send a lost piece again, before anything new of its class."""
        self._resends[CLASS_EXPRESS if piece.express else CLASS_BULK].append(piece)

    def half_ended(self, half: SendHalf) -> None:
        """All of ``half``, or all that was left of it, is acknowledged."""
        self.ended.append(half.stream)

    def dropped(self, nbytes: int) -> None:
        """A stream dropped unsent bytes."""
        self.buffered -= nbytes

    def wants(self, lane: int) -> bool:
        """Say whether `next_piece` may have something; cheap, and wrong at most once per piece that settled itself."""
        if self._resends[lane]:
            return True
        turns = self._turns[lane]
        return bool(turns) and (self.limit > self.used or turns[0].fin_due())

    def next_piece(self, lane: int, space: int, now: float) -> Piece | None:
        """Return what goes next into a record with ``space`` bytes left; None when there is nothing, or no room for
        it."""
        resends = self._resends[lane]
        while resends:
            piece = resends.popleft()
            if piece.settled or piece.half.dropped:
                continue
            return self._fit(piece, space, resends)
        turns = self._turns[lane]
        while turns:
            half = turns.popleft()
            if not half.ready() and not half.fin_due():
                half.queued = False
                continue
            nbytes = half.sendable(self.limit - self.used)
            if lane == CLASS_EXPRESS and nbytes > half.sparse_allowance(now):
                self._turns[CLASS_BULK].append(half)
                continue
            nbytes = min(nbytes, space - _header_bytes(half.stream, half.next_offset), MAX_STREAM_BYTES)
            if nbytes <= 0 and not half.fin_due():
                turns.appendleft(half)
                return None
            return self._take(half, nbytes, lane, now)
        return None

    def _take(self, half: SendHalf, nbytes: int, lane: int, now: float) -> Piece:
        """Take ``nbytes`` from the stream whose turn it is, and queue it for its next turn."""
        express = lane == CLASS_EXPRESS
        piece = half.take(nbytes, express)
        self.used += nbytes
        self.buffered -= nbytes
        half.queued = False
        half.sparse_left -= min(nbytes, half.sparse_left)
        if express:
            self._express_left -= nbytes
            self.wake(half, now)
        elif half.ready() or half.fin_due():
            half.queued = True
            self._turns[CLASS_BULK].append(half)
        if half.starved and 2 * half.unsent <= self._allowed():
            half.starved = False
            self.writable.append(half.stream)
        return piece

    def _fit(self, piece: Piece, space: int, resends: deque[Piece]) -> Piece | None:
        """Return a lost piece, or as much of it as there is room for."""
        room = space - _header_bytes(piece.half.stream, piece.offset)
        if len(piece.data) <= room:
            return piece
        if room < CUT_MIN_BYTES:
            resends.appendleft(piece)
            return None
        first, second = piece.cut(room)
        resends.appendleft(second)
        return first

    def close(self, half: SendHalf) -> None:
        """The stream is gone."""
        self.dropped(half.drop())
