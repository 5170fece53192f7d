"""Everything that is promised in figures, on the bed of ``etc/lab.conf``, as tables: ``python bench/bed.py``.

    --seconds N      of each measurement (default 10)
    --seamless       only what crosses the overlay, not what it is compared with
    --check          end with exit code 1 if a target is missed

One lab: first TCP CUBIC, TCP BBR and (if kcptun is installed) iperf3 through kcptun, over the native wire; then nodes,
and iperf3 over them one way, the other way, with eight connections, both ways at once, and as a flood beside a sender
that limits itself. CPU is in processors, that is CPU seconds per second, of each node's daemon and of the emulator, and
what the whole machine was busy with: where that is all it has, rates say how fast the machine is.
RSS is the highest that a daemon ever had. Lost and wasted are shares of the datagrams with data on all hops together;
wasted are those that were sent again although the first had only been late.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from seamless.errors import SeamlessError
from seamless.lab import measure
from seamless.lab.demo import ending_on_signals
from seamless.lab.figures import NATIVE_WAYS, percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, NATIVE_WIRE, SERVER
from seamless.lab.nodes import RunningNode, environment
from seamless.linux.system import cpu_seconds, program

TARGETS_BPS = {0.005: 450e6, 0.05: 425e6, 0.2: 340e6}
"""By loss: one connection, links of 500 Mb/s."""
USUAL_LOSS = 0.005
FLOOD_SECONDS = 20.0
LIMITED_BPS = 450e6
"""What the limited sender of the flood's comparison sends: a little less than fits."""
MOST_RSS_BYTES = 300e6
MOST_WASTED = 0.01
FAIRNESS = 0.8
"""Slowest to fastest of eight connections."""
STATUS_SECONDS = 0.6
"""In which a watched node writes its status anew."""

KCPTUN_PORTS = (12948, 29900)
KCPTUN = ["-mode", "fast3", "-datashard", "10", "-parityshard", "3", "-nocomp"]
KCPTUN += ["-sndwnd", "4096", "-rcvwnd", "4096", "-sockbuf", "16777216"]


@attrs.define
class Verdicts:
    """What was to be reached, and what was."""

    missed: int = 0

    def judge(self, met: bool, sentence: str) -> None:
        """Print whether something was reached, and count it if not."""
        self.missed += not met
        print(f"  {'met' if met else 'MISSED':<7} {sentence}", flush=True)


@attrs.define
class Watched:
    """The nodes, and what they said about themselves at one moment."""

    nodes: dict[str, RunningNode]
    statuses: dict[str, Path]
    emulator_pid: int

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each has taken."""
        pids = {name: node.process.pid for name, node in self.nodes.items()}
        return {name: cpu_seconds(pid) for name, pid in {**pids, "wires": self.emulator_pid}.items()}

    def peak_rss_bytes(self) -> dict[str, int]:
        """Return the most memory that each daemon ever had."""
        return {name: _peak_rss_bytes(node.process.pid) for name, node in self.nodes.items()}

    def links(self) -> list[dict[str, Any]]:
        """Return the status of every link end, once all nodes have written theirs."""
        time.sleep(STATUS_SECONDS)
        return [link for file in self.statuses.values() for link in json.loads(file.read_text())]

    def downs(self) -> int:
        """Return how often links went down, as both ends count."""
        return sum(node.log_text().count("is down:") for node in self.nodes.values())


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
    wasted: int = 0
    downs: int = 0

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {share:.2f}" for name, share in self.cpu.items())
        total = f"{sum(self.cpu.values()):.2f} of {self.busy:.2f} busy"
        return f"CPU {cpu}, all {total}; lost {share(self.lost, self.sent)}, wasted {share(self.wasted, self.sent)}"


def share(part: int, whole: int) -> str:
    return f"{part / whole * 100:.2f} %" if whole else "-"


@contextmanager
def costing(watched: Watched) -> Iterator[Cost]:
    """Measure what happens inside to the nodes."""
    cost = Cost()
    links, downs = watched.links(), watched.downs()
    cpu, busy, begun_at = watched.cpu(), _busy_seconds(), time.monotonic()
    yield cost
    seconds = time.monotonic() - begun_at
    cost.busy = (_busy_seconds() - busy) / seconds
    cost.cpu = {name: (now - cpu[name]) / seconds for name, now in watched.cpu().items()}
    now_links, cost.downs = watched.links(), watched.downs() - downs
    for name, field in (("sent", "data_sent"), ("lost", "lost"), ("wasted", "wasted")):
        setattr(cost, name, sum(link[field] for link in now_links) - sum(link[field] for link in links))


# The native wire.


def native(lab: Lab, seconds: float) -> None:
    """Measure what seamless is compared with."""
    kcptun = _start_kcptun(lab)
    for loss in TARGETS_BPS:
        measure.set_loss(lab, loss)
        for way, name in NATIVE_WAYS.items():
            measure.set_congestion_control(lab, name)
            print(f"{percent(loss):>6} {way:<10} {rate(measure.iperf3(lab, seconds).bps):>11}", flush=True)
        if kcptun:
            got = measure.iperf3(lab, seconds, "-p", str(KCPTUN_PORTS[0]), to="127.0.0.1")
            print(f"{percent(loss):>6} kcptun     {rate(got.bps):>11}", flush=True)
    for process in kcptun:
        process.kill()


def _start_kcptun(lab: Lab) -> list[subprocess.Popen[bytes]]:
    """Start both ends of kcptun and return them; none if it is not installed."""
    near, far = KCPTUN_PORTS
    try:
        client, server = program("kcptun-client"), program("kcptun-server")
    except SeamlessError:
        return []
    remote = str(lab.configuration.hosts[SERVER].addresses[0])
    return [
        lab.popen(SERVER, [server, "-l", f":{far}", "-t", "127.0.0.1:5201", *KCPTUN]),
        lab.popen(CLIENT, [client, "-l", f"127.0.0.1:{near}", "-r", f"{remote}:{far}", *KCPTUN]),
    ]


# The overlay.


def start_watched(lab: Lab) -> Watched:
    """Start all nodes, with their counters in files, and wait until connections are captured."""
    nodes: dict[str, RunningNode] = {}
    statuses = {name: lab.host_directory(name) / "status.json" for name in lab.configuration.nodes}
    for name, status in statuses.items():
        log = lab.host_directory(name) / "node.log"
        words = ["--config", str(measure.BED_FILE), "--node", name, "--key", str(lab.key_file(name))]
        script = str(Path(__file__).with_name("watched_node.py"))
        with open(log, "wb") as output:
            argv = [sys.executable, script, str(status), *words]
            child = lab.popen(name, argv, stdout=output, stderr=output, environment=environment())
        nodes[name] = RunningNode(name, child, log)
    for node in nodes.values():
        node.wait_for(f"node {node.name} is up")
    measure.wait_for_overlay(nodes[CLIENT], nodes[SERVER])
    return Watched(nodes, statuses, lab.emulator_pid)


def one_connection(lab: Lab, watched: Watched, seconds: float, verdicts: Verdicts) -> None:
    for loss, wanted_bps in TARGETS_BPS.items():
        measure.set_loss(lab, loss)
        with costing(watched) as cost:
            got = measure.iperf3(lab, seconds)
        print(f"{percent(loss):>6} seamless   {rate(got.bps):>11}   {cost}")
        verdicts.judge(got.bps >= wanted_bps, f"at least {rate(wanted_bps)}")
        if loss <= 0.05:
            verdicts.judge(cost.wasted < MOST_WASTED * cost.sent, f"wasted less than {percent(MOST_WASTED)}")
    measure.set_loss(lab, USUAL_LOSS)


def other_shapes(lab: Lab, watched: Watched, seconds: float, verdicts: Verdicts) -> None:
    """Measure the other direction, eight connections, and both directions at once."""
    wanted_bps = TARGETS_BPS[USUAL_LOSS]
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "-R")
    print(f"{percent(USUAL_LOSS):>6} -R         {rate(got.bps):>11}   {cost}")
    verdicts.judge(got.bps >= wanted_bps, f"at least {rate(wanted_bps)}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "-P", "8")
    slowest, fastest = min(got.each_bps), max(got.each_bps)
    print(f"{percent(USUAL_LOSS):>6} -P 8       {rate(got.bps):>11}   {cost}")
    verdicts.judge(slowest >= FAIRNESS * fastest, f"fair: the slowest {rate(slowest)}, the fastest {rate(fastest)}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "--bidir")
    print(f"{percent(USUAL_LOSS):>6} --bidir    {rate(got.bps):>11} and {rate(got.backward_bps)} back   {cost}")


def flood(lab: Lab, watched: Watched, seconds: float, verdicts: Verdicts) -> None:
    """Send as fast as the sockets take it, and compare with a sender that limits itself."""
    limited = measure.iperf3(lab, seconds, "-b", f"{LIMITED_BPS:.0f}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, FLOOD_SECONDS)
    peaks = watched.peak_rss_bytes()
    print(f"{percent(USUAL_LOSS):>6} flood      {rate(got.bps):>11}   {cost}")
    print("       RSS " + ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items()))
    verdicts.judge(got.bps >= 0.95 * limited.bps, f"at least 95 % of the limited sender's {rate(limited.bps)}")
    verdicts.judge(cost.downs == 0, f"links that went down: {cost.downs}, none")
    verdicts.judge(max(peaks.values()) < MOST_RSS_BYTES, f"no node over {MOST_RSS_BYTES / 1e6:.0f} MB")


def run(seconds: float, only_seamless: bool) -> Verdicts:
    verdicts = Verdicts()
    bed = Lab(measure.load_bed(), configuration_file=measure.BED_FILE)
    with ending_on_signals() as ignore_signals, bed as lab:
        lab.start_servers()
        if not only_seamless:
            native(lab, seconds)
            measure.set_loss(lab, 0.0)
            measure.wait_for_silence(lab)
        watched = start_watched(lab)
        native_bytes = measure.wire_bytes(lab, *NATIVE_WIRE)
        one_connection(lab, watched, seconds, verdicts)
        other_shapes(lab, watched, seconds, verdicts)
        flood(lab, watched, seconds, verdicts)
        native_bytes = measure.wire_bytes(lab, *NATIVE_WIRE) - native_bytes
        verdicts.judge(native_bytes == 0, f"bytes on the native wire: {native_bytes}, none")
        ignore_signals()
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seamless", action="store_true")
    parser.add_argument("--check", action="store_true")
    words = parser.parse_args()
    try:
        verdicts = run(words.seconds, words.seamless)
    except SeamlessError as error:
        print(f"bed: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if words.check and verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
