"""From a seed to a schedule: every number of it is drawn here.

A schedule is one of several *characters*, each of which stresses something else; the weights are such that a hundred
seeds have some of every kind. What is drawn is bounded so that a schedule takes about half a second of a processor:
little is sent over slow links, floods are on slow links only, and what lasts long is rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Final

from seamless.config.model import DEFAULT_MTU_BYTES, MINIMUM_MTU_BYTES
from seamless.interfaces import RESET_NOT_ALLOWED, RESET_REFUSED
from seamless.lab.schedules.faults import Bad, Fault, Outage, Shrink
from seamless.lab.schedules.node_faults import DropBulk, Flood, Restart, Stop
from seamless.lab.schedules.plan import ACCEPT, Conversation, Packets, Schedule, Script, Wire

STOP_MAX: Final = 20.0
"""Seconds for which a process may be stopped: less than ``give up``."""
MTUS: Final = (1280, 1300, 1380, 1400, 1420, 1450, 1492)
"""What wires carry that carry less than Ethernet: tunnels, clouds, PPPoE."""
LOSSES: Final = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4)
PACKET_HEAD_BYTES: Final = 8
SLOW_BPS: Final = 1_000_000
"""A flood fills a link of this rate with few packets."""
DROPPING_RELAYS: Final = 0.02
"""Share of relays that drop bulk. It takes 0.003 of them to meet some in a thousand schedules; in a hundred, more."""

KINDS: Final = (Bad, Outage, Shrink, Stop, Restart, DropBulk, Flood)
"""Every kind of fault."""

assert min(MTUS) >= MINIMUM_MTU_BYTES and max(MTUS) < DEFAULT_MTU_BYTES


def draw(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    return _Draw(seed).schedule()


class _Draw:
    """One schedule in the making."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"schedule {seed}")
        self.many_streams = self.chance(0.08)
        self.has_flood = not self.many_streams and self.chance(0.08)
        self.span = self.random.uniform(1.0, 6.0)
        """Seconds within which most of it begins."""
        self.shape, self.inner, edges = self._shape()
        self.nodes: tuple[str, ...] = self.inner
        self.leaves: frozenset[str] = frozenset()
        if self.has_flood:
            edges = [*edges, (self.random.choice(self.nodes[:-1]), "leaf")]
            self.nodes = (*self.nodes, "leaf")
            self.leaves = frozenset(("leaf",))
        self.rate_bps = SLOW_BPS if self.has_flood else self.random.choice((5, 20, 100, 500)) * 1_000_000
        self.wires = tuple(self._wire(ends) for ends in edges)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < probability

    def schedule(self) -> Schedule:
        """Return it."""
        pairs = self._pairs()
        conversations = tuple(self._conversations(pairs))
        packets = tuple(self._trains(pairs))
        return Schedule(
            seed=self.seed,
            shape=self.shape,
            nodes=self.nodes,
            leaves=self.leaves,
            wires=self.wires,
            hello_interval=self.random.choice((0.1, 0.1, 0.2)),
            faults=tuple(self._faults(pairs)),
            conversations=conversations,
            packets=packets,
        )

    # The network.

    def _shape(self) -> tuple[str, tuple[str, ...], list[tuple[str, str]]]:
        shape = self.random.choice(("chain", "chain", "ring", "diamond"))
        if shape == "diamond":
            return shape, ("a", "b", "c", "d"), [("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")]
        longest = 4 if self.many_streams or self.has_flood else 7 if shape == "chain" else 6
        count = self.random.randint(3, longest)
        nodes = tuple("abcdefg"[:count])
        edges = list(pairwise(nodes))
        return shape, nodes, edges if shape == "chain" else [*edges, (nodes[-1], nodes[0])]

    def _wire(self, ends: tuple[str, str]) -> Wire:
        choice = self.random.choice
        rate_bps = self.rate_bps * choice((1, 1, 2))
        return Wire(
            ends=ends,
            rate_bps=rate_bps,
            delay=choice((0.0005, 0.002, 0.005, 0.02, 0.04)),
            queue_bytes=choice((64 << 10, 256 << 10, 1 << 20)),
            congestion="cubic" if self.chance(0.3) else "off",
            mtu_bytes=choice(MTUS) if self.chance(0.04) else DEFAULT_MTU_BYTES,
        )

    def _pairs(self) -> list[tuple[str, str]]:
        """Return who talks with whom: the two that are farthest, and perhaps others."""
        last = self.inner[-1] if self.shape != "ring" else self.inner[len(self.inner) // 2]
        pairs = [(self.inner[0], last)]
        for _ in range(self.random.choice((0, 0, 1, 2))):
            one, other = self.random.sample(self.inner, 2)
            pairs.append((one, other))
        return pairs

    # What applications do.

    def _conversations(self, pairs: list[tuple[str, str]]) -> list[Conversation]:
        count = self.random.randint(100, 250) if self.many_streams else self.random.randint(1, 8)
        size_max = min(400_000, self.rate_bps // 8) if not self.many_streams else 6_000
        found = [self._conversation(number, self.random.choice(pairs), size_max) for number in range(count)]
        if self.has_flood:
            found.append(self._long_bulk(count, pairs[0]))
        return found

    def _conversation(self, number: int, pair: tuple[str, str], size_max: int) -> Conversation:
        client, server = pair if self.chance(0.8) else pair[::-1]
        answer = self.random.choice((RESET_REFUSED, RESET_NOT_ALLOWED)) if self.chance(0.08) else ACCEPT
        return Conversation(
            number=number,
            client=client,
            server=server,
            at=self.random.uniform(0.0, self.span),
            up=self._script(size_max),
            down=self._script(size_max),
            answer=answer,
            answer_delay=self.random.uniform(0.0, 0.5) if self.chance(0.2) else 0.0,
        )

    def _long_bulk(self, number: int, pair: tuple[str, str]) -> Conversation:
        """Return a transfer for a flood to harm: eight seconds of the slowest link."""
        bulk = Script(((0.0, SLOW_BPS),))
        return Conversation(number, *pair, self.span, bulk, Script(()))

    def _script(self, size_max: int) -> Script:
        random = self.random
        writes = [
            (random.expovariate(8.0) if self.chance(0.7) else 0.0, self._size(size_max))
            for _ in range(random.choice((0, 1, 1, 2, 4)))
        ]
        total = sum(nbytes for _, nbytes in writes)
        stops = total > 2000 and self.chance(0.1)
        return Script(
            writes=tuple(writes),
            resets_at_end=self.chance(0.1),
            ending_pause=random.uniform(0.0, 2.0) if self.chance(0.2) else 0.0,
            abort_after=random.uniform(0.0, 1.5) if self.chance(0.08) else None,
            read_delay=random.choice((0.001, 0.02, 0.2)) if self.chance(0.2) else 0.0,
            stop_at=random.randrange(total) if stops else None,
            stop_seconds=random.uniform(0.2, 3.0) if stops else 0.0,
        )

    def _size(self, size_max: int) -> int:
        """Return a number of bytes: small ones as often as large ones."""
        size = int(size_max ** self.random.uniform(0.1, 1.0))
        return max(1, size)

    def _trains(self, pairs: list[tuple[str, str]]) -> list[Packets]:
        if self.many_streams or not self.chance(0.5):
            return []
        source, destination = self.random.choice(pairs)
        return [
            Packets(
                number=0,
                source=source,
                destination=destination,
                at=self.random.uniform(0.0, self.span),
                count=self.random.choice((1, 20, 60)),
                interval=self.random.choice((0.001, 0.02, 0.05)),
                size_bytes=self.random.choice((PACKET_HEAD_BYTES, 64, 1400, 1500, 5000)),
                is_recovered=self.chance(0.7),
            )
        ]

    # What goes wrong.

    def _faults(self, pairs: list[tuple[str, str]]) -> list[Fault]:
        faults: list[Fault] = []
        if self.chance(0.7):
            faults += self._bad_wires()
        if self.chance(0.3):
            faults += self._outages()
        if self.chance(0.15):
            faults += self._flapping()
        if self.chance(0.2):
            faults.append(self._shrinking())
        faults += self._on_nodes(pairs)
        if self.has_flood:
            faults.append(Flood(self.span, 8.0, "leaf", pairs[0][1], 1.5 * SLOW_BPS, self.random.choice((500, 1000))))
        return faults

    def _at(self) -> float:
        """Return when a fault begins: some from the start, before links are up."""
        return 0.0 if self.chance(0.2) else self.random.uniform(0.0, self.span)

    def _bad_wires(self) -> list[Fault]:
        wires = self.random.sample(self.wires, self.random.randint(1, len(self.wires)))
        worst = self.random.choice(LOSSES)
        others = worst if self.chance(0.1) else min(worst, 0.1)
        length = self.random.uniform(1.0, 8.0)
        return [self._bad(wire, worst if index == 0 else others, length) for index, wire in enumerate(wires)]

    def _bad(self, wire: Wire, worst: float, length: float) -> Fault:
        choice = self.random.choice
        changes = {}
        if self.chance(0.8):
            changes["loss"] = choice([loss for loss in LOSSES if loss <= worst])
            changes["burst_packets"] = choice((1.0, 1.0, 4.0))
        if self.chance(0.3):
            changes["duplicate"] = choice((0.01, 0.1))
        if self.chance(0.3):
            changes["corrupt"] = choice((0.001, 0.01))
        if self.chance(0.3) or not changes:
            changes["reorder"] = choice((0.01, 0.1, 0.3))
            changes["reorder_delay"] = choice((0.001, 0.01, 0.05))
        one, other = wire.ends if self.chance(0.5) else wire.ends[::-1]
        return Bad(self._at(), length, one, other, self.chance(0.7), changes)

    def _outages(self) -> list[Fault]:
        """Return outages, one-way or not, of which one in thirty lasts for longer than ``give up``."""
        found: list[Fault] = []
        for wire in self.random.sample(self.wires, self.random.choice((1, 1, 2))):
            one, other = wire.ends if self.chance(0.5) else wire.ends[::-1]
            length = self.random.choice((0.05, 0.25, 0.4, 1.0, 3.0)) * self.random.uniform(0.8, 1.2)
            if self.chance(0.03):
                length = self.random.uniform(32.0, 40.0)
            found.append(Outage(self._at(), length, one, other, self.chance(0.5)))
        return found

    def _flapping(self) -> list[Fault]:
        """Return the outages of a wire that comes and goes."""
        one, other = self.random.choice(self.wires).ends
        period = self.random.choice((0.1, 0.5, 1.0, 2.0))
        begin = self._at()
        both_ways = self.chance(0.7)
        return [
            Outage(begin + number * period, period / 2, one, other, both_ways)
            for number in range(self.random.randint(3, 6))
        ]

    def _shrinking(self) -> Fault:
        one, other = self.random.choice(self.wires).ends
        length = self.random.uniform(2.0, 12.0)
        return Shrink(self._at(), length, one, other, True, self.random.choice(MTUS))

    def _on_nodes(self, pairs: list[tuple[str, str]]) -> list[Fault]:
        """Return at most one fault of each of two nodes, so that no node is stopped while it is crashed."""
        faults: list[Fault] = []
        relays = self._relays(pairs)
        victims = self.random.sample(self.inner, 2)
        if self.chance(0.18):
            length = self.random.choice((0.1, 0.5, 1.0, 3.0, 8.0, STOP_MAX)) * self.random.uniform(0.7, 1.0)
            faults.append(Stop(self._at(), length, victims[0], self.chance(0.3)))
        if self.chance(0.18):
            faults.append(Restart(self._at(), self.random.choice((0.0, 0.1, 0.5, 2.0, 5.0)), victims[1]))
        if not faults:
            faults += [self._dropping(relay) for relay in relays if self.chance(DROPPING_RELAYS)]
        return faults

    def _dropping(self, relay: str) -> Fault:
        length = self.random.choice((10.0, 20.0, 44.0))
        return DropBulk(self._at(), length, relay)

    def _relays(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        talkers = {name for pair in pairs for name in pair}
        return [name for name in self.inner if name not in talkers]
