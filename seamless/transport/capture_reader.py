"""The daemon's end of what captures packets: reads them in batches from the socket pair, and says which queues to read.

Where the other end runs does not matter here: in a thread of the privileged part (`seamless.linux.capture`) or, in a
test, in this process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.linux.capture import (
    BIND,
    CHANNEL_BYTES,
    COUNTERS,
    FAILED,
    FRAME,
    MESSAGE_BYTES,
    ORDER,
    OUTLET,
    PACKETS,
    UNBIND,
    CaptureCounters,
    decode_counters,
)
from seamless.linux.sockopt import set_buffers

OnPackets: TypeAlias = Callable[[int, list[bytes]], None]
"""Called with (queue, packets in the order in which they were captured)."""
OnOutlet: TypeAlias = Callable[[socket.socket], None]
"""Called with the socket into which packets to be released go, each a message."""

READS: Final = 16
"""Messages that one turn of the reactor takes: 1 MB, so that the links are served between."""


def capture_channel() -> tuple[socket.socket, socket.socket]:
    """Return (the daemon's end, the privileged end) of a new socket pair for packets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    set_buffers(ours, CHANNEL_BYTES)
    return ours, theirs


@implementer(IReadDescriptor)
class CaptureReader:
    """Reads one socket pair for as long as the other end is there."""

    def __init__(
        self,
        reactor: Any,
        channel: socket.socket,
        on_packets: OnPackets,
        on_outlet: OnOutlet,
        on_failure: Callable[[str], None],
    ) -> None:
        self.counters = CaptureCounters()
        self._reactor = reactor
        self._channel = channel
        self._on_packets = on_packets
        self._on_outlet = on_outlet
        self._on_failure = on_failure

    def start(self) -> None:
        """Begin to read."""
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Read no more; the other end sees that we are gone."""
        self._reactor.removeReader(self)
        self._channel.close()

    def bind(self, queue: int) -> None:
        """Have the packets of a queue captured."""
        self._order(BIND, queue)

    def unbind(self, queue: int) -> None:
        """Have the packets of a queue go the native way."""
        self._order(UNBIND, queue)

    def _order(self, word: bytes, queue: int) -> None:
        try:
            self._channel.send(ORDER.pack(word, queue))
        except OSError:
            pass  # the other end is gone, and its queues with it

    def doRead(self) -> None:
        """Take what waits, up to `READS` messages."""
        for _ in range(READS):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                self._reactor.removeReader(self)
                return
            self._receive(message, descriptors)

    def _receive(self, message: bytes, descriptors: list[int]) -> None:
        kind = message[0]
        if kind == PACKETS:
            self._receive_packets(message)
        elif kind == OUTLET:
            self._on_outlet(socket.socket(fileno=descriptors[0]))
        elif kind == COUNTERS:
            self.counters = decode_counters(message)
        elif kind == FAILED:
            self._on_failure(message[1:].decode(errors="replace"))

    def _receive_packets(self, message: bytes) -> None:
        """Split a message; neighbors of one queue go on together."""
        at, end = 1, len(message)
        run: list[bytes] = []
        run_queue = -1
        while at < end:
            queue, length = FRAME.unpack_from(message, at)
            at += FRAME.size
            if queue != run_queue:
                if run:
                    self._on_packets(run_queue, run)
                run, run_queue = [], queue
            run.append(message[at : at + length])
            at += length
        if run:
            self._on_packets(run_queue, run)

    # What the reactor asks (IReadDescriptor).

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """Return the name of this reader for the reactor's log."""
        return "capture"

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the end of the socket pair is read, not reported."""
