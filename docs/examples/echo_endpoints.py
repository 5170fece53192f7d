"""Any Twisted protocol over the overlay, with endpoints: ``python echo_endpoints.py``."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo
from two_nodes import write_files

from seamless.config.load import load_file
from seamless.service import NodeService
from seamless.tools.keys import read_private_key
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayServerEndpoint


class Greeter(Protocol):
    """Sends a line, and closes the connection when the answer has come."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Say hello."""
        self.transport.write(b"hello from an endpoint\n")

    def dataReceived(self, data: bytes) -> None:
        """Show the answer and go."""
        print(data.decode(), end="")
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """Let the program end."""
        self.done.callback(None)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        configuration, keys = write_files(folder)
        overlay = load_file(configuration)
        src = NodeService(overlay, "src", read_private_key(str(keys["src"])))
        dst = NodeService(overlay, "dst", read_private_key(str(keys["dst"])))
        src.startService()
        dst.startService()

        await OverlayServerEndpoint(dst, "echo").listen(Factory.forProtocol(Echo))
        greeter = await connectProtocol(OverlayClientEndpoint(src, "dst", "echo"), Greeter())
        await greeter.done

        await src.stopService()
        await dst.stopService()


react(lambda reactor: Deferred.fromCoroutine(main()))
