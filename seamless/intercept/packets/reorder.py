"""Reorder buffer for TCP: holds packets behind a gap for as long as a hop's recovery takes, and releases them in order.

The problem: a packet that a link recovered arrives about one hop's round trip after its successors. TCP takes that for
a loss, sends it again and halves its rate, though nothing was lost. So the egress holds the successors back for a
moment. Held too long they would themselves look lost, so the wait is short and learned: a little more than the longest
that a gap has lately taken to fill.

The rules:

* Only what TCP would complain about waits: bytes beyond a gap. Acknowledgements without data, what was sent again and
  what is in order pass at once.
* A gap that does not fill in time is TCP's to fill: everything held passes, in order.
* Everything is bounded: time, bytes for each connection, and connections. Pure: driven with explicit ``now``.

Not taken: order over all packets of the peer, by record number. One lost packet would hold up every other connection.
"""

from __future__ import annotations

from bisect import insort
from typing import Final, Generic, TypeVar

import attrs

T = TypeVar("T")

LEAST_WAIT: Final = 0.005
MOST_WAIT: Final = 0.100
"""Seconds: beyond this TCP would do better by itself. So long at first, until a gap has shown what it takes."""
WAIT_MARGIN: Final = 1.25
"""Factor on the longest recent gap: recovery's time threshold is 9/8 of a round trip."""
LATENESS_MEMORY: Final = 10.0
"""Seconds after which the longest wait seen is forgotten (one to two times this): paths change."""
MOST_HELD_BYTES: Final = 8 << 20
"""Of one connection: what 1 Gb/s brings in 60 ms."""
CONNECTIONS_KEPT: Final = 8192
"""Connections whose next sequence number is known; the one idle longest is forgotten."""

_HALF: Final = 1 << 31
_MASK: Final = (1 << 32) - 1


@attrs.define
class OrderCounters:
    """Packets held, and gaps by the way in which they ended."""

    held: int = 0
    filled: int = 0
    """Gaps that were filled in time."""
    expired: int = 0
    """Gaps that were not filled in time; what was held behind them passed."""
    overflowed: int = 0


@attrs.define(slots=True)
class _Connection(Generic[T]):
    expected: int
    held: list[tuple[int, int, int, T]] = attrs.Factory(list)
    """(distance from `base`, arrival, end, packet), in order of the sequence."""
    base: int = 0
    held_bytes: int = 0
    since: float = 0.0
    gave_up_since: float | None = None
    """When the gap began that was given up last."""


class Reorder(Generic[T]):
    """The reorder buffer of all TCP connections from one peer; ``T`` is the type of a packet."""

    def __init__(self, most_wait: float = MOST_WAIT) -> None:
        self.counters = OrderCounters()
        self._most_wait = most_wait
        self._connections: dict[bytes, _Connection[T]] = {}
        self._waiting: dict[bytes, _Connection[T]] = {}
        self._arrivals = 0
        self._lateness = 0.0
        self._lateness_before = MOST_WAIT
        self._lateness_at: float | None = None

    @property
    def wait(self) -> float:
        """Return for how many seconds packets are held behind a gap."""
        lateness = max(self._lateness, self._lateness_before)
        return min(self._most_wait, max(LEAST_WAIT, lateness * WAIT_MARGIN))

    @property
    def connections(self) -> int:
        """Return how many connections are known."""
        return len(self._connections)

    @property
    def gaps(self) -> int:
        """Return how many connections have packets held behind a gap."""
        return len(self._waiting)

    def receive(self, key: bytes, sequence: int, length: int, is_first: bool, packet: T, now: float) -> list[T]:
        """Return the packets to release after ``packet`` of connection ``key`` came, in order.

        It takes ``length`` of sequence space from ``sequence`` on; SYN and FIN take one each. ``is_first``: a SYN.
        """
        connection = self._connections.get(key)
        if connection is None or is_first:
            released = self._let_go(key, connection)
            self._remember(key, (sequence + length) & _MASK)
            return [*released, packet]
        ahead = (sequence - connection.expected) & _MASK
        if ahead == 0 or ahead >= _HALF:
            if ahead and connection.gave_up_since is not None:
                self._came_after_all(connection, now)
            return self._advance(key, connection, sequence, length, packet, now)
        if length == 0:
            return [packet]
        return self._hold(key, connection, sequence, length, packet, now)

    def _remember(self, key: bytes, expected: int) -> None:
        self._connections.pop(key, None)
        while len(self._connections) >= CONNECTIONS_KEPT:
            oldest = next((one for one in self._connections if one not in self._waiting), None)
            if oldest is None:
                break
            del self._connections[oldest]
        self._connections[key] = _Connection(expected)

    def _advance(
        self, key: bytes, connection: _Connection[T], sequence: int, length: int, packet: T, now: float
    ) -> list[T]:
        end = (sequence + length) & _MASK
        if (end - connection.expected) & _MASK < _HALF:
            connection.expected = end
        if not connection.held:
            return [packet]
        released = [packet]
        held = connection.held
        while held:
            distance, _, held_end, waiting = held[0]
            start = (connection.base + distance) & _MASK
            if 0 < (start - connection.expected) & _MASK < _HALF:
                break
            if (held_end - connection.expected) & _MASK < _HALF:
                connection.expected = held_end
            released.append(waiting)
            connection.held_bytes -= (held_end - start) & _MASK
            del held[0]
        if len(released) > 1:
            self.counters.filled += 1
            self._learn(now - connection.since, now)
            connection.since = now
        if not held:
            del self._waiting[key]
        return released

    def _learn(self, lateness: float, now: float) -> None:
        if self._lateness_at is None or now - self._lateness_at > LATENESS_MEMORY:
            self._lateness_before = self._lateness
            self._lateness = 0.0
            self._lateness_at = now
        self._lateness = max(self._lateness, lateness)

    def _came_after_all(self, connection: _Connection[T], now: float) -> None:
        """A gap was given up too soon, unless it took so long that TCP may have sent the packet again."""
        assert connection.gave_up_since is not None
        lateness = now - connection.gave_up_since
        connection.gave_up_since = None
        if lateness < 2 * self.wait:
            self._learn(lateness, now)

    def _hold(
        self, key: bytes, connection: _Connection[T], sequence: int, length: int, packet: T, now: float
    ) -> list[T]:
        if not connection.held:
            connection.base = connection.expected
            connection.since = now
            self._waiting[key] = connection
        self._arrivals += 1
        self.counters.held += 1
        end = (sequence + length) & _MASK
        insort(
            connection.held,
            ((sequence - connection.base) & _MASK, self._arrivals, end, packet),
            key=lambda entry: entry[:2],
        )
        connection.held_bytes += length
        if connection.held_bytes > MOST_HELD_BYTES:
            self.counters.overflowed += 1
            return self._let_go(key, connection)
        return []

    def _let_go(self, key: bytes, connection: _Connection[T] | None) -> list[T]:
        """Give a gap up: all that waits behind it passes, in order."""
        if connection is None or not connection.held:
            return []
        released = [entry[3] for entry in connection.held]
        connection.expected = connection.held[-1][2]
        connection.gave_up_since = connection.since
        connection.held.clear()
        connection.held_bytes = 0
        del self._waiting[key]
        return released

    def next_timeout(self) -> float | None:
        """Return the absolute time at which `handle_timeout` is due, None if nothing is held."""
        if not self._waiting:
            return None
        return min(connection.since for connection in self._waiting.values()) + self.wait

    def handle_timeout(self, now: float) -> list[T]:
        """Return the packets whose gap has not filled in time; they pass, in order."""
        wait = self.wait
        due = [(key, one) for key, one in self._waiting.items() if one.since + wait <= now]
        self.counters.expired += len(due)
        return [packet for key, connection in due for packet in self._let_go(key, connection)]
