"""What waits to go out on a link: served fairly, bounded, and able to say "stop".

A link sends in this order: *express* packets (keystrokes, session acknowledgements, handshakes); resends; then
everything else, in turn per flow, a quantum each (deficit round robin, Shreedhar and Varghese 1995, with the deficit in
bytes). A flow is the packets from one source to one destination, express and bulk: its express packets go first when
its turn comes. One bulk transfer delays neither a keystroke nor another flow by more than a quantum.

Express goes before others within a budget only: while bulk or resends wait, a quarter of what the link sends, counted
over time (`EXPRESS_SHARE`), in turns of its own, flows that had none waiting first (`seamless.link.express`). What goes
that way is charged to the flow, and what is beyond waits for the flow's turn among the others. So a flow with much
express is served as bulk is, and calling all traffic express gains nothing: with n flows waiting each has at least
three quarters of an nth.

Nothing here grows without bound. A relay whose queue for one flow and class is longer than `Link.target_bytes` or
`Link.express_target_bytes` asks the neighbor that sends it to pause that class of the flow for just as long as the
excess takes to drain; so the bottleneck is pushed back, hop by hop, to the ingress, whose session then fills no more
records, whose streams run out of room, whose splice stops reading the application's socket. What still comes beyond
`limit_bytes` or `EXPRESS_LIMIT_BYTES` is dropped and counted; the session resends it.

Of a pause without a length in advance (stop until told to go on) we would need a round trip's worth of queue to keep
the link busy; a pause of the right length needs next to none.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from seamless.interfaces import counter
from seamless.link.express import EXPRESS_SHARE, ExpressTurns
from seamless.link.flow import Flow

QUANTUM_BYTES: Final = 16 * 1500
"""A flow's share per turn: about one record."""
EXPRESS_LIMIT_BYTES: Final = 256 << 10
"""Express packets of one flow beyond this are dropped: 130 ms of what one session sends as express at most."""


@attrs.define(slots=False)
class QueueCounters:
    """Packets that were dropped, by the queue that was full."""

    dropped_bulk: int = counter("Overlay packets dropped from a full queue", trouble="dropped from a full queue")
    dropped_express: int = counter(
        "Express overlay packets dropped from a full queue", trouble="dropped from a full queue"
    )


class FairQueue:
    """The queues of one link. Sizes count packets' own bytes, not the link's overhead."""

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes``: the most bulk that one flow may have waiting here."""
        self.limit_bytes = limit_bytes
        self.counters = QueueCounters()
        self._flows: dict[bytes, Flow] = {}
        self._turns: deque[Flow] = deque()
        self._resends: deque[tuple[bytes, int]] = deque()
        self.resends_at = 0
        """Where, in what `take` returned last, the packets begin that were lost before."""
        self.attempts: list[int] = []
        """How often each of those was lost."""
        self._express = ExpressTurns()
        self._express_bytes = 0
        self._bulk_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._bulk_bytes or self._express_bytes or self._resends)

    @property
    def is_urgent(self) -> bool:
        """Return whether something waits that is not worth delaying for a fuller batch."""
        return bool(self._resends) or (self._express_bytes > 0 and self._express.may_go(self._bulk_bytes > 0))

    @property
    def size_bytes(self) -> int:
        """Return all bytes that wait, resends left out."""
        return self._bulk_bytes + self._express_bytes

    @property
    def flows(self) -> int:
        """Return the number of flows with packets waiting."""
        return len(self._turns)

    def flow_bytes(self, key: bytes) -> int:
        """Return how many bytes of bulk of the flow ``key`` wait."""
        flow = self._flows.get(key)
        return flow.bulk_bytes if flow else 0

    def express_bytes(self, key: bytes) -> int:
        """Return how many bytes of express of the flow ``key`` wait."""
        flow = self._flows.get(key)
        return flow.express_bytes if flow else 0

    # In.

    def put_resend(self, packet: bytes, attempts: int = 1) -> None:
        """Queue a packet that was lost ``attempts`` times, before all bulk."""
        self._resends.append((packet, attempts))

    def put_express(self, key: bytes, packets: list[bytes]) -> int:
        """Queue express packets of the flow ``key``; return how many bytes of its express wait now."""
        flow = self._flow(key)
        queued = flow.express_bytes
        for packet in packets:
            if flow.express_bytes > EXPRESS_LIMIT_BYTES:
                self.counters.dropped_express += 1
            else:
                flow.express.append(packet)
                flow.express_bytes += len(packet)
        self._express_bytes += flow.express_bytes - queued
        self._wait(flow)
        self._express.put(flow)
        return flow.express_bytes

    def put_bulk(self, key: bytes, packets: list[bytes]) -> int:
        """Queue bulk packets of the flow ``key``; return how many bytes of its bulk wait now."""
        flow = self._flow(key)
        size = sum(map(len, packets))
        if flow.bulk_bytes + size > self.limit_bytes:
            self.counters.dropped_bulk += len(packets)
            return flow.bulk_bytes
        flow.bulk.extend(packets)
        flow.bulk_bytes += size
        self._bulk_bytes += size
        self._wait(flow)
        return flow.bulk_bytes

    def _flow(self, key: bytes) -> Flow:
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key)
        return flow

    def _wait(self, flow: Flow) -> None:
        if not flow.waiting:
            flow.waiting = True
            self._turns.append(flow)

    def pause_bulk(self, key: bytes, until: float) -> None:
        """Send no bulk of the flow ``key`` before ``until``."""
        self._flow(key).bulk_paused_until = until

    def pause_express(self, key: bytes, until: float) -> None:
        """Send no express of the flow ``key`` before ``until``."""
        flow = self._flow(key)
        flow.express_paused_until = until
        self._express.hold(flow)

    # Out.

    def express_resumes_at(self) -> float:
        """Return when the first pause of express ends, perhaps a time that has passed; infinity when none is paused."""
        return self._express.held_until()

    def ready_at(self) -> float | None:
        """Return when the first flow may send, perhaps a time that has passed; None when no flow has packets."""
        return min((flow.ready_at for flow in self._turns if flow), default=None)

    def take(self, budget_bytes: int, bulk_budget_bytes: int, overhead_bytes: int, now: float) -> list[bytes]:
        """Take packets out, in the order in which they go, until their bytes reach ``budget_bytes``.

        Of bulk, and of express beyond its share, only up to ``bulk_budget_bytes``. Each packet is charged
        ``overhead_bytes`` more than its length. The last may exceed the budget: the pacer takes that back before the
        next.
        """
        taken: list[bytes] = []
        left = budget_bytes
        if self._express_bytes and left > 0:
            left = self._take_express(taken, left, overhead_bytes, now)
        self.resends_at = len(taken)
        self.attempts = []
        resends = self._resends
        while resends and left > 0:
            packet, attempts = resends.popleft()
            left -= len(packet) + overhead_bytes
            taken.append(packet)
            self.attempts.append(attempts)
        spent = budget_bytes - left
        left = min(left, bulk_budget_bytes)
        if self._turns and left > 0:
            spent += left
            left = self._take_turns(taken, left, overhead_bytes, now)
            spent -= left
        self._express.earn(int(spent * EXPRESS_SHARE))
        return taken

    def _take_express(self, taken: list[bytes], left: int, overhead_bytes: int, now: float) -> int:
        express = self._express
        express.release(now)
        has_bulk = self._bulk_bytes > 0 or bool(self._resends)
        while left > 0 and (flow := express.next_flow(has_bulk)) is not None:
            before, waited = left, flow.express_bytes
            left = flow.take_express(taken, left, express.allowance(flow, left, has_bulk), overhead_bytes)
            self._express_bytes -= waited - flow.express_bytes
            express.spend(flow, before - left, has_bulk)
            flow.deficit_bytes = max(flow.deficit_bytes - (before - left), -QUANTUM_BYTES)
        return left

    def _take_turns(self, taken: list[bytes], left: int, overhead_bytes: int, now: float) -> int:
        turns = self._turns
        passed = 0
        while left > 0 and passed < len(turns):
            flow = turns[0]
            if not flow:
                self._leave(now)
                continue
            if flow.ready_at > now:
                turns.rotate(-1)
                passed += 1
                continue
            passed = 0
            if flow.deficit_bytes <= 0:
                flow.deficit_bytes += QUANTUM_BYTES
            if flow.deficit_bytes > 0:
                left = self._take_turn(flow, taken, left, overhead_bytes, now)
            if not flow:
                self._leave(now)
            elif flow.deficit_bytes <= 0:
                turns.rotate(-1)
        return left

    def _take_turn(self, flow: Flow, taken: list[bytes], left: int, overhead_bytes: int, now: float) -> int:
        before = left
        if flow.express and flow.express_paused_until <= now:
            waited = flow.express_bytes
            left = flow.take_express(taken, left, min(left, flow.deficit_bytes), overhead_bytes)
            self._express_bytes -= waited - flow.express_bytes
        allowance = min(left, flow.deficit_bytes - (before - left))
        if flow.bulk and flow.bulk_paused_until <= now and allowance > 0:
            waited = flow.bulk_bytes
            left = flow.take_bulk(taken, left, allowance, overhead_bytes)
            self._bulk_bytes -= waited - flow.bulk_bytes
        flow.deficit_bytes -= before - left
        return left

    def _leave(self, now: float) -> None:
        """Take the flow whose turn it is out of the turns: it has nothing more to send."""
        flow = self._turns.popleft()
        flow.waiting = False
        flow.deficit_bytes = 0
        if not flow.turn.is_waiting and flow.bulk_paused_until <= now and flow.express_paused_until <= now:
            del self._flows[flow.key]

    def drain(self) -> list[bytes]:
        """Empty the queue (the link is down) and return the packets that waited, for another way."""
        packets = [packet for packet, _ in self._resends]
        for flow in self._turns:
            packets.extend(flow.express)
        for flow in self._turns:
            packets.extend(flow.bulk)
        self._resends.clear()
        self._turns.clear()
        self._flows.clear()
        self._express = ExpressTurns()
        self._express_bytes = self._bulk_bytes = 0
        return packets
