"""The packets from one source to one destination that wait on a link, express and bulk, and what is owed to them."""

from __future__ import annotations

from collections import deque

import attrs

from seamless.delivery.round_robin import Turn


@attrs.define(eq=False)
class Flow:
    """One flow on one link. It is true while packets of it wait."""

    key: bytes
    express: deque[bytes] = attrs.Factory(deque)
    bulk: deque[bytes] = attrs.Factory(deque)
    express_bytes: int = 0
    bulk_bytes: int = 0
    express_paused_until: float = 0.0
    bulk_paused_until: float = 0.0
    deficit_bytes: int = 0
    """What the flow may still send in its turn, with the link's overhead; below 0 when it has sent express before."""
    waiting: bool = False
    """Whether it is among the turns of its link."""
    turn: Turn = attrs.Factory(Turn)
    """Its turns among those with express packets (`ExpressTurns`), or of a flow held there."""

    def __bool__(self) -> bool:
        return bool(self.express or self.bulk)

    @property
    def ready_at(self) -> float:
        """Return when something of it may go, by its pauses; only for a flow with packets."""
        if not self.express:
            return self.bulk_paused_until
        if not self.bulk:
            return self.express_paused_until
        return min(self.express_paused_until, self.bulk_paused_until)

    def take_express(self, taken: list[bytes], left: int, allowance: int, overhead_bytes: int) -> int:
        """Take express packets until their bytes reach ``allowance``; return what is then left of ``left``."""
        spent, length = _take(self.express, taken, allowance, overhead_bytes)
        self.express_bytes -= length
        return left - spent

    def take_bulk(self, taken: list[bytes], left: int, allowance: int, overhead_bytes: int) -> int:
        """Take bulk packets until their bytes reach ``allowance``; return what is then left of ``left``."""
        spent, length = _take(self.bulk, taken, allowance, overhead_bytes)
        self.bulk_bytes -= length
        return left - spent


def _take(packets: deque[bytes], taken: list[bytes], allowance: int, overhead_bytes: int) -> tuple[int, int]:
    """Return the bytes taken, with and without the link's overhead."""
    spent = count = 0
    while packets and spent < allowance:
        packet = packets.popleft()
        spent += len(packet) + overhead_bytes
        count += 1
        taken.append(packet)
    return spent, spent - count * overhead_bytes
