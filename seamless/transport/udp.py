"""The last step of a batch before the wire and the first behind it: one system call for up to 64 kB of datagrams.

The problem: a system call per datagram is what is slow, not Python. UDP segmentation offload (``UDP_SEGMENT``, udp(7))
sends a batch of equal datagrams with one ``sendmsg``, receive offload (``UDP_GRO``) takes one with one ``recvmsg``.

The rules of this file:

* Nothing raises because of what the network did. A datagram that cannot be sent is lost, and counted by reason.
* Offload is never trusted: a self-test at the start, and at run time a batch that the kernel refuses is sent again as
  plain datagrams. If those pass, that neighbor gets plain datagrams from then on, and the log says so once. If they
  fail too, the fault was not the offload's (a datagram larger than the interface's MTU).
* A single datagram never carries ``UDP_SEGMENT``: some drivers answer that with EIO.
* A full socket (EAGAIN) does not lose a batch: it is held until the kernel has room, and `UdpPort.writable` is False
  for that time. The owner makes no new datagrams for this port meanwhile, so that what waits, waits unsealed in its
  queues; other ports go on.
* A batch comes with the time that it waited in the socket, by the kernel's receive time (one for all datagrams that it
  has joined). The kernel counts by the wall clock, which may be set meanwhile; so no batch has waited since before the
  socket was last found empty. Where the kernel gives no receive time, nothing has waited.

Not `twisted.internet.udp.Port`, which knows no offload and raises on a full buffer.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import PrivilegeError, SeamlessError
from seamless.interfaces import Address, Transmit
from seamless.linux import sockopt
from seamless.transport import clock, offload
from seamless.transport.limited_log import LimitedLog
from seamless.transport.offload import MakeSocket
from seamless.transport.udp_counters import UdpCounters

# Fixed by the kernel.

MAX_SEGMENTS: Final = 64
"""UDP_MAX_SEGMENTS of all kernels (newer ones allow 128, which we would fill only with tiny datagrams)."""
MAX_BATCH_BYTES: Final = 65_507
"""The largest payload of a UDP datagram over IPv4, and so of a batch."""
MAX_BUFFERS: Final = 1024
"""UIO_MAXIOV: the most buffers of one sendmsg."""

# Chosen by us.

SOCKET_BUFFER_BYTES: Final = 8 << 20
"""Asked of the kernel, each way: about 70 ms at 1 Gb/s, so that a busy machine does not lose what came in."""
BATCHES_PER_WAKE: Final = 8
"""Half a megabyte, about 2 ms of work: then timers and other sockets get their turn."""
MAX_HELD_DATAGRAMS: Final = 4096
"""What may wait for a full socket, about 6 MB. An owner that heeds `UdpPort.writable` stays far below."""

_UNSIGNED: Final = struct.Struct("=I")
_ANCILLARY_BYTES: Final = sum(
    map(socket.CMSG_SPACE, (offload.RECEIVED_SIZE.size, _UNSIGNED.size, sockopt.RECEIVE_TIME.size))
)
_OFFLOAD_ERRORS: Final = frozenset((errno.EIO, errno.EINVAL, errno.EMSGSIZE))

OnBatch = Callable[[memoryview, int, Address, Address, float], None]
"""(view, segment size, local, remote, waited): a batch came in, and waited for so many seconds in the socket. The view
is valid only during the call."""


def _nothing() -> None:
    """Do nothing: the default of callbacks that not every owner needs."""


@implementer(IReadWriteDescriptor)
class UdpPort:
    """One local address and port, read and written in batches.

    ``on_batch`` is called for every batch that comes in, ``on_idle`` once after the last batch of a wake-up (the
    moment to send acknowledgements and whatever became due), ``on_writable`` when a full socket has room again.
    """

    _log = Logger()
    _limited = LimitedLog(None, _log)

    def __init__(
        self,
        reactor: Any,
        local: Address,
        on_batch: OnBatch,
        on_idle: Callable[[], None] = _nothing,
        on_writable: Callable[[], None] = _nothing,
        make_socket: MakeSocket = socket.socket,
    ) -> None:
        self.local = local
        self.counters = UdpCounters()
        self.offload = False
        """Whether batches go out whole; `start` finds out."""
        self._reactor = reactor
        self._on_batch = on_batch
        self._on_idle = on_idle
        self._on_writable = on_writable
        self._make_socket = make_socket
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(offload.RECEIVE_BYTES))
        self._held: list[Transmit] = []
        self._held_datagrams = 0
        self._empty_at = clock.now()
        self._plain_remotes: set[Address] = set()
        self._ancillary: dict[int, list[tuple[int, int, bytes]]] = {}

    # Life.

    def start(self) -> None:
        """Bind and begin to read. Raise a `SeamlessError` that says why the address cannot be had."""
        family = socket.AF_INET6 if ":" in self.local[0] else socket.AF_INET
        opened = self._make_socket(family, socket.SOCK_DGRAM)
        try:
            self._prepare(opened)
        except OSError as error:
            opened.close()
            raise _cannot_bind(self.local, error) from error
        self.local = opened.getsockname()[:2]
        self._socket = opened
        fault = offload.fault(self.local[0], self._make_socket)
        self.offload = fault is None
        if fault is None:
            sockopt.set_gro(opened)
        else:
            self._log.warn(
                "UDP offload does not work here ({fault}): sending one datagram a call, which is several times slower",
                fault=fault,
            )
        self._reactor.addReader(self)

    def _prepare(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        sockopt.set_buffers(opened, SOCKET_BUFFER_BYTES)
        sockopt.set_dont_fragment(opened)
        sockopt.report_drops(opened)
        sockopt.report_receive_times(opened)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(self.local)

    def stop(self) -> None:
        """Close the socket; what was held is lost. A second call does nothing."""
        if self._socket is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        for transmit in self._take_held():
            self.counters.datagrams_lost += transmit.count
        self._socket.close()
        self._socket = None

    # Sending.

    @property
    def writable(self) -> bool:
        """False while batches wait for room in the socket: make no new datagrams for it until ``on_writable``."""
        return not self._held

    def send(self, transmit: Transmit) -> bool:
        """Send a batch, or hold it until the socket has room. Return False when some of it is lost."""
        if self._held:
            return self._hold(transmit)
        return self._send(transmit)

    def _send(self, transmit: Transmit) -> bool:
        count = transmit.count
        if count == 1:
            return self._send_plain(transmit)
        segment_size = transmit.segment_size
        if count > MAX_SEGMENTS or count * segment_size > MAX_BATCH_BYTES:
            pieces = _cut(transmit, max(1, min(MAX_SEGMENTS, MAX_BATCH_BYTES // segment_size)))
            return all([self.send(piece) for piece in pieces])
        if not self.offload or transmit.remote in self._plain_remotes:
            return all([self.send(piece) for piece in _cut(transmit, 1)])
        ancillary = self._ancillary.get(segment_size)
        if ancillary is None:
            ancillary = [(sockopt.SOL_UDP, sockopt.UDP_SEGMENT, offload.SEGMENT_SIZE.pack(segment_size))]
            self._ancillary[segment_size] = ancillary
        failure = self._call(transmit, ancillary)
        if failure in _OFFLOAD_ERRORS:
            return self._send_without_offload(transmit, failure)
        return self._account(transmit, failure)

    def _send_plain(self, transmit: Transmit) -> bool:
        """Send a single datagram."""
        return self._account(transmit, self._call(transmit, ()))

    def _call(self, transmit: Transmit, ancillary: Any) -> int:
        """Make the system call; return 0, or the errno of its failure."""
        buffers = transmit.buffers
        if len(buffers) > MAX_BUFFERS:
            buffers = [b"".join(buffers)]
        if self._socket is None:
            return errno.EBADF
        try:
            size = self._socket.sendmsg(buffers, ancillary, 0, transmit.remote)
        except OSError as error:
            return error.errno or errno.EIO
        counters = self.counters
        counters.batches_out += 1
        counters.datagrams_out += transmit.count
        counters.bytes_out += size
        return 0

    def _account(self, transmit: Transmit, failure: int) -> bool:
        """Settle what a failed call means for its datagrams: held, or lost."""
        if not failure:
            return True
        self.counters.send_errors[errno.errorcode.get(failure, str(failure))] += 1
        if failure == errno.EAGAIN:
            self.counters.batches_held += 1
            self._reactor.addWriter(self)
            return self._hold(transmit)
        self.counters.datagrams_lost += transmit.count
        return False

    def _hold(self, transmit: Transmit) -> bool:
        if self._held_datagrams + transmit.count > MAX_HELD_DATAGRAMS:
            self.counters.datagrams_lost += transmit.count
            return False
        self._held.append(transmit)
        self._held_datagrams += transmit.count
        return True

    def _take_held(self) -> list[Transmit]:
        held, self._held, self._held_datagrams = self._held, [], 0
        return held

    def _send_without_offload(self, transmit: Transmit, failure: int) -> bool:
        """Send a refused batch as plain datagrams, and learn from it whether the offload was at fault."""
        name = errno.errorcode[failure]
        self.counters.send_errors[name] += 1
        self.counters.offload_fallbacks += 1
        before = self.counters.datagrams_out
        whole = all([self.send(piece) for piece in _cut(transmit, 1)])
        if whole and self.counters.datagrams_out > before:
            self._plain_remotes.add(transmit.remote)
            self._limited.warn(
                transmit.remote[0],
                "the kernel refuses UDP batches to {host} port {port} ({name}) but takes their datagrams one by one: "
                "sending those from now on, which is several times slower",
                host=transmit.remote[0],
                port=transmit.remote[1],
                name=name,
            )
        return whole

    # Receiving.

    def _receive(self, receiver: socket.socket) -> int:
        """Hand on up to `BATCHES_PER_WAKE` batches; return how many."""
        buffer, local, on_batch, counters = self._buffer, self.local, self._on_batch, self.counters
        into = [buffer]
        for taken in range(BATCHES_PER_WAKE):
            try:
                size, ancillary, _, remote = receiver.recvmsg_into(into, _ANCILLARY_BYTES)
            except BlockingIOError:
                self._empty_at = clock.now()
                return taken
            except OSError:
                counters.receive_errors += 1
                return taken
            segment_size = size
            waited = 0.0
            for _, kind, data in ancillary:
                if kind == sockopt.UDP_GRO:
                    segment_size = offload.RECEIVED_SIZE.unpack(data)[0]
                elif kind == sockopt.SO_RXQ_OVFL:
                    counters.kernel_drops = _UNSIGNED.unpack(data)[0]
                elif kind == sockopt.SO_TIMESTAMPNS:
                    waited = self._waited(data)
            counters.batches_in += 1
            if not size:
                counters.datagrams_in += 1
                counters.empty_in += 1
                continue
            counters.datagrams_in += -(-size // segment_size)
            counters.bytes_in += size
            on_batch(buffer[:size], segment_size, local, remote[:2], waited)
        return BATCHES_PER_WAKE

    def _waited(self, receive_time: bytes) -> float:
        """Return for how many seconds a batch has waited that the kernel took in at ``receive_time``."""
        seconds, nanoseconds = sockopt.RECEIVE_TIME.unpack(receive_time)
        waited: float = time.time() - (seconds + nanoseconds * 1e-9)
        return max(0.0, min(waited, clock.now() - self._empty_at))

    # What the reactor calls (IReadWriteDescriptor).

    def doRead(self) -> None:
        """Take what came in, then let the owner send."""
        if self._socket is None:
            return
        try:
            if self._receive(self._socket):
                self._on_idle()
        except Exception:
            # The reactor would close the port for good. One datagram must not silence a node.
            self.counters.owner_errors += 1
            if self.counters.owner_errors == 1:
                self._log.failure("a mistake in seamless while receiving; counted, and logged only this once")

    def doWrite(self) -> None:
        """Send what was held; when all of it is gone, let the owner go on."""
        for transmit in self._take_held():
            self.send(transmit)
        if not self._held:
            self._reactor.removeWriter(self)
            self._on_writable()

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 when closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name of this port for the reactor's log."""
        return f"udp {self.local[0]} port {self.local[1]}"

    def connectionLost(self, reason: Failure) -> None:
        """Close: the reactor gave this descriptor up, or is stopping."""
        self.stop()


def _cut(transmit: Transmit, count: int) -> Iterator[Transmit]:
    """Cut a batch into batches of ``count`` datagrams."""
    joined = b"".join(transmit.buffers)
    step = count * transmit.segment_size
    for start in range(0, len(joined), step):
        piece = joined[start : start + step]
        datagrams = -(-len(piece) // transmit.segment_size)
        yield Transmit(transmit.local, transmit.remote, [piece], transmit.segment_size, datagrams)


def _cannot_bind(local: Address, error: OSError) -> SeamlessError:
    where = f"cannot use UDP port {local[1]} on {local[0]}"
    if error.errno == errno.EADDRINUSE:
        return SeamlessError(f"{where}: another program has it; stop that program, or change the node's `address`")
    if error.errno == errno.EADDRNOTAVAIL:
        return SeamlessError(
            f"{where}: this host does not have that address; is this the right node (--node), and is the interface up?"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(f"{where}: not permitted; take a port above 1023, or start as root")
    return SeamlessError(f"{where}: {error.strerror or error}")
