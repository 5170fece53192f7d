"""The faults of nodes: processes that stop or crash, relays that drop bulk, leaves that flood."""

from __future__ import annotations

from typing import Final

import attrs

from seamless.lab.schedules.faults import Bad, Fault, FaultTarget, Outage
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

    def begin(self, target: FaultTarget) -> None:
        """Stop it."""
        target.conditions.absent[self.node] += 1
        target.stop(self.node)
        target.conditions.changed(target.net.now)

    def end(self, target: FaultTarget) -> None:
        """Let it go on."""
        target.conditions.absent[self.node] -= 1
        target.go_on(self.node, timers_first=self.timers_first)
        target.conditions.changed(target.net.now)
        target.noted[self] = 1

    def hits(self, target: FaultTarget) -> int:
        """Return 1: the process goes on only after it was stopped."""
        return int(target.noted.get(self, 0))


@attrs.frozen(eq=False)
class Restart(Fault):
    """A node crashes, and is started again."""

    node: str

    kind = "restart"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.node} crashes and is back after {self.length:.2f} s"

    def begin(self, target: FaultTarget) -> None:
        """Crash it."""
        target.conditions.absent[self.node] += 1
        target.crash(self.node)
        target.conditions.changed(target.net.now)

    def end(self, target: FaultTarget) -> None:
        """Start it."""
        target.conditions.absent[self.node] -= 1
        target.start(self.node)
        target.conditions.changed(target.net.now)
        target.noted[self] = target.net.nodes[self.node].incarnation - 1

    def hits(self, target: FaultTarget) -> int:
        """Return how many lives the node has had before."""
        return int(target.noted.get(self, 0))


@attrs.frozen(eq=False)
class DropBulk(Fault):
    """A relay forwards everything but bulk: handshakes, keystrokes and acknowledgements pass."""

    node: str

    kind = "relay that drops bulk"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.node} drops bulk for {self.length:.2f} s"

    def begin(self, target: FaultTarget) -> None:
        """Turn rogue."""
        target.conditions.dropping[self.node] += 1
        target.noted[self] = drop_bulk(target.net.node(self.node))
        target.conditions.changed(target.net.now)

    def end(self, target: FaultTarget) -> None:
        """Forward again."""
        target.conditions.dropping[self.node] -= 1
        target.conditions.asking_rarely_until = target.net.now + self.length
        target.noted[self].restore()
        target.conditions.changed(target.net.now)

    def hits(self, target: FaultTarget) -> int:
        """Return how many packets it dropped."""
        return int(target.noted[self].dropped)

    def must_hit(self, target: FaultTarget) -> bool:
        """Return False: perhaps no path led over it."""
        return False


@attrs.frozen(eq=False)
class Flood(Fault):
    """Fault: a node sends express packets of its own faster than its link takes them, and ignores PAUSE frames."""

    node: str
    to: str
    rate_bps: float
    packet_bytes: int

    kind = "flood of express"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        rate = f"{self.rate_bps / 1e6:g} Mb/s of {self.packet_bytes} B"
        return f"{self.node} floods {self.to} with express for {self.length:.2f} s: {rate}"

    def begin(self, target: FaultTarget) -> None:
        """Send bursts until the end."""
        target.noted[self] = 0
        count = max(1, round(self.rate_bps * FLOOD_INTERVAL / 8 / self.packet_bytes))
        for number in range(int(self.length / FLOOD_INTERVAL)):
            target.net.at(target.net.now + number * FLOOD_INTERVAL, self._burst, target, count)

    def _burst(self, target: FaultTarget, count: int) -> None:
        place = target.net.nodes[self.node]
        if place.node is not None and place.socket is None:
            target.noted[self] += target.net.command(
                self.node, lambda node, now: flood(node, self.to, self.packet_bytes, count, now)
            )

    def end(self, target: FaultTarget) -> None:
        """Do nothing: the bursts have ended."""

    def hits(self, target: FaultTarget) -> int:
        """Return how many packets the flood sent."""
        return int(target.noted.get(self, 0))

    def must_hit(self, target: FaultTarget) -> bool:
        """Return whether the node ran, with a path, for some of the time."""
        return not target.conditions.was_absent and not target.schedule.kinds & {Outage.kind, Bad.kind}
