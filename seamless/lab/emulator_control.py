"""The interface between a lab and its emulator: the plan at its start, and JSON requests over a Unix socket.

A request is one JSON object on a line, the answer too: ``{"error": "sentence"}`` or what was asked for. Wires and ends
are named by their place in the plan.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from seamless.config.model import Impairment
from seamless.errors import SeamlessError, UnreachableError

Request: TypeAlias = dict[str, Any]

_CHUNK_BYTES: Final = 65_536
_ANSWER_SECONDS: Final = 10.0
"""An emulator that is busy answers within milliseconds; one that does not answer for so long hangs."""


@attrs.frozen
class End:
    """One end of a wire: a device to be made in the network namespace of the holder."""

    holder_pid: int
    device: str


@attrs.frozen
class Wire:
    """A wire; ``forward`` is what ``ends[0]`` sends."""

    ends: tuple[End, End]
    forward: Impairment
    backward: Impairment


@attrs.frozen
class EmulatorPlan:
    """The seed and the wires with which an emulator starts."""

    seed: int
    wires: tuple[Wire, ...]

    def to_json(self) -> str:
        """Return the plan as text."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> EmulatorPlan:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return cls(values["seed"], tuple(cls._wire(wire) for wire in values["wires"]))

    @staticmethod
    def _wire(values: dict[str, Any]) -> Wire:
        one, other = (End(**end) for end in values["ends"])
        return Wire((one, other), Impairment(**values["forward"]), Impairment(**values["backward"]))


class EmulatorControl:
    """The emulator's side: a listening socket, and callers that may send several requests each."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        with _short(path) as short:
            self._listener.bind(short)
        self._listener.listen()
        self._callers: dict[int, tuple[socket.socket, bytearray]] = {}

    def descriptors(self) -> Iterable[int]:
        """Return the file descriptors to wait for."""
        return [self._listener.fileno(), *self._callers]

    def answer(self, descriptor: int, obey: Callable[[Request], Request]) -> None:
        """Take what has come on a readable descriptor, and answer each request that is whole."""
        if descriptor == self._listener.fileno():
            caller, _ = self._listener.accept()
            caller.settimeout(_ANSWER_SECONDS)
            self._callers[caller.fileno()] = caller, bytearray()
            return
        caller, pending = self._callers[descriptor]
        try:
            received = caller.recv(_CHUNK_BYTES)
            pending += received
            while b"\n" in pending:
                line, _, rest = bytes(pending).partition(b"\n")
                pending[:] = rest
                caller.sendall(json.dumps(_answer(line, obey)).encode() + b"\n")
        except OSError:
            received = b""
        if not received:
            del self._callers[descriptor]
            caller.close()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a path of a few characters to a socket's folder: the kernel takes 107 for the whole (unix(7))."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _answer(line: bytes, obey: Callable[[Request], Request]) -> Request:
    try:
        return obey(json.loads(line))
    except (SeamlessError, ValueError, TypeError, LookupError) as error:
        return {"error": f"The emulator cannot do this: {error}"}


def ask(path: Path, request: Request) -> Request:
    """Send one request to an emulator and return its answer; raise `UnreachableError` if there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            with _short(path) as short:
                connection.connect(short)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer: Request = json.loads(answers.readline())
    except (OSError, ValueError) as error:
        raise UnreachableError(f"The emulator at {path} does not answer ({error}): is the lab up?") from None
    if "error" in answer:
        raise SeamlessError(answer["error"])
    return answer
