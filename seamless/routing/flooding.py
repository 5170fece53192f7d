"""Flooding: how the LSAs of all nodes come to this one, and go on to its neighbors.

It stands between the links, whose messages it takes and gives, and the computation of paths, which asks it for the
LSAs that count. `seamless.routing.routing` owns it and is the only one that uses it.

The rules:

* An LSA that is news is flooded to every UP neighbor but the one it came from; an older one is answered with the
  newer. A link resends an LSA until it is acknowledged, so there are no acknowledgements here.
* A new LSA is verified once, after all that is cheap: its form, its origin, its rank. Verifications have a budget for
  each neighbor; what exceeds it is counted, dropped, and asked for later.
* When a neighbor comes up, both ends send a summary of their databases (`seamless.routing.summary`), and then what the
  other lacks. What a summary promises and does not come is asked for.
* Of two LSAs with one sequence number all nodes keep the same one (`seamless.routing.lsdb`); the origin is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import attrs

from seamless.routing.counters import RoutingCounters
from seamless.routing.exchange import REQUEST_DELAY, Exchange
from seamless.routing.lsa import (
    Lsa,
    LsaRefusedError,
    Rank,
    Refusal,
    decode_lsa,
    digest_of,
    origin_of,
    signed_part,
)
from seamless.routing.lsdb import Lsdb, Topology, Verdict
from seamless.routing.origination import Origination
from seamless.routing.summary import KIND_SUMMARY, Summary, decode_summary, encode_summary, summaries_of

MIN_ARRIVAL_INTERVAL: Final = 0.025
"""Seconds between two LSAs of one origin that we act upon (RFC 2328's MinLSArrival), however many come: half of what
an honest origin leaves between them. The newest that comes earlier waits, one for each neighbor that sends them."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""Given public key, signature and message: whether the signature is good."""


@attrs.frozen
class _Offer:
    """An LSA that a neighbor sent and that is not yet verified."""

    lsa: Lsa
    data: bytes
    rank: Rank
    neighbor: int


class Flooding:
    """The link state database of the node ``local``, and its exchange with the neighbors.

    ``up`` are the neighbors whose links are UP: the owner's own collection, which changes. ``origination`` is shown the
    LSAs of former lives of this node.
    """

    def __init__(
        self,
        local: int,
        topology: Topology,
        public_keys: Mapping[int, bytes],
        up: Collection[int],
        origination: Origination,
        counters: RoutingCounters,
        verify: Verify,
    ) -> None:
        self.lsdb = Lsdb(topology)
        self.equivocators: dict[int, None] = {}
        """Origins of which two LSAs with one sequence were seen."""
        self.counters = counters
        self._local = local
        self._topology = topology
        self._keys = public_keys
        self._up = up
        self._origination = origination
        self._verify_signature = verify
        self._exchanges: dict[int, Exchange] = {}
        self._busy: dict[int, Exchange] = {}
        """Those of the exchanges in which an answer or a request waits: few, and most of the time none."""
        self._to_flood: dict[tuple[int, int], bytes] = {}
        self._summaries: list[tuple[int, bytes]] = []
        self._postponed: dict[int, dict[int, _Offer]] = {}
        self._postponed_until: float | None = None
        self._new_equivocators: list[int] = []
        self._has_news = False

    def configure(self, topology: Topology, public_keys: Mapping[int, bytes], now: float) -> None:
        """Go on in another topology; what neighbors have of new nodes was refused before, and is asked for."""
        has_new_nodes = not topology.nodes <= self._topology.nodes
        self._topology = topology
        self._keys = public_keys
        self.lsdb.set_topology(topology)
        self._forget_all_but(topology.nodes)
        for neighbor in self._up if has_new_nodes else ():
            self.describe(neighbor, now)

    def _forget_all_but(self, nodes: Collection[int]) -> None:
        allows = self._topology.allows_link
        self._exchanges = {node: each for node, each in self._exchanges.items() if allows(self._local, node)}
        self._busy = {node: each for node, each in self._busy.items() if node in self._exchanges}
        self._to_flood = {key: data for key, data in self._to_flood.items() if key[1] in nodes}
        self._postponed = {origin: offers for origin, offers in self._postponed.items() if origin in nodes}
        for offers in self._postponed.values():
            for neighbor in offers.keys() - self._exchanges.keys():
                del offers[neighbor]
        self.equivocators = {origin: None for origin in self.equivocators if origin in nodes}
        self._new_equivocators = [origin for origin in self._new_equivocators if origin in nodes]

    def take_news(self) -> bool:
        """Return, once, whether another node has said something new."""
        has_news, self._has_news = self._has_news, False
        return has_news

    # What comes from the neighbors.

    def receive(self, data: bytes, neighbor: int, now: float) -> None:
        """Take an LSA or a summary from ``neighbor``, UP or not yet; count and raise `LsaRefusedError`."""
        try:
            if data[:1] == bytes([KIND_SUMMARY]):
                self.counters.summaries_received += 1
                self._receive_summary(decode_summary(data), neighbor, now)
            else:
                self.counters.lsas_received += 1
                if not self._is_the_same(data, neighbor):
                    self._receive(decode_lsa(data), data, neighbor, now)
        except LsaRefusedError as refused:
            self.counters.refused[refused.refusal] += 1
            raise

    def _is_the_same(self, data: bytes, neighbor: int) -> bool:
        """Return whether these very bytes are in the database, as most that come are: each neighbor sends them."""
        origin = origin_of(data)
        known = self.lsdb.newest(origin)
        if known is None or known.data != data:
            return False
        self.counters.lsas_duplicate += 1
        # What the neighbor has just shown us, it does not need from us.
        self._neighbor_has(origin, neighbor)
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
            self.lsdb.check(lsa)
            if self._arrives_too_early(offer, now):
                return
        self._accept(offer, now)

    def _is_known(self, offer: _Offer, now: float) -> bool:
        """Return whether an LSA is the one that we have, or an older one, which is answered; neither is verified."""
        lsa, neighbor = offer.lsa, offer.neighbor
        known = self.lsdb.newest(lsa.origin)
        if known is None:
            return False
        if offer.rank == known.rank:
            self.counters.lsas_duplicate += 1
            self._neighbor_has(lsa.origin, neighbor)
            return True
        newest = self._origination.sequence if lsa.origin == self._local else known.lsa.sequence
        if lsa.sequence < known.lsa.sequence or (lsa.origin == self._local and lsa.sequence < newest):
            self.counters.lsas_older += 1
            self._busy_exchange(neighbor, now).answer(lsa.origin)
            return True
        return False

    def _arrives_too_early(self, offer: _Offer, now: float) -> bool:
        """Return whether a newer LSA must wait; of those that wait, the newest of each neighbor is kept."""
        origin = offer.lsa.origin
        known = self.lsdb.newest(origin)
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
            return
        known = self.lsdb.newest(lsa.origin)
        if known is not None and lsa.sequence == known.lsa.sequence:
            self._note_equivocation(lsa.origin)
        verdict = self.lsdb.offer(lsa, offer.data, now)
        if verdict is Verdict.OLDER:
            # Of two with one sequence we have the one that all shall keep.
            self._busy_exchange(neighbor, now).answer(lsa.origin)
            return
        self._neighbor_has(lsa.origin, neighbor)
        self.counters.unknown_links += self.lsdb.unknown_links(lsa.origin)
        if verdict is Verdict.CHANGED:
            self.counters.lsas_changed += 1
            self._has_news = True
        else:
            self.counters.lsas_refreshed += 1
        self.flood(lsa.origin, offer.data, neighbor)

    def _verify(self, offer: _Offer, now: float) -> None:
        origin = offer.lsa.origin
        exchange = self._exchange(offer.neighbor, now)
        if not exchange.verifications.take(now):
            self._busy[offer.neighbor] = exchange
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
        if origin not in self.equivocators:
            self.equivocators[origin] = None
            self._new_equivocators.append(origin)

    def _neighbor_has(self, origin: int, neighbor: int) -> None:
        self._to_flood.pop((neighbor, origin), None)
        busy = self._busy.get(neighbor)
        if busy is not None:
            busy.answered(origin)

    # The exchange of databases.

    def _exchange(self, neighbor: int, now: float) -> Exchange:
        exchange = self._exchanges.get(neighbor)
        if exchange is None:
            exchange = self._exchanges[neighbor] = Exchange(len(self._topology.nodes), now)
        return exchange

    def _busy_exchange(self, neighbor: int, now: float) -> Exchange:
        exchange = self._busy[neighbor] = self._exchange(neighbor, now)
        return exchange

    def _receive_summary(self, summary: Summary, neighbor: int, now: float) -> None:
        """Queue what the neighbor lacks; take note of what it has and we lack."""
        exchange = self._exchange(neighbor, now)
        if not exchange.summaries.take(now):
            raise LsaRefusedError(Refusal.OVER_BUDGET, "more summaries than one neighbor may send")
        self._busy[neighbor] = exchange
        nothing = (-1, b"")
        for entry in self.lsdb.between(summary.first, summary.last):
            origin = entry.lsa.origin
            shown = summary.ranks.get(origin, nothing)
            if entry.rank > shown and (origin != neighbor or shown is not nothing):
                exchange.answer(origin)
        # A neighbor that was told what we have will send the rest by itself.
        request_at = max(now, exchange.described_at + REQUEST_DELAY)
        for origin, rank in summary.ranks.items():
            if origin in self._topology.nodes and self._lacks(origin, rank):
                exchange.want(origin, rank, request_at)

    def _lacks(self, origin: int, rank: Rank) -> bool:
        known = self.lsdb.newest(origin)
        return known is None or known.rank < rank

    def _request(self, neighbor: int, exchange: Exchange) -> None:
        """Ask for what the neighbor has and we lack still: by those parts of our summary that show that we lack it."""
        lacked = [origin for origin, rank in exchange.take_wanted().items() if self._lacks(origin, rank)]
        if not lacked or neighbor not in self._up:
            return
        for summary in summaries_of((entry.lsa.origin, entry.rank) for entry in self.lsdb):
            if any(summary.first <= origin <= summary.last for origin in lacked):
                self._summaries.append((neighbor, encode_summary(summary)))

    # What goes to the neighbors.

    def describe(self, neighbor: int, now: float) -> None:
        """Send a summary of our whole database, so that the neighbor sends what we lack."""
        for summary in summaries_of((entry.lsa.origin, entry.rank) for entry in self.lsdb):
            self._summaries.append((neighbor, encode_summary(summary)))
        self._exchange(neighbor, now).described_at = now

    def link_down(self, neighbor: int, now: float) -> None:
        """Forget what was to be sent to a neighbor: the databases are compared anew when its link comes up."""
        self._to_flood = {key: data for key, data in self._to_flood.items() if key[0] != neighbor}
        self._summaries = [(other, data) for other, data in self._summaries if other != neighbor]
        self._exchange(neighbor, now).link_down()

    def messages_to_send(self, now: float) -> list[tuple[int, bytes]]:
        """Return, once, (neighbor, message) for each LSA and each summary that a neighbor must get now."""
        messages, self._summaries = self._summaries, []
        self.counters.summaries_sent += len(messages)
        lsas = self._to_flood
        for neighbor in list(self._busy):
            self._take_answers(neighbor, now)
        if lsas:
            messages += [(neighbor, data) for (neighbor, _), data in lsas.items()]
            self.counters.lsas_flooded += len(lsas)
            self._to_flood = {}
        return messages

    def _take_answers(self, neighbor: int, now: float) -> None:
        """Queue the answers that may go to ``neighbor`` now, with what is flooded."""
        exchange = self._busy[neighbor]
        for origin in exchange.take_answers(now) if neighbor in self._up else ():
            newest = self.lsdb.newest(origin)
            if newest is not None:
                self._to_flood[neighbor, origin] = newest.data
        if exchange.is_idle:
            del self._busy[neighbor]

    def flood(self, origin: int, data: bytes, came_from: int | None) -> None:
        """Queue an LSA for every UP neighbor but the one that it came from."""
        for neighbor in self._up:
            if neighbor != came_from:
                self._to_flood[neighbor, origin] = data

    # Time.

    def deadlines(self, now: float) -> Iterator[float | None]:
        """Yield when `handle_timeout` or `expire` has something to do, None for never."""
        yield self.lsdb.next_expiry()
        yield self._postponed_until
        for neighbor, exchange in self._busy.items():
            if neighbor in self._up:
                yield exchange.request_at
                yield exchange.answers_at(now)

    def handle_timeout(self, now: float) -> None:
        """Take the LSAs that have waited long enough, and ask for what did not come."""
        if self._postponed_until is not None and now >= self._postponed_until:
            self._accept_postponed(now)
        for neighbor, exchange in self._busy.items():
            if exchange.request_at is not None and now >= exchange.request_at:
                self._request(neighbor, exchange)

    def expire(self, now: float) -> bool:
        """Stop counting the LSAs that were not refreshed in time; return whether there are any."""
        expired = self.lsdb.expire(now)
        self.counters.lsas_expired += expired
        return bool(expired)

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

    def take_equivocators(self) -> list[int]:
        """Return, once, the origins of which two LSAs with one sequence were seen for the first time."""
        origins, self._new_equivocators = self._new_equivocators, []
        return origins
