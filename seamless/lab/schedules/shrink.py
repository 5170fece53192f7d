"""Makes a schedule that breaks a rule smaller, so that a person can read it.

Faults, trains of packets and conversations are left out, half of them at a time and then one by one, for as long as the
same rule is broken. What is left need not be the smallest: whatever is left out shifts the random numbers of the wires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import attrs

from seamless.lab.schedules.plan import Schedule
from seamless.lab.schedules.play import Result, play

TRIES_MAX: Final = 60
"""Schedules played to find a smaller one."""

_Part = TypeVar("_Part")


def shrink(result: Result, play_again: Callable[[Schedule], Result] = play) -> Result:
    """Return the result of the smallest schedule found that breaks the same rule as this one."""
    assert result.violation is not None
    rule = result.violation.rule
    tries = 0
    smaller = True
    while smaller and tries < TRIES_MAX:
        smaller = False
        for schedule in _smaller(result.schedule):
            tries += 1
            again = play_again(schedule)
            if again.violation is not None and again.violation.rule == rule:
                result, smaller = again, True
                break
            if tries >= TRIES_MAX:
                break
    return result


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Yield schedules with less in them, those with much less first; one always keeps a conversation."""
    for conversations in _without_some(schedule.conversations):
        if conversations:
            yield attrs.evolve(schedule, conversations=conversations)
    for faults in _without_some(schedule.faults):
        yield attrs.evolve(schedule, faults=faults)
    for packets in _without_some(schedule.packets):
        yield attrs.evolve(schedule, packets=packets)


def _without_some(parts: Sequence[_Part]) -> Iterator[tuple[_Part, ...]]:
    """Yield what is left without all, without a half, a quarter, ... and without one."""
    size = len(parts)
    while size >= 1:
        for begin in range(0, len(parts), size):
            yield (*parts[:begin], *parts[begin + size :])
        size //= 2
