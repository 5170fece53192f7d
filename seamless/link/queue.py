"""What waits to go out on a link: served fairly, bounded, and able to say "stop".

A link sends in this order: resends; *express* packets (keystrokes, session acknowledgements); then *bulk*, in turn per
session, a quantum each (deficit round robin, Shreedhar and Varghese 1995, with the deficit in bytes). One bulk
transfer delays neither a keystroke nor another session by more than a quantum.

Nothing here grows without bound. A relay whose queue for one session is longer than `Link.target_bytes` asks the
neighbor that sends it to pause that session for just as long as the excess takes to drain; so the bottleneck is pushed
back, hop by hop, to the ingress, whose session then fills no more records, whose streams run out of room, whose splice
stops reading the application's socket. What still comes beyond `limit_bytes` is dropped and counted; the session
resends it.

Of a pause without a length in advance (stop until told to go on) we would need a round trip's worth of queue to keep
the link busy; a pause of the right length needs next to none.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

QUANTUM_BYTES: Final = 16 * 1500
"""A session's share per turn: about one record."""
EXPRESS_LIMIT_BYTES: Final = 1 << 20
"""Express packets beyond this are dropped: whoever sends so many is not sparse."""
EXPRESS_SHARE: Final = 0.25
"""At most this share of a batch is express while bulk waits, so that nobody gains by calling all traffic express."""


@attrs.define
class Flow:
    """The bulk packets of one session on one link."""

    key: bytes
    packets: deque[bytes] = attrs.Factory(deque)
    size_bytes: int = 0
    paused_until: float = 0.0
    deficit_bytes: int = 0
    waiting: bool = False


@attrs.define
class QueueCounters:
    """Packets that were dropped, by the queue that was full."""

    dropped_bulk: int = 0
    dropped_express: int = 0


class FairQueue:
    """The queues of one link. Sizes count packets' own bytes, not the link's overhead."""

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes``: the most that one session may have waiting here."""
        self.limit_bytes = limit_bytes
        self.counters = QueueCounters()
        self._flows: dict[bytes, Flow] = {}
        self._turns: deque[Flow] = deque()
        self._resends: deque[bytes] = deque()
        self._express: deque[bytes] = deque()
        self._express_bytes = 0
        self._bulk_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._resends or self._express or self._turns)

    @property
    def is_urgent(self) -> bool:
        """Tell whether something waits that is not worth delaying for a fuller batch."""
        return bool(self._resends or self._express)

    @property
    def size_bytes(self) -> int:
        """Return all bytes that wait, resends left out."""
        return self._bulk_bytes + self._express_bytes

    @property
    def bulk_bytes(self) -> int:
        """Return the bytes of bulk that wait."""
        return self._bulk_bytes

    @property
    def flows(self) -> int:
        """Return the number of sessions with bulk packets waiting."""
        return len(self._turns)

    def flow_bytes(self, key: bytes) -> int:
        """Return how many bytes of the session ``key`` wait."""
        flow = self._flows.get(key)
        return flow.size_bytes if flow else 0

    def put_resend(self, packet: bytes) -> None:
        """Queue a lost packet before all others."""
        self._resends.append(packet)

    def put_express(self, packets: list[bytes]) -> None:
        """Queue sparse traffic before all bulk."""
        for packet in packets:
            if self._express_bytes > EXPRESS_LIMIT_BYTES:
                self.counters.dropped_express += 1
            else:
                self._express.append(packet)
                self._express_bytes += len(packet)

    def put_bulk(self, key: bytes, packets: list[bytes]) -> int:
        """Queue packets of session ``key``; return how many bytes of it wait now."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key)
        size = sum(map(len, packets))
        if flow.size_bytes + size > self.limit_bytes:
            self.counters.dropped_bulk += len(packets)
            return flow.size_bytes
        flow.packets.extend(packets)
        flow.size_bytes += size
        self._bulk_bytes += size
        if not flow.waiting:
            flow.waiting = True
            self._turns.append(flow)
        return flow.size_bytes

    def pause(self, key: bytes, until: float) -> None:
        """Send nothing of session ``key`` before ``until``."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key)
        flow.paused_until = until

    def ready_at(self, now: float) -> float | None:
        """Return when there is something to send: ``now``, or the end of the shortest pause, or None."""
        if self._resends or self._express:
            return now
        if not self._turns:
            return None
        return max(now, min(flow.paused_until for flow in self._turns))

    def take(self, budget_bytes: int, bulk_budget_bytes: int, overhead_bytes: int, now: float) -> list[bytes]:
        """Take packets out, in the order in which they go, until their bytes reach ``budget_bytes``.

        Of bulk only up to ``bulk_budget_bytes``. Each packet is charged ``overhead_bytes`` more than its length. The
        last may exceed the budget: the pacer takes that back before the next.
        """
        taken: list[bytes] = []
        left = budget_bytes
        resends = self._resends
        while resends and left > 0:
            packet = resends.popleft()
            left -= len(packet) + overhead_bytes
            taken.append(packet)
        if self._express and left > 0:
            left = self._take_express(taken, left, overhead_bytes)
        left = min(left, bulk_budget_bytes)
        if self._turns and left > 0:
            self._take_bulk(taken, left, overhead_bytes, now)
        return taken

    def _take_express(self, taken: list[bytes], left: int, overhead_bytes: int) -> int:
        express = self._express
        floor = left - max(int(left * EXPRESS_SHARE), QUANTUM_BYTES) if self._turns else 0
        while express and left > floor and left > 0:
            packet = express.popleft()
            self._express_bytes -= len(packet)
            left -= len(packet) + overhead_bytes
            taken.append(packet)
        return left

    def _take_bulk(self, taken: list[bytes], left: int, overhead_bytes: int, now: float) -> None:
        turns = self._turns
        paused = 0
        while left > 0 and paused < len(turns):
            flow = turns[0]
            if flow.paused_until > now:
                turns.rotate(-1)
                paused += 1
                continue
            paused = 0
            if flow.deficit_bytes <= 0:
                flow.deficit_bytes += QUANTUM_BYTES
            left = self._take_turn(flow, taken, left, overhead_bytes)
            if not flow.packets:
                turns.popleft()
                flow.waiting = False
                flow.deficit_bytes = 0
                if flow.paused_until <= now:
                    del self._flows[flow.key]
            elif flow.deficit_bytes <= 0:
                turns.rotate(-1)

    def _take_turn(self, flow: Flow, taken: list[bytes], left: int, overhead_bytes: int) -> int:
        packets = flow.packets
        deficit = flow.deficit_bytes
        size = 0
        while packets and deficit > 0 and left > 0:
            packet = packets.popleft()
            length = len(packet)
            size += length
            deficit -= length
            left -= length + overhead_bytes
            taken.append(packet)
        flow.deficit_bytes = deficit
        flow.size_bytes -= size
        self._bulk_bytes -= size
        return left

    def drain(self) -> list[bytes]:
        """Empty the queue (the link is down) and return the packets that waited, for another way."""
        packets = [*self._resends, *self._express]
        for flow in self._turns:
            packets.extend(flow.packets)
        self._resends.clear()
        self._express.clear()
        self._turns.clear()
        self._flows.clear()
        self._express_bytes = self._bulk_bytes = 0
        return packets
