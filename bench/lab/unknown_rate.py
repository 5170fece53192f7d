"""What links carry that were told no rate, beside TCP BBR and CUBIC on the native wire, at six kinds of loss.

The bed of etc/lab.conf with ``congestion auto`` and no ``rate``: links have to find the 500 Mb/s of their wires. Losses
are on the middle hop and on the native wire, both ways. Three runs each, in turn, and the median of them; after that
the share of what the wire leaves after loss and headers (94.5 %), and what it costs.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from bench.experiment import Conditions
from bench.lab.watched import Watched, bed, changed, costing, start_watched
from seamless.lab import measure
from seamless.lab.demo_report import NATIVE_WAYS, percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import NATIVE_WIRE, OVERLAY_WIRE

WIRE_BPS: Final = 500e6
LEFT_BY_HEADERS: Final = 0.945
CASES: Final = ((0.0, 1.0), (0.005, 1.0), (0.02, 1.0), (0.05, 1.0), (0.05, 8.0), (0.2, 1.0))
"""Losses, and the length of their bursts in packets."""
WANTED: Final = 0.92
WANTED_AT_MOST_LOSS: Final = 0.88
MOST_LOSS: Final = 0.2
RUNS: Final = 3
WARM_UP_SECONDS: Final = 1
CONGESTION: Final = ("rate 500 mbit;  congestion off;", "congestion auto;")


def set_loss(lab: Lab, loss: float, burst_packets: float) -> None:
    """Have the native wire and the overlay's middle one lose so, in both directions."""
    for one, other in (NATIVE_WIRE, OVERLAY_WIRE):
        lab.set_wire(one, other, loss=loss, burst_packets=burst_packets)


def run(conditions: Conditions) -> None:
    """Measure native TCP, then the overlay."""
    cases = conditions.cases(CASES)
    runs = 1 if conditions.is_smoke else RUNS
    with changed(CONGESTION) as file, bed(file) as lab:
        native: dict[tuple[str, float, float], float] = {}
        for loss, burst in cases:
            set_loss(lab, loss, burst)
            for way, name in NATIVE_WAYS.items():
                measure.set_congestion_control(lab, name)
                got = [_iperf3(lab, conditions.seconds) for _ in range(runs)]
                native[way, loss, burst] = median(got)
        set_loss(lab, 0.0, 1.0)
        measure.wait_for_silence(lab)
        watched = start_watched(lab)
        print("".join(f"{title:>14}" for title in ("loss", *NATIVE_WAYS, "seamless auto", "of what is left")))
        for loss, burst in cases:
            _overlay(lab, watched, loss, burst, native, runs, conditions)


def _iperf3(lab: Lab, seconds: float) -> float:
    return measure.iperf3(lab, seconds, "-O", str(WARM_UP_SECONDS)).bps


def _overlay(
    lab: Lab,
    watched: Watched,
    loss: float,
    burst: float,
    native: dict[tuple[str, float, float], float],
    runs: int,
    conditions: Conditions,
) -> None:
    set_loss(lab, loss, burst)
    with costing(watched) as cost:
        got = [_iperf3(lab, conditions.seconds) for _ in range(runs)]
    ours = median(got)
    left_bps = WIRE_BPS * (1 - loss) * LEFT_BY_HEADERS
    name = percent(loss) + (f" by {burst:g}" if burst > 1 else "")
    others = "".join(f"{rate(native[way, loss, burst]):>14}" for way in NATIVE_WAYS)
    print(f"{name:>14}{others}{rate(ours):>14}{percent(ours / left_bps):>14}   {cost}", flush=True)
    wanted = WANTED_AT_MOST_LOSS if loss >= MOST_LOSS else WANTED
    conditions.verdicts.judge(ours >= wanted * left_bps, f"at least {percent(wanted)} of what the wire leaves")
