"""The routing core of a node: says what its links are, hears what others say, and knows the next hop to all nodes.

It stands beside the links: the node tells it of neighbors that come up and go down, hands it the messages that links
receive, sends those that `lsas_to_flood` returns, and asks it for the next hop once per batch. The core does no I/O and
is driven with explicit time.

Rules:

* An LSA that is news is flooded to every UP neighbor but the one it came from; an older one is answered with the
  newer. A link resends an LSA until it is acknowledged, so there are no acknowledgements here.
* A new LSA is verified once, after all that is cheap: its form, its origin, its rank, its links. Verifications have a
  budget for each neighbor; what exceeds it is counted, dropped, and asked for later.
* When a neighbor comes up, both ends send a summary of their databases (`seamless.routing.summary`), and then what the
  other lacks. What a summary promises and does not come is asked for.
* A link's fall counts in our own table at once. Other nodes hear of our changes as `seamless.routing.origination` says.
* The table is computed once for a burst of LSAs (`seamless.routing.routes`).
* What this node sends itself may take a detour where the shortest path fails (`seamless.routing.detours`); what it
  forwards never does.
* A changed cost is ignored until it differs by more than ``COST_CHANGE_RATIO`` from the announced one, so noise in
  latency does not move routes.
* Of two LSAs with one sequence number all nodes keep the same one (`seamless.routing.lsdb`); the origin is counted.

After every input the owner drains ``lsas_to_flood`` and ``next_event`` and looks at ``next_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Final

import attrs

from seamless.crypto.keys import verify as verify_ed25519
from seamless.errors import LocalProtocolError
from seamless.routing.counters import RoutingCounters
from seamless.routing.exchange import REQUEST_DELAY, Exchange
from seamless.routing.lsa import (
    MAX_COST,
    MAX_MTU_BYTES,
    Lsa,
    LsaLink,
    LsaRefusedError,
    Rank,
    Refusal,
    decode_lsa,
    digest_of,
    encode_lsa,
    origin_of,
    signed_part,
)
from seamless.routing.lsdb import Entry, Lsdb, Topology, Verdict
from seamless.routing.origination import Origination
from seamless.routing.routes import Routes, RoutesChanged
from seamless.routing.spf import Route
from seamless.routing.summary import KIND_SUMMARY, Summary, decode_summary, encode_summary, summaries_of

MIN_ARRIVAL_INTERVAL: Final = 0.025
"""Seconds between two LSAs of one origin that we act upon (RFC 2328's MinLSArrival), however many come: half of what
an honest origin leaves between them. The newest that comes earlier waits, one for each neighbor that sends them."""
COST_CHANGE_RATIO: Final = 0.25
"""Costs come from latency, which moves by some percent all the time; below this, another path gains nothing."""

Sign = Callable[[bytes], bytes]
"""Returns the Ed25519 signature of the local node."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""Given public key, signature and message: whether the signature is good."""


@attrs.frozen
class RoutingStatus:
    """A snapshot for people: our links, all routes, all LSAs that count, and the counters."""

    local: int
    links: tuple[LsaLink, ...]
    routes: tuple[Route, ...]
    lsas: tuple[Entry, ...]
    counters: RoutingCounters
    equivocators: frozenset[int] = frozenset()
    """Origins of which two LSAs with one sequence were seen since the start."""


@attrs.frozen
class _Offer:
    """An LSA that a neighbor sent and that is not yet verified."""

    lsa: Lsa
    data: bytes
    rank: Rank
    neighbor: int


class Routing:
    """Link state routing for the node ``local`` in the network that ``topology`` allows.

    ``public_keys`` has the raw Ed25519 key of every node of the topology, ``sign`` signs as the local one.
    ``incarnation`` is the wall clock at the start of the process in milliseconds. ``refresh_jitter`` gives a random
    number from 0 to 1 whenever it is called.
    """

    def __init__(
        self,
        *,
        local: int,
        topology: Topology,
        public_keys: Mapping[int, bytes],
        sign: Sign,
        incarnation: int,
        refresh_jitter: Callable[[], float],
        now: float,
        verify: Verify = verify_ed25519,
    ) -> None:
        _check_topology(local, topology, public_keys)
        self._local = local
        self._topology = topology
        self._keys = public_keys
        self._sign = sign
        self._verify_signature = verify
        self._origination = Origination(local, local in topology.leaves, incarnation, refresh_jitter, now)
        self._lsdb = Lsdb(topology)
        self._links: dict[int, LsaLink] = {}
        self._exchanges: dict[int, Exchange] = {}
        self._to_flood: dict[tuple[int, int], bytes] = {}
        self._summaries: list[tuple[int, bytes]] = []
        self._postponed: dict[int, dict[int, _Offer]] = {}
        self._postponed_until: float | None = None
        self._equivocators: dict[int, None] = {}
        self._new_equivocators: list[int] = []
        self._now = now
        self.counters = RoutingCounters()
        self._routes = Routes(local, self._lsas, self.counters)

    def configure(self, topology: Topology, public_keys: Mapping[int, bytes], now: float) -> None:
        """Go on in another topology, which allows all links that are UP.

        What neighbors have of new nodes was refused before, and is asked for.
        """
        _check_topology(self._local, topology, public_keys)
        self._now = now
        has_new_nodes = not topology.nodes <= self._topology.nodes
        self._topology = topology
        self._keys = public_keys
        self._lsdb.set_topology(topology)
        self._forget_all_but(topology.nodes)
        self._origination.configure(self._local in topology.leaves, topology.nodes, now)
        self._routes.changed_here(now)
        self._originate_if_due(now)
        for neighbor in self._links if has_new_nodes else ():
            self._describe(neighbor, now)

    def _forget_all_but(self, nodes: Set[int]) -> None:
        allows = self._topology.allows_link
        self._exchanges = {node: each for node, each in self._exchanges.items() if allows(self._local, node)}
        self._to_flood = {key: data for key, data in self._to_flood.items() if key[1] in nodes}
        self._postponed = {origin: offers for origin, offers in self._postponed.items() if origin in nodes}
        for offers in self._postponed.values():
            for neighbor in offers.keys() - self._exchanges.keys():
                del offers[neighbor]
        self._equivocators = {origin: None for origin in self._equivocators if origin in nodes}
        self._new_equivocators = [origin for origin in self._new_equivocators if origin in nodes]
        self._routes.keep_only(nodes)

    # Commands: what our own links do.

    def link_up(self, neighbor: int, cost: int, mtu_bytes: int, now: float) -> None:
        """Take note that ``neighbor`` is UP and describe our database to it; also when it was UP before but forgot."""
        self._check_neighbor(neighbor)
        self._set_link(_checked_link(neighbor, cost, mtu_bytes), now)
        self._describe(neighbor, now)

    def _describe(self, neighbor: int, now: float) -> None:
        """Send a summary of our whole database, so that the neighbor sends what we lack."""
        for summary in summaries_of((entry.lsa.origin, entry.rank) for entry in self._lsdb):
            self._summaries.append((neighbor, encode_summary(summary)))
        self._exchange(neighbor, now).described_at = now

    def link_down(self, neighbor: int, now: float) -> None:
        """Take note that ``neighbor`` is no longer UP; no matter when it was not."""
        self._check_neighbor(neighbor)
        if self._links.pop(neighbor, None) is None:
            return
        self._to_flood = {key: data for key, data in self._to_flood.items() if key[0] != neighbor}
        self._summaries = [(other, data) for other, data in self._summaries if other != neighbor]
        self._exchange(neighbor, now).link_down()
        self._links_changed(now)

    def link_cost(self, neighbor: int, cost: int, now: float, *, is_configured: bool = False) -> None:
        """Take note of the cost of an UP link; small changes are ignored unless the cost is configured."""
        link = self._up_link(neighbor)
        if abs(cost - link.cost) > (0 if is_configured else COST_CHANGE_RATIO * link.cost):
            self._set_link(_checked_link(neighbor, cost, link.mtu_bytes), now)

    def link_mtu(self, neighbor: int, mtu_bytes: int, now: float) -> None:
        """Take note of the longest overlay packet that an UP link takes."""
        link = self._up_link(neighbor)
        if mtu_bytes != link.mtu_bytes:
            self._set_link(_checked_link(neighbor, link.cost, mtu_bytes), now)

    def note_unknown(self, identifier: int, now: float) -> None:
        """Announce that we were asked to carry packets to a node that our configuration does not have.

        Other nodes then lead no paths to it through us. It is soft state, for the life of this core.
        """
        if identifier not in self._topology.nodes:
            self._now = now
            self._origination.note_unknown(identifier, now)
            self._originate_if_due(now)

    def avoid_path(self, destination: int, now: float) -> bool:
        """Send our own packets to ``destination`` another way for a while; return False when there is none."""
        self._now = now
        return self._routes.avoid(destination, now)

    # What comes from the neighbors.

    def receive_lsa(self, data: bytes, neighbor: int, now: float) -> None:
        """Take an LSA or a summary from ``neighbor``, UP or not yet; count and raise `LsaRefusedError`."""
        self._check_neighbor(neighbor)
        self._now = now
        try:
            if data[:1] == bytes([KIND_SUMMARY]):
                self.counters.summaries_received += 1
                self._receive_summary(decode_summary(data), neighbor, now)
            else:
                self.counters.lsas_received += 1
                if not self._is_the_same(data, neighbor, now):
                    self._receive(decode_lsa(data), data, neighbor, now)
        except LsaRefusedError as refused:
            self.counters.refused[refused.refusal] += 1
            raise

    def _is_the_same(self, data: bytes, neighbor: int, now: float) -> bool:
        """Return whether these very bytes are in the database, as most that come are: each neighbor sends them."""
        origin = origin_of(data)
        known = self._lsdb.newest(origin)
        if known is None or known.data != data:
            return False
        self.counters.lsas_duplicate += 1
        # What the neighbor has just shown us, it does not need from us.
        self._neighbor_has(origin, neighbor, now)
        return True

    def _receive(self, lsa: Lsa, data: bytes, neighbor: int, now: float) -> None:
        if lsa.origin not in self._keys:
            raise LsaRefusedError(
                Refusal.UNKNOWN_ORIGIN,
                f"an LSA of node {lsa.origin:08x}, which this node's configuration does not have;"
                " use the same configuration on every host",
            )
        offer = _Offer(lsa, data, (lsa.sequence, digest_of(data)), neighbor)
        if self._is_known(offer, now):
            return
        if lsa.origin != self._local:
            self._lsdb.check(lsa)
            if self._arrives_too_early(offer, now):
                return
        self._accept(offer, now)

    def _is_known(self, offer: _Offer, now: float) -> bool:
        """Return whether an LSA is the one that we have, or an older one, which is answered; neither is verified."""
        lsa, neighbor = offer.lsa, offer.neighbor
        known = self._lsdb.newest(lsa.origin)
        if known is None:
            return False
        if offer.rank == known.rank:
            self.counters.lsas_duplicate += 1
            self._neighbor_has(lsa.origin, neighbor, now)
            return True
        newest = self._origination.sequence if lsa.origin == self._local else known.lsa.sequence
        if lsa.sequence < known.lsa.sequence or (lsa.origin == self._local and lsa.sequence < newest):
            self.counters.lsas_older += 1
            self._exchange(neighbor, now).answer(lsa.origin)
            return True
        return False

    def _arrives_too_early(self, offer: _Offer, now: float) -> bool:
        """Return whether a newer LSA must wait; of those that wait, the newest of each neighbor is kept."""
        origin = offer.lsa.origin
        known = self._lsdb.newest(origin)
        if known is None or now >= known.received_at + MIN_ARRIVAL_INTERVAL:
            return False
        self.counters.lsas_postponed += 1
        waiting = self._postponed.setdefault(origin, {})
        if offer.neighbor not in waiting or offer.rank > waiting[offer.neighbor].rank:
            waiting[offer.neighbor] = offer
        until = known.received_at + MIN_ARRIVAL_INTERVAL
        self._postponed_until = until if self._postponed_until is None else min(until, self._postponed_until)
        return True

    def _accept(self, offer: _Offer, now: float) -> None:
        """Verify an LSA that would be news, take it and flood it."""
        lsa, neighbor = offer.lsa, offer.neighbor
        self._verify(offer, now)
        if lsa.origin == self._local:
            self.counters.jumps += self._origination.jump(lsa.sequence, now)
            self._originate_if_due(now)
            return
        known = self._lsdb.newest(lsa.origin)
        if known is not None and lsa.sequence == known.lsa.sequence:
            self._note_equivocation(lsa.origin)
        verdict = self._lsdb.offer(lsa, offer.data, now)
        if verdict is Verdict.OLDER:
            # Of two with one sequence we have the one that all shall keep.
            self._exchange(neighbor, now).answer(lsa.origin)
            return
        self._neighbor_has(lsa.origin, neighbor, now)
        self.counters.unknown_links += self._lsdb.unknown_links(lsa.origin)
        if verdict is Verdict.CHANGED:
            self.counters.lsas_changed += 1
            self._routes.changed_elsewhere(now)
        else:
            self.counters.lsas_refreshed += 1
        self._flood(lsa.origin, offer.data, neighbor)

    def _verify(self, offer: _Offer, now: float) -> None:
        origin = offer.lsa.origin
        exchange = self._exchange(offer.neighbor, now)
        if not exchange.verifications.take(now):
            exchange.want(origin, offer.rank, exchange.verifications.ready_at())
            raise LsaRefusedError(Refusal.OVER_BUDGET, "more new LSAs than one neighbor may send; asked for later")
        self.counters.lsas_verified += 1
        if not self._verify_signature(self._keys[origin], *signed_part(offer.data)):
            raise LsaRefusedError(
                Refusal.NOT_AUTHENTIC,
                f"an LSA that node {origin:08x} did not sign; check that it is in the configuration on every host,"
                " with the right key",
            )

    def _note_equivocation(self, origin: int) -> None:
        self.counters.lsas_equivocal += 1
        if origin not in self._equivocators:
            self._equivocators[origin] = None
            self._new_equivocators.append(origin)

    def _neighbor_has(self, origin: int, neighbor: int, now: float) -> None:
        self._to_flood.pop((neighbor, origin), None)
        self._exchange(neighbor, now).answered(origin)

    # The exchange of databases.

    def _exchange(self, neighbor: int, now: float) -> Exchange:
        exchange = self._exchanges.get(neighbor)
        if exchange is None:
            exchange = self._exchanges[neighbor] = Exchange(len(self._topology.nodes), now)
        return exchange

    def _receive_summary(self, summary: Summary, neighbor: int, now: float) -> None:
        """Queue what the neighbor lacks; take note of what it has and we lack."""
        exchange = self._exchange(neighbor, now)
        if not exchange.summaries.take(now):
            raise LsaRefusedError(Refusal.OVER_BUDGET, "more summaries than one neighbor may send")
        nothing = (-1, b"")
        for entry in self._lsdb:
            origin = entry.lsa.origin
            shown = summary.ranks.get(origin, nothing)
            is_needed = origin != neighbor or shown is not nothing
            if summary.first <= origin <= summary.last and entry.rank > shown and is_needed:
                exchange.answer(origin)
        # A neighbor that was told what we have will send the rest by itself.
        request_at = max(now, exchange.described_at + REQUEST_DELAY)
        for origin, rank in summary.ranks.items():
            if origin in self._topology.nodes and self._lacks(origin, rank):
                exchange.want(origin, rank, request_at)

    def _lacks(self, origin: int, rank: Rank) -> bool:
        known = self._lsdb.newest(origin)
        return known is None or known.rank < rank

    def _request(self, neighbor: int, exchange: Exchange) -> None:
        """Ask for what the neighbor has and we lack still: by those parts of our summary that show that we lack it."""
        lacked = [origin for origin, rank in exchange.take_wanted().items() if self._lacks(origin, rank)]
        if not lacked or neighbor not in self._links:
            return
        for summary in summaries_of((entry.lsa.origin, entry.rank) for entry in self._lsdb):
            if any(summary.first <= origin <= summary.last for origin in lacked):
                self._summaries.append((neighbor, encode_summary(summary)))

    # What goes to the neighbors.

    def lsas_to_flood(self) -> list[tuple[int, bytes]]:
        """Return, once, (neighbor, message) for each LSA and each summary that a neighbor must get now."""
        messages, self._summaries = self._summaries, []
        self.counters.summaries_sent += len(messages)
        lsas = self._to_flood
        for neighbor, exchange in self._exchanges.items():
            if neighbor in self._links:
                for origin in exchange.take_answers(self._now):
                    newest = self._lsdb.newest(origin)
                    if newest is not None:
                        lsas[neighbor, origin] = newest.data
        if lsas:
            messages += [(neighbor, data) for (neighbor, _), data in lsas.items()]
            self.counters.lsas_flooded += len(lsas)
            self._to_flood = {}
        return messages

    def _flood(self, origin: int, data: bytes, came_from: int | None) -> None:
        for neighbor in self._links:
            if neighbor != came_from:
                self._to_flood[neighbor, origin] = data

    def _set_link(self, link: LsaLink, now: float) -> None:
        self._links[link.neighbor] = link
        self._links_changed(now)

    def _links_changed(self, now: float) -> None:
        self._now = now
        self._routes.changed_here(now)
        self._origination.schedule(now)
        self._originate_if_due(now)

    def _originate_if_due(self, now: float) -> None:
        due_at = self._origination.due_at
        if due_at is None or now < due_at:
            return
        lsa = self._origination.next_lsa(self._links.values(), now)
        data = encode_lsa(lsa, self._sign)
        self._lsdb.offer(lsa, data, now)
        self._flood(self._local, data, None)
        self.counters.lsas_originated += 1

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called."""
        deadlines = [
            self._origination.due_at,
            self._lsdb.next_expiry(),
            self._postponed_until,
            self._routes.next_timeout(self._now),
        ]
        for neighbor, exchange in self._exchanges.items():
            if neighbor in self._links:
                deadlines += (exchange.request_at, exchange.answers_at(self._now))
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Announce ourselves when it is time, ask for what did not come, and forget nodes that are silent."""
        self._now = now
        self._originate_if_due(now)
        if self._postponed_until is not None and now >= self._postponed_until:
            self._accept_postponed(now)
        for neighbor, exchange in self._exchanges.items():
            if exchange.request_at is not None and now >= exchange.request_at:
                self._request(neighbor, exchange)
        self._routes.handle_timeout(now)
        expired = self._lsdb.expire(now)
        if expired:
            self.counters.lsas_expired += expired
            self._routes.changed_here(now)

    def _accept_postponed(self, now: float) -> None:
        """Take the newest LSA of each origin that has waited long enough and is good."""
        waiting, self._postponed, self._postponed_until = self._postponed, {}, None
        for offers in waiting.values():
            for offer in sorted(offers.values(), key=lambda offer: offer.rank, reverse=True):
                try:
                    if self._lacks(offer.lsa.origin, offer.rank) and not self._arrives_too_early(offer, now):
                        self._accept(offer, now)
                except LsaRefusedError as refused:
                    self.counters.refused[refused.refusal] += 1

    # What the node asks.

    def next_hop(self, destination: int) -> int | None:
        """Return the neighbor that a packet in transit to ``destination`` goes to; None: there is no way, or it is
        ourselves."""
        route = self._routes.get(destination, self._now)
        return None if route is None else route.next_hop

    def own_next_hop(self, destination: int) -> int | None:
        """Return the neighbor that a packet of our own goes to; None: there is no way."""
        route = self._routes.own(destination, self._now)
        return None if route is None else route.next_hop

    def next_hop_around(self, neighbor: int, source: int, destination: int) -> int | None:
        """Return the next hop of the best path for packets of ``source`` that neither begins with ``neighbor`` nor
        leads back to this node; None: there is none."""
        route = self._routes.around(neighbor, source, destination, self._now)
        return None if route is None else route.next_hop

    def path(self, destination: int) -> tuple[int, ...]:
        """Return the nodes from here to ``destination``, both included, that our own packets pass; empty when there is
        no way."""
        route = self._routes.own(destination, self._now)
        return () if route is None else route.path

    def transit_path(self, destination: int) -> tuple[int, ...]:
        """Return the nodes from here to ``destination``, both included, that packets in transit pass."""
        route = self._routes.get(destination, self._now)
        return () if route is None else route.path

    def path_mtu_bytes(self, destination: int) -> int | None:
        """Return the largest overlay packet that fits every link of our own path; None when there is no way."""
        route = self._routes.own(destination, self._now)
        return None if route is None else route.mtu_bytes

    def next_event(self) -> RoutesChanged | None:
        """Return what changed in the table since the last event, all at once."""
        return self._routes.next_event(self._now)

    def take_equivocators(self) -> list[int]:
        """Return, once, the origins of which two LSAs with one sequence were seen for the first time."""
        origins, self._new_equivocators = self._new_equivocators, []
        return origins

    def status(self) -> RoutingStatus:
        """Return a snapshot for people."""
        return RoutingStatus(
            self._local,
            self._origination.lsa(self._links.values()).links,
            tuple(route for _, route in sorted(self._routes.own_table(self._now).items())),
            tuple(sorted(self._lsdb, key=lambda entry: entry.lsa.origin)),
            attrs.evolve(self.counters, refused=dict(self.counters.refused)),
            frozenset(self._equivocators),
        )

    def _lsas(self) -> list[Lsa]:
        """Return all LSAs that count, with our own links as they are now, not as we last announced them."""
        others = [entry.lsa for entry in self._lsdb if entry.lsa.origin != self._local]
        return [*others, self._origination.lsa(self._links.values())]

    def _up_link(self, neighbor: int) -> LsaLink:
        link = self._links.get(neighbor)
        if link is None:
            raise LocalProtocolError(f"the link to node {neighbor:08x} is not UP")
        return link

    def _check_neighbor(self, neighbor: int) -> None:
        if not self._topology.allows_link(self._local, neighbor):
            raise LocalProtocolError(f"the configuration has no link to node {neighbor:08x}")


def _check_topology(local: int, topology: Topology, public_keys: Mapping[int, bytes]) -> None:
    if not topology.nodes <= public_keys.keys() or local not in topology.nodes:
        raise LocalProtocolError("routing needs the local node in the topology, and a public key for every node")


def _checked_link(neighbor: int, cost: int, mtu_bytes: int) -> LsaLink:
    if not (1 <= cost <= MAX_COST and 1 <= mtu_bytes <= MAX_MTU_BYTES):
        raise LocalProtocolError(f"a link cannot have cost {cost} and MTU {mtu_bytes}")
    return LsaLink(neighbor, cost, mtu_bytes)
