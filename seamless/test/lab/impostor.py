"""A peer with good keys in the place of a node, that does what it is told: the process, and the test's side of it.

The process (``python -m MODULE CONFIG NODE KEY PEER``, where the module calls `run`) is the node NODE but for its
interceptors. Once PEER is reachable it says ``ready``; then it reads bytes (hex, one a line) from standard input, acts
on each, and says what came of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet import stdio
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.lab.daemons import environment
from seamless.lab.lab import Lab
from seamless.service import NodeService
from seamless.tools.keys import read_private_key

PEER = "dst"


class Impostor(LineOnlyReceiver):
    """Acts on what comes on standard input."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 18

    def __init__(self, service: NodeService, peer: str, ended: Deferred[None]) -> None:
        self.service = service
        self.peer = peer
        self._ended = ended

    def lineReceived(self, line: bytes) -> None:
        """Act on one line."""
        self.act(bytes.fromhex(line.decode()))

    def act(self, data: bytes) -> None:
        """Do what this impostor is for, and say what came of it in one line."""
        raise NotImplementedError

    def connectionLost(self, reason: object = None) -> None:
        """End with the process that started this one."""
        self._ended.callback(None)


def run(kind: type[Impostor]) -> None:
    """Be an impostor of this kind until standard input ends."""

    def main(reactor: object, config: str, node: str, key: str, peer: str) -> Deferred[None]:
        service = NodeService(load_file(config), node, read_private_key(key))
        service.startService()
        ended: Deferred[None] = Deferred()
        impostor = kind(service, peer, ended)

        def reachable(name: str, is_reachable: bool) -> None:
            if name == peer and is_reachable and impostor.transport is None:
                stdio.StandardIO(impostor)
                impostor.sendLine(b"ready")

        service.driver.watch_reachable(reachable)
        return ended

    react(main, sys.argv[1:])


def replace(
    case: SynchronousTestCase, lab: Lab, configuration: Path, node: str, module: str
) -> subprocess.Popen[bytes]:
    """Put the impostor of a module in the place of a node that does not run, until the test is over."""
    words = [str(configuration), node, str(lab.key_file(node)), PEER]
    impostor = lab.popen(
        node,
        [sys.executable, "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        environment=environment(),
    )
    case.addCleanup(impostor.communicate)
    case.addCleanup(impostor.kill)
    assert impostor.stdout is not None
    case.assertEqual(impostor.stdout.readline(), b"ready\n")
    return impostor


def tell(impostor: subprocess.Popen[bytes], data: bytes) -> str:
    """Have an impostor act on these bytes; return what it says."""
    assert impostor.stdin is not None and impostor.stdout is not None
    impostor.stdin.write(data.hex().encode() + b"\n")
    impostor.stdin.flush()
    return impostor.stdout.readline().decode().strip()
