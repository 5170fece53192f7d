"""All streams between two incarnations of two nodes: commands of applications in, frames of the peer in, events out.

What the peer says is checked here against what it may say. Its mistakes raise `RemoteProtocolError`, upon which the
session is over; what it says of streams that are gone is ignored, since records come late and twice. Identifiers are
never used twice, so a gone stream is told from a new one by the ranges of those seen, of which a bounded number is
kept.

Bytes may overtake the OPEN of their stream, but only so many as an opener may send unasked, and not for long. Until the
OPEN comes, the stream itself counts as memory of what came too early (`SessionCredit.hold`).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seamless.errors import LocalProtocolError, RemoteProtocolError
from seamless.interfaces import (
    DataReceived,
    StreamAccepted,
    StreamClosed,
    StreamEvent,
    StreamFinished,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.session.frames import PendingFrame, PendingReset, PersistentFrame, SessionWindowUpdate, StreamWindowUpdate
from seamless.session.limits import Limits
from seamless.session.receive_half import ReceiveHalf
from seamless.session.scheduler import Scheduler
from seamless.session.send_half import SendHalf
from seamless.session.stream import ENDING_TIMEOUT, Stream, severity
from seamless.session.window import SessionCredit, StreamWindow
from seamless.wire.ranges import RangeSet
from seamless.wire.session_frames import (
    EARLY_WINDOW_BYTES,
    MAX_TARGET_BYTES,
    AcceptFrame,
    OpenFrame,
    ResetFrame,
    StreamFrame,
    WindowFrame,
    encode_accept,
    encode_open,
)

MAX_SEEN_RANGES: Final = 1024
"""Ranges of stream numbers kept: streams are opened in order, and so many records are never missing at once."""

HARD_LIMIT: Final = 2
"""The peer may have so many times ``max_streams`` open here: it sees streams end earlier than we do, but not so
much."""

ACCEPT_DELAY: Final = 0.002
"""Seconds for which an ACCEPT waits for the first bytes of the answer: what a server near the egress takes."""

LAST_FIN_DELAY: Final = 0.010
"""Seconds for which the FIN of a stream whose other direction has ended waits for a record that takes it along."""

STREAM_MEMORY_BYTES: Final = 1024
"""Bytes of memory of a stream whose OPEN has not come, as CPython makes objects. ``test_memory`` measures it."""


class Streams:
    """The streams of one session, from the first record to the last of an incarnation of the peer."""

    def __init__(
        self,
        *,
        local: int,
        peer: int,
        limits: Limits,
        next_number: int,
        scheduler: Scheduler,
    ) -> None:
        self.credit = SessionCredit(limits)
        self.next_number = next_number
        self.live = 0
        """The number of streams that an application knows."""
        self.frames: deque[PendingFrame] = deque()
        """Frames for the peer, which the session takes and sends."""
        self.events: deque[StreamEvent] = deque()
        """Events, oldest first, which the session takes."""
        self._peer = peer
        self._parity = 0 if local < peer else 1
        self._limits = limits
        self._scheduler = scheduler
        self._streams: dict[int, Stream] = {}
        self._seen = RangeSet()
        self._seen_floor = 0
        self._batch: dict[int, DataReceived] = {}
        self._unopened: dict[int, float] = {}
        """Streams of the peer whose OPEN has not come, oldest first, and since when they are there."""
        self._finishing: dict[int, float] = {}
        """Streams whose FIN, the last there is to send, waits for another record, oldest first, and until when."""
        self._accepting: dict[int, float] = {}
        """Streams whose ACCEPT waits for the first bytes of the answer, oldest first, and until when."""
        self._ending: dict[int, float] = {}
        """Streams whose RESET waits for the peer's windows, oldest first, and until when."""

    def __len__(self) -> int:
        """Return the number of streams that are not over, known to an application or not."""
        return len(self._streams)

    def set_limits(self, limits: Limits) -> None:
        """Go on within other limits."""
        self._limits = self.credit.limits = limits

    def get(self, key: StreamKey) -> Stream | None:
        """Return a stream that is not over; None when there is none of this key."""
        return self._streams.get(key[1])

    # Commands.

    def open(self, target: bytes) -> StreamKey:
        """Open a stream to ``target``: queue OPEN, and return its key."""
        if len(target) > MAX_TARGET_BYTES:
            raise LocalProtocolError(f"a target of {len(target)} bytes; at most {MAX_TARGET_BYTES} are allowed")
        if len(self._streams) >= self._limits.max_streams:
            raise LocalProtocolError(f"{len(self._streams)} streams are open to this peer; close some first")
        number = self.next_number << 1 | self._parity
        self.next_number += 1
        return self._ask(number, target).key

    def _ask(self, number: int, target: bytes) -> Stream:
        """Make a stream of ours, and queue its OPEN."""
        stream = self._create(number, ours=True)
        stream.target = target
        stream.send.early = []
        self.live += 1
        self.frames.append(PersistentFrame(encode_open(number, stream.receive.window.advertised, target), self.frames))
        return stream

    def open_again(self, old: Stream, now: float) -> None:
        """Open a stream again that the former peer never answered, with all bytes written so far."""
        half = self._ask(old.key[1], old.target).send
        half.finishing = old.send.finishing
        for data in old.send.from_the_first():
            self._scheduler.write(half, data, now)
        self._scheduler.wake(half, now)
        if old.send.starved and not half.starved:
            self.events.append(StreamWritable((self._peer, half.stream)))

    def accept(self, key: StreamKey, now: float) -> None:
        """Send ACCEPT for a stream that the peer opened.

        After a request that is all that the peer may send unasked it waits a moment, so that the first bytes of the
        answer, and perhaps the FIN, go with it.
        """
        stream = self._streams.get(key[1])
        if stream is None or stream.ours or stream.accepted or stream.reset_sent:
            return
        stream.accepted = True
        self._accepting[key[1]] = now + ACCEPT_DELAY
        if not 0 < stream.receive.highest < EARLY_WINDOW_BYTES:
            self._send_accept(key[1])

    def _send_accept(self, number: int) -> None:
        """Queue ACCEPT, if it waits for the first bytes of the answer."""
        if self._accepting.pop(number, None) is not None:
            frame = encode_accept(number, self._streams[number].receive.window.advertised)
            self.frames.append(PersistentFrame(frame, self.frames))

    @property
    def accepts_at(self) -> float | None:
        """Return when the first ACCEPT that waits for an answer is due; None when there is none."""
        return next(iter(self._accepting.values()), None)

    def accept_overdue(self, now: float) -> None:
        """Queue the ACCEPTs whose answers do not come at once."""
        while (accepts_at := self.accepts_at) is not None and accepts_at <= now:
            self._send_accept(next(iter(self._accepting)))

    def reset(self, key: StreamKey, code: int, reason: str, now: float) -> None:
        """End both directions, after the bytes that were written. The stream has no more events.

        A second reset counts only if it is the harsher one: then nothing more is delivered.
        """
        stream = self._streams.get(key[1])
        if stream is None or (stream.reset_sent and severity(code) <= stream.reset_severity):
            return
        if not stream.reset_sent:
            self.live -= 1
        self._send_accept(key[1])
        stream.receive.discard()
        if severity(code):
            self._scheduler.close(stream.send)
            self._announce_reset(stream, code, reason, fin=False)
        elif self._scheduler.may_reserve_all(stream.send) or stream.peer_reset is not None:
            self._reset_within_windows(stream, code, reason, now)
        else:
            stream.ending = code, reason
            self._ending[key[1]] = now + ENDING_TIMEOUT

    def _reset_within_windows(self, stream: Stream, code: int, reason: str, now: float) -> None:
        """Send RESET after the bytes that both windows allow, and the FIN if these are all; drop the others."""
        finishing = stream.send.finishing
        fin = self._scheduler.reserve(stream.send, now) == 0 and finishing
        self._announce_reset(stream, code, reason, fin)

    def _announce_reset(self, stream: Stream, code: int, reason: str, fin: bool) -> None:
        final = stream.send.final if stream.own_reset is None else stream.own_reset.final_offset
        stream.ending = None
        self._ending.pop(stream.key[1], None)
        self._send_reset(stream, ResetFrame(stream.key[1], code, final, reason, fin))

    def _windows_opened(self, stream: Stream, now: float) -> None:
        """Send the RESET of a stream that is ending, if the windows allow the bytes before it now."""
        if stream.ending is not None and self._scheduler.may_reserve_all(stream.send):
            self._reset_within_windows(stream, *stream.ending, now)

    @property
    def ends_at(self) -> float | None:
        """Return when the oldest stream that is ending has waited long enough; None when there is none."""
        return next(iter(self._ending.values()), None)

    def end_overdue(self, now: float) -> None:
        """Reset the streams whose reader has not taken the bytes before the RESET in time."""
        while (ends_at := self.ends_at) is not None and ends_at <= now:
            stream = self._streams[next(iter(self._ending))]
            assert stream.ending is not None
            self._reset_within_windows(stream, *stream.ending, now)

    def write(self, key: StreamKey, data: bytes, now: float) -> int:
        """Append to a stream; return the room left in bytes. Bytes for a stream that has ended are dropped."""
        stream = self._streams.get(key[1])
        if stream is None or stream.reset_sent or stream.send.dropped:
            return 0
        if stream.send.finishing:
            raise LocalProtocolError(f"stream {key} was written to after it was finished")
        if self._accepting:
            self._send_accept(key[1])
        return self._scheduler.write(stream.send, data, now)

    def finish(self, key: StreamKey, now: float) -> None:
        """Send the FIN after what was written.

        When the peer has ended its direction and everything else was sent, nobody waits for the FIN: it may wait a
        moment itself, for another record that takes it along.
        """
        stream = self._streams.get(key[1])
        if stream is None or stream.reset_sent:
            return
        self._send_accept(key[1])
        stream.send.finishing = True
        if stream.end_reported and stream.send.fin_due():
            self._finishing.setdefault(key[1], now + LAST_FIN_DELAY)
        else:
            self._scheduler.wake(stream.send, now)

    @property
    def finishes_at(self) -> float | None:
        """Return when the first FIN that waits for company is due; None when there is none."""
        return next(iter(self._finishing.values()), None)

    def send_last_fins(self, now: float) -> None:
        """Queue the FINs that wait for another express record: there is one now, or the first is due."""
        finishing, self._finishing = self._finishing, {}
        for number in finishing:
            stream = self._streams.get(number)
            if stream is not None:
                self._scheduler.wake(stream.send, now)

    def consumed(self, key: StreamKey, nbytes: int) -> None:
        """Open the stream's window by ``nbytes`` that the application has taken."""
        stream = self._streams.get(key[1])
        if stream is None:
            return
        half = stream.receive
        half.consume(nbytes)
        if not half.update_queued and half.final is None and half.window.update_due(self.credit):
            self.frames.append(StreamWindowUpdate(half, self.frames))
        self.update_session_window()

    def update_session_window(self) -> None:
        """Queue SESSION_WINDOW if enough of the window has come free."""
        if self.credit.update_due() and not self.credit.update_queued:
            self.frames.append(SessionWindowUpdate(self.credit, self.frames))

    # Frames of the peer.

    def begin_batch(self) -> None:
        """Put what arrives from now on into new events: the old ones were handed over."""
        self._batch.clear()

    def receive_stream(self, frame: StreamFrame, rtt: float, now: float) -> None:
        """Act on STREAM: bytes, and perhaps the FIN."""
        stream = self._find(frame.stream, now)
        if stream is None:
            return
        half = stream.receive
        if not stream.flowing:
            self._check_early(stream, frame.offset + len(frame.data))
        if stream.flowing and half.take_next(frame.offset, frame.data):
            self._deliver(stream, [frame.data])
        else:
            half.receive(frame.offset, frame.data)
            if stream.flowing:
                self._deliver(stream, half.take())
        if half.window.arrived(half.highest, self.credit, rtt, now):
            self.consumed(stream.key, 0)
        if frame.fin:
            half.end_at(frame.offset + len(frame.data))
            half.fin = True
        if half.final is not None:
            self._report_end(stream)

    def receive_open(self, frame: OpenFrame, now: float) -> None:
        """Act on OPEN: the peer asks for a stream."""
        if frame.stream & 1 == self._parity:
            raise RemoteProtocolError(f"an OPEN for stream {frame.stream}, which is ours to open")
        stream = self._find(frame.stream, now)
        if stream is None or stream.flowing:
            return
        stream.flowing = True
        self._no_longer_unopened(stream)
        stream.send.limit = max(stream.send.limit, frame.window)
        if stream.reset_sent:
            return
        self.live += 1
        self.events.append(StreamOpened(stream.key, frame.target))
        self._deliver(stream, stream.receive.take())
        self._report_end(stream)

    def receive_accept(self, frame: AcceptFrame, now: float) -> None:
        """Act on ACCEPT: the peer accepted a stream of ours."""
        if frame.stream & 1 != self._parity:
            raise RemoteProtocolError(f"an ACCEPT for stream {frame.stream}, which is not ours")
        stream = self._find(frame.stream, now)
        if stream is None or stream.flowing:
            return
        stream.flowing = True
        stream.target = b""
        stream.send.early = None
        stream.send.limit = max(stream.send.limit, frame.window)
        self._windows_opened(stream, now)
        if stream.reset_sent:
            self._scheduler.wake(stream.send, now)
            return
        self.events.append(StreamAccepted(stream.key))
        self._scheduler.wake(stream.send, now)
        self._deliver(stream, stream.receive.take())
        self._report_end(stream)

    def receive_reset(self, frame: ResetFrame, now: float) -> None:
        """Act on RESET: the peer ended both directions, perhaps a second time with a harsher code."""
        stream = self._find(frame.stream, now)
        if stream is None:
            return
        before = stream.peer_reset
        if before is not None and severity(frame.code) <= severity(before.code):
            return
        if not stream.flowing:
            self._check_early(stream, frame.final_offset)
        stream.receive.end_at(frame.final_offset)
        stream.receive.fin = stream.receive.fin or frame.fin
        stream.peer_reset = frame
        if not stream.reset_sent:
            self._scheduler.close(stream.send)
            self._report_end(stream)
        elif stream.ending is not None:
            self._reset_within_windows(stream, *stream.ending, now)
        self._forget_if_over(stream)

    def receive_window(self, frame: WindowFrame, now: float) -> None:
        """Act on WINDOW: more may be sent on a stream."""
        stream = self._find(frame.stream, now)
        if stream is not None and frame.limit > stream.send.limit:
            stream.send.limit = frame.limit
            self._windows_opened(stream, now)
            self._scheduler.wake(stream.send, now)

    def receive_session_window(self, limit: int, now: float) -> None:
        """Act on SESSION_WINDOW: more may be sent over all streams."""
        self._scheduler.limit = max(self._scheduler.limit, limit)
        for number in list(self._ending):
            self._windows_opened(self._streams[number], now)

    # What follows.

    def writable_again(self, numbers: list[int]) -> None:
        """Report streams that have room for their applications again."""
        for number in reversed(numbers):
            stream = self._streams.get(number)
            if stream is not None and not stream.reset_sent:
                self.events.append(StreamWritable(stream.key))

    def forget_ended(self) -> None:
        """Forget the streams of which the last acknowledgement has come."""
        for number in self._scheduler.take_ended():
            stream = self._streams.get(number)
            if stream is not None:
                self._forget_if_over(stream)

    def take_unanswered(self) -> list[Stream]:
        """Remove and return the streams of ours of which the peer has given no sign."""
        unanswered = [stream for stream in self._streams.values() if stream.unanswered]
        for stream in unanswered:
            del self._streams[stream.key[1]]
            self.live -= 1
        return unanswered

    def lose_all(self, code: int, reason: str) -> None:
        """Forget all streams, and report a reset of each that an application knows."""
        for stream in self._streams.values():
            if not stream.reset_sent and self._known(stream):
                self.events.append(StreamReset(stream.key, code, reason))
        self._streams.clear()
        self._ending.clear()
        self._accepting.clear()
        self._finishing.clear()
        self.live = 0

    def _create(self, number: int, ours: bool) -> Stream:
        window = StreamWindow(self.credit)
        stream = Stream(
            (self._peer, number), ours, SendHalf(number, self._scheduler), ReceiveHalf(number, window, self.credit)
        )
        self._streams[number] = stream
        return stream

    def _find(self, number: int, now: float) -> Stream | None:
        """Return the stream that a frame names, made if the peer begins it; None when it is over."""
        stream = self._streams.get(number)
        if stream is not None:
            return stream
        ordinal = number >> 1
        if number & 1 == self._parity:
            if ordinal >= self.next_number:
                raise RemoteProtocolError(f"a frame for stream {number}, which was never opened")
            return None
        if ordinal < self._seen_floor or ordinal in self._seen:
            return None
        if len(self._streams) >= HARD_LIMIT * self._limits.max_streams:
            raise RemoteProtocolError(f"more than {len(self._streams)} streams were opened at once")
        self._seen.add(ordinal, ordinal)
        if len(self._seen) > MAX_SEEN_RANGES:
            self._seen.keep_newest(MAX_SEEN_RANGES)
            self._seen_floor = self._seen.firsts[0]
        self.credit.hold(STREAM_MEMORY_BYTES)
        self._unopened[number] = now
        return self._create(number, ours=False)

    @property
    def unopened_since(self) -> float | None:
        """Return since when the OPEN of a stream is overdue; None when there is no such stream."""
        return next(iter(self._unopened.values()), None)

    def forget_unopened(self, until: float) -> None:
        """Forget streams that the peer should have opened by ``until``; later frames for them are ignored."""
        while (since := self.unopened_since) is not None and since <= until:
            stream = self._streams.pop(next(iter(self._unopened)))
            stream.receive.discard()
            self._scheduler.close(stream.send)
            self._no_longer_unopened(stream)

    def _check_early(self, stream: Stream, end: int) -> None:
        """Raise `RemoteProtocolError` when a stream that is not accepted was sent beyond `EARLY_WINDOW_BYTES`."""
        if not stream.ours and end > EARLY_WINDOW_BYTES:
            raise RemoteProtocolError(f"stream {stream.key[1]} sent to {end} before it was accepted")

    def _no_longer_unopened(self, stream: Stream) -> None:
        if self._unopened.pop(stream.key[1], None) is not None:
            self.credit.held -= STREAM_MEMORY_BYTES

    def _known(self, stream: Stream) -> bool:
        """Return whether an application knows the stream."""
        return stream.ours or stream.flowing

    def _deliver(self, stream: Stream, chunks: list[bytes]) -> None:
        """Report bytes in order, in one event for each stream and batch."""
        if not chunks:
            return
        event = self._batch.get(stream.key[1])
        if event is None:
            event = self._batch[stream.key[1]] = DataReceived(stream.key, chunks)
            self.events.append(event)
        else:
            event.chunks += chunks

    def _report_end(self, stream: Stream) -> None:
        """Report the peer's FIN or RESET, if every byte before it is delivered."""
        if stream.reset_sent:
            self._forget_if_over(stream)
            return
        half = stream.receive
        if half.fin and half.complete and stream.flowing and not stream.end_reported:
            stream.end_reported = True
            self.events.append(StreamFinished(stream.key))
        if stream.reset_due:
            reset = stream.peer_reset
            assert reset is not None
            if self._known(stream):
                self.events.append(StreamReset(stream.key, reset.code, reset.reason))
                self.live -= 1
            half.discard()
            self._send_reset(stream, ResetFrame(stream.key[1], reset.code, stream.send.final, ""))
        self._forget_if_over(stream)

    def _send_reset(self, stream: Stream, frame: ResetFrame) -> None:
        """Queue RESET with the final offset of our half, and whether a FIN comes before the reset."""
        stream.own_reset = frame
        stream.reset_acked = False
        self.frames.append(PendingReset(stream, frame, self.frames))

    def _forget_if_over(self, stream: Stream) -> None:
        if not stream.over or self._streams.pop(stream.key[1], None) is None:
            return
        if not stream.reset_sent:
            self.live -= 1
            self.events.append(StreamClosed(stream.key))
        self._accepting.pop(stream.key[1], None)
        self._scheduler.close(stream.send)
        stream.receive.discard()
        self._no_longer_unopened(stream)
