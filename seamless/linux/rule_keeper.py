"""The privileged process: installs a node's firewall rules for its daemon, and removes them when the daemon is gone.

The problem: rules outlive the process that installed them. A daemon killed with -9 cannot remove its own, and one that
gave up its privilege may not. So a second, small process does it, on the daemon's request
(`seamless.linux.privileged_channel`).

* It computes the rules by itself and takes nothing but single words from the other end of the socket pair.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from seamless.errors import PrivilegeError, SeamlessError
from seamless.linux import iptables, notify
from seamless.linux.privileged_channel import (
    CAPTURE,
    FAILED,
    INSTALL,
    INSTALLED,
    MESSAGE_BYTES,
    READY,
    REMOVE,
    REMOVED,
    RESTORED,
    send_message,
)
from seamless.linux.ruleset import Ruleset, chain_name

Capturing: TypeAlias = Callable[[socket.socket], None]
"""Called with the daemon's socket for whole packets."""

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
    rulesets: Sequence[Ruleset],
    check_interval: float = CHECK_INTERVAL,
    capture: Capturing | None = None,
    kept: Sequence[Ruleset] = (),
) -> None:
    """Serve the daemon at the other end of ``channel`` until that end is gone; then remove ``rulesets``.

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
    """Serve daemons of ``user``, one after another, that connect to the socket at ``path``, until SIGTERM.

    Arguments as with `keep_rules`; ``user`` is a user id.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit())
    with _only_one(owner), _listening_socket(path) as listener:
        iptables.apply(kept)
        iptables.sweep(owner)
        notify.notify(notify.READY)
        listener.settimeout(check_interval if has_rules(kept) else None)
        while True:
            try:
                channel, _ = listener.accept()
            except TimeoutError:
                _restore_without_daemon(kept)
                continue
            with channel:
                if _user_at(channel) == user:
                    _attend(channel, owner, rulesets, check_interval, capture, kept)
                else:
                    report_failure(channel, PrivilegeError(f"only user {user} may have the rules of {owner} installed"))


def report_failure(channel: socket.socket, error: SeamlessError) -> None:
    """Send the daemon a message ``failed``, with the exit code and the sentence of ``error``."""
    send_message(channel, f"{FAILED} {error.exit_code} {error}")


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
        send_message(channel, READY)
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
            word, packets = _receive(channel)
            if not word:
                return
            if word == INSTALL:
                iptables.apply((*kept, *rulesets))
                # One that cannot be recognised would be put back, in vain, every time.
                watched = tuple(one for one in (*kept, *rulesets) if iptables.is_installed([one]))
                remarks = [_UNKNOWN_WORDS] if len(watched) < len((*kept, *rulesets)) else []
                send_message(channel, " ".join((INSTALLED, *remarks, *([_WILL_STAY] if has_rules(kept) else []))))
            elif word == REMOVE:
                watched = tuple(one for one in watched if one in kept)
                iptables.sweep(owner)
                send_message(channel, f"{REMOVED} {_STAYS.format(owner=owner)}" if has_rules(kept) else REMOVED)
            elif word == CAPTURE and packets is not None and capture is not None:
                capture(packets)
                capture = None  # once: each time takes two threads
        except TimeoutError:
            _restore(channel, watched)
        except SeamlessError as error:
            report_failure(channel, error)


def has_rules(rulesets: Iterable[Ruleset]) -> bool:
    """Return whether any of these rulesets has a rule."""
    return any(ruleset.rules for ruleset in rulesets)


def _restore_without_daemon(kept: Sequence[Ruleset]) -> None:
    """Put back, while no daemon is here, rules that stay and that another program removed; say so on standard error."""
    try:
        lost = iptables.lost(kept)
        if lost:
            iptables.apply(kept)
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


def _restore(channel: socket.socket, rulesets: Sequence[Ruleset]) -> None:
    """Put back the rules that another program removed."""
    try:
        lost = iptables.lost(rulesets)
        if lost:
            iptables.apply(rulesets)
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
