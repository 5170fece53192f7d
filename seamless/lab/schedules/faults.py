"""What faults are, and those of wires: what each does when it begins and when it ends, and what it hit.

A fault changes only what is its own: fields of the impairment of a wire, which it gives back as they were, or the life
of a node. Faults of one kind do not overlap on one wire or node (``seamless.lab.schedules.draw`` sees to that); those
of different kinds may. ``hits`` says how often a fault took effect, and ``must_hit`` whether it had to: a schedule
whose outage met no packet has tested nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Protocol

import attrs

from seamless.lab.schedules.conditions import LOSSY, Conditions
from seamless.lab.schedules.plan import NARROW, Schedule
from seamless.lab.simulated import Simulation

EXPECTED_HITS_MIN: Final = 30
"""A random fault that should hit so many packets and hits none is broken; one with fewer may be chance."""
SENDS_WITHIN: Final = 5
"""Hello intervals within which a running node sends on each of its wires, up or down."""


class FaultTarget(Protocol):
    """What faults act on."""

    schedule: Schedule
    net: Simulation
    conditions: Conditions
    noted: dict[Fault, Any]
    """What each fault notes of how it went."""

    def crash(self, name: str) -> None:
        """Crash a node and its applications."""
        ...

    def start(self, name: str) -> None:
        """Start a node again."""
        ...

    def stop(self, name: str) -> None:
        """Stop a node's process, and that of its applications."""
        ...

    def go_on(self, name: str, *, timers_first: bool) -> None:
        """Continue a node's process, and that of its applications."""
        ...


@attrs.frozen(eq=False)
class Fault:
    """Something that goes wrong ``at`` a time, for ``length`` seconds."""

    at: float
    length: float

    kind = "fault"

    def begin(self, target: FaultTarget) -> None:
        """Begin."""
        raise NotImplementedError

    def end(self, target: FaultTarget) -> None:
        """Let things be as they were."""
        raise NotImplementedError

    def hits(self, target: FaultTarget) -> int:
        """Return how often it took effect; to be asked after its end."""
        raise NotImplementedError

    def must_hit(self, target: FaultTarget) -> bool:
        """Return whether it had to take effect."""
        return True


@attrs.frozen(eq=False)
class OnWire(Fault):
    """A fault of one direction of a wire, or of both."""

    one: str
    other: str
    both_ways: bool

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """Return the (sender, receiver) of each direction that it befalls."""
        there = (self.one, self.other)
        return (there, there[::-1]) if self.both_ways else (there,)

    @property
    def where(self) -> str:
        """Return the wire in words."""
        return f"{self.one}{'-' if self.both_ways else '>'}{self.other}"

    def begin(self, target: FaultTarget) -> None:
        """Begin on every direction."""
        target.noted[self] = self._totals(target)
        for direction in self.directions:
            self.impair(target, direction)
        target.conditions.changed(target.net.now)

    def end(self, target: FaultTarget) -> None:
        """End on every direction."""
        for direction in self.directions:
            self.restore(target, direction)
        target.noted[self] = self._totals(target) - target.noted[self]
        target.conditions.changed(target.net.now)

    def impair(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Begin on one direction."""
        raise NotImplementedError

    def restore(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """End on one direction."""
        raise NotImplementedError

    def _totals(self, target: FaultTarget) -> Counter[str]:
        """Return the counters of its directions, added up."""
        totals: Counter[str] = Counter()
        for direction in self.directions:
            totals.update(attrs.asdict(target.net.counters(*direction)))
        return totals

    def counted(self, target: FaultTarget, *names: str) -> int:
        """Return by how much these counters grew while it lasted."""
        return sum(target.noted[self][name] for name in names)


@attrs.frozen(eq=False)
class Bad(OnWire):
    """Fault: a wire loses, duplicates, reorders and corrupts packets at random."""

    changes: dict[str, Any]
    """Fields of `Impairment`."""

    kind = "bad wire"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        changes = ", ".join(f"{name} {value:g}" for name, value in self.changes.items())
        return f"{self.where} for {self.length:.2f} s: {changes}"

    def impair(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Make it bad."""
        target.net.impair(*direction, **self.changes)
        target.conditions.lossy[direction] += self.changes.get("loss", 0.0) > LOSSY

    def restore(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Make it good."""
        good = next(wire.impairment for wire in target.schedule.wires if set(wire.ends) == set(direction))
        target.net.impair(*direction, **{name: getattr(good, name) for name in self.changes})
        target.conditions.lossy[direction] -= self.changes.get("loss", 0.0) > LOSSY

    def hits(self, target: FaultTarget) -> int:
        """Return how many packets fared badly."""
        return self.counted(target, "lost", "duplicated", "reordered", "corrupted")

    def must_hit(self, target: FaultTarget) -> bool:
        """Return whether enough packets came."""
        chance = max(self.changes.get(name, 0.0) for name in ("loss", "duplicate", "reorder", "corrupt"))
        expected = self.counted(target, "packets_in") * chance / self.changes.get("burst_packets", 1.0)
        return bool(expected > EXPECTED_HITS_MIN)


@attrs.frozen(eq=False)
class Outage(OnWire):
    """A wire carries nothing."""

    kind = "outage"

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.where} is cut for {self.length:.2f} s"

    def impair(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Cut it."""
        target.conditions.down[direction] += 1
        target.net.impair(*direction, down=True)

    def restore(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Mend it, unless another fault cuts it, too."""
        target.conditions.down[direction] -= 1
        target.net.impair(*direction, down=target.conditions.down[direction] > 0)

    def hits(self, target: FaultTarget) -> int:
        """Return how many packets were lost in it."""
        return self.counted(target, "outage")

    def must_hit(self, target: FaultTarget) -> bool:
        """Return whether a running node must have sent a hello into it."""
        return (
            not target.conditions.was_absent
            and self.length > SENDS_WITHIN * target.schedule.hello_interval
            and self.both_ways
        )


@attrs.frozen(eq=False)
class Shrink(OnWire):
    """A wire drops without a word what is longer than ``mtu_bytes``."""

    mtu_bytes: int

    kind = NARROW

    def __str__(self) -> str:
        """Return one line of a transcript."""
        return f"{self.where} carries only {self.mtu_bytes} bytes for {self.length:.2f} s"

    def impair(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Make it carry less."""
        target.net.impair(*direction, black_hole_bytes=self.mtu_bytes)

    def restore(self, target: FaultTarget, direction: tuple[str, str]) -> None:
        """Make it carry what it did."""
        good = next(wire.impairment for wire in target.schedule.wires if set(wire.ends) == set(direction))
        target.net.impair(*direction, black_hole_bytes=good.black_hole_bytes)

    def hits(self, target: FaultTarget) -> int:
        """Return how many packets were too long."""
        return self.counted(target, "black_holed")

    def must_hit(self, target: FaultTarget) -> bool:
        """Return False: perhaps nothing long was sent."""
        return False
