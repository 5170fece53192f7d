"""Daemons for tests of privileges: real twistd processes in a namespace that has firewall rules of other programs."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.crypto.keys import encode_private_key, encode_public_key, public_key_of
from seamless.errors import SeamlessError
from seamless.linux import control_socket
from seamless.linux.system import closed_folder
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace
from seamless.test.tools.twistd import ROOT

USER: Final = "nobody"
USER_ID: Final = pwd.getpwnam(USER).pw_uid
CLOSED: Final = [closed_folder(USER_ID, Path(path)) for path in (seamless.__file__, sys.executable, os.__file__)]
SKIP: Final = SKIP_WITHOUT_ROOT or next(
    (f"user {USER} may not enter {folder}: put the checkout elsewhere" for folder in CLOSED if folder), None
)
SETPRIV: Final = (
    "setpriv",
    f"--reuid={USER}",
    "--regid=nogroup",
    "--clear-groups",
    "--bounding-set=-all",
    "--no-new-privs",
)
"""Before a command: it never has any privilege."""
PATIENCE: Final = 20.0
POLL_SECONDS: Final = 0.02
SRC_KEY, DST_KEY = bytes([1]) * 32, bytes([2]) * 32
OWN_CHAINS: Final = re.compile("SEAM[A-Z]+-src")
CAPTURED: Final = "10.1.9.2"

CONFIGURATION: Final = f"""
overlay pair {{ }}
node src {{ address 127.0.0.1:7400; serves 10.1.9.1; key "{encode_public_key(public_key_of(SRC_KEY))}"; }}
node dst {{ address 127.0.0.2:7400; serves {CAPTURED}; key "{encode_public_key(public_key_of(DST_KEY))}"; }}
link src dst {{ between 127.0.0.1 127.0.0.2; }}
intercept payload {{ tcp to {CAPTURED} port 22; on src; when unreachable direct; }}
"""

FOREIGN: Final = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:THEIRS - [0:0]
-A INPUT -p tcp -m tcp --dport 9 -m comment --comment "theirs, not SEAMLESS" -j DROP
-A OUTPUT -d 192.0.2.1/32 -j THEIRS
-A THEIRS -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A OUTPUT -d 192.0.2.2/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080
-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""
"""Rules of a firewall, of a proxy and of docker."""


class DaemonTestCase(SynchronousTestCase):
    """A namespace with foreign rules, a configuration and keys in a folder that any user can enter."""

    def setUp(self) -> None:
        self.namespace = Namespace()
        self.addCleanup(self.namespace.remove)
        self.namespace.run("iptables-restore", stdin=FOREIGN)
        self.foreign = self.firewall()
        # Short, since sockets are made in it, and open to the daemons' user.
        self.folder = Path(tempfile.mkdtemp(prefix="seamless-trust-"))
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        self.configuration = self.folder / "pair.conf"
        self.configuration.write_text(CONFIGURATION)
        self.key = self.folder / "src.key"
        self.key.write_text(encode_private_key(SRC_KEY) + "\n")
        self.key.chmod(0o600)
        self.log = self.folder / "log"
        self.sockets = self.folder / "control"
        self.sockets.mkdir()
        self.sockets.chmod(0o777)  # daemons of any user make theirs here

    # Daemons.

    def popen(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program in the namespace; what it says goes to the log."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace.name, *words],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": ROOT,
                    "PYTHONUNBUFFERED": "1",
                    control_socket.DIRECTORY_VARIABLE: str(self.sockets),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_node(self, *options: str, prefix: tuple[str, ...] = (), more: tuple[str, ...] = (), **environment: str
                   ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Start the node src in the foreground and wait until it is up and has its rules."""
        twistd = [sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.exit(run())"]
        words = [f"--config={self.configuration}", "--node=src", f"--key={self.key}", *more]
        process = self.popen(*prefix, *twistd, "-n", "--pidfile=", *options, "seamless", *words, **environment)

        def is_up() -> bool:
            if process.poll() is not None:
                self.fail(f"the node has ended: {self.log.read_text()}")
            return self.rules_installed() > 0

        self.until(is_up, "the rules are installed")
        return process

    def status(self) -> Any:
        """Return what the running node reports at its control socket; None while it does not answer."""
        try:
            return control_socket.ask(self.sockets / f"src{control_socket.SUFFIX}", {"ask": "status"})
        except SeamlessError:
            return None

    def firewall_counter(self, name: str) -> int:
        """Return a counter of `FirewallCounters` of the running node; 0 while it does not answer."""
        status = self.status()
        return 0 if status is None or status["firewall"] is None else int(status["firewall"][name])

    def rules_installed(self) -> int:
        """Return how often the running node has had its rules installed; 0 while it does not answer."""
        return self.firewall_counter("installed")

    def privileged_part_of(self, process: subprocess.Popen[bytes]) -> int:
        """Return the process id of a node's child."""
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(child)

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Send SIGTERM; return the exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE)

    def assertEnds(self, node: subprocess.Popen[bytes]) -> None:
        """SIGTERM ends a node in good order; Twisted then ends the process by that same signal."""
        self.assertEqual(self.end(node), -signal.SIGTERM)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds."""
        give_up_at = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > give_up_at:
                self.fail(f"waited {PATIENCE:g} s in vain: {what}; the log: {self.log.read_text()}")
            time.sleep(POLL_SECONDS)

    def said(self, words: str) -> None:
        """Wait until a daemon says these words."""
        self.until(lambda: words in self.log.read_text(), words)

    # The firewall.

    def firewall(self) -> str:
        """Return all rules of the namespace; comment lines of iptables-save hold the time."""
        saved = self.namespace.run("iptables-save") + self.namespace.run("ip6tables-save")
        return "".join(line for line in saved.splitlines(keepends=True) if not line.startswith("#"))

    def own_rules(self) -> list[str]:
        """Return the rules that mention seamless."""
        return [line for line in self.firewall().splitlines() if "SEAMLESS-src" in line]

    def assertOnlyForeignRules(self) -> None:
        """Foreign rules are identical to the byte, and there are no others; counters aside."""
        self.until(lambda: not self.own_rules(), "the rules are gone")
        # An empty table that a rule of ours was in may stay; it is no rule.
        self.assertEqual(_rules(self.firewall()), _rules(self.foreign))

    def assertRulesInstalled(self) -> None:
        """Our rules are there, beside the foreign ones."""
        self.assertTrue(any(CAPTURED in rule for rule in self.own_rules()), self.firewall())
        others = [line for line in _rules(self.firewall()) if not OWN_CHAINS.search(line)]
        self.assertEqual(others, _rules(self.foreign))

    # Applications.

    def connects(self, user: int) -> bool:
        """Return whether a connection that ``user`` makes to what is captured is answered in the namespace."""
        program = (
            f"import os, socket; os.setuid({user}); s = socket.socket(); s.settimeout(1);"
            f"print(s.connect_ex(('{CAPTURED}', 22)))"
        )
        return self.namespace.run(sys.executable, "-c", program).strip() == "0"


def _rules(firewall: str) -> list[str]:
    return [line for line in firewall.splitlines() if line.startswith("-A")]


def open_notify_socket(folder: Path) -> socket.socket:
    """Return a socket that stands where systemd's would."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(folder / "notify"))
    (folder / "notify").chmod(0o666)
    listening.settimeout(PATIENCE)
    return listening


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
