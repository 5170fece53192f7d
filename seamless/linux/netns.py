"""Hosts on one machine: each a network namespace, with a host name and mounts of its own, that lives while we hold it.

A *holder* is a small process inside the host's namespaces that waits for its standard input to end. Its owner holds the
other end of that pipe, so however the owner dies, the holder notices; it then kills every process that is left in its
network namespace, and with the last of them the namespace and its devices are gone. There is nothing in
``/run/netns``, so nothing can be left behind and two owners may use the same names.

Without root everything happens inside one user namespace, in which the caller is root (user_namespaces(7)).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from seamless.errors import PrivilegeError
from seamless.linux.system import program, run

_HOLD_USER_NAMESPACE: Final = "echo ready; exec cat > /dev/null"
_HOLD_HOST: Final = r"""
name=$1; shift
while [ $# -gt 0 ]; do mount --bind "$1" "$2" || exit 1; shift 2; done
ip link set lo up || exit 1
hostname "$name"
mount -t sysfs sysfs /sys 2> /dev/null
echo ready
cat > /dev/null
for round in 1 2; do
    kill -KILL $(find -L /proc/[0-9]*/ns/net -maxdepth 0 -samefile /proc/$$/ns/net | cut -d / -f 3 | grep -vx $$)
done 2> /dev/null
"""
"""Arguments: the name of the host, then pairs of a path, and the path over which this host sees it."""

_DEPARTURE_SECONDS: Final = 10.0
"""How long a holder may take for its last round; it needs a fraction of a second."""


@attrs.frozen
class UserNamespace:
    """The user namespace in which hosts are created: that of a process, or (None) this process's own, as root."""

    pid: int | None = None

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs ``argv`` with the privilege to make and enter hosts."""
        if self.pid is None:
            return list(argv)
        return [program("nsenter"), f"--target={self.pid}", "--user", "--preserve-credentials", *argv]


@attrs.frozen
class Host:
    """A network namespace that this or another process keeps alive."""

    name: str
    pid: int
    in_user_namespace: bool

    def enter(self, argv: Sequence[str], directory: str | None = None) -> list[str]:
        """Return the command line that runs ``argv`` on this host; it execs, so the process keeps its id."""
        user = ["--user", "--preserve-credentials"] if self.in_user_namespace else []
        working = f"--wdns={directory or os.getcwd()}"
        return [program("nsenter"), f"--target={self.pid}", *user, "--mount", "--net", "--uts", working, "--", *argv]

    def set_up(self, commands: Sequence[str]) -> None:
        """Run commands of iproute2 on this host, each without its leading ``ip``."""
        run(self.enter([program("ip"), "-batch", "-"]), input="\n".join(commands) + "\n")

    def set_sysctl(self, settings: Mapping[str, str]) -> None:
        """Write kernel settings of this host's network."""
        run(self.enter([program("sysctl"), "-q", "-w", *(f"{key}={value}" for key, value in settings.items())]))

    def listening_ports(self) -> set[int]:
        """Return the TCP ports on which processes listen on this host."""
        ports = set()
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self.pid}/net/{table}", encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    _, local, _, state, *_ = line.split()
                    if state == _TCP_LISTEN:
                        ports.add(int(local.rpartition(":")[2], 16))
        return ports

    def dropped_packets(self, device: str) -> int:
        """Return how many packets the kernel dropped because the send queue of ``device`` was full."""
        with open(f"/proc/{self.pid}/net/dev", encoding="ascii") as lines:
            for line in lines:
                name, _, figures = line.partition(":")
                if name.strip() == device:
                    return int(figures.split()[_TRANSMIT_DROP_FIELD])
        return 0


_TCP_LISTEN: Final = "0A"
"""State column of /proc/net/tcp (include/net/tcp_states.h)."""
_TRANSMIT_DROP_FIELD: Final = 11
"""Column of /proc/net/dev, after eight columns for receiving, bytes, packets and errs."""


def needs_user_namespace() -> bool:
    """Return whether this process must make itself a user namespace to be allowed anything."""
    return os.geteuid() != 0


class Holders:
    """Creates and holds hosts; they are gone when it is closed or this process ends."""

    def __init__(self, rootless: bool) -> None:
        self._holders: list[subprocess.Popen[str]] = []
        self.user_namespace = UserNamespace()
        if rootless:
            argv = [program("unshare"), "--user", "--map-root-user", "sh", "-c", _HOLD_USER_NAMESPACE]
            self.user_namespace = UserNamespace(self._hold(argv, "a user namespace"))

    def add(self, name: str, over: Mapping[str, str]) -> Host:
        """Make a host with loopback up, which sees other files ``over`` some paths: {path to cover: what covers it}."""
        covers = [path for target, source in over.items() for path in (source, target)]
        unshare = [program("unshare"), "--mount", "--net", "--uts", "--propagation=private"]
        argv = self.user_namespace.enter([*unshare, "sh", "-c", _HOLD_HOST, "hold", name, *covers])
        return Host(name, self._hold(argv, f"the host {name}"), self.user_namespace.pid is not None)

    def _hold(self, argv: list[str], what: str) -> int:
        holder = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )
        self._holders.append(holder)
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != "ready\n":
            complaint = holder.stderr.read().strip()
            raise PrivilegeError(
                f"Cannot make {what} ({complaint}): run as root, or allow user namespaces with "
                "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
            )
        return holder.pid

    def close(self) -> None:
        """Remove all hosts, and wait until they are gone."""
        for holder in reversed(self._holders):
            assert holder.stdin is not None
            holder.stdin.close()
        for holder in reversed(self._holders):
            try:
                holder.wait(_DEPARTURE_SECONDS)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            for stream in (holder.stdout, holder.stderr):
                if stream is not None:
                    stream.close()
        self._holders.clear()
