"""The simulated bed with an observer on every wire, who records all, and sends what he likes from whatever address."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import attrs

from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.interfaces import Address, Event, LinkDown, LinkUp, StreamOpened, Transmit
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.status import LinkStatus
from seamless.node import NodeStatus
from seamless.test.lab.test_simulated import ETC, Applications, settle

__all__ = ["Applications", "Datagram", "TappedBed", "refusals", "starting_bed", "tapped_bed"]


@attrs.frozen
class Datagram:
    """One underlay datagram that passed the observer."""

    at: float
    source: Address
    destination: Address
    data: bytes

    @property
    def kind(self) -> int:
        """Return its datagram type."""
        return self.data[0]


class TappedBed(Simulation):
    """The bed; ``seen`` is what its wires were given."""

    def __init__(self, configuration: Configuration, seed: int) -> None:
        self.seen: list[Datagram] = []
        self.is_recording = True
        self._wanted = 0
        self._held: list[Datagram] = []
        super().__init__(configuration, private_key, Random(seed))

    def _transmit(self, transmit: Transmit) -> None:
        data = b"".join(transmit.buffers)
        size = transmit.segment_size
        for begin in range(0, len(data) if self.is_recording else 0, size):
            self.seen.append(Datagram(self.now, transmit.local, transmit.remote, data[begin : begin + size]))
        super()._transmit(transmit)

    def hold(self, kind: int) -> Datagram:
        """Let time pass until a datagram of this type is about to arrive; return it, and never deliver it."""
        self._wanted = kind
        self._held.clear()
        self.run(self.now + 10, lambda: bool(self._held))
        return self._held[0]

    def _arrive(self, transmit: Transmit, data: bytes, received_at: float | None = None) -> None:
        if data[0] == self._wanted and not self._held:
            self._held.append(Datagram(self.now, transmit.local, transmit.remote, data[: transmit.segment_size]))
        else:
            super()._arrive(transmit, data, received_at)

    def between(self, one: str, other: str) -> list[Datagram]:
        """Return what passed between two hosts, in both directions."""
        addresses = {self.configuration.nodes[name].addresses for name in (one, other)}
        ends = [{host for host, _ in group} for group in addresses]
        return [d for d in self.seen if any(d.source[0] in a and d.destination[0] in b for a in ends for b in ends)]

    def node_at(self, address: Address) -> str:
        """Return the name of the node that has this address."""
        return next(node.name for node in self.configuration.nodes.values() if address in node.addresses)

    def inject(self, datagram: Datagram, data: bytes | None = None) -> None:
        """Let a datagram, or other bytes in its place, arrive at its destination as from its source."""
        content = datagram.data if data is None else data

        def receive(node: Any, now: float) -> None:
            node.receive_datagrams(content, len(content), datagram.destination, datagram.source, now)

        if content:
            self.command(self.node_at(datagram.destination), receive)

    def status(self, name: str) -> NodeStatus:
        """Return a node's status now."""
        return self.node(name).status(self.now)

    def link(self, name: str, neighbor: str) -> LinkStatus:
        """Return the status of a node's link to a neighbor."""
        return next(link for link in self.status(name).links if link.neighbor == neighbor)

    def watch(self) -> list[LinkUp | LinkDown | StreamOpened]:
        """Return a list that grows with whatever an observer would like to bring about at any node."""
        changes: list[LinkUp | LinkDown | StreamOpened] = []
        for place in self.nodes.values():
            place.on_event = partial(_note, changes, place.on_event)
        return changes


def _note(changes: list[LinkUp | LinkDown | StreamOpened], then: Callable[[Event], None] | None, event: Event) -> None:
    if isinstance(event, (LinkUp, LinkDown, StreamOpened)):
        changes.append(event)
    if then is not None:
        then(event)


def refusals(status: NodeStatus) -> int:
    """Return how many datagrams a node has refused, whatever for."""
    links = sum(link.replayed + link.failed_authentication + link.malformed for link in status.links)
    counters = status.counters
    return (
        links
        + counters.unknown_index
        + counters.unknown_type
        + counters.short_datagrams
        + (counters.refused_handshakes + sum(status.gate.values()))
    )


def starting_bed(seed: int = 1) -> TappedBed:
    """Return the bed of etc/lab.conf without losses, with every node about to call its neighbors."""
    bed = TappedBed(load_file(ETC / "lab.conf"), seed)
    for one, other in (("src", "r1"), ("r1", "r2"), ("r2", "dst")):
        bed.impair(one, other, loss=0.0)
        bed.impair(other, one, loss=0.0)
    return bed


def tapped_bed(seed: int = 1) -> TappedBed:
    """Return the same bed with every link up."""
    bed = starting_bed(seed)
    settle(bed)
    return bed
