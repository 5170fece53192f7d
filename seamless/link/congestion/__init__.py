"""Congestion control of a link, chosen by name in the configuration: how much may be in flight, and how fast it goes.

A controller (`seamless.interfaces.CongestionController`) gives the pacer its rate, and nothing leaves the queue while
its window is full. Each is a file beside this one, and a line of `CONTROLLERS`.

What is left out, and why: persistent congestion (RFC 9002, section 7.6), since a path that loses everything for long is
DOWN and carries nothing; and ECN, for which the ACK frame of links has no field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from seamless.errors import LocalProtocolError
from seamless.interfaces import CongestionController
from seamless.link.congestion.auto import Auto
from seamless.link.congestion.cubic import Cubic
from seamless.link.congestion.off import Off


@attrs.frozen
class RateBounds:
    """What the configuration says of a link's rate, in bits per second; None where it says nothing."""

    ceiling_bps: float | None = None
    """The rate itself with ``congestion off``."""
    floor_bps: float | None = None


MakeController: TypeAlias = Callable[[RateBounds, int, float], CongestionController]
"""Called with the bounds of the rate, the datagram size in bytes, and the time."""


@attrs.frozen
class Choice:
    """A word of the statement ``congestion``, and the controller that it stands for."""

    make: MakeController
    requires_rate: bool = False
    """Whether the link must have a configured rate."""
    takes_floor: bool = False
    """Whether the configured rate may have a lower bound."""


CONTROLLERS: Final[Mapping[str, Choice]] = {
    "off": Choice(lambda bounds, datagram_bytes, now: Off(bounds.ceiling_bps or 0.0), requires_rate=True),
    "auto": Choice(lambda bounds, size, now: Auto(bounds.ceiling_bps, bounds.floor_bps, size, now), takes_floor=True),
    "cubic": Choice(lambda bounds, datagram_bytes, now: Cubic(bounds.ceiling_bps, datagram_bytes, now)),
}
"""By name; the configuration language takes its words from here."""


def make_controller(
    name: str, rate_bps: float | None, datagram_bytes: int, now: float, floor_bps: float | None = None
) -> CongestionController:
    """Return a new controller; `LocalProtocolError` for an unknown name or a missing rate.

    ``rate_bps``: the configured rate, or its upper bound; ``floor_bps``: its lower bound.
    """
    choice = CONTROLLERS.get(name)
    if choice is None or (choice.requires_rate and rate_bps is None):
        known = ", ".join(f"{word!r}{' (with a rate)' * each.requires_rate}" for word, each in CONTROLLERS.items())
        raise LocalProtocolError(f"congestion is one of {known}; not {name!r} with the rate {rate_bps}")
    return choice.make(RateBounds(rate_bps, floor_bps), datagram_bytes, now)
