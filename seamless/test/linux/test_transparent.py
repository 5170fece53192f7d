"""What connects with clients' addresses: real sockets in a namespace, and a daemon that asks for what it may not."""

from __future__ import annotations

import errno
import os
import socket

from seamless.linux.transparent import (
    ANSWER,
    IP_TRANSPARENT,
    NOT_ALLOWED,
    REQUEST,
    Endpoints,
    TransparentDialer,
)
from seamless.test.linux.namespaces import NamespaceTestCase
from seamless.transport.dial import LINGER_ZERO

CLIENT = "10.66.0.1"
MARK = 0x3000


class DialerTests(NamespaceTestCase):
    """The kernel's loopback interface is all there is: answers go where no route leads."""

    def setUp(self) -> None:
        super().setUp()
        self.namespace.run("ip", "route", "add", "local", f"{CLIENT}/32", "dev", "lo", "table", "7")
        self.namespace.run("ip", "route", "add", f"{CLIENT}/32", "dev", "lo")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)
        self.daemon, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.daemon.close)
        self.daemon.settimeout(5)
        self.asked: list[bytes] = []
        TransparentDialer(theirs, self.authorise, MARK).start()

    def authorise(self, message: bytes) -> Endpoints | str:
        self.asked.append(message)
        if message != b"please":
            return "because of the test"
        return Endpoints((CLIENT, 4000), self.server.getsockname())

    def ask(self, sock: socket.socket | None, wanted: bytes = b"please", number: int = 7) -> tuple[int, bytes]:
        descriptors = [] if sock is None else [sock.fileno()]
        socket.send_fds(self.daemon, [REQUEST.pack(number) + wanted], descriptors)
        answer = self.daemon.recv(2000)
        self.assertEqual(ANSWER.unpack_from(answer)[0], number)
        return ANSWER.unpack_from(answer)[1], answer[ANSWER.size :]

    def test_the_daemons_socket_gets_address_mark_and_connection(self) -> None:
        with socket.socket() as sock:
            self.assertEqual(self.ask(sock), (0, b""))
            self.assertEqual(sock.getsockname(), (CLIENT, 4000))
            self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK), MARK)
            self.assertEqual(sock.getsockopt(socket.IPPROTO_IP, IP_TRANSPARENT), 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        with socket.socket() as another:
            self.assertEqual(self.ask(another, number=8)[0], 0, "the first one is closed: nothing here holds it")

    def test_a_port_that_is_taken(self) -> None:
        with socket.socket() as first, socket.socket() as second:
            self.assertEqual(self.ask(first)[0], 0)
            self.assertIn(self.ask(second)[0], (errno.EADDRNOTAVAIL, errno.EADDRINUSE))

    def test_what_is_not_authorised_is_not_touched(self) -> None:
        with socket.socket() as sock:
            self.assertEqual(self.ask(sock, b"something else"), (NOT_ALLOWED, b"because of the test"))
            self.assertEqual(sock.getsockopt(socket.IPPROTO_IP, IP_TRANSPARENT), 0)
            self.assertEqual(sock.getsockname(), ("0.0.0.0", 0))

    def test_what_is_no_tcp_socket(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_INET6) as other_version:
            self.assertEqual(self.ask(udp)[0], errno.EPROTOTYPE)
            self.assertEqual(udp.getsockopt(socket.IPPROTO_IP, IP_TRANSPARENT), 0)
            self.assertEqual(self.ask(other_version)[0], errno.EPROTOTYPE)
        self.assertEqual(self.ask(None)[0], errno.EBADF)
        read, write = os.pipe()
        with open(read, "rb"), open(write, "wb"), socket.socket() as raw:
            socket.send_fds(self.daemon, [REQUEST.pack(1) + b"please"], [read])
            self.assertNotEqual(ANSWER.unpack_from(self.daemon.recv(2000))[1], 0)
            self.assertEqual(self.ask(raw)[0], 0, "and it serves on")
