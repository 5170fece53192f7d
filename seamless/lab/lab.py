"""The lab: a wide area on one machine, made from ``host`` and ``wire`` blocks; it ends with the process that made it.

    with Lab(configuration, configuration_file=path) as lab:
        lab.start_servers()
        lab.start_nodes()
        lab.run("src", ["scp", "big", "dst:/tmp/"])

Order of things: holders make the hosts, the emulator makes the devices inside them, then addresses, routes and settings
are told to each host's kernel. Everything hangs on pipes to this process, so a lab cannot outlive it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from seamless.config.model import Configuration
from seamless.errors import PrivilegeError, SeamlessError, UsageError
from seamless.lab import daemons, servers
from seamless.lab.bed import CONTROL_SOCKET, STATE_FILE, Bed
from seamless.lab.emulator_control import EmulatorPlan, End, Wire
from seamless.lab.topology import host_addresses, host_setup, wire_ends
from seamless.linux import control_socket
from seamless.linux.netns import Holders, needs_user_namespace
from seamless.linux.system import program

_DEPARTURE_SECONDS: Final = 5.0
"""Seconds that programs on the hosts may take to end after SIGTERM."""


class Lab(Bed):
    """A lab that this process owns. Without ``directory`` it gets one of its own, which it removes."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        directory: Path | None = None,
        configuration_file: Path | None = None,
        seed: int = 1,
        rootless: bool | None = None,
    ) -> None:
        self._own_directory = directory is None
        super().__init__(Path(directory or tempfile.mkdtemp(prefix="seamless-lab-")).resolve(), os.getpid())
        self.configuration = configuration
        self.seed = seed
        self._configuration_file = configuration_file
        self._rootless = needs_user_namespace() if rootless is None else rootless
        self._holders: Holders | None = None
        self._emulator: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._nodes: dict[str, daemons.RunningNode] = {}
        self.takes_udp_offload = False
        """Whether this kernel's TUN devices carry UDP super-packets whole."""

    def __enter__(self) -> Lab:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        servers.write_ssh_client(self.directory, host_addresses(self.configuration))
        setups = {host.name: host_setup(self.configuration, host) for host in self.configuration.hosts.values()}
        self._holders = Holders(self._rootless)
        for name in self.configuration.hosts:
            self.host_directory(name).mkdir(parents=True, exist_ok=True)
            self.hosts[name] = self._holders.add(name, servers.covers(self.directory, self._rootless))
            self.hosts[name].set_sysctl(setups[name].sysctls)
        self.wires = wire_ends(self.configuration)
        self._start_emulator()
        for name, setup in setups.items():
            if setup.commands:
                self.hosts[name].set_up(setup.commands)
        self.save()

    def _start_emulator(self) -> None:
        assert self._holders is not None
        plan_file = self.directory / "emulator.json"
        plan_file.write_text(self._plan().to_json(), encoding="utf-8")
        emulator_socket = self.directory / CONTROL_SOCKET
        emulator_socket.unlink(missing_ok=True)
        emulator = [sys.executable, "-m", "seamless.lab.emulator", str(plan_file), str(emulator_socket)]
        self._emulator = subprocess.Popen(
            self._holders.user_namespace.enter([program("unshare"), "--net", *emulator]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=daemons.environment(),
            start_new_session=True,
        )
        assert self._emulator.stdout is not None
        answer = self._emulator.stdout.readline().strip()
        if not answer.startswith("ready"):
            raise PrivilegeError(answer or "The emulator died as it started; its last words are above.")
        self.takes_udp_offload = "UDP" in answer

    def _plan(self) -> EmulatorPlan:
        wires = []
        for wire, ends in zip(self.configuration.wires, self.wires, strict=True):
            one, other = (
                End(self.hosts[host].pid, device) for host, device in zip(ends.hosts, ends.devices, strict=True)
            )
            wires.append(Wire((one, other), wire.forward, wire.backward))
        return EmulatorPlan(self.seed, tuple(wires))

    @property
    def emulator_pid(self) -> int:
        """Return the process id of the emulator, which carries all wires."""
        assert self._emulator is not None
        return self._emulator.pid

    def host_directory(self, host: str) -> Path:
        """Return the directory that belongs to one host: its logs, keys, and what its servers serve."""
        return self.directory / "hosts" / host

    def popen(
        self,
        host: str,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, in a session of its own; it is killed with the lab if not before."""
        child = subprocess.Popen(
            self.command(host, argv, None if directory is None else str(directory)),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def start_servers(self) -> None:
        """Start the servers that the configuration names on each host, and wait until all of them accept."""
        started = []
        for host in self.configuration.hosts.values():
            for name in host.servers:
                server = servers.prepare(name, self.host_directory(host.name), self.directory, self._rootless)
                with open(server.log, "ab") as log:
                    child = self.popen(host.name, server.argv, stdout=log, stderr=log)
                started.append((self.hosts[host.name], server, child))
        for where, server, child in started:
            servers.wait_until_listening(where, server, child)

    def key_file(self, node: str) -> Path:
        """Write a node's key (the lab's own, which is no secret) with mode 0600, and return its path."""
        return daemons.write_key(self.directory, node)

    def node_socket(self, node: str) -> Path:
        """Return the path of a node's control socket."""
        return self.directory / "run" / f"{node}{control_socket.SUFFIX}"

    def start_nodes(self, names: Sequence[str] | None = None) -> None:
        """Start a daemon in every host that is a node (or in those named), and wait until all are up.

        Up means that it answers; for a path to another node, call ``lab.node("src").wait_until_reaches("dst")``.
        """
        if self._configuration_file is None:
            raise UsageError("Nodes need the configuration as a file: Lab(..., configuration_file=path)")
        wanted = [name for name in self.configuration.nodes if name in self.hosts] if names is None else names
        for name in wanted:
            log = self.host_directory(name) / "node.log"
            argv = daemons.command(self._configuration_file, name, self.key_file(name))
            with open(log, "ab") as output:
                log_start = output.tell()
                child = self.popen(
                    name,
                    argv,
                    stdout=output,
                    stderr=output,
                    directory=self.host_directory(name),
                    environment=daemons.environment(),
                )
            self._nodes[name] = daemons.RunningNode(name, child, log, self.node_socket(name), log_start)
        for name in wanted:
            self._nodes[name].wait_until_up()

    def node(self, name: str) -> daemons.RunningNode:
        """Return a node that was started: its ``process`` and its ``log``."""
        try:
            return self._nodes[name]
        except KeyError:
            raise UsageError(f"The node {name} was not started.") from None

    def stop_node(self, name: str, signal_number: int = signal.SIGTERM) -> int:
        """Send a node a signal that ends it; return its exit code, negative for a signal's."""
        process = self.node(name).process
        process.send_signal(signal_number)
        try:
            return process.wait(_DEPARTURE_SECONDS)
        except subprocess.TimeoutExpired:
            raise SeamlessError(f"The node {name} still runs {_DEPARTURE_SECONDS:g} s after SIGTERM.") from None

    @staticmethod
    def _end(emulator: subprocess.Popen[str]) -> None:
        """Close the emulator's standard input, which ends it; one that stands still is killed."""
        try:
            emulator.communicate(timeout=_DEPARTURE_SECONDS)
        except subprocess.TimeoutExpired:
            emulator.kill()
            emulator.communicate()

    def close(self) -> None:
        """End all nodes with SIGTERM, kill all other programs, and remove hosts and wires."""
        for node in self._nodes.values():
            node.process.terminate()
        for node in self._nodes.values():
            try:
                node.process.wait(_DEPARTURE_SECONDS)
            except subprocess.TimeoutExpired:
                node.process.kill()
        self._nodes.clear()
        if self._emulator is not None:
            self._end(self._emulator)
            self._emulator = None
        if self._holders is not None:
            self._holders.close()
            self._holders = None
        for child in self._children:
            child.wait()
        self._children.clear()
        (self.directory / STATE_FILE).unlink(missing_ok=True)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
