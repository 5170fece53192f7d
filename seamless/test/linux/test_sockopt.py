"""Socket options, on real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from ast import literal_eval

from twisted.trial.unittest import SynchronousTestCase

from seamless.linux import sockopt
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT

UNPRIVILEGED_ID = 65534


class DatagramOptionTests(SynchronousTestCase):
    family = socket.AF_INET
    option = (socket.IPPROTO_IP, sockopt.IP_MTU_DISCOVER)

    def setUp(self) -> None:
        self.sock = socket.socket(self.family, socket.SOCK_DGRAM)
        self.addCleanup(self.sock.close)

    def test_receive_offload(self) -> None:
        self.assertTrue(sockopt.set_gro(self.sock))
        self.assertEqual(self.sock.getsockopt(sockopt.SOL_UDP, sockopt.UDP_GRO), 1)

    def test_a_socket_without_receive_offload(self) -> None:
        with socket.socket(self.family, socket.SOCK_STREAM) as other:
            self.assertFalse(sockopt.set_gro(other))

    def test_dont_fragment(self) -> None:
        sockopt.set_dont_fragment(self.sock)
        self.assertEqual(self.sock.getsockopt(*self.option), sockopt.IP_PMTUDISC_PROBE)

    def test_drops_are_reported(self) -> None:
        sockopt.report_drops(self.sock)
        self.assertEqual(self.sock.getsockopt(socket.SOL_SOCKET, sockopt.SO_RXQ_OVFL), 1)

    def test_small_buffers_are_granted_to_everybody(self) -> None:
        self.assertEqual(sockopt.set_buffers(self.sock, 50_000), (50_000, 50_000))


class DatagramOptionsOfIPv6Tests(DatagramOptionTests):
    family = socket.AF_INET6
    option = (socket.IPPROTO_IPV6, sockopt.IPV6_MTU_DISCOVER)


class PrivilegeTests(SynchronousTestCase):
    """What root may, and the sentence for those who may not."""

    skip = SKIP_WITHOUT_ROOT

    def test_large_buffers(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            self.assertEqual(sockopt.set_buffers(sock, 64 << 20), (64 << 20, 64 << 20))

    def test_a_mark(self) -> None:
        with socket.socket() as sock:
            sockopt.set_mark(sock, 0x1000)
            self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK), 0x1000)

    def unprivileged(self, program: str) -> str:
        """Return what a program prints that has given up root after its imports."""
        drop = f"import os; os.setgroups([]); os.setgid({UNPRIVILEGED_ID}); os.setuid({UNPRIVILEGED_ID})"
        full = f"import socket; from seamless.linux import sockopt; sock = socket.socket(); {drop}\n{program}"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, "-c", full], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def test_a_mark_without_privilege(self) -> None:
        program = "try: sockopt.set_mark(sock, 1)\nexcept sockopt.PrivilegeError as error: print(error)"
        self.assertRegex(self.unprivileged(program), "^cannot mark .* CAP_NET_ADMIN$")

    def test_large_buffers_without_privilege(self) -> None:
        received, sent = literal_eval(self.unprivileged("print(sockopt.set_buffers(sock, 1 << 30))"))
        self.assertLess(received, 1 << 30)
        self.assertLess(sent, 1 << 30)


class OriginalDestinationTests(SynchronousTestCase):
    """Connections that nothing diverted; for those that were, see `test_iptables`."""

    def test_the_local_address(self) -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.create_server((host, 0), family=family) as listener:
                address = listener.getsockname()[:2]
                with socket.create_connection(address), listener.accept()[0] as accepted:
                    self.assertEqual(sockopt.original_destination(accepted), address)

    def test_a_connection_that_is_gone(self) -> None:
        """What accept gave may be dead; the caller gets an OSError."""
        sock = socket.socket()
        sock.close()
        self.assertRaises(OSError, sockopt.original_destination, sock)
