"""Tests of the lab once more, with nodes that hold no privilege: put one of these before a test case of the lab.

`Shed` is ``twistd --uid``, which gives privilege up. `Standing` is systemd's way: a node that never had any, and beside
it a privileged part of its own, where the node captures anything. Either proves itself before each test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from seamless.lab import daemons
from seamless.lab.lab import Lab
from seamless.test.lab.bedtest import wait_until
from seamless.test.lab.ground import why_not
from seamless.test.trust.daemons import SETPRIV, SKIP, USER, USER_ID, status_of

NO_CAPABILITIES: Final = "0" * 16
NODES: Final = ("src", "r1", "r2", "dst")
CAPTURING_NODES: Final = ("src", "dst")


class Unprivileged(SynchronousTestCase):
    """A case whose nodes, in every test, are started as `command` says, and have no capability when it begins."""

    skip = why_not() or SKIP
    lab: Lab

    def setUp(self) -> None:
        plain = daemons.command

        def command(configuration_file: Path, node: str, key_file: Path) -> list[str]:
            return self.command(plain(configuration_file, node, key_file), node, key_file)

        self.patch(daemons, "command", command)
        super().setUp()
        for node in NODES:
            status = status_of(self.lab.node(node).process.pid)
            self.assertEqual({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}, {NO_CAPABILITIES})
            self.assertEqual(set(status["Uid"].split()), {str(USER_ID)})

    def command(self, plain: Sequence[str], node: str, key_file: Path) -> list[str]:
        """Return how to start a node, from how root would."""
        raise NotImplementedError


class Shed(Unprivileged):
    """``twistd --uid``."""

    def command(self, plain: Sequence[str], node: str, key_file: Path) -> list[str]:
        at = plain.index("-n") + 1
        return [*plain[:at], f"--uid={USER}", *plain[at:]]


class Standing(Unprivileged):
    """Two services on a host that captures: the privileged part is started before the node's first life."""

    def command(self, plain: Sequence[str], node: str, key_file: Path) -> list[str]:
        self.let_in(key_file)
        if node not in CAPTURING_NODES:
            return [*SETPRIV, *plain]
        door = self.lab.directory / f"{node}.rules"
        if not door.exists():
            (configuration,) = (word for word in plain if word.startswith("--config="))
            self.start_part(node, configuration, door)
        return [*SETPRIV, *plain, f"--privileged={door}"]

    def let_in(self, key_file: Path) -> None:
        """Give the nodes' user what is the nodes': keys, and the folder of the sockets that answer questions."""
        folder = self.lab.directory
        (folder / "run").mkdir(exist_ok=True)
        folder.chmod(0o711)
        for path in (key_file, key_file.parent, folder / "run"):
            os.chown(path, USER_ID, -1)

    def start_part(self, node: str, configuration: str, door: Path) -> None:
        """Start a privileged part as root; it ends with the lab."""
        words = [configuration, f"--node={node}", f"--user={USER}", f"--listen={door}"]
        with open(self.lab.host_directory(node) / "rules.log", "ab") as log:
            self.lab.popen(
                node,
                [sys.executable, "-P", "-m", "seamless.intercept.privileged", *words],
                stdout=log,
                stderr=log,
                environment=daemons.environment(),
            )
        wait_until(door.exists, f"the privileged part of {node} listens")
