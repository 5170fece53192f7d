"""A link: two neighbors, one UDP path, and everything lost on it recovered right here.

In the way of a byte a link takes whole overlay packets from its node and sends them as `seamless.link.sender` says:
fairly, paced, sealed one by one, and again when they are lost. At the other end it opens each datagram and hands the
packets up at once, in whatever order they come: only the far end of a session puts anything in order.

The rules:

* A batch is the unit. Per datagram there is one seal or open, one slice or two, one entry in a dictionary.
* The path's MTU is found by probing (`seamless.link.mtu`), and DATA cut to it. A path that does not carry the base size
  is not UP to the node, however well its hellos pass.
* CONTROL never waits behind DATA: acknowledgements, hellos, LSAs and pauses pass the queue and the pacer (which is
  charged for them). A flooded link keeps its adjacency and its acknowledgements.
* DATA is sent only while the neighbor is heard (`seamless.link.neighbor`).
* What breaks the protocol has no effect and is counted; of a neighbor that does it again and again nothing is read for
  a while.
* A neighbor's restart empties the packet number spaces; what was not acknowledged goes back to the node, which sends it
  another way.
* A call that finds nothing to do costs next to nothing: the next deadline is computed once after an input or command,
  and until then ``handle_timeout`` and ``datagrams_to_send`` only compare it with the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from operator import itemgetter
from typing import Final

import attrs

from seamless.crypto.association import Association
from seamless.crypto.initiation import OpenedInitiation
from seamless.crypto.sealing import ReceiveKey, SendKey
from seamless.delivery.acknowledger import Acknowledger, AckPolicy
from seamless.errors import RemoteProtocolError
from seamless.interfaces import Address, CongestionController, PathEstimate, Transmit
from seamless.link.batches import SEALING_BYTES, open_batch
from seamless.link.capacity_search import CapacitySearch
from seamless.link.control import ControlQueue
from seamless.link.events import Accepted, LinkChanged, LinkEvent, PacketsReceived
from seamless.link.hello import AdjacencyState
from seamless.link.mtu import MtuSearch, MtuState, Probe
from seamless.link.neighbor import Neighbor
from seamless.link.recovery import Acknowledged, Control
from seamless.link.redundant import FEW_PACKETS, DuplicateFilter
from seamless.link.sender import Sender
from seamless.link.status import LinkCounters, LinkSettings, LinkState, LinkStatus
from seamless.wire.ack import MAX_ACK_RANGES, Ack
from seamless.wire.digest import ConfigurationDigest
from seamless.wire.header import (
    CONTROL,
    DATA,
    FRAGMENT_NAME,
    LOAD,
    ip_udp_bytes,
)
from seamless.wire.link_frames import (
    PING,
    Close,
    DigestFrame,
    Hello,
    LinkFrame,
    LsaFrame,
    Measure,
    Pause,
    parse_link_frames,
)
from seamless.wire.traffic_class import TRAFFIC_CLASSES

ACK_INTERVAL: Final = 0.002
"""Seconds between two ACKs under load: a fifth of a short hop's round trip, and a batch of a fast link. The first
datagram after a silence is acknowledged at once, so that a lost keystroke is missed soon."""
ACK_POLICY: Final = AckPolicy(min_interval=ACK_INTERVAL, at_once_count=inf, max_ranges=MAX_ACK_RANGES, kept_count=0)
QUEUE_TARGET_INTERVAL: Final = 0.004
"""Seconds of the link's rate that one session should have waiting: enough for a batch, and to ride out a late timer."""
QUEUE_TARGET_MIN_BYTES: Final = 48 << 10
EXPRESS_TARGET_INTERVAL: Final = 0.001
"""Seconds of the link's rate that one session should have waiting as express."""
EXPRESS_TARGET_MIN_BYTES: Final = 16 << 10
"""A record: 13 ms at 10 Mb/s, which is what sparse streams wait behind others of their own flow."""
PAUSE_MAX: Final = 0.5
"""Seconds: the longest pause asked for at once. It is soft state, asked for again when it was too short."""


class Link:
    """One end of a link; a sans-I/O core."""

    def __init__(
        self,
        settings: LinkSettings,
        association: Association,
        controller: CongestionController,
        now: float,
    ) -> None:
        self.settings = settings
        self.local = settings.local
        self._association = association
        self.counters = LinkCounters()
        self._neighbor = Neighbor(settings, association, self._restarted, now)
        self._adjacency = self._neighbor.adjacency
        self._longest_received_bytes = settings.mtu_bytes
        self._neighbor_received = 0
        self._sent_at_report = 0
        self._controller = controller
        self._acknowledger = Acknowledger(ACK_POLICY)
        self._ip_udp_bytes = ip_udp_bytes(settings.local[0])
        self._overhead_bytes = self._ip_udp_bytes + SEALING_BYTES
        self._mtu = MtuSearch(settings.mtu_bytes)
        self._sender = Sender(settings.local, self._overhead_bytes, controller, self.counters, now)
        self._sender.packet_bytes = self.packet_bytes
        self._queue = self._sender.queue
        self._recovery = self._sender.recovery
        self._control = ControlQueue(self._mtu.base_bytes - self._overhead_bytes, now)
        self._search: CapacitySearch | None = None
        self._resting_controller = controller
        self._orphans: list[bytes] = []
        self._duplicates = DuplicateFilter()
        self._events: deque[LinkEvent] = deque()
        self._closed = False
        self.is_up = False
        """Whether the link can carry packets: the adjacency is UP, and the base MTU passes."""
        self._due_at: float | None = None
        """When something is to be done, or earlier; None when that is not known, after most inputs and commands."""
        self._noted = self._mtu.state, self._mtu.mtu_bytes, self._adjacency.state

    # State.

    @property
    def remote(self) -> Address:
        """Return where the neighbor is now."""
        return self._neighbor.remote

    @property
    def packet_bytes(self) -> int:
        """Return the longest overlay packet that fits one datagram of this link, as far as is known."""
        return self._mtu.mtu_bytes - self._overhead_bytes

    @property
    def mtu_bytes(self) -> int:
        """Return the MTU of the path that is in use: of IP packets."""
        return self._mtu.mtu_bytes

    @property
    def never_came_up(self) -> bool:
        """Return whether nothing has come from the neighbor for ten dead intervals, and it was never UP."""
        return self._adjacency.never_came_up

    @property
    def _is_heard(self) -> bool:
        return self._adjacency.state is AdjacencyState.UP

    @property
    def mtu_is_found(self) -> bool:
        """Return whether the search for the path's MTU has come to its end."""
        return self._mtu.state is MtuState.SEARCH_COMPLETE

    def state(self) -> LinkState:
        """Return a record of what routing, the node's events and people need to know of the link now."""
        rtt, loss_rate = self._recovery.rtt, self._sender.loss_rate
        return LinkState(
            state=self._adjacency.state.name if self._mtu.carries_base else AdjacencyState.DOWN.name,
            reason=self._reason,
            since=self._adjacency.since,
            remote=self.remote,
            rtt=rtt.smoothed_rtt,
            minimum_rtt=rtt.min_rtt if rtt.has_sample else None,
            loss_rate=loss_rate,
            rate_bps=self._controller.pacing_rate_bps(),
            mtu_bytes=self._mtu.mtu_bytes,
            cost=self.settings.cost,
        )

    @property
    def _reason(self) -> str:
        if self._mtu.carries_base:
            return self._adjacency.reason
        return (
            f"its path does not carry {self._mtu.base_bytes} bytes, though shorter datagrams pass:"
            " look for a tunnel or an interface with a small MTU"
        )

    def room_bytes(self, flow: bytes, packet_class: int) -> int:
        """Return how many more bytes of a class of the session ``flow`` should wait here; 0 or less for none."""
        if TRAFFIC_CLASSES[packet_class].is_urgent:
            return self._express_target_bytes - self._queue.express_bytes(flow)
        return self._target_bytes - self._queue.flow_bytes(flow)

    @property
    def _target_bytes(self) -> int:
        """Return how much bulk of one session should wait here at most."""
        return max(QUEUE_TARGET_MIN_BYTES, int(self._controller.pacing_rate_bps() * QUEUE_TARGET_INTERVAL / 8))

    @property
    def _express_target_bytes(self) -> int:
        """Return how much express of one session should wait here at most."""
        return max(EXPRESS_TARGET_MIN_BYTES, int(self._controller.pacing_rate_bps() * EXPRESS_TARGET_INTERVAL / 8))

    # Commands.

    def configure(self, settings: LinkSettings, controller: CongestionController | None, now: float) -> None:
        """Go on with other settings, and with another controller if there is one; keys, numbers and queue stay."""
        self._due_at = None
        self._neighbor.configure(settings)
        if settings.mtu_bytes != self.settings.mtu_bytes:
            # The neighbor may send as long as before until it has the new configuration, too.
            self._longest_received_bytes = max(self._longest_received_bytes, settings.mtu_bytes)
            self._mtu.set_ceiling(settings.mtu_bytes, now)
            self._fit()
        self.settings = settings
        if controller is not None:
            self._resting_controller = controller
            if self._search is None:
                self._set_controller(controller, now)
        self._note_change()

    def _set_controller(self, controller: CongestionController, now: float) -> None:
        self._due_at = None
        self._controller = controller
        self._sender.set_controller(controller, now, sends_load=controller is self._search)

    # Measuring.

    def start_search(self, begin_bps: float, now: float) -> None:
        """Search for the capacity of the path; ``begin_bps`` is sent already. Until `stop_search` the search says how
        fast the link sends, and padding fills what packets leave."""
        if self._search is None:
            self._resting_controller = self._controller
            # What is in flight now is acknowledged to the search.
            self._controller.on_abandoned()
            self._search = CapacitySearch(begin_bps, self._recovery.rtt.smoothed_rtt, self.mtu_bytes, now)
            self._set_controller(self._search, now)

    @property
    def search(self) -> CapacitySearch | None:
        """Return the search that runs, or is over and was not stopped yet."""
        return self._search

    def stop_search(self, now: float) -> None:
        """Go on as before the search."""
        if self._search is not None:
            self._search = None
            self._set_controller(self._resting_controller, now)

    def send_measure(self, frame: Measure) -> None:
        """Send a word of a measurement until it is acknowledged."""
        self._due_at = None
        self._control.add_lsa(frame)

    def enqueue(self, packets: list[bytes], packet_class: int, flow: bytes, now: float) -> Accepted:
        """Queue packets of one class of the session ``flow`` (`PACKET_ENDS`); those beyond its bound are dropped.

        Drops are counted. The result says how much waits now, and for how long the sender should pause.
        """
        if TRAFFIC_CLASSES[packet_class].is_urgent:
            waiting_bytes = self._queue.put_express(flow, packets)
            excess_bytes = waiting_bytes - self._express_target_bytes
        else:
            waiting_bytes = self._queue.put_bulk(flow, packets)
            excess_bytes = waiting_bytes - self._target_bytes
        if self.is_up:
            self._due_no_later_than(self._sender.packets_wait(now))
        return Accepted(waiting_bytes, self._drain_time(excess_bytes) if excess_bytes > 0 else 0.0)

    def _due_no_later_than(self, at: float | None) -> None:
        """Have something to do at ``at``, if not before: of what was put in, nothing else has to be done."""
        if self._due_at is not None and at is not None and at < self._due_at:
            self._due_at = at

    def _drain_time(self, excess_bytes: int) -> float:
        """Return the seconds in which a session's share of the link carries so much, at most `PAUSE_MAX`."""
        delivery_rate_bps = self._controller.pacing_rate_bps() * (1 - self._sender.loss_rate)
        share_bps = delivery_rate_bps / max(1, self._queue.flows)
        return min(PAUSE_MAX, excess_bytes * 8 / max(share_bps, 1.0))

    def pause(self, flow: bytes, packet_class: int, until: float) -> None:
        """Send nothing of a class of the session ``flow`` before ``until``."""
        self._due_at = None
        pause = self._queue.pause_express if TRAFFIC_CLASSES[packet_class].is_urgent else self._queue.pause_bulk
        pause(flow, until)

    def restart_minimum_rtt(self) -> None:
        """Begin a new period over which the minimum RTT is taken."""
        self._recovery.rtt.restart_min_rtt()

    def send_lsa(self, data: bytes) -> None:
        """Send one LSA until it is acknowledged."""
        self._due_at = None
        self._control.add_lsa(LsaFrame(data))

    def send_digest(self, digest: ConfigurationDigest) -> None:
        """Send the digest of one section of our configuration until it is acknowledged."""
        self._due_at = None
        self._control.add_lsa(DigestFrame(digest))

    def send_pause(self, source: int, destination: int, seconds: float, packet_class: int) -> None:
        """Queue PAUSE: the neighbor should send nothing of one class of a session for ``seconds``."""
        self._due_at = None
        self.counters.pauses_sent += 1
        self._control.add(Pause(source, destination, int(seconds * 1e6), packet_class))

    def close(self, reason: str) -> None:
        """Queue CLOSE with ``reason``; nothing else is sent afterwards, and no new handshakes."""
        self._due_at = None
        if self._association.send_key is not None and not self._closed:
            self._control.add(Close(reason))
        self._closed = True
        self._neighbor.dials = False
        self._note_change()

    def resumed(self, now: float) -> None:
        """Leave the time until ``now``, in which this process was not served, out of RTT samples and probe timeouts."""
        self._due_at = None
        self._recovery.resumed(now)

    def take_orphans(self) -> list[bytes]:
        """Remove and return the packets of a link that went down or restarted, for the node to send another way."""
        orphans, self._orphans = self._orphans, []
        return orphans

    def take_undelivered(self) -> list[bytes]:
        """Remove and return packets that were lost too often here, while the link is UP."""
        undelivered, self._sender.undelivered = self._sender.undelivered, []
        return undelivered

    # Receiving.

    def receive_initiation(self, opened: OpenedInitiation, remote: Address, now: float) -> None:
        """Take in an INITIATION that the gate has let in; raise `RemoteProtocolError`."""
        if self._closed:
            raise RemoteProtocolError("this node is stopping")
        self._due_at = None
        self._neighbor.receive_initiation(opened, remote, now)
        self._note_change()

    def receive_response(self, datagram: bytes, now: float) -> None:
        """Take in a RESPONSE; raise `RemoteProtocolError`."""
        self._due_at = None
        self._neighbor.receive_response(datagram, now)
        self._note_change()

    def receive_cookie(self, datagram: bytes, now: float) -> None:
        """Take in a COOKIE; raise `RemoteProtocolError`."""
        self._due_at = None
        self._association.receive_cookie(datagram, now)

    def has_key(self, index: int) -> bool:
        """Return whether the datagrams that name the receiver index ``index`` are sealed for this link."""
        return self._association.receive_key(index) is not None

    def receive_datagrams(
        self,
        buffer: bytes | memoryview,
        segment_size: int,
        local: Address,
        remote: Address,
        now: float,
        received_at: float | None = None,
    ) -> None:
        """Open a run of DATA or of CONTROL under one key, and queue `PacketsReceived` or frames for ``next_event``.

        Each datagram is ``segment_size`` bytes but perhaps the last. What does not open is counted and dropped.
        ``received_at``: when the kernel took them in; None where that is not known.
        """
        if received_at is None or received_at > now:
            received_at = now
        key = self._association.receive_key(int.from_bytes(buffer[1:4], "big"))
        if key is None:
            return
        if now < self._neighbor.misbehavior.blocked_until:
            self.counters.blocked += -(-len(buffer) // segment_size)
            return
        if segment_size > self._longest_received_bytes - self._ip_udp_bytes:
            buffer = self._without_longer(buffer, segment_size)
        numbers, contents = self._open(key, memoryview(buffer), segment_size)
        if not numbers:
            return
        if self._neighbor.authenticated(key, now):
            self._due_at = None
        if remote != self._neighbor.remote and numbers[-1] > self._acknowledger.largest:
            self._neighbor.remote = remote
        self.counters.received_bytes += len(buffer)
        if buffer[0] == LOAD:
            self._acknowledger.receive(numbers, received_at)
            self._acknowledger.ask(0.0, now)
            self._due_no_later_than(self._acknowledger.due_at)
        elif buffer[0] == DATA:
            self.counters.data_received += len(numbers)
            self._acknowledger.receive(numbers, received_at)
            self._acknowledger.ask(0.0, now)
            self._due_no_later_than(self._acknowledger.due_at)
            if len(contents) <= FEW_PACKETS:
                contents = self._duplicates.first(contents)
            if contents:
                self._events.append(PacketsReceived(contents))
        else:
            self._receive_control(numbers, contents, now, received_at)

    def _without_longer(self, buffer: bytes | memoryview, segment_size: int) -> bytes | memoryview:
        """Return the part of a batch of datagrams that are longer than our links' which may still be read.

        A packet that is longer than our links' datagrams would be sent in vain for ever. The last may be shorter, and
        be the neighbor's: the kernel joins what bears the same addresses, whoever sent it.
        """
        last_bytes = len(buffer) % segment_size
        self.counters.malformed += len(buffer) // segment_size
        if last_bytes <= self._longest_received_bytes - self._ip_udp_bytes:
            return buffer[len(buffer) - last_bytes :]
        self.counters.malformed += 1
        return buffer[:0]

    def _open(self, key: ReceiveKey, buffer: memoryview, segment_size: int) -> tuple[list[int], list[bytes]]:
        """Return packet numbers and contents of the datagrams that open and have not come before."""
        numbers, contents, failed = open_batch(key, buffer, segment_size)
        self.counters.failed_authentication += failed
        fresh = key.window.accept_batch(numbers) if numbers else None
        if fresh is not None:
            self.counters.replayed += len(numbers) - sum(fresh)
            numbers = [number for number, is_fresh in zip(numbers, fresh) if is_fresh]
            contents = [content for content, is_fresh in zip(contents, fresh) if is_fresh]
        return numbers, contents

    def next_event(self) -> LinkEvent | None:
        """Remove and return the oldest event; None when there is no more."""
        return self._events.popleft() if self._events else None

    def _receive_control(self, numbers: Sequence[int], contents: list[bytes], now: float, received_at: float) -> None:
        self._due_at = None
        ack_eliciting = False
        newest = max(self._acknowledger.largest, *numbers)
        for number, content in zip(numbers, contents):
            try:
                for frame in parse_link_frames(content):
                    if now < self._neighbor.misbehavior.blocked_until:
                        break
                    if not isinstance(frame, (Ack, Close)):
                        ack_eliciting = True
                    # A late HELLO tells of a state that is over.
                    if number == newest or not isinstance(frame, (Hello, Close)):
                        self._receive_frame(frame, now, received_at)
                    if isinstance(frame, Close):
                        break  # nothing follows a CLOSE
            except RemoteProtocolError as error:
                self.counters.malformed += 1
                self._neighbor.violated(f"it broke the protocol: {error}", now)
        self._acknowledger.receive(numbers, received_at)
        if ack_eliciting:
            self._acknowledger.ask(0.0, now)
        self._note_change()

    def _receive_frame(self, frame: LinkFrame, now: float, received_at: float) -> None:
        if isinstance(frame, Ack):
            self._take_acknowledged(self._recovery.receive_ack(frame, now, received_at), now)
        elif isinstance(frame, Hello):
            self._neighbor_received = frame.received
            counters = self.counters
            self._sent_at_report = counters.data_sent + counters.control_sent + counters.load_sent
            self._neighbor.received_hello(frame, now)
        elif isinstance(frame, Close):
            self._neighbor.said_goodbye(frame.reason, now)
        elif isinstance(frame, Pause):
            self.counters.pauses_received += 1
            self._events.append(frame)
        elif isinstance(frame, (LsaFrame, DigestFrame, Measure)):
            self._events.append(frame)

    def _take_acknowledged(self, result: Acknowledged, now: float) -> None:
        for control in self._sender.settle(result, now):
            self._control.lost(control)
        self._note_sizes(result, now)
        for control in result.controls:
            if control.acked_below >= 0:
                self._acknowledger.ack_acknowledged(control.acked_below)

    def _note_sizes(self, result: Acknowledged, now: float) -> None:
        """Hand acknowledged and lost sizes to the search for the path's MTU."""
        mtu = self._mtu
        for probe in result.probes:
            mtu.probe_acked(probe, now)
        for probe in result.lost_probes:
            mtu.probe_lost(probe, now)
        mtu.data_acked(result.largest_bytes)
        if result.lost:
            overhead = self._overhead_bytes
            mtu.data_lost([len(packet) + overhead for packet in result.lost if isinstance(packet, bytes)], now)
        self._fit()

    def _fit(self) -> None:
        """Cut packets to the MTU in use; resend those under way that are longer."""
        before, self._sender.packet_bytes = self._sender.packet_bytes, self.packet_bytes
        if self.packet_bytes < before:
            self._sender.shrink()

    def _note_change(self) -> None:
        """Search for the MTU while the neighbor is heard, and queue `LinkChanged` if the node has to act."""
        if not self._is_heard or self._closed:
            if self._mtu.state is not MtuState.DISABLED:
                self._mtu.stop()
        elif self._mtu.state is MtuState.DISABLED:
            self._mtu.begin()
            self._fit()
        self.is_up = self._is_heard and self._mtu.carries_base
        noted = self._mtu.state, self._mtu.mtu_bytes, self._adjacency.state
        if noted != self._noted or self._orphans or self._sender.undelivered:
            self._noted = noted
            self._events.append(LinkChanged())

    def _restarted(self) -> None:
        """Begin anew with a new process of the neighbor; our own packet numbers go on."""
        self.counters.restarts += 1
        self._mtu.stop()
        self.abandon()
        self._recovery.restart()
        self._acknowledger.restart()
        self._note_change()

    def abandon(self) -> None:
        """Turn all that waits or is unacknowledged into orphans, oldest records first: the neighbor is gone.

        What was probed with last has the newest packet number and is what the far end waits for.
        """
        self._due_at = None
        self._orphans += self.take_undelivered() + self._sender.abandon()
        self._orphans.sort(key=itemgetter(FRAGMENT_NAME))
        self._control.forget_lsas()

    # Time.

    def next_timeout(self) -> float:
        """Return when `handle_timeout` or `datagrams_to_send` has something to do, perhaps a time that has passed."""
        return self._next_deadline() if self._due_at is None else self._due_at

    def _next_deadline(self) -> float:
        earliest = self._adjacency.next_timeout()
        for at in (
            self._association.next_timeout(),
            self._recovery.next_timeout() if self._is_heard else self._neighbor.redial_at,
            self._mtu.next_timeout(),
            self._controller.next_timeout(),
            self._acknowledger.due_at if self._association.send_key is not None else None,
            self._sender.ready_at() if self.is_up else None,
            self._sender.redundant.due_at,
        ):
            if at is not None and at < earliest:
                earliest = at
        return earliest

    def handle_timeout(self, now: float) -> None:
        """Act on whatever deadline has passed."""
        if self._due_at is not None and now < self._due_at:
            return
        self._due_at = None
        self._neighbor.handle_timeout(now)
        if self._is_heard:
            deadline = self._recovery.next_timeout()
            if deadline is not None and now >= deadline:
                self._take_acknowledged(self._recovery.handle_timeout(now), now)
            self._mtu.handle_timeout(now)
        deadline = self._controller.next_timeout()
        if deadline is not None and now >= deadline:
            self._sender.handle_timeout(now)
        self._note_change()

    # Sending.

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """Return the batches that may go out now: handshake first, then CONTROL, then DATA."""
        if self._due_at is not None and now < self._due_at:
            return []
        transmits: list[Transmit] = []
        for message in self._association.messages_to_send(now):
            transmits.append(Transmit(self.local, self._neighbor.remote, [message], len(message), 1))
        key = self._association.send_key
        if key is not None:
            before = self._recovery.next_number
            self._send_control(key, transmits, now)
            if self._mtu.state is not MtuState.SEARCH_COMPLETE:
                self._send_probes(key, transmits, now)
            if self.is_up and self._queue and not self._closed:
                self._sender.send(key, self._neighbor.remote, transmits, now)
            if self.is_up and self._search is not None and not self._closed:
                self._sender.send_load(key, self._neighbor.remote, transmits, now)
            if self._sender.redundant.due_at is not None:
                self._sender.send_redundant(key, self._neighbor.remote, transmits, now)
            if self._recovery.next_number != before:
                self._association.sent(self._recovery.next_number - before, now)
        self._due_at = self._next_deadline()
        return transmits

    def _send_control(self, key: SendKey, transmits: list[Transmit], now: float) -> None:
        due_at = self._acknowledger.due_at
        hello = None
        if self._adjacency.hello_due(now) and not self._closed:
            hello = self._neighbor.hello(self._acknowledger.count, now)
        if hello is None and not self._control and (due_at is None or due_at > now):
            return
        for ack, control in self._control.take(hello, self._acknowledger, self.is_up, now):
            self._send_one_control(key, ack, control, transmits, now)

    def _send_one_control(
        self, key: SendKey, ack: bytes, control: Control, transmits: list[Transmit], now: float
    ) -> None:
        content = ack + b"".join(frame.encode() for frame in control.frames)
        is_recovered = self._is_heard and any(not isinstance(frame, Close) for frame in control.frames)
        self._send_content(key, content, control if is_recovered else None, transmits, now)

    def _send_probes(self, key: SendKey, transmits: list[Transmit], now: float) -> None:
        for probe in self._mtu.probes_to_send():
            content = bytes((PING,)).ljust(probe.size_bytes - self._overhead_bytes, b"\0")
            self._send_content(key, content, probe, transmits, now)

    def _send_content(
        self,
        key: SendKey,
        content: bytes,
        recovered: Control | Probe | None,
        transmits: list[Transmit],
        now: float,
    ) -> None:
        number = self._recovery.next_number
        datagram = key.seal(CONTROL, number, content)
        size = len(datagram) + self._ip_udp_bytes
        if recovered is None:
            self._recovery.next_number = number + 1
        else:
            self._recovery.sent_control(number, recovered, size, now)
        if self._search is None:
            # Else what is acknowledged is compared with the rate, and bare ACKs are not.
            self._sender.pacer.spend(size, now)
        self.counters.control_sent += 1
        self.counters.sent_bytes += size
        transmits.append(Transmit(self.local, self._neighbor.remote, [datagram], len(datagram), 1))

    # Looking in.

    def path_estimate(self) -> PathEstimate:
        """Return what the congestion controller knows about the path."""
        return self._controller.path_estimate()

    def status(self) -> LinkStatus:
        """Return a snapshot for people."""
        recovery, queue, state = self._recovery, self._queue, self.state()
        estimate = self._controller.path_estimate()
        return LinkStatus(
            neighbor=self.settings.neighbor,
            state=state.state,
            reason=state.reason,
            since=state.since,
            local=self.local,
            remote=state.remote,
            congestion=self._controller.name,
            congestion_state=estimate.state,
            congestion_reason=estimate.reason,
            bottleneck_bps=estimate.bottleneck_bps,
            minimum_rtt=state.minimum_rtt if estimate.min_rtt is None else estimate.min_rtt,
            queue_delay=estimate.queue_delay,
            loss_floor=estimate.loss_floor,
            congestion_loss=estimate.congestion_loss,
            rate_bps=state.rate_bps,
            mtu_bytes=state.mtu_bytes,
            mtu_ceiling_bytes=self._mtu.ceiling_bytes,
            mtu_state=self._mtu.state.value,
            rtt=state.rtt,
            rttvar=recovery.rtt.rttvar,
            received=self._acknowledger.count,
            neighbor_received=self._neighbor_received,
            sent_at_report=self._sent_at_report,
            bytes_in_flight=recovery.bytes_in_flight,
            queued_bytes=queue.size_bytes,
            duplicates_dropped=self._duplicates.dropped,
            sent=recovery.counters.sent,
            acked=recovery.counters.acked,
            lost=recovery.counters.lost,
            probes=recovery.counters.probes,
            spurious=recovery.counters.spurious,
            **attrs.asdict(queue.counters),
            **attrs.asdict(self.counters),
            **attrs.asdict(self._mtu.counters),
        )
