"""The daemon's end of what connects sockets with clients' addresses (`seamless.linux.transparent`)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, Final, TypeAlias

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.linux.transparent import ANSWER, MESSAGE_BYTES, NOT_ALLOWED, REQUEST

OnConnecting: TypeAlias = Callable[[int, str], None]
"""Called with (0, "") once the connection is being made, else with an errno and perhaps a reason."""

READS: Final = 64
"""Answers that one turn of the reactor takes."""


@implementer(IReadDescriptor)
class TransparentDials:
    """Asks for connections with clients' addresses, while there is a privileged part (`attach`)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._channel: socket.socket | None = None
        self._numbers = count()
        self._asked: dict[int, OnConnecting] = {}

    def attach(self, channel: socket.socket) -> None:
        """Ask over this socket from now on."""
        self.close()
        channel.setblocking(False)
        self._channel = channel
        self._reactor.addReader(self)

    def close(self) -> None:
        """Ask no more; what was asked fails."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._reactor.removeReader(self)
            channel.close()
        asked, self._asked = self._asked, {}
        for done in asked.values():
            done(errno.EPERM, "the privileged part that connects with clients' addresses is gone")

    def connect(self, sock: socket.socket, wanted: bytes, done: OnConnecting) -> None:
        """Have ``sock`` connected as ``wanted`` says; ``done`` is called later, never from here."""
        number = next(self._numbers) & 0xFFFF_FFFF
        try:
            if self._channel is None:
                raise ConnectionError
            socket.send_fds(self._channel, [REQUEST.pack(number) + wanted], [sock.fileno()])
        except BlockingIOError:
            self._reactor.callLater(0, done, errno.EAGAIN, "too many connections with clients' addresses wait")
        except OSError:
            reason = "no privileged part connects with clients' addresses here: is this node started as root?"
            self._reactor.callLater(0, done, errno.EPERM, reason)
        else:
            self._asked[number] = done

    def doRead(self) -> None:
        """Take the answers that wait."""
        for _ in range(READS):
            if self._channel is None:
                return
            try:
                message = self._channel.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if len(message) < ANSWER.size:
                self.close()
                return
            number, error = ANSWER.unpack_from(message)
            done = self._asked.pop(number, None)
            if done is not None:
                reason = message[ANSWER.size :].decode(errors="replace")
                done(errno.EPERM if error == NOT_ALLOWED else error, reason)

    # What the reactor asks.

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when there is none."""
        return -1 if self._channel is None else self._channel.fileno()

    def logPrefix(self) -> str:
        """Return the name of this reader for the reactor's log."""
        return "transparent dials"

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the end of the socket pair is read, not reported."""
