"""Sends whole packets with their own addresses, cut to the MTU of the path to their destination.

What goes to this host itself passes the loopback device, which takes 64 kB at once, so TCP's super-packets are released
whole. For hosts behind a gateway TCP is cut into segments, and everything else into fragments even where the sender
forbade it: the overlay hides the path, so no ICMP message could tell the sender its MTU, and a black hole is worse.

A system call for each segment, and an acknowledgement for every two, is what a gateway would spend most on. So where
there is a packet socket and the way is plain (`seamless.linux.nexthop`), TCP goes there in super-packets, and the
kernel cuts them; everywhere else, and whenever that fails, through the raw sockets.

A packet socket is below connection tracking, which takes acknowledgements of what it has not seen for invalid, and many
a firewall drops them. So the last segment of every super-packet goes through the raw socket: what is seen of it covers
all before it. It also has the kernel look after the neighbor.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs

from seamless.linux.ip_packet import Header
from seamless.linux.nexthop import NextHop, next_hop
from seamless.linux.rawsocket import PACKET_SOCKET, path_mtu
from seamless.linux.segmentation import fragments, segment_count, segments, split_last, unsegmented

MTU_MEMORY: Final = 10.0
"""Seconds for which the MTU of the way to a host is remembered: routes change seldom."""
HOP_MEMORY: Final = 1.0
"""Seconds for which a neighbor is believed to be where it was: another may take over its address."""
LEAST_SEGMENTS: Final = 3
"""Segments from which on sending in one piece takes fewer system calls."""
_NO_ROOM: Final = (errno.EAGAIN, errno.ENOBUFS)
WAYS_KEPT: Final = 4096
"""Hosts whose address and MTU are remembered."""


class SendsPackets(Protocol):
    """The part of a raw or packet socket that is used here; a packet socket's address is device and ethertype."""

    def sendto(self, packet: bytes, address: tuple[str, int], /) -> int:
        """Send one packet."""
        ...


@attrs.define
class RawCounters:
    """Packets and datagrams released, and failures."""

    released: int = 0
    released_bytes: int = 0
    cut: int = 0
    """Packets that had to be cut to fit the way's MTU..."""
    cut_by_kernel: int = 0
    """...and of these, TCP that went to the kernel in one piece."""
    refused: int = 0
    """Datagrams that the kernel would not take: no route, no room, or a firewall's rule."""


@attrs.define
class _Way:
    host: str
    mtu_bytes: int
    checked_at: float
    hop: NextHop | None = None
    hop_checked_at: float | None = None


class RawReleaser:
    """Sends whole packets through raw sockets, one for each IP version. A failure is a lost packet, and counted.

    With a packet socket among them (`PACKET_SOCKET`), long TCP goes there where ``hop_of`` knows the way.
    """

    def __init__(
        self,
        sockets: Mapping[int, SendsPackets],
        mtu_of: Callable[[int, str], int] = path_mtu,
        hop_of: Callable[[int, bytes, int], NextHop | None] = next_hop,
    ) -> None:
        self.counters = RawCounters()
        self._sockets = sockets
        self._mtu_of = mtu_of
        self._hop_of = hop_of
        self._ways: dict[bytes, _Way] = {}
        self._identification = 0

    def release(self, packet: bytes, header: Header, now: float) -> None:
        """Send one packet that was inspected."""
        way = self._ways.get(header.destination)
        if way is None or now - way.checked_at > MTU_MEMORY:
            way = self._look(header, now)
        counters = self.counters
        if len(packet) <= way.mtu_bytes:
            pieces = [packet]
        else:
            counters.cut += 1
            if self._send_whole(packet, header, way, now):
                return
            pieces = self._cut(packet, header, way.mtu_bytes)
        for piece in pieces:
            self._send(piece, header.version, way.host)

    def _send(self, packet: bytes, version: int, host: str) -> None:
        try:
            sender = self._sockets.get(version)
            if sender is None:
                raise OSError
            sender.sendto(packet, (host, 0))
        except OSError:
            self.counters.refused += 1
        else:
            self.counters.released += 1
            self.counters.released_bytes += len(packet)

    def _send_whole(self, packet: bytes, header: Header, way: _Way, now: float) -> bool:
        """Give TCP to the packet socket in one piece, all but the last segment; False if it must go another way."""
        sender = self._sockets.get(PACKET_SOCKET)
        if sender is None or not header.is_whole_tcp:
            return False
        count = segment_count(packet, header, way.mtu_bytes)
        if count < LEAST_SEGMENTS:
            return False
        if way.hop_checked_at is None or now - way.hop_checked_at > HOP_MEMORY:
            way.hop, way.hop_checked_at = self._hop_of(header.version, header.destination, way.mtu_bytes), now
        if way.hop is None:
            return False
        first, last = split_last(packet, header, way.mtu_bytes)
        frame = unsegmented(first, header, way.mtu_bytes, way.hop.link_header)
        try:
            sender.sendto(frame, (way.hop.device, way.hop.ethertype))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                way.hop = None
                return False
            self.counters.refused += count - 1
        else:
            self.counters.cut_by_kernel += 1
            self.counters.released += count - 1
            self.counters.released_bytes += len(first)
        self._send(last, header.version, way.host)
        return True

    def _look(self, header: Header, now: float) -> _Way:
        host = socket.inet_ntop(socket.AF_INET if header.version == 4 else socket.AF_INET6, header.destination)
        if len(self._ways) >= WAYS_KEPT:
            self._ways.clear()
        way = self._ways[header.destination] = _Way(host, self._mtu_of(header.version, host), now)
        return way

    def _cut(self, packet: bytes, header: Header, mtu_bytes: int) -> list[bytes]:
        if header.is_whole_tcp:
            return segments(packet, header, mtu_bytes)
        self._identification = (self._identification + 1) & 0xFFFFFFFF
        return fragments(packet, header, mtu_bytes, self._identification)
