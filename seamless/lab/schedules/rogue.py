"""Nodes of the simulation that do not keep the protocol, made of honest ones."""

from __future__ import annotations

from seamless.link.link import Link
from seamless.node import Node
from seamless.node.forwarding import flow_key
from seamless.wire.header import (
    INITIAL_HOP_LIMIT,
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS


class DropsBulk:
    """A node that forwards no bulk; its own sessions, and all other packets, go their way."""

    def __init__(self, node: Node) -> None:
        self.dropped = 0
        self._own = node.identifier
        self._forwarding = node._forwarding
        self._receive = self._forwarding.receive
        self._forwarding.receive = self._filter  # type: ignore[method-assign]

    def _filter(self, packets: list[bytes], link: Link, now: float) -> None:
        kept = [packet for packet in packets if not self._is_bulk_of_others(packet)]
        self.dropped += len(packets) - len(kept)
        if kept:
            self._receive(kept, link, now)

    def _is_bulk_of_others(self, packet: bytes) -> bool:
        if len(packet) < PACKET_HEADER_BYTES:
            return False
        packet_class, _, _, destination = PACKET_HEADER.unpack_from(packet)
        return bool(packet_class == CLASS_BULK and destination != self._own)

    def restore(self) -> None:
        """Forward everything again."""
        self._forwarding.receive = self._receive  # type: ignore[method-assign]


def drop_bulk(node: Node) -> DropsBulk:
    """Make a node drop the bulk that it should forward."""
    return DropsBulk(node)


def flood(node: Node, destination: str, packet_bytes: int, count: int, now: float) -> int:
    """Queue ``count`` express packets of no meaning to a node, in the sender's own name; return how many.

    They go past the session and its push-back, straight to the queue of the next link.
    """
    identifier = node.peer_identifier(destination)
    links = node._forwarding.links_towards(node.identifier, identifier, CLASS_EXPRESS)
    if not links:
        return 0
    head = PACKET_HEADER.pack(CLASS_EXPRESS, INITIAL_HOP_LIMIT, node.identifier, identifier)
    packet = head + bytes(packet_bytes - PACKET_HEADER_BYTES)
    links[0].enqueue([packet] * count, CLASS_EXPRESS, flow_key(node.identifier, identifier), now)
    return count
