"""A session: reliable streams and packets between two nodes, sealed end to end; a sans-I/O core.

In the way of a byte it stands between the interceptor, which hands it what an application wrote, and the node, which
takes overlay packets from it when the links have room. Links recover what they lose and push back when they are full,
so there is no congestion control here. What is left to do end to end: secrecy, order, flow control, and to send again
what a relay took with it when it died.

The rules:

* Nothing is sent before there are keys and a path. Keys are asked for when something waits and there is a path.
* After every call the node drains `next_event`, asks `next_timeout`, and, when `wants_to_send`, takes packets.
* A peer that breaks the protocol ends its session: every stream is reset, ``PeerLost`` says why, and nothing more of
  this incarnation of it is read. What is not sealed by the peer never has an effect but on counters.
* ``give_up`` seconds without progress (`seamless.session.progress`) reset all streams, too, and then nothing of them is
  kept: towards this peer the node is a new incarnation from then on, without keys, and the peer learns of it as of a
  restart. After a second or two without progress the node is asked for another path (``PathStalled``).
* A new incarnation of the peer knows nothing of the old streams: they are reset, and record numbers start at 0. What
  the old one gave no sign of is opened again (`seamless.session.stream`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from seamless.crypto.association import GIVE_UPS_MAX, Association, KeysEstablished
from seamless.crypto.sealing import PROOF_BITS
from seamless.errors import LocalProtocolError, RemoteProtocolError
from seamless.interfaces import (
    RESET_PEER_LOST,
    RESET_PROTOCOL,
    PacketReceived,
    StreamEvent,
    StreamKey,
    StreamOpened,
    StreamReset,
)
from seamless.session.events import PathStalled, PeerLost, SessionEvent, SessionStatus, SessionUp
from seamless.session.frames import PendingPing, PersistentFrame
from seamless.session.handshakes import Handshakes
from seamless.session.limits import Limits
from seamless.session.progress import Progress
from seamless.session.receiver import ReceivedRecord, Receiver
from seamless.session.record import PIECE_MIN_BYTES, Cutter, complete_records
from seamless.session.scheduler import Scheduler
from seamless.session.sender import Sender
from seamless.session.stream_status import StreamStatus, status_of
from seamless.session.streams import Streams
from seamless.session.window import PathRate
from seamless.wire.ack import Ack
from seamless.wire.digest import ConfigurationDigest
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    PACKET_HEADER_BYTES,
)
from seamless.wire.session_frames import (
    MAX_PACKET_BYTES,
    AcceptFrame,
    DatagramFrame,
    Frame,
    OpenFrame,
    ResetFrame,
    SessionWindowFrame,
    StreamFrame,
    WindowFrame,
    decode_frames,
    encode_digest,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS, CLASS_HANDSHAKE

UNOPENED_GIVE_UPS = 2
"""Multiple of ``give_up`` for which bytes of a stream are kept whose OPEN does not arrive. After half of that the peer
has given up itself, and forgotten the stream."""

ASK_FOR_KEYS_BACKOFF = 2
"""Probes in vain after which the peer may have been restarted, and lost its keys."""


class Session:
    """The session with ``peer``; both ends are node identifiers. ``private_key`` is the node's, raw X25519.

    ``may_open(came_by, now)`` says whether the node has time for one more INITIATION from this neighbor.
    """

    def __init__(
        self,
        *,
        local: int,
        peer: int,
        association: Association,
        private_key: bytes,
        now: float,
        limits: Limits | None = None,
        may_open: Callable[[int, float], bool] = lambda came_by, now: True,
    ) -> None:
        self.local = local
        self.peer = peer
        self.association = association
        self.limits = limits or Limits()
        self._handshakes = Handshakes(association, private_key, may_open, now)
        self._events: deque[SessionEvent] = deque()
        self._cutter: Cutter | None = None
        self._incarnation: int | None = None
        self._closed = ""
        self._progress = Progress()
        self._heard_at = now
        self._early: dict[StreamKey, list[StreamEvent]] = {}
        """What happened to the streams that the peer opened and the application has neither accepted nor reset."""
        self._next_stream = 0
        self._due_at: float | None = None
        """When `handle_timeout` has something to do, infinity for never; None when that is to be computed anew."""
        self._path: PathRate | None = None
        self._receiver = Receiver(association.receive_key, self.limits.reassembly_max)
        self._begin()

    def _begin(self, first_number: int = 0) -> None:
        """Begin without streams, with ``first_number``: above 0 when the keys have sealed records."""
        self._scheduler = Scheduler(self.limits.send_buffer_max)
        self._sender = Sender(self._scheduler, self._receiver.acknowledger, first_number)
        self._streams = Streams(
            local=self.local,
            peer=self.peer,
            limits=self.limits,
            next_number=self._next_stream,
            scheduler=self._scheduler,
        )
        self._streams.credit.begin_at(self._path)

    def _restart(self, first_number: int = 0) -> None:
        """Discard all state shared with the peer's last incarnation, but for the stream identifiers used."""
        self._take_output()
        self._next_stream = self._streams.next_number
        self._receiver.restart()
        self._begin(first_number)

    # In, from the application.

    def open_stream(self, target: bytes, now: float) -> StreamKey:
        """Ask for a stream to ``target``; it may be written to at once."""
        key = self._streams.open(target)
        if self._closed:
            self._close(self._closed)
        self._note_waiting(now)
        return key

    def accept_stream(self, stream: StreamKey, now: float) -> None:
        """Accept a stream that `StreamOpened` announced, and report its events since then."""
        self._streams.accept(stream, now)
        self._events.extend(self._early.pop(stream, ()))
        self._note_waiting(now)

    def reset(self, stream: StreamKey, code: int, reason: str, now: float) -> None:
        """End a stream, both ways, after the bytes that the peer's window lets go."""
        self._early.pop(stream, None)
        self._streams.reset(stream, code, reason, now)
        self._note_waiting(now)

    def send(self, stream: StreamKey, data: bytes, now: float) -> int:
        """Append all of ``data`` to a stream; return the room in bytes: at 0 or less, wait for `StreamWritable`."""
        room = self._streams.write(stream, data, now)
        self._note_waiting(now)
        return room

    def finish(self, stream: StreamKey, now: float) -> None:
        """End our direction of a stream, after what was sent."""
        self._streams.finish(stream, now)
        self._note_waiting(now)

    def consumed(self, stream: StreamKey, nbytes: int, now: float) -> None:
        """Open the window by ``nbytes`` of `DataReceived` that the application's kernel has taken."""
        self._streams.consumed(stream, nbytes)
        self._note_waiting(now)

    def send_packet(self, packet: bytes, now: float, *, is_recovered: bool = True) -> None:
        """Send a whole packet: unordered, not again end to end when lost, and not at all when it would be late.

        Unless ``is_recovered``, links do not send it again either.
        """
        if len(packet) > MAX_PACKET_BYTES:
            raise LocalProtocolError(f"a packet of {len(packet)} bytes; at most {MAX_PACKET_BYTES} fit into a record")
        self._sender.packets.put(packet, is_recovered, now)
        self._note_waiting(now)

    def send_digests(self, digests: Iterable[ConfigurationDigest]) -> None:
        """Send the digests of our configuration, one for each section, until they are acknowledged."""
        frames = self._sender.frames
        frames.extend(PersistentFrame(encode_digest(digest), frames) for digest in digests)

    # In, from the node.

    def path_changed(self, packet_mtu_bytes: int | None, now: float, *, severed: bool = True) -> None:
        """Send by another path, which carries overlay packets (header included) of so many bytes; None for no path.

        ``severed``: packets that are on the former path will not arrive.
        """
        piece_bytes = (packet_mtu_bytes or 0) - PACKET_HEADER_BYTES - FRAGMENT_HEADER_BYTES
        self._due_at = None
        if piece_bytes < PIECE_MIN_BYTES:
            self._cutter = None
            return
        self._cutter = Cutter(self.local, self.peer, piece_bytes)
        self._progress.path_changed(now)
        if severed:
            self._sender.recovery.path_severed(now)
        self._note_waiting(now)

    def path_carries(self, rate_bps: float | None, round_trip: float = 0.0, *, is_estimate: bool = False) -> None:
        """Have windows begin at the path's rate in bits per second and round trip time in seconds; None: not known.

        ``is_estimate``: the rate is what congestion control has found so far, and may be far too low.
        """
        self._path = None if rate_bps is None else PathRate(rate_bps, round_trip, is_estimate)
        self._streams.credit.begin_at(self._path)

    def set_limits(self, limits: Limits) -> None:
        """Go on within other limits; what was granted before stays granted."""
        self._due_at = None
        self.limits = limits
        self._receiver.reassembly.max_bytes = limits.reassembly_max
        self._scheduler.send_buffer_max = limits.send_buffer_max
        self._streams.set_limits(limits)
        self._streams.credit.begin_at(self._path)

    def resumed(self, gap: float) -> None:
        """Leave the last ``gap`` seconds, in which the process was not served, out of deadlines and RTT samples."""
        self._due_at = None
        self._sender.recovery.resumed(gap)
        self._heard_at += gap
        self._progress.resumed(gap)

    def returned(self, packets: list[bytes], now: float) -> None:
        """Take note of overlay packets that a link could not deliver and the node sends another way: they are not lost.

        The node says so before it says that the path has changed. A record that is not whole among them has lost
        something to the dead neighbor.
        """
        self._due_at = None
        self._sender.recovery.sent_again({name >> PROOF_BITS for name in complete_records(packets)}, now)

    def receive_handshake(self, message: bytes, now: float, came_by: int = 0) -> None:
        """Take in the payload of a class 2 packet from the neighbor ``came_by``; a bad one is counted and dropped."""
        self._due_at = None
        if self._handshakes.receive(message, now, came_by):
            self._report(PathStalled(now))
        self._after_association(now)

    def receive_fragments(self, payloads: list[bytes], now: float) -> None:
        """Take in the payloads of a batch of class 0 and 1 packets."""
        if self._closed:
            return
        self._due_at = None
        self._streams.begin_batch()
        for record in self._receiver.receive(payloads, now):
            if record.confirmed_key is not None:
                self.association.authenticated(record.confirmed_key, now)
                self._after_association(now)
            self._receiver.note(record.number, now)
            self._heard_at = now
            try:
                self._receive_record(record, now)
            except RemoteProtocolError as error:
                self._close(f"the peer broke the protocol: {error}")
                return
        self._receiver.reassembly.expire(now)
        self._streams.forget_ended()
        self._streams.update_session_window()
        self._note_ack_due(now)
        self._note_waiting(now)

    def _receive_record(self, record: ReceivedRecord, now: float) -> None:
        """Act on the frames of a record."""
        asks = False
        for frame in decode_frames(record.plaintext):
            if type(frame) is StreamFrame:
                self._streams.receive_stream(frame, self._rtt(), now)
                asks = True
            elif type(frame) is Ack:
                for record_class in self._sender.recovery.receive_ack(frame, now):
                    self._progress.made(record_class)
            else:
                self._receive_other(frame, now)
                asks = True
        if asks:
            self._receiver.ask_ack(record.is_fragmented, now)

    def _receive_other(self, frame: Frame, now: float) -> None:
        """Act on a frame that is neither STREAM nor ACK."""
        streams = self._streams
        if isinstance(frame, WindowFrame):
            streams.receive_window(frame, now)
        elif isinstance(frame, SessionWindowFrame):
            streams.receive_session_window(frame.limit, now)
        elif isinstance(frame, OpenFrame):
            streams.receive_open(frame, now)
        elif isinstance(frame, AcceptFrame):
            streams.receive_accept(frame, now)
        elif isinstance(frame, ResetFrame):
            streams.receive_reset(frame, now)
        elif isinstance(frame, DatagramFrame):
            self._report(PacketReceived(self.peer, frame.packet))
        elif isinstance(frame, ConfigurationDigest):
            self._report(frame)

    def _after_association(self, now: float) -> None:
        """Take handshake messages and events from the association."""
        self._handshakes.take_messages(now)
        event = self.association.next_event()
        while event is not None:
            if isinstance(event, KeysEstablished):
                self._keys_established(event, now)
            event = self.association.next_event()

    def _keys_established(self, event: KeysEstablished, now: float) -> None:
        self._handshakes.established()
        if event.remote_incarnation != self._incarnation:
            if self._incarnation is not None:
                gave_up = 0 < event.remote_incarnation - self._incarnation < GIVE_UPS_MAX
                self._peer_restarted("the peer gave up: it had no answer" if gave_up else "the peer was restarted", now)
            self._progress.forget()
            self._incarnation = event.remote_incarnation
            self._closed = ""
            self._report(SessionUp(event.remote_incarnation))
            self._streams.update_session_window()
            self._take_output()
        if event.initiator:
            self._sender.frames.append(PendingPing())
        self._note_waiting(now)

    def _peer_restarted(self, reason: str, now: float) -> None:
        unanswered = self._streams.take_unanswered()
        self._streams.lose_all(RESET_PEER_LOST, reason)
        packets = self._sender.packets
        self._restart()
        self._sender.packets = packets  # unlike streams, they belong to no incarnation
        for stream in unanswered:
            self._streams.open_again(stream, now)

    # Out.

    @property
    def wants_to_send(self) -> bool:
        """Return whether `packets_to_send` returns packets when there is room for them."""
        if self._cutter is None:
            return False
        if self._handshakes.waiting:
            return True
        if not self._speaking:
            return False
        return self._sender.wants_express or self._sender.wants_bulk

    @property
    def is_urgent(self) -> bool:
        """Return whether an express record waits to be sent."""
        return self._sender.wants_express

    def packets_to_send(
        self, room: int, now: float, express_room: int | None = None
    ) -> tuple[list[bytes], list[bytes]]:
        """Return (express, bulk) overlay packets: of bulk about ``room``, and of express about ``express_room`` (all
        when it is None), by whole records; and all handshakes that wait."""
        cutter = self._cutter
        if cutter is None:
            return [], []
        handshakes = [cutter.whole(CLASS_HANDSHAKE, message) for message in self._handshakes.waiting]
        self._handshakes.waiting.clear()
        if not self._speaking:
            return handshakes, []
        if self._streams.finishes_at is not None and self._sender.wants_express:
            self._streams.send_last_fins(now)
        sent = self._sender.send(self.association, cutter, room, express_room, now)
        self._streams.writable_again(sent.writable)
        self._after_association(now)
        self._note_waiting(now)
        return handshakes + sent.express, sent.bulk

    @property
    def _speaking(self) -> bool:
        """Return whether records may be sent: there are keys, and the peer has not broken the protocol."""
        return self.association.send_key is not None and not self._closed

    def _take_output(self) -> None:
        """Take frames and events from the streams; hold back events of streams that are not accepted yet.

        Not a reset before which nothing came: whoever opened the stream has given it up, so nobody need accept it.
        """
        frames, events, early = self._streams.frames, self._streams.events, self._early
        if frames:
            self._sender.frames.extend(frames)
            frames.clear()
        while events:
            event = events.popleft()
            if type(event) is StreamOpened:
                early[event.stream] = []
            elif early and event.stream in early:
                if type(event) is not StreamReset or early[event.stream]:
                    early[event.stream].append(event)
                    continue
                del early[event.stream]
            self._events.append(event)

    def _report(self, event: SessionEvent) -> None:
        """Queue an event of the session itself, after those of its streams so far."""
        self._take_output()
        self._events.append(event)

    def next_event(self) -> SessionEvent | None:
        """Remove and return the oldest event; None when there is no more."""
        return self._events.popleft() if self._events else None

    # Time.

    def next_timeout(self) -> float | None:
        """Return when to call `handle_timeout`, in absolute time; None for never."""
        if self._due_at is None:
            self._due_at = self._next_deadline()
        return None if self._due_at == inf else self._due_at

    def _next_deadline(self) -> float:
        times = [self.association.next_timeout(), self._receiver.reassembly.next_timeout()]
        if self._cutter is not None and self._speaking:
            times.append(self._sender.recovery.next_timeout())
            if not self._sender.ack_due:
                times.append(self._receiver.acknowledger.due_at)
        if self._streams.unopened_since is not None:
            times.append(self._streams.unopened_since + self._unopened_timeout)
        times += (self._streams.ends_at, self._streams.accepts_at, self._streams.finishes_at)
        waiting_since = self._progress.waiting_since
        if waiting_since is not None:
            times.append(waiting_since + self.limits.give_up)
            times.append(self._stalled_at())
        elif len(self._streams):
            times.append(self._heard_at + self.limits.watch_interval)
        earliest = inf
        for at in times:
            if at is not None and at < earliest:
                earliest = at
        return earliest

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline up to ``now``: probes, acknowledgements, another path, giving up."""
        if self._due_at is not None and now < self._due_at:
            return
        self._due_at = None
        self._receiver.reassembly.expire(now)
        self.association.handle_timeout(now)
        self._after_association(now)
        if self._cutter is not None and self._speaking:
            self._probe(now)
        self._note_ack_due(now)
        self._watch(now)
        stalled_at = self._stalled_at()
        if stalled_at is not None and now >= stalled_at:
            self._progress.tried(now)
            self._report(PathStalled(now))
            if not self._sender.wait_for_peer:
                self._sender.recovery.forget_losses()
                self._note_waiting(now)
        waiting_since = self._progress.waiting_since
        if waiting_since is not None and now >= waiting_since + self.limits.give_up:
            self._give_up()
        self._streams.forget_unopened(now - self._unopened_timeout)
        self._streams.end_overdue(now)
        self._streams.accept_overdue(now)
        if self._streams.finishes_at is not None and self._streams.finishes_at <= now:
            self._streams.send_last_fins(now)
        self._note_waiting(now)

    @property
    def _unopened_timeout(self) -> float:
        """Return the seconds for which bytes are kept whose stream the peer has not opened."""
        return UNOPENED_GIVE_UPS * self.limits.give_up

    def _stalled_at(self) -> float | None:
        """Return when to ask for another path; None when nothing waits for the peer."""
        if self._cutter is None or self._closed:
            return None
        return self._progress.stalled_at(self._sender.recovery.probe_timeout)

    def _probe(self, now: float) -> None:
        """Declare losses and request probes; after several without an answer, ask for new keys too."""
        recovery = self._sender.recovery
        recovery.handle_timeout(now)
        self._take_output()
        if recovery.pto_count >= ASK_FOR_KEYS_BACKOFF:
            self.association.initiate(now)
            self._after_association(now)

    def _watch(self, now: float) -> None:
        """Send a PING to a peer that was silent for `Limits.watch_interval` while streams are open."""
        silent = now >= self._heard_at + self.limits.watch_interval
        if self._progress.waiting_since is None and len(self._streams) and silent:
            self._sender.frames.append(PendingPing())
            self._note_waiting(now)

    def _note_ack_due(self, now: float) -> None:
        ack_at = self._receiver.acknowledger.due_at
        if ack_at is not None and ack_at <= now:
            self._sender.ack_due = True

    def _note_waiting(self, now: float) -> None:
        """Note since when something waits to be sent or acknowledged; ask for keys if they are missing."""
        self._due_at = None
        if self._streams.frames or self._streams.events:
            self._take_output()
        sender, progress = self._sender, self._progress
        for record_class in sender.recovery.classes:
            progress.note(record_class, not self._closed and sender.waits(record_class), now)
        waits = not self._closed and sender.wait_for_peer
        if waits and self._cutter is not None and self.association.send_key is None:
            self.association.initiate(now)
            self._after_association(now)

    def _give_up(self) -> None:
        """Reset all streams and take a new incarnation: the peer has not answered for ``give_up``."""
        self.association.begin_anew()
        self._lose_all(RESET_PEER_LOST, f"no answer for {self.limits.give_up:g} s")
        self._restart()

    def _close(self, reason: str) -> None:
        """Reset all streams and ignore this incarnation of the peer from now on: it broke the protocol."""
        self._closed = reason
        self._lose_all(RESET_PROTOCOL, reason)
        self._restart(self._sender.recovery.next_number)

    def end(self, reason: str) -> None:
        """Reset all streams and forget the keys: the peer is no node of the overlay any more."""
        self._due_at = None
        self._closed = reason
        self._lose_all(RESET_PEER_LOST, reason)
        self.association.close()

    def _lose_all(self, code: int, reason: str) -> None:
        self._streams.lose_all(code, reason)
        self._progress.forget()
        self._report(PeerLost(reason))

    @property
    def streams_kept(self) -> int:
        """Return how many streams take memory here: those of applications, and those that are not over for the peer."""
        return len(self._streams)

    def stream_status(self, stream: StreamKey) -> StreamStatus | None:
        """Return what this stream does now; None when it is over."""
        found = self._streams.get(stream)
        if found is None:
            return None
        window_bytes = self._scheduler.limit - self._scheduler.used
        return status_of(found, self._rtt(), window_bytes, self._speaking and self._cutter is not None)

    def status(self, now: float) -> SessionStatus:
        """Return the figures of this session."""
        recovery = self._sender.recovery
        receiver = self._receiver
        credit = self._streams.credit
        return SessionStatus(
            established=self.association.send_key is not None,
            streams=self._streams.live,
            smoothed_rtt=recovery.classes[CLASS_EXPRESS].rtt.smoothed_rtt,
            bulk_rtt=recovery.classes[CLASS_BULK].rtt.smoothed_rtt,
            records_sent=recovery.next_number,
            records_acked=recovery.acked_records,
            records_lost=recovery.lost_records,
            records_spurious=recovery.spurious_records,
            records_received=receiver.acknowledger.count,
            records_repeated=receiver.repeated,
            records_forged=receiver.forged,
            handshakes_refused=self._handshakes.refused,
            fragments_refused=receiver.refused + receiver.reassembly.refused_fragments,
            reassembly_bytes=receiver.reassembly.memory_bytes,
            unsent_bytes=self._scheduler.buffered,
            unread_bytes=credit.unread,
            held_bytes=credit.held,
            granted_bytes=credit.granted,
            send_window_bytes=self._scheduler.limit - self._scheduler.used,
            receive_window_bytes=credit.advertised - credit.arrived,
            packets_dropped=self._sender.packets.dropped,
        )

    def _rtt(self) -> float:
        return self._sender.recovery.classes[CLASS_EXPRESS].rtt.smoothed_rtt
