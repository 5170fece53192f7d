"""The sending half of a session: fills records with frames, seals and cuts them, and keeps them until acknowledged.

Two classes leave. *Express* records carry acknowledgements, windows, control frames and the bytes of sparse streams;
they wait only while the path is full of our own express. *Bulk* records carry everything else. Of both as many leave as
the node has room for. A bulk record is filled to its last byte when there is enough to send, so that all its fragments
are of one size, and never waits to be filled.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from seamless.crypto.association import Association
from seamless.crypto.sealing import SendKey
from seamless.delivery.acknowledger import Acknowledger
from seamless.interfaces import Buffer
from seamless.session.frames import PendingFrame, PendingPing, SentAck, SentPacket
from seamless.session.packets import PacketQueue
from seamless.session.record import Cutter
from seamless.session.recovery import Outgoing, Recovery
from seamless.session.scheduler import Scheduler
from seamless.wire.session_frames import (
    ACK,
    encode_datagram,
    encode_stream_header,
)
from seamless.wire.text import MAX_REASON_BYTES
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS, CLASS_UNRECOVERED, TRAFFIC_CLASSES

FRAME_MAX_BYTES: Final = MAX_REASON_BYTES + 64
"""Bytes of the longest control frame."""

SMALLEST_FRAME: Final = 32
"""Bytes: less than this left in a record is padded, not filled with another frame."""

PACKET_AGE_MAX: Final = 1.0
"""Seconds after which a packet is dropped rather than sent: its TCP has sent it again by then."""

PACKETS_MAX_BYTES: Final = 2 << 20
"""Bytes of packets that wait: 30 ms at 500 Mb/s."""

PACKETS_LOST_IN_VAIN: Final = 3
"""Records lost, and none acknowledged, that make a class wait, although packets are not sent again."""

PACKETS_SPARSE_BYTES: Final = 512
"""Bytes of waiting packets, up to which an acknowledgement that is owed goes along with them: requests and answers then
need no records for their acknowledgements alone. Beside bulk it would wait where bulk waits."""


@attrs.define
class SentRecords:
    """Overlay packets by class, and the streams that have room for their applications again."""

    express: list[bytes] = attrs.Factory(list)
    bulk: list[bytes] = attrs.Factory(list)
    writable: list[int] = attrs.Factory(list)


class _OpenRecord:
    """A record that is being filled; ``space`` is how many bytes it has left."""

    __slots__ = ("contents", "packet_class", "parts", "record_class", "space")

    def __init__(self, record_class: int, space: int) -> None:
        self.record_class = record_class
        self.packet_class = record_class
        self.parts: list[Buffer] = []
        self.contents: list[Outgoing] = []
        self.space = space

    def add(self, frame: Buffer, content: Outgoing) -> None:
        """Append a frame; ``content`` is told what becomes of the record."""
        self.parts.append(frame)
        self.contents.append(content)
        self.space -= len(frame)


class Sender:
    """All that is to be sent to one incarnation of the peer: frames, whole packets, and bytes of streams."""

    def __init__(self, scheduler: Scheduler, acknowledger: Acknowledger, first_number: int) -> None:
        self.recovery = Recovery(first_number)
        self.frames: deque[PendingFrame] = deque()
        self.ack_due = False
        self.packets = PacketQueue(PACKETS_MAX_BYTES, PACKET_AGE_MAX)
        self._scheduler = scheduler
        self._acknowledger = acknowledger
        self._packets_turn = False

    @property
    def wait_for_peer(self) -> bool:
        """Return whether something waits to be sent or acknowledged; an acknowledgement that we owe is neither."""
        under_way = self.recovery.anything_under_way
        return under_way or bool(self.frames) or self._scheduler.wants(CLASS_EXPRESS) or self.wants_bulk

    def waits(self, record_class: int) -> bool:
        """Return whether something of a class waits to be sent or acknowledged, or was lost too often."""
        ledger = self.recovery.classes[record_class]
        if ledger.outstanding or ledger.lost_in_vain >= PACKETS_LOST_IN_VAIN or self._scheduler.wants(record_class):
            return True
        return bool(self.frames if record_class == CLASS_EXPRESS else self.packets)

    @property
    def wants_express(self) -> bool:
        """Return whether an express record is to be sent."""
        probe = self.recovery.classes[CLASS_EXPRESS].probe_wanted
        return bool(self.ack_due or self.frames or probe) or self._scheduler.wants(CLASS_EXPRESS)

    @property
    def wants_bulk(self) -> bool:
        """Return whether a bulk record is to be sent."""
        probe = self.recovery.classes[CLASS_BULK].probe_wanted
        return bool(self.packets or probe) or self._scheduler.wants(CLASS_BULK)

    def send(
        self, association: Association, cutter: Cutter, room: int, express_room: int | None, now: float
    ) -> SentRecords:
        """Fill, seal and cut records: about ``room`` packets of bulk, and ``express_room`` (None: all) of express."""
        sent = SentRecords()
        express, bulk = sent.express, sent.bulk
        key = association.send_key
        if key is None:
            return sent
        first = self.recovery.next_number
        while (express_room is None or len(express) < express_room) and self.wants_express:
            record = _OpenRecord(CLASS_EXPRESS, cutter.plaintext_bytes)
            self._fill_express(record, sent.writable, now)
            if not self._seal(record, key, cutter, express, now):
                break
        while len(bulk) < room and self.wants_bulk:
            record = _OpenRecord(CLASS_BULK, cutter.plaintext_bytes)
            self._fill_bulk(record, sent.writable, now)
            if not self._seal(record, key, cutter, bulk, now):
                break
        association.sent(self.recovery.next_number - first, now)
        return sent

    def _seal(self, record: _OpenRecord, key: SendKey, cutter: Cutter, packets: list[bytes], now: float) -> bool:
        """Seal a record, cut it into ``packets``, and keep its contents; return False when there is nothing in it."""
        contents = record.contents
        if self.recovery.classes[record.record_class].probe_wanted and not contents:
            ping = PendingPing()
            record.add(ping.encode(now), ping)
        if not record.parts:
            return False
        if record.record_class == CLASS_BULK and 0 < record.space < SMALLEST_FRAME:
            record.parts.append(bytes(record.space))
        number = self.recovery.take_number()
        nonce = key.record_nonce(number)
        packets += cutter.cut(record.packet_class, nonce, key.encrypt(nonce, b"".join(record.parts), None))
        if contents:
            is_wanted = not all(isinstance(each, (PendingPing, SentAck)) for each in contents)
            self.recovery.sent(number, record.record_class, contents, now, is_wanted=is_wanted)
        return True

    def _fill_express(self, record: _OpenRecord, writable: list[int], now: float) -> None:
        """Put in the acknowledgement that is due, the frames that wait, and bytes of sparse streams."""
        self._packets_turn = not self._packets_turn
        ack = self._add_ack(record, now)
        while self.frames and record.space >= FRAME_MAX_BYTES:
            pending = self.frames.popleft()
            frame = pending.encode(now)
            if frame:
                record.add(frame, pending)
        if ack is not None and record.contents:
            record.contents.append(ack)
        self._add_pieces(record, writable, now)

    def _fill_bulk(self, record: _OpenRecord, writable: list[int], now: float) -> None:
        """Put in whole packets or bytes of streams, each in turn while both wait."""
        if self.packets and (self._packets_turn or not self._scheduler.wants(CLASS_BULK)):
            is_sparse = self.packets.size_bytes <= PACKETS_SPARSE_BYTES
            self._add_packets(record, now)
            if is_sparse and record.contents and TRAFFIC_CLASSES[record.packet_class].is_ordered:
                ack = self._add_ack(record, now)
                if ack is not None:
                    record.contents.append(ack)
        self._packets_turn = not self._packets_turn
        if TRAFFIC_CLASSES[record.packet_class].is_ordered:
            self._add_pieces(record, writable, now)

    def _add_ack(self, record: _OpenRecord, now: float) -> SentAck | None:
        """Put in the acknowledgement that is due, and return what is to be kept of it; None when none is due."""
        self.ack_due = False
        if self._acknowledger.due_at is None:
            return None
        body = self._acknowledger.take(now)
        record.parts += (bytes((ACK,)), body)
        record.space -= 1 + len(body)
        return SentAck(self._acknowledger)

    def _add_pieces(self, record: _OpenRecord, writable: list[int], now: float) -> None:
        """Fill the record with bytes of streams, and note the streams that may be written to again."""
        scheduler = self._scheduler
        while record.space >= SMALLEST_FRAME:
            piece = scheduler.next_piece(record.record_class, record.space, now)
            if piece is None:
                break
            half = piece.half
            if half.starved and scheduler.has_room_again(half):
                writable.append(half.stream)
            record.parts.append(encode_stream_header(half.stream, piece.offset, len(piece.data), piece.fin))
            record.space -= len(record.parts[-1])
            record.add(piece.data, piece)

    def _add_packets(self, record: _OpenRecord, now: float) -> None:
        """Put in whole packets, at least one whatever its length.

        A packet that no link recovers has a record of its own, so that a lost fragment costs one packet.
        """
        while (waiting := self.packets.head(now)) is not None:
            frame = encode_datagram(waiting.packet)
            if record.parts and (len(frame) > record.space or not waiting.is_recovered):
                break
            self.packets.take()
            record.add(frame, SentPacket())
            if not waiting.is_recovered:
                record.packet_class = CLASS_UNRECOVERED
                break
