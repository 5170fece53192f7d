"""Opens raw and packet sockets, which send whole IP packets, header included.

They are opened and marked with privilege, and may then be used without: a process that holds one needs no capability to
send. By the mark our own firewall rules (`seamless.linux.ruleset`) distinguish what we release from what an application
sends.

A raw socket takes what fits a device's MTU, one system call each. A packet socket takes TCP in super-packets, which the
kernel or the network card cuts, and wants the link header too (`seamless.linux.nexthop`). Whoever holds one could bind
it and read all that passes this host: it stays where privilege is.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from seamless.errors import PrivilegeError
from seamless.linux.sockopt import set_buffers, set_mark

IPV6_HDRINCL: Final = 36
"""linux/in6.h"""
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
SMALLEST_MTU_BYTES: Final = 1280
"""What every path to an IPv6 host carries (RFC 8200, section 5): the answer where no route is known."""
PACKET_SOCKET: Final = 0
"""Key of the packet socket in a mapping of sockets by IP version."""
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
"""linux/if_packet.h: a ``struct virtio_net_hdr`` stands before every packet."""
BUFFER_BYTES: Final = 4 << 20
"""Send buffer: 30 ms at 1 Gb/s."""


def open_raw(version: int, mark: int) -> socket.socket:
    """Return a socket whose datagrams are whole IP packets of this version. `PrivilegeError` without CAP_NET_RAW."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        raise PrivilegeError(
            "cannot open a raw socket to release whole packets: start seamless as root, or use intercept payload"
        ) from None
    if version == 6:
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
    set_mark(raw, mark)
    set_buffers(raw, BUFFER_BYTES)
    raw.setblocking(False)
    return raw


def open_packet(mark: int) -> socket.socket | None:
    """Return a socket that sends frames of up to 64 kB with offload; None where the kernel has none."""
    try:
        sending = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of no protocol: nothing is received
    except OSError:
        return None
    try:
        sending.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    except OSError:
        sending.close()
        return None
    set_mark(sending, mark)
    set_buffers(sending, BUFFER_BYTES)
    sending.setblocking(False)
    return sending


def path_mtu(version: int, destination: str) -> int:
    """Return the MTU, in bytes, of the path to a host, as far as this host knows it."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((destination, 9))
            if version == 4:
                return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
                return SMALLEST_MTU_BYTES
            raise
