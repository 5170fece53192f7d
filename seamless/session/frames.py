"""Frames other than STREAM: how each is encoded, and what follows when its record is acknowledged or lost.

They go in express records. A lost OPEN, ACCEPT or RESET goes again as it was; a lost window goes again with its newest
value; a lost PING is not sent again.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from seamless.delivery.acknowledger import Acknowledger
from seamless.session.receive_half import ReceiveHalf
from seamless.session.stream import Stream
from seamless.session.window import SessionCredit
from seamless.wire.session_frames import PING, ResetFrame, encode_reset, encode_session_window, encode_window


class PendingFrame(Protocol):
    """A frame that waits to be sent, and then for its acknowledgement."""

    def encode(self, now: float) -> bytes:
        """Return the frame to send now; empty when it is not needed any more."""
        ...

    def acked(self) -> None:
        """Act on the acknowledgement of the record that carried it."""
        ...

    def lost(self) -> None:
        """Act on the loss of the record that carried it."""
        ...


class PersistentFrame:
    """A frame that is sent until it is acknowledged: OPEN, ACCEPT, a digest."""

    __slots__ = ("_frame", "_queue")

    def __init__(self, frame: bytes, queue: deque[PendingFrame]) -> None:
        self._frame = frame
        self._queue = queue

    def encode(self, now: float) -> bytes:
        """Return the frame."""
        return self._frame

    def acked(self) -> None:
        """Do nothing: the frame has arrived."""

    def lost(self) -> None:
        """Send it again."""
        self._queue.append(self)


class PendingReset(PersistentFrame):
    """RESET, sent until it is acknowledged."""

    __slots__ = ("_reset", "_stream")

    def __init__(self, stream: Stream, reset: ResetFrame, queue: deque[PendingFrame]) -> None:
        super().__init__(encode_reset(reset.stream, reset.code, reset.final_offset, reset.reason, reset.fin), queue)
        self._stream = stream
        self._reset = reset

    def acked(self) -> None:
        """Note that the peer has it, unless a harsher one has replaced it."""
        stream = self._stream
        if stream.own_reset is self._reset:
            stream.reset_acked = True
            stream.send.resender.half_ended(stream.send)


class StreamWindowUpdate:
    """WINDOW, with the value of the moment at which it is sent."""

    __slots__ = ("_half", "_queue")

    def __init__(self, half: ReceiveHalf, queue: deque[PendingFrame]) -> None:
        self._half = half
        self._queue = queue
        half.update_queued = True

    def encode(self, now: float) -> bytes:
        """Return WINDOW with the newest limit; empty when the peer sends nothing more."""
        half = self._half
        half.update_queued = False
        if half.final is not None or half.discarding:
            return b""
        return encode_window(half.stream, half.window.advertise(half.credit, half.unread, now))

    def acked(self) -> None:
        """Do nothing: the peer has the window."""

    def lost(self) -> None:
        """Queue the newest window, unless one waits already."""
        if not self._half.update_queued:
            self._half.update_queued = True
            self._queue.append(self)


class SessionWindowUpdate:
    """SESSION_WINDOW, with the value of the moment at which it is sent."""

    __slots__ = ("_credit", "_queue")

    def __init__(self, credit: SessionCredit, queue: deque[PendingFrame]) -> None:
        self._credit = credit
        self._queue = queue
        credit.update_queued = True

    def encode(self, now: float) -> bytes:
        """Return the newest window."""
        self._credit.update_queued = False
        return encode_session_window(self._credit.advertise())

    def acked(self) -> None:
        """Do nothing: the peer has the window."""

    def lost(self) -> None:
        """Queue the newest window, unless one waits already."""
        if not self._credit.update_queued:
            self._credit.update_queued = True
            self._queue.append(self)


class PendingPing:
    """PING: asks for an acknowledgement, whatever becomes of it."""

    __slots__ = ()

    def encode(self, now: float) -> bytes:
        """Return the frame."""
        return bytes((PING,))

    def acked(self) -> None:
        """Do nothing: the acknowledgement itself was asked for."""

    def lost(self) -> None:
        """Do nothing: the probe timeout sends another one."""


class SentPacket:
    """DATAGRAM: not sent again end to end."""

    __slots__ = ()

    def acked(self) -> None:
        """Do nothing: the frame has arrived."""

    def lost(self) -> None:
        """Do nothing: a packet is not sent again end to end."""


class SentAck:
    """An ACK in a record: once that is acknowledged, the ranges in it need no repeating."""

    __slots__ = ("_acknowledger", "_largest")

    def __init__(self, acknowledger: Acknowledger) -> None:
        self._acknowledger = acknowledger
        self._largest = acknowledger.largest

    def acked(self) -> None:
        """Forget old ranges."""
        self._acknowledger.ack_acknowledged(self._largest)

    def lost(self) -> None:
        """Do nothing: a later ACK has the same ranges."""
