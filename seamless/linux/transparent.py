"""Connects sockets with addresses that are not this host's: the privileged half of ``source client``, in a thread.

    daemon ── a TCP socket, for whom and where to ──> this, which has CAP_NET_RAW
           <── error number, 0 when the connection is being made ──

The daemon makes the socket and keeps it; here it becomes transparent (IP_TRANSPARENT), is marked, bound to the client's
address and connected, if the caller's ``authorise`` admits that. So the daemon needs no capability, and cannot have an
address that the configuration does not give it. Once it has one, nothing here keeps it from connecting that socket
somewhere else.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, Union

from seamless.interfaces import Address

IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
"""linux/in.h, linux/in6.h"""
REQUEST: Final = struct.Struct("!I")
"""A request: its number; what is to be authorised follows."""
ANSWER: Final = struct.Struct("!Ii")
"""An answer: the request's number, and an errno, 0 or `NOT_ALLOWED`; with the latter a reason follows."""
NOT_ALLOWED: Final = -1
MESSAGE_BYTES: Final = 1024


class Endpoints(NamedTuple):
    """Where a socket is to be connected from and to. Port 0 of the source: any that is free."""

    source: Address
    destination: Address


_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")


def lossy_settings() -> tuple[str, ...]:
    """Return the kernel's settings by which answers to a client's address are dropped (ip-sysctl, src_valid_mark).

    The kernel then looks for the way back to the server by the mark that the answer carries, and finds it on ``lo``.
    It needs rp_filter as well, which is not asked for: packets of an interface that comes up later are filtered too.
    """
    try:
        found = [file for file in sorted(_SETTINGS.glob("*/src_valid_mark")) if file.read_text().strip() == "1"]
    except OSError:
        return ()
    return tuple(f"net.ipv4.conf.{file.parent.name}.src_valid_mark" for file in found)


Authorise: TypeAlias = Callable[[bytes], Union[Endpoints, str]]
"""Called with what the daemon asks for; returns the endpoints, or the reason for refusing."""


class TransparentDialer:
    """Connects what comes over ``channel``; ``mark``: the firewall mark of all packets of these sockets."""

    def __init__(self, channel: socket.socket, authorise: Authorise, mark: int) -> None:
        self._channel = channel
        self._authorise = authorise
        self._mark = mark

    def start(self) -> None:
        """Serve in a thread, until the daemon is gone."""
        threading.Thread(target=self.run, name="transparent dialer", daemon=True).start()

    def run(self) -> None:
        """Serve until the daemon is gone."""
        self._channel.setblocking(True)
        with self._channel:
            while True:
                try:
                    message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
                    if len(message) < REQUEST.size:
                        return
                    self._channel.send(self._served(message, descriptors))
                except OSError:
                    return

    def _served(self, message: bytes, descriptors: list[int]) -> bytes:
        (number,) = REQUEST.unpack_from(message)
        if not descriptors:
            return ANSWER.pack(number, errno.EBADF)
        try:
            sock = socket.socket(fileno=descriptors[0])
        except OSError as error:  # no socket at all
            os.close(descriptors[0])
            return ANSWER.pack(number, error.errno or errno.EBADF)
        with sock:
            endpoints = self._authorise(message[REQUEST.size :])
            if isinstance(endpoints, str):
                return ANSWER.pack(number, NOT_ALLOWED) + endpoints.encode()[: MESSAGE_BYTES - ANSWER.size]
            try:
                return ANSWER.pack(number, self._connect(sock, endpoints))
            except OSError as error:
                return ANSWER.pack(number, error.errno or errno.EIO)

    def _connect(self, sock: socket.socket, endpoints: Endpoints) -> int:
        """Return 0 once the connection is being made, or an errno."""
        is_ipv6 = ":" in endpoints.source[0]
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        if (sock.family, sock.type, sock.proto) != (family, socket.SOCK_STREAM, socket.IPPROTO_TCP):
            return errno.EPROTOTYPE
        sock.setblocking(False)
        if is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(endpoints.source)
        error = sock.connect_ex(endpoints.destination)
        return 0 if error == errno.EINPROGRESS else error
