"""One connection over links of 1.2 Gb/s: what this machine reaches, and what limits it.

The bed of ``etc/lab.conf`` with faster wires and links, without loss and with 0.5 %; TCP over the native wire beside
it. Then one link instead of three, along the native wire: two nodes instead of four have the processors. With py-spy on
the PATH the nodes of the three hops are sampled in a run of their own, and the functions that took most are printed:
their own time, as shares of the samples in which the node had a processor.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.experiment import Conditions
from bench.lab import others
from bench.lab.watched import Watched, bed, changed, costing, start_watched
from seamless.lab import measure
from seamless.lab.demo_report import NATIVE_WAYS, percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import NATIVE_WIRE
from seamless.linux.system import program

LINK: Final = ("rate 500 mbit", "rate 1200 mbit")
QUEUE: Final = ("queue 2 MiB", "queue 5 MiB")
"""In proportion."""
ONE_HOP: Final = (
    ("10.1.1.1:7400;", "10.1.1.1:7400, 10.1.4.1:7400;"),
    ("10.1.3.2:7400;", "10.1.3.2:7400, 10.1.4.2:7400;"),
    ("link src r1 {", "link src dst { between 10.1.4.1 10.1.4.2;  rate 1200 mbit;  congestion off; }\nlink src r1 {"),
)
"""A link along the native wire; the relays' are there, but not the relays."""
LOSSES: Final = (0.0, 0.005)
WANTED_BPS: Final = 1e9
SAMPLES_A_SECOND: Final = 100
TOP: Final = 12


def run(conditions: Conditions) -> None:
    """Measure TCP over the native wire, then seamless, then where its time goes; then one hop."""
    with changed(LINK, QUEUE) as file, bed(file) as lab:
        for loss in conditions.cases(LOSSES):
            measure.set_loss(lab, loss)
            for way, name in NATIVE_WAYS.items():
                measure.set_congestion_control(lab, name)
                print(
                    f"{percent(loss):>6} {way:<20}{rate(measure.iperf3(lab, conditions.seconds).bps):>12}", flush=True
                )
        measure.set_loss(lab, 0.0)
        measure.wait_for_silence(lab)
        watched = start_watched(lab)
        for bps in _rows(lab, watched, "seamless, three hops", conditions):
            conditions.verdicts.judge(bps >= WANTED_BPS, f"at least {rate(WANTED_BPS)}")
        if others.is_installed("py-spy") and not conditions.is_smoke:
            _profile(lab, watched, conditions.seconds)
    if conditions.is_smoke:
        return
    with changed(LINK, QUEUE, *ONE_HOP) as file, bed(file) as lab:
        list(_rows(lab, start_watched(lab, NATIVE_WIRE), "seamless, one hop", conditions))


def _rows(lab: Lab, watched: Watched, name: str, conditions: Conditions) -> Iterator[float]:
    """Print a row for each loss, and yield its bits per second."""
    for loss in conditions.cases(LOSSES):
        measure.set_loss(lab, loss)
        with costing(watched) as cost:
            got = measure.iperf3(lab, conditions.seconds)
        print(f"{percent(loss):>6} {name:<20}{rate(got.bps):>12}   {cost}", flush=True)
        yield got.bps


def _profile(lab: Lab, watched: Watched, seconds: float) -> None:
    folder = lab.directory / "profiles"
    folder.mkdir()
    spies = []
    for name, node in watched.nodes.items():
        words = ["--format", "raw", "--rate", str(SAMPLES_A_SECOND), "--duration", f"{seconds:.0f}", "--nonblocking"]
        argv = [program("py-spy"), "record", *words, "--output", str(folder / name), "--pid", str(node.process.pid)]
        spies.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    got = measure.iperf3(lab, seconds)
    for spy in spies:
        spy.wait()
    print(f"while the nodes were sampled: {rate(got.bps)}")
    for name in watched.nodes:
        print(f"  {name}: {_top(folder / name)}")


def _top(file: Path) -> str:
    """Return the functions that took most by themselves, of stacks with their counts as py-spy writes them."""
    own: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        function, _, place = stack.rpartition(";")[2].partition(" (")
        own[f"{place.partition(':')[0].rpartition('/')[2]} {function}"] += int(count)
    total = sum(own.values())
    return ", ".join(f"{name} {count / total:.0%}" for name, count in own.most_common(TOP))
