"""How an attempt to connect ends, on real sockets of the loopback interface."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from seamless.errors import UnreachableError
from seamless.transport.dial import LINGER_ZERO, Dial

SAID = bytes(range(256)) * 400
SETTLE_SECONDS = 0.05
"""For a reset to cross the loopback interface."""


class WatchingClock(Clock):
    """A clock that notes which descriptors are to be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[object] = []

    def addWriter(self, writer: object) -> None:
        self.watched.append(writer)

    def removeWriter(self, writer: object) -> None:
        """Do nothing: no test needs it."""


class DialTests(TestCase):
    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)

    def dial(self, address: Any) -> Deferred[Any]:
        """Connect; the result is a socket or an `UnreachableError`."""
        ended: Deferred[Any] = Deferred()
        Dial(reactor, address, ended.callback, ended.callback)
        return ended

    def accept_say_and_reset(self, said: bytes) -> None:
        """Be a server that says all it has to say and resets the connection, before the dialler looks at it."""
        server, _ = self.listener.accept()
        server.sendall(said)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        time.sleep(SETTLE_SECONDS)
        server.close()
        time.sleep(SETTLE_SECONDS)

    async def test_what_a_server_said_before_it_reset_is_read_before_the_reset(self) -> None:
        ended = self.dial(self.listener.getsockname())
        self.accept_say_and_reset(SAID)
        sock = await ended
        self.addCleanup(sock.close)
        received = b""
        while len(received) < len(SAID):
            received += sock.recv(1 << 16)
        self.assertEqual(received, SAID)
        self.assertEqual(self.assertRaises(OSError, sock.recv, 1).errno, errno.ECONNRESET)

    async def test_a_server_that_resets_without_a_word(self) -> None:
        ended = self.dial(self.listener.getsockname())
        self.accept_say_and_reset(b"")
        error = await ended
        self.assertIsInstance(error, UnreachableError)
        self.assertIn("reset by peer", str(error))

    def test_a_server_on_this_host_needs_no_wait(self) -> None:
        """The kernel has made the connection by the time that ``connect`` returns: nothing watches the socket."""
        clock = WatchingClock()
        ended: list[Any] = []
        Dial(clock, self.listener.getsockname(), ended.append, ended.append)
        self.assertEqual(ended, [], "never from within the constructor")
        clock.advance(0)
        self.assertEqual((clock.watched, clock.getDelayedCalls()), ([], []))
        self.addCleanup(ended[0].close)
        self.assertEqual(ended[0].getpeername(), self.listener.getsockname())

    async def test_nobody_listens(self) -> None:
        address = self.listener.getsockname()
        self.listener.close()
        error = await self.dial(address)
        self.assertIsInstance(error, UnreachableError)
        self.assertIn("connection refused", str(error))
