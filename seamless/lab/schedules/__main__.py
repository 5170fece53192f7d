"""Play random schedules: python -m seamless.lab.schedules --seeds 1-1000 [--jobs 2] [--shrink] [--verbose]

Each line is one seed and what became of it; of one that broke a rule also the rule, the first thing that broke it, and
the schedule as a transcript. ``--seed N`` plays one again, the same to the last datagram. The exit code is 0 when no
rule was broken and 1 when some was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from typing import Final

import attrs

from seamless.lab.schedules.draw import KINDS, draw
from seamless.lab.schedules.play import play
from seamless.lab.schedules.shrink import shrink

SUMMARY: Final = "Play random schedules of faults on virtual time, and check what applications see."
STREAMS_SHOWN: Final = 12
"""Streams in the transcript of a schedule that broke a rule, unless more are asked for."""


@attrs.frozen
class Outcome:
    """What is printed of a seed."""

    seed: int
    rule: str
    line: str
    details: tuple[str, ...]
    hits: Counter[str]
    endings: Counter[str]
    seconds: float


@attrs.frozen
class Options:
    """How to play a seed, and what to print of it."""

    shrinks: bool = False
    verbose: bool = False
    without: frozenset[str] = frozenset()
    """Kinds of faults that are left out."""


def outcome(seed: int, options: Options) -> Outcome:
    """Play a seed and put it into words."""
    begin = time.process_time()
    result = play(draw(seed).without(options.without))
    if result.violation is not None and options.shrinks:
        result = shrink(result)
    seconds = time.process_time() - begin
    violation = result.violation
    line = (
        f"seed {seed}: {result.schedule.shape} of {len(result.schedule.nodes)}, {result.streams} streams, "
        f"{result.read_bytes} bytes, {result.packets} packets, {result.at:.1f} s in {seconds:.2f} s: "
        f"{', '.join(sorted(result.schedule.kinds)) or 'no fault'}: "
        f"{'as it should be' if violation is None else violation}"
    )
    shown = None if options.verbose else STREAMS_SHOWN
    details = tuple(result.schedule.lines(shown)) if violation is not None or options.verbose else ()
    rule = violation.rule if violation is not None else ""
    return Outcome(seed, rule, line, details, result.hits, result.endings, seconds)


def _outcomes(seeds: list[int], options: Options, jobs: int) -> Iterator[Outcome]:
    """Yield what becomes of each seed, in their order."""
    play_seed = partial(outcome, options=options)
    if jobs == 1:
        yield from map(play_seed, seeds)
        return
    with Pool(jobs) as pool:
        yield from pool.imap(play_seed, seeds)


def seeds_of(text: str) -> list[int]:
    """Return the seeds that a word like ``1-100,117`` names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def summary(outcomes: list[Outcome]) -> list[str]:
    """Return the last lines: how many broke which rule, and which faults took effect in how many schedules."""
    failed = [each for each in outcomes if each.rule]
    hits: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    for each in outcomes:
        hits.update(kind for kind, count in each.hits.items() if count)
        endings.update(each.endings)
    lines = [
        f"schedules with faults that took effect: {', '.join(f'{kind} {count}' for kind, count in hits.most_common())}",
        f"ends of streams: {', '.join(f'{how} {count}' for how, count in endings.most_common())}",
        f"{len(outcomes)} schedules, {len(failed)} broke a rule, "
        f"{sum(each.seconds for each in outcomes):.1f} s of processor time",
    ]
    for rule in sorted({each.rule for each in failed}):
        broke = [str(each.seed) for each in failed if each.rule == rule]
        lines.append(f"  {rule}: {len(broke)}: {', '.join(broke)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Play what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m seamless.lab.schedules", description=SUMMARY)
    parser.add_argument("--seeds", "--seed", type=seeds_of, default=seeds_of("1-100"), metavar="1-100,117")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller schedule that breaks the same rule")
    parser.add_argument("--verbose", action="store_true", help="print the transcript of every schedule")
    parser.add_argument(
        "--without",
        action="append",
        choices=[each.kind for each in KINDS],
        default=[],
        help="leave out faults of this kind (to see what others do); may be given several times",
    )
    given = parser.parse_args(arguments)
    options = Options(given.shrink, given.verbose, frozenset(given.without))
    outcomes = []
    for each in _outcomes(given.seeds, options, given.jobs):
        outcomes.append(each)
        print("\n".join((each.line, *each.details)), flush=True)
    print("\n".join(summary(outcomes)))
    return 1 if any(each.rule for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
