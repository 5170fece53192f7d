"""Sparse packets twice more on a link that loses: a keystroke should not have to wait until somebody misses it.

The problem: a lost packet is noticed when a later one is acknowledged. Of a keystroke, or a request of 64 bytes, there
is no later one, so it waits for the probe timeout: two round trips of the hop, and at 5 % loss one request in twenty.
Recovery cannot do better, since there is nothing to hear. So small packets that have the link to themselves go out
again, unasked, a few milliseconds later and later still, while the link loses anything at all.

The rules:

* Only small packets, only when few are under way, and only on a link that has lately lost some. So copies cost little
  where there is little else, and nothing where there is much or where nothing is lost.
* A copy has a packet number of its own, which nobody waits for: it is never sent again.
* The neighbor forwards the first that comes, and drops the others. Otherwise every hop would multiply them.
* Apart in time, since losses come in bursts.

Not taken: an erasure code. For single packets it is the same as copies, with more to go wrong.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seamless.wire.header import (
    FRAGMENT_NAME,
    PACKET_ENDS,
)
from seamless.wire.traffic_class import TRAFFIC_CLASSES

COPY_DELAYS: Final = (0.002, 0.005)
"""Seconds after the packet at which its copies go: soon enough to matter, apart enough to escape a short burst."""
SPARSE_BYTES: Final = 512
"""The longest packet that is copied: keystrokes, requests, acknowledgements."""
SPARSE_BATCH: Final = 4
"""Packets in one batch up to which they may be sparse; larger ones are not looked through."""
SPARSE_UNDER_WAY_BYTES: Final = 8 * SPARSE_BYTES
"""What may be under way on a link of which sparse traffic has the use."""
LOSS_MEMORY: Final = 10.0
"""Seconds after its last loss for which a link counts as one that loses."""
SEEN_PACKETS: Final = 512
"""Small packets that a receiver remembers: seconds of sparse traffic."""

_REDUNDANT: Final = frozenset(bytes((each.number,)) for each in TRAFFIC_CLASSES if each.is_redundant)
_NAME: Final = slice(PACKET_ENDS.start, FRAGMENT_NAME.stop)
"""What tells overlay packets apart: source, destination, record and fragment."""


class Copies:
    """The copies that one end of a link is about to send."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._until = float("-inf")

    def lost(self, now: float) -> None:
        """Take note that the link lost something."""
        self._until = now + LOSS_MEMORY

    @property
    def due_at(self) -> float | None:
        """Return when the next copy is to go."""
        return self._waiting[0][0] if self._waiting else None

    def sent(self, packets: list[bytes], bytes_in_flight: int, now: float) -> None:
        """Take note of packets that went out; ``bytes_in_flight`` with them."""
        if now > self._until or bytes_in_flight > SPARSE_UNDER_WAY_BYTES:
            return
        for packet in packets:
            if _is_sparse(packet):
                self._waiting.extend((now + delay, packet) for delay in COPY_DELAYS)
        if len(self._waiting) > len(COPY_DELAYS):
            self._waiting = deque(sorted(self._waiting, key=lambda copy: copy[0]))

    def take(self, now: float) -> list[bytes]:
        """Return the copies that are due."""
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        return due

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()


class Seen:
    """The small packets that came last over a link, to tell copies by."""

    def __init__(self) -> None:
        self.dropped = 0
        self._names: dict[bytes, None] = {}

    def first(self, packets: list[bytes]) -> list[bytes]:
        """Return the packets without those that have come before."""
        return [packet for packet in packets if not _is_sparse(packet) or self._is_new(packet)]

    def _is_new(self, packet: bytes) -> bool:
        name = packet[_NAME]
        if name in self._names:
            self.dropped += 1
            return False
        self._names[name] = None
        if len(self._names) > SEEN_PACKETS:
            del self._names[next(iter(self._names))]
        return True


def _is_sparse(packet: bytes) -> bool:
    return len(packet) <= SPARSE_BYTES and packet[:1] in _REDUNDANT
