"""The main job, for people to see: ``script/demo``.

It builds the bed of ``etc/lab.conf`` on this machine, runs iperf3 and scp over direct TCP and then over seamless, prints
a table, and takes everything down again, also on Ctrl-C. The native runs come first, while there are no nodes; then the
nodes start, and the same commands, unmodified, are captured. All in one lab and one run.

The exit code is 0 when every transfer ended and every copy was a copy. A target that was missed is shown as such: the
demo shows what is, and ``bench/bed.py --check`` judges.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from seamless.errors import EXIT_DONE, EXIT_FAILED, SeamlessError
from seamless.lab import measure
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, NATIVE_WIRE, SERVER, Copied

SEAMLESS: Final = "seamless"
NATIVE_WAYS: Final = {"TCP CUBIC": "cubic", "TCP BBR": "bbr"}
"""By name in the table: what the kernel calls the congestion control."""
WAYS: Final = (*NATIVE_WAYS, SEAMLESS)

EXIT_INTERRUPTED: Final = 130
"""What a shell expects after Ctrl-C: 128 and the number of SIGINT."""

_SECONDS: Final = 10.0
_QUICK_SECONDS: Final = 4.0
_LOSSES: Final = (0.005, 0.05)
_SMALLEST_FILE_BYTES: Final = 1_000_000
"""Below this the opening of the ssh connection would be most of what is measured."""
_LARGEST_FILE_BYTES: Final = 400_000_000
"""Some seven seconds at the rate of the links, in which the half second for the opening does not matter."""

IPERF3_TARGETS_BPS: Final = {0.005: 450e6, 0.05: 425e6}
"""By loss: what iperf3 over seamless is to reach, of the links' 500 Mb/s."""
SCP_TARGET_RATIO: Final = 24
"""How many times faster than over TCP CUBIC scp is to be: the ratio of the paper that had the idea."""


@attrs.frozen
class Row:
    """What was measured over one way at one loss."""

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


@attrs.frozen
class Plan:
    """What to measure: iperf3 for so many seconds, and files that take scp about as long."""

    losses: tuple[float, ...] = _LOSSES
    seconds: float = _SECONDS
    directory: Path | None = None


# Measuring.


Tell: TypeAlias = Callable[[str], None]
"""Hears what is going on: pieces of lines."""


def run(plan: Plan, tell: Tell) -> Figures:
    """Measure everything in a lab of its own."""
    configuration = measure.load_bed()
    tell("Building the lab: four hosts, their wires, sshd and iperf3 ... ")
    with Lab(configuration, configuration_file=measure.BED_FILE, directory=plan.directory) as lab:
        lab.start_servers()
        tell("up\n")
        rows = []
        for way, congestion in NATIVE_WAYS.items():
            measure.set_congestion_control(lab, congestion)
            rows += [_measure(lab, plan, loss, way, tell) for loss in plan.losses]
        measure.wait_for_silence(lab)
        tell("Starting the nodes ... ")
        lab.start_nodes()
        measure.wait_for_overlay((lab.node(CLIENT), lab.node(SERVER)))
        tell("up\n")
        native, overlay = measure.wire_bytes(lab, *NATIVE_WIRE), measure.wire_bytes(lab, *measure.OVERLAY_WIRE)
        rows += [_measure(lab, plan, loss, SEAMLESS, tell) for loss in plan.losses]
        native = measure.wire_bytes(lab, *NATIVE_WIRE) - native
        overlay = measure.wire_bytes(lab, *measure.OVERLAY_WIRE) - overlay
        tell("Taking everything down ... ")
    tell("done\n")
    return Figures(tuple(rows), native, overlay)


def _measure(lab: Lab, plan: Plan, loss: float, way: str, tell: Tell) -> Row:
    measure.set_loss(lab, loss)
    tell(f"{percent(loss)} loss, {way}: iperf3 for {plan.seconds:g} s ... ")
    throughput = measure.iperf3(lab, plan.seconds)
    if way in NATIVE_WAYS and throughput.congestion != NATIVE_WAYS[way]:
        raise SeamlessError(f"iperf3 was to use {way}, but used {throughput.congestion or 'nobody knows what'}.")
    size_bytes = min(max(int(throughput.bps * plan.seconds / 8), _SMALLEST_FILE_BYTES), _LARGEST_FILE_BYTES)
    tell(f"{rate(throughput.bps)}; scp of {size_bytes / 1e6:.1f} MB ... ")
    copied = measure.copy(lab, size_bytes)
    tell(f"{rate(copied.bps)}, {'checksums equal' if copied.equal else 'CHECKSUMS DIFFER'}\n")
    return Row(loss, way, throughput.bps, copied)


# Showing.


def percent(share: float) -> str:
    """Return a share as people write it."""
    return f"{share * 100:g} %"


def rate(bps: float) -> str:
    """Return a rate in Mb/s, with a decimal where it matters."""
    mbps = bps / 1e6
    return f"{mbps:.0f} Mb/s" if mbps >= 100 else f"{mbps:.1f} Mb/s"


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


# The command.


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and ignore more of them: something tidies up."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: object) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def parse(words: Sequence[str] | None = None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/demo",
        description="Run iperf3 and scp over a lossy wide area on this machine, by direct TCP and over seamless.",
        epilog="Exit codes: 0 every transfer ended and every copy is equal, 1 not so, 4 missing privilege.",
    )
    parser.add_argument("--quick", action="store_true", help="half a minute: 0.5 %% loss only, and shorter runs")
    parser.add_argument(
        "--loss", type=float, action="append", metavar="PERCENT", help="instead of 0.5 and 5; may be repeated"
    )
    parser.add_argument("--directory", type=Path, help="keep logs and configuration of all daemons in this folder")
    chosen = parser.parse_args(words)
    if any(not 0 <= loss < 100 for loss in chosen.loss or ()):
        parser.error("a loss is at least 0 and less than 100 percent")
    losses = tuple(loss / 100 for loss in chosen.loss) if chosen.loss else _LOSSES[:1] if chosen.quick else _LOSSES
    return Plan(losses, _QUICK_SECONDS if chosen.quick else _SECONDS, chosen.directory)


def tell(piece: str) -> None:
    """Show progress as it happens, beside the output."""
    print(piece, file=sys.stderr, end="", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    plan = parse(words)
    try:
        with ending_on_signals():
            figures = run(plan, tell)
    except SeamlessError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: stopped; everything is removed again", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(report(figures))
    return EXIT_DONE if all(row.copied.equal for row in figures.rows) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
