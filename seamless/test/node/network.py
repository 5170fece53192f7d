"""Whole nodes of different configurations on virtual time, and perfect wires between all their addresses.

`seamless.lab.simulated` runs the nodes of one configuration on wires like real ones. Here nodes need not agree on what
the network is: a node may be there twice.
"""

from __future__ import annotations

from itertools import count
from random import Random

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.interfaces import Address, Event, Transmit
from seamless.lab.agenda import Agenda
from seamless.lab.daemons import private_key
from seamless.node import Node

DELAY = 0.005
LATER = 1_000_000_000
"""Nanoseconds between two starts of processes."""


def overlay(*blocks: str) -> Configuration:
    """Return the configuration that consists of these blocks."""
    return load_text("\n".join(("overlay test { }", *blocks)), "test.conf")


def public_key(name: str) -> str:
    """Return the public key of a node, as a configuration has it."""
    return encode_public_key(public_key_of(private_key(name)))


def node(name: str, address: str) -> str:
    """Return a node's block."""
    return f'node {name} {{ address {address}; key "{public_key(name)}"; }}'


class Network:
    """The nodes that run, by their addresses."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self.events: list[tuple[Node, Event]] = []
        self._random = Random(1)
        self._at: dict[Address, Node] = {}
        self._count = count(1)

    @property
    def now(self) -> float:
        return self._agenda.now

    def start(self, configuration: Configuration, name: str) -> Node:
        """Start a node's process."""
        started = Node(
            configuration,
            name,
            private_key(name),
            random=self._random.randbytes,
            incarnation=1_700_000_000_000_000_000 + next(self._count) * LATER,
            now=self.now,
        )
        for address in started.config.addresses:
            self._at[address] = started
        return started

    def stop(self, stopped: Node) -> None:
        """Stop a node's process after it has sent CLOSE on its links."""
        stopped.close("the daemon is stopping")
        self._send(stopped)
        for address in stopped.config.addresses:
            del self._at[address]

    def run(self, seconds: float) -> None:
        """Let time go by."""
        until = self.now + seconds
        self._send_all()
        while self._agenda.step(until, [each.next_timeout() for each in self._at.values()]):
            for each in self._at.values():
                if each.next_timeout() <= self.now:
                    each.handle_timeout(self.now)
            self._send_all()

    def _send_all(self) -> None:
        for each in self._at.values():
            self._send(each)

    def _send(self, each: Node) -> None:
        for transmit in each.datagrams_to_send(self.now):
            self._agenda.at(self.now + DELAY, self._arrive, transmit, b"".join(transmit.buffers))
        while (event := each.next_event()) is not None:
            self.events.append((each, event))

    def _arrive(self, transmit: Transmit, data: bytes) -> None:
        there = self._at.get(transmit.remote)
        if there is not None:
            there.receive_datagrams(data, transmit.segment_size, transmit.remote, transmit.local, self.now)
