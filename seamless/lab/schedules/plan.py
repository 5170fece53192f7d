"""What a schedule holds: a network, faults with their times, and what applications do. Plain frozen values.

Times are seconds of virtual time, rates bits per second, sizes bytes, probabilities 0 to 1. Nothing here draws a
number; ``seamless.lab.schedules.draw`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

import attrs

from seamless.config.model import (
    DEFAULT_MTU_BYTES,
    DEFAULT_PORT,
    Configuration,
    Impairment,
    Interface,
    LinkConfig,
    NodeConfig,
    Overlay,
    WireConfig,
)
from seamless.crypto.keys import public_key_of
from seamless.interfaces import RESET_BY_APPLICATION, RESET_NOT_ALLOWED, RESET_REFUSED
from seamless.lab.daemons import private_key

if TYPE_CHECKING:
    from seamless.lab.schedules.faults import Fault

ACCEPT: Final = -1
"""What a server answers to an open: this, or the code of a reset."""
ANSWERS: Final = {ACCEPT: "accept", RESET_REFUSED: "refuse", RESET_NOT_ALLOWED: "not allowed"}
NARROW: Final = "smaller MTU"
"""The kind of fault that makes wires carry less than links say."""
APPLICATION_CODES: Final = frozenset((RESET_BY_APPLICATION, RESET_REFUSED, RESET_NOT_ALLOWED))


@attrs.frozen
class Wire:
    """A wire between two hosts and the link on it. ``mtu_bytes`` is what the wire carries; the link says 1500."""

    ends: tuple[str, str]
    rate_bps: int
    delay: float
    queue_bytes: int
    congestion: str
    mtu_bytes: int = DEFAULT_MTU_BYTES

    @property
    def impairment(self) -> Impairment:
        """Return what the wire does to packets while no fault is upon it."""
        return Impairment(
            delay=self.delay,
            rate_bps=self.rate_bps,
            queue_bytes=self.queue_bytes,
            black_hole_bytes=self.mtu_bytes if self.mtu_bytes < DEFAULT_MTU_BYTES else None,
        )

    def __str__(self) -> str:
        """Return one line of a transcript."""
        one, other = self.ends
        mtu = f", mtu {self.mtu_bytes}" if self.mtu_bytes < DEFAULT_MTU_BYTES else ""
        return (
            f"{one}-{other}: {self.rate_bps / 1e6:g} Mb/s {self.congestion}, {self.delay * 1e3:g} ms, "
            f"queue {self.queue_bytes >> 10} KiB{mtu}"
        )


@attrs.frozen
class Script:
    """What an application does at one end of a stream: pairs of (pause before, bytes to write), then FIN or a reset.

    What it reads it gives back after ``read_delay``; after ``stop_at`` bytes it does not read for ``stop_seconds``.
    """

    writes: tuple[tuple[float, int], ...]
    resets_at_end: bool = False
    ending_pause: float = 0.0
    abort_after: float | None = None
    read_delay: float = 0.0
    stop_at: int | None = None
    stop_seconds: float = 0.0

    @property
    def size(self) -> int:
        """Return how many bytes it writes at most."""
        return sum(nbytes for _, nbytes in self.writes)

    def __str__(self) -> str:
        """Return part of a line of a transcript."""
        pauses = sum(pause for pause, _ in self.writes) + self.ending_pause
        words = [f"{self.size} B in {len(self.writes)} writes over {pauses:.2f} s"]
        words.append("reset" if self.resets_at_end else "FIN")
        if self.abort_after is not None:
            words.append(f"abort after {self.abort_after:.3f} s")
        if self.read_delay:
            words.append(f"reads {self.read_delay * 1e3:.0f} ms late")
        if self.stop_at is not None:
            words.append(f"stops reading at {self.stop_at} B for {self.stop_seconds:.1f} s")
        return ", ".join(words)


@attrs.frozen
class Conversation:
    """A stream: who opens it to whom and when, what the server answers, and the scripts of both ends."""

    number: int
    client: str
    server: str
    at: float
    up: Script
    down: Script
    answer: int = ACCEPT
    answer_delay: float = 0.0

    @property
    def target(self) -> bytes:
        """Return the target of the open; no two conversations of a schedule have the same."""
        return b"conversation %d" % self.number

    def __str__(self) -> str:
        """Return one line of a transcript."""
        late = f" after {self.answer_delay:.2f} s" if self.answer_delay else ""
        return (
            f"stream {self.number} {self.client}>{self.server}: {self.up}; {ANSWERS[self.answer]}{late}; "
            f"back: {self.down}"
        )


@attrs.frozen
class Packets:
    """A number of whole packets, sent at equal intervals from one node to another."""

    number: int
    source: str
    destination: str
    at: float
    count: int
    interval: float
    size_bytes: int
    is_recovered: bool

    def __str__(self) -> str:
        """Return one line of a transcript."""
        kind = "recovered" if self.is_recovered else "unrecovered"
        return (
            f"{self.count} {kind} packets of {self.size_bytes} B {self.source}>{self.destination} "
            f"every {self.interval * 1e3:g} ms"
        )


@attrs.frozen
class Schedule:
    """All that a seed draws."""

    seed: int
    shape: str
    nodes: tuple[str, ...]
    leaves: frozenset[str]
    wires: tuple[Wire, ...]
    hello_interval: float
    faults: tuple[Fault, ...]
    conversations: tuple[Conversation, ...]
    packets: tuple[Packets, ...]

    @property
    def pairs(self) -> frozenset[frozenset[str]]:
        """Return the pairs of nodes that have a conversation or send packets to each other."""
        talks = {frozenset((each.client, each.server)) for each in self.conversations}
        return frozenset(talks | {frozenset((each.source, each.destination)) for each in self.packets})

    @property
    def kinds(self) -> frozenset[str]:
        """Return the kinds of faults in the schedule, as words."""
        narrow = any(wire.mtu_bytes < DEFAULT_MTU_BYTES for wire in self.wires)
        return frozenset(fault.kind for fault in self.faults) | ({NARROW} if narrow else frozenset())

    @property
    def faults_over_at(self) -> float:
        """Return the virtual time, in seconds, at which the last fault has ended."""
        return max((fault.at + fault.length for fault in self.faults), default=0.0)

    def lines(self, streams: int | None = None) -> Iterator[str]:
        """Yield the transcript of the schedule: the network, and then what is to happen, in order of time.

        Of more than ``streams`` streams only the first so many are in it.
        """
        yield f"seed {self.seed}: {self.shape} of {len(self.nodes)} nodes, hello {self.hello_interval * 1e3:.0f} ms"
        if self.leaves:
            yield f"  leaves: {', '.join(sorted(self.leaves))}"
        for wire in self.wires:
            yield f"  {wire}"
        conversations = sorted(self.conversations, key=lambda each: each.at)
        timed = [(fault.at, str(fault)) for fault in self.faults]
        timed += [(each.at, str(each)) for each in conversations[:streams]]
        timed += [(train.at, str(train)) for train in self.packets]
        for at, line in sorted(timed):
            yield f"  {at:8.3f}  {line}"
        if streams is not None and len(conversations) > streams:
            yield f"            and {len(conversations) - streams} more streams"

    def without(self, kinds: frozenset[str]) -> Schedule:
        """Return the schedule without faults of these kinds; wires that carry little count as such a fault, too."""
        wires = self.wires
        if NARROW in kinds:
            wires = tuple(attrs.evolve(wire, mtu_bytes=DEFAULT_MTU_BYTES) for wire in wires)
        return attrs.evolve(self, wires=wires, faults=tuple(fault for fault in self.faults if fault.kind not in kinds))

    def configuration(self) -> Configuration:
        """Return the configuration of its overlay and of the lab below it."""
        addresses = {
            wire.ends: (ip_interface(f"10.0.{number}.1/30"), ip_interface(f"10.0.{number}.2/30"))
            for number, wire in enumerate(self.wires)
        }
        dead_interval = 3 * self.hello_interval
        return Configuration(
            overlay=Overlay("schedule", hello_interval=self.hello_interval, dead_interval=dead_interval),
            nodes={name: self._node(name, addresses) for name in self.nodes},
            links=tuple(_link(wire, addresses[wire.ends]) for wire in self.wires),
            wires=tuple(
                WireConfig(wire.ends, addresses[wire.ends], forward=wire.impairment, backward=wire.impairment)
                for wire in self.wires
            ),
        )

    def _node(self, name: str, addresses: dict[tuple[str, str], tuple[Interface, Interface]]) -> NodeConfig:
        own = [pair[ends.index(name)] for ends, pair in addresses.items() if name in ends]
        public_key = public_key_of(private_key(name))
        listens = tuple((str(interface.ip), DEFAULT_PORT) for interface in own)
        return NodeConfig(name, listens, (), public_key, leaf=name in self.leaves)


def _link(wire: Wire, addresses: tuple[Interface, Interface]) -> LinkConfig:
    """Return the link on a wire; one whose congestion control finds the rate is not told it."""
    one, other = ((str(interface.ip), DEFAULT_PORT) for interface in addresses)
    rate_bps = wire.rate_bps if wire.congestion == "off" else None
    return LinkConfig(wire.ends, ((one, other),), rate_bps=rate_bps, congestion=wire.congestion)
