"""The daemons of a lab: one ``twistd`` in every host that is a node, with keys derived from the nodes' names.

A program that waits for something asks the node's control socket; it never reads the wording of a log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from hashlib import blake2s
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

import seamless
from seamless.crypto.keys import encode_private_key
from seamless.errors import SeamlessError
from seamless.linux import control_socket
from seamless.linux.system import program

_START_SECONDS: Final = 20.0
"""Importing everything takes a daemon about a second; several share two cores."""
_POLL_SECONDS: Final = 0.05
_LOG_END_CHARACTERS: Final = 2000

Status: TypeAlias = Mapping[str, Any]
"""A node's answer to the question ``status``: `seamless.transport.report.Report` as JSON."""


def private_key(node: str) -> bytes:
    """Return the raw Ed25519 seed of a node of any lab: 32 bytes, derived from its name, and so no secret."""
    return blake2s(b"seamless lab " + node.encode()).digest()


def write_key(directory: Path, node: str) -> Path:
    """Write a node's key file (mode 0600) and return its path."""
    path = directory / "keys" / f"{node}.key"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(encode_private_key(private_key(node)) + "\n")
    return path


def command(configuration_file: Path, node: str, key_file: Path) -> list[str]:
    """Return the command line of a node's daemon in the foreground."""
    beside_python = Path(sys.executable).with_name("twistd")
    twistd = str(beside_python) if beside_python.exists() else program("twistd")
    options = [f"--config={configuration_file.resolve()}", f"--node={node}", f"--key={key_file}"]
    return [sys.executable, twistd, "-n", "--pidfile=", "seamless", *options]


def environment() -> dict[str, str]:
    """Return the environment in which Python finds the same seamless as this process, wherever it starts."""
    source = str(Path(seamless.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{known}" if known else source}


def reaches(status: Status, peer: str) -> bool:
    """Return whether a node has a path to ``peer``; ``status`` is what it answers at its control socket."""
    return any(route["node"] == peer and route["path"] for route in status["routes"])


def has_rules(status: Status) -> bool:
    """Return whether a node has had its firewall rules installed since it started; ``status`` as above."""
    return status["firewall"] is not None and status["firewall"]["installed"] > 0


def link_is_up(status: Status, neighbor: str) -> bool:
    """Return whether a link of a node to ``neighbor`` is UP; ``status`` as above."""
    return any(link["neighbor"] == neighbor and link["state"] == "UP" for link in status["links"])


@attrs.define
class RunningNode:
    """A daemon that was started: its process, its log file and its control socket."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    socket: Path
    """The control socket (`seamless.linux.control_socket`)."""
    log_start: int = 0
    """Offset in the log file, in bytes, at which this start begins; before it are earlier starts of the node."""

    def log_text(self) -> str:
        """Return what the daemon has logged since this start."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            file.seek(self.log_start)
            return file.read()

    def status(self) -> Status | None:
        """Return what ``seamless status --json`` prints of this node, None while it does not answer."""
        try:
            status: Status = control_socket.ask(self.socket, {"ask": "status"})
        except SeamlessError:
            return None
        return status

    def wait_until(self, condition: Callable[[Status], bool], what: str, timeout: float = _START_SECONDS) -> None:
        """Return once the node answers with a status that meets ``condition``.

        Raise `SeamlessError` with ``what`` and the end of the log when the process ends or ``timeout`` seconds pass.
        """
        give_up_at = time.monotonic() + timeout
        while (status := self.status()) is None or not condition(status):
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                last = self.log_text()[-_LOG_END_CHARACTERS:]
                raise SeamlessError(f"The node {self.name} {what} in vain; {self.log} ends with: {last}")
            time.sleep(_POLL_SECONDS)

    def wait_until_up(self) -> None:
        """Return once the daemon runs and answers at its control socket."""
        self.wait_until(lambda status: True, "was waited for")

    def wait_until_reaches(self, peer: str) -> None:
        """Return once the node has a path to ``peer``."""
        self.wait_until(lambda status: reaches(status, peer), f"looked for a path to {peer}")

    def wait_until_has_rules(self) -> None:
        """Return once the node has had its firewall rules installed."""
        self.wait_until(has_rules, "waited for its firewall rules")

    def wait_until_link_is_up(self, neighbor: str) -> None:
        """Return once a link to ``neighbor`` is UP."""
        self.wait_until(lambda status: link_is_up(status, neighbor), f"waited for a link to {neighbor}")
