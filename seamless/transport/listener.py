"""A listening TCP socket that loses nobody in a storm.

Twisted's own port takes connections too, but wraps each in a transport that we do not want (`transport.splice` says
why), and listens with a backlog of 50, of which a thousand connects at once lose most.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import ConfigurationError
from seamless.interfaces import Address
from seamless.transport.dial import prepare

BACKLOG: Final = 4096
"""Connections that may wait while the daemon is busy; the kernel caps it at net.core.somaxconn (4096)."""
ACCEPT_BATCH: Final = 64
"""Connections taken per wake-up, so that a storm does not starve the links."""
EXHAUSTED_PAUSE: Final = 1.0
"""Seconds without accepting after the process or the machine ran out of descriptors or memory."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class Listener:
    """Listens at one address and gives each connection (prepared) and its client's address to ``accepted``."""

    _log = Logger()

    def __init__(self, reactor: Any, address: Address, accepted: Callable[[socket.socket, Address], None]) -> None:
        self._reactor = reactor
        self._accepted = accepted
        self._pause: IDelayedCall | None = None
        self._sock = _listening_socket(address)
        self.address: Address = self._sock.getsockname()[:2]
        reactor.addReader(self)

    def close(self) -> None:
        """Listen no more; connections that nobody took are reset by the kernel."""
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self._reactor.removeReader(self)
        self._sock.close()

    def doRead(self) -> None:
        """Take the connections that wait."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, client = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._rest(error)
                    return
                continue  # this client is gone already (ECONNABORTED and kin, accept(2))
            prepare(sock)
            self._accepted(sock, client[:2])

    def _rest(self, error: OSError) -> None:
        self._log.warn(
            "cannot take more connections: {error}; raise the limit of open files (LimitNOFILE)", error=error.strerror
        )
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
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{address[0]} port {address[1]}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"TCP {where} is in use by another program: stop it, or free the port") from None
        raise ConfigurationError(f"cannot listen at TCP {where}: {error.strerror}") from None
    return sock
