"""The one measurement of a link that a node takes part in: who asks, whose turn it is to load the path, and the result.

One end asks (`Measurements.begin`). The other end loads its direction first and says what it found, then the asking end
loads its own. Each direction is a `seamless.link.capacity_search`; the words between both are MEASURE frames.

The rules:

* A node takes part in one measurement at a time, on one link; all others are refused.
* It starts one at a neighbor's request no more often than every `REQUEST_INTERVAL` seconds, and no request makes it
  load the path for longer, or faster, than a search does.
* Whatever ends a measurement (the result, a STOP, a time that has passed, the link going down, either end's process
  starting again), the link goes on as before it.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from seamless.errors import SeamlessError
from seamless.interfaces import MeasurementEnded, PathMeasured
from seamless.link.capacity_search import SEARCH_SECONDS_MAX, PathCapacity
from seamless.link.link import Link
from seamless.node.identity import Random
from seamless.wire.link_frames import Measure, MeasureAct

LIVE_INTERVAL: Final = 0.2
"""Seconds over which is seen what the link carries already, before the load begins."""
ANSWER_TIMEOUT: Final = LIVE_INTERVAL + SEARCH_SECONDS_MAX + 2.0
"""Seconds for the neighbor's result, some losses of the words about it included."""
LENT_TIMEOUT: Final = SEARCH_SECONDS_MAX + 2.0
"""Seconds for which a node that has told its result waits for the other's STOP."""
REQUEST_INTERVAL: Final = 4.0
"""Seconds from one measurement that a neighbor asks for to the next: less than one takes."""

BUSY: Final = 0
TOO_SOON: Final = 1
_REFUSALS: Final = {
    BUSY: "takes part in another measurement: wait until it is over",
    TOO_SOON: "has just been measured: try again in a few seconds",
}

NOTHING: Final = 0
FOUND: Final = 1
FOUND_LEAST: Final = 2
MILLIONTHS: Final = 1_000_000


class Phase(enum.Enum):
    """What a node waits for."""

    ASKED = "the neighbor's result"
    LIVE = "a look at what the link carries already"
    SEARCHING = "the end of its own search"
    LENT = "the end of the other's search"


@attrs.define
class _Running:
    link: Link
    token: int
    is_asking: bool
    phase: Phase
    deadline: float
    began_at: float
    sent_bytes: int
    restarts: int
    neighbor_found: Measure | None = None


class Measurements:
    """What a node does about measurements; ``random(n)`` returns n random bytes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._running: _Running | None = None
        self._requests_from = 0.0
        self.ended: list[MeasurementEnded] = []
        """What became of measurements that this node had asked for, until `take_ended`."""

    @property
    def is_running(self) -> bool:
        """Return whether this node takes part in a measurement."""
        return self._running is not None

    # Commands.

    def begin(self, link: Link, now: float) -> None:
        """Ask for a measurement of ``link``, which is UP; raise `SeamlessError` while another runs."""
        if self._running is not None:
            neighbor = self._running.link.settings.neighbor
            raise SeamlessError(f"a measurement of the link to {neighbor} runs already: wait until it is over")
        token = int.from_bytes(self._random(4), "big")
        self._running = self._new(link, token, Phase.ASKED, now + ANSWER_TIMEOUT, now)
        link.send_measure(Measure(token, MeasureAct.START))

    def link_closed(self, link: Link, now: float) -> None:
        """End the measurement of a link that is no longer configured."""
        if self._running is not None and self._running.link is link:
            self._fail("it is not in the configuration any more", now)

    def cancel(self, now: float) -> None:
        """End the measurement that we asked for, without a result."""
        if self._running is not None and self._running.is_asking:
            self._stop(now)

    @staticmethod
    def _new(link: Link, token: int, phase: Phase, deadline: float, now: float) -> _Running:
        counters = link.counters
        is_asking = phase is Phase.ASKED
        return _Running(link, token, is_asking, phase, deadline, now, counters.sent_bytes, counters.restarts)

    def _stop(self, now: float) -> None:
        """Go on as before; the neighbor is told if we had asked."""
        running, self._running = self._running, None
        assert running is not None
        running.link.stop_search(now)
        if running.is_asking and running.link.is_up:
            running.link.send_measure(Measure(running.token, MeasureAct.STOP))

    def _fail(self, reason: str, now: float) -> None:
        assert self._running is not None
        neighbor, is_asking = self._running.link.settings.neighbor, self._running.is_asking
        self._stop(now)
        if is_asking:
            self.ended.append(MeasurementEnded(neighbor, reason))

    # The neighbor's words.

    def receive(self, frame: Measure, link: Link, now: float) -> None:
        """Take in a MEASURE that came over ``link``; what does not fit is ignored."""
        running = self._running
        if frame.act is MeasureAct.START:
            self._requested(frame.token, link, now)
        elif running is None or running.link is not link or running.token != frame.token:
            return
        elif frame.act is MeasureAct.STOP:
            if not running.is_asking:
                self._stop(now)
        elif not running.is_asking or running.phase is not Phase.ASKED:
            return
        elif frame.act is MeasureAct.REFUSED:
            why = _REFUSALS.get(frame.detail, _REFUSALS[BUSY])
            self._fail(f"node {link.settings.neighbor} {why}", now)
        else:
            running.neighbor_found = frame
            self._search(running, now)

    def _requested(self, token: int, link: Link, now: float) -> None:
        running = self._running
        if running is not None and running.link is link and running.token == token:
            # The same words once more: their acknowledgement was lost.
            return
        if running is not None or now < self._requests_from:
            detail = TOO_SOON if running is None else BUSY
            link.send_measure(Measure(token, MeasureAct.REFUSED, detail))
            return
        self._requests_from = now + REQUEST_INTERVAL
        self._running = self._new(link, token, Phase.LIVE, now + LIVE_INTERVAL, now)

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `watch` is due; None while no measurement runs."""
        return None if self._running is None else self._running.deadline

    def watch(self, now: float) -> None:
        """Act on a search that is over, a link that went down, and a time that has passed."""
        running = self._running
        if running is None:
            return
        link, neighbor = running.link, running.link.settings.neighbor
        if not link.is_up or link.counters.restarts != running.restarts:
            self._fail(f"the link to {neighbor} went down, or node {neighbor} started again, in the middle of it", now)
        elif running.phase is Phase.SEARCHING and link.search is not None and link.search.is_over:
            self._searched(running, link.search.result, now)
        elif now < running.deadline:
            return
        elif running.phase is Phase.LIVE:
            self._search(running, now)
        elif running.phase is Phase.ASKED:
            self._fail(f"node {neighbor} has not answered for {ANSWER_TIMEOUT:g} s: is it of another version?", now)
        else:
            self._stop(now)

    def _search(self, running: _Running, now: float) -> None:
        sent_bytes = running.link.counters.sent_bytes - running.sent_bytes
        live_bps = sent_bytes * 8 / max(now - running.began_at, LIVE_INTERVAL)
        running.phase = Phase.SEARCHING
        running.deadline = now + SEARCH_SECONDS_MAX + LENT_TIMEOUT
        running.link.start_search(live_bps, now)

    def _searched(self, running: _Running, result: PathCapacity | None, now: float) -> None:
        running.link.stop_search(now)
        if not running.is_asking:
            running.link.send_measure(_found(running, result))
            running.phase, running.deadline = Phase.LENT, now + LENT_TIMEOUT
            return
        neighbor, there = running.link.settings.neighbor, running.neighbor_found
        back = None if there is None else _measured(there)
        out = _measured(_found(running, result))
        self._stop(now)
        if out is None or back is None:
            self.ended.append(MeasurementEnded(neighbor, "nothing of what was sent was acknowledged in time"))
        else:
            self.ended.append(MeasurementEnded(neighbor, "", running.link.local, running.link.remote, out, back))

    def take_ended(self) -> list[MeasurementEnded]:
        """Remove and return what became of measurements that this node had asked for."""
        ended, self.ended = self.ended, []
        return ended


def _found(running: _Running, result: PathCapacity | None) -> Measure:
    if result is None:
        return Measure(running.token, MeasureAct.FOUND, NOTHING)
    return Measure(
        running.token,
        MeasureAct.FOUND,
        FOUND_LEAST if result.is_least else FOUND,
        int(result.capacity_bps),
        int(result.rate_bps),
        int(result.loss_floor * MILLIONTHS),
        int(result.queue_delay * MILLIONTHS),
        running.link.mtu_bytes,
    )


def _measured(found: Measure) -> PathMeasured | None:
    """Return one direction for people; None where nothing was found."""
    if found.detail not in (FOUND, FOUND_LEAST) or not found.rate_bps or found.loss_floor > MILLIONTHS:
        return None
    return PathMeasured(
        capacity_bps=found.capacity_bps,
        rate_bps=found.rate_bps,
        loss_floor=found.loss_floor / MILLIONTHS,
        queue_delay=found.queue_microseconds / MILLIONTHS,
        mtu_bytes=found.mtu_bytes,
        is_least=found.detail == FOUND_LEAST,
    )
