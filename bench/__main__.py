"""Run benchmarks by name: ``python -m bench NAME ...``; without a name, list them.

    --seconds N   of each measurement
    --check       end with exit code 1 if a target is missed
    --smoke       a second of each measurement and the fewest cases: does it still run?
    --plot FILE   where an experiment that draws writes its SVG

Micro benchmarks (bench/micro) need one processor and no privilege. Lab benchmarks (bench/lab) build an emulated lab and
want a machine that does nothing else. Every figure stands beside what it is compared with, measured in the same run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import lab, micro
from bench.experiment import SMOKE_SECONDS, Conditions, Experiment, Verdicts
from seamless.errors import SeamlessError

EXPERIMENTS: Final[dict[str, Experiment]] = {each.name: each for each in (*micro.EXPERIMENTS, *lab.EXPERIMENTS)}


def _listed() -> str:
    return "\n".join(f"    {each.name:<12}  {each.what}" for each in EXPERIMENTS.values())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, epilog=_listed(), formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--plot", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; return the exit code."""
    parser = _parser()
    words = parser.parse_args(arguments)
    if unknown := set(words.names) - set(EXPERIMENTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    if not words.names:
        print(_listed())
        return 0
    verdicts = Verdicts()
    for name in words.names:
        experiment = EXPERIMENTS[name]
        seconds = words.seconds or (SMOKE_SECONDS if words.smoke else experiment.seconds)
        print(f"{name}:", flush=True)
        try:
            experiment.run(Conditions(seconds, verdicts, words.smoke, words.plot))
        except SeamlessError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return error.exit_code
    return 1 if words.check and verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
