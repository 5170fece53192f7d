"""Redundant sends: small packets go out three times, on a link that loses and has few packets in flight.

The problem: a lost packet is noticed when a later one is acknowledged. Of a keystroke, or a request of 64 bytes, there
is no later one, so it waits for the probe timeout: two round trips of the hop, and at 5 % loss one request in twenty.
Recovery cannot do better, since there is nothing to hear. So small packets with few others in flight are sent again
a few milliseconds later, and once more, while the link loses anything at all.

The rules:

* Only small packets, only when few are under way, and only on a link that has lately lost some. So they
  cost little where there is little else, and nothing where there is much or where nothing is lost.
* A redundant send has a packet number of its own, which is not recovered.
* The neighbor forwards the first that comes, and drops the others. Otherwise every hop would multiply them.
* Apart in time, since losses come in bursts.

Not taken: an erasure code. For single packets it comes to the same, with more to go wrong.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seamless.wire.header import (
    FRAGMENT_NAME,
    PACKET_ENDS,
)
from seamless.wire.traffic_class import TRAFFIC_CLASSES

REDUNDANT_DELAYS: Final = (0.002, 0.005)
"""Seconds after the packet at which it is sent again: soon enough to matter, apart enough to escape a short burst."""
SMALL_BYTES: Final = 512
"""The longest packet that is sent redundantly: keystrokes, requests, acknowledgements."""
FEW_PACKETS: Final = 4
"""Packets in a batch up to which it is looked through for small ones."""
FEW_IN_FLIGHT_BYTES: Final = 8 * SMALL_BYTES
"""Bytes in flight up to which a link has few packets in flight."""
LOSS_MEMORY: Final = 10.0
"""Seconds after its last loss for which a link counts as one that loses."""
FILTERED_PACKETS: Final = 512
"""Small packets that a receiver remembers: seconds of such traffic."""

_REDUNDANT: Final = frozenset(bytes((each.number,)) for each in TRAFFIC_CLASSES if each.is_redundant)
_NAME: Final = slice(PACKET_ENDS.start, FRAGMENT_NAME.stop)
"""What tells overlay packets apart: source, destination, record and fragment."""


class RedundantSends:
    """The redundant sends that one end of a link is about to make."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._until = float("-inf")
        self.due_at: float | None = None
        """When the next is due; None when none waits."""

    def lost(self, now: float) -> None:
        """Take note that the link lost something."""
        self._until = now + LOSS_MEMORY

    def sent(self, packets: list[bytes], bytes_in_flight: int, now: float) -> None:
        """Take note of packets that went out; ``bytes_in_flight`` with them."""
        if now > self._until or bytes_in_flight > FEW_IN_FLIGHT_BYTES:
            return
        for packet in packets:
            if _is_candidate(packet):
                self._waiting.extend((now + delay, packet) for delay in REDUNDANT_DELAYS)
        if len(self._waiting) > len(REDUNDANT_DELAYS):
            self._waiting = deque(sorted(self._waiting, key=lambda each: each[0]))
        self._note_due()

    def take(self, now: float) -> list[bytes]:
        """Return the packets to be sent once more now."""
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        self._note_due()
        return due

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()
        self._note_due()

    def _note_due(self) -> None:
        self.due_at = self._waiting[0][0] if self._waiting else None


class DuplicateFilter:
    """The names of the small packets that came last over a link, by which duplicates are dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self._names: dict[bytes, None] = {}

    def first(self, packets: list[bytes]) -> list[bytes]:
        """Return the packets without those that have come before."""
        return [packet for packet in packets if not _is_candidate(packet) or self._is_new(packet)]

    def _is_new(self, packet: bytes) -> bool:
        name = packet[_NAME]
        if name in self._names:
            self.dropped += 1
            return False
        self._names[name] = None
        if len(self._names) > FILTERED_PACKETS:
            del self._names[next(iter(self._names))]
        return True


def _is_candidate(packet: bytes) -> bool:
    return len(packet) <= SMALL_BYTES and packet[:1] in _REDUNDANT
