"""The kernel's packet queues and raw sockets, in a namespace of our own: what is captured, passes, is released.

`Capture` runs here as it does in the privileged part; only the process is the test's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import PrivilegeError
from seamless.lab.daemons import environment
from seamless.linux import capture, nfqueue
from seamless.linux.capture import BIND, FRAME, ORDER, OUTLET, PACKETS, UNBIND, Capture, CaptureCounters
from seamless.linux.ip_packet import TCP, UDP, Header, is_intact, parse
from seamless.linux.outlet import Outlet
from seamless.linux.rawsocket import open_raw, path_mtu
from seamless.linux.sockopt import SO_RCVBUFFORCE, SO_SNDBUFFORCE, UDP_SEGMENT
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace, NamespaceTestCase
from seamless.transport.capture_reader import capture_channel

QUEUE = 7400
MARK = 0x1000
PORT = 5000
TIMEOUT = 5.0
QUIET = 0.2
LONGEST_UDP = 65_507
FLOOD_PACKETS = 500
SMALL_CAPTURE = """
import socket, sys
from seamless.linux import nfqueue
from seamless.linux.capture import Capture
from seamless.linux.outlet import Outlet
from seamless.linux.ip_packet import parse
nfqueue.BUFFER_BYTES = 100_000
channel, queue = map(int, sys.argv[1:])
Capture(socket.socket(fileno=channel), {queue: True}, Outlet(parse, {})).run()
"""
"""A buffer that overflows without a flood of a hundred thousand."""


def outlet(mark: int) -> Outlet:
    """Return a way back for packets to `PORT` and from it, and no others."""

    def inspect(packet: bytes) -> Header | None:
        header = parse(packet)
        return header if PORT in (header.source_port, header.destination_port) else None

    return Outlet(inspect, {version: open_raw(version, mark) for version in (4, 6)})


class CaptureTestCase(NamespaceTestCase):
    """A namespace whose packets to `PORT` are sent aside into `QUEUE`."""

    skip = SKIP_WITHOUT_ROOT
    super_packets = True

    def setUp(self) -> None:
        super().setUp()
        for tool in ("iptables", "ip6tables"):
            for protocol in ("tcp", "udp"):
                self.namespace.run(
                    tool, "-A", "OUTPUT", "-p", protocol, "--dport", str(PORT), "-m", "mark", "!", "--mark", "0x1000",
                    "-j", "NFQUEUE", "--queue-num", str(QUEUE), "--queue-bypass",
                )  # fmt: skip
        self.messages: list[bytes] = []
        self.outlets: list[socket.socket] = []
        self.channel, theirs = capture_channel()
        self.addCleanup(self.channel.close)
        self.addCleanup(theirs.close)
        self.addCleanup(self.wait_for_the_end)
        self.start_capture(theirs)
        self.hear(lambda: bool(self.outlets))
        (self.outlet,) = self.outlets
        self.addCleanup(self.outlet.close)

    def start_capture(self, theirs: socket.socket) -> None:
        """Run what is tested at the other end of the channel, until ours is closed."""
        Capture(theirs, {QUEUE: self.super_packets}, outlet(MARK)).start()
        self.addCleanup(self.channel.close)

    def wait_for_the_end(self) -> None:
        until = time.monotonic() + TIMEOUT
        while QUEUE in nfqueue.kernel_drops() and time.monotonic() < until:
            time.sleep(0.01)

    def hear(self, enough: Callable[[], bool], timeout: float = TIMEOUT) -> None:
        """Take messages until there are enough."""
        until = time.monotonic() + timeout
        while not enough() and time.monotonic() < until:
            if select.select((self.channel,), (), (), 0.05)[0]:
                message, descriptors, _, _ = socket.recv_fds(self.channel, 100_000, 1)
                if message and message[0] == OUTLET:
                    self.outlets.append(socket.socket(fileno=descriptors[0]))
                elif message:
                    self.messages.append(message)

    @property
    def packets(self) -> list[bytes]:
        """Return all packets that came."""
        packets = []
        for message in self.messages:
            at = 1 if message[0] == PACKETS else len(message)
            while at < len(message):
                queue, length = FRAME.unpack_from(message, at)
                self.assertEqual(queue, QUEUE)
                packets.append(message[at + FRAME.size : at + FRAME.size + length])
                at += FRAME.size + length
        return packets

    def hear_packets(self, count: int, timeout: float = TIMEOUT) -> list[bytes]:
        self.hear(lambda: len(self.packets) >= count, timeout)
        return self.packets

    def order(self, word: bytes) -> None:
        """Have the queue bound or not, and wait until the kernel says so."""
        self.channel.send(ORDER.pack(word, QUEUE))
        until = time.monotonic() + TIMEOUT
        while (QUEUE in nfqueue.kernel_drops()) != (word == BIND):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.005)

    def receiver(self, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind((host, PORT))
        sock.settimeout(TIMEOUT)
        return sock

    def sender(self, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.connect((host, PORT))
        return sock

    def counters(self, enough: Callable[[CaptureCounters], bool]) -> CaptureCounters:
        """Wait for a report that says so."""

        def newest() -> CaptureCounters:
            reports = [message for message in self.messages if message[0] == capture.COUNTERS]
            return capture.decode_counters(reports[-1]) if reports else CaptureCounters()

        self.hear(lambda: enough(newest()))
        return newest()


class QueueTests(CaptureTestCase):
    """What comes out of a queue."""

    def test_captured_whole_and_not_delivered(self) -> None:
        receiver, sender = self.receiver(), self.sender()
        self.order(BIND)
        sizes = (1, 1400, 4016, 4017, 40_000)
        for size in sizes:
            sender.send(bytes(size))
        packets = self.hear_packets(len(sizes))
        self.assertEqual([len(packet) for packet in packets], [28 + size for size in sizes])
        for packet in packets:
            header = parse(packet)
            self.assertEqual((header.protocol, header.destination_port), (UDP, PORT))
            self.assertTrue(is_intact(packet, header))
        receiver.settimeout(QUIET)
        self.assertRaises(TimeoutError, receiver.recv, 1)

    def test_ipv6(self) -> None:
        self.receiver("::1")
        self.order(BIND)
        self.sender("::1").send(b"hello")
        (packet,) = self.hear_packets(1)
        header = parse(packet)
        self.assertEqual((header.version, packet[header.transport + 8 :]), (6, b"hello"))
        self.assertTrue(is_intact(packet, header))

    def test_an_unbound_queue_lets_everything_pass(self) -> None:
        receiver, sender = self.receiver(), self.sender()
        sender.send(b"before")
        self.assertEqual(receiver.recv(100), b"before")
        self.order(BIND)
        sender.send(b"captured")
        self.hear_packets(1)
        self.order(UNBIND)
        sender.send(b"after")
        self.assertEqual(receiver.recv(100), b"after")
        self.assertEqual(len(self.packets), 1)

    def test_the_daemon_ends(self) -> None:
        receiver, sender = self.receiver(), self.sender()
        self.order(BIND)
        self.channel.close()
        self.wait_for_the_end()
        sender.send(b"the native way")
        self.assertEqual(receiver.recv(100), b"the native way")

    def test_the_longest_packets(self) -> None:
        """Four bytes are more than a queue can hand over: such packets go the native way, and are counted."""
        receiver, sender = self.receiver(), self.sender()
        self.order(BIND)
        longest_carried = nfqueue.COPY_BYTES - 28
        sender.send(bytes(longest_carried))
        (packet,) = self.hear_packets(1)
        self.assertEqual(len(packet), nfqueue.COPY_BYTES)
        self.assertTrue(is_intact(packet, parse(packet)))
        for size in (longest_carried + 1, LONGEST_UDP):
            sender.send(bytes(size))
            self.assertEqual(len(receiver.recv(70_000)), size)
        counters = self.counters(lambda counters: counters.passed_truncated == 2)
        self.assertEqual((counters.passed_truncated, counters.captured), (2, 1))

    def test_a_daemon_that_does_not_read(self) -> None:
        """Its packets go the native way, but for those that it can still have; and it gets new ones when it reads."""
        receiver, sender = self.receiver(), self.sender()
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.order(BIND)
        sent = 0
        until = time.monotonic() + 2 * TIMEOUT
        receiver.setblocking(False)
        while time.monotonic() < until:
            sender.send(bytes(60_000))
            sent += 1
            try:
                receiver.recv(70_000)
                break
            except BlockingIOError:
                pass
        self.assertGreater(sent, 50)
        time.sleep(QUIET)
        self.counters(lambda counters: counters.passed_unread > 0)
        seen = len(self.packets)
        sender.send(b"read again")
        self.assertEqual(self.hear_packets(seen + 1)[-1][28:], b"read again")


class RefusedTests(CaptureTestCase):
    """A queue whose packets may not go natively."""

    def start_capture(self, theirs: socket.socket) -> None:
        Capture(theirs, {QUEUE: True}, outlet(MARK), {QUEUE}).start()

    def test_what_cannot_be_carried_goes_nowhere(self) -> None:
        receiver, sender = self.receiver(), self.sender()
        self.order(BIND)
        for _ in range(2):
            sender.send(bytes(LONGEST_UDP))
        self.assertEqual(self.counters(lambda counters: counters.passed_truncated == 2).passed_truncated, 2)
        sender.send(b"what can")
        self.assertEqual(self.hear_packets(1)[-1][28:], b"what can")
        receiver.settimeout(QUIET)
        self.assertRaises(TimeoutError, receiver.recv, 70_000)


class OverrunTests(CaptureTestCase):
    """What reads the queue stands still during a flood: it is a process of its own here, as it is beside a daemon."""

    def start_capture(self, theirs: socket.socket) -> None:
        words = [sys.executable, "-c", SMALL_CAPTURE, str(theirs.fileno()), str(QUEUE)]
        self.reader = subprocess.Popen(words, pass_fds=[theirs.fileno()], env=environment())
        self.addCleanup(self.reader.wait)
        self.addCleanup(self.reader.send_signal, signal.SIGCONT)
        self.addCleanup(self.channel.close)

    def test_a_flood_while_nobody_reads(self) -> None:
        """What fits the buffer is captured, the rest goes the native way; all of it is counted, and life goes on."""
        receiver, sender = self.receiver(), self.sender()
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        # What waits in the queue counts as its sender's.
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)
        self.order(BIND)
        self.reader.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.reader.pid, os.WSTOPPED | os.WNOWAIT)
        for number in range(FLOOD_PACKETS):
            sender.send(number.to_bytes(8, "big") + bytes(1000))
        receiver.setblocking(False)
        native = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                native.add(int.from_bytes(receiver.recv(2000)[:8], "big"))
        self.assertGreater(len(native), 0)
        self.reader.send_signal(signal.SIGCONT)
        captured = {int.from_bytes(packet[28:36], "big") for packet in self.hear_packets(FLOOD_PACKETS - len(native))}
        self.assertGreater(len(captured), 0)
        self.assertEqual((captured | native, captured & native), (set(range(FLOOD_PACKETS)), set()))
        counters = self.counters(lambda counters: counters.captured == len(captured) and counters.overruns > 0)
        self.assertEqual((counters.captured, counters.kernel_drops), (len(captured), len(native)))
        self.assertEqual(counters.overruns, 1)
        sender.send(b"captured again")
        self.assertEqual(self.hear_packets(len(captured) + 1)[-1][28:], b"captured again")


class TcpTests(CaptureTestCase):
    """TCP's super-packets."""

    def test_super_packets_are_whole_and_their_checksums_right(self) -> None:
        """Carried by hand: each captured packet is handed back, and the connection works."""
        self.order(BIND)
        listener = socket.create_server(("127.0.0.1", PORT))
        self.addCleanup(listener.close)
        client = socket.socket()
        self.addCleanup(client.close)
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", PORT))
        data = bytes(range(256)) * 4096
        server: socket.socket | None = None
        got, sent, carried = b"", 0, 0
        until = time.monotonic() + 2 * TIMEOUT
        longest = 0
        while len(got) < len(data) and time.monotonic() < until:
            self.hear_packets(carried + 1, 0.02)
            for packet in self.packets[carried:]:
                header = parse(packet)
                self.assertEqual(header.protocol, TCP)
                self.assertTrue(is_intact(packet, header))
                longest = max(longest, len(packet))
                self.outlet.send(packet)
                carried += 1
            if server is None and select.select((listener,), (), (), 0)[0]:
                server, _ = listener.accept()
                server.setblocking(False)
                self.addCleanup(server.close)
            if server is not None and sent < len(data):
                try:
                    sent += client.send(data[sent:])
                except BlockingIOError:
                    pass
            if server is not None:
                try:
                    got += server.recv(1 << 20)
                except BlockingIOError:
                    pass
        self.assertEqual(got, data)
        self.assertGreater(longest, 20_000)


class SingleTests(CaptureTestCase):
    """Where super-packets are not wanted, the kernel cuts them."""

    super_packets = False

    def test_udp_batches_are_cut(self) -> None:
        self.order(BIND)
        self.receiver()
        sender = self.sender()
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.send(bytes(5500))
        packets = self.hear_packets(6)
        self.assertEqual([len(packet) for packet in packets], [1028] * 5 + [528])
        self.assertTrue(all(is_intact(packet, parse(packet)) for packet in packets))


class RawSocketTests(SynchronousTestCase):
    skip = SKIP_WITHOUT_ROOT

    def test_someone_else_listens(self) -> None:
        namespace = Namespace()
        self.addCleanup(namespace.remove)
        with namespace.entered():
            one, other = nfqueue.QueueSocket(), nfqueue.QueueSocket()
            self.addCleanup(one.close)
            self.addCleanup(other.close)
            one.bind(QUEUE, super_packets=True)
            self.assertRaises(PrivilegeError, other.bind, QUEUE, super_packets=True)
            one.unbind(QUEUE)
            other.bind(QUEUE, super_packets=False)

    def test_mark_and_mtu(self) -> None:
        near, far = Namespace(), Namespace()
        self.addCleanup(near.remove)
        self.addCleanup(far.remove)
        near.join(far, "10.77.0.1/24", "10.77.0.2/24", mtu=1400)
        with near.entered():
            self.assertEqual(path_mtu(4, "10.77.0.2"), 1400)
            self.assertEqual(path_mtu(4, "127.0.0.1"), 65_535)
            raw = open_raw(4, MARK)
            self.addCleanup(raw.close)
            self.assertEqual(raw.getsockopt(socket.SOL_SOCKET, socket.SO_MARK), MARK)
            error = self.assertRaises(OSError, raw.sendto, b"\x45" + bytes(1500), ("10.77.0.2", 0))
            self.assertEqual(error.errno, errno.EMSGSIZE)
