"""The privileged process: installs a node's firewall rules for its daemon, and removes them when the daemon is gone.

The problem: rules outlive the process that installed them. A daemon killed with -9 cannot remove its own, and one that
gave up its privilege may not. So a second, small process does it, on the daemon's request
(`seamless.linux.privileged_channel`).

* It computes the rules by itself and takes nothing but single words from the other end of the socket pair. Upon
  ``read`` it reads the configuration again, and says of which file; what follows from that is installed with the next
  ``install``, so a daemon can compare first.
* It removes what an earlier life left before it reports ``ready``.
* When the socket pair ends, however the daemon died, it removes the rules and ends. No signal that is sent to the
  daemon's whole group ends it before that.
* Rules get lost when another program reloads the firewall: it looks every few seconds, restores them and reports it.
* Some rules are to stay when the socket pair ends (`seamless.linux.ruleset.KEPT_PREFIXES`): they reject what must not
  go natively. It installs them first of all, before it sweeps the others, and never removes them. Running by itself, it
  checks them between daemons too.
* One at a time for a node and a network namespace: two would sweep each other's rules.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from seamless.errors import PrivilegeError, SeamlessError
from seamless.linux import installation, notify
from seamless.linux.installation import Installed, is_any
from seamless.linux.privileged_channel import (
    FAILED,
    INSTALL,
    INSTALLED,
    MESSAGE_BYTES,
    READ,
    READY,
    REMOVE,
    REMOVED,
    RENEWED,
    RESTORED,
    send_message,
)
from seamless.linux.ruleset import Ruleset, chain_name

Starters: TypeAlias = Mapping[str, Callable[[socket.socket], None]]
"""By word of the daemon: what is called with the socket that comes with it, and returns at once."""


@attrs.frozen
class Assignment:
    """What one reading of the configuration asks for.

    ``rulesets`` are there while the daemon is; ``kept`` are installed at once and stay. ``starters``: what is started
    on the daemon's word. ``digest`` is that of the file.
    """

    rulesets: tuple[Installed, ...]
    kept: tuple[Ruleset, ...] = ()
    starters: Starters = MappingProxyType({})
    digest: str = ""


Read: TypeAlias = Callable[[], Assignment]
"""Reads the configuration again; raises `SeamlessError` when it cannot be used."""

CHECK_INTERVAL: Final = 3.0
"""Seconds between two looks at whether the rules are still there. One look takes about 10 ms of processor time."""
PREDECESSOR_TIMEOUT: Final = 3.0
"""Seconds to wait for the privileged part of a daemon that was just killed: it needs about 0.1 to sweep and end."""
_PREDECESSOR_POLL_INTERVAL: Final = 0.05

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


def keep_rules(
    channel: socket.socket,
    owner: str,
    assignment: Assignment,
    check_interval: float = CHECK_INTERVAL,
    read: Read | None = None,
) -> None:
    """Serve the daemon at the other end of ``channel`` until that end is gone; then remove what may not stay.

    Without ``read`` the assignment stays what it is.
    """
    for number in _SIGNALS_FOR_THE_DAEMON:
        signal.signal(number, signal.SIG_IGN)
    with _only_one(owner):
        installation.apply(assignment.kept)
        installation.sweep(owner)
        _Attendance(channel, owner, assignment, check_interval, read).attend()


def serve_daemons(
    path: Path,
    user: int,
    owner: str,
    assignment: Assignment,
    check_interval: float = CHECK_INTERVAL,
    read: Read | None = None,
) -> None:
    """Serve daemons of ``user``, one after another, that connect to the socket at ``path``, until SIGTERM.

    Arguments as with `keep_rules`; ``user`` is a user id. The next daemon finds what the one before it had installed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit())
    with _only_one(owner), _listening_socket(path) as listener:
        installation.apply(assignment.kept)
        installation.sweep(owner)
        notify.notify(notify.READY)
        while True:
            listener.settimeout(check_interval if is_any(assignment.kept) else None)
            try:
                channel, _ = listener.accept()
            except TimeoutError:
                _restore_without_daemon(assignment.kept)
                continue
            with channel:
                if _user_at(channel) == user:
                    assignment = _Attendance(channel, owner, assignment, check_interval, read).attend()
                else:
                    report_failure(channel, PrivilegeError(f"only user {user} may have the rules of {owner} installed"))


def report_failure(channel: socket.socket, error: SeamlessError) -> None:
    """Send the daemon a message ``failed``, with the exit code and the sentence of ``error``."""
    send_message(channel, f"{FAILED} {error.exit_code} {error}")


class _Attendance:
    """Serves one daemon, for as long as it is there."""

    def __init__(
        self, channel: socket.socket, owner: str, assignment: Assignment, check_interval: float, read: Read | None
    ) -> None:
        self._channel = channel
        self._owner = owner
        self._check_interval = check_interval
        self._read = read
        self._assignment = assignment
        self._next: Assignment | None = None
        """What was read since, and is not installed yet."""
        self._watched: tuple[Installed, ...] = assignment.kept
        """The rules that are put back when another program removes them."""
        self._started: set[str] = set()
        """The words upon which something was started: once for each, since each time takes threads."""

    def attend(self) -> Assignment:
        """Serve the daemon until it is gone, and remove its rules; return what it had installed last."""
        try:
            send_message(self._channel, READY)
            while self._serve_once():
                pass
        finally:
            installation.sweep(self._owner)
        return self._assignment

    def _serve_once(self) -> bool:
        """Act on one message, or look after the rules; return False when the daemon is gone."""
        self._channel.settimeout(self._check_interval if is_any(self._watched) else None)
        try:
            word, came_with = _receive(self._channel)
            if word == READ:
                self._read_again()
            elif word == INSTALL:
                self._install()
            elif word == REMOVE:
                self._remove()
            elif came_with is not None:
                self._start(word, came_with)
            return bool(word)
        except TimeoutError:
            _restore(self._channel, self._watched)
        except SeamlessError as error:
            report_failure(self._channel, error)
        return True

    def _start(self, word: str, channel: socket.socket) -> None:
        starter = (self._next or self._assignment).starters.get(word)
        if starter is not None and word not in self._started:
            self._started.add(word)
            starter(channel)

    def _read_again(self) -> None:
        if self._read is not None:
            self._next = None
            self._next = self._read()
            self._started -= RENEWED
        send_message(self._channel, f"{READ} {(self._next or self._assignment).digest}")

    def _install(self) -> None:
        assignment = self._next or self._assignment
        wanted: tuple[Installed, ...] = (*assignment.kept, *assignment.rulesets)
        installation.apply((*wanted, *_emptied(self._owner, self._assignment, assignment)))
        installation.remove_routes(self._owner, [one for one in self._assignment.rulesets if one not in wanted])
        self._assignment, self._next = assignment, None
        # One that cannot be recognised would be put back, in vain, every time.
        self._watched = wanted
        if not installation.is_installed(wanted):
            self._watched = tuple(one for one in wanted if installation.is_installed([one]))
        remarks = [_UNKNOWN_WORDS] if len(self._watched) < len(wanted) else []
        stay = [_WILL_STAY] if is_any(assignment.kept) else []
        send_message(self._channel, " ".join((INSTALLED, *remarks, *stay)))

    def _remove(self) -> None:
        kept = self._assignment.kept
        self._watched = tuple(one for one in self._watched if one in kept)
        installation.sweep(self._owner)
        send_message(self._channel, f"{REMOVED} {_STAYS.format(owner=self._owner)}" if is_any(kept) else REMOVED)


def _emptied(owner: str, before: Assignment, after: Assignment) -> Iterator[Ruleset]:
    """Yield an empty ruleset for each chain that one assignment fills and the next one does not."""
    filled = {(one.version, one.prefix) for one in after.rulesets if isinstance(one, Ruleset)}
    for one in before.rulesets:
        if isinstance(one, Ruleset) and (one.version, one.prefix) not in filled:
            yield Ruleset(owner, one.version, prefix=one.prefix)


def _restore_without_daemon(kept: Sequence[Ruleset]) -> None:
    """Put back, while no daemon is here, rules that stay and that another program removed; say so on standard error."""
    try:
        lost = installation.lost(kept)
        if lost:
            installation.apply(kept)
            print(f"seamless: another program removed {len(lost)} of our firewall rules: put back", file=sys.stderr)
    except SeamlessError as error:
        print(f"seamless: cannot look after the firewall rules: {error}", file=sys.stderr)


def _receive(channel: socket.socket) -> tuple[str, socket.socket | None]:
    """Return a message and the socket that came with it; an empty message when the daemon is gone or at fault."""
    message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
    if not descriptors:
        return message.decode(errors="replace"), None
    try:
        return message.decode(errors="replace"), socket.socket(fileno=descriptors[0])
    except OSError:
        os.close(descriptors[0])
        return "", None


def _restore(channel: socket.socket, rulesets: Sequence[Installed]) -> None:
    """Put back the rules that another program removed."""
    try:
        lost = installation.lost(rulesets)
        if lost:
            installation.apply(rulesets)
            send_message(channel, f"{RESTORED} {len(lost)}")
    except SeamlessError as error:
        report_failure(channel, error)


def _only_one(owner: str) -> socket.socket:
    """Return a socket that only one process of this network namespace can have, whose name ends with that process."""
    until = time.monotonic() + PREDECESSOR_TIMEOUT
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
            time.sleep(_PREDECESSOR_POLL_INTERVAL)


@contextmanager
def _listening_socket(path: Path) -> Iterator[socket.socket]:
    """Listen at ``path``. Any local user may connect; `_user_at` says which one did."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise SeamlessError(f"cannot listen at {path}: {error.strerror}; make its folder first") from None
        try:
            path.chmod(0o666)
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _user_at(channel: socket.socket) -> int:
    """Return the user id of the process that connected, as the kernel knows it (unix(7), SO_PEERCRED)."""
    _, user, _ = _PEER_CREDENTIALS.unpack(
        channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    )
    return int(user)
