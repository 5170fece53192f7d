"""Whether a neighbor is there: the adjacency at each end of a link, after RFC 5880 and RFC 2328, section 10.

It stands beside a link's data: the link tells it of every authenticated datagram and every HELLO, sends a HELLO when
one is due, and carries data only while the adjacency is UP.

========  ==============================================  =====================================
state     means                                           its HELLO tells the neighbor
========  ==============================================  =====================================
DOWN      we do not hear the neighbor                     "I do not hear you"
INIT      we hear it, it does not hear us, or not yet     "I hear you"
UP        we hear each other                              "I hear you"
========  ==============================================  =====================================

The rules:

* A HELLO moves the state as `_AFTER_HELLO` says, whatever the state was. So a link that carries in one direction only
  is UP at neither end.
* Silence of a whole dead interval leads to DOWN, and so does the neighbor's goodbye. Any authenticated datagram breaks
  the silence, so a link full of data does not depend on its hellos; but only a HELLO leads out of DOWN.
* The dead interval is the longer one of ours and the one that the neighbor announces: who sends hellos rarely is not
  taken for dead by one who expects them often. (RFC 5880, section 6.8.4 multiplies the remote's interval instead, which
  comes to the same where both have one configuration.)
* A HELLO goes out every hello interval, at once when our state changed, and at once when the neighbor says INIT, which
  is to say that it waits for ours. After half a dead interval of silence hellos go out faster: each asks for an
  acknowledgement, and a lossy link gets more chances to prove that it lives.
* We do not call a neighbor dead because we slept. When the deadline passes and we were not driven for half a dead
  interval before, its datagrams may still wait in the socket: it gets one more hello interval, once per silence.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs

from seamless.wire import link_frames


class AdjacencyState(enum.Enum):
    """The states, by their numbers in a HELLO."""

    DOWN = link_frames.DOWN
    INIT = link_frames.INIT
    UP = link_frames.UP


_AFTER_HELLO: Final[Mapping[AdjacencyState, AdjacencyState]] = {
    AdjacencyState.DOWN: AdjacencyState.INIT,
    AdjacencyState.INIT: AdjacencyState.UP,
    AdjacencyState.UP: AdjacencyState.UP,
}
"""Our state after a HELLO, by the state that it tells of."""

_HURRY_DIVISOR: Final = 8
"""How much faster hellos follow one another when the neighbor has been silent for half a dead interval. On an idle link
that loses 20 % each way, in an hour of virtual time at 10 ms RTT and the intervals by default, the neighbor was taken
for dead 253 times without hurry, 31 times with 2, 2 times with 4, and never with 8, which took 3 % more hellos."""


SILENT_DEAD_INTERVALS: Final = 10
"""Dead intervals without a datagram after which silence is the reason, whatever the reason was before."""


@attrs.define
class AdjacencyCounters:
    """How often the adjacency came up and went down, and how often a neighbor was spared because we slept."""

    ups: int = 0
    downs: int = 0
    graces: int = 0


class Adjacency:
    """One end's view of a neighbor; a sans-I/O core. Intervals in seconds."""

    def __init__(self, hello_interval: float, dead_interval: float, now: float) -> None:
        self.state = AdjacencyState.DOWN
        self.reason = "it was not heard yet"
        self.since = now
        self.counters = AdjacencyCounters()
        self._hello_interval = hello_interval
        self._own_dead_interval = dead_interval
        self._dead_interval = dead_interval
        self._remote_dead_interval = 0.0
        self._heard_at = now
        self._driven_at = now
        self._grace_until: float | None = None
        self._last_hello_at = now - hello_interval
        self._hello_is_due = False
        self._is_silent = False
        self._unread_until = now

    @property
    def never_came_up(self) -> bool:
        """Return whether the neighbor has been silent for ten dead intervals, and was never UP."""
        return self._is_silent and not self.counters.ups

    def set_intervals(self, hello_interval: float, dead_interval: float) -> None:
        """Go on with other intervals, in the same state; a HELLO that announces them is due at once."""
        self._hello_interval = hello_interval
        self._own_dead_interval = dead_interval
        self._dead_interval = max(dead_interval, self._remote_dead_interval)
        self._hello_is_due = True

    # What the link tells of.

    def heard(self, now: float) -> None:
        """Take note of an authenticated datagram of any type."""
        self._heard_at = now
        self._driven_at = now
        self._grace_until = None
        self._is_silent = False

    def received_hello(self, state: int, hello_interval: float, dead_interval: float, now: float) -> None:
        """Take note of a HELLO: the state that the neighbor is in, one of 0, 1, 2, and its intervals."""
        self.heard(now)
        # Its own hello interval bounds nothing that its dead interval does not, unless its configuration is absurd.
        self._remote_dead_interval = max(dead_interval, hello_interval)
        self._dead_interval = max(self._own_dead_interval, self._remote_dead_interval)
        theirs = AdjacencyState(state)
        if theirs is AdjacencyState.INIT:
            self._hello_is_due = True
        reason = "it does not hear us" if theirs is AdjacencyState.DOWN else "we hear each other"
        self._enter(_AFTER_HELLO[theirs], reason, now)

    def closed(self, reason: str, now: float, unread_until: float = 0.0) -> None:
        """Take note that the neighbor as we knew it is gone: it sent CLOSE, restarted, or is blocked.

        Nothing of it is read before ``unread_until``, so until then it is not silent.
        """
        self._driven_at = now
        self._unread_until = unread_until
        self.reason = reason
        self._enter(AdjacencyState.DOWN, reason, now)

    def hello_soon(self, now: float) -> None:
        """Make a HELLO due at once: the neighbor waits for a first authenticated datagram."""
        self._driven_at = now
        self._hello_is_due = True

    def sent_hello(self, now: float) -> None:
        """Take note that a HELLO went out."""
        self._hello_is_due = False
        self._last_hello_at = now

    def hello_due(self, now: float) -> bool:
        """Return whether a HELLO is due."""
        return self._hello_is_due or now >= self._next_hello_at()

    # Time.

    def next_timeout(self) -> float:
        """Return when `handle_timeout` wants to be called: there is always a next HELLO."""
        hello_at = self._next_hello_at()
        if self.state is AdjacencyState.DOWN:
            return hello_at
        dead_at = self._dead_at()
        return hello_at if hello_at < dead_at else dead_at

    def handle_timeout(self, now: float) -> None:
        """Make a HELLO due, or declare a silent neighbor DOWN. Call it after the sockets were read, not before."""
        if now >= self._next_hello_at():
            # Due until it is sent; but a link without keys cannot send it and must not be woken for it all the time.
            self._hello_is_due = True
            self._last_hello_at = now
        if self.state is not AdjacencyState.DOWN:
            if now >= self._dead_at():
                self._deadline_passed(now)
        elif not self._is_silent and now >= self._silent_at():
            self._is_silent = True
            self.reason = "nothing has come from it since" if self.counters.ups else "nothing has ever come from it"
        self._driven_at = now

    def _deadline_passed(self, now: float) -> None:
        slept = now - self._driven_at > self._dead_interval / 2
        if slept and self._grace_until is None:
            self._grace_until = now + self._hello_interval
            self.counters.graces += 1
            return
        self._enter(AdjacencyState.DOWN, f"no datagram for {(now - self._heard_at) * 1000:.0f} ms", now)

    def _dead_at(self) -> float:
        return self._grace_until if self._grace_until is not None else self._heard_at + self._dead_interval

    def _silent_at(self) -> float:
        return max(self.since, self._heard_at, self._unread_until) + SILENT_DEAD_INTERVALS * self._dead_interval

    def _next_hello_at(self) -> float:
        regular_at = self._last_hello_at + self._hello_interval
        if self.state is AdjacencyState.DOWN:
            return regular_at
        silent_at = self._heard_at + self._dead_interval / 2
        if silent_at >= regular_at:
            return regular_at
        return min(regular_at, max(self._last_hello_at + self._hello_interval / _HURRY_DIVISOR, silent_at))

    def _enter(self, state: AdjacencyState, reason: str, now: float) -> None:
        if state is self.state:
            return
        self.counters.ups += state is AdjacencyState.UP
        self.counters.downs += self.state is AdjacencyState.UP
        self.state = state
        self.reason = reason
        self.since = now
        self._hello_is_due = True
