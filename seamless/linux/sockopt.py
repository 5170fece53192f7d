"""Socket options of Linux that Python's ``socket`` module does not name, as typed functions.

Everything here is one ``setsockopt`` or ``getsockopt`` of an open socket. What the kernel refuses for want of
privilege becomes a `PrivilegeError` whose sentence says what to do.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv6Address
from typing import Final

from seamless.errors import PrivilegeError
from seamless.interfaces import Address

# Fixed by the kernel's headers.

SOL_UDP: Final = socket.IPPROTO_UDP
UDP_SEGMENT: Final = 103
"""linux/udp.h: size of the datagrams that one send is cut into (16 bits as a control message)."""
UDP_GRO: Final = 104
"""linux/udp.h: receive many datagrams at once, and their size (an int as a control message)."""
SO_RXQ_OVFL: Final = 40
"""asm-generic/socket.h: each receive says how many packets this socket has dropped so far (32 bits)."""
SO_TIMESTAMPNS: Final = 35
"""asm-generic/socket.h: each receive says when the kernel took the packet in, by the wall clock (`RECEIVE_TIME`)."""
SO_RCVBUFFORCE: Final = 33
SO_SNDBUFFORCE: Final = 32
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
IP_PMTUDISC_PROBE: Final = 3
"""linux/in.h: set DF, and ignore what ICMP says of the path's MTU."""
SO_ORIGINAL_DST: Final = 80
"""linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6 has the same number."""

RECEIVE_TIME: Final = struct.Struct("@ll")
"""The ``struct timespec`` of `SO_TIMESTAMPNS`: seconds and nanoseconds."""

_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")
_NOT_TRACKED: Final = (errno.ENOENT, errno.ENOPROTOOPT)
"""Connection tracking does not know the connection, or does not run: then nothing was diverted."""


def original_destination(sock: socket.socket) -> Address:
    """Return the original destination of an accepted TCP connection that a firewall rule diverted.

    A connection that no rule diverted gives the local address of ``sock``: the caller must refuse it when that is its
    own listener, or it would connect to itself.
    """
    own: tuple[str, int] = sock.getsockname()[:2]
    try:
        if sock.family == socket.AF_INET6 and IPv6Address(own[0]).ipv4_mapped is None:
            port, packed = _SOCKADDR_IN6.unpack(
                sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            )
            return socket.inet_ntop(socket.AF_INET6, packed), port
        port, packed = _SOCKADDR_IN.unpack(sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, _SOCKADDR_IN.size))
        return socket.inet_ntop(socket.AF_INET, packed), port
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            return own
        raise


def set_mark(sock: socket.socket, mark: int) -> None:
    """Set the firewall mark of all packets of this socket (SO_MARK), so that our own rules let them pass."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError:
        raise PrivilegeError(
            "cannot mark our own connections (SO_MARK), so they would be captured again: "
            "start seamless as root, or give it the capability CAP_NET_ADMIN"
        ) from None


def set_gro(sock: socket.socket) -> bool:
    """Ask for many datagrams in one receive; return False where the kernel (before 5.0) cannot."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def set_buffers(sock: socket.socket, size_bytes: int) -> tuple[int, int]:
    """Ask for large receive and send buffers, beyond the system's limit where permitted; return what was granted."""
    return (
        _set_buffer(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, size_bytes),
        _set_buffer(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, size_bytes),
    )


def _set_buffer(sock: socket.socket, forced: int, plain: int, size_bytes: int) -> int:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, size_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, size_bytes)
    # The kernel reports twice the usable size (socket(7)): the other half is its bookkeeping.
    return sock.getsockopt(socket.SOL_SOCKET, plain) // 2


def set_dont_fragment(sock: socket.socket) -> None:
    """Send every datagram with DF set, whatever ICMP claims: the links find their MTU by probing."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)


def report_drops(sock: socket.socket) -> None:
    """Let each receive carry the number of packets that did not fit the receive buffer (`SO_RXQ_OVFL`)."""
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)


def report_receive_times(sock: socket.socket) -> bool:
    """Let each receive carry when the packet came in (`SO_TIMESTAMPNS`); return False where the kernel cannot."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True
