"""When a node announces itself, and with which sequence number.

Rules:

* A change is announced at once, unless the node has announced itself `ORIGINATION_BURST` times lately: then at most
  `ORIGINATIONS_PER_SECOND`. So a link that flaps, or an MTU that is being found, cannot flood the network, and a link's
  death after a quiet time is announced at once.
* A node that restarts is newer than its former life: its sequence begins with its incarnation. If its clock was set
  back meanwhile, its neighbors answer its LSA with the old one, and it jumps above that.
* Nodes that it was asked to carry packets for, and does not know, are announced too, the last 16 of them. They are
  forgotten when a configuration comes that has them, and with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Final

from seamless.delivery.token_bucket import TokenBucket
from seamless.errors import LocalProtocolError
from seamless.routing.lsa import MAX_UNKNOWN, Lsa, LsaLink

REFRESH_INTERVAL: Final = 300.0
"""Seconds after which an unchanged LSA is announced again, with a higher sequence: a third of its life."""
REFRESH_JITTER_RATIO: Final = 0.25
"""Up to this part of the refresh interval is cut at random, so that nodes that started together do not stay so."""
MIN_ORIGINATION_INTERVAL: Final = 0.05
"""Seconds between two LSAs of our own, so that what happens together is announced together: well below the dead
interval."""
ORIGINATION_BURST: Final = 10
"""LSAs of our own that are announced `MIN_ORIGINATION_INTERVAL` apart: the links of a node that starts come up one by
one, and find their MTU in a few steps."""
ORIGINATIONS_PER_SECOND: Final = 2.0
"""And in the long run: each costs every other node a verification (0.11 ms) and a computation of paths."""
MIN_JUMP_INTERVAL: Final = 1.0
"""Seconds between two jumps above a foreign LSA of our own: two nodes with the same key must not flood the network."""
UNKNOWN_PER_SECOND: Final = 0.1
"""New unknown nodes that are announced in the long run: packets to made-up nodes cause no more."""
INCARNATION_BITS: Final = 42
"""Milliseconds of the wall clock until the year 2109."""
COUNTER_BITS: Final = 64 - INCARNATION_BITS
"""4 million for each millisecond, of which an incarnation uses at most 20 a second: a later one is always higher."""


class Origination:
    """The announcements of the node ``local``: what they say, but for its links, and when they are due."""

    def __init__(
        self, local: int, is_leaf: bool, incarnation: int, refresh_jitter: Callable[[], float], now: float
    ) -> None:
        """``incarnation``: the wall clock in milliseconds at the start of the process."""
        if not 0 <= incarnation < (1 << INCARNATION_BITS) - 1:
            raise LocalProtocolError(f"the incarnation {incarnation} is not a wall clock in milliseconds")
        self.sequence = incarnation << COUNTER_BITS
        self.due_at: float | None = None
        self._local = local
        self._is_leaf = is_leaf
        self._jitter = refresh_jitter
        self._budget = TokenBucket(ORIGINATION_BURST, ORIGINATIONS_PER_SECOND, now)
        self._originated_at = now - MIN_ORIGINATION_INTERVAL
        self._jump_at = now - MIN_JUMP_INTERVAL  # the latest jump, done or planned
        self._unknown: dict[int, None] = {}
        self._unknown_budget = TokenBucket(MAX_UNKNOWN, UNKNOWN_PER_SECOND, now)

    def lsa(self, links: Iterable[LsaLink]) -> Lsa:
        """Return the LSA with these links and the present sequence."""
        ascending = tuple(sorted(links, key=lambda link: link.neighbor))
        return Lsa(self._local, self.sequence, self._is_leaf, ascending, tuple(sorted(self._unknown)))

    def schedule(self, now: float, no_earlier_than: float = 0.0) -> None:
        """Announce the node as soon as it may be, but not before ``no_earlier_than``."""
        at = max(now, no_earlier_than, self._originated_at + MIN_ORIGINATION_INTERVAL, self._budget.ready_at())
        if self.due_at is None or at < self.due_at:
            self.due_at = at

    def next_lsa(self, links: Iterable[LsaLink], now: float) -> Lsa:
        """Return the LSA to announce now, under a new sequence, and plan the next refresh."""
        self.sequence += 1
        self._budget.spend(1, now)
        self._originated_at = now
        self.due_at = now + REFRESH_INTERVAL * (1 - REFRESH_JITTER_RATIO * self._jitter())
        return self.lsa(links)

    def jump(self, sequence: int, now: float) -> bool:
        """Go on above ``sequence``, which another life or process has used; return whether a jump was planned."""
        self.sequence = max(self.sequence, sequence)
        if self._jump_at > now:
            return False
        self._jump_at = max(now, self._jump_at + MIN_JUMP_INTERVAL)
        self.schedule(now, self._jump_at)
        return True

    def configure(self, is_leaf: bool, nodes: Set[int], now: float) -> None:
        """Announce the node anew, as a leaf or not, and no node of ``nodes`` as unknown any more."""
        self._is_leaf = is_leaf
        self._unknown = {node: None for node in self._unknown if node not in nodes}
        self.schedule(now)

    def note_unknown(self, identifier: int, now: float) -> None:
        """Announce that this node does not know the node ``identifier``; of more than 16 the last ones."""
        if identifier in self._unknown or not self._unknown_budget.take(now):
            return
        self._unknown[identifier] = None
        while len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self.schedule(now)
