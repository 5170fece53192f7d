"""The demonstration, ``script/demo``: measures TCP with and without the overlay in an emulated wide area.

It builds the bed of ``etc/lab.conf`` on this machine, runs iperf3 and scp over direct TCP and then over seamless,
prints a table, and takes everything down again, also on Ctrl-C. The native runs come first, while there are no nodes;
then the nodes start, and the same commands, unmodified, are captured. All in one lab and one run.

The exit code is 0 when every transfer ended and every copy was a copy. A target that was missed is shown as such: the
demo shows what is, and ``python -m bench bed --check`` judges.
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
from seamless.lab.demo_report import NATIVE_WAYS, SEAMLESS, Figures, Row, percent, rate, report
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, NATIVE_WIRE, SERVER

EXIT_INTERRUPTED: Final = 130
"""What a shell expects after Ctrl-C: 128 and the number of SIGINT."""

_SECONDS: Final = 10.0
_QUICK_SECONDS: Final = 4.0
_LOSSES: Final = (0.005, 0.05)
_COPY_TIMES: Final = 2
"""Scp gets twice the time of iperf3: a slow TCP's luck in its first second must not be half of what is measured."""
_SMALLEST_FILE_BYTES: Final = 1_000_000
"""Below this the opening of the ssh connection would be most of what is measured."""
_LARGEST_FILE_BYTES: Final = 250_000_000
"""Four seconds at the rate of the links; the opening of the connection is a tenth of that."""


@attrs.frozen
class Plan:
    """What to measure: iperf3 for so many seconds, and scp of files that would take twice that at iperf3's rate."""

    losses: tuple[float, ...] = _LOSSES
    seconds: float = _SECONDS
    directory: Path | None = None


Tell: TypeAlias = Callable[[str], None]
"""Called with pieces of lines that report progress."""


def run(plan: Plan, tell: Tell) -> Figures:
    """Measure everything in a lab of its own."""
    configuration = measure.load_bed()
    tell("Building the lab: four hosts, their wires, sshd and iperf3 ... ")
    bed = Lab(configuration, configuration_file=measure.BED_FILE, directory=plan.directory)
    with ending_on_signals() as ignore_signals, bed as lab:
        lab.start_servers()
        tell("up\n")
        rows = []
        for way, congestion in NATIVE_WAYS.items():
            measure.set_congestion_control(lab, congestion)
            rows += [_measure(lab, plan, loss, way, tell) for loss in plan.losses]
        measure.wait_for_silence(lab)
        tell("Starting the nodes ... ")
        lab.start_nodes()
        measure.wait_for_overlay(lab.node(CLIENT), lab.node(SERVER))
        tell("up\n")
        native, overlay = measure.wire_bytes(lab, *NATIVE_WIRE), measure.wire_bytes(lab, *measure.OVERLAY_WIRE)
        rows += [_measure(lab, plan, loss, SEAMLESS, tell) for loss in plan.losses]
        native = measure.wire_bytes(lab, *NATIVE_WIRE) - native
        overlay = measure.wire_bytes(lab, *measure.OVERLAY_WIRE) - overlay
        ignore_signals()
        tell("Taking everything down ... ")
    tell("done\n")
    return Figures(tuple(rows), native, overlay)


def _measure(lab: Lab, plan: Plan, loss: float, way: str, tell: Tell) -> Row:
    measure.set_loss(lab, loss)
    tell(f"{percent(loss)} loss, {way}: iperf3 for {plan.seconds:g} s ... ")
    throughput = measure.iperf3(lab, plan.seconds)
    if way in NATIVE_WAYS and throughput.congestion != NATIVE_WAYS[way]:
        raise SeamlessError(f"iperf3 was to use {way}, but used {throughput.congestion or 'an unknown one'}.")
    size_bytes = min(
        max(int(throughput.bps / 8 * plan.seconds * _COPY_TIMES), _SMALLEST_FILE_BYTES), _LARGEST_FILE_BYTES
    )
    tell(f"{rate(throughput.bps)}; scp of {size_bytes / 1e6:.1f} MB ... ")
    copied = measure.copy(lab, size_bytes)
    tell(f"{rate(copied.bps)}, {'checksums equal' if copied.equal else 'CHECKSUMS DIFFER'}\n")
    return Row(loss, way, throughput.bps, copied)


@contextmanager
def ending_on_signals() -> Iterator[Callable[[], None]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and ignore more of them: something tidies up.

    Yields what to call when all is done and nothing but the tidying up is left.
    """
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def ignore() -> None:
        for number in caught:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(number: int, frame: object) -> None:
        ignore()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield ignore
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
    parser.add_argument("--quick", action="store_true", help="a minute: 0.5 %% loss only, and shorter runs")
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
    """Write progress to standard error."""
    print(piece, file=sys.stderr, end="", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    plan = parse(words)
    try:
        figures = run(plan, tell)
    except SeamlessError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: stopped; the lab is gone", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(report(figures))
    return EXIT_DONE if all(row.copied.equal for row in figures.rows) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
