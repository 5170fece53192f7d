"""What the whole-packet interceptors do for TCP, beside native TCP on the same wires in the same run.

    python bench/whole.py throughput          CUBIC at 0.5 % and 5 % loss, with and without the reorder buffer
    python bench/whole.py jitter [FILE.svg]   64 bytes there and back every 20 ms for 60 s at 5 % loss
    python bench/whole.py ratio               local beside payload, without loss and delay, and where the time goes
    python bench/whole.py router              two sites, without loss and delay

Everything runs in the lab of ``etc/local.conf``: three hops of 10 ms against one native wire of 30 ms, loss in both
directions of the middle hop and of the native wire. On a machine of few cores it measures the machine, too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asking import answers, percentile, start_asking

from seamless.config.load import load_file
from seamless.lab import nodes
from seamless.lab.lab import Lab
from seamless.linux import control_socket
from seamless.linux.system import cpu_seconds

ETC = Path(__file__).resolve().parents[1] / "etc"
SECONDS = 10
JITTER_SECONDS = 60
HOP_RTT = 0.010
PATH_RTT = 0.030
NATIVE_PORT = 6001
CAPTURED_PORT = 5202
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

WITHOUT_ORDER = """
import sys
from seamless.intercept.release import Release
Release._in_order = lambda self, packet, header, now: [(packet, header)]
from twisted.scripts.twistd import run
run()
"""


@contextmanager
def bed(name: str, *, changes: Sequence[tuple[str, str]] = (), order: bool = True) -> Iterator[Lab]:
    """Bring a lab up from a file of ``etc``, with some words replaced, servers and nodes running."""
    text = (ETC / name).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    plain = nodes.command
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        with Lab(load_file(path), configuration_file=path) as lab:
            lab.start_servers()
            if not order:
                script = Path(folder) / "without_order.py"
                script.write_text(WITHOUT_ORDER, encoding="utf-8")

                def command(configuration_file: Path, node: str, key_file: Path) -> list[str]:
                    argv = plain(configuration_file, node, key_file)
                    return [argv[0], str(script), *argv[2:]]

                nodes.command = command
            try:
                lab.start_nodes()
            finally:
                nodes.command = plain
            for near, far in (("src", "dst"), ("dst", "src")):
                lab.node(near).wait_for(f"{far} is reachable")
                lab.node(near).wait_for("rules are installed")
            time.sleep(1)
            yield lab


def iperf3(lab: Lab, client: str, address: str, *words: str, port: int = 5201) -> dict[str, Any]:
    """Return what iperf3 says of one connection with CUBIC."""
    argv = ["iperf3", "-c", address, "-p", str(port), "-t", str(SECONDS), "-O", "2", "-C", "cubic", "-J", *words]
    done = lab.run(client, argv, timeout=SECONDS * 4 + 30, check=False)
    return dict(json.loads(done.stdout)["end"])


def megabits(end: dict[str, Any]) -> float:
    """Return what arrived."""
    return float(end["sum_received"]["bits_per_second"]) / 1e6


def native_packets(lab: Lab) -> int:
    """Return how many packets the native wire has carried."""
    return sum(sent["packets_in"] for sent in lab.counters("src", "dst").values())


def whole(lab: Lab, node: str) -> dict[str, int]:
    """Return the counters of a node's whole-packet interceptor."""
    report = control_socket.ask(lab.directory / "run" / f"{node}.sock", {"ask": "status"})
    return next(dict(one["counters"]) for one in report["interceptors"] if one["name"] == "whole packets")


def throughput() -> None:
    """Print a table of CUBIC's throughput under loss."""
    print(f"{'loss':>6} {'way':<28} {'Mb/s':>8} {'resent':>7} {'times native':>13} {'gaps filled':>12} {'expired':>8}")
    for order in (True, False):
        with bed("local.conf", order=order) as lab:
            server = lab.popen("dst", ["iperf3", "-s", "-p", str(NATIVE_PORT)])
            for loss in (0.005, 0.05):
                for wire in (("r1", "r2"), ("src", "dst")):
                    lab.set_wire(*wire, loss=loss)
                native = megabits(end := iperf3(lab, "src", "10.1.9.2", port=NATIVE_PORT))
                if order:
                    print(f"{loss:6.1%} {'native':<28} {native:8.1f} {end['sum_sent']['retransmits']:7}")
                time.sleep(2)  # the last packets of the native connection
                before, taken = whole(lab, "dst"), native_packets(lab)
                rate = megabits(end := iperf3(lab, "src", "10.1.9.2"))
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


def jitter(svg: Path | None) -> None:
    """Print percentiles of a request and its answer, native and captured at the same time."""
    with bed("local.conf") as lab:
        for wire in (("r1", "r2"), ("src", "dst")):
            lab.set_wire(*wire, loss=0.05)
        clients = {}
        for way, port in (("native", NATIVE_PORT), ("local", CAPTURED_PORT)):
            clients[way] = start_asking(lab, port, JITTER_SECONDS)
        took = {way: answers(client) for way, client in clients.items()}
        counters = whole(lab, "src")
    print(f"{'ms':<8}" + "".join(f"{percent:>9g}" for percent in PERCENTILES) + f"{'worst':>9}{'samples':>9}")
    for way, samples in took.items():
        row = "".join(f"{percentile(samples, percent) * 1e3:9.1f}" for percent in PERCENTILES)
        print(f"{way:<8}{row}{max(samples) * 1e3:9.1f}{len(samples):9}")
    print(f"bound for 99.9: {(PATH_RTT + 2 * HOP_RTT + 0.005) * 1e3:.0f} ms; captured: {counters['captured']} packets")
    if svg is not None:
        svg.write_text(plot(took), encoding="utf-8")


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
        report = control_socket.ask(lab.directory / "run" / f"{name}.sock", {"ask": "status"})
        found[name] = report["process"]
        children = Path(f"/proc/{found[name]}/task/{found[name]}/children").read_text(encoding="ascii").split()
        if children:
            found[f"{name} privileged"] = int(children[0])
    return found


def spent(lab: Lab, client: str, address: str) -> tuple[float, str]:
    """Return (Mb/s, cores by process) of one iperf3 run."""
    pids = processes(lab)
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    rate = megabits(iperf3(lab, client, address))
    interval = time.monotonic() - began
    cores = {name: (cpu_seconds(pid) - before[name]) / interval for name, pid in pids.items()}
    return rate, ", ".join(f"{name} {share:.2f}" for name, share in cores.items())


FAST = (("rate 500 mbit;  congestion off;", "rate 2000 mbit;  congestion off;"),)


def ratio() -> None:
    """Print local beside payload on an ideal path."""
    rates = {}
    for name in ("lab.conf", "local.conf"):
        with bed(name, changes=FAST) as lab:
            clear(lab)
            way = "payload" if name == "lab.conf" else "local"
            rates[way], cores = spent(lab, "src", "10.1.9.2")
            print(f"{way:<8} {rates[way]:8.1f} Mb/s; cores: {cores}", flush=True)
    print(f"local / payload: {rates['local'] / rates['payload']:.2f}")


def router() -> None:
    """Print what two sites get on an ideal path."""
    with bed("router.conf", changes=FAST) as lab:
        clear(lab)
        for pair in (("a1", "10.2.2.1"), ("a3", "10.2.2.3")):
            rate, cores = spent(lab, *pair)
            print(f"router, {pair[0]} to {pair[1]}: {rate:.1f} Mb/s; cores: {cores}", flush=True)


def main() -> None:
    """Run what the command line names."""
    words = sys.argv[1:]
    if words[:1] == ["jitter"]:
        jitter(Path(words[1]) if len(words) > 1 else None)
        return
    chosen = {"throughput": throughput, "ratio": ratio, "router": router}.get(words[0] if words else "")
    if chosen is None:
        raise SystemExit(__doc__)
    chosen()


if __name__ == "__main__":
    main()
