"""The daemons of a lab: one ``twistd`` in every host that is a node, with keys that follow from the nodes' names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from hashlib import blake2s
from pathlib import Path
from typing import Final

import attrs

import seamless
from seamless.crypto.keys import encode_private_key
from seamless.errors import SeamlessError
from seamless.linux.system import program

_START_SECONDS: Final = 20.0
"""Importing everything takes a daemon about a second; several share two cores."""
_POLL_SECONDS: Final = 0.05
_LAST_WORDS_CHARACTERS: Final = 2000


def private_key(node: str) -> bytes:
    """Return the raw Ed25519 seed of a node of any lab. It is known to everybody, and good for nothing else."""
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


@attrs.define
class RunningNode:
    """A daemon that was started, and where it writes its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int = 0
    """Where in the log this start begins; before it are earlier lives of the node."""

    def log_text(self) -> str:
        """Return what the daemon has logged in this life."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            file.seek(self.log_start)
            return file.read()

    def wait_for(self, words: str, timeout: float = _START_SECONDS) -> None:
        """Return once these words are in the log; raise `SeamlessError` with the log's end if they never are."""
        give_up_at = time.monotonic() + timeout
        while words not in self.log_text():
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                last = self.log_text()[-_LAST_WORDS_CHARACTERS:]
                raise SeamlessError(f"The node {self.name} does not say {words!r}; {self.log} ends with: {last}")
            time.sleep(_POLL_SECONDS)
