"""The thin shell around a node: ports and one timer below, streams with their owners above.

A `Node` knows no clock and no socket; this is where it gets both, from a reactor and from a function that makes ports.
The daemon's are the kernel's; a test's are Twisted's `Clock`, and ports in memory. Whatever comes in, a batch, a timer,
a command, ends in `flush`: events out to the owners of streams, then batches out to the ports, then one timer for the
node's next deadline. A wake-up of the reactor that brings sixteen batches costs one flush.

Owners (`StreamOwner`) get the events of their stream as method calls, and may call the driver from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from seamless.config.model import Configuration
from seamless.errors import LocalProtocolError, UnreachableError
from seamless.interfaces import (
    RESET_REFUSED,
    Address,
    ConfigurationDiffers,
    DataReceived,
    Event,
    LinkDown,
    LinkMtuChanged,
    LinkNeverUp,
    LinkUp,
    MeasurementEnded,
    NodeEquivocated,
    PacketReceived,
    PeerReachable,
    PeerUnreachable,
    StreamAccepted,
    StreamClosed,
    StreamFinished,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
    Transmit,
)
from seamless.node import Node
from seamless.node.change import Change
from seamless.transport.limited_log import LimitedLog
from seamless.transport.streams import OnOpen, StreamOwner
from seamless.transport.udp import OnBatch, UdpPort
from seamless.transport.udp_counters import UdpCounters

TIMER_SLACK: Final = 0.001
"""Seconds. A timer that fires within this is as good as now, but for what is urgent: epoll cannot wait for less."""

SETTLE_TIMEOUT: Final = 1.0
"""Seconds for which a stopping node waits until its peers know how their streams ended: some round trips, some lost."""
SETTLE_INTERVAL: Final = 0.01
"""Seconds between two looks at whether they do."""

OnPacket = Callable[[str, bytes], None]
"""(peer, whole packet)."""


class Port(Protocol):
    """One local address at which batches come in and from which they go out; `UdpPort` is the kernel's."""

    local: Address
    offload: bool
    counters: UdpCounters

    @property
    def writable(self) -> bool:
        """Return whether batches go out at once, and do not wait for room in the socket."""
        ...

    def start(self) -> None:
        """Bind and begin to read; raise a `SeamlessError` that says why the address cannot be had."""
        ...

    def stop(self) -> None:
        """Close."""
        ...

    def send(self, transmit: Transmit) -> bool:
        """Send a batch, or hold it until there is room; return False when some of it is lost."""
        ...


MakePort: TypeAlias = Callable[[Any, Address, OnBatch, Callable[[], None], Callable[[], None]], Port]
"""Called with (reactor, local address, on_batch, on_idle, on_writable), as `UdpPort` says."""


class Driver:
    """One node on one reactor, with a port for each of the node's addresses.

    ``reactor.seconds`` must be the clock with whose time the node was made, and monotonic (`seamless.transport.clock`).
    """

    _log = Logger()

    def __init__(self, reactor: Any, node: Node, make_port: MakePort = UdpPort) -> None:
        self.node = node
        self.name = node.name
        self._reactor = reactor
        self._now: Callable[[], float] = reactor.seconds
        self._make_port = make_port
        self._ports: dict[Address, Port] = {}
        self._owners: dict[StreamKey, StreamOwner] = {}
        self._watched: dict[StreamKey, Callable[[], None]] = {}
        self._on_open: OnOpen | None = None
        self._on_packet: OnPacket | None = None
        self._on_reachable: list[Callable[[str, bool], None]] = []
        self._measuring: Deferred[MeasurementEnded] | None = None
        self._timer: Any = None
        self._timer_at = 0.0
        self._flushing = False
        self._flush_again = False
        self._flush_scheduled = False
        self._limited = LimitedLog(reactor, self._log)

    # Life.

    def start(self) -> None:
        """Bind the node's addresses and begin. Raise a `SeamlessError` that says why one cannot be had."""
        try:
            for address in self.node.config.addresses:
                port = self._make_port(self._reactor, address, self._received, self.flush, self.flush)
                port.start()
                self._ports[address] = port
        except BaseException:
            self._stop_ports()
            raise
        self.flush()

    def settle(self, timeout: float = SETTLE_TIMEOUT) -> Deferred[None]:
        """Fire once no stream waits for its peer any more, or after ``timeout``.

        A RESET that is lost would leave the peer's application waiting until the session gives up.
        """
        if not self.node.streams_kept or timeout <= 0 or not self._ports:
            return succeed(None)
        self.flush()
        later: Deferred[None] = Deferred()
        self._reactor.callLater(SETTLE_INTERVAL, later.callback, None)
        return later.addCallback(lambda _: self.settle(timeout - SETTLE_INTERVAL))

    def stop(self, reason: str) -> None:
        """Send CLOSE to all neighbors and close the ports."""
        self.node.close(reason)
        self.flush()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._stop_ports()
        self._limited.close()

    def _stop_ports(self) -> None:
        for port in self._ports.values():
            port.stop()
        self._ports.clear()

    @property
    def ports(self) -> list[Port]:
        """Return the ports, for their counters."""
        return list(self._ports.values())

    def apply(self, configuration: Configuration) -> Change:
        """Go on with another configuration, as `Node.apply` does; return what differs, or raise what it raises."""
        change = self.node.apply(configuration, self._now())
        self.flush()
        return change

    # In and out.

    def _received(self, view: memoryview, segment_size: int, local: Address, remote: Address, waited: float) -> None:
        now = self._now()
        self.node.receive_datagrams(view, segment_size, local, remote, now, now - waited)

    def flush(self) -> None:
        """Hand out events, send what may go, and set the timer for what is next."""
        if self._flushing:
            self._flush_again = True
            return
        self._flushing = True
        try:
            while True:
                self._hand_out_events()
                self._flush_again = False
                self._send()
                # A node notices links that came and went when it is asked what to send.
                self._hand_out_events()
                if not self._flush_again:
                    break
        finally:
            self._flushing = False
        self._set_timer()

    def _hand_out_events(self) -> None:
        event = self.node.next_event()
        while event is not None:
            try:
                self._hand_out(event)
            except Exception:
                self._limited.failure("", "a mistake while handing out {event}", event=type(event).__name__)
            event = self.node.next_event()

    def _send(self) -> None:
        ports = self._ports
        blocked = {address for address, port in ports.items() if not port.writable}
        for transmit in self.node.datagrams_to_send(self._now(), blocked):
            port = ports.get(transmit.local)
            if port is not None:
                port.send(transmit)

    def _set_timer(self) -> None:
        if not self._ports:
            return
        now = self._now()
        if self._fires_soon(now):
            return
        at = self.node.next_timeout()
        timer = self._timer
        if timer is not None and timer.active():
            if self._timer_at <= at:
                # It fires too early at worst, and is then set again: cheaper than moving it with every flush.
                return
            timer.cancel()
        self._timer_at = at
        self._timer = self._reactor.callLater(max(0.0, at - now), self._timed_out)

    def _fires_soon(self, now: float) -> bool:
        timer = self._timer
        return timer is not None and timer.active() and self._timer_at <= now + TIMER_SLACK

    def _timed_out(self) -> None:
        self.node.handle_timeout(self._now())
        self.flush()

    def _flush_soon(self) -> None:
        """Flush once after all that this turn of the reactor brings."""
        if self._flushing:
            self._flush_again = True
        elif not self._flush_scheduled and (not self._fires_soon(self._now()) or self.node.is_urgent):
            self._flush_scheduled = True
            self._reactor.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self.flush()

    # Events.

    def _hand_out(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._opened(event)
        elif isinstance(event, PacketReceived):
            if self._on_packet is not None:
                self._on_packet(self.node.peer_name(event.peer), event.packet)
        elif isinstance(event, (LinkUp, LinkDown, LinkMtuChanged, PeerReachable, PeerUnreachable)):
            self._network_changed(event)
        elif isinstance(event, LinkNeverUp):
            self._limited.warn(
                event.neighbor,
                "link to {neighbor} has not come up: nothing came from {remote[0]} port {remote[1]} to {local[0]} port"
                " {local[1]}; is the node running, is its key the same in both files, and does a firewall drop UDP?",
                neighbor=event.neighbor,
                local=event.local,
                remote=event.remote,
            )
        elif isinstance(event, NodeEquivocated):
            self._limited.warn(
                event.node,
                "node {node} announced two different things under one number: its key is used twice, or it lies; all"
                " nodes keep the same one",
                node=event.node,
            )
        elif isinstance(event, ConfigurationDiffers):
            self._configuration_differs(event)
        elif isinstance(event, MeasurementEnded):
            measuring, self._measuring = self._measuring, None
            if measuring is not None:
                measuring.callback(event)
        else:
            self._stream_changed(event)

    def _stream_changed(
        self, event: StreamAccepted | DataReceived | StreamWritable | StreamFinished | StreamReset | StreamClosed
    ) -> None:
        owner = self._owners.get(event.stream)
        if isinstance(event, (StreamReset, StreamClosed)):
            self._owners.pop(event.stream, None)
        if owner is None:
            given_up = self._watched.pop(event.stream, None)
            if given_up is not None:
                given_up()
            return
        if isinstance(event, DataReceived):
            owner.stream_data(event.chunks)
        elif isinstance(event, StreamWritable):
            owner.stream_writable()
        elif isinstance(event, StreamFinished):
            owner.stream_finished()
        elif isinstance(event, StreamAccepted):
            owner.stream_accepted()
        elif isinstance(event, StreamReset):
            owner.stream_reset(event.code, event.reason)
        else:
            owner.stream_closed()

    def _opened(self, event: StreamOpened) -> None:
        if self._on_open is None:
            self.reset(event.stream, RESET_REFUSED, f"nothing listens on node {self.name}")
        else:
            self._on_open(event.stream, self.node.peer_name(event.stream[0]), event.target)

    def _network_changed(self, event: LinkUp | LinkDown | LinkMtuChanged | PeerReachable | PeerUnreachable) -> None:
        if isinstance(event, LinkUp):
            self._limited.info(
                event.neighbor,
                "link to {neighbor} is up, {local[0]} port {local[1]} to {remote[0]} port {remote[1]}",
                neighbor=event.neighbor,
                local=event.local,
                remote=event.remote,
            )
        elif isinstance(event, LinkDown):
            line = "link to {neighbor} is down: {reason}"
            self._limited.warn(event.neighbor, line, neighbor=event.neighbor, reason=event.reason)
        elif isinstance(event, LinkMtuChanged):
            self._limited.info(
                event.neighbor,
                "link to {neighbor}: the path from {local[0]} port {local[1]} carries IP packets of {mtu_bytes} bytes;"
                " `mtu` allows {configured_bytes}",
                neighbor=event.neighbor,
                local=event.local,
                mtu_bytes=event.mtu_bytes,
                configured_bytes=event.configured_bytes,
            )
        else:
            if isinstance(event, PeerReachable):
                self._limited.info(event.peer, "{peer} is reachable", peer=event.peer)
            else:
                line = "{peer} is not reachable any more: {reason}"
                self._limited.warn(event.peer, line, peer=event.peer, reason=event.reason)
            for callback in list(self._on_reachable):
                callback(event.peer, isinstance(event, PeerReachable))

    def _configuration_differs(self, event: ConfigurationDiffers) -> None:
        if event.differences:
            self._limited.warn(
                event.node,
                "the configuration of {node} is not ours: it differs in {differences}; "
                "give both the same file, and reload what had another",
                node=event.node,
                differences=", ".join(event.differences),
            )
        else:
            self._limited.info(event.node, "the configuration of {node} is like ours again", node=event.node)

    # What the owners of streams call.

    def open_stream(self, peer: str, target: bytes, owner: StreamOwner) -> StreamKey:
        """Open a stream to node ``peer``; raise `UnreachableError` when there is no such node."""
        try:
            stream = self.node.open_stream(peer, target, self._now())
        except LocalProtocolError as error:
            raise UnreachableError(str(error)) from error
        self._owners[stream] = owner
        self._flush_soon()
        return stream

    def listen(self, callback: OnOpen) -> None:
        """Call ``callback(stream, peer, target)`` for every stream that a peer opens, from now on."""
        self._on_open = callback

    def listen_packets(self, callback: OnPacket) -> None:
        """Call ``callback(peer, packet)`` for every whole packet that a peer sends, from now on."""
        self._on_packet = callback

    def send_packets(self, peer: str, packets: list[bytes], *, is_recovered: bool = True) -> None:
        """Send whole packets to node ``peer``: unordered, and recovered hop by hop or not at all."""
        now = self._now()
        for packet in packets:
            self.node.send_packet(peer, packet, now, is_recovered=is_recovered)
        self._flush_soon()

    def watch_stream(self, stream: StreamKey, given_up: Callable[[], None]) -> None:
        """Call ``given_up`` if a stream that was offered is reset, before anything else came and it was accepted."""
        self._watched[stream] = given_up

    def accept_stream(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Accept a stream that a peer opened; ``owner`` gets its events, those since it was opened first."""
        self._watched.pop(stream, None)
        self._owners[stream] = owner
        self.node.accept_stream(stream, self._now())
        self._flush_soon()

    def change_owner(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Report what happens to an open stream to another owner from now on."""
        if stream in self._owners:
            self._owners[stream] = owner

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        """End both directions after the bytes in flight; the owner gets no more events of it."""
        self._owners.pop(stream, None)
        self._watched.pop(stream, None)
        self.node.reset(stream, code, reason, self._now())
        self._flush_soon()

    def send(self, stream: StreamKey, data: bytes) -> int:
        """Send; return the room left. Without room, wait for ``stream_writable``."""
        room = self.node.send(stream, data, self._now())
        self._flush_soon()
        return room

    def finish(self, stream: StreamKey) -> None:
        """Send FIN."""
        self.node.finish(stream, self._now())
        self._flush_soon()

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Open the receive window by ``nbytes`` that the application's kernel has taken."""
        self.node.consumed(stream, nbytes, self._now())
        self._flush_soon()

    def measure(self, neighbor: str) -> Deferred[MeasurementEnded]:
        """Measure the link to ``neighbor``; return a Deferred of what was found, or of the reason why nothing was.

        Cancelling it ends the measurement. Raise what `Node.measure` does.
        """
        self.node.measure(neighbor, self._now())
        measuring: Deferred[MeasurementEnded] = Deferred(self._stop_measuring)
        self._measuring = measuring
        self._flush_soon()
        return measuring

    def _stop_measuring(self, _: Deferred[MeasurementEnded]) -> None:
        self._measuring = None
        self.node.stop_measuring(self._now())
        self._flush_soon()

    def reachable(self, peer: str) -> bool:
        """Return whether there is a path to node ``peer`` now."""
        return self.node.is_reachable(peer)

    def watch_reachable(self, callback: Callable[[str, bool], None]) -> None:
        """Call ``callback(peer, reachable)`` whenever a path to a peer is found or lost, from now on."""
        self._on_reachable.append(callback)
