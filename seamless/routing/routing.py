"""The routing core of a node: what it says of its links, what other nodes say of theirs, and the next hop to each.

It stands beside the links: the node reports neighbors that come up and go down, hands it the messages that links
receive, sends those that `lsas_to_flood` returns, and asks it for the next hop once per batch
(`seamless.routing.policies`). The core does no I/O and is driven with explicit time.

Rules:

* LSAs come and go as `seamless.routing.flooding` says.
* A link's fall counts in our own table at once. Our changes are announced as `seamless.routing.origination` says.
* The table is computed once for a burst of LSAs (`seamless.routing.routes`).
* What this node sends itself may take a detour where the shortest path fails (`seamless.routing.detours`); what it
  forwards never does.
* A changed cost is ignored until it differs by more than ``COST_CHANGE_RATIO`` from the announced one, so noise in
  latency does not move routes.

After every input the owner drains ``next_event`` and then ``lsas_to_flood``, and looks at ``next_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Final

import attrs

from seamless.crypto.keys import verify as verify_ed25519
from seamless.errors import LocalProtocolError
from seamless.routing.capacity import UNKNOWN_CAPACITY, LinkCapacity, PathCapacity
from seamless.routing.counters import RoutingCounters
from seamless.routing.flooding import Flooding, Verify
from seamless.routing.lsa import MAX_COST, MAX_MTU_BYTES, Lsa, LsaLink, encode_lsa
from seamless.routing.lsdb import Entry, Topology
from seamless.routing.origination import Origination
from seamless.routing.routes import Routes, RoutesChanged
from seamless.routing.spf import Route

COST_CHANGE_RATIO: Final = 0.25
"""Costs come from latency, which moves by some percent all the time; below this, another path gains nothing."""

Sign = Callable[[bytes], bytes]
"""Returns the Ed25519 signature of the local node."""


@attrs.frozen
class RoutingStatus:
    """A snapshot of routing: our links, all routes, all LSAs that count, and the counters."""

    local: int
    links: tuple[LsaLink, ...]
    routes: tuple[Route, ...]
    lsas: tuple[Entry, ...]
    counters: RoutingCounters
    equivocators: frozenset[int] = frozenset()
    """Origins of which two LSAs with one sequence were seen since the start."""


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
        self._sign = sign
        self._links: dict[int, LsaLink] = {}
        self._now = now
        self._due_at: float | None = None
        """When `handle_timeout` has something to do, infinity for never; None when that is to be computed anew."""
        self.has_output = True
        """Whether `next_event` or `lsas_to_flood` may return more than when the latter was called last."""
        self.counters = RoutingCounters()
        self._origination = Origination(local, local in topology.leaves, incarnation, refresh_jitter, now)
        self._flooding = Flooding(local, topology, public_keys, self._links, self._origination, self.counters, verify)
        self._routes = Routes(local, self._lsas, self.counters)

    def configure(self, topology: Topology, public_keys: Mapping[int, bytes], now: float) -> None:
        """Go on in another topology, which allows all links that are UP."""
        _check_topology(self._local, topology, public_keys)
        self._begin(now)
        self._topology = topology
        self._flooding.configure(topology, public_keys, now)
        self._routes.keep_only(topology.nodes)
        self._origination.configure(self._local in topology.leaves, topology.nodes, now)
        self._routes.changed_here(now)
        self._originate_if_due(now)

    # Commands: what our own links do.

    def link_up(
        self, neighbor: int, cost: int, mtu_bytes: int, now: float, capacity: LinkCapacity = UNKNOWN_CAPACITY
    ) -> None:
        """Use the link to ``neighbor``, which is UP, and send it a summary of our database."""
        self._check_neighbor(neighbor)
        self._set_link(_checked_link(LsaLink(neighbor, cost, mtu_bytes, capacity)), now)
        self._flooding.describe(neighbor, now)

    def link_down(self, neighbor: int, now: float) -> None:
        """Use the link to ``neighbor`` no longer; without effect when it was not UP."""
        self._check_neighbor(neighbor)
        if self._links.pop(neighbor, None) is None:
            return
        self._flooding.link_down(neighbor, now)
        self._links_changed(now)

    def link_cost(self, neighbor: int, cost: int, now: float, *, is_configured: bool = False) -> None:
        """Set the cost of an UP link; small changes are ignored unless the cost is configured."""
        link = self._up_link(neighbor)
        if abs(cost - link.cost) > (0 if is_configured else COST_CHANGE_RATIO * link.cost):
            self._set_link(_checked_link(attrs.evolve(link, cost=cost)), now)

    def link_mtu(self, neighbor: int, mtu_bytes: int, now: float) -> None:
        """Set the longest overlay packet that an UP link takes."""
        link = self._up_link(neighbor)
        if mtu_bytes != link.mtu_bytes:
            self._set_link(_checked_link(attrs.evolve(link, mtu_bytes=mtu_bytes)), now)

    def link_capacity(self, neighbor: int, capacity: LinkCapacity, now: float) -> None:
        """Set the rate and latency of an UP link; small changes of what is measured are ignored."""
        link = self._up_link(neighbor)
        if capacity.is_news(link.capacity):
            self._set_link(attrs.evolve(link, capacity=capacity), now)

    def note_unknown(self, identifier: int, now: float) -> None:
        """Announce that we were asked to carry packets to a node that our configuration does not have.

        Other nodes then lead no paths to it through us. It is soft state, for the life of this core.
        """
        if identifier not in self._topology.nodes:
            self._begin(now)
            self._origination.note_unknown(identifier, now)
            self._originate_if_due(now)

    def avoid_path(self, destination: int, now: float) -> bool:
        """Send our own packets to ``destination`` another way for a while; return False when there is none."""
        self._begin(now)
        return self._routes.avoid(destination, now)

    def _begin(self, now: float) -> None:
        """Take note that something happens at ``now``."""
        self._now = now
        self._due_at = None
        self.has_output = True

    # To and from the neighbors.

    def receive_lsa(self, data: bytes, neighbor: int, now: float) -> None:
        """Take an LSA or a summary from ``neighbor``, UP or not yet; count and raise `LsaRefusedError`."""
        self._check_neighbor(neighbor)
        self._begin(now)
        self._flooding.receive(data, neighbor, now)
        self._act_on_news(now)

    def _act_on_news(self, now: float) -> None:
        if self._flooding.take_news():
            self._routes.changed_elsewhere(now)
        self._originate_if_due(now)

    def lsas_to_flood(self) -> list[tuple[int, bytes]]:
        """Return, once, (neighbor, message) for each LSA and each summary that a neighbor must get now."""
        self.has_output = False
        return self._flooding.messages_to_send(self._now)

    def _set_link(self, link: LsaLink, now: float) -> None:
        self._links[link.neighbor] = link
        self._links_changed(now)

    def _links_changed(self, now: float) -> None:
        self._begin(now)
        self._routes.changed_here(now)
        self._origination.schedule(now)
        self._originate_if_due(now)

    def _originate_if_due(self, now: float) -> None:
        due_at = self._origination.due_at
        if due_at is None or now < due_at:
            return
        lsa = self._origination.next_lsa(self._links.values(), now)
        data = encode_lsa(lsa, self._sign)
        self._flooding.lsdb.offer(lsa, data, now)
        self._flooding.flood(self._local, data, None)
        self.counters.lsas_originated += 1

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called."""
        if self._due_at is None:
            deadlines = [self._origination.due_at, self._routes.next_timeout(self._now)]
            deadlines += self._flooding.deadlines(self._now)
            self._due_at = min((at for at in deadlines if at is not None), default=inf)
        return None if self._due_at == inf else self._due_at

    def handle_timeout(self, now: float) -> None:
        """Announce ourselves when it is time, ask for what did not come, and forget nodes that are silent."""
        if self._due_at is not None and now < self._due_at:
            return
        self._begin(now)
        self._originate_if_due(now)
        self._flooding.handle_timeout(now)
        self._act_on_news(now)
        self._routes.handle_timeout(now)
        if self._flooding.expire(now):
            self._routes.changed_here(now)

    # Lookups.

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

    def path_capacity(self, destination: int) -> PathCapacity | None:
        """Return what our own path carries from ``destination`` to us; None when it is not known."""
        return self._routes.capacity(destination, self._now)

    def next_event(self) -> RoutesChanged | None:
        """Return what changed in the table since the last event, all at once."""
        return self._routes.next_event(self._now)

    def take_equivocators(self) -> list[int]:
        """Return, once, the origins of which two LSAs with one sequence were seen for the first time."""
        return self._flooding.take_equivocators()

    def status(self) -> RoutingStatus:
        """Return a snapshot of links, routes, LSAs and counters."""
        return RoutingStatus(
            self._local,
            self._origination.lsa(self._links.values()).links,
            tuple(route for _, route in sorted(self._routes.own_table(self._now).items())),
            tuple(sorted(self._flooding.lsdb, key=lambda entry: entry.lsa.origin)),
            attrs.evolve(self.counters, refused=dict(self.counters.refused)),
            frozenset(self._flooding.equivocators),
        )

    def _lsas(self) -> list[Lsa]:
        """Return all LSAs that count, with our own links as they are now, not as we last announced them."""
        others = [entry.lsa for entry in self._flooding.lsdb if entry.lsa.origin != self._local]
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


def _checked_link(link: LsaLink) -> LsaLink:
    if not (1 <= link.cost <= MAX_COST and 1 <= link.mtu_bytes <= MAX_MTU_BYTES):
        raise LocalProtocolError(f"a link cannot have cost {link.cost} and MTU {link.mtu_bytes}")
    return link
