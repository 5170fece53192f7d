"""A running lab: run programs on its hosts, change its wires, read their counters.

The process that brought the lab up (`seamless.lab.lab`) is one such user; any other process of the same person attaches
to it by its directory.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from seamless.config.model import Impairment
from seamless.errors import SeamlessError, UnreachableError, UsageError
from seamless.lab.emulator_control import ask
from seamless.lab.topology import WireEnds
from seamless.linux.control_socket import DIRECTORY_VARIABLE
from seamless.linux.netns import Host
from seamless.linux.system import program

STATE_FILE: Final = "lab.json"
CONTROL_SOCKET: Final = "emulator.sock"

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds for one command on a host, unless the caller gives more."""


class Bed:
    """The hosts and wires of a running lab."""

    def __init__(self, directory: Path, owner_pid: int) -> None:
        self.directory = directory
        self.owner_pid = owner_pid
        self.hosts: dict[str, Host] = {}
        self.wires: tuple[WireEnds, ...] = ()

    @classmethod
    def attach(cls, directory: Path) -> Bed:
        """Return the lab whose state is in this directory; raise `UnreachableError` if its owner is gone."""
        try:
            state = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UnreachableError(f"No lab is up in {directory}: seamless lab up FILE") from None
        bed = cls(directory, state["owner_pid"])
        if started_at(bed.owner_pid) != state["owner_started_at"]:
            raise UnreachableError(f"The lab in {directory} died with process {bed.owner_pid}: seamless lab up FILE")
        bed.hosts = {host["name"]: Host(**host) for host in state["hosts"]}
        bed.wires = tuple(WireEnds(tuple(wire["hosts"]), tuple(wire["devices"])) for wire in state["wires"])
        return bed

    def save(self) -> None:
        """Write the state file, which `attach` reads."""
        state = {
            "owner_pid": self.owner_pid,
            "owner_started_at": started_at(self.owner_pid),
            "hosts": [attrs.asdict(host) for host in self.hosts.values()],
            "wires": [attrs.asdict(wire) for wire in self.wires],
        }
        (self.directory / STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    def host(self, name: str) -> Host:
        """Return a host by name; `UsageError` if there is none."""
        try:
            return self.hosts[name]
        except KeyError:
            raise UsageError(f"There is no host {name}; there are {', '.join(self.hosts)}.") from None

    def command(self, host: str, argv: Sequence[str], directory: str | None = None) -> list[str]:
        """Return the command line that runs ``argv`` on a host, for callers that start the process themselves."""
        path = argv[0] if "/" in argv[0] else program(argv[0])
        # Nodes of two labs have the same names: each lab has its own place for their sockets.
        sockets = f"{DIRECTORY_VARIABLE}={self.directory / 'run'}"
        return self.host(host).enter([program("env"), sockets, path, *argv[1:]], directory)

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        timeout: float = DEFAULT_TIMEOUT,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on a host to its end. With ``check`` a failure is a `SeamlessError` with its last words."""
        command = self.command(host, argv)
        try:
            done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise SeamlessError(f"{' '.join(argv)} on {host} was not done after {timeout:g} s.") from None
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise SeamlessError(f"{' '.join(argv)} on {host} failed with exit code {done.returncode}: {words}")
        return done

    def wires_between(self, one: str, other: str) -> list[tuple[int, bool]]:
        """Return (place in the plan, whether ``one`` is its first end) of all wires that join two hosts."""
        self.host(one), self.host(other)
        found = [
            (index, wire.hosts[0] == one) for index, wire in enumerate(self.wires) if set(wire.hosts) == {one, other}
        ]
        if not found:
            raise UsageError(f"No wire joins {one} and {other}.")
        return found

    def set_wire(self, one: str, other: str, *, direction: str | None = None, **change: Any) -> None:
        """Change what the wires between two hosts do: fields of `Impairment`, for what ``direction`` sends, or both."""
        if direction not in (None, one, other):
            raise UsageError(f"The wire joins {one} and {other}; nothing on it comes from {direction}.")
        unknown = set(change) - set(attrs.fields_dict(Impairment))
        if unknown:
            raise UsageError(f"A wire has no {', '.join(sorted(unknown))}.")
        for index, straight in self.wires_between(one, other):
            for sender, end in ((one, 0 if straight else 1), (other, 1 if straight else 0)):
                if direction in (None, sender):
                    ask(self.directory / CONTROL_SOCKET, {"do": "set", "wire": index, "end": end, "change": change})

    def counters(self, one: str, other: str) -> Mapping[str, Mapping[str, int]]:
        """Return by sending host what the wires between two hosts did: fields of `impair.Counters` and

        ``split`` (super-packets that had to be cut), ``refused`` (the receiving kernel would not take them) and
        ``tun_dropped`` (the sending kernel dropped them because the emulator did not read fast enough).
        """
        wires = ask(self.directory / CONTROL_SOCKET, {"do": "counters"})["wires"]
        sums: dict[str, Counter[str]] = {one: Counter(), other: Counter()}
        for index, _ in self.wires_between(one, other):
            for end in (0, 1):
                sender = self.wires[index].hosts[end]
                sums[sender].update(wires[index][end])
                dropped = self.hosts[sender].dropped_packets(self.wires[index].devices[end])
                sums[sender].update(tun_dropped=dropped)
        return sums

    def impairments(self, one: str, other: str) -> Mapping[str, Impairment]:
        """Return by sending host what the (first) wire between two hosts is like at present."""
        wires = ask(self.directory / CONTROL_SOCKET, {"do": "impairments"})["wires"]
        index, _ = self.wires_between(one, other)[0]
        return {self.wires[index].hosts[end]: Impairment(**wires[index][end]) for end in (0, 1)}


def started_at(pid: int) -> str | None:
    """Return when a process started (in the kernel's ticks), None if there is none: process ids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[_START_TIME_FIELD]


_START_TIME_FIELD: Final = 19
"""Column of /proc/PID/stat after the command's closing parenthesis (proc_pid_stat(5), field 22)."""
