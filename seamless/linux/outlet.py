"""Releases whole packets that the daemon hands back, after checking each against the configuration.

    daemon, which needs no privilege ── a socket pair ──> outlet: inspected once more ── raw socket ──> kernel

The problem: a process that holds a raw socket can send any packet with any source. So the daemon, which parses bytes
from unknown senders, never gets one. Each message on the socket pair (SOCK_SEQPACKET, so they have ends) is one packet;
what the inspection does not admit is dropped and counted. The inspection is the caller's: this floor knows no
configuration.

A thread, beside the one that captures: a packet that is released to this host is received in here, too, and what is
captured shall not wait for that.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from seamless.linux.ip_packet import Header
from seamless.linux.rawip import RawCounters, RawReleaser, SendsPackets
from seamless.linux.sockopt import set_buffers

Inspection: TypeAlias = Callable[[bytes], Header | None]
"""Called with a packet; returns its parsed headers, or None if it must not be released."""

LONGEST_PACKET_BYTES: Final = 0xFFFF
CHANNEL_BYTES: Final = 8 << 20
"""Buffer of the socket pair: what this thread, waiting for a processor for 60 ms, leaves unread at 1 Gb/s."""


class Outlet:
    """Inspects and sends the packets that the daemon hands back; ``sockets``: a raw one for each IP version."""

    def __init__(self, inspect: Inspection, sockets: Mapping[int, SendsPackets]) -> None:
        self.forged = 0
        """Packets that were not admitted."""
        self._inspect = inspect
        self._releaser = RawReleaser(sockets)
        self._channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The sender's buffer is what bounds a Unix socket, and the daemon may not enlarge its own.
        set_buffers(self._theirs, CHANNEL_BYTES)

    @property
    def released(self) -> RawCounters:
        """Return the counters of the packets that were admitted."""
        return self._releaser.counters

    def hand_over(self, channel: socket.socket, message: bytes) -> None:
        """Send the daemon its end of the socket pair, once, over ``channel``."""
        with self._theirs as theirs:
            socket.send_fds(channel, [message], [theirs.fileno()])

    def start(self) -> None:
        """Start a thread that runs until the daemon is gone."""
        threading.Thread(target=self.run, name="outlet", daemon=True).start()

    def run(self) -> None:
        """Release what the daemon hands back, until it is gone."""
        with self._channel as channel:
            while packet := channel.recv(LONGEST_PACKET_BYTES + 1):
                header = self._inspect(packet)
                if header is None:
                    self.forged += 1
                else:
                    self._releaser.release(packet, header, time.monotonic())
