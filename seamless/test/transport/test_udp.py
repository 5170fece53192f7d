"""UDP ports over the real kernel: batches whole, faults counted, nothing raised."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from seamless.errors import SeamlessError
from seamless.interfaces import Address, Transmit
from seamless.linux import sockopt
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace
from seamless.transport import udp
from seamless.transport.offload import MakeSocket, fault
from seamless.transport.udp import UdpPort

SEGMENT = 1400


class MemoryReactor:
    """Remembers who wants to read and write; the test calls them."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard


class FaultySocket(socket.socket):
    """A real socket whose sendmsg can be told to fail, or to spoil what it sends."""

    fault: Callable[[bool], int] = staticmethod(lambda with_offload: 0)
    spoil = False
    clock_step = 0
    """Seconds by which the wall clock was set forward after the kernel took in what is received."""
    has_receive_times = True
    faults = 0
    calls: list[bool]

    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, address: Any = None) -> int:
        with_offload = bool(ancillary)
        self.calls = [*getattr(self, "calls", []), with_offload]
        failure = self.fault(with_offload)
        if failure:
            self.faults += 1
            raise OSError(failure, os.strerror(failure))
        if self.spoil and with_offload:
            self.faults += 1
            buffers = [b"".join(buffers)[::-1]]
        return super().sendmsg(buffers, ancillary, flags, address)

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if option == sockopt.SO_TIMESTAMPNS and not self.has_receive_times:
            raise OSError(errno.ENOPROTOOPT, "no such option")
        super().setsockopt(level, option, *value)

    def recvmsg_into(self, *arguments: Any) -> Any:
        size, ancillary, flags, address = super().recvmsg_into(*arguments)
        changed = []
        for level, kind, data in ancillary:
            if kind == sockopt.SO_TIMESTAMPNS:
                seconds, nanoseconds = sockopt.RECEIVE_TIME.unpack(data)
                data = sockopt.RECEIVE_TIME.pack(seconds - self.clock_step, nanoseconds)
                self.faults += bool(self.clock_step)
            changed.append((level, kind, data))
        return size, changed, flags, address


class UntimedSocket(FaultySocket):
    """A socket of a kernel that gives no receive times."""

    has_receive_times = False


class Owner:
    """A port with a list of what came in."""

    def __init__(self, local: Address, make_socket: MakeSocket = FaultySocket) -> None:
        self.reactor = MemoryReactor()
        self.sockets: list[socket.socket] = []
        self.batches: list[tuple[bytes, int, Address, Address]] = []
        self.waited: list[float] = []
        self.calls: list[str] = []
        self.mistake: Exception | None = None

        def remember(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
            self.sockets.append(make_socket(family, kind))
            return self.sockets[-1]

        self.port = UdpPort(self.reactor, local, self.on_batch, self.on_idle, self.on_writable, remember)
        self.port.start()

    @property
    def socket(self) -> Any:
        """The port's own socket; those behind it were the self-test's."""
        return self.sockets[0]

    def on_batch(self, view: memoryview, segment_size: int, local: Address, remote: Address, waited: float) -> None:
        self.waited.append(waited)
        self.batches.append((bytes(view), segment_size, local, remote))
        self.calls.append("batch")

    def on_idle(self) -> None:
        if self.mistake is not None:
            raise self.mistake
        self.calls.append("idle")

    def on_writable(self) -> None:
        self.calls.append("writable")

    def datagrams(self) -> list[bytes]:
        """Read all that comes in, the first within seconds (a fresh veth is slow); return it datagram by datagram."""
        select.select([self.port], [], [], 3.0)
        while True:
            before = self.port.counters.batches_in
            self.port.doRead()
            if self.port.counters.batches_in == before:
                break
        cut = [data[start : start + size] for data, size, _, _ in self.batches for start in range(0, len(data), size)]
        self.batches.clear()
        return cut


def datagrams(count: int, size: int = SEGMENT, last: int | None = None) -> list[bytes]:
    """Return random datagrams of equal size, but for the last."""
    made = [os.urandom(size) for _ in range(count)]
    return made if last is None else [*made[:-1], made[-1][:last]]


class PortTestCase(SynchronousTestCase):
    """Two ports that can reach each other."""

    host = "127.0.0.1"

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.left = self.make_owner()
        self.right = self.make_owner()

    def make_owner(self, make_socket: MakeSocket = FaultySocket) -> Owner:
        owner = Owner((self.host, 0), make_socket)
        self.addCleanup(owner.port.stop)
        return owner

    def transmit(self, sent: list[bytes], buffers: list[bytes] | None = None) -> Transmit:
        return Transmit(self.left.port.local, self.right.port.local, buffers or sent, len(sent[0]), len(sent))

    def warnings(self) -> list[str]:
        return [
            event["log_format"] for event in self.events if str(event.get("log_namespace")).startswith(udp.__name__)
        ]


class BatchTests(PortTestCase):
    """What goes in comes out, with few system calls."""

    def test_a_batch_takes_one_call_each_way(self) -> None:
        sent = datagrams(44, last=1000)
        self.assertTrue(self.left.port.send(self.transmit(sent)))
        self.right.port.doRead()
        self.assertEqual(self.right.batches, [(b"".join(sent), SEGMENT, self.right.port.local, self.left.port.local)])
        self.assertEqual(self.right.calls, ["batch", "idle"])
        out, into = self.left.port.counters, self.right.port.counters
        self.assertEqual((out.batches_out, out.datagrams_out, out.bytes_out), (1, 44, 43 * SEGMENT + 1000))
        self.assertEqual((into.batches_in, into.datagrams_in, into.bytes_in), (1, 44, 43 * SEGMENT + 1000))
        self.assertEqual(self.warnings(), [])

    def test_a_datagram_may_span_buffers(self) -> None:
        sent = datagrams(10)
        halves = [part for datagram in sent for part in (datagram[:12], datagram[12:])]
        self.left.port.send(self.transmit(sent, halves))
        self.assertTrue(self.right.datagrams() == sent)

    def test_more_buffers_than_a_call_may_have(self) -> None:
        sent = datagrams(40)
        crumbs = [datagram[start : start + 20] for datagram in sent for start in range(0, SEGMENT, 20)]
        self.assertGreater(len(crumbs), udp.MAX_BUFFERS)
        self.left.port.send(self.transmit(sent, crumbs))
        self.assertTrue(self.right.datagrams() == sent)

    def test_a_single_datagram_goes_without_offload(self) -> None:
        sent = datagrams(1)
        self.left.port.send(self.transmit(sent))
        self.assertEqual(self.left.socket.calls, [False])
        self.assertTrue(self.right.datagrams() == sent)

    def test_batches_too_large_for_a_call_are_cut(self) -> None:
        for sent, calls in ((datagrams(150, 100, last=7), 3), (datagrams(50), 2), (datagrams(2, 60_000), 2)):
            self.left.socket.calls = []
            self.assertTrue(self.left.port.send(self.transmit(sent)))
            self.assertEqual(len(self.left.socket.calls), calls)
            self.assertTrue(self.right.datagrams() == sent)

    def test_a_wake_up_is_bounded(self) -> None:
        for sent in datagrams(udp.BATCHES_PER_WAKE + 2):
            self.left.port.send(self.transmit([sent]))
        self.right.port.doRead()
        self.assertEqual(self.right.calls, ["batch"] * udp.BATCHES_PER_WAKE + ["idle"])
        self.right.calls.clear()
        self.right.port.doRead()
        self.assertEqual(self.right.calls, ["batch", "batch", "idle"])
        self.right.port.doRead()
        self.assertEqual(self.right.calls, ["batch", "batch", "idle"])

    def test_any_size_comes_in(self) -> None:
        sizes = (1, 20, 65_507)
        with socket.socket(self.left.socket.family, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"", self.right.port.local)
            for size in sizes:
                stranger.sendto(os.urandom(size), self.right.port.local)
        self.assertEqual([len(datagram) for datagram in self.right.datagrams()], list(sizes))
        self.assertEqual(self.right.port.counters.empty_in, 1)
        self.assertEqual(self.right.port.counters.datagrams_in, 4)

    def test_how_long_a_batch_waited_in_the_socket(self) -> None:
        """The first one waits; the second, which comes while the owner has the first, nearly does not."""
        self.left.port.send(self.transmit(datagrams(10)))
        time.sleep(0.05)
        self.right.port.doRead()
        self.left.port.send(self.transmit(datagrams(10)))
        self.right.port.doRead()
        first, second = self.right.waited
        self.assertGreaterEqual(first, 0.05)
        self.assertLess(second, first / 2)

    def test_a_wall_clock_that_is_set(self) -> None:
        """Nothing waits for less than no time, or since before the socket was last empty."""
        for step in (3600, -3600):
            self.right.port.doRead()
            empty_at = time.monotonic()
            self.right.socket.clock_step = step
            self.left.port.send(self.transmit(datagrams(10)))
            self.right.port.doRead()
            self.assertGreaterEqual(self.right.waited[-1], 0.0)
            self.assertLess(self.right.waited[-1], time.monotonic() - empty_at + 0.01)
        self.assertEqual(self.right.socket.faults, 2)

    def test_a_kernel_without_receive_times(self) -> None:
        self.right = self.make_owner(UntimedSocket)
        sent = datagrams(10)
        self.left.port.send(self.transmit(sent))
        time.sleep(0.01)
        self.assertTrue(self.right.datagrams() == sent)
        self.assertEqual(self.right.waited, [0.0])


class BatchOverIPv6Tests(BatchTests):
    """The same over IPv6."""

    host = "::1"


class FaultTests(PortTestCase):
    """Whatever the kernel answers, nothing raises and everything is counted."""

    def test_offload_refused_at_run_time(self) -> None:
        self.left.socket.fault = lambda with_offload: errno.EIO if with_offload else 0
        for _ in range(3):
            sent = datagrams(20)
            self.assertTrue(self.left.port.send(self.transmit(sent)))
            self.assertTrue(self.right.datagrams() == sent)
        counters = self.left.port.counters
        self.assertEqual(self.left.socket.faults, 1)
        self.assertEqual((counters.offload_fallbacks, counters.datagrams_lost), (1, 0))
        self.assertEqual(counters.send_errors, {"EIO": 1})
        self.assertEqual(len(self.warnings()), 1)

    def test_a_fault_that_is_not_the_offload_s(self) -> None:
        self.left.socket.fault = lambda with_offload: errno.EMSGSIZE
        self.assertFalse(self.left.port.send(self.transmit(datagrams(3))))
        self.left.socket.fault = lambda with_offload: 0
        sent = datagrams(20)
        self.left.socket.calls = []
        self.left.port.send(self.transmit(sent))
        self.assertEqual(self.left.socket.calls, [True])
        self.assertTrue(self.right.datagrams() == sent)
        self.assertEqual(self.left.port.counters.datagrams_lost, 3)
        self.assertEqual(self.left.port.counters.send_errors, {"EMSGSIZE": 4})
        self.assertEqual(self.warnings(), [])

    def test_a_full_socket_holds_in_order(self) -> None:
        sent = datagrams(30)
        port = self.left.port
        self.left.socket.fault = lambda with_offload: errno.EAGAIN
        self.assertTrue(port.send(self.transmit(sent[:10])))
        self.assertTrue(port.send(self.transmit(sent[10:20])))
        self.assertFalse(port.writable)
        self.assertEqual(self.left.reactor.writers, {port})
        port.doWrite()
        self.assertFalse(port.writable)
        self.assertEqual((self.left.socket.faults, self.left.calls), (2, []))
        self.left.socket.fault = lambda with_offload: 0
        port.doWrite()
        self.assertTrue(port.writable)
        self.assertEqual((self.left.reactor.writers, self.left.calls), (set(), ["writable"]))
        port.send(self.transmit(sent[20:]))
        self.assertTrue(self.right.datagrams() == sent)
        self.assertEqual(port.counters.datagrams_lost, 0)

    def test_what_a_full_socket_holds_is_bounded(self) -> None:
        self.left.socket.fault = lambda with_offload: errno.EAGAIN
        sent = datagrams(64, 100)
        taken = [self.left.port.send(self.transmit(sent)) for _ in range(udp.MAX_HELD_DATAGRAMS // 64 + 3)]
        self.assertEqual(taken.count(False), 3)
        self.assertEqual(self.left.port.counters.datagrams_lost, 3 * 64)
        self.left.port.stop()
        self.assertEqual(self.left.port.counters.datagrams_lost, 64 * len(taken))

    def test_an_unreachable_port_is_not_an_error(self) -> None:
        gone = self.right.port.local
        self.right.port.stop()
        for _ in range(3):
            self.left.port.send(Transmit(self.left.port.local, gone, [b"hello"], 5, 1))
            self.left.port.doRead()
        counters = self.left.port.counters
        self.assertEqual((counters.datagrams_out, counters.receive_errors, counters.batches_in), (3, 0, 0))

    def test_kernel_drops_are_counted(self) -> None:
        self.right.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = datagrams(100)
        for datagram in sent:
            self.left.port.send(self.transmit([datagram]))
        arrived = len(self.right.datagrams())
        self.left.port.send(self.transmit(sent[:1]))
        self.assertEqual(len(self.right.datagrams()), 1)
        self.assertLess(arrived, 100)
        self.assertEqual(self.right.port.counters.kernel_drops, 100 - arrived)

    def test_a_mistake_of_the_owner_does_not_close_the_port(self) -> None:
        owner = self.make_owner()
        self.left.port.send(Transmit(self.left.port.local, owner.port.local, [b"x"], 1, 1))
        owner.mistake = TypeError("a mistake")
        owner.port.doRead()
        self.assertEqual(owner.port.counters.owner_errors, 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(owner.reactor.readers, {owner.port})

    def test_a_stopped_port_loses_what_it_is_given(self) -> None:
        self.left.port.stop()
        self.left.port.stop()
        self.assertFalse(self.left.port.send(self.transmit([b"late"])))
        self.assertEqual((self.left.reactor.readers, self.left.port.fileno()), (set(), -1))


class StartTests(PortTestCase):
    """What stands in the way of a start, and the offload's self-test."""

    def test_the_port_is_taken(self) -> None:
        with self.assertRaisesRegex(SeamlessError, "another program has it"):
            Owner(self.left.port.local)

    def test_the_address_is_not_ours(self) -> None:
        with self.assertRaisesRegex(SeamlessError, "this host does not have that address"):
            Owner(("192.0.2.1", 7400))

    def test_the_self_test_passes_here(self) -> None:
        self.assertIsNone(fault("127.0.0.1"))
        self.assertIsNone(fault("::1"))

    def check_without_offload(self, make_socket: MakeSocket) -> None:
        owner = self.make_owner(make_socket)
        self.assertGreater(sum(getattr(made, "faults", 0) for made in owner.sockets), 0)
        self.assertEqual(len(self.warnings()), 1)
        sent = datagrams(10)
        self.left = owner
        self.assertTrue(owner.port.send(self.transmit(sent)))
        self.assertEqual(owner.socket.calls, [False] * 10)
        self.assertTrue(self.right.datagrams() == sent)

    def test_the_kernel_refuses_offload(self) -> None:
        def make_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
            made = FaultySocket(family, kind)
            made.fault = lambda with_offload: errno.EINVAL if with_offload else 0
            return made

        self.check_without_offload(make_socket)

    def test_offload_spoils_the_data(self) -> None:
        def make_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
            made = FaultySocket(family, kind)
            made.spoil = True
            return made

        self.check_without_offload(make_socket)

    def test_buffers_are_large(self) -> None:
        granted = self.left.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        limit = int(Path("/proc/sys/net/core/rmem_max").read_text())
        self.assertGreaterEqual(granted, min(limit, udp.SOCKET_BUFFER_BYTES))


class VethTests(SynchronousTestCase):
    """Two namespaces and the wire between them."""

    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        self.namespaces = [Namespace(), Namespace()]
        for namespace in self.namespaces:
            self.addCleanup(namespace.remove)

    def join(self, left: str, right: str, prefix: int) -> None:
        self.namespaces[0].join(self.namespaces[1], f"{left}/{prefix}", f"{right}/{prefix}")
        self.left, self.right = self.owner(0, left), self.owner(1, right)

    def owner(self, index: int, host: str) -> Owner:
        with self.namespaces[index].entered():
            owner = Owner((host, 0))
        self.addCleanup(owner.port.stop)
        return owner

    def check_both_ways(self) -> None:
        for here, there in ((self.left, self.right), (self.right, self.left)):
            for _ in range(20):
                sent = datagrams(44, last=99)
                here.port.send(Transmit(here.port.local, there.port.local, sent, SEGMENT, 44))
                self.assertTrue(there.datagrams() == sent)
            self.assertEqual((here.port.counters.batches_out, there.port.counters.batches_in), (20, 20))

    def test_whole_batches_over_ipv4(self) -> None:
        self.join("10.99.1.1", "10.99.1.2", 24)
        self.check_both_ways()

    def test_whole_batches_over_ipv6(self) -> None:
        self.join("fd99::1", "fd99::2", 64)
        self.check_both_ways()

    def test_datagrams_larger_than_the_mtu(self) -> None:
        self.join("10.99.1.1", "10.99.1.2", 24)
        sent = datagrams(5, 1600)
        self.assertFalse(self.left.port.send(Transmit(("", 0), self.right.port.local, sent, 1600, 5)))
        self.assertEqual(self.left.port.counters.datagrams_lost, 5)
        self.assertEqual(self.left.port.counters.send_errors["EMSGSIZE"], 5 + 1)
        self.check_both_ways()

    def test_errors_of_the_network_are_losses(self) -> None:
        self.join("10.99.1.1", "10.99.1.2", 24)
        sent = datagrams(5)
        self.assertFalse(self.left.port.send(Transmit(("", 0), ("203.0.113.1", 9), sent, SEGMENT, 5)))
        self.namespaces[0].run("iptables", "-A", "OUTPUT", "-p", "udp", "-j", "DROP")
        self.assertFalse(self.left.port.send(Transmit(("", 0), self.right.port.local, sent, SEGMENT, 5)))
        self.assertEqual(self.left.port.counters.send_errors, {"ENETUNREACH": 1, "EPERM": 1})
        self.assertEqual(self.left.port.counters.datagrams_lost, 10)
        self.namespaces[0].run("iptables", "-F", "OUTPUT")
        self.check_both_ways()

    def test_a_neighbor_without_receive_offload(self) -> None:
        self.join("10.99.1.1", "10.99.1.2", 24)
        self.right.socket.setsockopt(sockopt.SOL_UDP, sockopt.UDP_GRO, 0)
        sent = datagrams(44, last=99)
        self.left.port.send(Transmit(("", 0), self.right.port.local, sent, SEGMENT, 44))
        self.assertTrue(self.right.datagrams() == sent)
        self.assertEqual(self.right.port.counters.batches_in, 44)


class ReactorTests(TestCase):
    """The port on a reactor that runs."""

    async def test_a_batch_wakes_the_owner(self) -> None:
        woken: Deferred[int] = Deferred()

        def on_batch(view: memoryview, segment_size: int, local: Address, remote: Address, waited: float) -> None:
            woken.callback(len(view) // segment_size)

        receiver = UdpPort(real_reactor, ("127.0.0.1", 0), on_batch)
        sender = UdpPort(real_reactor, ("127.0.0.1", 0), on_batch)
        for port in (receiver, sender):
            port.start()
            self.addCleanup(port.stop)
        sender.send(Transmit(sender.local, receiver.local, datagrams(20), SEGMENT, 20))
        self.assertEqual(await woken, 20)
