"""A listening TCP socket that loses no connection in a burst, and refuses at once when descriptors run out.

The kernel answers a SYN by itself, so a connection that is not accepted hangs until its client loses patience. A
descriptor is held in reserve: when there is no other, it is given up for as long as it takes to accept a connection
and reset it.

Twisted's own port takes connections too, but wraps each in a transport that we do not want (`transport.splice` says
why), and listens with a backlog of 50, of which a thousand connects at once lose most.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import ConfigurationError
from seamless.interfaces import Address
from seamless.transport.dial import bound_receive_buffer, close_with_reset, prepare
from seamless.transport.limited_log import LimitedLog

BACKLOG: Final = 4096
"""Connections that may wait while the daemon is busy; the kernel caps it at net.core.somaxconn (4096)."""
ACCEPT_BATCH: Final = 64
"""Connections taken per wake-up, so that a storm does not starve the links."""
EXHAUSTED_PAUSE: Final = 1.0
"""Seconds without accepting after the machine ran out of memory, or of descriptors and there is none in reserve."""
SHED_LOG_INTERVAL: Final = 10.0
"""Seconds between two lines in the log about connections that were reset for want of descriptors."""

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class Listener:
    """Listens at one address and gives each connection (prepared) and its client's address to ``accepted``."""

    _log = Logger()

    def __init__(self, reactor: Any, address: Address, accepted: Callable[[socket.socket, Address], None]) -> None:
        self._reactor = reactor
        self._accepted = accepted
        self._pause: IDelayedCall | None = None
        self._shed = 0
        self._shed_call: IDelayedCall | None = None
        self._limited = LimitedLog(reactor, self._log)
        self._sock = _listening_socket(address)
        self._reserve: int | None = None
        self._hold_reserve()
        self.address: Address = self._sock.getsockname()[:2]
        reactor.addReader(self)

    def close(self) -> None:
        """Listen no more; connections that were not accepted are reset by the kernel."""
        for call in (self._pause, self._shed_call):
            if call is not None and call.active():
                call.cancel()
        self._reactor.removeReader(self)
        self._sock.close()
        self._release_reserve()
        self._limited.close()

    def doRead(self) -> None:
        """Take the connections that wait."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, client = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    if self._shed_next(error):
                        continue
                    return
                if error.errno in _NO_MEMORY:
                    self._rest(error)
                    return
                continue  # this client is gone already (ECONNABORTED and kin, accept(2))
            prepare(sock)
            self._accepted(sock, client[:2])

    # Out of descriptors.

    def _hold_reserve(self) -> None:
        if self._reserve is None:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _release_reserve(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            os.close(reserve)

    def _shed_next(self, error: OSError) -> bool:
        """Accept the next connection in the place of the reserve, and reset it; return False if there is none."""
        self._release_reserve()
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:  # without a descriptor the kernel does not even look whether one waits
            return False
        except OSError:
            self._rest(error)
            return False
        else:
            close_with_reset(sock)
        finally:
            self._hold_reserve()
        self._shed += 1
        if self._shed_call is None:
            self._report_shed(error)
        return True

    def _report_shed(self, error: OSError) -> None:
        """Log the first reset connection, and then how many there were in each interval."""
        self._shed_call = None
        shed, self._shed = self._shed, 0
        if shed:
            self._log.warn(
                "reset {count} new connections at port {port}: {error}; raise the limit of open files (LimitNOFILE)",
                count=shed,
                port=self.address[1],
                error=error.strerror,
            )
            self._shed_call = self._reactor.callLater(SHED_LOG_INTERVAL, self._report_shed, error)

    def _rest(self, error: OSError) -> None:
        line = "cannot take more connections: {error}; raise the limit of open files (LimitNOFILE)"
        self._limited.warn("", line, error=error.strerror)
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(EXHAUSTED_PAUSE, self._reactor.addReader, self)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """Go on listening: the reactor drops a reader whose method raised, and one connection must not end all."""
        if self._sock.fileno() != -1:
            self._reactor.callLater(0, self._reactor.addReader, self)

    def logPrefix(self) -> str:
        """Return how the log names this descriptor."""
        return "listener"


def _listening_socket(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound_receive_buffer(sock)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{address[0]} port {address[1]}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"TCP {where} is in use by another program: stop it, or free the port") from None
        raise ConfigurationError(f"cannot listen at TCP {where}: {error.strerror}") from None
    return sock
