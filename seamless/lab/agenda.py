"""Virtual time: planned calls, and a clock that goes from one to the next.

Simulations and tests run cores on it. What happens by itself at a known time (a datagram arrives, a test acts) is
planned with `Agenda.at`; a core says by its ``next_timeout`` when it wants to be called. An owner either plans these
calls too and lets `Agenda.run` make all of them, or asks its cores before every `Agenda.step`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Final

from seamless.errors import SeamlessError

CALLS_AT_ONCE_MAX: Final = 100_000
"""More than any network does in one instant: a core whose next deadline is always now must not stop the clock."""


class Agenda:
    """Planned calls in the order of their times, and of their planning where times are equal.

    ``now`` is the virtual time in seconds; it never goes back. A test may set it to let time pass without a call.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._calls: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._sequence = count()

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Plan ``call(*arguments)`` for the time ``when``, or for now when that is over."""
        heapq.heappush(self._calls, (max(when, self.now), next(self._sequence), call, arguments))

    def next_time(self) -> float:
        """Return the time of the next planned call; infinity when there is none."""
        return self._calls[0][0] if self._calls else math.inf

    def run(self, until: float, done: Callable[[], bool] | None = None) -> None:
        """Make all calls planned up to the time ``until``, or up to the call after which ``done()`` is true."""
        at_once = 0
        while done is None or not done():
            if not self._calls or self._calls[0][0] > until:
                self.now = max(self.now, until)
                return
            at, _, call, arguments = heapq.heappop(self._calls)
            if at > self.now:
                self.now, at_once = at, 0
            else:
                at_once += 1
            if at_once > CALLS_AT_ONCE_MAX:
                raise SeamlessError(f"time stands still at {at:.6f} s: {call} is always due")
            call(*arguments)

    def step(self, until: float, deadlines: Iterable[float | None] = ()) -> bool:
        """Go to the next planned call or the earliest of ``deadlines``, and make the calls that are planned by then.

        Return False, at the time ``until``, when neither comes before that is over.
        """
        when = min((at for at in deadlines if at is not None), default=math.inf)
        when = max(self.now, min(when, self.next_time()))
        self.run(min(when, until))
        return when <= until
