"""The receiving half of a stream: bytes in any order in, bytes in order out.

Records arrive out of order as a rule, so pieces that came too early are held until the bytes before them are there.
What is handed on is at every moment an exact prefix of what the peer wrote. The peer is authenticated but not trusted:
it cannot make us hold more than its window allows, nor more pieces than `MAX_HELD_PIECES` however small they are. What
all streams of a session hold, with the memory that pieces take besides their bytes, is bounded by ``Limits.held_max``.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from seamless.errors import RemoteProtocolError
from seamless.session.window import SessionCredit, StreamWindow

MAX_HELD_PIECES: Final = 16_384
"""Pieces held back per stream: bytes of 1 s at 250 Mb/s in full records, or 2 MB of memory in one-byte ones."""

PIECE_MEMORY_BYTES: Final = 448
"""Bytes of memory of a held piece besides its data, as CPython makes objects, when it is the only one of its stream.
Each of many takes a third of this. ``test_memory`` measures it."""


class ReceiveHalf:
    """One direction of a stream, at the end that receives."""

    __slots__ = (
        "stream",
        "window",
        "credit",
        "in_order",
        "highest",
        "final",
        "fin",
        "discarding",
        "unread",
        "update_queued",
        "_held",
        "_starts",
        "_held_bytes",
    )

    def __init__(self, stream: int, window: StreamWindow, credit: SessionCredit) -> None:
        self.stream = stream
        self.window = window
        self.credit = credit
        self.in_order = 0
        self.highest = 0
        self.final: int | None = None
        self.fin = False
        self.discarding = False
        self.unread = 0
        self.update_queued = False
        self._held: dict[int, bytes] | None = None
        self._starts: list[int] = []
        self._held_bytes = 0

    @property
    def complete(self) -> bool:
        """Return whether every byte up to the final offset is in order."""
        return self.in_order == self.final

    def receive(self, offset: int, data: bytes) -> None:
        """Take in bytes at any offset; raise `RemoteProtocolError` when the peer may not send them."""
        end = offset + len(data)
        if end > self.highest:
            self._reach(end)
        if end > self.in_order and data and not self.discarding:
            self._hold(offset, data)

    def _reach(self, end: int) -> None:
        """Check ``end``, the highest offset so far, against the windows; raise `RemoteProtocolError` beyond them."""
        if end > self.window.advertised:
            raise RemoteProtocolError(
                f"stream {self.stream} sent to {end}, beyond its window of {self.window.advertised}"
            )
        if self.final is not None and end > self.final:
            raise RemoteProtocolError(f"stream {self.stream} goes on after its end")
        credit = self.credit
        credit.arrived += end - self.highest
        if credit.arrived > credit.advertised:
            raise RemoteProtocolError(f"more than the session window of {credit.advertised} bytes was sent")
        self.highest = end

    def end_at(self, final: int) -> None:
        """Set the final offset; raise `RemoteProtocolError` when it contradicts what came before."""
        if self.final is not None and final != self.final:
            raise RemoteProtocolError(f"stream {self.stream} has two ends, at {self.final} and {final}")
        if final < self.highest:
            raise RemoteProtocolError(f"stream {self.stream} ends at {final} and went on to {self.highest}")
        self._reach(final)
        self.final = final
        if self.discarding:
            self._discard()

    def _hold(self, offset: int, data: bytes) -> None:
        if self._held is None:
            self._held = {}
        held = self._held
        old = held.get(offset)
        if old is None:
            heappush(self._starts, offset)
        elif len(old) >= len(data):
            return
        else:
            self._release(1, len(old))
        held[offset] = data
        self._held_bytes += len(data)
        self.credit.hold(PIECE_MEMORY_BYTES + len(data))
        if len(held) > MAX_HELD_PIECES or self._held_bytes > 2 * self.window.size + len(data):
            raise RemoteProtocolError(f"stream {self.stream} has more gaps than any loss could make")

    def _release(self, pieces: int, nbytes: int) -> None:
        """So many pieces of so many bytes are held no more."""
        self._held_bytes -= nbytes
        self.credit.held -= pieces * PIECE_MEMORY_BYTES + nbytes

    def take(self) -> list[bytes]:
        """Remove and return the bytes that are in order now."""
        starts, held = self._starts, self._held
        if held is None or starts[0] > self.in_order:
            return []
        chunks: list[bytes] = []
        position = self.in_order
        while starts and starts[0] <= position:
            start = heappop(starts)
            data = held.pop(start)
            self._release(1, len(data))
            end = start + len(data)
            if end > position:
                chunks.append(data if start == position else data[position - start :])
                position = end
        if not held:
            self._held = None
        self._advance(position)
        return chunks

    def take_next(self, offset: int, data: bytes) -> bool:
        """Take ``data`` without holding it if it is just what comes next; the common case, and the fast one."""
        if offset != self.in_order or self._held is not None or self.discarding or not data:
            return False
        end = offset + len(data)
        if end > self.highest:
            self._reach(end)
        self._advance(end)
        return True

    def _advance(self, position: int) -> None:
        nbytes = position - self.in_order
        self.in_order = position
        self.unread += nbytes
        self.credit.in_order += nbytes
        self.credit.granted -= nbytes
        self.credit.unread += nbytes

    def consume(self, nbytes: int) -> None:
        """Count ``nbytes`` that the application has taken."""
        nbytes = min(nbytes, self.unread)
        self.unread -= nbytes
        self.credit.unread -= nbytes
        self.window.consume(nbytes)

    def discard(self) -> None:
        """Drop what is held, and count what came and what still comes as consumed."""
        if not self.discarding:
            self.discarding = True
            self.credit.granted -= self.window.advertised - self.in_order
        self.consume(self.unread)
        self._release(len(self._starts), self._held_bytes)
        self._held = None
        self._starts = []
        self._discard()

    def _discard(self) -> None:
        self.credit.in_order += self.highest - self.in_order
        self.in_order = self.highest
