"""The express packets that go before bulk: fair queueing by flow, within a share of the link that holds over time.

Flows take turns as `seamless.delivery.round_robin` says: one that had no express waiting comes first, for a quantum.

The share is a token bucket in bytes, filled with a part of all that the link sends. It is charged only while bulk
waits, so it is full when bulk begins. The lower half of it is for new flows: a flow that has much express uses up the
upper half, and a keystroke of another still goes at once.

A flow that the neighbor has paused is held aside, so that it does not make the link look urgent.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Final

from seamless.delivery.round_robin import RoundRobin
from seamless.link.flow import Flow

EXPRESS_SHARE: Final = 0.25
"""The part of what a link sends that may be express before bulk, while bulk waits."""
EXPRESS_BURST_BYTES: Final = 32 << 10
"""How much express may go at once before bulk that waits: 26 ms at 10 Mb/s, half a millisecond at 500 Mb/s."""
NEW_FLOWS_BYTES: Final = EXPRESS_BURST_BYTES // 2
"""What is kept of it for flows that had no express waiting."""
EXPRESS_QUANTUM_BYTES: Final = 3000
"""A flow's turn: two full packets, or an acknowledgement with some windows and keystrokes."""


class ExpressTurns:
    """The flows of one link that have, or just had, express packets waiting."""

    def __init__(self) -> None:
        self._turns: RoundRobin[Flow] = RoundRobin(EXPRESS_QUANTUM_BYTES, attrgetter("express"))
        self._held: list[Flow] = []
        self._credit_bytes = EXPRESS_BURST_BYTES

    def put(self, flow: Flow) -> None:
        """Take note that ``flow`` has express packets."""
        self._turns.join(flow)

    def hold(self, flow: Flow) -> None:
        """Hold ``flow`` aside until its pause is over."""
        if not flow.turn.is_waiting:
            flow.turn.is_waiting = True
            self._held.append(flow)
        elif self._turns.remove(flow):
            self._held.append(flow)

    def release(self, now: float) -> None:
        """Put the flows whose pause is over back."""
        if self._held:
            ready = [flow for flow in self._held if flow.express_paused_until <= now]
            for flow in ready:
                self._turns.rejoin(flow)
            self._held = [flow for flow in self._held if flow.express_paused_until > now]

    def held_until(self) -> float:
        """Return the time at which the first pause of a flow with packets ends; infinity when there is none."""
        return min((flow.express_paused_until for flow in self._held if flow.express), default=math.inf)

    def _served(self, has_bulk: bool) -> tuple[bool, bool]:
        """Return whether the share allows anything to new flows, and to the others."""
        return not has_bulk or self._credit_bytes > 0, not has_bulk or self._credit_bytes > NEW_FLOWS_BYTES

    def may_go(self, has_bulk: bool) -> bool:
        """Return whether a flow is next; it may turn out to be empty. ``has_bulk``: bulk waits on the link."""
        return self._turns.may_go(*self._served(has_bulk))

    def next_flow(self, has_bulk: bool) -> Flow | None:
        """Return the flow with express packets whose turn it is; None when there is none, or the share is used up."""
        return self._turns.head(*self._served(has_bulk))

    def allowance(self, flow: Flow, left: int, has_bulk: bool) -> int:
        """Return how many bytes ``flow``, which is next, may send now, of ``left``."""
        allowed = min(left, flow.turn.deficit_bytes)
        if not has_bulk:
            return allowed
        return min(allowed, self._credit_bytes - (0 if self._turns.is_new(flow) else NEW_FLOWS_BYTES))

    def spend(self, flow: Flow, nbytes: int, has_bulk: bool) -> None:
        """Take note that ``flow`` has sent so much."""
        flow.turn.deficit_bytes -= nbytes
        if has_bulk:
            self._credit_bytes -= nbytes

    def earn(self, nbytes: int) -> None:
        """Take note of the share of what the link has sent."""
        self._credit_bytes = min(EXPRESS_BURST_BYTES, self._credit_bytes + nbytes)
