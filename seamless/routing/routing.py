"""The routing core of a node: says what its links are, hears what others say, and knows the next hop to everybody.

It stands beside the links: the node tells it of neighbors that come up and go down, hands it the LSAs that links
receive, sends the LSAs that it wants flooded, and asks it for the next hop once per batch. The core does no I/O and
is driven with explicit time.

Rules:

* An LSA that is news is flooded to every UP neighbor but the one it came from; an older one is answered with the
  newer; a neighbor that comes up gets the whole database. A link resends an LSA until it is acknowledged, so there
  are no acknowledgements here.
* A link's fall counts in our own table at once. Others hear of our changes at most every
  ``MIN_ORIGINATION_INTERVAL``, the first at once, so a flapping link cannot flood the network.
* A changed cost is ignored until it differs by more than ``COST_CHANGE_RATIO`` from the announced one, so noise in
  latency does not move routes.
* A node that restarts is newer than its former life: its sequence begins with its incarnation. If its clock was set
  back meanwhile, its neighbors answer its LSA with the old one, and it jumps above that.

After every input the owner drains ``lsas_to_flood`` and ``next_event`` and looks at ``next_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from seamless.errors import LocalProtocolError
from seamless.routing.lsa import (
    MAX_COST,
    MAX_MTU_BYTES,
    Lsa,
    LsaLink,
    LsaRefusedError,
    Refusal,
    decode_lsa,
    encode_lsa,
    is_authentic,
)
from seamless.routing.lsdb import Entry, Lsdb, Topology, Verdict
from seamless.routing.spf import Graph, two_way_graph
from seamless.routing.table import Route, Table, changed_destinations, compute_table, severed_destinations

REFRESH_INTERVAL: Final = 30.0
"""Seconds after which an unchanged LSA is announced again, with a higher sequence: a third of its life."""
REFRESH_JITTER_RATIO: Final = 0.25
"""Up to this part of the refresh interval is cut at random, so that nodes that started together do not stay so."""
MIN_ORIGINATION_INTERVAL: Final = 0.05
"""Seconds between two LSAs of our own: well below the dead interval, well above the computing for fifty nodes."""
MIN_ARRIVAL_INTERVAL: Final = 0.025
"""Seconds between two LSAs of one origin that we act upon (RFC 2328's MinLSArrival), however many come: half of what
an honest origin leaves between them. The newest that comes earlier waits."""
MIN_JUMP_INTERVAL: Final = 1.0
"""Seconds between two jumps above a foreign LSA of our own: two nodes with the same key must not flood the network."""
COST_CHANGE_RATIO: Final = 0.25
"""Costs come from latency, which moves by some percent all the time; below this, another path gains nothing."""
INCARNATION_BITS: Final = 42
"""Milliseconds of the wall clock until the year 2109."""
COUNTER_BITS: Final = 64 - INCARNATION_BITS
"""4 million for each millisecond, of which an incarnation uses at most 20 a second: a later one is always higher."""


@attrs.frozen
class RoutesChanged:
    """These destinations were gained, lost, or are reached by another path or with another MTU.

    Of those that can be reached, what is under way to the ``severed`` ones may be gone.
    """

    destinations: frozenset[int]
    severed: frozenset[int]


@attrs.define
class RoutingCounters:
    """What happened since the start; ``refused`` by reason."""

    lsas_received: int = 0
    lsas_changed: int = 0
    lsas_refreshed: int = 0
    lsas_duplicate: int = 0
    lsas_older: int = 0
    lsas_expired: int = 0
    lsas_postponed: int = 0
    lsas_originated: int = 0
    lsas_flooded: int = 0
    jumps: int = 0
    table_computations: int = 0
    refused: dict[Refusal, int] = attrs.Factory(lambda: dict.fromkeys(Refusal, 0))


@attrs.frozen
class RoutingStatus:
    """A snapshot for people: our links, all routes, all LSAs that count, and the counters."""

    local: int
    links: tuple[LsaLink, ...]
    routes: tuple[Route, ...]
    lsas: tuple[Entry, ...]
    counters: RoutingCounters


class Routing:
    """Link state routing for the node ``local`` in the network that ``topology`` allows.

    ``pairwise_keys`` has for every node of the topology, the local one included, the 32-byte BLAKE2s of
    ``b"seamless lsa"`` and the X25519 agreement of the two static keys. ``incarnation`` is the wall clock at the start
    of the process in milliseconds. ``refresh_jitter`` gives a random number from 0 to 1 whenever it is called.
    """

    def __init__(
        self,
        *,
        local: int,
        topology: Topology,
        pairwise_keys: Mapping[int, bytes],
        incarnation: int,
        refresh_jitter: Callable[[], float],
        now: float,
    ) -> None:
        if not topology.nodes <= pairwise_keys.keys() or local not in topology.nodes:
            raise LocalProtocolError("routing needs the local node in the topology, and a pairwise key for every node")
        if not 0 <= incarnation < (1 << INCARNATION_BITS) - 1:
            raise LocalProtocolError(f"the incarnation {incarnation} is not a wall clock in milliseconds")
        self._local = local
        self._topology = topology
        self._keys = {node: pairwise_keys[node] for node in sorted(topology.nodes)}
        self._jitter = refresh_jitter
        self._lsdb = Lsdb(topology)
        self._links: dict[int, LsaLink] = {}
        self._sequence = incarnation << COUNTER_BITS
        self._originated_at = now - MIN_ORIGINATION_INTERVAL
        self._originate_at: float | None = None
        self._jump_at = now - MIN_JUMP_INTERVAL  # the latest jump, done or planned
        self._to_flood: dict[tuple[int, int], bytes] = {}
        self._postponed: dict[int, tuple[Lsa, bytes, int]] = {}
        self._graph = Graph({}, frozenset())
        self._table: Table = {}
        self._announced_table: Table = {}
        self._table_is_stale = False
        self.counters = RoutingCounters()

    # Commands: what our own links do.

    def link_up(self, neighbor: int, cost: int, mtu_bytes: int, now: float) -> None:
        """Take note that ``neighbor`` is UP and send it all we know; also when it was UP before but forgot."""
        self._check_neighbor(neighbor)
        self._set_link(_checked_link(neighbor, cost, mtu_bytes), now)
        for entry in self._lsdb:
            if entry.lsa.origin != neighbor:
                self._to_flood[neighbor, entry.lsa.origin] = entry.data

    def link_down(self, neighbor: int, now: float) -> None:
        """Take note that ``neighbor`` is no longer UP; no matter when it was not."""
        self._check_neighbor(neighbor)
        if self._links.pop(neighbor, None) is None:
            return
        self._to_flood = {key: data for key, data in self._to_flood.items() if key[0] != neighbor}
        self._links_changed(now)

    def link_cost(self, neighbor: int, cost: int, now: float) -> None:
        """Take note of the cost of an UP link; small changes are ignored."""
        link = self._up_link(neighbor)
        if abs(cost - link.cost) > COST_CHANGE_RATIO * link.cost:
            self._set_link(_checked_link(neighbor, cost, link.mtu_bytes), now)

    # What comes from the neighbors.

    def receive_lsa(self, data: bytes, neighbor: int, now: float) -> None:
        """Take an LSA from ``neighbor``, UP or not yet; count and raise `LsaRefusedError`, a `RemoteProtocolError`."""
        self._check_neighbor(neighbor)
        self.counters.lsas_received += 1
        try:
            lsa = self._authenticate(data)
            if lsa.origin != self._local:
                self._lsdb.check(lsa)
        except LsaRefusedError as refused:
            self.counters.refused[refused.refusal] += 1
            raise
        if lsa.origin == self._local:
            self._receive_own_lsa(lsa, neighbor, now)
        else:
            self._receive_foreign_lsa(lsa, data, neighbor, now)

    def _authenticate(self, data: bytes) -> Lsa:
        lsa = decode_lsa(data)
        key = self._keys.get(lsa.origin)
        if key is None:
            raise LsaRefusedError(
                Refusal.UNKNOWN_ORIGIN,
                f"an LSA of node {lsa.origin:08x}, which this node's configuration does not have;"
                " use the same configuration on every host",
            )
        if not is_authentic(data, lsa, key):
            raise LsaRefusedError(
                Refusal.NOT_AUTHENTIC,
                f"an LSA that node {lsa.origin:08x} did not make, or not for this node; check that this node"
                " is in the configuration on every host, with the right key",
            )
        return lsa

    def _arrives_too_early(self, lsa: Lsa, data: bytes, neighbor: int, now: float) -> bool:
        """Tell whether a newer LSA must wait; of those that wait the newest is kept."""
        known = self._lsdb.newest(lsa.origin)
        if known is None or lsa.sequence <= known.lsa.sequence or now >= known.received_at + MIN_ARRIVAL_INTERVAL:
            return False
        self.counters.lsas_postponed += 1
        waiting = self._postponed.get(lsa.origin)
        if waiting is None or lsa.sequence > waiting[0].sequence:
            self._postponed[lsa.origin] = lsa, data, neighbor
        return True

    def _postponed_until(self, origin: int) -> float:
        known = self._lsdb.newest(origin)
        return 0.0 if known is None else known.received_at + MIN_ARRIVAL_INTERVAL

    def _receive_foreign_lsa(self, lsa: Lsa, data: bytes, neighbor: int, now: float) -> None:
        if self._arrives_too_early(lsa, data, neighbor, now):
            return
        verdict = self._lsdb.offer(lsa, data, now)
        if verdict is Verdict.OLDER:
            self.counters.lsas_older += 1
            self._answer_older(lsa.origin, neighbor)
            return
        # What the neighbor has just shown us, it does not need from us.
        self._to_flood.pop((neighbor, lsa.origin), None)
        if verdict is Verdict.DUPLICATE:
            self.counters.lsas_duplicate += 1
            return
        if verdict is Verdict.CHANGED:
            self.counters.lsas_changed += 1
            self._table_is_stale = True
        else:
            self.counters.lsas_refreshed += 1
        self._flood(lsa.origin, data, neighbor)

    def _receive_own_lsa(self, lsa: Lsa, neighbor: int, now: float) -> None:
        """Our own LSA comes back: from a neighbor that has not heard the newest, or from another life of ours."""
        own = self._lsdb.newest(self._local)
        is_double = own is not None and lsa.sequence == own.lsa.sequence and lsa != own.lsa
        if lsa.sequence > self._sequence or is_double:
            self.counters.jumps += 1
            self._sequence = lsa.sequence
            if self._jump_at <= now:
                self._jump_at = max(now, self._jump_at + MIN_JUMP_INTERVAL)
                self._originate_no_earlier_than(self._jump_at, now)
        elif lsa.sequence < self._sequence:
            self.counters.lsas_older += 1
            self._answer_older(self._local, neighbor)
        else:
            self.counters.lsas_duplicate += 1

    def _answer_older(self, origin: int, neighbor: int) -> None:
        newest = self._lsdb.newest(origin)
        if newest is not None and neighbor in self._links:
            self._to_flood[neighbor, origin] = newest.data

    # What goes to the neighbors.

    def lsas_to_flood(self) -> list[tuple[int, bytes]]:
        """Return, once, (neighbor, LSA) for each LSA that a neighbor must get."""
        if not self._to_flood:
            return []
        flood = [(neighbor, data) for (neighbor, _), data in self._to_flood.items()]
        self._to_flood.clear()
        self.counters.lsas_flooded += len(flood)
        return flood

    def _flood(self, origin: int, data: bytes, came_from: int | None) -> None:
        for neighbor in self._links:
            if neighbor != came_from:
                self._to_flood[neighbor, origin] = data

    def _set_link(self, link: LsaLink, now: float) -> None:
        self._links[link.neighbor] = link
        self._links_changed(now)

    def _links_changed(self, now: float) -> None:
        self._table_is_stale = True
        self._originate_no_earlier_than(now, now)

    def _originate_no_earlier_than(self, at: float, now: float) -> None:
        at = max(at, self._originated_at + MIN_ORIGINATION_INTERVAL)
        if at <= now:
            self._originate(now)
        elif self._originate_at is None or at < self._originate_at:
            self._originate_at = at

    def _originate(self, now: float) -> None:
        self._sequence += 1
        lsa = self._own_lsa()
        data = encode_lsa(lsa, self._keys.values())
        self._lsdb.offer(lsa, data, now)
        self._flood(self._local, data, None)
        self._originated_at = now
        self._originate_at = now + REFRESH_INTERVAL * (1 - REFRESH_JITTER_RATIO * self._jitter())
        self.counters.lsas_originated += 1

    def _own_lsa(self) -> Lsa:
        links = tuple(link for _, link in sorted(self._links.items()))
        return Lsa(self._local, self._sequence, self._local in self._topology.leaves, links)

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called."""
        deadlines = [at for at in (self._originate_at, self._lsdb.next_expiry()) if at is not None]
        deadlines += map(self._postponed_until, self._postponed)
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        """Announce ourselves when it is time, and forget who did not."""
        if self._originate_at is not None and now >= self._originate_at:
            self._originate(now)
        for origin in [origin for origin in self._postponed if now >= self._postponed_until(origin)]:
            self._receive_foreign_lsa(*self._postponed.pop(origin), now)
        expired = self._lsdb.expire(now)
        if expired:
            self.counters.lsas_expired += expired
            self._table_is_stale = True

    # What the node asks.

    def next_hop(self, destination: int) -> int | None:
        """Return the neighbor that a packet for ``destination`` goes to; None: there is no way, or it is ourselves."""
        route = self._current_table().get(destination)
        return None if route is None else route.next_hop

    def path(self, destination: int) -> tuple[int, ...]:
        """Return the nodes from here to ``destination``, both included; empty when there is no way."""
        route = self._current_table().get(destination)
        return () if route is None else route.path

    def path_mtu_bytes(self, destination: int) -> int | None:
        """Return the largest overlay packet that fits every link of the path; None when there is no way."""
        route = self._current_table().get(destination)
        return None if route is None else route.mtu_bytes

    def next_event(self) -> RoutesChanged | None:
        """Return what changed in the table since the last event, all at once."""
        table = self._current_table()
        if table is self._announced_table:
            return None
        changed = changed_destinations(self._announced_table, table)
        severed = severed_destinations(self._announced_table, table, self._graph) & changed
        self._announced_table = table
        return RoutesChanged(changed, severed) if changed else None

    def status(self) -> RoutingStatus:
        """Return a snapshot for people."""
        return RoutingStatus(
            self._local,
            self._own_lsa().links,
            tuple(route for _, route in sorted(self._current_table().items())),
            tuple(sorted(self._lsdb, key=lambda entry: entry.lsa.origin)),
            attrs.evolve(self.counters, refused=dict(self.counters.refused)),
        )

    def _current_table(self) -> Table:
        if self._table_is_stale:
            # Our own links as they are now, not as we last announced them.
            lsas = [entry.lsa for entry in self._lsdb if entry.lsa.origin != self._local]
            self._graph = two_way_graph([*lsas, self._own_lsa()])
            self._table = compute_table(self._graph, self._local)
            self._table_is_stale = False
            self.counters.table_computations += 1
        return self._table

    def _up_link(self, neighbor: int) -> LsaLink:
        link = self._links.get(neighbor)
        if link is None:
            raise LocalProtocolError(f"the link to node {neighbor:08x} is not UP")
        return link

    def _check_neighbor(self, neighbor: int) -> None:
        if not self._topology.allows_link(self._local, neighbor):
            raise LocalProtocolError(f"the configuration has no link to node {neighbor:08x}")


def _checked_link(neighbor: int, cost: int, mtu_bytes: int) -> LsaLink:
    if not (1 <= cost <= MAX_COST and 1 <= mtu_bytes <= MAX_MTU_BYTES):
        raise LocalProtocolError(f"a link cannot have cost {cost} and MTU {mtu_bytes}")
    return LsaLink(neighbor, cost, mtu_bytes)
