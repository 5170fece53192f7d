"""The ``seamless`` command as a real process, for tests."""

from __future__ import annotations

import subprocess
import sys

from seamless.test.tools.twistd import ROOT

COMMAND_TIMEOUT = 30.0
"""Seconds that no verb needs, even on a busy machine."""


def seamless(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``seamless WORDS`` and return what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "seamless.tools.main", *words],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT,
        check=False,
    )
