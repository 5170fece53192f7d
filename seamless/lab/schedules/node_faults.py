"""The faults of nodes: processes that stop or crash, relays that drop bulk, leaves that flood."""

from __future__ import annotations

from typing import Final

import attrs

from seamless.lab.schedules.faults import Bad, Bed, Fault, Outage
from seamless.lab.schedules.rogue import drop_bulk, flood

FLOOD_INTERVAL: Final = 0.01
"""Seconds between two bursts of a flood."""


@attrs.frozen(eq=False)
class Stop(Fault):
    """A node's process is stopped, and goes on later, as by SIGSTOP and SIGCONT."""

    node: str
    timers_first: bool
    """Whether its timers fire before it reads its sockets, once it goes on."""

    kind = "stopped process"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.node}'s process is stopped for {self.length:.2f} s"

    def begin(self, bed: Bed) -> None:
        """Stop it."""
        bed.conditions.absent[self.node] += 1
        bed.stop(self.node)
        bed.conditions.changed(bed.net.now)

    def end(self, bed: Bed) -> None:
        """Let it go on."""
        bed.conditions.absent[self.node] -= 1
        bed.go_on(self.node, timers_first=self.timers_first)
        bed.conditions.changed(bed.net.now)
        bed.noted[self] = 1

    def hits(self, bed: Bed) -> int:
        """Return 1: the process goes on only after it was stopped."""
        return int(bed.noted[self])


@attrs.frozen(eq=False)
class Restart(Fault):
    """A node crashes, and is started again."""

    node: str

    kind = "restart"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.node} crashes and is back after {self.length:.2f} s"

    def begin(self, bed: Bed) -> None:
        """Crash it."""
        bed.conditions.absent[self.node] += 1
        bed.crash(self.node)
        bed.conditions.changed(bed.net.now)

    def end(self, bed: Bed) -> None:
        """Start it."""
        bed.conditions.absent[self.node] -= 1
        bed.start(self.node)
        bed.conditions.changed(bed.net.now)
        bed.noted[self] = bed.net.nodes[self.node].incarnation - 1

    def hits(self, bed: Bed) -> int:
        """Return how many lives the node has had before."""
        return int(bed.noted[self])


@attrs.frozen(eq=False)
class DropBulk(Fault):
    """A relay forwards everything but bulk: handshakes, keystrokes and acknowledgements pass."""

    node: str

    kind = "relay that drops bulk"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.node} drops bulk for {self.length:.2f} s"

    def begin(self, bed: Bed) -> None:
        """Turn rogue."""
        bed.conditions.dropping[self.node] += 1
        bed.noted[self] = drop_bulk(bed.net.node(self.node))
        bed.conditions.changed(bed.net.now)

    def end(self, bed: Bed) -> None:
        """Forward again."""
        bed.conditions.dropping[self.node] -= 1
        bed.conditions.asking_rarely_until = bed.net.now + self.length
        bed.noted[self].restore()
        bed.conditions.changed(bed.net.now)

    def hits(self, bed: Bed) -> int:
        """Return how many packets it dropped."""
        return int(bed.noted[self].dropped)

    def must_hit(self, bed: Bed) -> bool:
        """Return False: perhaps no path led over it."""
        return False


@attrs.frozen(eq=False)
class Flood(Fault):
    """A node sends express packets in its own name, faster than its link takes them, and heeds no push-back."""

    node: str
    to: str
    rate_bps: float
    packet_bytes: int

    kind = "flood of express"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        rate = f"{self.rate_bps / 1e6:g} Mb/s of {self.packet_bytes} B"
        return f"{self.node} floods {self.to} with express for {self.length:.2f} s: {rate}"

    def begin(self, bed: Bed) -> None:
        """Send bursts until the end."""
        bed.noted[self] = 0
        count = max(1, round(self.rate_bps * FLOOD_INTERVAL / 8 / self.packet_bytes))
        for number in range(int(self.length / FLOOD_INTERVAL)):
            bed.net.at(bed.net.now + number * FLOOD_INTERVAL, self._burst, bed, count)

    def _burst(self, bed: Bed, count: int) -> None:
        place = bed.net.nodes[self.node]
        if place.node is not None and place.socket is None:
            bed.noted[self] += bed.net.command(
                self.node, lambda node, now: flood(node, self.to, self.packet_bytes, count)
            )

    def end(self, bed: Bed) -> None:
        """Nothing: the bursts have ended."""

    def hits(self, bed: Bed) -> int:
        """Return how many packets it sent."""
        return int(bed.noted[self])

    def must_hit(self, bed: Bed) -> bool:
        """Return whether the node ran, with a path, for some of the time."""
        return not bed.conditions.was_absent and not bed.schedule.kinds & {Outage.kind, Bad.kind}
