"""Kernel TCP connections that never end by accident: how their sockets are set up, and how they are dialled.

A process that is killed closes its sockets, and the kernel ends a closed connection with FIN: to the application the
stream cut short looks complete. So every socket lingers for zero seconds from the moment it is made (`prepare`), which
makes the kernel answer any close with RST; only `seamless.transport.splice` takes that back, when both directions have
ended cleanly. See socket(7), SO_LINGER.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import DialError
from seamless.interfaces import Address

DIAL_TIMEOUT: Final = 10.0
"""Seconds: a listener that is there answers the third SYN, 7 s on, at the latest."""

RECEIVE_BUFFER_BYTES: Final = 256 * 1024
"""What a spliced socket is to receive ahead of us: four reads of a splice, 1 Gb/s over 2 ms. It would tune itself to
net.ipv4.tcp_rmem else, 6 to 33 MB. The kernel takes twice as much for this much and its bookkeeping (socket(7)), and
less if net.core.rmem_max says so."""
NOT_SENT_BYTES: Final = 128 * 1024
"""What the kernel is to hold unsent for a reader that does not keep up (TCP_NOTSENT_LOWAT); it overruns this by up to
one segment of `SEGMENT_BYTES`. What is sent and not acknowledged is not counted: that is the path's."""
SEGMENT_BYTES: Final = 64 * 1024
KEPT_BYTES: Final = 2 * RECEIVE_BUFFER_BYTES + NOT_SENT_BYTES + SEGMENT_BYTES
"""The most that the kernels hold at the two ends of a splice's stream, in one direction, and have not delivered."""

KEEPALIVE_INTERVAL: Final = 20
"""Seconds of silence after which the kernel asks the other end for a sign of life, of a connection that is half-closed
or stands still. Connection tracking forgets these after 60 and 120 s without a packet
(nf_conntrack_tcp_timeout_close_wait and _fin_wait), and a connection that the firewall has redirected dies with its
entry, without a word. So two of these may get lost."""
KEEPALIVE_PROBES: Final = 127
"""Questions without an answer until the other end counts as gone: the most that Linux takes, 42 minutes."""
MAX_RTO_MILLISECONDS: Final = 50_000
"""The longest that the kernel waits to ask a reader who has stopped once more; 120 s else, too long for the same."""
TCP_ESTABLISHED: Final = 1
TCP_CLOSE: Final = 7
"""States of a TCP socket (include/net/tcp_states.h)."""
IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25
"""linux/in.h, linux/in6.h"""
TCP_RTO_MAX_MS: Final = 44
"""linux/tcp.h, from Linux 6.15."""

_EXTENDED_ERROR: Final = struct.Struct("=IBBB")
"""``struct sock_extended_err`` (linux/errqueue.h): errno, origin, ICMP type and code, ..."""
_ICMP_ORIGINS: Final = (2, 3)
"""SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6."""

LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""``struct linger``: on, for no time. A close sends RST and drops what is unsent."""
LINGER_OFF: Final = struct.pack("ii", 0, 0)


def prepare(sock: socket.socket) -> None:
    """Make ``sock`` non-blocking, leave RST however it is closed, send small writes at once, and bound what waits.

    Keepalive finds hosts behind a gateway that vanished without a word, at the intervals of the system
    (tcp_keepalive_time, two hours), so that an application's own long silence is never cut; but see `keep_alive`.

    Urgent bytes are taken in line, in their place (RFC 6093): by default the kernel would leave them out of what is
    received.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)


def tcp_state(sock: socket.socket) -> int:
    """Return the state of a TCP socket, as include/net/tcp_states.h numbers them."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def bound_receive_buffer(sock: socket.socket) -> None:
    """Fix the receive buffer of a socket that is not connected yet, or of all that a listening one accepts."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def keep_alive(sock: socket.socket) -> None:
    """Let no more than `KEEPALIVE_INTERVAL` pass without a packet, so that connection tracking remembers ``sock``."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_INTERVAL)
    with suppress(OSError):  # a kernel before 6.15
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, MAX_RTO_MILLISECONDS)


def close_with_reset(sock: socket.socket) -> None:
    """Close ``sock``; the application at its other end sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()


def close_cleanly(sock: socket.socket) -> None:
    """Close ``sock``, of which both directions have ended; the kernel goes on to deliver what it holds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_OFF)
    sock.close()


Connect: TypeAlias = Callable[[socket.socket, Callable[[int, str], None]], None]
"""Called with (socket, done); ``done`` is called later, with (0, "") or an errno and perhaps a sentence."""


@implementer(IWriteDescriptor)
class Dial:
    """One TCP connection being made; ends with exactly one of its two callbacks, unless it is cancelled.

    ``connected`` gets a prepared, connected socket, whose receive buffer is bounded if ``is_bounded``; ``failed`` an
    `DialError` whose text says who did not answer. A ``mark`` (SO_MARK, needs CAP_NET_ADMIN) keeps the daemon's
    own rules from capturing the connection. ``connect``: what connects the socket in place of `socket.connect_ex`.
    """

    __slots__ = ("_address", "_connected", "_failed", "_reactor", "_sock", "_timer")

    def __init__(
        self,
        reactor: Any,
        address: Address,
        connected: Callable[[socket.socket], None],
        failed: Callable[[DialError], None],
        *,
        mark: int | None = None,
        timeout: float = DIAL_TIMEOUT,
        is_bounded: bool = False,
        connect: Connect | None = None,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._connected = connected
        self._failed = failed
        self._sock: socket.socket | None = None
        self._timer: IDelayedCall | None = reactor.callLater(timeout, self._timed_out, timeout)
        try:
            self._sock = sock = self._socket(mark, is_bounded)
            if connect is not None:
                connect(sock, self._begun)
                return
            error = sock.connect_ex(address)
        except OSError as problem:
            error = problem.errno or errno.EIO
        # Never call back from within the constructor: the caller has no Dial to cancel or forget yet.
        if error not in (0, errno.EINPROGRESS):
            self._timer.cancel()
            self._timer = reactor.callLater(0, self._fail, error)
        elif tcp_state(sock) == TCP_ESTABLISHED:  # a server on this host has answered already
            self._timer.cancel()
            self._timer = reactor.callLater(0, self.doWrite)
        else:
            reactor.addWriter(self)

    def _socket(self, mark: int | None, is_bounded: bool) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        prepare(sock)
        _report_icmp(sock, True)
        if is_bounded:
            bound_receive_buffer(sock)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return sock

    def _begun(self, error: int, reason: str) -> None:
        """Take note that another process has begun to connect our socket, or could not."""
        if self._sock is None:
            return
        if error:
            self._fail(error, reason=reason)
        else:
            self._reactor.addWriter(self)

    def cancel(self) -> None:
        """Stop dialling; no callback comes."""
        sock = self._stop()
        if sock is not None:
            sock.close()

    def _stop(self) -> socket.socket | None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        sock = self._sock
        if sock is not None:
            self._reactor.removeWriter(self)
            self._sock = None
        return sock

    def _fail(self, error: int, after: str = "", reason: str = "") -> None:
        code = None if self._sock is None else _icmp_code(self._sock)
        self.cancel()
        self._failed(DialError(reason or _sentence(self._address, error, after), error, code))

    def _timed_out(self, timeout: float) -> None:
        self._fail(errno.ETIMEDOUT, f" within {timeout:g} s")

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when there is none."""
        return -1 if self._sock is None else self._sock.fileno()

    def doWrite(self) -> None:
        """Learn how the connection attempt ended."""
        if self._sock is None:
            return
        error = _connect_error(self._sock)
        if error:
            self._fail(error)
            return
        sock = self._stop()
        assert sock is not None
        _report_icmp(sock, False)
        self._connected(sock)

    def connectionLost(self, reason: Failure) -> None:
        """Learn from the reactor that the attempt failed: it reports a hang-up instead of writability."""
        self.doWrite()

    def logPrefix(self) -> str:
        """Return how the log names this descriptor."""
        return "dial"


def _report_icmp(sock: socket.socket, wanted: bool) -> None:
    """Have ICMP errors kept for `_icmp_code` while a connection is made; later they would end the connection."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, wanted)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, wanted)


def _icmp_code(sock: socket.socket) -> int | None:
    """Return the code of the ICMP message that ended an attempt to connect, None if none did.

    Linux 5.8 and later keep it (ip(7), IP_RECVERR).
    """
    try:
        ancillary = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)[1]
    except OSError:
        return None
    errors = (_EXTENDED_ERROR.unpack_from(data) for _, _, data in ancillary if len(data) >= _EXTENDED_ERROR.size)
    return next((code for _, origin, _, code in errors if origin in _ICMP_ORIGINS), None)


def _connect_error(sock: socket.socket) -> int:
    """Return how an attempt to connect ended: 0, or an errno.

    A server may have sent something and reset the connection since. Then there is something to read, and after it the
    reset, which ``SO_ERROR`` would take away.
    """
    try:
        sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _sentence(address: Address, error: int, after: str) -> str:
    where = f"{address[0]} port {address[1]}"
    if error == errno.ECONNREFUSED:
        return f"connection refused by {where}"
    if error == errno.ETIMEDOUT:
        return f"{where} did not answer{after}"
    if error == errno.EMFILE:
        return f"cannot connect to {where}: this process has too many open files; raise its limit (LimitNOFILE)"
    if error == errno.EPERM:
        return f"cannot connect to {where}: the firewall, or a missing capability, forbids it"
    return f"cannot connect to {where}: {os.strerror(error)}"
