"""What a path carries: the rate and the latency that LSAs announce of each link, and what they make of a path.

The windows of a session begin at the bandwidth-delay product of its path. A node knows the rates and latencies of its
own links; those of the others it learns from their LSAs, where each takes one byte on a logarithmic scale. A step of
the scale is 9 %, and a value is rounded up: that is all that a first window needs, and small changes are no news.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log2
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from seamless.routing.spf import Graph

STEPS_PER_DOUBLING: Final = 8
RATE_UNIT_BPS: Final = 1e6
LATENCY_UNIT: Final = 1e-6
RATE_CODE_MAX: Final = 0x7F
"""1 Mb/s to 60 Gb/s; the eighth bit is `RATE_IS_ESTIMATE`."""
RATE_IS_ESTIMATE: Final = 0x80
LATENCY_CODE_MAX: Final = 0xFF
"""1 us to 60 minutes."""
NEWS_STEPS: Final = STEPS_PER_DOUBLING // 2
"""A measured rate or latency is announced again when it differs by so many steps, a factor of 1.4, from the last."""


@attrs.frozen
class LinkCapacity:
    """The rate and the one-way latency of a link in the codes of an LSA; 0 is for not known."""

    rate_code: int = 0
    latency_code: int = 0

    @classmethod
    def of(cls, rate_bps: float, latency: float | None, *, is_estimate: bool) -> LinkCapacity:
        """Return the codes of a rate in bits per second, configured or estimated, and of a latency in seconds."""
        rate_code = _code(rate_bps / RATE_UNIT_BPS, RATE_CODE_MAX)
        return cls(
            rate_code | RATE_IS_ESTIMATE if is_estimate and rate_code else rate_code,
            0 if latency is None else _code(latency / LATENCY_UNIT, LATENCY_CODE_MAX),
        )

    @property
    def is_known(self) -> bool:
        """Return whether both the rate and the latency are known."""
        return bool(self.rate_code and self.latency_code)

    @property
    def is_estimate(self) -> bool:
        """Return whether the rate was estimated by congestion control, and not configured."""
        return bool(self.rate_code & RATE_IS_ESTIMATE)

    @property
    def rate_bps(self) -> float:
        """Return the rate in bits per second."""
        return RATE_UNIT_BPS * _value(self.rate_code & RATE_CODE_MAX)

    @property
    def latency(self) -> float:
        """Return the one-way latency in seconds."""
        return LATENCY_UNIT * _value(self.latency_code)

    def is_news(self, announced: LinkCapacity) -> bool:
        """Return whether this differs enough from what was announced to be announced."""
        if (self.is_known, self.is_estimate) != (announced.is_known, announced.is_estimate):
            return True
        rate_steps = abs(self.rate_code - announced.rate_code)
        steps = max(rate_steps, abs(self.latency_code - announced.latency_code))
        return steps >= NEWS_STEPS or bool(rate_steps and not self.is_estimate)


UNKNOWN_CAPACITY: Final = LinkCapacity()


@attrs.frozen
class PathCapacity:
    """A path towards a node: the rate of its slowest link in bits per second, and the round trip time in seconds.

    ``is_estimate``: congestion control has estimated the rate of some link on it, perhaps far below what it carries.
    """

    rate_bps: float
    round_trip: float
    is_estimate: bool


def path_capacity(graph: Graph, path: Sequence[int]) -> PathCapacity | None:
    """Return what is carried from the end of ``path`` to its beginning; None unless all links on it are known."""
    towards = [graph.links.get(node, {}).get(before) for before, node in pairwise(path)]
    onwards = [graph.links.get(before, {}).get(node) for before, node in pairwise(path)]
    back = [link.capacity for link in towards if link is not None and link.capacity.is_known]
    there = [link.capacity.latency for link in onwards if link is not None and link.capacity.is_known]
    if not back or len(back) < len(towards) or len(there) < len(onwards):
        return None
    return PathCapacity(
        min(link.rate_bps for link in back),
        sum(link.latency for link in back) + sum(there),
        any(link.is_estimate for link in back),
    )


def _code(units: float, maximum: int) -> int:
    """Return the code of a value of at least one unit, or of one unit; 0 for nothing."""
    if units <= 0:
        return 0
    return min(maximum, 1 + max(0, ceil(STEPS_PER_DOUBLING * log2(units) - 1e-9)))


def _value(code: int) -> float:
    return float(2.0 ** ((code - 1) / STEPS_PER_DOUBLING))
