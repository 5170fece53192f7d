"""The whole-packet interceptor of a node: captured packets to their peers, peers' packets to the wire.

    queue ─> capture reader ─> (clamp) ─> session to the peer that the queue belongs to
    session ─> inspection ─> order ─> outlet of the privileged part, which inspects once more

Both directions are plain functions of what came, once per batch. While there is no path to a peer its queues are not
bound, so its packets go the native way (or, with ``when unreachable refuse``, nowhere). The same happens when this
process dies, since the queues die with it: TCP connections go on, over the native path.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from seamless.config.model import Configuration
from seamless.intercept.packets.crossings import PacketQueue, packet_queues
from seamless.intercept.packets.release import Release, ReleaseCounters
from seamless.intercept.packets.reorder import MOST_WAIT
from seamless.linux.ip_packet import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, MalformedPacketError, clamped, parse
from seamless.transport import clock
from seamless.transport.capture_reader import CaptureReader
from seamless.transport.driver import Driver

TCP_HEADER_BYTES: Final = 20
"""What TCP's MSS leaves out, besides the IP header (RFC 6691)."""


@attrs.define
class PacketInterceptorCounters(ReleaseCounters):
    """What a whole-packet interceptor did, in packets unless a name says bytes."""

    captured: int = 0
    captured_bytes: int = 0
    clamped: int = 0
    released: int = 0
    """Datagrams on the wire; more than packets where these had to be cut."""
    released_bytes: int = 0
    cut: int = 0
    cut_by_kernel: int = 0
    """Of the packets cut, TCP that the kernel segmented (sent in one piece through a packet socket)."""
    not_sent: int = 0
    """Packets that the kernel refused to send."""
    not_handed_back: int = 0
    """Packets dropped because there was no privileged part, or its socket was full."""
    forged: int = 0
    """Packets that the privileged part refused, though this daemon had admitted them."""
    held_for_order: int = 0
    gaps_filled: int = 0
    gaps_expired: int = 0
    passed_truncated: int = 0
    """Packets that went the native way, as the next three: see `seamless.linux.capture.CaptureCounters`."""
    passed_odd: int = 0
    passed_unread: int = 0
    queue_drops: int = 0
    queue_overruns: int = 0


class PacketInterceptor(Service):
    """Captures and releases whole packets for one node. `attach` gives it the channel to its privileged part."""

    _log = Logger()

    def __init__(
        self, reactor: Any, driver: Driver, configuration: Configuration, node: str, most_wait: float = MOST_WAIT
    ) -> None:
        self._reactor = reactor
        self._driver = driver
        self._queues = {queue.number: queue for queue in packet_queues(configuration, node)}
        self._counters = PacketInterceptorCounters()
        peers = dict.fromkeys(queue.peer for queue in self._queues.values())
        self._releases = {peer: Release(configuration, peer, node, self._counters, most_wait) for peer in peers}
        self._reader: CaptureReader | None = None
        self._outlet: socket.socket | None = None
        self._timer: IDelayedCall | None = None

    # Life.

    def startService(self) -> None:
        """Begin to receive packets from peers."""
        super().startService()
        self._driver.listen_packets(self._received)
        self._driver.watch_reachable(self._reachable_changed)

    def stopService(self) -> None:
        """Stop capturing and releasing."""
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._detach()

    def attach(self, channel: socket.socket) -> None:
        """Capture through this channel, which replaces an earlier one."""
        self._detach()
        self._reader = CaptureReader(self._reactor, channel, self._captured, self._take_outlet, self._failed)
        self._reader.start()
        for queue in self._queues.values():
            self._bind(queue, self._driver.reachable(queue.peer))

    def _detach(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None

    def _take_outlet(self, outlet: socket.socket) -> None:
        outlet.setblocking(False)
        self._outlet = outlet

    def _failed(self, sentence: str) -> None:
        self._log.error("{sentence}; these packets go the native way", sentence=sentence)

    def _reachable_changed(self, peer: str, reachable: bool) -> None:
        for queue in self._queues.values():
            if queue.peer == peer:
                self._bind(queue, reachable)

    def _bind(self, queue: PacketQueue, reachable: bool) -> None:
        if self._reader is None:
            return
        if reachable or queue.intercept.when_unreachable == "refuse":
            self._reader.bind(queue.number)
        else:
            self._reader.unbind(queue.number)

    # The ingress.

    def _captured(self, number: int, packets: list[bytes]) -> None:
        queue = self._queues.get(number)
        if queue is None:
            return
        self._counters.captured += len(packets)
        self._counters.captured_bytes += sum(map(len, packets))
        if queue.intercept.clamp_mss and queue.is_tcp:
            packets = self._clamped(queue.peer, packets)
        self._driver.send_packets(queue.peer, packets, is_recovered=queue.is_recovered)

    def _clamped(self, peer: str, packets: list[bytes]) -> list[bytes]:
        room = self._driver.node.whole_packet_bytes(peer)
        if room is None:
            return packets
        result = []
        for packet in packets:
            try:
                header = parse(packet)
            except MalformedPacketError:
                continue  # the other end would refuse it
            ip_bytes = IPV4_HEADER_BYTES if header.version == 4 else IPV6_HEADER_BYTES
            changed = clamped(packet, header, room - ip_bytes - TCP_HEADER_BYTES)
            self._counters.clamped += changed is not packet
            result.append(bytes(changed))
        return result

    # The egress.

    def _received(self, peer: str, packet: bytes) -> None:
        release = self._releases.get(peer)
        if release is None:
            self._counters.refuse("source")
            return
        now = clock.now()
        self._put_out(release.receive(packet, now))
        if release.reorder.gaps:
            self._set_timer(now)

    def _put_out(self, packets: list[bytes]) -> None:
        if self._outlet is None:
            self._counters.not_handed_back += len(packets)
            return
        for packet in packets:
            try:
                self._outlet.send(packet)
            except OSError:
                self._counters.not_handed_back += 1

    def _set_timer(self, now: float) -> None:
        if self._timer is not None and self._timer.active():
            return
        at = min((at for at in (one.next_timeout() for one in self._releases.values()) if at is not None), default=None)
        if at is not None:
            self._timer = self._reactor.callLater(max(0.0, at - now), self._timed_out)

    def _timed_out(self) -> None:
        now = clock.now()
        for release in self._releases.values():
            self._put_out(release.handle_timeout(now))
        self._set_timer(now)

    # Looking in.

    @property
    def counters(self) -> PacketInterceptorCounters:
        """Return the counters, brought up to date."""
        counters = self._counters
        orders = [release.reorder.counters for release in self._releases.values()]
        counters.held_for_order = sum(order.held for order in orders)
        counters.gaps_filled = sum(order.filled for order in orders)
        counters.gaps_expired = sum(order.expired + order.overflowed for order in orders)
        if self._reader is not None:
            capture = self._reader.counters
            counters.passed_truncated, counters.passed_odd = capture.passed_truncated, capture.passed_odd
            counters.passed_unread = capture.passed_unread
            counters.released, counters.released_bytes = capture.released, capture.released_bytes
            counters.cut, counters.cut_by_kernel = capture.cut, capture.cut_by_kernel
            counters.not_sent, counters.forged = capture.not_sent, capture.forged
            counters.queue_drops, counters.queue_overruns = capture.kernel_drops, capture.overruns
        return counters

    @property
    def connections(self) -> int:
        """Return how many TCP connections are being kept in order."""
        return sum(release.reorder.connections for release in self._releases.values())

    @property
    def waiting(self) -> int:
        """Return how many of these connections wait for a missing packet."""
        return sum(release.reorder.gaps for release in self._releases.values())
