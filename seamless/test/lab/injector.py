"""A peer with good keys that forges whole packets: ``python -m seamless.test.lab.injector CONFIG NODE KEY PEER``.

It is the node NODE but for its interceptors. It reads packets (hex, one a line) from standard input, sends each to PEER
as if it had captured it, and prints ``sent``.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from seamless.config.load import load_file
from seamless.service import NodeService
from seamless.tools.keys import read_private_key


class Injector(LineOnlyReceiver):
    """Sends what comes on standard input."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 18

    def __init__(self, service: NodeService, peer: str, ended: Deferred[None]) -> None:
        self._service = service
        self._peer = peer
        self._ended = ended

    def lineReceived(self, line: bytes) -> None:
        """Send one packet."""
        self._service.driver.send_packets(self._peer, [bytes.fromhex(line.decode())])
        self.sendLine(b"sent")

    def connectionLost(self, reason: object = None) -> None:
        """End with whoever started us."""
        self._ended.callback(None)


def main(reactor: object, config: str, node: str, key: str, peer: str) -> Deferred[None]:
    """Inject until standard input ends."""
    service = NodeService(load_file(config), node, read_private_key(key))
    service.startService()
    ended: Deferred[None] = Deferred()
    injector = Injector(service, peer, ended)

    def reachable(name: str, is_reachable: bool) -> None:
        if name == peer and is_reachable and injector.transport is None:
            stdio.StandardIO(injector)
            injector.sendLine(b"ready")

    service.driver.watch_reachable(reachable)
    return ended


if __name__ == "__main__":
    assert reactor
    react(main, sys.argv[1:])
