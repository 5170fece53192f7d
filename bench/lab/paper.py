"""The conditions of the paper that had the idea (its Table 1): what an application gets over the overlay, and over TCP.

The paper: four machines, 30 ms of latency and 0.5 % uniform loss on the native path, against three hops of 10 ms of
which one loses 0.5 %; all of it emulated "for outgoing traffic". Here: the bed of ``etc/lab.conf``. Its figures suggest
that only what the sender sent was lost, so both are measured: data lost, and data and acknowledgements lost. A flood
is iperf3 as fast as its socket takes it; the paper limited its second flood to 200 Mb/s, since the first killed links.
"""

from __future__ import annotations

from typing import Final

from bench.experiment import Conditions, Verdicts
from bench.lab.watched import bed
from seamless.lab import measure
from seamless.lab.demo_report import percent, rate, times
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, NATIVE_WIRE, OVERLAY_WIRE, SERVER

LOSS: Final = 0.005
LIMITED: Final = "-b 200M"
PAPER: Final = {"flood": (18, 76, 4.2), "flood at 200 Mb/s": (18, 200, 11), "scp": (8, 193, 24)}
"""What the paper had: Mb/s of TCP, Mb/s over its overlay, and the ratio."""
DIRECTIONS: Final[dict[str, tuple[str | None, str | None]]] = {
    "data": (CLIENT, OVERLAY_WIRE[0]),
    "data and acknowledgements": (None, None),
}
"""What is lost, and whose packets those are: on the native wire, and on the overlay's; None is both ends'."""
COPY_TIMES: Final = 2
"""A file takes so many times the seconds of a flood at the flood's rate, but is never larger or smaller than these."""
SMALLEST_FILE_BYTES: Final = 1_000_000
LARGEST_FILE_BYTES: Final = 250_000_000


def run(conditions: Conditions) -> None:
    """Measure the three rows for loss of data alone and for loss both ways, natively and over the overlay."""
    directions = dict(conditions.cases(tuple(DIRECTIONS.items())))
    with bed() as lab:
        measure.set_congestion_control(lab, "cubic")
        native = {}
        for lost, (sender, _) in directions.items():
            _lose(lab, NATIVE_WIRE, sender)
            native[lost] = _rows(lab, conditions.seconds)
        measure.wait_for_silence(lab)
        lab.start_nodes()
        measure.wait_for_overlay(lab.node(CLIENT), lab.node(SERVER))
        print(f"{'program':<20}{'paper: TCP, overlay, ratio':>28}{'TCP CUBIC':>14}{'seamless':>14}{'ratio':>8}")
        for lost, (_, sender) in directions.items():
            _lose(lab, OVERLAY_WIRE, sender)
            print(f"{percent(LOSS)} of {lost} lost:")
            _compare(native[lost], _rows(lab, conditions.seconds), conditions.verdicts)


def _lose(lab: Lab, wire: tuple[str, str], sender: str | None) -> None:
    """Have a wire lose what one end sends, or both ends if ``sender`` is None."""
    lab.set_wire(*wire, loss=0.0)
    lab.set_wire(*wire, direction=sender, loss=LOSS)


def _rows(lab: Lab, seconds: float) -> list[float]:
    """Return the bits per second of a flood, of a limited flood, and of scp."""
    flood = measure.iperf3(lab, seconds).bps
    limited = measure.iperf3(lab, seconds, *LIMITED.split()).bps
    return [flood, limited, measure.copy(lab, file_bytes(flood, seconds)).bps]


def file_bytes(bps: float, seconds: float) -> int:
    """Return how large a file is to be that scp copies over a way on which iperf3 has this rate."""
    return min(max(int(bps / 8 * seconds * COPY_TIMES), SMALLEST_FILE_BYTES), LARGEST_FILE_BYTES)


def _compare(native: list[float], ours: list[float], verdicts: Verdicts) -> None:
    for (name, (tcp, overlay, wanted)), tcp_bps, our_bps in zip(PAPER.items(), native, ours, strict=True):
        ratio = our_bps / tcp_bps
        paper = f"{tcp}, {overlay}, {wanted:g}"
        print(f"{name:<20}{paper:>28}{rate(tcp_bps):>14}{rate(our_bps):>14}{times(ratio):>8}", flush=True)
        verdicts.judge(ratio > wanted, f"more than the paper's {wanted:g} times")
