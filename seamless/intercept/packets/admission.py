"""Checks whether the configuration lets a node release a whole packet.

The daemon checks each packet that it received from a peer, and its privileged part checks it again before sending it.
Pure: a table of `seamless.intercept.packets.crossings.Crossing` in, a verdict on each packet's header out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final, Literal, TypeAlias

from seamless.config.model import Configuration
from seamless.intercept.packets.crossings import Crossing, IPAddress, crossings
from seamless.linux.ip_packet import Header, MalformedPacketError, parse

Refusal: TypeAlias = Literal["source", "destination", "ports"]
_Flow: TypeAlias = tuple[bytes, bytes, int, int, int, bool]

FLOWS_KEPT: Final = 16_384
"""Flows whose crossing is remembered; with more than that, all are forgotten and looked up anew."""


class Admission:
    """Finds the crossing that a packet belongs to, and remembers it for later packets of the same flow."""

    def __init__(self, allowed: Iterable[Crossing]) -> None:
        self._allowed = tuple(allowed)
        self._admitted: dict[_Flow, Crossing] = {}

    def admit(self, header: Header) -> Crossing | Refusal:
        """Return the crossing that a packet belongs to, or which of its fields belongs to none."""
        flow = (
            header.source,
            header.destination,
            header.protocol,
            header.source_port,
            header.destination_port,
            header.offset > 0,
        )
        crossing = self._admitted.get(flow)
        if crossing is None:
            verdict = self._look_up(header)
            if not isinstance(verdict, Crossing):
                return verdict
            if len(self._admitted) >= FLOWS_KEPT:
                self._admitted.clear()
            crossing = self._admitted[flow] = verdict
        return crossing

    def _look_up(self, header: Header) -> Crossing | Refusal:
        source, destination = ip_address(header.source), ip_address(header.destination)
        if not _is_plain(source):
            return "source"
        if not _is_plain(destination):
            return "destination"
        from_there = [crossing for crossing in self._allowed if crossing.has_source(source)]
        if not from_there:
            return "source"
        to_here = [crossing for crossing in from_there if crossing.has_destination(destination)]
        if not to_here:
            return "destination"
        return next((crossing for crossing in to_here if crossing.has_ports(header)), "ports")


def _is_plain(address: IPAddress) -> bool:
    """Return whether this is the unicast address of one host, not loopback or link-local."""
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local)


def inspection(configuration: Configuration, node: str) -> Callable[[bytes], Header | None]:
    """Return a function from a packet to its header if ``node`` may release it, and to None if it may not.

    The function does not know from which peer a packet came: it admits what any of them may send. TCP's and UDP's
    checksums are not checked, since a wrong one harms only the packet itself.
    """
    peers = (peer for peer in configuration.nodes if peer != node)
    admission = Admission(crossing for peer in peers for crossing in crossings(configuration, peer, node))

    def inspect(packet: bytes) -> Header | None:
        try:
            header = parse(packet)
        except MalformedPacketError:
            return None
        return header if isinstance(admission.admit(header), Crossing) else None

    return inspect
