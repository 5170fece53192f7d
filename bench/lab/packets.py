"""What the whole-packet interceptors do for TCP, beside native TCP on the same wires in the same run.

* ``reorder``: CUBIC at 0.5 % and 5 % loss, with the buffer that puts packets back in order and without it
  (``release unordered;``).
* ``jitter``: 64 bytes there and back every 20 ms at 5 % loss; ``--plot FILE`` draws it.
* ``local``: local beside payload, without loss and delay, and where the time goes.
* ``router``: two sites, without loss and delay.

Everything runs in the lab of ``etc/local.conf``: three hops of 10 ms against one native wire of 30 ms, loss in both
directions of the middle hop and of the native wire. On a machine of few cores it measures the machine, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.experiment import Conditions
from bench.lab.asking import answers, percentile, start_asking
from bench.lab.watched import bed, changed
from seamless.lab.lab import Lab
from seamless.linux import control_socket
from seamless.linux.system import cpu_seconds

ETC = Path(__file__).resolve().parents[2] / "etc"
LOSSES = (0.005, 0.05)
HOP_RTT = 0.010
PATH_RTT = 0.030
NATIVE_PORT = 6001
CAPTURED_PORT = 5202
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

UNORDERED = ("intercept local {", "intercept local { release unordered; ")


@contextmanager
def running(name: str, *changes: tuple[str, str]) -> Iterator[Lab]:
    """Bring a lab up from a file of ``etc``, with some words replaced, servers and nodes running."""
    with changed(*changes, file=ETC / name) as file, bed(file) as lab:
        lab.start_nodes()
        for near, far in (("src", "dst"), ("dst", "src")):
            lab.node(near).wait_until_reaches(far)
            lab.node(near).wait_until_has_rules()
        time.sleep(1)
        yield lab


def iperf3(lab: Lab, client: str, address: str, seconds: float, port: int = 5201) -> dict[str, Any]:
    """Return what iperf3 says of one connection with CUBIC."""
    argv = [
        "iperf3",
        "-c",
        address,
        "-p",
        str(port),
        "-t",
        f"{seconds:g}",
        "-O",
        f"{min(2.0, seconds):g}",
        "-C",
        "cubic",
        "-J",
    ]
    done = lab.run(client, argv, timeout=seconds * 4 + 30, check=False)
    return dict(json.loads(done.stdout)["end"])


def megabits(end: dict[str, Any]) -> float:
    """Return what arrived."""
    return float(end["sum_received"]["bits_per_second"]) / 1e6


def native_packets(lab: Lab) -> int:
    """Return how many packets the native wire has carried."""
    return sum(sent["packets_in"] for sent in lab.counters("src", "dst").values())


def whole(lab: Lab, node: str) -> dict[str, int]:
    """Return the counters of a node's whole-packet interceptor."""
    report = control_socket.ask(lab.node_socket(node), {"ask": "status"})
    return next(dict(one["counters"]) for one in report["interceptors"] if one["name"] == "whole packets")


def throughput(conditions: Conditions) -> None:
    """Print a table of CUBIC's throughput under loss."""
    print(f"{'loss':>6} {'way':<28} {'Mb/s':>8} {'resent':>7} {'times native':>13} {'gaps filled':>12} {'expired':>8}")
    for order in (True, False):
        with running("local.conf", *(() if order else (UNORDERED,))) as lab:
            server = lab.popen("dst", ["iperf3", "-s", "-p", str(NATIVE_PORT)])
            for loss in conditions.cases(LOSSES):
                for wire in (("r1", "r2"), ("src", "dst")):
                    lab.set_wire(*wire, loss=loss)
                native = megabits(end := iperf3(lab, "src", "10.1.9.2", conditions.seconds, NATIVE_PORT))
                if order:
                    print(f"{loss:6.1%} {'native':<28} {native:8.1f} {end['sum_sent']['retransmits']:7}")
                time.sleep(2)  # the last packets of the native connection
                before, taken = whole(lab, "dst"), native_packets(lab)
                rate = megabits(end := iperf3(lab, "src", "10.1.9.2", conditions.seconds))
                after = whole(lab, "dst")
                strays = native_packets(lab) - taken
                assert not strays, f"{strays} captured packets took the native wire; {whole(lab, 'src')}"
                print(
                    f"{loss:6.1%} {'local' + ('' if order else ', no reorder buffer'):<28} {rate:8.1f} "
                    f"{end['sum_sent']['retransmits']:7} {rate / native:13.0f} "
                    f"{after['gaps_filled'] - before['gaps_filled']:12} "
                    f"{after['gaps_expired'] - before['gaps_expired']:8}",
                    flush=True,
                )
            server.terminate()


def jitter(conditions: Conditions) -> None:
    """Print percentiles of a request and its answer, native and captured at the same time."""
    with running("local.conf") as lab:
        for wire in (("r1", "r2"), ("src", "dst")):
            lab.set_wire(*wire, loss=0.05)
        clients = {}
        for way, port in (("native", NATIVE_PORT), ("local", CAPTURED_PORT)):
            clients[way] = start_asking(lab, port, conditions.seconds)
        took = {way: answers(client) for way, client in clients.items()}
        counters = whole(lab, "src")
    print(f"{'ms':<8}" + "".join(f"{percent:>9g}" for percent in PERCENTILES) + f"{'worst':>9}{'samples':>9}")
    for way, samples in took.items():
        row = "".join(f"{percentile(samples, percent) * 1e3:9.1f}" for percent in PERCENTILES)
        print(f"{way:<8}{row}{max(samples) * 1e3:9.1f}{len(samples):9}")
    print(f"bound for 99.9: {(PATH_RTT + 2 * HOP_RTT + 0.005) * 1e3:.0f} ms; captured: {counters['captured']} packets")
    if conditions.plot is not None:
        conditions.plot.write_text(plot(took), encoding="utf-8")


def plot(took: dict[str, list[float]]) -> str:
    """Return a drawing: time on the way up, the share of requests that took longer to the right, by powers of ten."""
    width, height, tops = 640, 360, [50, 100, 200, 500, 1000, 2000, 5000, 10000]
    worst = max(max(samples) for samples in took.values()) * 1e3
    top = next((top for top in tops if top > worst), worst)
    lines = []
    for color, (way, samples) in zip(("#b03030", "#2050b0"), took.items(), strict=True):
        points = []
        for step in range(121):
            share = 10 ** (-3.4 * step / 120)
            value = percentile(samples, 100 * (1 - share)) * 1e3
            points.append(f"{60 + (width - 80) * step / 120:.1f},{height - 40 - (height - 60) * value / top:.1f}")
        lines.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{" ".join(points)}"/>')
        lines.append(f'<text x="80" y="{40 + 20 * len(lines) // 2}" fill="{color}">{way}</text>')
    for step in range(4):
        x = 60 + (width - 80) * step / 3.4
        lines.append(f'<text x="{x:.0f}" y="{height - 20}" text-anchor="middle">{10.0**-step:.1%}</text>')
    for step in range(5):
        y = height - 40 - (height - 60) * step / 4
        lines.append(f'<text x="52" y="{y + 4:.0f}" text-anchor="end">{top * step / 4:.0f} ms</text>')
        lines.append(f'<line x1="60" x2="{width - 20}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ccc"/>')
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
        f' font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def clear(lab: Lab) -> None:
    """Take delay, loss and the emulated rate from all wires between nodes."""
    for wire in (("src", "r1"), ("r1", "r2"), ("r2", "dst"), ("src", "dst")):
        lab.set_wire(*wire, delay=0.0, loss=0.0, rate_bps=None)


def processes(lab: Lab) -> dict[str, int]:
    """Return the processes of the bed by name: each node, its privileged part, and the emulator."""
    found = {"emulator": lab.emulator_pid}
    for name in ("src", "r1", "r2", "dst"):
        report = control_socket.ask(lab.node_socket(name), {"ask": "status"})
        found[name] = report["process"]
        children = Path(f"/proc/{found[name]}/task/{found[name]}/children").read_text(encoding="ascii").split()
        if children:
            found[f"{name} privileged"] = int(children[0])
    return found


def spent(lab: Lab, client: str, address: str, seconds: float) -> tuple[float, str]:
    """Return (Mb/s, cores by process) of one iperf3 run."""
    pids = processes(lab)
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    rate = megabits(iperf3(lab, client, address, seconds))
    interval = time.monotonic() - began
    cores = {name: (cpu_seconds(pid) - before[name]) / interval for name, pid in pids.items()}
    return rate, ", ".join(f"{name} {share:.2f}" for name, share in cores.items())


FAST = ("rate 500 mbit;  congestion off;", "rate 2000 mbit;  congestion off;")


def ratio(conditions: Conditions) -> None:
    """Print local beside payload on an ideal path."""
    rates = {}
    for name in ("lab.conf", "local.conf"):
        with running(name, FAST) as lab:
            clear(lab)
            way = "payload" if name == "lab.conf" else "local"
            rates[way], cores = spent(lab, "src", "10.1.9.2", conditions.seconds)
            print(f"{way:<8} {rates[way]:8.1f} Mb/s; cores: {cores}", flush=True)
    print(f"local / payload: {rates['local'] / rates['payload']:.2f}")


def router(conditions: Conditions) -> None:
    """Print what two sites get on an ideal path."""
    with running("router.conf", FAST) as lab:
        clear(lab)
        for pair in (("a1", "10.2.2.1"), ("a3", "10.2.2.3")):
            rate, cores = spent(lab, *pair, conditions.seconds)
            print(f"router, {pair[0]} to {pair[1]}: {rate:.1f} Mb/s; cores: {cores}", flush=True)
