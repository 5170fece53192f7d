"""The figures of a run of the demo, and their report: a table, checksums, and which targets were met. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from seamless.lab.measure import Copied

SEAMLESS: Final = "seamless"
NATIVE_WAYS: Final = {"TCP CUBIC": "cubic", "TCP BBR": "bbr"}
"""By name in the table: what the kernel calls the congestion control."""
WAYS: Final = (*NATIVE_WAYS, SEAMLESS)

IPERF3_TARGETS_BPS: Final = {0.005: 450e6, 0.05: 425e6}
"""By loss: what iperf3 over seamless is to reach, of the links' 500 Mb/s."""
SCP_TARGET_RATIO: Final = 24
"""How many times faster than over TCP CUBIC scp is to be: the ratio of the paper that had the idea."""


@attrs.frozen
class Row:
    """The figures of one way (native or overlay) at one loss rate."""

    loss: float
    way: str
    iperf3_bps: float
    copied: Copied


@attrs.frozen
class Figures:
    """The whole run. The bytes are those that wires were given while the nodes were up and captured."""

    rows: tuple[Row, ...]
    native_bytes: int
    overlay_bytes: int

    def row(self, loss: float, way: str) -> Row:
        """Return the row of one way at one loss."""
        return next(row for row in self.rows if (row.loss, row.way) == (loss, way))

    @property
    def losses(self) -> tuple[float, ...]:
        """Return the losses in the order in which they were measured."""
        return tuple(dict.fromkeys(row.loss for row in self.rows))


def percent(share: float) -> str:
    """Return a share as people write it."""
    return f"{share * 100:g} %"


def rate(bps: float) -> str:
    """Return a rate in Mb/s, with decimals where they matter."""
    mbps = bps / 1e6
    decimals = 0 if mbps >= 100 else 1 if mbps >= 1 else 2
    return f"{mbps:.{decimals}f} Mb/s"


def times(ratio: float) -> str:
    """Return a ratio with as many decimals as matter."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}"


def _copy_in_words(copied: Copied) -> str:
    return f"{copied.size_bytes / 1e6:.1f} MB in {copied.seconds:.1f} s"


def table(figures: Figures) -> list[str]:
    """Return the lines of the table: a line for each program and loss, a column for each way, and the ratios."""
    columns = ("loss", "program", *WAYS, *(f"/ {way}" for way in NATIVE_WAYS))
    lines = [_line(columns)]
    for loss in figures.losses:
        rows = [figures.row(loss, way) for way in WAYS]
        for program, rates in (
            ("iperf3", [row.iperf3_bps for row in rows]),
            ("scp", [row.copied.bps for row in rows]),
        ):
            ratios = [times(rates[-1] / native) for native in rates[:-1]]
            lines.append(_line((percent(loss), program, *(rate(bps) for bps in rates), *ratios)))
    return lines


def _line(words: Sequence[str]) -> str:
    return f"{words[0]:<7} {words[1]:<8}" + "".join(f"{word:>13}" for word in words[2:])


def checksums(figures: Figures) -> list[str]:
    """Return a line for each copied file: its way, its size, how long it took, and its SHA-256 at both ends."""
    lines = []
    for row in figures.rows:
        copied = row.copied
        seen = copied.received_sha256 if copied.equal else f"{copied.sent_sha256} BECAME {copied.received_sha256}"
        lines.append(f"{percent(row.loss):<7} {row.way:<10} {_copy_in_words(copied):<20} {seen}")
    return lines


def targets(figures: Figures) -> list[tuple[bool, str]]:
    """Return what was to be shown, and whether it was."""
    judged = []
    for loss in figures.losses:
        if loss not in IPERF3_TARGETS_BPS:
            continue
        ours, cubic = figures.row(loss, SEAMLESS), figures.row(loss, "TCP CUBIC")
        wanted = IPERF3_TARGETS_BPS[loss]
        sentence = f"iperf3 over seamless at {percent(loss)} loss: {rate(ours.iperf3_bps)}, at least {rate(wanted)}"
        judged.append((ours.iperf3_bps >= wanted, sentence))
        ratio = ours.copied.bps / cubic.copied.bps
        sentence = (
            f"scp over seamless at {percent(loss)} loss: {ratio:.0f} times TCP CUBIC, at least {SCP_TARGET_RATIO}"
        )
        judged.append((ratio >= SCP_TARGET_RATIO, sentence))
    sentence = f"bytes on the native wire while connections were captured: {figures.native_bytes}, none"
    judged.append((figures.native_bytes == 0 and figures.overlay_bytes > 0, sentence))
    return judged


def report(figures: Figures) -> str:
    """Return everything that the demo says at its end."""
    judged = [f"{'met' if met else 'MISSED':<7} {sentence}" for met, sentence in targets(figures)]
    return "\n".join(
        [
            *("", *table(figures)),
            *("", "Files that scp copied (random bytes; the time is that of the whole command), and their SHA-256:"),
            *checksums(figures),
            *("", f"Meanwhile the overlay's middle wire was given {figures.overlay_bytes / 1e6:.0f} MB.", *judged),
        ]
    )
