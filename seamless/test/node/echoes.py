"""64 bytes there and back on virtual time, again and again: a keystroke and its echo."""

from __future__ import annotations

from typing import Final

from seamless.interfaces import DataReceived, Event, StreamOpened
from seamless.lab.simulated import Simulation
from seamless.node import Node

KEYSTROKE_BYTES: Final = 64
INTERVAL: Final = 0.020


class Echoes:
    """Keystrokes of ``client``, and the echoes of ``server``."""

    interval = INTERVAL

    def __init__(self, net: Simulation, client: str, server: str) -> None:
        self.net = net
        self.back = 0
        """Bytes of echoes that have come back."""
        self._client = client
        self._server = server
        net.nodes[client].on_event = self._at_client
        net.nodes[server].on_event = self._at_server
        self._stream = net.command(client, lambda node, now: node.open_stream(server, b"echo", now))

    def _at_client(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.back += sum(map(len, event.chunks))

    def _at_server(self, event: Event) -> None:
        if isinstance(event, (StreamOpened, DataReceived)):
            self.net.at(self.net.now, self.net.command, self._server, lambda node, now: self._answer(node, event, now))

    def _answer(self, node: Node, event: StreamOpened | DataReceived, now: float) -> None:
        if isinstance(event, StreamOpened):
            node.accept_stream(event.stream, now)
            return
        data = b"".join(event.chunks)
        node.consumed(event.stream, len(data), now)
        node.send(event.stream, data, now)

    def strike(self) -> None:
        """Send one keystroke, and let time pass until the next."""
        self.net.command(self._client, lambda node, now: node.send(self._stream, bytes(KEYSTROKE_BYTES), now))
        self.net.run(self.net.now + INTERVAL)
