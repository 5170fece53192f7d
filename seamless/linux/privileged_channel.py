"""The socket pair between a daemon and its privileged process: its messages, and the daemon's end of it.

::

    daemon  ── "read", "install", "remove", "capture", "hold", "dial" ──>  privileged process  ──>  iptables
            <── "ready", "read DIGEST", "installed", "removed", "restored", "failed CODE SENTENCE" ──

A message is one datagram of text. Upon "read" the process reads the configuration again and answers with the digest of
the file; the next "install" puts that in the place of what was installed before. With some a socket of the daemon's
comes: over that of "capture" whole packets go (`seamless.linux.capture`), over that of "hold" decisions about held SYNs
(`seamless.linux.syn_holder`), over that of "dial" sockets to be connected with clients' addresses
(`seamless.linux.transparent`). The process is the daemon's child, started while the daemon has privilege
(`PrivilegedPart`); or it runs by itself, and daemons without privilege connect to its socket, one after another
(`StandingPart`). `seamless.linux.rule_keeper` is the other end. Nothing here blocks the daemon, but `Channel.wait_for`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import seamless
from seamless.errors import ConfigurationError, PrivilegeError, SeamlessError

# Both ways.
READ: Final = "read"
# From the daemon.
INSTALL: Final = "install"
REMOVE: Final = "remove"
CAPTURE: Final = "capture"
HOLD: Final = "hold"
DIAL: Final = "dial"
RENEWED: Final = frozenset({DIAL})
"""Words with which a socket comes again after another configuration was read: what they start decides by it."""
# From the privileged process; the words after the first are for a person, but for `FAILED`: exit code, sentence.
READY: Final = "ready"
INSTALLED: Final = "installed"
REMOVED: Final = "removed"
RESTORED: Final = "restored"
FAILED: Final = "failed"

MESSAGE_BYTES: Final = 4096
"""More than any message; iptables' own words in a sentence are cut to fit."""
_ERRORS: Final = {str(error.exit_code): error for error in (ConfigurationError, PrivilegeError)}
END_TIMEOUT: Final = 5.0
"""Seconds that the process may take to end once the socket pair has."""


def send_message(channel: socket.socket, message: str) -> None:
    """Send one message, cut to 4096 bytes; do nothing if the other end is gone."""
    try:
        channel.send(message.encode()[:MESSAGE_BYTES])
    except OSError:
        pass  # the next receive says that the other end is gone


class Channel:
    """The daemon's end of a connection to a privileged process. It never blocks, but in `wait_for`."""

    pid: int | None = None
    """Process id of the privileged process, if it is this daemon's child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a message has come."""
        return self._channel.fileno()

    def send(self, word: str) -> None:
        """Send `READ`, `INSTALL` or `REMOVE`; `receive` gives the answer later.

        Does nothing once the process is gone.
        """
        send_message(self._channel, word)

    def hand_over(self, word: str, theirs: socket.socket) -> None:
        """Send `CAPTURE`, `HOLD` or `DIAL` and the socket that comes with it; this end of it is closed."""
        with theirs:
            try:
                socket.send_fds(self._channel, [word.encode()], [theirs.fileno()])
            except OSError:
                pass  # the process is gone: `receive` raises EOFError

    def receive(self) -> str | None:
        """Return one message, or None if there is none yet. ``EOFError`` when the process is gone."""
        try:
            message = self._channel.recv(MESSAGE_BYTES)
        except (BlockingIOError, TimeoutError):
            return None
        except ConnectionError:
            message = b""
        if not message:
            raise EOFError
        return message.decode(errors="replace")

    def wait_for(self, word: str, timeout: float) -> None:
        """Block until the message ``word`` comes, for ``timeout`` seconds at most.

        Raise `SeamlessError` when it does not come in time, another message comes instead, or the process ends.
        """
        self._channel.settimeout(timeout)
        try:
            message = self.receive()
        except EOFError:
            raise self.death() from None
        finally:
            self._channel.setblocking(False)
        if message is None:
            raise SeamlessError(f"the privileged part of seamless was not {word} after {timeout:g} s")
        if message != word:
            raise failure(message)

    def death(self) -> SeamlessError:
        """Return the error to report after `receive` has raised EOFError."""
        return SeamlessError("the privileged part of seamless is gone; firewall rules may be left until it is back")

    def close(self) -> None:
        """Close the connection, upon which the process removes the rules."""
        self._channel.close()


class StandingPart(Channel):
    """A connection to a privileged process that runs by itself and listens at ``path``."""

    def __init__(self, path: str) -> None:
        """Connect, or raise `PrivilegeError`."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel.connect(path)
        except OSError as error:
            channel.close()
            raise PrivilegeError(
                f"no process keeps the firewall rules at {path} ({error.strerror}): start seamless-rules for this node"
            ) from None
        super().__init__(channel)


class PrivilegedPart(Channel):
    """A privileged process that is this daemon's child, and the daemon's end of a socket pair to it.

    ``module`` is run as ``python -m MODULE *arguments --channel DESCRIPTOR``, and calls `keep_rules`.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        with theirs:
            self._process = subprocess.Popen(
                # -P: root imports nothing from the folder that it happens to be in.
                [sys.executable, "-P", "-m", module, *arguments, "--channel", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": _python_path()},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def death(self) -> SeamlessError:
        """Return the error to report after the process has ended: how it ended."""
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return SeamlessError(f"the privileged part of seamless {how}; firewall rules may be left until the next start")

    def close(self) -> None:
        """Close the socket pair, upon which the process removes the rules, and wait until it has ended."""
        super().close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass  # it waits for another program's lock on the firewall, and ends by itself when it has it


def failure(message: str) -> SeamlessError:
    """Return the error that a `FAILED` message carries."""
    _, code, sentence = (message + "  ").split(" ", 2)
    return _ERRORS.get(code, SeamlessError)(sentence.strip() or f"the privileged part of seamless says {message!r}")


def _python_path() -> str:
    """Return the PYTHONPATH with which a child finds the same seamless as this process."""
    source = str(Path(seamless.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return f"{source}{os.pathsep}{known}" if known else source
