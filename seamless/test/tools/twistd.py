"""Real twistd processes for tests, each in a folder of its own: what a person sees and what the shell gets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seamless.linux.control_socket import DIRECTORY_VARIABLE

START_TIMEOUT: Final = 20.0
"""Seconds until a twistd on a busy machine of two cores has surely said something."""

ROOT: Final = str(Path(__file__).parents[3])
"""The checkout, where ``twisted/plugins`` is."""


class Twistd:
    """A folder in which twistd runs, and the environment in which it finds seamless and further plugins."""

    def __init__(self, folder: Path, prefix: Sequence[str] = (), sockets: Path | None = None) -> None:
        """``prefix``: words before the command, such as those that give it a network of its own.

        Daemons answer in ``sockets``, left out in a directory with a short name: the path of a Unix socket has room for
        107 bytes, and trial's folders may have more.
        """
        if sockets is None:
            sockets = Path(tempfile.mkdtemp(prefix="seamless-sockets-"))
            weakref.finalize(self, shutil.rmtree, sockets, True)
        self.folder = folder
        self.prefix = prefix
        self.pid_file = folder / "twistd.pid"
        self.log_file = folder / "twistd.log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            DIRECTORY_VARIABLE: str(sockets),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``twistd WORDS`` until its first process ends."""
        return subprocess.run(
            self._command(words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start ``twistd WORDS``; the caller ends it."""
        return subprocess.Popen(
            self._command(words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_daemon(self) -> str:
        """Send SIGTERM to the daemon that the pid file names, wait for its end and return its log."""
        os.kill(int(self.pid_file.read_text()), signal.SIGTERM)
        self.wait_until_gone()
        return self.log_file.read_text()

    def wait_until_gone(self) -> None:
        """Wait until the daemon has removed its pid file, which is the last thing it does."""
        deadline = time.monotonic() + START_TIMEOUT
        while self.pid_file.exists():
            if time.monotonic() > deadline:
                raise AssertionError(f"the daemon is still there: {self.log_file.read_text()}")
            time.sleep(0.02)

    def _command(self, words: Sequence[str]) -> list[str]:
        return [
            *self.prefix,
            sys.executable,
            "-c",
            "import sys; from twisted.scripts.twistd import run; sys.exit(run())",
            *words,
        ]
