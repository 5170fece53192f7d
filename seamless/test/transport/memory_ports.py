"""Drivers in virtual time: whole nodes on Twisted's `Clock`, and ports in memory in the place of UDP sockets.

`DriverNetwork` steps the clock from one delayed call to the next, so that a timer fires at its own time and not at the
end of a long step. A port can be made full, as a socket is whose interface is stuck; the wires can be cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.task import Clock

from seamless.config.model import Configuration
from seamless.errors import SeamlessError
from seamless.interfaces import Address, StreamKey, Transmit
from seamless.lab.daemons import private_key
from seamless.node import Node
from seamless.transport.driver import Driver
from seamless.transport.udp import OnBatch
from seamless.transport.udp_counters import UdpCounters

LATENCY = 0.005


class MemoryPort:
    """A port whose batches go to the port of the other address after `LATENCY`."""

    def __init__(
        self,
        network: DriverNetwork,
        local: Address,
        on_batch: OnBatch,
        on_idle: Callable[[], None],
        on_writable: Callable[[], None],
    ) -> None:
        self.local = local
        self.offload = True
        self.counters = UdpCounters()
        self.sent_at: list[float] = []
        """When the owner gave us batches."""
        self.held: list[Transmit] = []
        self.is_open = False
        self._full = False
        self._network = network
        self._on_batch = on_batch
        self._on_idle = on_idle
        self._on_writable = on_writable

    @property
    def writable(self) -> bool:
        return not self.held

    def start(self) -> None:
        if self.local in self._network.taken:
            raise SeamlessError(f"cannot use {self.local}: another program has it")
        self._network.ports[self.local] = self
        self.is_open = True

    def stop(self) -> None:
        self.is_open = False

    def send(self, transmit: Transmit) -> bool:
        assert self.is_open, "sent by a closed port"
        self.sent_at.append(self._network.clock.seconds())
        if self._full:
            self.counters.batches_held += 1
            self.held.append(transmit)
        else:
            self._carry(transmit)
        return True

    def fill(self) -> None:
        """Take no batch any more, as a socket whose buffer is full."""
        self._full = True

    def drain(self) -> None:
        """Send what was held, and take batches again."""
        self._full = False
        held, self.held = self.held, []
        for transmit in held:
            self._carry(transmit)
        self._on_writable()

    def _carry(self, transmit: Transmit) -> None:
        self.counters.batches_out += 1
        self.counters.datagrams_out += transmit.count
        self._network.carry(transmit)

    def receive(self, transmit: Transmit, data: bytes) -> None:
        """Take what another port sent here."""
        if self.is_open:
            self.counters.batches_in += 1
            self.counters.datagrams_in += transmit.count
            self._on_batch(memoryview(data), transmit.segment_size, self.local, transmit.local, 0.0)
            self._on_idle()


class DriverNetwork:
    """The drivers of a configuration's nodes on one clock."""

    def __init__(self, configuration: Configuration, seed: int = 1) -> None:
        self.clock = Clock()
        self.ports: dict[Address, MemoryPort] = {}
        self.taken: set[Address] = set()
        """Addresses that cannot be bound."""
        self.is_cut = False
        self.turns = 0
        """How often the clock was stepped."""
        self._random = Random(seed)
        self.drivers = {name: self._driver(configuration, name) for name in configuration.nodes}

    def _driver(self, configuration: Configuration, name: str) -> Driver:
        node = Node(
            configuration,
            name,
            private_key(name),
            random=self._random.randbytes,
            incarnation=1_700_000_000_000_000_000,
            now=self.clock.seconds(),
        )
        return Driver(self.clock, node, self._make_port)

    def _make_port(self, _: Any, *arguments: Any) -> MemoryPort:
        return MemoryPort(self, *arguments)

    def carry(self, transmit: Transmit) -> None:
        """Bring a batch to its port."""
        there = self.ports.get(transmit.remote)
        if there is not None and not self.is_cut:
            self.clock.callLater(LATENCY, there.receive, transmit, b"".join(transmit.buffers))

    def timers_of(self, driver: Driver) -> list[float]:
        """Return when the timers for the node's deadlines fire."""
        calls: Sequence[Any] = self.clock.getDelayedCalls()
        return [call.getTime() for call in calls if call.func == driver._timed_out]

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, up to ``done()`` if that comes before."""
        until = self.clock.seconds() + seconds
        while not done():
            next_at = min((call.getTime() for call in self.clock.getDelayedCalls()), default=math.inf)
            if next_at > until:
                self.clock.advance(until - self.clock.seconds())
                return
            self.turns += 1
            self.clock.advance(max(0.0, next_at - self.clock.seconds()))


class Owner:
    """The owner of a stream: it reads all at once and notes what happens, in order."""

    stream: StreamKey

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.received = bytearray()
        self.happened: list[str] = []

    def _note(self, what: str) -> None:
        if self.happened[-1:] != [what]:
            self.happened.append(what)

    def stream_accepted(self) -> None:
        self._note("accepted")

    def stream_data(self, chunks: list[bytes]) -> None:
        self._note("data")
        self.received += b"".join(chunks)
        self.driver.consumed(self.stream, sum(map(len, chunks)))

    def stream_writable(self) -> None:
        self._note("writable")

    def stream_finished(self) -> None:
        self._note("finished")

    def stream_reset(self, code: int, reason: str) -> None:
        self._note(f"reset {code}")

    def stream_closed(self) -> None:
        self._note("closed")
