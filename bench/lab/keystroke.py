"""How much a bulk transfer delays a keystroke that goes the same way through the same nodes.

64 bytes there and back every 20 ms, alone and beside iperf3 as fast as it gets, over one overlay; and the same over the
native wire, where both share the queue in front of it. Three beds tell three causes of waiting apart: that of
``etc/lab.conf``, whose bulk takes all of two processors; links of 100 Mb/s on wires of 100 Mb/s, where what a link
sends in a burst waits in the wire's queue, and stays there, since the wire is no faster than the link; and links of
100 Mb/s on wires of 130 Mb/s, where only the overlay's own queues are left.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Final

from bench.experiment import Conditions
from bench.lab.asking import answers, percentile, start_asking
from bench.lab.watched import bed, changed, costing, start_watched
from seamless.errors import SeamlessError
from seamless.lab import measure
from seamless.lab.demo_report import percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

LOSSES: Final = (0.0, 0.005)
LINK: Final = "rate 500 mbit;  congestion"
WIRE: Final = "rate 500 mbit;\n"
QUEUE: Final = ("queue 2 MiB", "queue 400 KiB")
BEDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "links and wires of 500 Mb/s": (),
    "links and wires of 100 Mb/s": ((LINK, "rate 100 mbit;  congestion"), (WIRE, "rate 100 mbit;\n"), QUEUE),
    "links of 100 Mb/s on wires of 130 Mb/s": (
        (LINK, "rate 100 mbit;  congestion"),
        (WIRE, "rate 130 mbit;\n"),
        QUEUE,
    ),
}
PORT: Final = 5202
"""Captured, as iperf3's own is."""
ASKING_TIMES: Final = 2
"""The seconds of other measurements are few for a 99th percentile."""
RAMP_SECONDS: Final = 2.0
"""The bulk has its rate before the first keystroke."""
MOST_SLOWER_SECONDS: Final = 0.005
WIDTHS: Final = (15, 8, 17, 8, 12, 8)


def run(conditions: Conditions) -> None:
    """Measure each bed in a lab of its own."""
    titles = ("alone: median", "99 %", "beside: median", "99 %", "slower by", "99 %")
    print(f"{'ms':<23}" + "".join(f"{title:>{width}}" for title, width in zip(titles, WIDTHS, strict=True)) + "   bulk")
    for name, changes in conditions.cases(tuple(BEDS.items())):
        print(f"{name}:", flush=True)
        with changed(*changes) as file:
            _bed(file, conditions)


def _bed(file: Path, conditions: Conditions) -> None:
    """Measure the native wire, then the overlay."""
    seconds = conditions.seconds * (1 if conditions.is_smoke else ASKING_TIMES)
    with bed(file) as lab:
        measure.set_congestion_control(lab, "cubic")
        for loss in () if conditions.is_smoke else LOSSES:
            _row(lab, loss, "TCP CUBIC", seconds)
        measure.set_loss(lab, 0.0)
        measure.wait_for_silence(lab)
        watched = start_watched(lab)
        for loss in conditions.cases(LOSSES):
            with costing(watched) as cost:
                slower = _row(lab, loss, "seamless", seconds)
            print(f"    {cost}")
            sentence = f"median slower by less than {MOST_SLOWER_SECONDS * 1e3:g} ms"
            conditions.verdicts.judge(slower < MOST_SLOWER_SECONDS, sentence)


def _row(lab: Lab, loss: float, way: str, seconds: float) -> float:
    """Print one row; return by how many seconds the median grew."""
    measure.set_loss(lab, loss)
    alone = answers(start_asking(lab, PORT, seconds))
    bulk = _start_bulk(lab, seconds)
    time.sleep(RAMP_SECONDS)
    beside = answers(start_asking(lab, PORT, seconds))
    bulk_bps = _end_bulk(bulk)
    median, late = (percentile(alone, share) for share in (50.0, 99.0))
    beside_median, beside_late = (percentile(beside, share) for share in (50.0, 99.0))
    figures = (median, late, beside_median, beside_late, beside_median - median, beside_late - late)
    row = "".join(f"{seconds * 1e3:{width}.1f}" for seconds, width in zip(figures, WIDTHS, strict=True))
    print(f"{percent(loss):>6} loss, {way:<10}{row}   {rate(bulk_bps)}", flush=True)
    return beside_median - median


def _start_bulk(lab: Lab, seconds: float) -> subprocess.Popen[bytes]:
    argv = ["iperf3", "-c", SERVER, "-J", "-t", f"{seconds + 2 * RAMP_SECONDS:g}", "-O", "1"]
    return lab.popen(CLIENT, argv, stdout=subprocess.PIPE)


def _end_bulk(bulk: subprocess.Popen[bytes]) -> float:
    result = json.loads(bulk.communicate()[0])
    if "error" in result:
        raise SeamlessError(f"iperf3 failed: {result['error']}")
    return measure.read_throughput(result["end"]).bps
