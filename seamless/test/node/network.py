"""Whole nodes of different configurations on virtual time, and perfect wires between all their addresses.

`seamless.lab.simulated` runs the nodes of one configuration on wires like real ones. Here nodes need not agree on what
the network is: a node may be there twice.
"""

from __future__ import annotations

import heapq
from itertools import count
from random import Random

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.interfaces import Address, Event
from seamless.lab.nodes import private_key
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
        self.now = 0.0
        self.events: list[tuple[Node, Event]] = []
        self._random = Random(1)
        self._at: dict[Address, Node] = {}
        self._queue: list[tuple[float, int, Address, Address, int, bytes]] = []
        self._count = count(1)

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
        """Stop a node's process, with a goodbye."""
        stopped.close("the daemon is stopping")
        self._send(stopped)
        for address in stopped.config.addresses:
            del self._at[address]

    def run(self, seconds: float) -> None:
        """Let time go by."""
        until = self.now + seconds
        while True:
            for each in self._at.values():
                self._send(each)
            times = [each.next_timeout() for each in self._at.values()]
            times += [self._queue[0][0]] if self._queue else []
            if min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            self._arrive()
            for each in self._at.values():
                if each.next_timeout() <= self.now:
                    each.handle_timeout(self.now)

    def _send(self, each: Node) -> None:
        for transmit in each.datagrams_to_send(self.now):
            data = b"".join(transmit.buffers)
            entry = (self.now + DELAY, next(self._count), transmit.local, transmit.remote, transmit.segment_size, data)
            heapq.heappush(self._queue, entry)
        while (event := each.next_event()) is not None:
            self.events.append((each, event))

    def _arrive(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            _, _, source, destination, segment_size, data = heapq.heappop(self._queue)
            there = self._at.get(destination)
            if there is not None:
                there.receive_datagrams(data, segment_size, destination, source, self.now)
