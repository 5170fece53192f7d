"""What a benchmark is: an `Experiment`, run under `Conditions`, which may judge its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

T = TypeVar("T")

SMOKE_SECONDS: Final = 1.0
"""Seconds of each measurement in the smoke test: enough to see that a benchmark still runs."""


@attrs.define
class Verdicts:
    """What was to be reached, and how much of it was missed."""

    missed: int = 0

    def judge(self, met: bool, sentence: str) -> None:
        """Print whether something was reached, and count it if not."""
        self.missed += not met
        print(f"  {'met' if met else 'MISSED':<7} {sentence}", flush=True)


@attrs.frozen
class Conditions:
    """One run of an experiment.

    ``seconds`` is the length of each measurement; ``is_smoke`` asks for the fewest cases that show that all still
    works; ``plot`` is where an experiment that draws writes its SVG.
    """

    seconds: float
    verdicts: Verdicts = attrs.Factory(Verdicts)
    is_smoke: bool = False
    plot: Path | None = None

    def cases(self, cases: Sequence[T]) -> Sequence[T]:
        """Return the cases to measure: all, or in a smoke test the first."""
        return cases[:1] if self.is_smoke else cases


@attrs.frozen
class Experiment:
    """A benchmark: its name, what it prints in one line, how to run it, and the seconds of each measurement."""

    name: str
    what: str
    run: Callable[[Conditions], None]
    seconds: float
