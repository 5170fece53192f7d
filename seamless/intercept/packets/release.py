"""What an egress does with a whole packet before it is sent: inspect it, put it in order, or refuse it.

Peers are authenticated, but a peer may send any bytes, and the overlay must not be a way to forge packets. So each
packet must have a valid header and checksums, and must belong to one of the configuration's crossings
(`seamless.intercept.packets.crossings`). A refused packet is counted by reason and dropped. Pure: driven with explicit
``now``.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import attrs

from seamless.config.model import Configuration
from seamless.intercept.packets.admission import Admission, Refusal
from seamless.intercept.packets.crossings import Crossing, crossings
from seamless.intercept.packets.reorder import MOST_WAIT, Reorder
from seamless.linux.ip_packet import Header, MalformedPacketError, Reason, is_intact, parse, tcp_header_bytes

_SEQUENCE: Final = Struct("!I")
_SYN: Final = 0x02
_FIN: Final = 0x01
_RST: Final = 0x04


@attrs.define
class ReleaseCounters:
    """Packets received from peers: admitted, and refused by reason."""

    admitted: int = 0
    refused_truncated: int = 0
    refused_version: int = 0
    refused_length: int = 0
    refused_options: int = 0
    refused_expired: int = 0
    refused_checksum: int = 0
    refused_fragment: int = 0
    refused_source: int = 0
    """No interceptor takes packets of this peer from their source address."""
    refused_destination: int = 0
    """Their destination is not served here, or is not the address of one host."""
    refused_ports: int = 0
    """No interceptor takes their protocol and ports."""

    def refuse(self, reason: Reason | Refusal) -> None:
        """Count one packet refused for this reason."""
        name = f"refused_{reason}"
        setattr(self, name, getattr(self, name) + 1)


class Release:
    """Inspects packets from one peer, and puts TCP's in order, before this node releases them."""

    def __init__(
        self,
        configuration: Configuration,
        peer: str,
        node: str,
        counters: ReleaseCounters,
        most_wait: float = MOST_WAIT,
    ) -> None:
        self.counters = counters
        self.reorder: Reorder[bytes] = Reorder(most_wait)
        self._admission = Admission(crossings(configuration, peer, node))

    def receive(self, packet: bytes, now: float) -> list[bytes]:
        """Return the packets to release after ``packet`` came: none, itself, or itself and those held behind it."""
        try:
            header = parse(packet)
            if not is_intact(packet, header):
                raise MalformedPacketError("checksum")
        except MalformedPacketError as error:
            self.counters.refuse(error.reason)
            return []
        crossing = self._admit(header)
        if crossing is None:
            return []
        self.counters.admitted += 1
        intercept = crossing.intercept
        if header.is_whole_tcp and intercept.recovery == "reliable" and intercept.release == "ordered":
            return self._in_order(packet, header, now)
        return [packet]

    def _in_order(self, packet: bytes, header: Header, now: float) -> list[bytes]:
        at = header.transport
        flags = packet[at + 13]
        length = len(packet) - at - tcp_header_bytes(packet, at)
        # A reset takes no place in the sequence, but must not overtake the bytes before it.
        length += bool(flags & _SYN) + bool(flags & (_FIN | _RST))
        key = header.source + header.destination + packet[at : at + 4]
        sequence = _SEQUENCE.unpack_from(packet, at + 4)[0]
        return self.reorder.receive(key, sequence, length, bool(flags & _SYN), packet, now)

    def _admit(self, header: Header) -> Crossing | None:
        verdict = self._admission.admit(header)
        if isinstance(verdict, Crossing):
            return verdict
        self.counters.refuse(verdict)
        return None

    def next_timeout(self) -> float | None:
        """Return the absolute time at which `handle_timeout` is due, None if nothing is held."""
        return self.reorder.next_timeout()

    def handle_timeout(self, now: float) -> list[bytes]:
        """Return the held packets to release although an earlier one is still missing."""
        return self.reorder.handle_timeout(now)
