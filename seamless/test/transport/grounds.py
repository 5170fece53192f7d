"""Two nodes for tests that must hold on the in-memory double and on real nodes alike."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from itertools import count
from typing import Any, Protocol

from twisted.internet import reactor, task

from seamless.config.model import Configuration, LinkConfig, NodeConfig, Overlay
from seamless.crypto.keys import public_key_of
from seamless.service import NodeService
from seamless.testing import MemoryDriver, MemoryOverlay
from seamless.tools.keys import generate_private_key
from seamless.transport.driver import Driver
from seamless.transport.streams import StreamDriver

ADDRESSES_OF_A_PROCESS = 64
LATENCY = 0.002
GIVE_UP = 1.0
"""Seconds that real nodes wait for each other before they reset their streams, so that a test need not wait long."""


_numbers = count()


class Ground(Protocol):
    """Nodes ``src`` and ``dst``, joined by one link."""

    @property
    def src(self) -> StreamDriver:
        """Return one driver."""
        ...

    @property
    def dst(self) -> StreamDriver:
        """Return the other."""
        ...

    async def start(self) -> None:
        """Return when each reaches the other."""

    def cut(self) -> None:
        """Part them for good."""

    async def stop(self) -> None:
        """Leave nothing behind."""

    def settled(self) -> bool:
        """Tell whether no stream is left, nor anything on its way."""


class MemoryGround:
    """The double of `seamless.testing`."""

    def __init__(self) -> None:
        self.overlay = MemoryOverlay(reactor, LATENCY)
        self.src: MemoryDriver = self.overlay.driver("src")
        self.dst: MemoryDriver = self.overlay.driver("dst")

    async def start(self) -> None:
        """Be there at once."""

    def cut(self) -> None:
        self.overlay.cut("src", "dst")

    async def stop(self) -> None:
        while self.overlay.in_flight:
            await task.deferLater(reactor, LATENCY)

    def settled(self) -> bool:
        return self.src.open_streams == self.dst.open_streams == self.overlay.in_flight == 0


class NodeGround:
    """Real nodes, sealed UDP over loopback."""

    def __init__(self) -> None:
        keys = {"src": generate_private_key(), "dst": generate_private_key()}
        nodes = {name: NodeConfig(name, (own_address(),), (), public_key_of(key)) for name, key in keys.items()}
        path = (nodes["src"].addresses[0], nodes["dst"].addresses[0])
        link = LinkConfig(("src", "dst"), (path,), rate_bps=1_000_000_000, congestion="off")
        configuration = Configuration(Overlay("test", give_up=GIVE_UP), nodes, (link,))
        self._services: list[NodeService] = [NodeService(configuration, name, key) for name, key in keys.items()]

    @property
    def src(self) -> Driver:
        return self._services[0].driver

    @property
    def dst(self) -> Driver:
        return self._services[1].driver

    async def start(self) -> None:
        for service in self._services:
            service.startService()
        while not (self.src.reachable("dst") and self.dst.reachable("src")):
            await task.deferLater(reactor, 0.01)

    def cut(self) -> None:
        for driver in (self.src, self.dst):
            for port in driver.ports:
                port.send = lambda transmit: True  # type: ignore[method-assign]  # the wire is cut

    async def stop(self) -> None:
        for service in self._services:
            await service.stopService()

    def settled(self) -> bool:
        return all(session.streams == 0 for driver in (self.src, self.dst) for session in status(driver))


def status(driver: Driver) -> Any:
    """Return the status of the driver's sessions."""
    return driver.node.status(0.0).sessions.values()


def own_address() -> tuple[str, int]:
    """Return a loopback address that only this process uses, and never twice: all of 127.0.0.0/8 may be bound."""
    number = next(_numbers)
    host = (os.getpid() * ADDRESSES_OF_A_PROCESS + number % ADDRESSES_OF_A_PROCESS) % (1 << 24 - 1)
    return str(IPv4Address("127.128.0.0") + host), 7400 + number // ADDRESSES_OF_A_PROCESS
