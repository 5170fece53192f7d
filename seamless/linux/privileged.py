"""The small part that keeps root, so that the daemon need not, and that is still there when the daemon is not.

The problem: rules outlive the process that installed them. A daemon killed with -9 cannot remove its own, and one that
gave up its privilege may not. So a second, small process does it::

    daemon  ── "install", "remove", "capture" ──>  privileged part  ──>  iptables
            <── "ready", "installed", "removed", "restored", "failed CODE SENTENCE" ──

* It works out the rules by itself and takes nothing but these words from the other end of the socket pair. With
  "capture" comes a socket of the daemon's, for whole packets (`seamless.linux.capture`).
* It sweeps what an earlier life left before it says ``ready``.
* When the socket pair ends, however the daemon died, it removes the rules and ends. No signal that is sent to the
  daemon's whole group ends it before that.
* Rules get lost when somebody reloads the firewall: it looks every few seconds, puts them back and says so.
* Some rules are to stay when the socket pair ends (`seamless.linux.rules.KEPT_PREFIXES`): they reject what must not go
  natively. It installs them first of all, before it sweeps the others, and never removes them. Standing by itself, it
  looks after them between daemons too.
* One at a time for a node and a network namespace: two would sweep each other's rules.

It is the daemon's child, started while the daemon has privilege (`PrivilegedPart`, `keep_rules`); or it stands by
itself, and daemons that never had any come to its socket, one after another (`StandingPart`, `serve_daemons`).
Nothing waits inside the daemon.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import seamless
from seamless.errors import EXIT_PRIVILEGE, PrivilegeError, SeamlessError
from seamless.linux import iptables, notify
from seamless.linux.rules import Ruleset, chain_name

# What the daemon says.
INSTALL: Final = "install"
REMOVE: Final = "remove"
CAPTURE: Final = "capture"
# What the privileged part says; the words after the first are for a person, but for `FAILED`: exit code, sentence.
READY: Final = "ready"
INSTALLED: Final = "installed"
REMOVED: Final = "removed"
RESTORED: Final = "restored"
FAILED: Final = "failed"

Capturing: TypeAlias = Callable[[socket.socket], None]
"""Called with the daemon's socket for whole packets."""

CHECK_INTERVAL: Final = 3.0
"""Seconds between two looks at whether the rules are still there. One look takes about 10 ms of processor time."""
MESSAGE_BYTES: Final = 4096
"""More than any message; iptables' own words in a sentence are cut to fit."""
PLACE_TIMEOUT: Final = 3.0
"""Seconds to wait for the privileged part of a daemon that was just killed: it needs about 0.1 to sweep and end."""
_PLACE_POLL_INTERVAL: Final = 0.05
END_TIMEOUT: Final = 5.0
"""Seconds that the part may take to end once the socket pair has."""

_WILL_STAY: Final = (
    "and refuse what they do not capture and may not go natively: from now on, and while this node is down as well"
)
_STAYS: Final = (
    "but those that refuse what may not go natively stay: seamless rules FILE --node {owner} --remove takes them away"
)
_UNKNOWN_WORDS: Final = "but this iptables prints them in words that we do not know: lost ones will not be noticed"
_PEER_CREDENTIALS: Final = struct.Struct("3i")
"""``struct ucred``: process, user, group."""
_SIGNALS_FOR_THE_DAEMON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# The end with privilege.


def keep_rules(
    channel: socket.socket,
    owner: str,
    rulesets: Sequence[Ruleset],
    check_interval: float = CHECK_INTERVAL,
    capture: Capturing | None = None,
    kept: Sequence[Ruleset] = (),
) -> None:
    """Do what the daemon says at the other end of ``channel`` until that end is gone; then remove ``rulesets``.

    ``kept``: rules that are installed at once and stay. ``capture`` is given the socket over which whole packets go to
    the daemon, and returns at once.
    """
    for number in _SIGNALS_FOR_THE_DAEMON:
        signal.signal(number, signal.SIG_IGN)
    with _only_one(owner):
        iptables.apply(kept)
        iptables.sweep(owner)
        _attend(channel, owner, rulesets, check_interval, capture, kept)


def serve_daemons(
    path: Path,
    user: int,
    owner: str,
    rulesets: Sequence[Ruleset],
    check_interval: float = CHECK_INTERVAL,
    capture: Capturing | None = None,
    kept: Sequence[Ruleset] = (),
) -> None:
    """Do the same for one daemon of ``user`` after another that comes to the socket at ``path``, until SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit())
    with _only_one(owner), _door(path) as door:
        iptables.apply(kept)
        iptables.sweep(owner)
        notify.notify(notify.READY)
        door.settimeout(check_interval if has_rules(kept) else None)
        while True:
            try:
                channel, _ = door.accept()
            except TimeoutError:
                _keep_alone(kept)
                continue
            with channel:
                if _user_at(channel) == user:
                    _attend(channel, owner, rulesets, check_interval, capture, kept)
                else:
                    report_failure(channel, PrivilegeError(f"only user {user} may have the rules of {owner} installed"))


def report_failure(channel: socket.socket, error: SeamlessError) -> None:
    """Tell the daemon why something could not be done."""
    _say(channel, f"{FAILED} {error.exit_code} {error}")


def _attend(
    channel: socket.socket,
    owner: str,
    rulesets: Sequence[Ruleset],
    check_interval: float,
    capture: Capturing | None,
    kept: Sequence[Ruleset],
) -> None:
    """Serve one daemon until it is gone, and remove ``rulesets``."""
    try:
        _say(channel, READY)
        _serve(channel, owner, rulesets, check_interval, capture, kept)
    finally:
        iptables.sweep(owner)


def _serve(
    channel: socket.socket,
    owner: str,
    rulesets: Sequence[Ruleset],
    check_interval: float,
    capture: Capturing | None,
    kept: Sequence[Ruleset],
) -> None:
    watched: tuple[Ruleset, ...] = tuple(kept)
    while True:
        channel.settimeout(check_interval if has_rules(watched) else None)
        try:
            word, packets = _hear(channel)
            if not word:
                return
            if word == INSTALL:
                iptables.apply((*kept, *rulesets))
                # One that cannot be recognised would be put back, in vain, every time.
                watched = tuple(one for one in (*kept, *rulesets) if iptables.is_installed([one]))
                remarks = [_UNKNOWN_WORDS] if len(watched) < len((*kept, *rulesets)) else []
                _say(channel, " ".join((INSTALLED, *remarks, *([_WILL_STAY] if has_rules(kept) else []))))
            elif word == REMOVE:
                watched = tuple(one for one in watched if one in kept)
                iptables.sweep(owner)
                _say(channel, f"{REMOVED} {_STAYS.format(owner=owner)}" if has_rules(kept) else REMOVED)
            elif word == CAPTURE and packets is not None and capture is not None:
                capture(packets)
                capture = None  # once: each time takes two threads
        except TimeoutError:
            _restore(channel, watched)
        except SeamlessError as error:
            report_failure(channel, error)


def has_rules(rulesets: Iterable[Ruleset]) -> bool:
    """Return whether any of these has a rule."""
    return any(ruleset.rules for ruleset in rulesets)


def _keep_alone(kept: Sequence[Ruleset]) -> None:
    """Put back, while no daemon is here, rules that stay and that another program removed; say so on standard error."""
    try:
        lost = iptables.lost(kept)
        if lost:
            iptables.apply(kept)
            print(f"seamless: another program removed {len(lost)} of our firewall rules: put back", file=sys.stderr)
    except SeamlessError as error:
        print(f"seamless: cannot look after the firewall rules: {error}", file=sys.stderr)


def _hear(channel: socket.socket) -> tuple[str, socket.socket | None]:
    """Return a word of the daemon's, and the socket that came with it; no word when it is gone, or makes no sense."""
    message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
    if not descriptors:
        return message.decode(errors="replace"), None
    try:
        return message.decode(errors="replace"), socket.socket(fileno=descriptors[0])
    except OSError:
        os.close(descriptors[0])
        return "", None


def _restore(channel: socket.socket, rulesets: Sequence[Ruleset]) -> None:
    """Put back what somebody else removed."""
    try:
        lost = iptables.lost(rulesets)
        if lost:
            iptables.apply(rulesets)
            _say(channel, f"{RESTORED} {len(lost)}")
    except SeamlessError as error:
        report_failure(channel, error)


def _say(channel: socket.socket, message: str) -> None:
    try:
        channel.send(message.encode()[:MESSAGE_BYTES])
    except OSError:
        pass  # the daemon is gone; the next receive says so, and the rules go


def _only_one(owner: str) -> socket.socket:
    """Return a socket that only one process of this network namespace can have, whose name ends with that process."""
    until = time.monotonic() + PLACE_TIMEOUT
    place = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        try:
            place.bind(f"\0seamless/{chain_name(owner)}")
            return place
        except OSError:
            if time.monotonic() > until:
                place.close()
                raise SeamlessError(
                    f"node {owner} already runs on this host: stop it first, or start another node"
                ) from None
            time.sleep(_PLACE_POLL_INTERVAL)


@contextmanager
def _door(path: Path) -> Iterator[socket.socket]:
    """Listen at ``path``. Everybody may knock; `_user_at` says who it is."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        try:
            door.bind(str(path))
        except OSError as error:
            raise SeamlessError(f"cannot listen at {path}: {error.strerror}; make its folder first") from None
        try:
            path.chmod(0o666)
            door.listen()
            yield door
        finally:
            path.unlink(missing_ok=True)


def _user_at(channel: socket.socket) -> int:
    """Return the user id of who connected, as the kernel knows it (unix(7), SO_PEERCRED)."""
    _, user, _ = _PEER_CREDENTIALS.unpack(
        channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    )
    return int(user)


# The daemon's end.


class Channel:
    """Our end of a connection to a privileged process. It never blocks, but in `wait_for`."""

    pid: int | None = None
    """The process, if it is our child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `hear`."""
        return self._channel.fileno()

    def say(self, word: str) -> None:
        """Ask for `INSTALL` or `REMOVE`; the answer is heard later. Does nothing once the process is gone."""
        _say(self._channel, word)

    def capture(self, packets: socket.socket) -> None:
        """Ask for whole packets, over this socket, which is the process's from now on."""
        with packets:
            try:
                socket.send_fds(self._channel, [CAPTURE.encode()], [packets.fileno()])
            except OSError:
                pass  # the process is gone, as `hear` will say

    def hear(self) -> str | None:
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
        """Wait, while a daemon starts or stops, until this word is heard. Raise what the process says instead."""
        self._channel.settimeout(timeout)
        try:
            message = self.hear()
        except EOFError:
            raise self.death() from None
        finally:
            self._channel.setblocking(False)
        if message is None:
            raise SeamlessError(f"the privileged part of seamless was not {word} after {timeout:g} s")
        if message != word:
            raise failure(message)

    def death(self) -> SeamlessError:
        """Return a sentence about a process that has ended."""
        return SeamlessError("the privileged part of seamless is gone; firewall rules may be left until it is back")

    def close(self) -> None:
        """End the connection, so that the rules go."""
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
                f"nobody keeps the firewall rules at {path} ({error.strerror}): start seamless-rules for this node"
            ) from None
        super().__init__(channel)


class PrivilegedPart(Channel):
    """A privileged process that is our child, and our end of a socket pair to it.

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
        """Return a sentence about how the process ended, for one that has."""
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return SeamlessError(f"the privileged part of seamless {how}; firewall rules may be left until the next start")

    def close(self) -> None:
        """End the socket pair, so that the rules go, and wait for the process to end."""
        super().close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass  # it waits for another program's lock on the firewall, and ends by itself when it has it


def failure(message: str) -> SeamlessError:
    """Return the error that a `FAILED` message tells of."""
    _, code, sentence = (message + "  ").split(" ", 2)
    error = PrivilegeError if code == str(EXIT_PRIVILEGE) else SeamlessError
    return error(sentence.strip() or f"the privileged part of seamless says {message!r}")


def _python_path() -> str:
    """Return where the process finds the same seamless as this one."""
    source = str(Path(seamless.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return f"{source}{os.pathsep}{known}" if known else source
