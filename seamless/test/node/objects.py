"""A client and a server over a relay on virtual time: an object over a new connection, and how long that takes."""

from __future__ import annotations

from random import Random

import attrs

from seamless.config.load import load_text
from seamless.interfaces import (
    RESET_BY_APPLICATION,
    DataReceived,
    Event,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.node import Node
from seamless.test.lab.test_simulated import settle
from seamless.test.node.network import public_key

REQUEST = b"GET"
WRITE_BYTES = 64 << 10


@attrs.define
class Asked:
    """One connection: when it was opened, what came of the answer and when the last of it did."""

    opened_at: float
    nbytes: int = 0
    first_at: float | None = None
    last_at: float = 0.0
    unread: int = 0
    reads: bool = True


class Objects(Simulation):
    """``client -- relay -- server``: the server answers each request with ``object_bytes``."""

    def __init__(self, mbit: float, round_trip: float, *, loss: str = "0 %", memory: str = "64 MiB") -> None:
        addresses = {"client": "10.0.1.1", "relay": "10.0.1.2, 10.0.2.1", "server": "10.0.2.2"}
        blocks = ["overlay test { }"]
        for name, listed in addresses.items():
            key = public_key(name)
            blocks.append(f'host {name} {{ }} node {name} {{ address {listed}; memory {memory}; key "{key}"; }}')
        for one, other, subnet in (("client", "relay", "10.0.1"), ("relay", "server", "10.0.2")):
            ends = f"{one} {other} {{ between {subnet}.1"
            blocks.append(f"link {ends} {subnet}.2; rate {mbit:g} mbit; congestion off; }}")
            blocks.append(f"wire {ends}/24 {subnet}.2/24; delay {round_trip * 250:g} ms; loss {loss}; }}")
        self.object_bytes = 0
        self.resets_after = False
        self.ends: list[StreamReset] = []
        """Resets that the client was told of."""
        self.asked: dict[StreamKey, Asked] = {}
        self._left: dict[StreamKey, int] = {}
        super().__init__(load_text("\n".join(blocks), "test.conf"), private_key, Random(1))
        settle(self)
        self.nodes["server"].on_event = self._at_server
        self.nodes["client"].on_event = self._at_client

    def ask(self, object_bytes: int, *, reads: bool = True) -> Asked:
        """Open a connection and send a request, whose answer is so many bytes."""
        self.object_bytes = object_bytes
        stream = self.command("client", lambda node, now: node.open_stream("server", b"object", now))
        self.command("client", lambda node, now: node.send(stream, REQUEST, now))
        self.asked[stream] = Asked(self.now, reads=reads)
        return self.asked[stream]

    def fetch(self, object_bytes: int, within: float = 60.0) -> float:
        """Return the seconds from the opening of a connection to the last byte of its answer."""
        asked = self.ask(object_bytes)
        self.run(self.now + within, lambda: asked.nbytes >= object_bytes)
        return asked.last_at - asked.opened_at

    @property
    def written(self) -> int:
        """Return how many bytes of the last object the server's session has taken."""
        return self.object_bytes - next(reversed(self._left.values()), self.object_bytes)

    def _at_server(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._left[event.stream] = self.object_bytes
            self.at(self.now, self.command, "server", lambda node, now: node.accept_stream(event.stream, now))
        elif isinstance(event, (DataReceived, StreamWritable)):
            self.at(self.now, self.command, "server", lambda node, now: self._answer(node, event.stream, now))

    def _answer(self, node: Node, stream: StreamKey, now: float) -> None:
        while left := self._left[stream]:
            self._left[stream] -= min(left, WRITE_BYTES)
            if node.send(stream, bytes(min(left, WRITE_BYTES)), now) <= 0:
                return
        if self.resets_after:
            node.reset(stream, RESET_BY_APPLICATION, "the server hangs up", now)

    def _at_client(self, event: Event) -> None:
        if isinstance(event, StreamReset):
            self.ends.append(event)
        if not isinstance(event, DataReceived):
            return
        asked = self.asked[event.stream]
        nbytes = sum(map(len, event.chunks))
        asked.nbytes += nbytes
        asked.first_at = asked.first_at or self.now
        asked.last_at = self.now
        if asked.reads:
            self.at(self.now, self.command, "client", lambda node, now: node.consumed(event.stream, nbytes, now))
        else:
            asked.unread += nbytes

    def read(self, asked: Asked, most_bytes: int) -> None:
        """Read so much of what is unread of an answer."""
        stream = next(stream for stream, each in self.asked.items() if each is asked)
        nbytes = min(asked.unread, most_bytes)
        asked.unread -= nbytes
        self.command("client", lambda node, now: node.consumed(stream, nbytes, now))
