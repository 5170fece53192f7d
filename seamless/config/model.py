"""The model of a configuration: plain frozen values that every other floor is built from.

The grammar (docs/grammar.rst) is about text; nothing here knows of it. Times are seconds, rates bits per second,
sizes bytes, probabilities 0 to 1. A `Configuration` that was loaded has passed every check across its blocks, so
its users need not check again that a node exists or that an address belongs to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Literal, TypeAlias, Union

import attrs

from seamless.crypto.keys import x25519_public_key
from seamless.interfaces import Address
from seamless.session.limits import DEFAULT_MEMORY_BYTES
from seamless.wire.header import node_identifier

Network: TypeAlias = Union[IPv4Network, IPv6Network]
Interface: TypeAlias = Union[IPv4Interface, IPv6Interface]
PortRange: TypeAlias = tuple[int, int]
"""First and last port, both included."""

Mode: TypeAlias = Literal["payload", "local", "router"]
Protocol: TypeAlias = Literal["tcp", "udp", "ip"]
WhenUnreachable: TypeAlias = Literal["direct", "refuse"]
Connect: TypeAlias = Literal["confirmed", "early", "learned"]
"""When a captured connection is accepted: see docs/grammar.rst."""
Source: TypeAlias = Literal["egress", "client"]
"""Whose address a server sees."""
Recovery: TypeAlias = Literal["reliable", "none"]
Release: TypeAlias = Literal["ordered", "unordered"]

DEFAULT_PORT: Final = 7400
"""UDP port of a node whose ``address`` names none."""
DEFAULT_CAPTURE_PORT: Final = 7401
"""TCP port to which connections are diverted; beside the links' UDP 7400, and in no list of well-known services."""
DEFAULT_HELLO_INTERVAL: Final = 0.1
"""Seconds: three hellos fit in the dead interval, so one lost hello means nothing."""
DEFAULT_DEAD_INTERVAL: Final = 0.3
"""Seconds: a dead link is left before a person notices."""
DEFAULT_GIVE_UP: Final = 30.0
"""Seconds that a stream waits for a path: long enough for a relay's reboot of its daemon."""
DEFAULT_CONGESTION: Final = "auto"
DEFAULT_MTU_BYTES: Final = 1500
"""IP MTU of Ethernet."""
MINIMUM_MEMORY_BYTES: Final = 8 << 20
"""Half of it is the window of a session, which begins at 4 MiB in any case (docs/protocol.rst)."""
MAXIMUM_MEMORY_BYTES: Final = 64 << 30
"""Far more than any path has on the way: what is longer is a slip of the unit."""
MINIMUM_MTU_BYTES: Final = 1280
"""Every IPv6 link carries this much (RFC 8200, section 5), and the padded INITIATION needs nearly all of it."""


@attrs.frozen
class Overlay:
    """What holds for the whole overlay."""

    name: str
    hello_interval: float = DEFAULT_HELLO_INTERVAL
    dead_interval: float = DEFAULT_DEAD_INTERVAL
    give_up: float = DEFAULT_GIVE_UP
    operators: tuple[str, ...] | None = None
    """Nodes that may ask the others for their status; None: every node."""


@attrs.frozen
class NodeConfig:
    """A daemon: where it listens, what it releases to, and the raw Ed25519 public key that is its identity.

    ``capture_at``: where it takes captured TCP connections; for an IP version of which it names none, everywhere.
    ``memory_bytes``: what slow readers of the streams with one peer may leave unread in it.
    """

    name: str
    addresses: tuple[Address, ...]
    serves: tuple[Network, ...]
    public_key: bytes
    leaf: bool = False
    capture_port: int = DEFAULT_CAPTURE_PORT
    capture_at: tuple[IPv4Address | IPv6Address, ...] = ()
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    @property
    def identifier(self) -> int:
        """Return the 32 bits that name this node on the wire."""
        return node_identifier(self.public_key)

    @cached_property
    def x25519_public_key(self) -> bytes:
        """Return the raw X25519 public key with which the node takes part in handshakes."""
        return x25519_public_key(self.public_key)


@attrs.frozen
class LinkConfig:
    """Two neighbors. Each path is (address of ``ends[0]``, address of ``ends[1]``), the preferred one first."""

    ends: tuple[str, str]
    paths: tuple[tuple[Address, Address], ...]
    rate_bps: int | None = None
    """The rate, or its ceiling where congestion control finds it; None: no bound."""
    congestion: str = DEFAULT_CONGESTION
    """A name of `seamless.link.congestion.CONTROLLERS`."""
    cost: int | None = None
    mtu_bytes: int = DEFAULT_MTU_BYTES
    passive: str | None = None
    floor_bps: int | None = None
    """The least rate; only where congestion control finds it."""


@attrs.frozen
class Match:
    """One rule of an interceptor; ``None`` means everything that other nodes serve, or every port."""

    protocol: Protocol
    to: tuple[Network, ...] | None = None
    ports: tuple[PortRange, ...] | None = None


@attrs.frozen
class InterceptConfig:
    """One interceptor; ``on`` is None when every node captures. Line and column are for messages about it."""

    mode: Mode
    rules: tuple[Match, ...]
    on: tuple[str, ...] | None = None
    when_unreachable: WhenUnreachable = "direct"
    connect: Connect = "learned"
    source: Source = "egress"
    recovery: Recovery = "reliable"
    release: Release = "ordered"
    clamp_mss: bool = False
    line: int = attrs.field(default=0, eq=False)
    column: int = attrs.field(default=0, eq=False)


@attrs.frozen
class Capture:
    """What one rule captures on one node: ``to`` is resolved, and what the node itself serves is taken out."""

    intercept: InterceptConfig
    protocol: Protocol
    to: tuple[Network, ...]
    ports: tuple[PortRange, ...] | None


@attrs.frozen
class Impairment:
    """What one direction of a wire does to the packets on it.

    ``burst_packets`` is the mean length of a run of losses (1: independent). Longer than ``black_hole_bytes`` and a
    packet vanishes without a word. ``reorder`` packets are late by another ``reorder_delay``. A policer
    drops what exceeds ``police_bps`` and a bucket of ``police_bytes``. What arrives is kept back and let go together
    every ``aggregate`` seconds, as on Wi-Fi.
    """

    delay: float = 0.0
    rate_bps: int | None = None
    queue_bytes: int | None = None
    loss: float = 0.0
    burst_packets: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.0
    corrupt: float = 0.0
    black_hole_bytes: int | None = None
    police_bps: int | None = None
    police_bytes: int = 0
    aggregate: float = 0.0
    down: bool = False


@attrs.frozen
class HostConfig:
    """A network namespace of the lab: its loopback addresses and the real servers that run there."""

    name: str
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    servers: tuple[str, ...] = ()
    gateway: str | None = None


@attrs.frozen
class WireConfig:
    """An emulated wire; ``forward`` is what ``ends[0]`` sends, ``backward`` what ``ends[1]`` sends.

    For each pair in ``carries`` the first host routes the second networks over this wire, and the second the first.
    """

    ends: tuple[str, str]
    addresses: tuple[Interface, Interface]
    carries: tuple[tuple[tuple[Network, ...], tuple[Network, ...]], ...] = ()
    forward: Impairment = Impairment()
    backward: Impairment = Impairment()
    mtu_bytes: int = DEFAULT_MTU_BYTES


def overlap(one: Network, other: Network) -> bool:
    """Return whether two networks share an address; those of different IP versions never do."""
    return one.version == other.version and one.overlaps(other)


def without(networks: Iterable[Network], excluded: Iterable[Network]) -> tuple[Network, ...]:
    """Return ``networks`` with every address of ``excluded`` taken out, in as few networks as that needs."""
    left = list(networks)
    for hole in excluded:
        left = [piece for network in left for piece in _cut(network, hole)]
    return tuple(left)


def _cut(network: Network, hole: Network) -> list[Network]:
    if not overlap(network, hole):
        return [network]
    if network.prefixlen >= hole.prefixlen:
        return []
    return sorted(network.address_exclude(hole))  # type: ignore[arg-type]


@attrs.frozen
class Configuration:
    """One overlay, the same on every host, and the lab that it may run in."""

    overlay: Overlay
    nodes: Mapping[str, NodeConfig]
    links: tuple[LinkConfig, ...] = ()
    intercepts: tuple[InterceptConfig, ...] = ()
    hosts: Mapping[str, HostConfig] = attrs.field(factory=dict)
    wires: tuple[WireConfig, ...] = ()
    text: str = attrs.field(default="", eq=False, repr=False)
    """The text that it was read from, if any."""

    @property
    def name(self) -> str:
        """Return the overlay's name."""
        return self.overlay.name

    @property
    def digest(self) -> str:
        """Return the SHA-256 of its text, by which two processes can tell whether they have read the same."""
        return hashlib.sha256(self.text.encode(errors="surrogatepass")).hexdigest()

    @cached_property
    def node_by_identifier(self) -> Mapping[int, NodeConfig]:
        """Return the nodes by the 32 bits that name them on the wire."""
        return {node.identifier: node for node in self.nodes.values()}

    def serving_node(self, address: str | IPv4Address | IPv6Address) -> NodeConfig | None:
        """Return the node that releases to this address: the egress of a flow to it. ``ValueError`` if it is none."""
        wanted = _as_network(address)
        for node in self.nodes.values():
            if any(overlap(served, wanted) for served in node.serves):
                return node
        return None

    def served_by_others(self, node_name: str) -> tuple[Network, ...]:
        """Return all that nodes other than this one serve."""
        return tuple(served for node in self.nodes.values() if node.name != node_name for served in node.serves)

    def captures(self, node_name: str) -> tuple[Capture, ...]:
        """Return what this node captures, rule by rule in the order of the file. ``KeyError`` if there is no such node.

        A rule of which nothing is left once the node's own ``serves`` are taken out is not in the answer.
        """
        name = self.nodes[node_name].name
        captures = []
        for intercept in self.intercepts:
            if intercept.on is None or name in intercept.on:
                for rule in intercept.rules:
                    to = self.captured(rule, name)
                    if to:
                        captures.append(Capture(intercept, rule.protocol, to, rule.ports))
        return tuple(captures)

    def captured(self, rule: Match, node_name: str) -> tuple[Network, ...]:
        """Return the destinations that a node captures by a rule, perhaps none. ``KeyError`` if there is no such."""
        own = self.nodes[node_name].serves
        return without(self.served_by_others(node_name) if rule.to is None else rule.to, own)


def _as_network(address: str | IPv4Address | IPv6Address) -> Network:
    """Return the network of this one address; one that is mapped into IPv6 counts as the IPv4 address that it is."""
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return ip_network(parsed if mapped is None else mapped)
