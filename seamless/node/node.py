"""The node as one core: it owns every other core and is the only one that knows them all.

A daemon drives it with a kernel's sockets and clock; a simulation drives fifty of them in one process on virtual time.

A batch of datagrams comes in (`receive_datagrams`), its link opens it (`seamless.node.links`), and its packets go to
the session that they are for or at once to the next link (`seamless.node.forwarding`). What a session wants to send is
pulled (`_pull`) just as fast as its next link takes it, so that nothing waits where it cannot be reordered.

The rules:

* After every input the owner drains `next_event` and sends `datagrams_to_send`. A local address that takes nothing
  holds up its own links alone.
* What comes off the network raises nothing here. It is counted by reason in `counters`.
* A destination, a source or a neighbor that the configuration does not name does not exist.
* When the owner calls much later than the node had asked for (`SERVICE_GAP_MIN`), the process was stopped or had no
  processor. What was under way meanwhile gives no RTT sample, and the gap counts for no deadline of links and sessions.
* When a link dies, all it had not delivered goes another way at once, and sessions whose path went over it resend
  what may have died with a relay. A path that is only replaced by a better one delivers what is on it: nothing is sent
  again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence, Set
from typing import Final

import attrs

from seamless.config.model import Configuration, NodeConfig
from seamless.errors import (
    ConfigurationError,
    LocalProtocolError,
    RemoteProtocolError,
    UnreachableError,
    UsageError,
)
from seamless.interfaces import (
    Address,
    Event,
    LinkDown,
    LinkMtuChanged,
    LinkNeverUp,
    LinkUp,
    NodeEquivocated,
    PeerReachable,
    PeerUnreachable,
    StreamKey,
    Transmit,
)
from seamless.link.events import LinkChanged, PacketsReceived
from seamless.link.link import Link
from seamless.node.change import Change, changes
from seamless.node.drift import Drift
from seamless.node.forwarding import Forwarding, flow_key
from seamless.node.identity import Identity, Random
from seamless.node.links import Links
from seamless.node.measurement import Measurements
from seamless.node.plan import LinkPlan, planned_links, topology_of
from seamless.node.sessions import Sessions
from seamless.node.status import NodeCounters, NodeStatus
from seamless.routing.policies import ShortestPath, make_policy
from seamless.routing.routing import Routing
from seamless.session.events import PathStalled, PeerLost, SessionUp
from seamless.session.session import Session
from seamless.session.stream_status import StreamStatus
from seamless.wire.digest import ConfigurationDigest
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    PACKET_HEADER_BYTES,
    TAG_BYTES,
)
from seamless.wire.link_frames import DigestFrame, LsaFrame, Measure, Pause
from seamless.wire.session_frames import DATAGRAM_HEADER_BYTES
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS, TRAFFIC_CLASSES

COST_INTERVAL: Final = 5.0
"""Seconds between two looks at what links cost."""
FIRST_CAPACITY_INTERVAL: Final = 0.2
"""Seconds from a link's rise to the first look at what it carries: its round trip time is known after one."""
WHOLE_PACKET_OVERHEAD_BYTES: Final = PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES + TAG_BYTES + DATAGRAM_HEADER_BYTES
"""What carrying a whole packet adds to it, the link's own overhead left out."""
SERVICE_GAP_MIN: Final = 0.2
"""Seconds. Timers of a busy machine are late by some tens of milliseconds, which does not harm an estimate of the RTT;
what is much later would make all timers wait as long again."""
DIGESTS_KEPT: Final = 64
"""Digests that wait for the end of a batch; a peer sends five."""
BLOCKED_INTERVAL: Final = 0.01
"""Seconds between two looks at the deadlines of links whose socket is full. The socket says when it has room again."""
PULL_ROUNDS: Final = 4
"""How often one flush refills the links from the sessions, so that a late timer can make good for lost time."""


def _public_keys(configuration: Configuration) -> dict[int, bytes]:
    return {identifier: node.public_key for identifier, node in configuration.node_by_identifier.items()}


class Node:
    """One node of the overlay that a configuration describes."""

    def __init__(
        self,
        configuration: Configuration,
        name: str,
        private_key: bytes,
        *,
        random: Random,
        incarnation: int,
        now: float,
    ) -> None:
        """``incarnation``: wall-clock nanoseconds at the start of the process; ``random(n)``: n secret random bytes.

        Raise `ConfigurationError` when the key is not that of the node ``name``.
        """
        self.configuration = configuration
        self.config = configuration.nodes[name]
        self.name = name
        self.identifier = self.config.identifier
        self.counters = NodeCounters()
        self._identity = Identity(self.config, private_key, incarnation, random)
        self._nodes = configuration.node_by_identifier
        self._events: deque[Event] = deque()
        self._reachable: set[int] = set()
        self._drift = Drift(configuration, name)
        self._measurements = Measurements(random)
        self._digests: deque[tuple[str, ConfigurationDigest]] = deque(maxlen=DIGESTS_KEPT)
        self._cost_at = self._capacity_at = now + COST_INTERVAL
        self._blocked: Set[Address] = frozenset()
        """Local addresses that took nothing when `datagrams_to_send` was called last."""
        self._served_at = math.inf
        """When the owner last called; infinity before the first time."""
        self._links_changed = False
        """Whether `_watch_links` has something to find."""
        plans = planned_links(configuration, name).values()
        self._links = Links(plans, self._identity, self.counters, now)
        topology = topology_of(configuration)
        self._routing = Routing(
            local=self.identifier,
            topology=topology,
            public_keys=_public_keys(configuration),
            sign=self._identity.sign,
            incarnation=incarnation // 1_000_000,
            refresh_jitter=lambda: random(1)[0] / 256,
            now=now,
        )
        self._sessions = Sessions(configuration, name, self._identity, self._routing)
        self._forwarding = Forwarding(
            identifier=self.identifier,
            topology=topology,
            links=self._links,
            routing=self._routing,
            policy=make_policy(ShortestPath.name, self.identifier, self._routing),
            counters=self.counters,
            deliver_here=self._deliver_here,
        )

    # Another configuration.

    def apply(self, configuration: Configuration, now: float) -> Change:
        """Go on with another configuration; return what differs.

        What does not differ goes on undisturbed: a link keeps its keys, numbers, MTU and queue, a session its streams.
        Raise `ConfigurationError`, with nothing changed, for what needs a restart: another key, name or address of
        this node itself.
        """
        change = changes(self.configuration, configuration, self.name)
        if change.needs_restart:
            reasons = "; ".join(change.needs_restart)
            raise ConfigurationError(f"the running node cannot take this configuration: {reasons}")
        self._served(now)
        self._watch_links(now)
        undelivered = self._close_links(change.closed, now)
        self._end_sessions(change.removed_nodes)
        self.configuration = configuration
        self.config = configuration.nodes[self.name]
        self._nodes = configuration.node_by_identifier
        if change.changes_topology:
            topology = topology_of(configuration)
            self._routing.configure(topology, _public_keys(configuration), now)
            self._forwarding.configure(topology, now)
        self._adjust_links(change.adjusted, now)
        self._links.open(change.opened, now)
        self._sessions.configure(configuration)
        self._take_routes(now)
        self._forwarding.reroute(undelivered, now)
        if change.differences:
            self._tell_configuration(configuration, now)
        self._links_changed = True
        return change

    def _close_links(self, plans: Sequence[LinkPlan], now: float) -> list[bytes]:
        """Close links; return the packets that they had not delivered."""
        undelivered: list[bytes] = []
        reason = "the link is not in the configuration any more"
        for plan in plans:
            was_up = self._links.is_known_up(plan)
            link, packets = self._links.close(plan, reason, now)
            undelivered += packets
            self._measurements.link_closed(link, now)
            if was_up:
                self._events.append(LinkDown(link.settings.neighbor, reason))
            self._announce_neighbor(link.settings.neighbor_id, now)
        self._sessions.returned(undelivered, now)
        return undelivered

    def _end_sessions(self, removed: Sequence[NodeConfig]) -> None:
        for node in removed:
            reason = f"node {node.name} is not in the configuration any more"
            session = self._sessions.end(node.identifier, reason)
            if session is not None:
                self._take_session_events(session)
            elif node.identifier in self._reachable:
                self._events.append(PeerUnreachable(node.name, reason))
            self._reachable.discard(node.identifier)

    def _adjust_links(self, plans: Sequence[tuple[LinkPlan, LinkPlan]], now: float) -> None:
        for old, new in plans:
            self._links.adjust(old, new, now)
            neighbor = new.settings.neighbor_id
            best = self._links.best(neighbor)
            if best is None:
                continue
            if old.settings.cost != new.settings.cost:
                is_configured = best.settings.cost is not None
                self._routing.link_cost(neighbor, self._links.cost(best), now, is_configured=is_configured)
            self._routing.link_capacity(neighbor, self._links.capacity(best), now)

    def _tell_configuration(self, configuration: Configuration, now: float) -> None:
        """Send the digests of our configuration to all neighbors and peers, and compare theirs anew."""
        neighbors = {link.settings.neighbor for link in self._links}
        peers = {self._nodes[session.peer].name for session in self._sessions}
        self._drift.configure(configuration, neighbors, peers, now)
        for link in self._links:
            if link.is_up:
                self._send_digests(link)
        for session in self._sessions:
            if session.association.send_key is not None:
                session.send_digests(self._drift.for_peer())

    def _send_digests(self, link: Link) -> None:
        for digest in self._drift.for_neighbor(link.settings.neighbor):
            link.send_digest(digest)

    # In.

    def receive_datagrams(
        self,
        buffer: bytes | memoryview,
        segment_size: int,
        local: Address,
        remote: Address,
        now: float,
        received_at: float | None = None,
    ) -> None:
        """Take in one batch: datagrams of ``segment_size`` bytes each, the last perhaps shorter.

        ``received_at``: when the kernel took it in; None where that is not known.
        """
        self._served(now)
        for link in self._links.receive_datagrams(buffer, segment_size, local, remote, now, received_at):
            self._take_link_events(link, now)

    def _take_link_events(self, link: Link, now: float) -> None:
        event = link.next_event()
        while event is not None:
            if isinstance(event, PacketsReceived):
                self._forwarding.receive(event.packets, link, now)
            elif isinstance(event, LsaFrame):
                self._receive_lsa(event.data, link.settings.neighbor_id, now)
            elif isinstance(event, Pause):
                self._forwarding.pause(event, link, now)
            elif isinstance(event, Measure):
                self._measurements.receive(event, link, now)
            elif isinstance(event, DigestFrame):
                self._drift.receive(link.settings.neighbor, event.digest, now)
            else:
                assert isinstance(event, LinkChanged)
                self._links_changed = True
            event = link.next_event()

    def _receive_lsa(self, data: bytes, neighbor: int, now: float) -> None:
        try:
            self._routing.receive_lsa(data, neighbor, now)
        except RemoteProtocolError:
            self.counters.refused_lsas += 1

    def _deliver_here(self, packet_class: int, source: int, payloads: list[bytes], came_by: int, now: float) -> None:
        session = self._sessions.reach(source, now)
        if not TRAFFIC_CLASSES[packet_class].has_fragments:
            for payload in payloads:
                session.receive_handshake(payload, now, came_by)
        else:
            session.receive_fragments(payloads, now)
        self._take_session_events(session)

    # Links that come and go.

    def _watch_links(self, now: float) -> None:
        """Act on links that went up or down since the last look."""
        self._links_changed = False
        changed = self._links.changed()
        for link in changed:
            if not link.is_up:
                link.abandon()
        orphans = [packet for link in self._links for packet in link.take_orphans()]
        if orphans:
            self._sessions.returned(orphans, now)
        for link in changed:
            settings = link.settings
            if link.is_up:
                self._events.append(LinkUp(settings.neighbor, link.local, link.remote))
                self._send_digests(link)
            else:
                self._events.append(LinkDown(settings.neighbor, link.state().reason))
            self._announce_neighbor(settings.neighbor_id, now)
        if orphans:
            self._forwarding.reroute(orphans, now)
        self._watch_mtus(now)

    def _watch_mtus(self, now: float) -> None:
        """Act on links whose paths carry longer or shorter packets since the last look, or some packet not at all."""
        for link in self._links.resized():
            neighbor = link.settings.neighbor_id
            self._routing.link_mtu(neighbor, self._links.packet_bytes(neighbor), now)
        for link in self._links.found_mtus():
            settings = link.settings
            self._events.append(LinkMtuChanged(settings.neighbor, link.local, link.mtu_bytes, settings.mtu_bytes))
        for link in self._links:
            undelivered = link.take_undelivered()
            if undelivered:
                self._forwarding.reroute_around(link, undelivered, now)

    def _announce_neighbor(self, neighbor: int, now: float) -> None:
        best = self._links.best(neighbor)
        if best is None:
            self._routing.link_down(neighbor, now)
        else:
            packet_bytes, capacity = self._links.packet_bytes(neighbor), self._links.capacity(best)
            self._routing.link_up(neighbor, self._links.cost(best), packet_bytes, now, capacity)
            self._capacity_at = min(self._capacity_at, now + FIRST_CAPACITY_INTERVAL)
        self._take_routes(now)

    def _take_routes(self, now: float) -> None:
        event = self._routing.next_event()
        while event is not None:
            self._forwarding.paths_changed(now)
            for destination in event.destinations:
                if destination not in self._nodes:
                    continue
                self._sessions.path_changed(destination, now, is_severed=destination in event.severed)
                self._note_reachable(destination)
            event = self._routing.next_event()
        for origin in self._routing.take_equivocators():
            self._events.append(NodeEquivocated(self._nodes[origin].name))
        for neighbor, data in self._routing.lsas_to_flood():
            link = self._links.best(neighbor)
            if link is not None:
                link.send_lsa(data)

    def _note_reachable(self, destination: int) -> None:
        is_reachable = self._routing.own_next_hop(destination) is not None
        if is_reachable == (destination in self._reachable):
            return
        name = self._nodes[destination].name
        if is_reachable:
            self._reachable.add(destination)
            self._events.append(PeerReachable(name))
        else:
            self._reachable.discard(destination)
            self._events.append(PeerUnreachable(name, "no path to it is left"))

    def _watch_drift(self, now: float) -> None:
        """Compare the digests that peers have sent, and report the differences that are due."""
        while self._digests:
            self._drift.receive(*self._digests.popleft(), now)
        self._events.extend(self._drift.take_changes(now))

    def _watch_costs(self, now: float) -> None:
        self._cost_at = now + COST_INTERVAL
        for neighbor in self._links.neighbors:
            best = self._links.best(neighbor)
            if best is not None:
                self._routing.link_cost(neighbor, self._links.cost(best), now)
        for link in self._links:
            link.restart_minimum_rtt()
        for link in self._links.never_up():
            self._events.append(LinkNeverUp(link.settings.neighbor, link.local, link.remote))

    def _watch_capacities(self, now: float) -> None:
        """Announce what links carry."""
        self._capacity_at = now + COST_INTERVAL
        for neighbor in self._links.neighbors:
            best = self._links.best(neighbor)
            if best is not None:
                capacity = self._links.capacity(best)
                self._routing.link_capacity(neighbor, capacity, now)
                if not capacity.is_known:
                    self._capacity_at = now + FIRST_CAPACITY_INTERVAL

    # Commands.

    def peer_identifier(self, peer: str) -> int:
        """Return the identifier of the node of this name; raise `LocalProtocolError` when there is none."""
        node = self.configuration.nodes.get(peer)
        if node is None or node.name == self.name:
            raise LocalProtocolError(f"there is no other node {peer} in the configuration")
        return node.identifier

    def peer_name(self, identifier: int) -> str:
        """Return the name of the node with this identifier."""
        return self._nodes[identifier].name

    def is_reachable(self, peer: str) -> bool:
        """Return whether there is a path to the node ``peer`` now."""
        return self._routing.own_next_hop(self.peer_identifier(peer)) is not None

    def open_stream(self, peer: str, target: bytes, now: float) -> StreamKey:
        """Open a stream to ``peer``; data may follow at once. StreamAccepted or StreamReset is the answer."""
        return self._sessions.reach(self.peer_identifier(peer), now).open_stream(target, now)

    def accept_stream(self, stream: StreamKey, now: float) -> None:
        """Accept a stream of a `StreamOpened`."""
        session = self._sessions.of_stream(stream)
        if session is not None:
            session.accept_stream(stream, now)

    def send(self, stream: StreamKey, data: bytes, now: float) -> int:
        """Send ``data``; return the room left. When there is none, wait for StreamWritable."""
        session = self._sessions.of_stream(stream)
        return 0 if session is None else session.send(stream, data, now)

    def finish(self, stream: StreamKey, now: float) -> None:
        """Send FIN after all data so far; the other direction lives on."""
        session = self._sessions.of_stream(stream)
        if session is not None:
            session.finish(stream, now)

    def reset(self, stream: StreamKey, code: int, reason: str, now: float) -> None:
        """End both directions, after the bytes in flight."""
        session = self._sessions.of_stream(stream)
        if session is not None:
            session.reset(stream, code, reason, now)

    def consumed(self, stream: StreamKey, nbytes: int, now: float) -> None:
        """Give ``nbytes`` of DataReceived back: the application's kernel has them."""
        session = self._sessions.of_stream(stream)
        if session is not None:
            session.consumed(stream, nbytes, now)

    def stream_status(self, stream: StreamKey) -> StreamStatus | None:
        """Return what a stream does now, None when it is over."""
        session = self._sessions.of_stream(stream)
        return None if session is None else session.stream_status(stream)

    def send_packet(self, peer: str, packet: bytes, now: float, *, is_recovered: bool = True) -> None:
        """Send a whole packet: unordered, and recovered hop by hop or not at all."""
        self._sessions.reach(self.peer_identifier(peer), now).send_packet(packet, now, is_recovered=is_recovered)

    def whole_packet_bytes(self, peer: str) -> int | None:
        """Return the longest packet that reaches ``peer`` unfragmented; None when there is no path."""
        path_bytes = self._routing.path_mtu_bytes(self.peer_identifier(peer))
        return None if path_bytes is None else path_bytes - WHOLE_PACKET_OVERHEAD_BYTES

    def measure(self, neighbor: str, now: float) -> None:
        """Measure the link to ``neighbor``, the cheapest of several, in both directions; `MeasurementEnded` follows.

        Raise `SeamlessError` while another measurement runs, and `UnreachableError` when no such link is UP.
        """
        if all(link.settings.neighbor != neighbor for link in self._links):
            neighbors = ", ".join(sorted({link.settings.neighbor for link in self._links}))
            raise UsageError(f"node {self.name} has no link to {neighbor}: measure the link to one of {neighbors}")
        link = self._links.best(self.peer_identifier(neighbor))
        if link is None:
            raise UnreachableError(f"the link to {neighbor} is down: seamless status says why")
        self._measurements.begin(link, now)

    def stop_measuring(self, now: float) -> None:
        """End the measurement that `measure` has begun; no event follows."""
        self._measurements.cancel(now)

    @property
    def is_urgent(self) -> bool:
        """Return whether something waits for a peer that should go out at once, as a keystroke should."""
        return any(session.is_urgent for session in self._sessions)

    @property
    def streams_kept(self) -> int:
        """Return how many streams are not over: either end has still to learn something of them."""
        return sum(session.streams_kept for session in self._sessions)

    def close(self, reason: str) -> None:
        """Queue CLOSE for all neighbors; the owner sends what `datagrams_to_send` returns and stops."""
        for link in self._links:
            link.close(reason)

    # Out.

    def datagrams_to_send(self, now: float, blocked: Set[Address] = frozenset()) -> list[Transmit]:
        """Return the batches that may go out now.

        ``blocked``: local addresses that take nothing, as their sockets are full. What would go out there stays queued,
        unsealed, until a call without them; nothing else waits for it.
        """
        self._served(now)
        if self._links_changed:
            self._watch_links(now)
        if now >= self._cost_at:
            self._watch_costs(now)
        if now >= self._capacity_at:
            self._watch_capacities(now)
        if self._sessions.have_other_paths:
            self._sessions.size_windows()
        if self._digests or now >= self._drift.due_at:
            self._watch_drift(now)
        if self._measurements.is_running:
            self._measurements.watch(now)
        if self._measurements.ended:
            self._events.extend(self._measurements.take_ended())
        if self._routing.has_output:
            self._take_routes(now)
        self._blocked = blocked
        transmits = self._links.take_answers(blocked)
        for _ in range(PULL_ROUNDS):
            pulled = self._pull(now)
            before = len(transmits)
            for link in self._links:
                if not blocked or link.local not in blocked:
                    transmits += link.datagrams_to_send(now)
            if not pulled or len(transmits) == before:
                break
        return transmits

    def _pull(self, now: float) -> bool:
        """Fill the links' queues from the sessions; return whether anything came."""
        pulled = False
        for session in self._sessions:
            if not session.wants_to_send:
                continue
            links = self._forwarding.links_towards(self.identifier, session.peer, CLASS_BULK)
            if not links:
                continue
            key = flow_key(self.identifier, session.peer)
            room = min(link.room_bytes(key, CLASS_BULK) // link.packet_bytes for link in links)
            express_room = min(link.room_bytes(key, CLASS_EXPRESS) // link.packet_bytes for link in links)
            express, bulk = session.packets_to_send(max(0, room), now, max(0, express_room))
            for link in links:
                if express:
                    link.enqueue(express, CLASS_EXPRESS, key, now)
                if bulk:
                    link.enqueue(bulk, CLASS_BULK, key, now)
            pulled = pulled or bool(express or bulk)
        return pulled

    def next_timeout(self) -> float:
        """Return when `handle_timeout` wants to be called next, perhaps a time that has passed."""
        earliest = min(self._cost_at, self._capacity_at, self._drift.due_at)
        for link in self._links:
            due_at = link.next_timeout()
            if self._blocked and link.local in self._blocked:
                # What is due there cannot go: only its other deadlines count, and they may be late by this much.
                due_at = max(due_at, self._served_at + BLOCKED_INTERVAL)
            earliest = min(earliest, due_at)
        for at in (self._sessions.next_timeout(), self._routing.next_timeout(), self._measurements.next_timeout()):
            if at is not None and at < earliest:
                earliest = at
        return earliest

    def handle_timeout(self, now: float) -> None:
        """Act on whatever deadline has passed."""
        self._served(now)
        for link in self._links:
            link.handle_timeout(now)
            self._take_link_events(link, now)
        self._routing.handle_timeout(now)
        for session in self._sessions:
            session.handle_timeout(now)
            self._take_session_events(session)

    def _served(self, now: float) -> None:
        """Take note that the owner serves the node at ``now``, and of a gap if it was due much earlier."""
        if now > self._served_at + SERVICE_GAP_MIN:
            gap = now - max(self._served_at, self.next_timeout())
            if gap > SERVICE_GAP_MIN:
                self._resume(gap, now)
        self._served_at = now

    def _resume(self, gap: float, now: float) -> None:
        """Leave ``gap`` seconds until ``now``, in which the node was due and not called, out of all deadlines."""
        self.counters.service_gaps += 1
        for link in self._links:
            link.resumed(now)
        self._sessions.resumed(gap)

    def _take_session_events(self, session: Session) -> None:
        event = session.next_event()
        while event is not None:
            if isinstance(event, PeerLost):
                self._events.append(PeerUnreachable(self._nodes[session.peer].name, event.reason))
            elif isinstance(event, PathStalled):
                self._routing.avoid_path(session.peer, event.at)
            elif isinstance(event, SessionUp):
                session.send_digests(self._drift.for_peer())
            elif isinstance(event, ConfigurationDigest):
                self._digests.append((self._nodes[session.peer].name, event))
            else:
                self._events.append(event)
            event = session.next_event()

    def next_event(self) -> Event | None:
        """Return what happened, oldest first."""
        if not self._events:
            for session in self._sessions:
                self._take_session_events(session)
        return self._events.popleft() if self._events else None

    def status(self, now: float) -> NodeStatus:
        """Return a snapshot of links, sessions, routing and counters."""
        return NodeStatus(
            name=self.name,
            links=tuple(link.status() for link in self._links),
            sessions={self._nodes[each.peer].name: each.status(now) for each in self._sessions},
            routing=self._routing.status(),
            counters=attrs.evolve(self.counters),
            gate=self._links.gate_counters(),
            differences=self._drift.differences(),
        )
