"""Which stream sends next: resends first, then sparse streams, then all others in turn, a record each.

A stream that sends little is *sparse*, and its bytes go in express records, which no bulk waits in front of, here or
at any relay. What a stream may send that way is bounded by a bucket per stream and one for all, so bulk cannot pass
itself off as express.

What needs none of the session's window does not wait for it: a FIN without bytes, and the bytes of a stream that was
reset, which its RESET has announced to the peer and which the window was charged with when it did (`reserve`). These
streams take their turns in a queue of their own.

The scheduler also holds the session window that the peer opened, and says how much more an application may write: a
share of what is left of the buffer for all, so that back-pressure reaches every writer, and the more writers the
sooner.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, TypeAlias

from seamless.delivery.token_bucket import TokenBucket
from seamless.interfaces import Buffer
from seamless.session.send_half import Piece, SendHalf
from seamless.wire.session_frames import MAX_STREAM_BYTES, SESSION_WINDOW_INITIAL_BYTES, STREAM_LENGTH_BYTES
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS

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


Turns: TypeAlias = OrderedDict[SendHalf, None]
"""Streams in the order of their turns; one that is gone leaves it wherever it stands."""


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
        self._ended: list[int] = []
        self.send_buffer_max = send_buffer_max
        self._turns: tuple[Turns, Turns] = (OrderedDict(), OrderedDict())
        self._windowless: tuple[Turns, Turns] = (OrderedDict(), OrderedDict())
        self._windowless_turn = False
        self._resends: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._express_bucket = TokenBucket(EXPRESS_BYTES, EXPRESS_BPS / 8, 0.0)

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
        return max(UNSENT_MIN_BYTES, min(UNSENT_MAX_BYTES, (self.send_buffer_max - self.buffered) // SHARE_OF_FREE))

    def wake(self, half: SendHalf, now: float) -> None:
        """Queue ``half`` for a turn, if it has bytes or a FIN that it may send."""
        if half.turns is not None or half.dropped:
            return
        ready = half.ready()
        if ready or half.fin_due():
            express = ready <= half.sparse_allowance(now) and ready <= self._express_bucket.refill(now)
            self._queue(half, CLASS_EXPRESS if express else CLASS_BULK)

    def _queue(self, half: SendHalf, record_class: int) -> None:
        needs_window = half.unsent > half.reserved
        half.turns = (self._turns if needs_window else self._windowless)[record_class]
        half.turns[half] = None

    def _unqueue(self, half: SendHalf) -> None:
        if half.turns is not None:
            del half.turns[half]
            half.turns = None

    def resend(self, piece: Piece) -> None:
        """Queue a lost piece, before anything new of its class."""
        self._resends[CLASS_EXPRESS if piece.express else CLASS_BULK].append(piece)

    def half_ended(self, half: SendHalf) -> None:
        """Note a stream that may be over: all of ``half``, or the RESET of its stream, is acknowledged."""
        self._ended.append(half.stream)

    def take_ended(self) -> list[int]:
        """Remove and return the streams that may be over (`half_ended`), the last first."""
        ended, self._ended = self._ended[::-1], []
        return ended

    def may_reserve_all(self, half: SendHalf) -> bool:
        """Return whether both windows let all unsent bytes go now."""
        return half.unsent <= min(half.ready(), self.limit - self.used)

    def reserve(self, half: SendHalf, now: float) -> int:
        """Keep of the unsent bytes those that both windows let go now, and charge the session's window with them.

        Return how many bytes were dropped. The rest of what the session's window allows is other streams', so these
        bytes may be announced to the peer before they are sent.
        """
        excess = half.keep(self.limit - self.used)
        self.used += half.reserved
        self.buffered -= excess
        self._unqueue(half)
        self.wake(half, now)
        return excess

    def wants(self, record_class: int) -> bool:
        """Return whether `next_piece` may return a piece; it may not when resends were acknowledged meanwhile."""
        if self._resends[record_class] or self._windowless[record_class]:
            return True
        return bool(self._turns[record_class]) and self.limit > self.used

    def next_piece(self, record_class: int, space: int, now: float) -> Piece | None:
        """Return what goes next into a record with ``space`` bytes left; None when there is nothing, or no room for
        it."""
        resends = self._resends[record_class]
        while resends:
            piece = resends.popleft()
            if piece.settled or piece.half.dropped:
                continue
            return self._fit(piece, space, resends)
        while (turns := self._next_turns(record_class)) is not None:
            half, _ = turns.popitem(last=False)
            half.turns = None
            room = self.limit - self.used
            nbytes = half.sendable(room)
            if nbytes == 0 and not half.fin_due():
                continue
            if record_class == CLASS_EXPRESS and nbytes > half.sparse_allowance(now):
                self._queue(half, CLASS_BULK)
                continue
            nbytes = min(nbytes, space - _header_bytes(half.stream, half.next_offset), MAX_STREAM_BYTES)
            if nbytes <= 0 and not half.fin_due():
                self._queue(half, record_class)
                turns.move_to_end(half, last=False)
                return None
            return self._take(half, max(0, nbytes), record_class, now)
        return None

    def _next_turns(self, record_class: int) -> Turns | None:
        """Return the queue whose turn it is: that of the streams that need no window, or the other."""
        windowless = self._windowless[record_class]
        turns: Turns | None = self._turns[record_class] if self.limit > self.used else None
        if windowless and turns:
            self._windowless_turn = not self._windowless_turn
            return windowless if self._windowless_turn else turns
        return windowless or turns or None

    def _take(self, half: SendHalf, nbytes: int, record_class: int, now: float) -> Piece:
        """Take ``nbytes`` from the stream whose turn it is, and queue it for its next turn."""
        express = record_class == CLASS_EXPRESS
        if half.reserved:
            half.reserved -= nbytes
        else:
            self.used += nbytes
        piece = half.take(nbytes, express)
        self.buffered -= nbytes
        half.sparse_left -= min(nbytes, half.sparse_left)
        if express:
            self._express_bucket.spend(nbytes, now)
            self.wake(half, now)
        elif half.ready() or half.fin_due():
            self._queue(half, CLASS_BULK)
        return piece

    def has_room_again(self, half: SendHalf) -> bool:
        """Return, once after ``write`` had no room left, whether the application may write on."""
        if not half.starved or 2 * half.unsent > self._allowed():
            return False
        half.starved = False
        return True

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
        """Discard what a stream has left; what was reserved stays charged, since its RESET announced it."""
        self._unqueue(half)
        self.buffered -= half.drop()
