"""Which whole packets may go from one node to another: the sets that both ends' firewall rules and checks come from.

Interceptors of whole packets need both directions. A node that captures what is on its way to a server needs the
server's node to capture the answers, and neither may release anything else. So there is one function, `crossings`: what
may go from one node to another. Its answer for (this node, peer) is what this node's rules divert; its answer for
(peer, this node) is what this node releases. So an overlay of this configuration carries no packet that its egress
would refuse, and an egress releases no packet that an honest ingress would not have sent.

A packet crosses from ``sender`` to ``receiver``

* when an interceptor on the sender captures it: its destination and destination port are those of a rule; or
* when it answers such a packet: an interceptor on the *receiver* captures the opposite direction;

and always only from what the sender serves to what the receiver serves.

Each combination of interceptor, peer, and TCP or not has its packet queue, so the number of the queue says all that the
daemon has to know of a packet. A queue for whose peer there is no path is not bound, and the kernel lets its packets
pass. Pure: no input and no output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias, Union

import attrs

from seamless.config.model import Configuration, InterceptConfig, Network, PortRange, Protocol, overlap
from seamless.linux.ip_packet import TCP, UDP, Header

IPAddress: TypeAlias = Union[IPv4Address, IPv6Address]

FIRST_QUEUE: Final = 7400
"""Number of the first packet queue: others who use queues count from 0."""

_NUMBERS: Final = {"tcp": TCP, "udp": UDP}


@attrs.frozen
class Crossing:
    """A set of packets that may go from one node to another: protocol, networks and port ranges.

    Ports None: every port, and protocols without ports.
    """

    intercept: InterceptConfig
    protocol: Protocol
    source: tuple[Network, ...]
    destination: tuple[Network, ...]
    source_ports: tuple[PortRange, ...] | None
    destination_ports: tuple[PortRange, ...] | None

    def has_source(self, address: IPAddress) -> bool:
        """Return whether packets from this address cross."""
        return any(address in network for network in self.source)

    def has_destination(self, address: IPAddress) -> bool:
        """Return whether packets to this address cross."""
        return any(address in network for network in self.destination)

    def has_ports(self, header: Header) -> bool:
        """Return whether packets of this protocol and these ports cross; a later fragment has no ports, so no match."""
        if self.protocol != "ip" and header.protocol != _NUMBERS[self.protocol]:
            return False
        if self.source_ports is None and self.destination_ports is None:
            return True
        return (
            header.offset == 0
            and _among(header.source_port, self.source_ports)
            and _among(header.destination_port, self.destination_ports)
        )


def _among(port: int, ranges: tuple[PortRange, ...] | None) -> bool:
    return ranges is None or any(first <= port <= last for first, last in ranges)


def crossings(configuration: Configuration, sender: str, receiver: str) -> tuple[Crossing, ...]:
    """Return the sets of packets that may go from ``sender`` to ``receiver``; ``KeyError`` if there is no such node."""
    return tuple(_crossings(configuration, sender, receiver))


def _crossings(configuration: Configuration, sender: str, receiver: str) -> Iterator[Crossing]:
    from_here, to_there = configuration.nodes[sender].serves, configuration.nodes[receiver].serves
    if not from_here or not to_there:
        return
    for capture in configuration.captures(sender):
        destination = _common(capture.to, to_there)
        if capture.intercept.mode != "payload" and destination:
            yield Crossing(capture.intercept, capture.protocol, from_here, destination, None, capture.ports)
    for capture in configuration.captures(receiver):
        source = _common(capture.to, from_here)
        if capture.intercept.mode != "payload" and source:
            yield Crossing(capture.intercept, capture.protocol, source, to_there, capture.ports, None)


def _common(ones: Iterable[Network], others: Iterable[Network]) -> tuple[Network, ...]:
    """Return what two lists of networks have in common; two networks overlap only if one holds the other."""
    pairs = [(one, other) for one in ones for other in others if overlap(one, other)]
    return tuple(dict.fromkeys(max(pair, key=lambda network: network.prefixlen) for pair in pairs))


@attrs.frozen
class PacketQueue:
    """One NFQUEUE, and what the packets in it have in common: the peer, the interceptor, and whether they are TCP."""

    number: int
    peer: str
    intercept: InterceptConfig
    is_tcp: bool
    crossings: tuple[Crossing, ...]

    @property
    def is_recovered(self) -> bool:
        """Return whether links retransmit lost packets of this queue."""
        return self.intercept.recovery == "reliable"

    @property
    def super_packets(self) -> bool:
        """Return whether the kernel may queue TCP super-packets (64 kB); without recovery those would rarely arrive."""
        return self.is_tcp and self.is_recovered


def packet_queues(configuration: Configuration, node: str) -> tuple[PacketQueue, ...]:
    """Return the queues of a node, always in the same order, TCP's first. ``KeyError`` if there is no such node."""
    queues: list[PacketQueue] = []
    for peer in configuration.nodes:
        if peer == node:
            continue
        to_peer = crossings(configuration, node, peer)
        for intercept in configuration.intercepts:
            own = [crossing for crossing in to_peer if crossing.intercept is intercept]
            for is_tcp, protocols in ((True, ("tcp", "ip")), (False, ("udp", "ip"))):
                chosen = tuple(crossing for crossing in own if crossing.protocol in protocols)
                if chosen:
                    queues.append(PacketQueue(FIRST_QUEUE + len(queues), peer, intercept, is_tcp, chosen))
    return tuple(queues)
