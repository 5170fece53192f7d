"""A listener survives what would stop others: too many open files, and a fault in whoever takes its connections."""

from __future__ import annotations

import os
import resource
import socket

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import ConfigurationError
from seamless.interfaces import Address
from seamless.test.transport.watch import Watch
from seamless.transport.listener import EXHAUSTED_PAUSE, Listener


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

    def test_rests_when_there_are_no_descriptors_left(self) -> None:
        client = self.connect()
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            self.listener.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
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
