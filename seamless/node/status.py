"""The counters of a node, and the snapshot of its state for status and metrics."""

from __future__ import annotations

import attrs

from seamless.link.status import LinkStatus
from seamless.routing.routing import RoutingStatus
from seamless.session.events import SessionStatus


@attrs.define
class NodeCounters:
    """Datagrams and packets that went nowhere, by reason; and what else befell the node."""

    short_datagrams: int = 0
    unknown_type: int = 0
    unknown_index: int = 0
    refused_handshakes: int = 0
    misplaced_handshakes: int = 0
    malformed_packets: int = 0
    foreign_packets: int = 0
    source_refused: int = 0
    """Packets in the name of a node whose path does not lead over the link by which they came."""
    transit_refused: int = 0
    hop_limit: int = 0
    turned_back: int = 0
    no_route: int = 0
    undeliverable: int = 0
    """Packets that a link lost too often, and for which there was no other way."""
    rerouted: int = 0
    forwarded: int = 0
    delivered: int = 0
    refused_lsas: int = 0
    service_gaps: int = 0
    """How often the process was called much later than it had asked for: it was stopped, or had no processor."""


@attrs.frozen
class NodeStatus:
    """A snapshot of a node: links, sessions, routing, counters."""

    name: str
    links: tuple[LinkStatus, ...]
    sessions: dict[str, SessionStatus]
    """By the name of the peer."""
    routing: RoutingStatus
    counters: NodeCounters
    gate: dict[str, int]
    differences: dict[str, tuple[str, ...]]
    """By the name of a neighbor or peer: what its configuration has otherwise than ours."""
