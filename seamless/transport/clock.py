"""One clock for everything: the monotonic one.

The problem: ``reactor.seconds()`` is the wall clock, and so are the deadlines of ``callLater``. When the wall clock
is set back by an hour, every timer of the process stands still for an hour: no hello leaves, and every
neighbor declares this node dead. Cores get their ``now`` from here, and `make_monotonic` moves Twisted's own timers
to the same clock, so that an absolute deadline of a core means the same to ``callLater``.
"""

from __future__ import annotations

import time
from typing import Any

now = time.monotonic
"""Return float seconds that only grow; their zero means nothing."""


def make_monotonic(reactor: Any) -> None:
    """Make ``reactor.seconds`` monotonic, now and for every timer already waiting. A second call does nothing.

    Call it before the first timer where you can. A timer that is already waiting keeps the time it has left.
    """
    if reactor.seconds is now:
        return
    wall_now = reactor.seconds()
    remaining = [(call, call.getTime() - wall_now) for call in reactor.getDelayedCalls()]
    reactor.seconds = now
    for call, seconds in remaining:
        call.seconds = now
        call.reset(max(0.0, seconds))
