"""The link state database: the newest LSA of every node, and the rules by which one takes another's place.

It stands between flooding (`seamless.routing.routing`) and the computation of paths (`seamless.routing.spf`). The
configuration bounds it: one LSA for each node that the configuration names.

Rules, for an LSA whose signature was verified:

* a node that the configuration does not name, or transit offered by a leaf, is refused;
* links that the configuration does not name count for nothing here, but the LSA is kept and flooded whole: its origin
  has signed it, and other nodes may have another configuration;
* a higher sequence than ever seen from this origin takes the place of the former; of two LSAs with one sequence, the
  one with the higher digest does, so that all nodes end up with the same one;
* the same LSA again is a duplicate; a lower one is old, and its sender is answered with the newer;
* an LSA that was not refreshed for ``MAX_AGE_SECONDS`` no longer counts, but is remembered: so a recording of it is not
  believed again, and an origin that restarts with its clock set back is shown what sequence it must exceed.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from seamless.routing.lsa import Lsa, LsaRefusedError, Rank, Refusal, decode_lsa, digest_of

MAX_AGE_SECONDS: Final = 900.0
"""Three refresh intervals: two refreshes in a row may fail to arrive."""


@attrs.frozen
class Topology:
    """What the configuration allows: nodes, links as pairs of nodes, and which nodes are leaves."""

    nodes: frozenset[int]
    links: frozenset[frozenset[int]]
    leaves: frozenset[int] = frozenset()
    neighbors: Mapping[int, frozenset[int]] = attrs.field(init=False, eq=False, repr=False)
    """By node: the other ends of its links."""

    @neighbors.default
    def _neighbors_of_all(self) -> dict[int, frozenset[int]]:
        neighbors: dict[int, set[int]] = {node: set() for node in self.nodes}
        for link in self.links:
            one, other = link
            neighbors.setdefault(one, set()).add(other)
            neighbors.setdefault(other, set()).add(one)
        return {node: frozenset(others) for node, others in neighbors.items()}

    def allows_link(self, one: int, other: int) -> bool:
        """Return whether the configuration has a link between these two nodes."""
        return other in self.neighbors.get(one, ())


class Verdict(enum.Enum):
    """What became of an LSA that was offered to the database."""

    CHANGED = "newer, and says something new"
    REFRESHED = "newer, and says the same as before"
    DUPLICATE = "had before"
    OLDER = "older than what we have"


@attrs.frozen
class Entry:
    """An LSA: what of it counts here, its bytes for other nodes, its rank among those of its origin, when it came.

    ``unknown_links``: how many links it names that the configuration does not have.
    """

    lsa: Lsa
    data: bytes
    rank: Rank
    received_at: float
    unknown_links: int = 0


class Lsdb:
    """The newest LSA of every node of ``topology``."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        # Both by origin. All LSAs live equally long and time never goes back, so the first of _fresh expires first.
        self._fresh: dict[int, Entry] = {}
        self._expired: dict[int, Entry] = {}
        self._origins: list[int] = []
        """Of the LSAs that count, ascending."""

    def __len__(self) -> int:
        """Return the number of LSAs that count."""
        return len(self._fresh)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the LSAs that count, the longest unrefreshed first."""
        return iter(self._fresh.values())

    def between(self, first: int, last: int) -> Iterator[Entry]:
        """Iterate over the LSAs that count whose origins are from ``first`` to ``last``, both included."""
        origins = self._origins[bisect_left(self._origins, first) : bisect_right(self._origins, last)]
        return (self._fresh[origin] for origin in origins)

    def newest(self, origin: int) -> Entry | None:
        """Return the newest LSA of ``origin`` that was ever seen, whether it still counts or not."""
        return self._fresh.get(origin) or self._expired.get(origin)

    def set_topology(self, topology: Topology) -> None:
        """Hold all LSAs against another topology: forget those it does not allow, and count the links that it does."""
        self._topology = topology
        for entries in (self._fresh, self._expired):
            for origin, entry in list(entries.items()):
                lsa = decode_lsa(entry.data)
                if origin not in topology.nodes or (origin in topology.leaves and not lsa.leaf):
                    del entries[origin]
                    continue
                counted = self._with_known_links(lsa)
                ignored = len(lsa.links) - len(counted.links)
                entries[origin] = attrs.evolve(entry, lsa=counted, unknown_links=ignored)
        self._origins = sorted(self._fresh)

    def unknown_links(self, origin: int) -> int:
        """Return how many links the newest LSA of ``origin`` names that the configuration does not have."""
        entry = self.newest(origin)
        return 0 if entry is None else entry.unknown_links

    def check(self, lsa: Lsa) -> None:
        """Raise `LsaRefusedError` when ``lsa`` says what the configuration does not allow."""
        if lsa.origin in self._topology.leaves and not lsa.leaf:
            raise LsaRefusedError(
                Refusal.NOT_A_LEAF,
                f"node {lsa.origin:08x} offers transit, but is a leaf in this node's configuration;"
                " use the same configuration on every host",
            )

    def offer(self, lsa: Lsa, data: bytes, now: float) -> Verdict:
        """Take a verified and checked LSA if it is newer than what is known."""
        known = self.newest(lsa.origin)
        rank = lsa.sequence, digest_of(data)
        if known is not None and rank <= known.rank:
            return Verdict.DUPLICATE if rank == known.rank else Verdict.OLDER
        former = self._fresh.pop(lsa.origin, None)
        if former is None:
            insort(self._origins, lsa.origin)
        self._expired.pop(lsa.origin, None)
        counted = self._with_known_links(lsa)
        self._fresh[lsa.origin] = Entry(counted, data, rank, now, len(lsa.links) - len(counted.links))
        unchanged = former is not None and counted.says_the_same_as(former.lsa)
        return Verdict.REFRESHED if unchanged else Verdict.CHANGED

    def _with_known_links(self, lsa: Lsa) -> Lsa:
        allowed = self._topology.neighbors[lsa.origin]
        links = tuple(link for link in lsa.links if link.neighbor in allowed)
        return lsa if len(links) == len(lsa.links) else attrs.evolve(lsa, links=links)

    def next_expiry(self) -> float | None:
        """Return when the next LSA stops counting."""
        for entry in self._fresh.values():
            return entry.received_at + MAX_AGE_SECONDS
        return None

    def expire(self, now: float) -> int:
        """Stop counting what was not refreshed in time; return how many LSAs that were."""
        old = []
        for origin, entry in self._fresh.items():
            if now < entry.received_at + MAX_AGE_SECONDS:
                break
            old.append(origin)
        for origin in old:
            self._expired[origin] = self._fresh.pop(origin)
            self._origins.remove(origin)
        return len(old)
