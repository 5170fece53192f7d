"""The programs that people use for this job, on the same wires: iperf3 and scp, at 0.5 % and 5 % loss both ways.

Direct TCP, sshuttle (bytes over one ssh connection), WireGuard (whole packets over UDP) and kcptun (bytes over a
reliable protocol on UDP) take the native wire; seamless takes its three hops. What is not installed is left out:
``others.py`` says what to install.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias

from bench.experiment import Conditions
from bench.lab import others
from bench.lab.others import Tunnel
from bench.lab.paper import file_bytes
from bench.lab.watched import bed
from seamless.errors import SeamlessError
from seamless.lab import measure
from seamless.lab.demo_report import NATIVE_WAYS, percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

LOSSES: Final = (0.005, 0.05)

Way: TypeAlias = Callable[[Lab], AbstractContextManager[Tunnel]]


@contextmanager
def _native(lab: Lab) -> Iterator[Tunnel]:
    yield Tunnel(SERVER)


def _wireguard(congestion: str) -> Way:
    return lambda lab: others.wireguard(lab, congestion)


def _ways() -> Iterator[tuple[str, str, Way]]:
    """Yield what the row is called, the congestion control of the native wire, and the tunnel."""
    for name, congestion in NATIVE_WAYS.items():
        yield name, congestion, _native
    for program, way in (("sshuttle", others.sshuttle), ("wireguard-go", None), ("kcptun-client", others.kcptun)):
        if not others.is_installed(program):
            print(f"{program} is not installed: left out")
        elif program == "kcptun-client":
            yield "kcptun", "cubic", others.kcptun
        else:
            for congestion in NATIVE_WAYS.values():
                name = f"{program}, {congestion}"
                yield name, congestion, way or _wireguard(congestion)


def run(conditions: Conditions) -> None:
    """Measure all that is installed over the native wire, then seamless."""
    losses = conditions.cases(LOSSES)
    columns = [f"{program} {percent(loss)}" for loss in losses for program in ("iperf3", "scp")]
    print(f"{'':<20}" + "".join(f"{column:>15}" for column in columns))
    with bed() as lab:
        best = [0.0] * len(columns)
        for name, congestion, way in conditions.cases(tuple(_ways())):
            measure.set_congestion_control(lab, congestion)
            with way(lab) as tunnel:
                best = [
                    max(pair) for pair in zip(best, _row(lab, name, tunnel, losses, conditions.seconds), strict=True)
                ]
        measure.set_loss(lab, 0.0)
        measure.wait_for_silence(lab)
        lab.start_nodes()
        measure.wait_for_overlay(lab.node(CLIENT), lab.node(SERVER))
        ours = _row(lab, "seamless", Tunnel(SERVER), losses, conditions.seconds)
    for column, other, our in zip(columns, best, ours, strict=True):
        print(f"{column}: {our / other:.2f} times the best of the others")


def _row(lab: Lab, name: str, tunnel: Tunnel, losses: Sequence[float], seconds: float) -> list[float]:
    """Measure and print one row; what did not end is 0, with its reason."""
    row, reasons = [], []
    for loss in losses:
        measure.set_loss(lab, loss)
        flood = 0.0
        try:
            flood = measure.iperf3(lab, seconds, "-p", str(tunnel.iperf3_port), to=tunnel.address).bps
        except SeamlessError as error:
            reasons.append(str(error))
        row.append(flood)
        try:
            words = ("-P", str(tunnel.ssh_port))
            copied = measure.copy(lab, file_bytes(flood, seconds), *words, to=tunnel.address)
            row.append(copied.bps if copied.equal else 0.0)
        except SeamlessError as error:
            reasons.append(str(error))
            row.append(0.0)
    print(f"{name:<20}" + "".join(f"{rate(bps) if bps else '-':>15}" for bps in row), flush=True)
    for reason in reasons:
        print(f"    {reason}")
    return row
