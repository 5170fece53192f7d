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
from seamless.session.frames import PendingFrame, PendingPing, SentAck, SentPacket
from seamless.session.packets import PacketQueue
from seamless.session.receiver import Receiver
from seamless.session.record import Cutter
from seamless.session.recovery import Outgoing, Recovery
from seamless.session.scheduler import Scheduler
from seamless.wire.header import CLASS_BULK, CLASS_EXPRESS, CLASS_UNRECOVERED
from seamless.wire.session_frames import (
    ACK,
    encode_datagram,
    encode_stream_header,
)
from seamless.wire.text import MAX_REASON_BYTES

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


class Sender:
    """All that is to be sent to one incarnation of the peer: frames, whole packets, and bytes of streams."""

    def __init__(self, scheduler: Scheduler, receiver: Receiver, first_number: int) -> None:
        self.recovery = Recovery(first_number)
        self.frames: deque[PendingFrame] = deque()
        self.ack_due = False
        self.packets = PacketQueue(PACKETS_MAX_BYTES, PACKET_AGE_MAX)
        self._scheduler = scheduler
        self._receiver = receiver
        self._packets_turn = False

    @property
    def wait_for_peer(self) -> bool:
        """Return whether something waits to be sent or acknowledged; an acknowledgement that we owe is neither."""
        under_way = self.recovery.anything_under_way
        return under_way or bool(self.frames) or self._scheduler.wants(CLASS_EXPRESS) or self.wants_bulk

    def waits(self, record_class: int) -> bool:
        """Return whether something of a class waits to be sent or acknowledged, or was lost too often."""
        state = self.recovery.lanes[record_class]
        if state.under_way or state.wanted_lost >= PACKETS_LOST_IN_VAIN or self._scheduler.wants(record_class):
            return True
        return bool(self.frames if record_class == CLASS_EXPRESS else self.packets)

    @property
    def wants_express(self) -> bool:
        """Return whether an express record is to be sent."""
        probe = self.recovery.lanes[CLASS_EXPRESS].probe_wanted
        return bool(self.ack_due or self.frames or probe) or self._scheduler.wants(CLASS_EXPRESS)

    @property
    def wants_bulk(self) -> bool:
        """Return whether a bulk record is to be sent."""
        probe = self.recovery.lanes[CLASS_BULK].probe_wanted
        return bool(self.packets or probe) or self._scheduler.wants(CLASS_BULK)

    def send(
        self, association: Association, cutter: Cutter, room: int, express_room: int | None, now: float
    ) -> SentRecords:
        """Fill, seal and cut records: about ``room`` packets of bulk, and ``express_room`` (None: all) of express."""
        sent = SentRecords()
        express, bulk = sent.express, sent.bulk
        first = self.recovery.next_number
        while (express_room is None or len(express) < express_room) and self.wants_express:
            if not self._send_record(CLASS_EXPRESS, association, cutter, express, sent.writable, now):
                break
        while len(bulk) < room and self.wants_bulk:
            if not self._send_record(CLASS_BULK, association, cutter, bulk, sent.writable, now):
                break
        association.sent(self.recovery.next_number - first, now)
        return sent

    def _send_record(
        self,
        record_class: int,
        association: Association,
        cutter: Cutter,
        packets: list[bytes],
        writable: list[int],
        now: float,
    ) -> bool:
        """Fill and seal one record; return False when there was nothing to put into it."""
        key = association.send_key
        if key is None:
            return False
        parts: list[bytes | bytearray | memoryview] = []
        contents: list[Outgoing] = []
        space = cutter.plaintext_bytes
        packet_class = record_class
        if record_class == CLASS_EXPRESS:
            space = self._add_ack_and_frames(parts, contents, space, now)
        elif self.packets and (self._packets_turn or not self._scheduler.wants(CLASS_BULK)):
            is_sparse = self.packets.size_bytes <= PACKETS_SPARSE_BYTES
            packet_class, space = self._add_packets(parts, contents, space, now)
            if is_sparse and contents and packet_class == record_class:
                space -= self._add_ack(parts, contents, now)
        self._packets_turn = not self._packets_turn
        if packet_class == record_class:
            space = self._add_pieces(parts, contents, writable, record_class, space, now)
        if self.recovery.lanes[record_class].probe_wanted and not contents:
            ping = PendingPing()
            parts.append(ping.encode(now))
            contents.append(ping)
        if not parts:
            return False
        if record_class == CLASS_BULK and 0 < space < SMALLEST_FRAME:
            parts.append(bytes(space))
        number = self.recovery.take_number()
        nonce = key.record_nonce(number)
        packets += cutter.cut(packet_class, nonce, key.encrypt(nonce, b"".join(parts), None))
        if contents:
            is_wanted = not all(isinstance(each, (PendingPing, SentAck)) for each in contents)
            self.recovery.sent(number, record_class, contents, now, is_wanted=is_wanted)
        return True

    def _add_ack_and_frames(
        self, parts: list[bytes | bytearray | memoryview], contents: list[Outgoing], space: int, now: float
    ) -> int:
        """Put in the acknowledgement that is owed and the control frames that wait; return the space left."""
        acks: list[Outgoing] = []
        space -= self._add_ack(parts, acks, now)
        while self.frames and space >= FRAME_MAX_BYTES:
            control = self.frames.popleft()
            frame = control.encode(now)
            if frame:
                parts.append(frame)
                contents.append(control)
                space -= len(frame)
        if contents:
            contents += acks
        return space

    def _add_ack(self, parts: list[bytes | bytearray | memoryview], contents: list[Outgoing], now: float) -> int:
        """Put in the acknowledgement that is owed, if any; return the space that it takes."""
        self.ack_due = False
        if self._receiver.ack_at is None:
            return 0
        body = self._receiver.take_ack(now)
        parts += (bytes((ACK,)), body)
        contents.append(SentAck(self._receiver))
        return 1 + len(body)

    def _add_pieces(
        self,
        parts: list[bytes | bytearray | memoryview],
        contents: list[Outgoing],
        writable: list[int],
        record_class: int,
        space: int,
        now: float,
    ) -> int:
        """Fill the record with bytes of streams, and note those that may be written to again; return the space left."""
        scheduler = self._scheduler
        while space >= SMALLEST_FRAME:
            piece = scheduler.next_piece(record_class, space, now)
            if piece is None:
                break
            half = piece.half
            if half.starved and scheduler.has_room_again(half):
                writable.append(half.stream)
            header = encode_stream_header(half.stream, piece.offset, len(piece.data), piece.fin)
            parts += (header, piece.data)
            contents.append(piece)
            space -= len(header) + len(piece.data)
        return space

    def _add_packets(
        self, parts: list[bytes | bytearray | memoryview], contents: list[Outgoing], space: int, now: float
    ) -> tuple[int, int]:
        """Put in packets, at least one whatever its length; return class and space left.

        A packet that no link recovers has a record of its own, so that a lost fragment costs one packet.
        """
        while (waiting := self.packets.head(now)) is not None:
            frame = encode_datagram(waiting.packet)
            if parts and (len(frame) > space or not waiting.is_recovered):
                break
            self.packets.take()
            parts.append(frame)
            contents.append(SentPacket())
            space -= len(frame)
            if not waiting.is_recovered:
                return CLASS_UNRECOVERED, space
        return CLASS_BULK, space
