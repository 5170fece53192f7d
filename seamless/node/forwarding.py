"""A packet's way through a node: to the session that it is for, or at once to the next link.

Relays look at ten bytes and forward in whatever order packets come. A run of packets with the same header is handled
as one. What comes from or goes to a node that our configuration does not have is dropped, and routing announces that we
carry nothing for that node, so that its packets go another way. Where a session's packets pile up, the neighbor that
sends them is asked to pause that session for as long as the excess takes to drain (`seamless.link.queue` says why that
suffices).

A packet may go back to the neighbor that it came from: that neighbor does not know yet that the way is gone. But two
nodes that disagree for longer must not send it to and fro until its hop limit is used up. So a relay that turns packets
back leaves them no more hops than its own path needs, and `TURNED_BACK_HOPS`.

From a link only packets of sources are taken whose path may lead over it (`seamless.routing.sources`), so that a leaf
speaks for itself alone, and a relay for those behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from seamless.link.link import Link
from seamless.node.links import Links
from seamless.node.status import NodeCounters
from seamless.routing.lsdb import Topology
from seamless.routing.policies import RoutePolicy
from seamless.routing.routing import Routing
from seamless.routing.sources import feasible_sources
from seamless.wire.header import (
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
)
from seamless.wire.link_frames import Pause
from seamless.wire.traffic_class import TRAFFIC_CLASSES

RETURN_INTERVAL: Final = 1.0
"""Seconds after a change of paths for which a relay may hand back what it was sent: a link behind it has died, and the
other way leads back over us, which is no path of the source's."""

RECONFIGURE_INTERVAL: Final = 60.0
"""Seconds from a change of the configuration here within which the others should have it, too."""

TURNED_BACK_HOPS: Final = 1
"""Hops more than the path of the relay that turns a packet back: the others may know a shorter one, not a longer."""

DeliverHere: TypeAlias = Callable[[int, int, list[bytes], int, float], None]
"""Called with (class, source, payloads without the packet header, the neighbor that sent them, now)."""


def flow_key(source: int, destination: int) -> bytes:
    """Return how queues name a session: the two identifiers as they stand in a packet (`PACKET_ENDS`)."""
    return source.to_bytes(4, "big") + destination.to_bytes(4, "big")


class Forwarding:
    """Hands packets on for the node ``identifier`` in the network that the configuration describes."""

    def __init__(
        self,
        *,
        identifier: int,
        topology: Topology,
        links: Links,
        routing: Routing,
        policy: RoutePolicy,
        counters: NodeCounters,
        deliver_here: DeliverHere,
    ) -> None:
        self._identifier = identifier
        self._sources: dict[int, frozenset[int]] = {}
        self._former_sources: dict[int, frozenset[int]] = {}
        self._former_sources_until = 0.0
        self._pause_again_at: dict[tuple[int, int, int], float] = {}
        self._set_topology(topology)
        self._returns_until = 0.0
        self._links = links
        self._routing = routing
        self._policy = policy
        self._counters = counters
        self._deliver_here = deliver_here

    def _set_topology(self, topology: Topology) -> None:
        self._is_leaf = self._identifier in topology.leaves
        self._nodes = topology.nodes
        self._leaves = topology.leaves
        self._sources = feasible_sources(topology, self._identifier)

    def configure(self, topology: Topology, now: float) -> None:
        """Go on in another topology. Sources that were feasible before are for `RECONFIGURE_INTERVAL` more."""
        self._former_sources, self._former_sources_until = self._sources, now + RECONFIGURE_INTERVAL
        self._set_topology(topology)
        self._pause_again_at = {
            key: at for key, at in self._pause_again_at.items() if at > now and {key[1], key[2]} <= self._nodes
        }

    def links_towards(self, source: int, destination: int, packet_class: int) -> list[Link]:
        """Return the links that packets with this header go out by, a copy by each; none when there is no path."""
        best = self._links.best
        hops = self._policy.next_hops(source, destination, packet_class)
        return [link for link in map(best, hops) if link is not None]

    def receive(self, packets: list[bytes], link: Link, now: float) -> None:
        """Hand on packets that ``link`` has opened, run by run."""
        head = packets[0][:PACKET_HEADER_BYTES]
        run: list[bytes] = []
        for packet in packets:
            if packet[:PACKET_HEADER_BYTES] != head:
                self._receive_run(head, run, link, now)
                head = packet[:PACKET_HEADER_BYTES]
                run = []
            run.append(packet)
        self._receive_run(head, run, link, now)

    def _receive_run(self, head: bytes, packets: list[bytes], link: Link, now: float) -> None:
        counters = self._counters
        if len(head) < PACKET_HEADER_BYTES:
            counters.malformed_packets += len(packets)
            return
        packet_class, hop_limit, source, destination = PACKET_HEADER.unpack(head)
        neighbor = link.settings.neighbor_id
        if source not in self._nodes:
            counters.foreign_packets += len(packets)
            self._routing.note_unknown(source, now)
        elif source == self._identifier or packet_class >= len(TRAFFIC_CLASSES):
            counters.foreign_packets += len(packets)
        elif source not in self._sources[neighbor] and not self._is_excused(source, neighbor, now):
            counters.source_refused += len(packets)
        elif destination == self._identifier:
            counters.delivered += len(packets)
            payloads = [packet[PACKET_HEADER_BYTES:] for packet in packets]
            self._deliver_here(packet_class, source, payloads, neighbor, now)
        elif destination not in self._nodes:
            counters.foreign_packets += len(packets)
            self._routing.note_unknown(destination, now)
        elif self._is_leaf:
            counters.transit_refused += len(packets)
        elif hop_limit <= 1:
            counters.hop_limit += len(packets)
        else:
            counters.forwarded += len(packets)
            path = self._routing.transit_path(destination)
            if path and path[1] == link.settings.neighbor_id:
                counters.turned_back += len(packets)
                hop_limit = min(hop_limit, len(path) + TURNED_BACK_HOPS)
            head = PACKET_HEADER.pack(packet_class, hop_limit - 1, source, destination)
            packets = [head + packet[PACKET_HEADER_BYTES:] for packet in packets]
            self._forward(packet_class, source, destination, packets, link, now)

    def _is_excused(self, source: int, neighbor: int, now: float) -> bool:
        """Return whether ``neighbor`` may send packets of a source that is not behind it: it hands back what we sent,
        or does not have our new configuration yet."""
        if now < self._returns_until and neighbor not in self._leaves:
            return True
        return now < self._former_sources_until and source in self._former_sources.get(neighbor, ())

    def paths_changed(self, now: float) -> None:
        """Accept packets that neighbors hand back for `RETURN_INTERVAL`: routing has found other paths."""
        self._returns_until = now + RETURN_INTERVAL

    def _forward(
        self, packet_class: int, source: int, destination: int, packets: list[bytes], came_by: Link | None, now: float
    ) -> None:
        links = self.links_towards(source, destination, packet_class)
        if not links:
            self._counters.no_route += len(packets)
            return
        key = flow_key(source, destination)
        for onward in links:
            pause = onward.enqueue(packets, packet_class, key, now).pause
            if came_by is not None and pause > 0:
                paused_class = TRAFFIC_CLASSES[packet_class].queue
                self._push_back(paused_class, source, destination, pause, came_by, now)

    def _push_back(
        self, packet_class: int, source: int, destination: int, seconds: float, came_by: Link, now: float
    ) -> None:
        """Ask the upstream neighbor to pause a class of a session; not again before it can have shown an effect."""
        paused = packet_class, source, destination
        if now >= self._pause_again_at.get(paused, 0.0):
            self._pause_again_at[paused] = now + came_by.state().rtt + seconds
            came_by.send_pause(source, destination, seconds, packet_class)

    def pause(self, frame: Pause, link: Link, now: float) -> None:
        """Do as the neighbor at the far end of ``link`` asks."""
        if frame.source in self._nodes and frame.destination in self._nodes:
            flow = flow_key(frame.source, frame.destination)
            link.pause(flow, frame.packet_class, now + frame.microseconds / 1e6)

    def reroute(self, packets: list[bytes], now: float) -> None:
        """Send another way what a dead link had not delivered."""
        for packet in packets:
            packet_class, _, source, destination = PACKET_HEADER.unpack_from(packet)
            self._counters.rerouted += 1
            self._forward(packet_class, source, destination, [packet], None, now)

    def reroute_around(self, link: Link, packets: list[bytes], now: float) -> None:
        """Send by another link or neighbor what ``link`` has lost too often, though its neighbor is heard."""
        for packet in packets:
            packet_class, _, source, destination = PACKET_HEADER.unpack_from(packet)
            links = self._links_around(link, source, destination, packet_class)
            if not links:
                self._counters.undeliverable += 1
                continue
            self._counters.rerouted += 1
            for onward in links:
                onward.enqueue([packet], packet_class, flow_key(source, destination), now)

    def _links_around(self, link: Link, source: int, destination: int, packet_class: int) -> list[Link]:
        """Return another link to the neighbor of ``link``, or the links to others that the policy names."""
        best, neighbor = self._links.best, link.settings.neighbor_id
        other = best(neighbor, besides=link)
        if other is not None:
            return [other]
        hops = self._policy.next_hops_around(neighbor, source, destination, packet_class)
        return [link for link in map(best, hops) if link is not None]
