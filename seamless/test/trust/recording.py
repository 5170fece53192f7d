"""All that a host's node sends, recorded and sent again: ``python -m seamless.test.trust.recording VERB ...``.

``record FILE PORT`` writes every UDP datagram that leaves the host from that port, until standard input ends.
``replay FILE SPEED`` sends them again as they were, from the same addresses, SPEED times as fast, and prints how many.
What is sent again carries a mark (`REPLAYED_TOS`), so that a firewall rule can count it.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

import attrs

from seamless.linux.sockopt import SO_RCVBUFFORCE

REPLAYED_TOS: Final = 0x04
_ETH_P_IP: Final = 0x0800
_ETH_P_ALL: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_VNET: Final = struct.Struct("=BBHHHH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP: Final = struct.Struct("!HHHH")
_RECORD: Final = struct.Struct("!dH4sH4sH")
_HEADERS_BYTES: Final = _IPV4.size + _UDP.size
_BUFFER_BYTES: Final = 64 << 20


@attrs.frozen
class Sent:
    """One underlay datagram that was sent; addresses are packed."""

    at: float
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    data: bytes


def record(path: str, port: str) -> None:
    """Write what leaves; a batch that the kernel has not cut yet is cut here."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap, open(path, "wb") as file:
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
        tap.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select((tap, sys.stdin), (), ())[0]):
            assert tap in ready
            packet, (device, protocol, direction, *_) = tap.recvfrom(70_000)
            if direction == socket.PACKET_OUTGOING and protocol == _ETH_P_IP and device != "lo":
                for sent in datagrams(packet, int(port)):
                    at, *addresses, data = attrs.astuple(sent)
                    file.write(_RECORD.pack(at, len(data), *addresses) + data)


def datagrams(packet: bytes, port: int) -> Iterator[Sent]:
    """Yield the datagrams of a packet from this UDP port, if it is from there: a super-packet holds many."""
    segment_bytes = _VNET.unpack_from(packet)[3]
    ip = packet[_VNET.size :]
    if ip[0] != 0x45 or ip[9] != socket.IPPROTO_UDP:
        return
    source_port, destination_port, _, _ = _UDP.unpack_from(ip, _IPV4.size)
    if source_port == port:
        data = ip[_HEADERS_BYTES:]
        step = segment_bytes or len(data)
        for at in range(0, len(data), step):
            yield Sent(time.monotonic(), ip[12:16], source_port, ip[16:20], destination_port, data[at : at + step])


def read(path: str) -> list[Sent]:
    """Return a recording."""
    with open(path, "rb") as file:
        content = file.read()
    sent, at = [], 0
    while at < len(content):
        when, length, source, source_port, destination, destination_port = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        sent.append(Sent(when, source, source_port, destination, destination_port, content[at : at + length]))
        at += length
    return sent


def replay(path: str, speed: str) -> None:
    """Send a recording again; what the kernel has no room for is left out."""
    recording = read(path)
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        began = time.monotonic()
        for sent in recording:
            time.sleep(max(0.0, began + (sent.at - recording[0].at) / float(speed) - time.monotonic()))
            try:
                raw.sendto(packet_of(sent), (socket.inet_ntoa(sent.destination), 0))
                count += 1
            except OSError:
                pass
    print(count)


def packet_of(sent: Sent) -> bytes:
    """Return a datagram as a packet; the kernel fills in the header's checksum (raw(7)), and UDP needs none."""
    length = _HEADERS_BYTES + len(sent.data)
    head = _IPV4.pack(0x45, REPLAYED_TOS, length, 0, 0, 64, socket.IPPROTO_UDP, 0, sent.source, sent.destination)
    return head + _UDP.pack(sent.source_port, sent.destination_port, length - _IPV4.size, 0) + sent.data


if __name__ == "__main__":
    {"record": record, "replay": replay}[sys.argv[1]](*sys.argv[2:])
