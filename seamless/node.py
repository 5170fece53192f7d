"""The whole node, still pure: links below, sessions above, routing beside, and a packet's way between them.

This is the core that a daemon drives with a kernel's sockets and clock, and a simulation drives by the fifty in one
process on virtual time. It owns every other core of the node and is the only one that knows them all.

The way of a packet, read downwards: a batch of datagrams comes in (`receive_datagrams`), its link opens it, and
`_deliver` hands each run of packets with the same header on: to the session it is for, or at once, in whatever order,
to the queue of the next link. What a session wants to send is pulled (`_pull`) just as fast as its next link takes it,
so that nothing waits where it cannot be reordered.

The rules:

* After every input the owner drains `next_event` and sends `datagrams_to_send`.
* What comes off the network raises nothing here. It is counted by reason in `counters`.
* A destination, a source or a neighbor that the configuration does not name does not exist.
* When a link dies, all it had not delivered goes another way at once, and sessions whose path went over it resend
  what may have died with a relay.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from seamless.config.model import Configuration, LinkConfig, NodeConfig
from seamless.crypto.association import Association
from seamless.crypto.gate import Admitted, Answer, HandshakeGate
from seamless.crypto.messages import LINK_PROLOGUE, SESSION_PROLOGUE
from seamless.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError
from seamless.interfaces import (
    Address,
    Event,
    LinkDown,
    LinkUp,
    PeerReachable,
    PeerUnreachable,
    StreamKey,
    Transmit,
)
from seamless.link.congestion import make_controller
from seamless.link.link import Link
from seamless.link.status import LinkSettings, LinkStatus
from seamless.routing.lsdb import Topology
from seamless.routing.routing import Routing, RoutingStatus
from seamless.session.events import PeerLost, SessionStatus, SessionUp
from seamless.session.limits import Limits
from seamless.session.session import Session
from seamless.wire.header import (
    CLASS_BULK,
    CLASS_HANDSHAKE,
    CONTROL,
    COOKIE,
    DATA,
    INDEX_BITS,
    INDEX_MASK,
    INITIATION,
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
    RESPONSE,
    TAG_BYTES,
)
from seamless.wire.link_frames import LinkFrame, LsaFrame, Pause

LSA_KEY_LABEL: Final = b"seamless lsa"
COST_INTERVAL: Final = 5.0
"""Seconds between two looks at what links cost."""
COST_UNIT: Final = 1e-4
"""Seconds of one-way latency that cost one unit."""
UNKNOWN_COST: Final = 500
"""Cost of a link without an RTT sample: 50 ms one way."""
PULL_ROUNDS: Final = 4
"""How often one flush refills the links from the sessions, so that a late timer can make good for lost time."""
SHORTEST_DATAGRAM: Final = 4 + 8 + TAG_BYTES

Random = Callable[[int], bytes]


@attrs.define
class NodeCounters:
    """Datagrams and packets that went nowhere, by reason."""

    short_datagrams: int = 0
    unknown_type: int = 0
    unknown_index: int = 0
    refused_handshakes: int = 0
    misplaced_handshakes: int = 0
    malformed_packets: int = 0
    foreign_packets: int = 0
    transit_refused: int = 0
    hop_limit: int = 0
    no_route: int = 0
    too_big: int = 0
    rerouted: int = 0
    forwarded: int = 0
    delivered: int = 0
    refused_lsas: int = 0
    refused_session_packets: int = 0


@attrs.frozen
class NodeStatus:
    """A snapshot for people."""

    name: str
    links: tuple[LinkStatus, ...]
    sessions: tuple[SessionStatus, ...]
    routing: RoutingStatus
    counters: NodeCounters
    gate: dict[str, int]


def lsa_key(private: X25519PrivateKey, public_key: bytes) -> bytes:
    """Return the key under which two nodes authenticate LSAs to each other."""
    agreed = private.exchange(X25519PublicKey.from_public_bytes(public_key))
    return hashlib.blake2s(LSA_KEY_LABEL + agreed).digest()


def topology_of(configuration: Configuration) -> Topology:
    """Return which nodes and links the configuration allows, as routing wants to know it."""
    identifier = {name: node.identifier for name, node in configuration.nodes.items()}
    return Topology(
        nodes=frozenset(identifier.values()),
        links=frozenset(frozenset(identifier[end] for end in link.ends) for link in configuration.links),
        leaves=frozenset(node.identifier for node in configuration.nodes.values() if node.leaf),
    )


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
        self._private_key = private_key
        self._random = random
        self._incarnation = self._counter = incarnation
        private = X25519PrivateKey.from_private_bytes(private_key)
        self._public_key = private.public_key().public_bytes_raw()
        if self._public_key != self.config.public_key:
            raise ConfigurationError(
                f"the key does not belong to node {name}: its public key is not the one that the configuration has;"
                f" start with the key of {name}, or put what 'seamless pubkey' prints for this one into its block"
            )
        self._nodes = configuration.node_by_identifier
        self._gate = HandshakeGate(
            private_key=private_key,
            public_key=self._public_key,
            known_keys=[
                configuration.nodes[end].public_key
                for link in configuration.links
                if name in link.ends
                for end in link.ends
                if end != name
            ],
            random=random,
            now=now,
        )
        self._events: deque[Event] = deque()
        self._answers: list[Transmit] = []
        self._links: list[Link] = []
        self._links_by_index: dict[int, Link] = {}
        self._links_by_key: dict[bytes, list[Link]] = {}
        self._links_to: dict[int, list[Link]] = {}
        self._up: set[int] = set()
        self._pause_again_at: dict[bytes, float] = {}
        self._sessions: dict[int, Session] = {}
        self._reachable: set[int] = set()
        self._cost_at = now + COST_INTERVAL
        self._routing = Routing(
            local=self.identifier,
            topology=topology_of(configuration),
            pairwise_keys={identifier: lsa_key(private, node.public_key) for identifier, node in self._nodes.items()},
            incarnation=incarnation // 1_000_000,
            refresh_jitter=lambda: random(1)[0] / 256,
            now=now,
        )
        for link in configuration.links:
            if name in link.ends:
                self._add_link(link, now)

    # Building.

    def _add_link(self, config: LinkConfig, now: float) -> None:
        own_end = config.ends.index(self.name)
        neighbor = self.configuration.nodes[config.ends[1 - own_end]]
        for path in config.paths:
            settings = LinkSettings(
                neighbor=neighbor.name,
                neighbor_id=neighbor.identifier,
                local=path[own_end],
                remote=path[1 - own_end],
                mtu_bytes=config.mtu_bytes,
                hello_interval=self.configuration.overlay.hello_interval,
                dead_interval=self.configuration.overlay.dead_interval,
                dials=config.passive != self.name,
                neighbor_dials=config.passive != neighbor.name,
                cost=config.cost,
            )
            self._open_link(settings, config, neighbor, now)

    def _open_link(self, settings: LinkSettings, config: LinkConfig, neighbor: NodeConfig, now: float) -> None:
        def allocate_index() -> int:
            index = self._free_index()
            self._links_by_index[index] = link
            return index

        association = self._associate(neighbor, LINK_PROLOGUE, allocate_index, self._release_index)
        controller = make_controller(config.congestion, config.rate_bps, settings.mtu_bytes, now)
        link = Link(settings, association, controller, now)
        self._links.append(link)
        self._links_by_key.setdefault(neighbor.public_key, []).append(link)
        self._links_to.setdefault(neighbor.identifier, []).append(link)

    def _associate(
        self,
        remote: NodeConfig,
        prologue: bytes,
        allocate_index: Callable[[], int],
        release_index: Callable[[int], None],
    ) -> Association:
        return Association(
            private_key=self._private_key,
            public_key=self._public_key,
            remote_public_key=remote.public_key,
            prologue=prologue,
            incarnation=self._incarnation,
            allocate_index=allocate_index,
            release_index=release_index,
            random=self._random,
            next_counter=self._next_counter,
        )

    def _next_counter(self) -> int:
        """Return a number greater than all before, of this process and of those before it."""
        self._counter += 1
        return self._counter

    def _free_index(self) -> int:
        while True:
            index = int.from_bytes(self._random(4), "big") & INDEX_MASK
            if index and index not in self._links_by_index:
                return index

    def _release_index(self, index: int) -> None:
        self._links_by_index.pop(index, None)

    def _session(self, peer: int, now: float) -> Session:
        session = self._sessions.get(peer)
        if session is None:
            association = self._associate(
                self._nodes[peer],
                SESSION_PROLOGUE,
                lambda: int.from_bytes(self._random(3), "big"),
                lambda index: None,
            )
            limits = Limits(give_up=self.configuration.overlay.give_up)
            session = Session(
                local=self.identifier,
                peer=peer,
                private_key=self._private_key,
                association=association,
                now=now,
                limits=limits,
            )
            self._sessions[peer] = session
            session.path_changed(self._routing.path_mtu_bytes(peer), now)
        return session

    # Datagrams in.

    def receive_datagrams(
        self, buffer: bytes | memoryview, segment_size: int, local: Address, remote: Address, now: float
    ) -> None:
        """Take in one batch: datagrams of ``segment_size`` bytes each, the last perhaps shorter."""
        view = memoryview(buffer)
        total = len(view)
        if not 0 < segment_size <= total:
            segment_size = max(total, 1)
        offset = 0
        while offset < total:
            end = self._run_end(view, offset, segment_size)
            run = view[offset:end]
            offset = end
            if len(run) < SHORTEST_DATAGRAM:
                self.counters.short_datagrams += 1
            else:
                self._receive_run(run, segment_size, local, remote, now)

    @staticmethod
    def _run_end(view: memoryview, offset: int, segment_size: int) -> int:
        """Return the end of the run of datagrams that begin with the same word as the one at ``offset``."""
        first = bytes(view[offset : offset + 4])
        total = len(view)
        offset += segment_size
        while offset < total and view[offset : offset + 4] == first:
            offset += segment_size
        return min(offset, total)

    def _receive_run(self, run: memoryview, segment_size: int, local: Address, remote: Address, now: float) -> None:
        first = int.from_bytes(run[:4], "big")
        datagram_type = first >> INDEX_BITS
        if datagram_type in (DATA, CONTROL):
            link = self._links_by_index.get(first & INDEX_MASK)
            key = link.association.receive_key(first & INDEX_MASK) if link is not None else None
            if link is None or key is None:
                self.counters.unknown_index += 1
                return
            packets, frames = link.receive_sealed(key, run, segment_size, remote, now)
            if packets:
                self._receive_packets(packets, link, now)
            for frame in frames:
                self._receive_frame(frame, link, now)
            return
        for offset in range(0, len(run), segment_size):
            datagram = bytes(run[offset : offset + segment_size])
            try:
                self._receive_handshake(datagram_type, datagram, local, remote, now)
            except RemoteProtocolError:
                self.counters.refused_handshakes += 1

    def _receive_handshake(
        self, datagram_type: int, datagram: bytes, local: Address, remote: Address, now: float
    ) -> None:
        if datagram_type == INITIATION:
            self._receive_initiation(datagram, local, remote, now)
        elif datagram_type in (RESPONSE, COOKIE):
            link = self._links_by_index.get(int.from_bytes(datagram[1:4], "big"))
            if link is None:
                self.counters.unknown_index += 1
            elif datagram_type == RESPONSE:
                link.receive_response(datagram, now)
            else:
                link.receive_cookie(datagram, now)
        else:
            self.counters.unknown_type += 1

    def _receive_initiation(self, datagram: bytes, local: Address, remote: Address, now: float) -> None:
        verdict = self._gate.admit(datagram, remote, now)
        if isinstance(verdict, Answer):
            self._answers.append(Transmit(local, remote, [verdict.datagram], len(verdict.datagram), 1))
        if not isinstance(verdict, Admitted):
            return
        opened = self._gate.open_initiation(datagram)
        link = self._link_for(opened.remote_public_key, local, remote)
        if link is None:
            # A neighbor of ours, but it knocks where no link with it is configured.
            self.counters.misplaced_handshakes += 1
            return
        link.receive_initiation(opened, remote, now)

    def _link_for(self, public_key: bytes, local: Address, remote: Address) -> Link | None:
        """Return the link that an authenticated INITIATION is for: of several to one neighbor, that of its address."""
        links = [link for link in self._links_by_key.get(public_key, ()) if link.local == local]
        for link in links:
            if link.remote == remote:
                return link
        return links[0] if links else None

    def _receive_frame(self, frame: LinkFrame, link: Link, now: float) -> None:
        if isinstance(frame, LsaFrame):
            try:
                self._routing.receive_lsa(frame.data, link.settings.neighbor_id, now)
            except RemoteProtocolError:
                self.counters.refused_lsas += 1
        elif isinstance(frame, Pause) and frame.source in self._nodes and frame.destination in self._nodes:
            key = frame.source.to_bytes(4, "big") + frame.destination.to_bytes(4, "big")
            link.queue.pause(key, now + frame.microseconds / 1e6)

    # Packets on their way.

    def _receive_packets(self, packets: list[bytes], link: Link, now: float) -> None:
        """Hand on each run of packets with the same header."""
        head = packets[0][:PACKET_HEADER_BYTES]
        run: list[bytes] = []
        for packet in packets:
            if packet[:PACKET_HEADER_BYTES] != head:
                self._deliver(head, run, link, now)
                head = packet[:PACKET_HEADER_BYTES]
                run = []
            run.append(packet)
        self._deliver(head, run, link, now)

    def _deliver(self, head: bytes, packets: list[bytes], link: Link, now: float) -> None:
        if len(head) < PACKET_HEADER_BYTES:
            self.counters.malformed_packets += len(packets)
            return
        packet_class, hop_limit, source, destination = PACKET_HEADER.unpack(head)
        if source not in self._nodes or source == self.identifier or packet_class > CLASS_HANDSHAKE:
            self.counters.foreign_packets += len(packets)
        elif destination == self.identifier:
            self.counters.delivered += len(packets)
            self._deliver_here(packet_class, source, packets, now)
        elif destination not in self._nodes:
            self.counters.foreign_packets += len(packets)
        elif self.config.leaf:
            self.counters.transit_refused += len(packets)
        elif hop_limit <= 1:
            self.counters.hop_limit += len(packets)
        else:
            head = PACKET_HEADER.pack(packet_class, hop_limit - 1, source, destination)
            packets = [head + packet[PACKET_HEADER_BYTES:] for packet in packets]
            self.counters.forwarded += len(packets)
            self._forward(packet_class, source, destination, packets, link, now)

    def _deliver_here(self, packet_class: int, source: int, packets: list[bytes], now: float) -> None:
        session = self._session(source, now)
        payloads = [packet[PACKET_HEADER_BYTES:] for packet in packets]
        try:
            if packet_class == CLASS_HANDSHAKE:
                for payload in payloads:
                    session.receive_handshake(payload, now)
            else:
                session.receive_fragments(payloads, now)
        except RemoteProtocolError:
            self.counters.refused_session_packets += 1
        self._take_session_events(session)

    def _forward(
        self, packet_class: int, source: int, destination: int, packets: list[bytes], came_by: Link | None, now: float
    ) -> None:
        onward = self._link_towards(destination)
        if onward is None:
            self.counters.no_route += len(packets)
            return
        if came_by is None or onward.packet_bytes < came_by.packet_bytes:
            fitting = [packet for packet in packets if len(packet) <= onward.packet_bytes]
            self.counters.too_big += len(packets) - len(fitting)
            packets = fitting
        if packet_class != CLASS_BULK:
            onward.queue.put_express(packets)
            return
        key = packets[0][2:PACKET_HEADER_BYTES] if packets else b""
        if not key:
            return
        waiting = onward.queue.put_bulk(key, packets)
        if came_by is not None and waiting > onward.target_bytes:
            self._push_back(key, source, destination, onward.excess_pause(waiting), came_by, now)

    def _push_back(self, key: bytes, source: int, destination: int, seconds: float, came_by: Link, now: float) -> None:
        """Ask the upstream neighbor to pause a session; not again before it can have shown an effect."""
        if seconds > 0 and now >= self._pause_again_at.get(key, 0.0):
            self._pause_again_at[key] = now + came_by.recovery.rtt.smoothed + seconds
            came_by.send_pause(source, destination, seconds)

    def _link_towards(self, destination: int) -> Link | None:
        neighbor = self._routing.next_hop(destination)
        return None if neighbor is None else self._best_link(neighbor)

    def _best_link(self, neighbor: int) -> Link | None:
        up = [link for link in self._links_to.get(neighbor, ()) if link.is_up]
        return min(up, key=self._cost) if len(up) > 1 else (up[0] if up else None)

    @staticmethod
    def _cost(link: Link) -> int:
        if link.settings.cost is not None:
            return link.settings.cost
        if not link.recovery.rtt.has_sample:
            return UNKNOWN_COST
        # A lost packet is late by a round trip: what loss costs is latency.
        one_way = link.recovery.rtt.minimum * (0.5 + link.loss_rate)
        return 1 + int(one_way / COST_UNIT)

    # Links that come and go.

    def _watch_links(self, now: float) -> None:
        """Act on links that went up or down since the last look."""
        for number, link in enumerate(self._links):
            if link.is_up != (number in self._up):
                if link.is_up:
                    self._up.add(number)
                    self._events.append(LinkUp(link.settings.neighbor, link.local, link.remote))
                else:
                    self._up.discard(number)
                    link.abandon()
                    self._events.append(LinkDown(link.settings.neighbor, link.adjacency.reason))
                self._announce_neighbor(link.settings.neighbor_id, now)
        for link in self._links:
            orphans = link.take_orphans()
            if orphans:
                self._reroute(orphans, now)

    def _announce_neighbor(self, neighbor: int, now: float) -> None:
        best = self._best_link(neighbor)
        if best is None:
            self._routing.link_down(neighbor, now)
        else:
            self._routing.link_up(neighbor, self._cost(best), best.packet_bytes, now)
        self._take_routes(now)

    def _take_routes(self, now: float) -> None:
        event = self._routing.next_event()
        while event is not None:
            for destination in event.destinations:
                session = self._sessions.get(destination)
                if session is not None:
                    session.path_changed(self._routing.path_mtu_bytes(destination), now)
                self._note_reachable(destination)
            event = self._routing.next_event()
        for neighbor, data in self._routing.lsas_to_flood():
            link = self._best_link(neighbor)
            if link is not None:
                link.send_lsa(data)

    def _note_reachable(self, destination: int) -> None:
        is_reachable = self._routing.next_hop(destination) is not None
        if is_reachable == (destination in self._reachable):
            return
        name = self._nodes[destination].name
        if is_reachable:
            self._reachable.add(destination)
            self._events.append(PeerReachable(name))
        else:
            self._reachable.discard(destination)
            self._events.append(PeerUnreachable(name, "no path to it is left"))

    def _reroute(self, packets: list[bytes], now: float) -> None:
        """Send another way what a dead link had not delivered."""
        for packet in packets:
            packet_class, _, source, destination = PACKET_HEADER.unpack_from(packet)
            self.counters.rerouted += 1
            self._forward(packet_class, source, destination, [packet], None, now)

    def _watch_costs(self, now: float) -> None:
        if now < self._cost_at:
            return
        self._cost_at = now + COST_INTERVAL
        for neighbor in self._links_to:
            best = self._best_link(neighbor)
            if best is not None:
                self._routing.link_cost(neighbor, self._cost(best), now)
        for link in self._links:
            link.recovery.rtt.take_recent_minimum()
        self._take_routes(now)

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
        """Tell whether there is a path to the node ``peer`` now."""
        return self._routing.next_hop(self.peer_identifier(peer)) is not None

    def open_stream(self, peer: str, target: bytes, now: float) -> StreamKey:
        """Open a stream to ``peer``; data may follow at once. StreamAccepted or StreamReset tells how it went."""
        return self._session(self.peer_identifier(peer), now).open_stream(target, now)

    def accept_stream(self, stream: StreamKey, now: float) -> None:
        """Accept a stream that `StreamOpened` told of."""
        self._sessions[stream[0]].accept_stream(stream, now)

    def send(self, stream: StreamKey, data: bytes, now: float) -> int:
        """Send ``data``; return the room left. When there is none, wait for StreamWritable."""
        return self._sessions[stream[0]].send(stream, data, now)

    def finish(self, stream: StreamKey, now: float) -> None:
        """Send FIN after all data so far; the other direction lives on."""
        self._sessions[stream[0]].finish(stream, now)

    def reset(self, stream: StreamKey, code: int, reason: str, now: float) -> None:
        """End both directions, after the bytes in flight."""
        self._sessions[stream[0]].reset(stream, code, reason, now)

    def consumed(self, stream: StreamKey, nbytes: int, now: float) -> None:
        """Give ``nbytes`` of DataReceived back: the application's kernel has them."""
        self._sessions[stream[0]].consumed(stream, nbytes, now)

    def send_packet(self, peer: str, packet: bytes, now: float) -> None:
        """Send a whole packet: hop by hop recovered, unordered."""
        self._session(self.peer_identifier(peer), now).send_packet(packet, now)

    def close(self, reason: str) -> None:
        """Say goodbye to all neighbors; the owner sends what `datagrams_to_send` returns and stops."""
        for link in self._links:
            link.close(reason)

    # Out.

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """Return the batches that may go out now."""
        self._watch_links(now)
        self._watch_costs(now)
        self._take_routes(now)
        transmits, self._answers = self._answers, []
        for _ in range(PULL_ROUNDS):
            pulled = self._pull(now)
            before = len(transmits)
            for link in self._links:
                transmits += link.datagrams_to_send(now)
            if not pulled or len(transmits) == before:
                break
        return transmits

    def _pull(self, now: float) -> bool:
        """Fill the links' queues from the sessions; tell whether anything came."""
        pulled = False
        for session in self._sessions.values():
            if not session.wants_to_send:
                continue
            link = self._link_towards(session.peer)
            if link is None:
                continue
            key = self.identifier.to_bytes(4, "big") + session.peer.to_bytes(4, "big")
            room = (link.target_bytes - link.queue.flow_bytes(key)) // link.packet_bytes
            express, bulk = session.packets_to_send(max(0, room), now)
            if express:
                link.queue.put_express(express)
            if bulk:
                link.queue.put_bulk(key, bulk)
            pulled = pulled or bool(express or bulk)
        return pulled

    def next_timeout(self, now: float) -> float | None:
        """Return when `handle_timeout` wants to be called next."""
        candidates = [link.next_timeout(now) for link in self._links]
        candidates += [session.next_timeout() for session in self._sessions.values()]
        candidates.append(self._routing.next_timeout())
        candidates.append(self._cost_at)
        return min((at for at in candidates if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Act on whatever deadline has passed."""
        for link in self._links:
            link.handle_timeout(now)
        self._routing.handle_timeout(now)
        for session in self._sessions.values():
            session.handle_timeout(now)
            self._take_session_events(session)

    def _take_session_events(self, session: Session) -> None:
        event = session.next_event()
        while event is not None:
            if isinstance(event, PeerLost):
                self._events.append(PeerUnreachable(self._nodes[session.peer].name, event.reason))
            elif not isinstance(event, SessionUp):
                self._events.append(event)
            event = session.next_event()

    def next_event(self) -> Event | None:
        """Return what happened, oldest first."""
        if not self._events:
            for session in self._sessions.values():
                self._take_session_events(session)
        return self._events.popleft() if self._events else None

    def status(self, now: float) -> NodeStatus:
        """Return a snapshot for people."""
        gate = self._gate
        return NodeStatus(
            name=self.name,
            links=tuple(link.status() for link in self._links),
            sessions=tuple(session.status(now) for session in self._sessions.values()),
            routing=self._routing.status(),
            counters=attrs.evolve(self.counters),
            gate={
                "admitted": gate.admitted,
                "answered": gate.answered,
                **{reason.name.lower(): count for reason, count in gate.dropped.items()},
            },
        )
