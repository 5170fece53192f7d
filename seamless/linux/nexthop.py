"""Looks up the next hop of a packet in the kernel, over rtnetlink: the device and the link header.

The problem: a packet socket takes 64 kB of TCP at once (`seamless.linux.rawsocket.open_packet`), but it sits below the
part of the kernel that finds the way. So for a host that gets much we ask for the route, the device and the neighbor,
as anybody may, and build the link header ourselves. Whatever is not plain (a neighbor that has not been heard of, a
tunnel, an IPsec policy, a device that is neither Ethernet nor without link headers) has no answer here, and its packets
take the usual way, on which the kernel finds its neighbors, too. (rtnetlink(7), linux/rtnetlink.h, linux/neighbour.h.)
"""

from __future__ import annotations

import socket
import struct
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

_NETLINK_ROUTE: Final = 0
_REQUEST: Final = 1
_NEW_LINK, _GET_LINK = 16, 18
_NEW_ROUTE, _GET_ROUTE = 24, 26
_NEW_NEIGHBOR, _GET_NEIGHBOR = 28, 30

_MESSAGE: Final = Struct("=IHHII")
_ATTRIBUTE: Final = Struct("=HH")
_ROUTE: Final = Struct("=BBBBBBBBI")
_ROUTE_TYPE: Final = 7
_UNICAST: Final = 1
_ROUTE_DESTINATION, _ROUTE_DEVICE, _ROUTE_GATEWAY, _ROUTE_VIA, _ROUTE_ENCAPSULATION = 1, 4, 5, 18, 22
_LINK: Final = Struct("=BxHiII")
_LINK_ADDRESS, _LINK_NAME, _LINK_MTU = 1, 3, 4
_NEIGHBOR: Final = Struct("=BxxxiHBB")
_NEIGHBOR_DESTINATION, _NEIGHBOR_ADDRESS = 1, 2
_ALIVE: Final = 0x02 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE, DELAY, PROBE, PERMANENT: not STALE, which only the kernel's own packets make it look after."""

_ETHERNET: Final = 1
_NO_LINK_HEADER: Final = 0xFFFE
"""ARPHRD_NONE: TUN devices, WireGuard."""
_ETHERTYPE: Final = {4: 0x0800, 6: 0x86DD}
_INDEX: Final = Struct("=I")
_ANSWER_BYTES: Final = 16_384
_ANSWER_TIMEOUT: Final = 1.0
"""Seconds for the kernel's answer, which is there when the question was sent."""

Attributes: TypeAlias = dict[int, bytes]


class NextHop(NamedTuple):
    """What a packet socket needs to send to a next hop: its device and link-layer header."""

    device: str
    ethertype: int
    link_header: bytes


def next_hop(version: int, destination: bytes, mtu_bytes: int) -> NextHop | None:
    """Return the way to a host (by its packed address) if its device takes packets of just this MTU, else None.

    Where the path's MTU is not the device's there is more on the way than a link header: IPsec, say.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as asking:
            asking.settimeout(_ANSWER_TIMEOUT)
            return _next_hop(asking, version, destination, mtu_bytes)
    except (OSError, struct.error, KeyError):
        return None  # no route, no such host, or a kernel (or a seccomp filter) that does not tell


def _next_hop(asking: socket.socket, version: int, destination: bytes, mtu_bytes: int) -> NextHop | None:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    question = _ROUTE.pack(family, len(destination) * 8, 0, 0, 0, 0, 0, 0, 0)
    route, words = _ask(asking, _GET_ROUTE, _NEW_ROUTE, question, _ROUTE, {_ROUTE_DESTINATION: destination})
    if route[_ROUTE_TYPE] != _UNICAST or _ROUTE_VIA in words or _ROUTE_ENCAPSULATION in words:
        return None
    device = _INDEX.unpack(words[_ROUTE_DEVICE])[0]
    gateway = words.get(_ROUTE_GATEWAY, destination)
    link, words = _ask(asking, _GET_LINK, _NEW_LINK, _LINK.pack(family, 0, device, 0, 0), _LINK, {})
    if _INDEX.unpack(words[_LINK_MTU])[0] != mtu_bytes:
        return None
    name, own = words[_LINK_NAME].rstrip(b"\0").decode(), words.get(_LINK_ADDRESS, b"")
    kind, ethertype = link[1], _ETHERTYPE[version]
    if kind == _NO_LINK_HEADER:
        return NextHop(name, ethertype, b"")
    if kind != _ETHERNET:
        return None
    question = _NEIGHBOR.pack(family, device, 0, 0, 0)
    neighbor, words = _ask(asking, _GET_NEIGHBOR, _NEW_NEIGHBOR, question, _NEIGHBOR, {_NEIGHBOR_DESTINATION: gateway})
    if not neighbor[2] & _ALIVE:
        return None
    return NextHop(name, ethertype, words[_NEIGHBOR_ADDRESS] + own + ethertype.to_bytes(2, "big"))


def _ask(
    asking: socket.socket, kind: int, answer_kind: int, body: bytes, shape: Struct, attributes: Attributes
) -> tuple[tuple[int, ...], Attributes]:
    """Ask for one thing; return its fields and its attributes. ``OSError`` if the kernel has no such thing."""
    body += b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), name) + value + bytes(-len(value) % 4)
        for name, value in attributes.items()
    )
    asking.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST, 0, 0) + body)
    answer = asking.recv(_ANSWER_BYTES)
    if _MESSAGE.unpack_from(answer)[1] != answer_kind:
        raise OSError(f"rtnetlink does not answer request {kind}")
    found: Attributes = {}
    at = _MESSAGE.size + shape.size
    while at + _ATTRIBUTE.size <= len(answer):
        length, name = _ATTRIBUTE.unpack_from(answer, at)
        found[name] = answer[at + _ATTRIBUTE.size : at + length]
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return shape.unpack_from(answer, _MESSAGE.size), found
