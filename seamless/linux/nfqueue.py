"""The kernel's packet queues (NFQUEUE), read over netlink without truncating anything.

The problem: a firewall rule diverts packets into a numbered queue, and the process that reads it gets a copy of each
and must pass a verdict on it. Packets are up to 64 kB here, since the kernel hands over *super-packets* whole
(`NFQA_CFG_F_GSO`) and leaves their checksums half done. The library that others use for this cuts them at 4 kB; the
protocol itself is a page (linux/netfilter/nfnetlink_queue.h), and this is that page.

The rules:

* One socket serves all queues of a process. A queue that is not bound has no reader; with ``--queue-bypass`` in the
  rule its packets then go on as if there were no rule.
* A queue that is full lets packets pass (`NFQA_CFG_F_FAIL_OPEN`); so does nothing, ever, stop a host's traffic, unless
  it is bound for packets that may not go natively.
* The kernel reports as ENOBUFS that our buffer was full, once however many packets it let pass meanwhile: both are
  counted, and survived.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from seamless.errors import PrivilegeError
from seamless.linux.sockopt import set_buffers

# linux/netfilter/nfnetlink.h and nfnetlink_queue.h. Numbers in netlink's own headers are in host byte order, those of
# the queue's attributes in network byte order.
NETLINK_NETFILTER: Final = 12
_PACKET: Final = 3 << 8 | 0
_VERDICT: Final = 3 << 8 | 1
_CONFIG: Final = 3 << 8 | 2
_VERDICT_BATCH: Final = 3 << 8 | 3
_NLMSG_ERROR: Final = 2
_REQUEST: Final = 1
_REQUEST_WITH_ANSWER: Final = 1 | 4
_CFG_CMD: Final = 1
_CFG_PARAMS: Final = 2
_CFG_QUEUE_MAXLEN: Final = 3
_CFG_MASK: Final = 4
_CFG_FLAGS: Final = 5
_CMD_BIND: Final = 1
_CMD_UNBIND: Final = 2
_COPY_PACKET: Final = 2
_F_FAIL_OPEN: Final = 1
_F_GSO: Final = 4
_ATTRIBUTE_PACKET_HDR: Final = 1
_ATTRIBUTE_VERDICT_HDR: Final = 2
_ATTRIBUTE_MARK: Final = 3
_ATTRIBUTE_PAYLOAD: Final = 10
_ATTRIBUTE_CAP_LEN: Final = 13
_ATTRIBUTE_SKB_INFO: Final = 14
_CHECKSUM_NOT_READY: Final = 1
DROP: Final = 0
ACCEPT: Final = 1
PREROUTING: Final = 0
OUTPUT: Final = 3

_MESSAGE: Final = struct.Struct("=IHHII")
_FAMILY: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_LONG: Final = struct.Struct("!I")
_TWO_LONGS: Final = struct.Struct("!II")
_ERROR: Final = struct.Struct("=i")
_HOOK_AT: Final = 6
"""``struct nfqnl_msg_packet_hdr``: packet id, protocol, hook."""
_HEADERS_BYTES: Final = _MESSAGE.size + _FAMILY.size

COPY_BYTES: Final = 0xFFFF - 4
"""The longest packet that fits a netlink attribute, whose length has 16 bits (NFQNL_MAX_COPY_RANGE)."""
QUEUE_PACKETS: Final = 1 << 17
"""Packets that may wait for their verdict: more than the buffer holds of the smallest, at 768 bytes each as the kernel
counts them. It lets packets beyond this pass without a count; those beyond the buffer it counts."""
BUFFER_BYTES: Final = 32 << 20
"""Receive buffer of the socket: 50 ms of super-packets as the kernel counts them, at 1 Gb/s."""
_RECEIVE_BYTES: Final = 66_000
"""More than a netlink message with the longest packet."""
ANSWER_TIMEOUT: Final = 5.0
"""Seconds for the kernel's answer to a request, which is there when the request returns."""
_SO_MEMINFO: Final = 55
"""include/uapi/asm-generic/socket.h: what a socket holds and has lost, nine numbers..."""
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_DROPS: Final = 8
"""...of which this one is what did not fit its buffer (linux/sock_diag.h)."""
KERNEL_COUNTERS: Final = Path("/proc/net/netfilter/nfnetlink_queue")


class Queued(NamedTuple):
    """A packet that waits for its verdict."""

    queue: int
    number: int
    packet: memoryview
    checksum_is_ready: bool
    is_truncated: bool
    hook: int
    """The firewall's hook, as linux/netfilter.h numbers them: `PREROUTING`, `OUTPUT`."""
    mark: int


class QueueSocket:
    """A netlink socket, and the queues that are bound to it. Only `bind` and `unbind` wait, for the kernel's answer."""

    def __init__(self, buffer_bytes: int | None = None) -> None:
        """Open the socket; raise `PrivilegeError` where the kernel has no NFQUEUE or does not permit it."""
        self.overruns = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        except OSError as error:
            raise PrivilegeError(
                f"this kernel has no packet queues ({error.strerror}): modprobe nfnetlink_queue, "
                "or use intercept payload with connect early instead"
            ) from None
        self._socket.bind((0, 0))
        set_buffers(self._socket, BUFFER_BYTES if buffer_bytes is None else buffer_bytes)
        self._socket.setblocking(False)
        self._waiting: list[Queued] = []

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are packets."""
        return self._socket.fileno()

    def close(self) -> None:
        """Unbind all queues; what waits in them is dropped."""
        self._socket.close()

    @property
    def passed_full(self) -> int:
        """Return how many packets the kernel let pass because our buffer was full."""
        figures = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(figures)[_MEMINFO_DROPS])

    def bind(
        self,
        queue: int,
        *,
        super_packets: bool,
        fails_open: bool = True,
        packets: int = QUEUE_PACKETS,
        copy_bytes: int = COPY_BYTES,
    ) -> None:
        """Begin to receive from a queue. With ``super_packets`` TCP comes in units of up to 64 kB, else as on the wire.

        At most ``packets`` wait for their verdict; the first ``copy_bytes`` of each are given. What the queue has no
        room for passes by it if it ``fails_open``, and is dropped otherwise.
        """
        flags = (_F_FAIL_OPEN if fails_open else 0) | (_F_GSO if super_packets else 0)
        # In one message: a queue that is bound and has no copy mode yet drops its packets.
        self._configure(
            queue,
            _attribute(_CFG_CMD, struct.pack("!BBH", _CMD_BIND, 0, 0)),
            _attribute(_CFG_PARAMS, struct.pack("!IB", copy_bytes, _COPY_PACKET)),
            _attribute(_CFG_QUEUE_MAXLEN, _LONG.pack(packets)),
            _attribute(_CFG_FLAGS, _LONG.pack(flags)),
            _attribute(_CFG_MASK, _LONG.pack(_F_FAIL_OPEN | _F_GSO)),
        )

    def unbind(self, queue: int) -> None:
        """Stop receiving from a queue; what waits in it is dropped, and later packets bypass it."""
        self._configure(queue, _attribute(_CFG_CMD, struct.pack("!BBH", _CMD_UNBIND, 0, 0)))

    def _configure(self, queue: int, *attributes: bytes) -> None:
        self._socket.settimeout(ANSWER_TIMEOUT)
        try:
            self._send(_CONFIG, _REQUEST_WITH_ANSWER, queue, *attributes)
            code = self._answer()
        finally:
            self._socket.setblocking(False)
        if code == errno.EPERM:
            raise PrivilegeError(
                f"cannot listen to packet queue {queue}: start seamless as root, or stop what else listens there"
            )
        if code:
            raise OSError(code, f"packet queue {queue}: {errno.errorcode.get(code, code)}")

    def _answer(self) -> int:
        """Return the error number of the kernel's answer, 0 for success; packets that come before it are kept."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                continue
            if _MESSAGE.unpack_from(data)[1] == _NLMSG_ERROR:
                return -int(_ERROR.unpack_from(data, _MESSAGE.size)[0])
            self._waiting.append(_queued(data))

    def _send(self, kind: int, flags: int, queue: int, *attributes: bytes) -> None:
        body = _FAMILY.pack(socket.AF_UNSPEC, 0, queue) + b"".join(attributes)
        self._socket.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 0, 0) + body)

    def receive(self, limit: int) -> list[Queued]:
        """Return the packets that wait, about ``limit`` at most; an empty list when there are none."""
        received, self._waiting = self._waiting, []
        receive = self._socket.recv
        try:
            while len(received) < limit:
                data = receive(_RECEIVE_BYTES)
                if _MESSAGE.unpack_from(data)[1] == _PACKET:
                    received.append(_queued(data))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.overruns += 1
        return received

    def decide(self, queue: int, number: int, verdict: int) -> None:
        """Pass a verdict on one packet."""
        self._send(_VERDICT, _REQUEST, queue, _attribute(_ATTRIBUTE_VERDICT_HDR, _TWO_LONGS.pack(verdict, number)))

    def decide_each(self, queue: int, verdicts: Iterable[tuple[int, int, int | None]]) -> None:
        """Pass a verdict on each of these packets: (number, verdict, new mark or None). One message to the kernel."""
        messages = []
        for number, verdict, mark in verdicts:
            body = _FAMILY.pack(socket.AF_UNSPEC, 0, queue)
            body += _attribute(_ATTRIBUTE_VERDICT_HDR, _TWO_LONGS.pack(verdict, number))
            if mark is not None:
                body += _attribute(_ATTRIBUTE_MARK, _LONG.pack(mark))
            messages.append(_MESSAGE.pack(_MESSAGE.size + len(body), _VERDICT, _REQUEST, 0, 0) + body)
        if messages:
            self._socket.send(b"".join(messages))

    def decide_all(self, queue: int, number: int, verdict: int) -> None:
        """Pass one verdict on all packets of a queue up to and including this one, with one message to the kernel."""
        header = _TWO_LONGS.pack(verdict, number)
        self._send(_VERDICT_BATCH, _REQUEST, queue, _attribute(_ATTRIBUTE_VERDICT_HDR, header))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _queued(data: bytes) -> Queued:
    """Return the packet in a message; the payload is its last attribute."""
    queue = _FAMILY.unpack_from(data, _MESSAGE.size)[2]
    view = memoryview(data)
    number = hook = mark = 0
    packet = view[:0]
    ready, truncated = True, False
    at = _HEADERS_BYTES
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        value = at + _ATTRIBUTE.size
        if kind == _ATTRIBUTE_PAYLOAD:
            packet = view[value : at + length]
        elif kind == _ATTRIBUTE_PACKET_HDR:
            number = _LONG.unpack_from(data, value)[0]
            hook = data[value + _HOOK_AT]
        elif kind == _ATTRIBUTE_SKB_INFO:
            ready = not _LONG.unpack_from(data, value)[0] & _CHECKSUM_NOT_READY
        elif kind == _ATTRIBUTE_MARK:
            mark = _LONG.unpack_from(data, value)[0]
        elif kind == _ATTRIBUTE_CAP_LEN:
            truncated = True
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return Queued(queue, number, packet, ready, truncated, hook, mark)


def kernel_drops() -> dict[int, int]:
    """Return by queue how many packets the kernel dropped: the queue was full, or its reader too slow."""
    try:
        lines = KERNEL_COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    # queue, port, waiting, copy mode, copy range, dropped in the queue, dropped for the reader, ...
    return {int(fields[0]): int(fields[5]) + int(fields[6]) for fields in map(str.split, lines)}
