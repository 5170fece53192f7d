"""Reads captured packets from NFQUEUE and sends them to the daemon: the privileged half of capturing, in a thread.

    kernel ── queue ──> capture ── a socket pair ──> daemon, which needs no privilege
           <─ verdict ─

Every packet gets its verdict as soon as its copy is handed over: dropped, since the overlay carries the copy. Packets
that cannot be carried, and all packets while the daemon does not read, are let pass instead and go the native way.
The daemon says which queues are bound; for one that is not, the kernel behaves as if the rule were not there. The way
back is `seamless.linux.outlet`, whose end the daemon is given over the same socket pair.

Messages on the socket pair (SOCK_SEQPACKET, so they have ends) begin with one byte of kind. A thread, and not the loop
that looks after the rules: that one waits for iptables, for 20 ms every few seconds, and packets shall not.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs

from seamless.errors import SeamlessError
from seamless.linux import ip_packet
from seamless.linux.nfqueue import ACCEPT, DROP, Queued, QueueSocket, kernel_drops
from seamless.linux.outlet import Outlet
from seamless.linux.sockopt import set_buffers

# To the daemon.
PACKETS: Final = 1
COUNTERS: Final = 2
OUTLET: Final = 3
"""Message type: carries a socket; each packet sent into it is released."""
FAILED: Final = 4
"""Message type: an error sentence follows."""
# From the daemon.
BIND: Final = b"b"
UNBIND: Final = b"u"

FRAME: Final = struct.Struct("!HH")
"""Header of each packet in a PACKETS message: queue number, length in bytes."""
ORDER: Final = struct.Struct("!cH")
"""A message from the daemon: `BIND` or `UNBIND`, queue number."""
MESSAGE_BYTES: Final = 80_000
"""The longest PACKETS message: one of the longest packets, or many small ones. The kernel takes this much at once."""
CHANNEL_BYTES: Final = 8 << 20
"""Buffer of the socket pair: what a daemon that is busy for 60 ms leaves unread at 1 Gb/s."""
BATCH_PACKETS: Final = 64
"""Packets handled between two checks for messages from the daemon."""
FULL_TIMEOUT: Final = 0.1
"""Seconds to wait for a daemon that does not read, before packets go the native way until it does."""
COUNTERS_INTERVAL: Final = 1.0
"""Seconds between two reports."""

_WHOLE_IPV4: Final = 0x45
"""First byte of an IPv4 header without options: others are not carried, since no egress releases them."""


@attrs.define
class CaptureCounters:
    """Packets that a rule diverted, and packets that the daemon handed back, by outcome."""

    captured: int = 0
    passed_truncated: int = 0
    """Packets too long for a queue by up to 4 bytes: they went the native way."""
    passed_odd: int = 0
    """Packets with IP options, or not IP at all: they went the native way."""
    passed_unread: int = 0
    """Packets that went the native way because the daemon did not read."""
    overruns: int = 0
    """How often the kernel reported that this part did not read fast enough."""
    kernel_drops: int = 0
    """Packets that the kernel dropped, or let pass, because a queue was full."""
    released: int = 0
    """Datagrams on the wire; more than packets where these had to be cut."""
    released_bytes: int = 0
    cut: int = 0
    cut_by_kernel: int = 0
    not_sent: int = 0
    """Packets that the kernel refused to send."""
    forged: int = 0
    """Packets that the daemon handed back and that the configuration forbids."""


_COUNTERS: Final = struct.Struct(f"!{len(attrs.fields(CaptureCounters))}Q")


def encode_counters(counters: CaptureCounters) -> bytes:
    """Return the message that reports ``counters`` to the daemon, in bytes."""
    return bytes((COUNTERS,)) + _COUNTERS.pack(*attrs.astuple(counters))


def decode_counters(message: bytes) -> CaptureCounters:
    """Return the counters in a COUNTERS message."""
    return CaptureCounters(*_COUNTERS.unpack_from(message, 1))


class Capture:
    """Hands packets over; ``queues`` says for each queue whether it is to be given super-packets.

    What cannot be handed over is dropped if its queue is one of ``refused``, and else goes the native way.
    """

    def __init__(
        self, channel: socket.socket, queues: Mapping[int, bool], outlet: Outlet, refused: Collection[int] = ()
    ) -> None:
        """Open the sockets that need privilege, and send the daemon the socket for packets to be released."""
        self._refused = frozenset(refused)
        self.counters = CaptureCounters()
        self._channel = channel
        self._queues = queues
        self._socket = QueueSocket()
        self._bound: set[int] = set()
        self._is_full = False
        self._reported = CaptureCounters()
        set_buffers(channel, CHANNEL_BYTES)
        channel.setblocking(False)
        self._outlet = outlet
        outlet.hand_over(channel, bytes((OUTLET,)))

    def start(self) -> None:
        """Start this and the outlet in threads of their own, which end when the daemon is gone."""
        self._outlet.start()
        threading.Thread(target=self.run, name="capture", daemon=True).start()

    def run(self) -> None:
        """Move packets to the daemon until it is gone."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        channel = self._channel.fileno()
        report_at = 0.0
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(COUNTERS_INTERVAL * 1000)]
            if channel in ready and not self._obey():
                break
            self._hand_over(self._socket.receive(BATCH_PACKETS))
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + COUNTERS_INTERVAL
                self._report()
        self._socket.close()

    def _obey(self) -> bool:
        """Do what the daemon says; return False when it is gone."""
        try:
            message = self._channel.recv(ORDER.size)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if len(message) != ORDER.size:
            return False
        word, queue = ORDER.unpack(message)
        if word == BIND and queue in self._queues and queue not in self._bound:
            try:
                self._socket.bind(queue, super_packets=self._queues[queue], fails_open=queue not in self._refused)
            except (OSError, SeamlessError) as error:
                self._say(bytes((FAILED,)) + str(error).encode())
            else:
                self._bound.add(queue)
        elif word == UNBIND and queue in self._bound:
            self._socket.unbind(queue)
            self._bound.discard(queue)
        return True

    def _hand_over(self, queued: list[Queued]) -> None:
        """Give packets to the daemon in as few messages as hold them, each with its verdict behind it."""
        batch: list[bytes | bytearray | memoryview] = []
        members: list[Queued] = []
        size = 1
        for one in queued:
            packet = self._carried(one)
            if packet is None:
                self._socket.decide(one.queue, one.number, self._left_over(one.queue))
                continue
            if size + FRAME.size + len(packet) > MESSAGE_BYTES:
                self._send(batch, members)
                batch, members, size = [], [], 1
            batch.append(FRAME.pack(one.queue, len(packet)))
            batch.append(packet)
            members.append(one)
            size += FRAME.size + len(packet)
        if members:
            self._send(batch, members)

    def _carried(self, one: Queued) -> bytearray | memoryview | None:
        """Return a packet as the overlay carries it, or None when it must go the native way."""
        if one.is_truncated:
            self.counters.passed_truncated += 1
            return None
        if not len(one.packet) or (one.packet[0] != _WHOLE_IPV4 and one.packet[0] >> 4 != 6):
            self.counters.passed_odd += 1
            return None
        if one.checksum_is_ready:
            return one.packet
        try:
            return ip_packet.with_checksum(one.packet, ip_packet.parse(one.packet))
        except ip_packet.MalformedPacketError:
            self.counters.passed_odd += 1
            return None

    def _send(self, batch: list[bytes | bytearray | memoryview], members: list[Queued]) -> None:
        message = b"".join((bytes((PACKETS,)), *batch))
        if self._say(message) or (not self._is_full and self._wait_for_room() and self._say(message)):
            self._is_full = False
            self.counters.captured += len(members)
            self._decide(members, DROP)
        else:
            self._is_full = True
            self.counters.passed_unread += len(members)
            self._decide(members, ACCEPT)

    def _say(self, message: bytes) -> bool:
        try:
            self._channel.send(message)
        except OSError:
            return False  # full, or the daemon is gone: the next look says so
        return True

    def _wait_for_room(self) -> bool:
        return bool(select.select((), (self._channel,), (), FULL_TIMEOUT)[1])

    def _decide(self, members: Iterable[Queued], verdict: int) -> None:
        """Pass one verdict on all of these, by the last number of each queue."""
        last: dict[int, int] = {}
        for one in members:
            last[one.queue] = one.number
        for queue, number in last.items():
            self._socket.decide_all(queue, number, self._left_over(queue) if verdict == ACCEPT else verdict)

    def _left_over(self, queue: int) -> int:
        """Return the verdict on a packet of this queue that cannot be handed over."""
        return DROP if queue in self._refused else ACCEPT

    def _report(self) -> None:
        """Tell the daemon how it goes, if anything has changed."""
        self.counters.overruns = self._socket.overruns
        dropped = sum(drops for queue, drops in kernel_drops().items() if queue in self._queues)
        self.counters.kernel_drops = dropped + self._socket.passed_full
        released = self._outlet.released
        self.counters.released, self.counters.released_bytes = released.released, released.released_bytes
        self.counters.cut, self.counters.cut_by_kernel = released.cut, released.cut_by_kernel
        self.counters.not_sent = released.refused
        self.counters.forged = self._outlet.forged
        if self.counters != self._reported and self._say(encode_counters(self.counters)):
            self._reported = attrs.evolve(self.counters)
