"""A listener goes on after what would stop others: too many open files, and an exception in its factory."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from twisted.logger import ILogObserver, Logger, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import ConfigurationError
from seamless.interfaces import Address
from seamless.test.transport.watch import Watch
from seamless.transport.listener import EXHAUSTED_PAUSE, SHED_LOG_INTERVAL, Listener


class ListenerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Watch()
        self.clients: list[Address] = []
        self.listener = Listener(self.reactor, ("127.0.0.1", 0), self.accepted)
        self.addCleanup(self.listener.close)

    def accepted(self, sock: socket.socket, client: Address) -> None:
        self.clients.append(client)
        self.assertFalse(sock.getblocking())
        sock.close()

    def connect(self) -> Address:
        client = socket.create_connection(self.listener.address)
        self.addCleanup(client.close)
        address: Address = client.getsockname()
        return address

    def test_takes_all_that_wait(self) -> None:
        waiting = [self.connect() for _ in range(5)]
        self.listener.doRead()
        self.assertEqual(self.clients, waiting)

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """Let no descriptor be left that is not in use."""
        taken = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            yield
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def waiting_client(self) -> socket.socket:
        """Return a client whose connection the kernel has answered."""
        client = socket.create_connection(self.listener.address, timeout=5)
        self.addCleanup(client.close)
        return client

    def test_resets_when_there_are_no_descriptors_left(self) -> None:
        """And goes on taking connections when there are some again."""
        lines: list[str] = []
        self.patch(
            Listener, "_log", Logger(observer=cast(ILogObserver, lambda event: lines.append(formatEvent(event))))
        )
        clients = [self.waiting_client() for _ in range(3)]
        with self.exhausted():
            self.assertRaises(OSError, os.dup, 0)
            self.listener.doRead()
            for client in clients:
                self.assertRaises(ConnectionResetError, client.recv, 1)
            self.assertEqual(self.reactor.readers, [self.listener])
        self.assertEqual(self.clients, [])
        port = self.listener.address[1]
        why = "Too many open files; raise the limit of open files (LimitNOFILE)"
        self.assertEqual(lines, [f"reset 1 new connections at port {port}: {why}"])
        address = self.connect()
        self.listener.doRead()
        self.assertEqual(self.clients, [address])
        self.reactor.advance(SHED_LOG_INTERVAL)
        self.assertEqual(lines[1:], [f"reset 2 new connections at port {port}: {why}"])
        self.reactor.advance(SHED_LOG_INTERVAL)
        self.assertEqual(len(lines), 2)

    def test_rests_when_the_reserve_is_gone_too(self) -> None:
        client = self.connect()
        self.patch(self.listener, "_hold_reserve", lambda: None)
        self.listener._release_reserve()
        with self.exhausted():
            self.listener.doRead()
        self.assertEqual((self.clients, self.reactor.readers), ([], []))
        self.reactor.advance(EXHAUSTED_PAUSE)
        self.assertEqual(self.reactor.readers, [self.listener])
        self.listener.doRead()
        self.assertEqual(self.clients, [client])

    def test_goes_on_after_a_fault(self) -> None:
        self.reactor.readers.clear()
        self.listener.connectionLost(Failure(ZeroDivisionError()))
        self.reactor.advance(0)
        self.assertEqual(self.reactor.readers, [self.listener])

    def test_address_of_another_host(self) -> None:
        error = self.assertRaises(ConfigurationError, Listener, self.reactor, ("192.0.2.1", 0), self.accepted)
        self.assertEqual(str(error), "cannot listen at TCP 192.0.2.1 port 0: Cannot assign requested address")
