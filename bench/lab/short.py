"""Objects over new connections: the time to the last byte, against native TCP and against the limit.

10 kB to 100 MB over wires of 500 Mb/s, at round trips of 30, 120 and 300 ms, without loss and with 0.5 % in both
directions of the middle hop and of the native wire. The limit is a round trip and the time on the wire, headers
and losses taken off. Every figure is the median of three, beside it how far apart these were; what takes longer than
``--seconds`` is given up. ``--plot FILE`` draws time against size.

The nodes may use more memory than by default: 500 Mb/s over 300 ms have 18.75 MB on the way.
"""

from __future__ import annotations

from math import log10
from statistics import median
from typing import Final

import attrs

from bench.experiment import Conditions
from bench.lab.objects import fetch, serving
from bench.lab.watched import bed, changed
from seamless.lab import measure
from seamless.lab.demo_report import NATIVE_WAYS, percent
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

RATE_BPS: Final = 500e6
PAYLOAD: Final = 0.945
"""What headers leave of the rate."""
ROUND_TRIPS: Final = (0.03, 0.12, 0.3)
LOSSES: Final = (0.0, 0.005)
SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
TIMES: Final = 3
PROCESSING: Final = 0.008
"""Seconds for processors, beyond 1.2 times the limit."""
MEMORY: Final = ("    serves 10.1.9", "    memory 512 MiB;\n    serves 10.1.9")
HOPS: Final = 3
SEAMLESS: Final = "seamless"


@attrs.frozen
class Case:
    """One object on one bed."""

    round_trip: float
    loss: float
    nbytes: int

    @property
    def limit(self) -> float:
        """Return the seconds that nothing can beat."""
        return self.round_trip + self.nbytes * 8 / (RATE_BPS * PAYLOAD * (1 - self.loss))


@attrs.frozen
class Took:
    """The times of one way to fetch an object; ``middle`` is infinite when half of them were given up."""

    seconds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Return the median."""
        return median(self.seconds)

    def __str__(self) -> str:
        """Return the median and the spread, in milliseconds."""
        if self.middle == float("inf"):
            return "given up"
        spread = max(self.seconds) - min(self.seconds)
        return f"{self.middle * 1e3:.0f}" + (f" ({spread * 1e3:.0f})" if len(self.seconds) > 1 else "")


def run(conditions: Conditions) -> None:
    """Measure each round trip in a lab of its own: native ways first, then nodes."""
    found: dict[Case, dict[str, Took]] = {}
    ways = [*NATIVE_WAYS, SEAMLESS]
    columns = "".join(f"{way:>18}" for way in ways)
    print(f"{'ms: median (spread)':<34}{'limit':>8}{columns}", flush=True)
    for round_trip in conditions.cases(ROUND_TRIPS):
        _bed(round_trip, conditions, found)
    _judge(found, conditions)
    if conditions.plot is not None:
        conditions.plot.write_text(plot(found), encoding="utf-8")


def _bed(round_trip: float, conditions: Conditions, found: dict[Case, dict[str, Took]]) -> None:
    hop = f"delay {round_trip / HOPS / 2 * 1e3:g} ms"
    native = f"delay {round_trip / 2 * 1e3:g} ms"
    with changed(("delay 5 ms", hop), ("delay 15 ms", native), MEMORY) as file, bed(file) as lab, serving(lab):
        cases = [Case(round_trip, loss, size) for loss in conditions.cases(LOSSES) for size in _sizes(conditions)]
        for way, congestion in NATIVE_WAYS.items():
            measure.set_congestion_control(lab, congestion)
            _fetch_all(lab, way, cases, conditions, found)
        measure.set_loss(lab, 0.0)
        measure.wait_for_silence(lab)
        lab.start_nodes()
        measure.wait_for_overlay(lab.node(CLIENT), lab.node(SERVER))
        fetch(lab, 1, 1, conditions.seconds)
        _fetch_all(lab, SEAMLESS, cases, conditions, found)
    for case in cases:
        title = f"{round_trip * 1e3:.0f} ms, {percent(case.loss)} loss, {_size(case.nbytes)}"
        row = "".join(f"{took!s:>18}" for took in found[case].values())
        print(f"{title:<34}{case.limit * 1e3:>8.0f}{row}", flush=True)


def _sizes(conditions: Conditions) -> tuple[int, ...]:
    return SIZES[:3] if conditions.is_smoke else SIZES


def _fetch_all(
    lab: Lab, way: str, cases: list[Case], conditions: Conditions, found: dict[Case, dict[str, Took]]
) -> None:
    times = 1 if conditions.is_smoke else TIMES
    loss = None
    for case in cases:
        if case.loss != loss:
            loss = case.loss
            measure.set_loss(lab, loss)
        took = [float("inf") if each is None else each for each in fetch(lab, case.nbytes, times, conditions.seconds)]
        found.setdefault(case, {})[way] = Took(tuple(took))


def _judge(found: dict[Case, dict[str, Took]], conditions: Conditions) -> None:
    """Say what was to be reached: near the limit from 1 MB on, and half of BBR's time up to 10 MB."""
    bbr = next(way for way, congestion in NATIVE_WAYS.items() if congestion == "bbr")
    for case, ways in found.items():
        ours, theirs = ways[SEAMLESS].middle, ways[bbr].middle
        title = f"{case.round_trip * 1e3:.0f} ms, {percent(case.loss)} loss, {_size(case.nbytes)}"
        if case.nbytes >= 1_000_000:
            most = 1.2 * case.limit + PROCESSING
            conditions.verdicts.judge(ours <= most, f"{title}: {ours * 1e3:.0f} ms, at most {most * 1e3:.0f}")
        if case.nbytes <= 10_000_000:
            sentence = f"{title}: {ours / theirs:.2f} of BBR's time, at most 0.5"
            conditions.verdicts.judge(ours <= theirs / 2, sentence)


def _size(nbytes: int) -> str:
    return f"{nbytes // 1_000_000} MB" if nbytes >= 1_000_000 else f"{nbytes // 1000} kB"


# The drawing.

COLORS: Final = ("#b03030", "#c08020", "#2050b0", "#888888")
PANEL_WIDTH: Final = 330
PANEL_HEIGHT: Final = 300
LEFT, TOP, BOTTOM, RIGHT = 58, 50, 40, 12


def plot(found: dict[Case, dict[str, Took]]) -> str:
    """Return a drawing: a panel for each round trip, both axes logarithmic, lossy lines dashed."""
    round_trips = sorted({case.round_trip for case in found})
    panels = [
        f'<g transform="translate({PANEL_WIDTH * index},0)">{_panel(found, round_trip)}</g>'
        for index, round_trip in enumerate(round_trips)
    ]
    width = PANEL_WIDTH * len(round_trips)
    names = [*next(iter(found.values())), "limit"]
    legend = "".join(
        f'<text x="{LEFT + 110 * index}" y="18" fill="{color}">{name}</text>'
        for index, (name, color) in enumerate(zip(names, COLORS, strict=True))
    )
    note = f'<text x="{LEFT + 440}" y="18">dashed: 0.5 % loss</text>' if len({case.loss for case in found}) > 1 else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{PANEL_HEIGHT}" font-family="sans-serif"'
        f' font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{legend}{note}\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def _panel(found: dict[Case, dict[str, Took]], round_trip: float) -> str:
    cases = [case for case in found if case.round_trip == round_trip]
    parts = [f'<text x="{LEFT + 8}" y="{TOP - 8}">round trip {round_trip * 1e3:.0f} ms</text>', *_grid(cases)]
    for loss in sorted({case.loss for case in cases}):
        of_loss = sorted((case for case in cases if case.loss == loss), key=lambda case: case.nbytes)
        dash = ' stroke-dasharray="5 4"' if loss else ""
        for way, color in zip(found[of_loss[0]], COLORS, strict=False):
            parts.append(_line([(case.nbytes, found[case][way].middle) for case in of_loss], cases, color, dash))
        if not loss:
            parts.append(_line([(case.nbytes, case.limit) for case in of_loss], cases, COLORS[-1], dash))
    return "\n".join(parts)


def _line(points: list[tuple[int, float]], cases: list[Case], color: str, dash: str) -> str:
    shown = " ".join("{:.1f},{:.1f}".format(*_place(*point, cases)) for point in points if point[1] != float("inf"))
    return f'<polyline fill="none" stroke="{color}" stroke-width="2"{dash} points="{shown}"/>'


def _place(nbytes: float, seconds: float, cases: list[Case]) -> tuple[float, float]:
    """Return where a point is drawn: four decades of size, and the decades of time from 10 ms to 100 s."""
    sizes = [case.nbytes for case in cases]
    share = log10(nbytes / min(sizes)) / log10(max(sizes) / min(sizes))
    height = PANEL_HEIGHT - TOP - BOTTOM
    return LEFT + (PANEL_WIDTH - LEFT - RIGHT) * share, TOP + height * (2 - log10(seconds)) / 4


def _grid(cases: list[Case]) -> list[str]:
    lines = []
    right = PANEL_WIDTH - RIGHT
    for seconds, title in ((0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"), (100.0, "100 s")):
        _, y = _place(min(case.nbytes for case in cases), seconds, cases)
        lines.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{title}</text>')
    for nbytes in sorted({case.nbytes for case in cases}):
        x, _ = _place(nbytes, 1.0, cases)
        lines.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP}" y2="{PANEL_HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.0f}" y="{PANEL_HEIGHT - 22}" text-anchor="middle">{_size(nbytes)}</text>')
    return lines
