"""A stream that never leaves the process: what joins two splices when a connection goes round the overlay.

When the egress cannot be reached and the configuration says ``direct``, the ingress dials the original destination
itself. Both sockets then keep the same promises as ever, because both are still spliced to a stream; only that stream
is a `DirectPair`, which answers to the same calls as a node's driver.
"""

from __future__ import annotations

from typing import Final

from seamless.interfaces import StreamKey
from seamless.transport.streams import StreamOwner

WINDOW_BYTES: Final = 256 * 1024
"""What one direction may hold that the far socket has not taken: four reads."""

FIRST: Final[StreamKey] = (0, 0)
SECOND: Final[StreamKey] = (0, 1)
"""The names of the two ends."""


class DirectPair:
    """Two ends, `FIRST` and `SECOND`, each with an owner (`join`); what one sends is delivered to the other at once."""

    __slots__ = ("_gone", "_held_bytes", "_owners", "_waits_for_room")

    def __init__(self) -> None:
        self._owners: list[StreamOwner] = []
        self._held_bytes = [0, 0]
        self._waits_for_room = [False, False]
        self._gone = False

    def join(self, owner: StreamOwner) -> None:
        """Give the next end its owner; both are needed before anything is sent."""
        self._owners.append(owner)

    def send(self, stream: StreamKey, data: bytes) -> int:
        """Hand ``data`` to the other end; return the room left."""
        if self._gone:
            return 0
        here = stream[1]
        self._held_bytes[here] += len(data)
        self._owners[1 - here].stream_data([data])
        room = WINDOW_BYTES - self._held_bytes[here]
        self._waits_for_room[here] = room <= 0
        return room

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Make room for the other end."""
        there = 1 - stream[1]
        self._held_bytes[there] -= nbytes
        if self._waits_for_room[there] and self._held_bytes[there] < WINDOW_BYTES and not self._gone:
            self._waits_for_room[there] = False
            self._owners[there].stream_writable()

    def finish(self, stream: StreamKey) -> None:
        """Deliver FIN to the other end."""
        if not self._gone:
            self._owners[1 - stream[1]].stream_finished()

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        """Deliver the reset to the other end."""
        if not self._gone:
            self._gone = True
            self._owners[1 - stream[1]].stream_reset(code, reason)
