"""The control socket of a daemon: a Unix socket for each node, with one JSON request and answer a connection.

A daemon listens at ``NODE.sock`` in a directory that both sides can guess: /run/seamless for root, the user's own
runtime directory otherwise, or whatever SEAMLESS_SOCKET_DIR says. Who may ask is what the file's mode says (0660). A
question is one line of JSON and so is its answer; then the connection ends, so neither side ever has more than one to
keep.

A file that a dead daemon left is replaced. One at which a daemon answers is not: two nodes of one name on one host are
a mistake, and this is where it is noticed.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from seamless.errors import EXIT_FAILED, ConfigurationError, PrivilegeError, SeamlessError, UnreachableError, UsageError

DIRECTORY_VARIABLE: Final = "SEAMLESS_SOCKET_DIR"
DIRECTORY_OF_ROOT: Final = Path("/run/seamless")
DIRECTORY_MODE: Final = 0o755
SOCKET_MODE: Final = 0o660
"""Owner and group may connect."""
SUFFIX: Final = ".sock"

MAX_REQUEST_BYTES: Final = 4096
"""Bytes of the longest request."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds that the asking side waits. The daemon takes half of it at most, which is for a peer that does not answer."""

_CREDENTIALS: Final = struct.Struct("=iii")
"""struct ucred: process, user, group (unix(7), SO_PEERCRED)."""
_ERRORS: Final = {
    error.exit_code: error
    for error in (SeamlessError, UsageError, ConfigurationError, PrivilegeError, UnreachableError)
}


def directory() -> Path:
    """Return the folder of the control sockets of this user's daemons."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return DIRECTORY_OF_ROOT
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") / "seamless"


def path_of(node: str) -> Path:
    """Return the path of this node's control socket."""
    return directory() / f"{node}{SUFFIX}"


# The daemon's side.


def refuse_second(path: Path) -> None:
    """Raise `SeamlessError` when a daemon answers at ``path`` already."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)  # a full backlog is an answer too
        try:
            sock.connect(str(path))
        except BlockingIOError:
            pass
        except OSError:
            return
        node = path.name.removesuffix(SUFFIX)
        raise SeamlessError(
            f"node {node} runs on this host already ({_process(sock)}{path}): stop that daemon first, or start this "
            "one under its own name"
        )


def make_room(path: Path) -> None:
    """Make the directory, and remove what a dead daemon left at ``path``. `OSError` when that cannot be."""
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(0, f"{path} is there and is no socket")
    path.unlink()


def _process(sock: socket.socket) -> str:
    try:
        process, _, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return ""
    return f"process {process}, " if process > 0 else ""


# The asking side.


def find(node: str | None, path: str | None) -> Path:
    """Return the socket to ask at: ``path``, that of ``node``, or that of the only other candidate.

    That is the only node that runs here, or of several the one with the name of this host.
    """
    if path is not None:
        return Path(path)
    if node is not None:
        return path_of(node)
    running = sorted(_running())
    if not running:
        raise UnreachableError(
            f"no node runs on this host as far as {directory()} shows: start one with twistd seamless; one that "
            "another user started is to be asked by that user, or with --socket PATH"
        )
    namesake = path_of(socket.gethostname().partition(".")[0])
    if len(running) > 1 and namesake in running:
        return namesake
    if len(running) > 1:
        names = ", ".join(found.name.removesuffix(SUFFIX) for found in running)
        raise UsageError(f"several nodes run on this host: say with --node which one is meant ({names})")
    return running[0]


def has_running() -> bool:
    """Return whether a node runs on this host, as far as `directory` shows."""
    return next(_running(), None) is not None


def _running() -> Iterator[Path]:
    for path in directory().glob(f"*{SUFFIX}"):
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                continue
            except OSError:
                pass  # not ours to ask, but it is there; `ask` will say so
            yield path


def ask(path: Path, request: Mapping[str, object], timeout: float = ANSWER_TIMEOUT) -> Any:
    """Send one request and return the daemon's answer, for which it has ``timeout`` seconds.

    Raise `UnreachableError` when there is none, and the error that the daemon answered with.
    """
    try:
        line = _converse(path, json.dumps(request).encode() + b"\n", timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        raise UnreachableError(
            f"no daemon answers at {path}: start the node with twistd seamless, or say with --node or --socket which "
            "daemon is meant"
        ) from None
    except PermissionError:
        raise PrivilegeError(
            f"not permitted to ask the daemon at {path}: run this as its user, or as one of its group"
        ) from None
    except TimeoutError:
        raise UnreachableError(
            f"the daemon at {path} has not answered for {timeout:g} s: it is stopped or overloaded"
        ) from None
    except OSError as error:
        raise UnreachableError(f"cannot ask the daemon at {path}: {error.strerror or error}") from None
    if not line:
        raise UnreachableError(f"the daemon at {path} hung up: it is stopping, or too many are asking; try again")
    answer = json.loads(line)
    if "error" in answer:
        raise _ERRORS.get(answer.get("exit_code", EXIT_FAILED), SeamlessError)(answer["error"])
    return answer["answer"]


def _converse(path: Path, line: bytes, timeout: float) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        sock.sendall(line)
        with sock.makefile("rb") as answer:
            return answer.readline()
