"""What the benches share: a lab up with its servers, nodes that are asked for their counters, what a run costs them.

CPU is in processors, that is CPU seconds per second, of each node's daemon and of the emulator, and what the whole
machine was busy with: where that is all it has, rates say how fast the machine is.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from seamless.config.load import load_file
from seamless.errors import ConfigurationError
from seamless.lab import measure
from seamless.lab.daemons import RunningNode
from seamless.lab.demo import ending_on_signals
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER
from seamless.linux import control_socket
from seamless.linux.system import cpu_seconds


@contextmanager
def changed(*changes: tuple[str, str], file: Path = measure.BED_FILE) -> Iterator[Path]:
    """Write a configuration in which some words are replaced, everywhere, and yield its path."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        if old not in text:
            raise ConfigurationError(f"{file} has no {old!r} to replace")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory(prefix="seamless-bench-") as folder:
        path = Path(folder) / file.name
        path.write_text(text, encoding="utf-8")
        yield path


@contextmanager
def bed(file: Path = measure.BED_FILE) -> Iterator[Lab]:
    """Bring a lab up with its servers and without nodes; Ctrl-C takes it down in order."""
    with ending_on_signals() as ignore_signals, Lab(load_file(file), configuration_file=file) as lab:
        lab.start_servers()
        yield lab
        ignore_signals()


@attrs.define
class Watched:
    """The running nodes of a lab, and what they report at their control sockets."""

    nodes: dict[str, RunningNode]
    emulator_pid: int

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each has taken."""
        pids = {name: node.process.pid for name, node in self.nodes.items()}
        return {name: cpu_seconds(pid) for name, pid in {**pids, "wires": self.emulator_pid}.items()}

    def peak_rss_bytes(self) -> dict[str, int]:
        """Return the most memory that each daemon ever had."""
        return {name: _peak_rss_bytes(node.process.pid) for name, node in self.nodes.items()}

    def links(self) -> list[dict[str, Any]]:
        """Return the status of every link end."""
        reports = [control_socket.ask(node.socket, {"ask": "status"}) for node in self.nodes.values()]
        return [link for report in reports for link in report["links"]]


def _peak_rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _busy_seconds() -> float:
    """Return the CPU seconds that the machine has spent on anything, of all processors (proc_stat(5))."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


@attrs.define
class Cost:
    """What a measurement cost the nodes; filled in when it is over."""

    cpu: dict[str, float] = attrs.Factory(dict)
    busy: float = 0.0
    sent: int = 0
    lost: int = 0
    spurious: int = 0
    downs: int = 0

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {share:.2f}" for name, share in self.cpu.items())
        total = f"{sum(self.cpu.values()):.2f} of {self.busy:.2f} busy"
        return f"CPU {cpu}, all {total}; lost {share(self.lost, self.sent)}, spurious {share(self.spurious, self.sent)}"


def share(part: int, whole: int) -> str:
    return f"{part / whole * 100:.2f} %" if whole else "-"


@contextmanager
def costing(watched: Watched) -> Iterator[Cost]:
    """Measure what happens inside to the nodes."""
    cost = Cost()
    links, unix_time = watched.links(), time.time()
    cpu, busy, begun_at = watched.cpu(), _busy_seconds(), time.monotonic()
    yield cost
    seconds = time.monotonic() - begun_at
    cost.busy = (_busy_seconds() - busy) / seconds
    cost.cpu = {name: (now - cpu[name]) / seconds for name, now in watched.cpu().items()}
    now_links = watched.links()
    cost.downs = sum(link["state"] != "UP" or link["since"] > unix_time for link in now_links)
    for name, field in (("sent", "data_sent"), ("lost", "lost"), ("spurious", "spurious")):
        setattr(cost, name, sum(link[field] for link in now_links) - sum(link[field] for link in links))


def start_watched(lab: Lab, names: Sequence[str] | None = None) -> Watched:
    """Start all nodes or those named, and wait until connections are captured."""
    lab.start_nodes(names)
    nodes = {name: lab.node(name) for name in names or lab.configuration.nodes}
    measure.wait_for_overlay(nodes[CLIENT], nodes[SERVER])
    return Watched(nodes, lab.emulator_pid)
