"""Which whole packets the configuration lets a node release: asked by the daemon, and again by its privileged part.

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
"""Conversations whose admission is remembered; more than that and it is looked up anew."""


class Admission:
    """What of these crossings a packet belongs to."""

    def __init__(self, allowed: Iterable[Crossing]) -> None:
        self._allowed = tuple(allowed)
        self._admitted: dict[_Flow, Crossing] = {}

    def admit(self, header: Header) -> Crossing | Refusal:
        """Return what lets a packet cross, or the reason why nothing does."""
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
    """Tell whether this is the address of one host, for other hosts to use."""
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local)


def inspection(configuration: Configuration, node: str) -> Callable[[bytes], Header | None]:
    """Return what gives a packet's header if a node may release it, and None if it may not.

    For who cannot know from which peer a packet came: it admits what any of them may send. TCP's and UDP's checksums
    are not looked at, since a wrong one harms nobody but the packet.
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
