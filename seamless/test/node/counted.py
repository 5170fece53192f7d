"""Nodes of a simulation that count the calls of functions which their wake-ups make."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs

from seamless.lab.simulated import Simulation
from seamless.node import Node

_VERBS = ("receive_datagrams", "handle_timeout", "next_event", "datagrams_to_send", "next_timeout")


@attrs.define
class Wakeups:
    """What the wake-ups of one node have cost: each ends when the node is asked for its next deadline."""

    wakeups: int = 0
    python_calls: int = 0
    c_calls: int = 0

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Count a call; a profile function for ``sys.setprofile``."""
        self.python_calls += event == "call"
        self.c_calls += event == "c_call"

    @property
    def each(self) -> float:
        """Return the calls of Python functions of one wake-up."""
        return self.python_calls / max(1, self.wakeups)

    @property
    def each_c(self) -> float:
        """Return the calls of C functions of one wake-up."""
        return self.c_calls / max(1, self.wakeups)


class _CountedNode:
    """Hands everything on to ``node``, and counts the calls that the verbs of a core make."""

    def __init__(self, node: Node, counted: Wakeups) -> None:
        self._node = node
        self._counted = counted

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._node, name)
        return self._count(name, attribute) if name in _VERBS else attribute

    def _count(self, name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            before = sys.getprofile()
            sys.setprofile(self._counted.note)
            try:
                return verb(*arguments)
            finally:
                sys.setprofile(before)
                self._counted.c_calls -= 1  # that of setprofile itself
                self._counted.wakeups += name == "next_timeout"

        return counting


def count_wakeups(net: Simulation, name: str) -> Wakeups:
    """Count the calls of the node ``name`` from now on."""
    counted = Wakeups()
    place = net.nodes[name]
    assert place.node is not None
    place.node = _CountedNode(place.node, counted)  # type: ignore[assignment]
    return counted
