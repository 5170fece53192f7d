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
from seamless.link.congestion.cubic import Cubic
from seamless.link.congestion.off import Off

MakeController: TypeAlias = Callable[[float | None, int, float], CongestionController]
"""Called with the configured rate in bits per second or None, the datagram size in bytes, and the time."""


@attrs.frozen
class Choice:
    """A word of the statement ``congestion``, and the controller that it stands for."""

    make: MakeController
    requires_rate: bool = False
    """Whether the link must have a configured rate."""


CONTROLLERS: Final[Mapping[str, Choice]] = {
    "off": Choice(lambda rate_bps, datagram_bytes, now: Off(rate_bps or 0.0), requires_rate=True),
    "cubic": Choice(Cubic),
}
"""By name; the configuration language takes its words from here."""


def make_controller(name: str, rate_bps: float | None, datagram_bytes: int, now: float) -> CongestionController:
    """Return a new controller; `LocalProtocolError` for an unknown name or a missing rate."""
    choice = CONTROLLERS.get(name)
    if choice is None or (choice.requires_rate and rate_bps is None):
        known = ", ".join(f"{word!r}{' (with a rate)' * each.requires_rate}" for word, each in CONTROLLERS.items())
        raise LocalProtocolError(f"congestion is one of {known}; not {name!r} with the rate {rate_bps}")
    return choice.make(rate_bps, datagram_bytes, now)
