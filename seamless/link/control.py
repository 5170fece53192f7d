"""What waits to go out in CONTROL datagrams, and what goes together in one.

It stands beside the way of a byte: frames pass the queue and the pacer of DATA, so there must be few of them. An ACK, a
HELLO and everything else that is due share a datagram; LSAs fill what is left of it, and then datagrams of their own.
"""

from __future__ import annotations

from collections import deque

from seamless.delivery.acknowledger import Acknowledger
from seamless.link.recovery import Control
from seamless.wire.link_frames import (
    DigestFrame,
    Hello,
    LsaFrame,
    Measure,
    OwnFrame,
    Ping,
    ReliableFrame,
    encode_ack_frame,
)


class ControlQueue:
    """The frames of one end of a link that wait; a datagram holds ``room_bytes`` of them.

    ACKs tell receive times as seconds since ``began_at``.
    """

    def __init__(self, room_bytes: int, began_at: float) -> None:
        self._room_bytes = room_bytes
        self._began_at = began_at
        self._frames: deque[OwnFrame] = deque()
        self._lsas: deque[ReliableFrame] = deque()

    def __bool__(self) -> bool:
        """Return whether any frame waits."""
        return bool(self._frames or self._lsas)

    def add(self, frame: OwnFrame) -> None:
        """Queue a frame."""
        self._frames.append(frame)

    def add_lsa(self, frame: ReliableFrame) -> None:
        """Queue an LSA, or another frame that is sent until it is acknowledged; it waits until the neighbor is UP."""
        self._lsas.append(frame)

    def lost(self, control: Control) -> None:
        """Queue again what has to be, of a datagram that was lost."""
        self._lsas.extend(frame for frame in control.frames if isinstance(frame, (LsaFrame, DigestFrame, Measure)))

    def forget_lsas(self) -> None:
        """Drop the LSAs and digests that wait: they are sent anew when the neighbor is back."""
        self._lsas.clear()

    def take(
        self, hello: Hello | None, acknowledger: Acknowledger, is_up: bool, now: float
    ) -> list[tuple[bytes, Control]]:
        """Return what goes out now, by datagrams, each an ACK (perhaps empty) and frames.

        That is ``hello``, an ACK if one is due or can go along, and all that waits.
        """
        frames: list[OwnFrame] = [] if hello is None else [hello]
        ack, acked_below = b"", -1
        due_at = acknowledger.due_at
        if due_at is not None and (frames or self._frames or due_at <= now):
            ack = encode_ack_frame(acknowledger.largest_at - self._began_at, acknowledger.take(now))
            acked_below = acknowledger.largest
            if not frames and not self._frames and acknowledger.wants_ping(now):
                frames.append(Ping())
        datagrams = []
        self._fill(frames, ack, is_up)
        while frames or ack:
            datagrams.append((ack, Control(tuple(frames), acked_below)))
            frames, ack, acked_below = [], b"", -1
            self._fill(frames, ack, is_up)
        return datagrams

    def _fill(self, frames: list[OwnFrame], ack: bytes, is_up: bool) -> None:
        """Add what waits to ``frames``, LSAs last, as much as fits one datagram, at least one when it is empty."""
        used = len(ack) + sum(len(frame.encode()) for frame in frames)
        for frames_waiting in (self._frames, self._lsas if is_up else ()):
            while frames_waiting:
                size = len(frames_waiting[0].encode())
                if used and used + size > self._room_bytes:
                    return
                frames.append(frames_waiting.popleft())
                used += size
