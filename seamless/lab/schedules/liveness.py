"""What must hold of the network as a whole: it goes on while there is a path, and nothing is left over after quiet.

The rules:

* **stall**: while a pair has been connected for long enough, and no wire loses much, and bytes wait for a reader that
  reads, some arrive within `STALL_MAX`.
* **give up**: what was written is delivered or its stream reset, not later than `GIVE_UP_MARGIN` after ``give up``.
* **ends**: after quiet every stream ends at both ends.
* **leftover**: then no node keeps a stream, a fragment, a queued packet or a byte of a stream.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from seamless.config.model import Configuration
from seamless.lab.schedules.applications import Applications
from seamless.lab.schedules.oracle import End, Violation
from seamless.lab.simulated import Simulation

STALL_MAX: Final = 5.0
"""Seconds for which nothing may arrive although there is a path: links, routes and sessions are back by then."""
GIVE_UP_MARGIN: Final = 10.0
"""Seconds after ``give up`` by which a stream without a path is reset."""
CONTROL_BYTES: Final = 1_000
"""What an idle link has in flight at most: hellos of one round trip, and perhaps an LSA."""
NODE_MEMORY_MAX_BYTES: Final = 1 << 20
"""What a node keeps of everything when nothing goes on: mostly tables of routing and keys."""


class Progress:
    """Looks from time to time whether bytes that could arrive do."""

    def __init__(self, net: Simulation, applications: Applications) -> None:
        self._net = net
        self._applications = applications
        self._moved: dict[tuple[str, str], tuple[int, float]] = {}
        self._kept: dict[End, tuple[int, float]] = {}
        self._give_up = net.configuration.overlay.give_up

    def look(self, *, excused: bool) -> None:
        """Raise a `Violation` when some pair stalls, unless stalls are ``excused``."""
        self._look_for_kept()
        now = self._net.now
        waiting = {}
        for end in self._applications.ends:
            if self._waits(end):
                waiting[end.node, end.conversation.server if end.is_client else end.conversation.client] = end
        for way in [way for way in self._moved if way not in waiting]:
            del self._moved[way]
        for way, end in waiting.items():
            delivered = self._applications.delivered.get(way, 0)
            before, at = self._moved.get(way, (-1, now))
            since = self._applications.conditions.connected_since(frozenset(way))
            if delivered != before or since is None or excused:
                self._moved[way] = (delivered, now)
            elif now - max(at, since) > STALL_MAX:
                stalled = now - max(at, since)
                raise Violation("stall", f"from {way[0]} to {way[1]} nothing arrived for {stalled:.1f} s ({end})")

    def _look_for_kept(self) -> None:
        """Raise a `Violation` when an application waits for longer than ``give up`` while there is no path."""
        now = self._net.now
        for end in self._applications.ends:
            received = end.far.received if end.far is not None else 0
            before, at = self._kept.get(end, (-1, now))
            if end.over or not end.undelivered or received != before:
                self._kept[end] = (received, now)
                continue
            pair = frozenset((end.conversation.client, end.conversation.server))
            begun_at = self._applications.conditions.gap_begun_at(pair)
            if begun_at is not None and now - max(at, begun_at) > self._give_up + GIVE_UP_MARGIN:
                waits = now - max(at, begun_at)
                raise Violation("give up", f"{end} waits for {waits:.1f} s without a path, and is not reset")

    @staticmethod
    def _waits(end: End) -> bool:
        """Return whether bytes of this end should be on their way to a reader."""
        far = end.far
        if end.over or far is None or far.over or not far.accepted:
            return False
        return end.undelivered > 0 and far.unread == 0


def leftovers(net: Simulation) -> Iterator[str]:
    """Yield what nodes keep though nothing goes on, in words."""
    for name in net.nodes:
        status = net.node(name).status(net.now)
        if net.node(name).streams_kept:
            yield f"{name} keeps {net.node(name).streams_kept} streams"
        for peer, session in status.sessions.items():
            for what in ("streams", "unsent_bytes", "unread_bytes", "reassembly_bytes"):
                if getattr(session, what):
                    yield f"{name} with {peer}: {what} {getattr(session, what)}"
        for link in status.links:
            if link.queued_bytes:
                yield f"{name} to {link.neighbor}: queued_bytes {link.queued_bytes}"
            if link.bytes_in_flight > CONTROL_BYTES:
                yield f"{name} to {link.neighbor}: bytes_in_flight {link.bytes_in_flight}"


def memory_bytes(root: Any) -> int:
    """Return the size of all objects that hang on ``root``, without code, and without the configuration."""
    seen: set[int] = set()
    to_visit = [root]
    total = 0
    while to_visit:
        thing = to_visit.pop()
        if id(thing) in seen or isinstance(
            thing, (type, ModuleType, FunctionType, BuiltinFunctionType, Configuration, Simulation)
        ):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        to_visit.extend(gc.get_referents(thing))
    return total
