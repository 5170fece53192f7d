"""The target of a connection's stream, and the tables of what the configuration lets nodes capture and release.

Pure: bytes to records, addresses to decisions. The target of a stream for a connection is (all integers big-endian)

    ====================  =======  ===============================================
    kind                  1        0x01 (`TARGET_CONNECTION`)
    IP version            1        4 or 6
    original destination  4 or 16  address
    port                  2        not 0
    client                4 or 16  address, for the egress's log
    port                  2
    ====================  =======  ===============================================

The egress trusts none of it. Both ends decide with the same captures of the same configuration: what the peer may
capture is what it may ask for, if it is ours to release.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias, Union

import attrs

from seamless.config.model import Capture, Configuration, Connect, WhenUnreachable
from seamless.errors import RemoteProtocolError
from seamless.interfaces import Address
from seamless.transport.streams import TARGET_CONNECTION

IPAddress: TypeAlias = Union[IPv4Address, IPv6Address]

ENDED_KEPT: Final = 100
"""Connections that were refused or have ended, and are remembered for who asks."""
CLEANLY: Final = "both ends closed it"
"""The reason of a connection that ended with two FINs."""

_LAYOUT: Final = {4: struct.Struct(">BB4sH4sH"), 6: struct.Struct(">BB16sH16sH")}


@attrs.frozen
class Flow:
    """A captured connection: its original destination and its client, each an address and a TCP port."""

    destination: Address
    client: Address

    def encode(self) -> bytes:
        """Return the target of this flow's stream, in bytes. Both addresses must be of one IP version."""
        destination, client = ip_address(self.destination[0]), ip_address(self.client[0])
        layout = _LAYOUT[destination.version]
        return layout.pack(
            TARGET_CONNECTION,
            destination.version,
            destination.packed,
            self.destination[1],
            client.packed,
            self.client[1],
        )

    def __str__(self) -> str:
        return f"{sentence(self.client)} to {sentence(self.destination)}"


@attrs.frozen
class Carried:
    """A flow that is carried, and the node at the other end; ``peer`` is None for one that goes directly."""

    flow: Flow
    peer: str | None


@attrs.frozen
class Ended:
    """A connection that was refused or has ended: how long it was open, and what it carried to and from the server.

    ``at`` is the reactor's time; ``is_refused``: it never reached its server.
    """

    flow: Flow
    peer: str | None
    at: float
    reason: str
    is_refused: bool = False
    seconds: float = 0.0
    to_server_bytes: int = 0
    to_client_bytes: int = 0


def decode_flow(target: bytes) -> Flow:
    """Return the flow that ``target`` names; `RemoteProtocolError` when it is not exactly as the table above says."""
    layout = _LAYOUT.get(target[1]) if len(target) > 1 else None
    if layout is None or len(target) != layout.size:
        raise RemoteProtocolError("the target is not that of a connection")
    kind, _, destination, port, client, client_port = layout.unpack(target)
    if kind != TARGET_CONNECTION or port == 0:
        raise RemoteProtocolError("the target is not that of a connection")
    return Flow((str(ip_address(destination)), port), (str(ip_address(client)), client_port))


def target_bytes(message: bytes) -> int:
    """Return how many bytes a message's target of a connection takes, 0 if it begins with none."""
    layout = _LAYOUT.get(message[1]) if len(message) > 1 else None
    return 0 if layout is None else layout.size


def canonical(host: str) -> IPAddress:
    """Return the address that packets to ``host`` go to: without a zone, and IPv4 where it is only mapped into IPv6."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def sentence(address: Address) -> str:
    """Return an address as logs and messages write it."""
    return f"{address[0]} port {address[1]}"


@attrs.frozen
class Route:
    """The egress node of a captured connection, what to do while it is unreachable, and when to accept."""

    egress: str
    when_unreachable: WhenUnreachable
    connect: Connect = "learned"


class CaptureTable:
    """The destinations that the payload interceptor of one node captures, and their egress nodes."""

    def __init__(self, configuration: Configuration, node: str) -> None:
        self._configuration = configuration
        self._captures = payload_captures(configuration, node)

    def route(self, destination: Address) -> Route | None:
        """Return the route of a connection to ``destination``, None when it is not to be captured."""
        address = canonical(destination[0])
        for capture in self._captures:
            if matches(capture, address, destination[1]):
                egress = self._configuration.serving_node(address)
                if egress is not None:
                    return Route(egress.name, capture.intercept.when_unreachable, capture.intercept.connect)
        return None


class ReleaseTable:
    """The destinations that one node connects to for each peer: by default none.

    ``own_listeners`` are the daemon's own TCP ports; ``0.0.0.0`` and ``::`` there mean every address.
    """

    def __init__(self, configuration: Configuration, node: str, own_listeners: Iterable[Address] = ()) -> None:
        self._serves = configuration.nodes[node].serves
        self._captures = {peer: payload_captures(configuration, peer) for peer in configuration.nodes if peer != node}
        self._own_listeners = [(canonical(host), port) for host, port in own_listeners]

    def refusal(self, peer: str, destination: Address) -> str | None:
        """Return the reason why ``peer`` may not have a connection to ``destination``, None when it may."""
        address, port = canonical(destination[0]), destination[1]
        if address.is_loopback or address.is_multicast or address.is_link_local or address.is_unspecified:
            return f"{sentence(destination)} is no address that another host may ask for"
        if not any(address in network for network in self._serves):
            return f"this node does not serve {destination[0]}"
        if any(port == own and (host == address or host.is_unspecified) for host, own in self._own_listeners):
            return f"{sentence(destination)} is this daemon's own"
        if not any(matches(capture, address, port) for capture in self._captures.get(peer, ())):
            return f"no interceptor lets node {peer} connect to {sentence(destination)}"
        return None


def payload_captures(configuration: Configuration, node: str) -> tuple[Capture, ...]:
    """Return the rules of the payload interceptors of ``node``."""
    return tuple(capture for capture in configuration.captures(node) if capture.intercept.mode == "payload")


def matches(capture: Capture, address: IPAddress, port: int) -> bool:
    """Return whether a rule captures connections to this address and port."""
    ports = capture.ports
    if ports is not None and not any(first <= port <= last for first, last in ports):
        return False
    return any(address in network for network in capture.to)


class OpeningLimit:
    """Bounds how many connections wait for their far end at once: ``limit`` in all, ``share`` of each client."""

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        self._by_client: Counter[str] = Counter()
        self.count = 0

    def enter(self, client: str) -> bool:
        """Count one more waiting connection of ``client``; return False when that would be too many."""
        if self.count >= self._limit or self._by_client[client] >= self._share:
            return False
        self.count += 1
        self._by_client[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Count one waiting connection of ``client`` less."""
        self.count -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
