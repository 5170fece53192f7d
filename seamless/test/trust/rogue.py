"""A peer with good keys and bad intentions: ``python -m seamless.test.trust.rogue CONFIG NODE KEY PEER``.

It is the node NODE but for its interceptors. It reads targets (hex, one a line) from standard input, asks PEER for
each, and prints ``accepted`` or the code and reason of the reset.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from seamless.config.load import load_file
from seamless.service import NodeService
from seamless.tools.keys import read_private_key


class Asking:
    """The owner of one stream."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def stream_accepted(self) -> None:
        self._say("accepted")

    def stream_reset(self, code: int, reason: str) -> None:
        self._say(f"{code} {reason}")

    def stream_data(self, chunks: list[bytes]) -> None:
        """Nothing of it matters."""

    stream_writable = stream_finished = stream_closed = lambda self: None


class Asker(LineOnlyReceiver):
    """Asks for what comes on standard input, one after the other: a line, an answer."""

    delimiter = b"\n"

    def __init__(self, service: NodeService, peer: str, ended: Deferred[None]) -> None:
        self._service = service
        self._peer = peer
        self._ended = ended

    def lineReceived(self, line: bytes) -> None:
        target = bytes.fromhex(line.decode())
        self._service.driver.open_stream(self._peer, target, Asking(lambda answer: self.sendLine(answer.encode())))

    def connectionLost(self, reason: object = None) -> None:
        self._ended.callback(None)


def main(reactor: object, config: str, node: str, key: str, peer: str) -> Deferred[None]:
    service = NodeService(load_file(config), node, read_private_key(key))
    service.startService()
    ended: Deferred[None] = Deferred()
    asker = Asker(service, peer, ended)

    def reachable(name: str, is_reachable: bool) -> None:
        if name == peer and is_reachable and asker.transport is None:
            stdio.StandardIO(asker)
            asker.sendLine(b"ready")

    service.driver.watch_reachable(reachable)
    return ended


if __name__ == "__main__":
    assert reactor
    react(main, sys.argv[1:])
