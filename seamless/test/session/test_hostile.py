"""What a malicious peer, who has the keys, and a malicious relay, who has not, can do: waste their own time."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.sealing import PROOF_BYTES
from seamless.interfaces import RESET_PROTOCOL
from seamless.session.limits import Limits
from seamless.session.record import INCOMPLETE_AGE_MAX
from seamless.test.session.pair import Pair
from seamless.wire.ack import encode_ack
from seamless.wire.fragment import LAST, WHOLE_PLACE
from seamless.wire.header import PACKET_HEADER_BYTES
from seamless.wire.ranges import RangeSet
from seamless.wire.session_frames import (
    ACK,
    encode_accept,
    encode_open,
    encode_reset,
    encode_session_window,
    encode_stream_header,
    encode_window,
)
from seamless.wire.varint import MAX_VARINT, encode_varint


class Villain:
    """Node 1, who says what he likes under good keys, to node 2, with one good stream between them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.pair = Pair(limits=limits)
        self.pair.accept_all()
        self.stream, self.there = self.pair.open()
        self.pair.run(0.3)
        self.numbers = itertools.count(self.pair.a.session.status(self.pair.now).records_sent)

    def say(self, plaintext: bytes, number: int | None = None) -> None:
        """Send one record, of one fragment."""
        key = self.pair.a.session.association.send_key
        assert key is not None
        number = next(self.numbers) if number is None else number
        nonce = key.record_nonce(number)
        payload = nonce + WHOLE_PLACE + key.encrypt(nonce, plaintext, None)
        self.pair.b.session.receive_fragments([payload], self.pair.now)
        self.pair.b.drain(self.pair.now)

    def hand_over(self) -> None:
        """Let node 1's own session go on with the numbers that follow, so that it answers as an honest one."""
        self.pair.a.session._sender.recovery.next_number = next(self.numbers)

    def stream_frame(self, offset: int, data: bytes, fin: bool = False, stream: int | None = None) -> bytes:
        """Return a STREAM frame for the good stream, or another."""
        return encode_stream_header(self.stream[1] if stream is None else stream, offset, len(data), fin) + data


class PeerTests(SynchronousTestCase):
    """An authenticated peer breaks the protocol: the session is over, with a reason, and stays small."""

    def assertClosed(self, villain: Villain, reason: str) -> None:
        pair = villain.pair
        (said,) = pair.b.lost()
        self.assertIn(reason, said)
        reset = pair.b.reset_of(villain.there)
        self.assertEqual(reset and reset.code, RESET_PROTOCOL)
        self.assertEqual(pair.b.session.streams_kept, 0)

    def test_ack_for_what_was_never_sent(self) -> None:
        villain = Villain()
        ranges = RangeSet()
        ranges.add(0, 1_000_000)
        villain.say(bytes((ACK,)) + encode_ack(ranges, 0))
        self.assertClosed(villain, "never sent")

    def test_highest_offset(self) -> None:
        villain = Villain()
        villain.say(villain.stream_frame(MAX_VARINT - 1, b"x"))
        self.assertClosed(villain, "beyond its window")

    def test_offset_that_overflows(self) -> None:
        villain = Villain()
        villain.say(villain.stream_frame(MAX_VARINT, b"x"))
        self.assertClosed(villain, "highest offset")

    def test_one_byte_beyond_the_window(self) -> None:
        villain = Villain(Limits(stream_window_initial=20_000))
        villain.say(villain.stream_frame(19_999, b"x"))
        self.assertEqual(villain.pair.b.lost(), [])
        villain.say(villain.stream_frame(20_000, b"x"))
        self.assertClosed(villain, "beyond its window of 20000")

    def test_session_window(self) -> None:
        """Many streams, each within its window, together beyond the session's."""
        villain = Villain(Limits(session_window_max=4 << 20, unread_max=64 << 20))
        for number in range(1, 400):
            stream = number * 2
            villain.say(encode_open(stream, 1000, b"x"))
            villain.say(villain.stream_frame(15_000, b"x", stream=stream))
            if villain.pair.b.lost():
                break
        self.assertClosed(villain, "session window")

    def test_a_million_gaps(self) -> None:
        """One-byte pieces with one-byte gaps: closed after a bounded number of them, in bounded memory."""
        villain = Villain(Limits(stream_window_initial=4 << 20))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for begin in range(1, 1_000_000, 2000):
            frames = b"".join(villain.stream_frame(offset, b"x") for offset in range(begin, begin + 2000, 2))
            villain.say(frames)
            if villain.pair.b.lost():
                break
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        self.assertClosed(villain, "gaps")
        self.assertLess(peak, 8 << 20)

    def test_overlapping_pieces(self) -> None:
        """Every piece is large, and begins a byte after the last: memory is a multiple of the window, and no more."""
        villain = Villain(Limits(stream_window_initial=1 << 20))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for offset in range(1, 16_000):
            villain.say(villain.stream_frame(offset, bytes(16_000)))
            if villain.pair.b.lost():
                break
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        self.assertClosed(villain, "gaps")
        self.assertLess(peak, 4 << 20)

    def test_contradictory_ends(self) -> None:
        for frames, reason in [
            ([(0, b"abc", True), (3, b"d", False)], "goes on after its end"),
            ([(0, b"abc", True), (0, b"ab", True)], "two ends"),
            ([(0, b"abcdef", False), (0, b"abc", True)], "ends at 3 and went on to 6"),
        ]:
            villain = Villain()
            for offset, data, fin in frames:
                villain.say(villain.stream_frame(offset, data, fin))
            self.assertClosed(villain, reason)

    def test_frames_for_streams_that_never_were(self) -> None:
        for frame, reason in [
            (encode_window(1, 5), "never opened"),
            (encode_accept(0, 5), "not ours"),
            (encode_accept(9, 5), "never opened"),
            (encode_open(3, 5, b"x"), "ours to open"),
            (encode_reset(MAX_VARINT, 0, 0, ""), "never opened"),
        ]:
            villain = Villain()
            villain.say(frame)
            self.assertClosed(villain, reason)

    def test_unknown_frame_and_garbage(self) -> None:
        for plaintext in [b"\x77", b"\x10", b"\x02\xff", b"\x12\x00\x00\x4f", b"\x10\x00\x00\x7f\xff"]:
            villain = Villain()
            villain.say(plaintext)
            self.assertClosed(villain, "broke the protocol")

    def test_windows_of_nothing_and_of_everything(self) -> None:
        """A window of 0 stalls, one of 2^62 lets everything go; neither makes us keep more than the bound."""
        villain = Villain()
        pair = villain.pair
        villain.say(encode_open(2, 0, b"x"))
        villain.say(encode_window(2, 0) + encode_session_window(0))
        for _ in range(20):
            pair.b.session.send((1, 2), bytes(65536), pair.now)
        unsent = pair.b.session.status(pair.now).unsent_bytes
        self.assertGreater(unsent, 1_000_000)
        villain.say(encode_window(2, MAX_VARINT) + encode_session_window(MAX_VARINT))
        pair.b.session.packets_to_send(10_000, pair.now)
        self.assertEqual(pair.b.session.status(pair.now).unsent_bytes, 0)
        self.assertEqual(pair.b.lost(), [])

    def test_highest_stream_identifier(self) -> None:
        """It is a stream like any other, and so are ten thousand with gaps between them."""
        villain = Villain(Limits(max_streams=6000))
        villain.say(encode_open(MAX_VARINT - 1, 100, b"x"))
        self.assertEqual(villain.pair.b.lost(), [])
        villain = Villain(Limits(max_streams=6000))
        for begin in range(2, 40_000, 400):
            villain.say(b"".join(encode_open(stream, 0, b"x") for stream in range(begin, begin + 400, 4)))
        self.assertEqual(villain.pair.b.lost(), [])
        self.assertEqual(villain.pair.b.session.streams_kept, 10_001)

    def test_too_many_streams(self) -> None:
        villain = Villain(Limits(max_streams=100))
        for stream in range(2, 500, 2):
            villain.say(encode_open(stream, 0, b"x"))
        self.assertClosed(villain, "streams were opened at once")

    def test_after_the_end_nothing_is_read(self) -> None:
        villain = Villain()
        villain.say(b"\x77")
        villain.say(encode_open(4, 100, b"x"))
        self.assertEqual(villain.pair.b.session.streams_kept, 0)
        key = villain.pair.b.session.open_stream(b"y", villain.pair.now)
        villain.pair.b.drain(villain.pair.now)
        reset = villain.pair.b.reset_of(key)
        self.assertEqual(reset and reset.code, RESET_PROTOCOL)
        self.assertEqual(villain.pair.b.session.streams_kept, 0)
        sent = villain.pair.b.session.status(villain.pair.now).records_sent
        villain.pair.run(60)
        self.assertEqual(villain.pair.b.session.status(villain.pair.now).records_sent, sent, "nothing more is said")

    def test_record_numbers(self) -> None:
        """Far ahead: accepted, and never twice."""
        villain = Villain()
        before = villain.pair.b.session.status(villain.pair.now)
        villain.say(villain.stream_frame(0, b"a"), number=1 << 39)
        villain.say(villain.stream_frame(1, b"c"), number=1 << 39)
        after = villain.pair.b.session.status(villain.pair.now)
        self.assertEqual(villain.pair.b.received[villain.there], b"a")
        self.assertEqual(after.records_repeated - before.records_repeated, 1)
        villain.pair.run(1)

    def test_records_with_gaps(self) -> None:
        """Every second record number: the ranges stay few, the ACKs small, the session alive."""
        villain = Villain()
        for number in range(100, 20_100, 2):
            villain.say(b"\x01", number=number)
        express, _ = villain.pair.b.session.packets_to_send(10, villain.pair.now)
        self.assertLess(max(map(len, express)), 1444 + 1)
        self.assertEqual(villain.pair.b.lost(), [])
        villain.say(villain.stream_frame(0, b"still here"))
        self.assertEqual(villain.pair.b.lost(), [])

    @settings(derandomize=True, max_examples=80, deadline=None)
    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    def test_any_plaintext(self, plaintexts: list[bytes]) -> None:
        """Whatever a peer seals: no exception but in the form of a lost peer."""
        villain = Villain()
        for plaintext in plaintexts:
            villain.say(plaintext)
        villain.pair.b.session.packets_to_send(10, villain.pair.now)
        self.assertLessEqual(len(villain.pair.b.lost()), 1)

    @settings(derandomize=True, max_examples=80, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17]),
                st.lists(st.sampled_from([0, 1, 2, 3, 5, 100, 65536, MAX_VARINT]), min_size=1, max_size=4),
            ),
            max_size=8,
        )
    )
    def test_any_frames(self, frames: list[tuple[int, list[int]]]) -> None:
        """Frames of the right types with fields at their limits, in any order."""
        villain = Villain()
        for kind, fields in frames:
            villain.say(bytes((kind,)) + b"".join(map(encode_varint, fields)) + bytes(100))
        villain.pair.b.session.packets_to_send(10, villain.pair.now)
        self.assertLessEqual(len(villain.pair.b.lost()), 1)


class RelayTests(SynchronousTestCase):
    """Fragments that the peer did not send, or not so."""

    def transfer(self, seed: int, spoil: str) -> Pair:
        """Move a megabyte while a relay spoils fragments; return the pair when it arrived whole."""
        pair = Pair(seed)
        pair.accept_all()
        here, there = pair.open()
        pair.run(0.2)
        villain = random.Random(seed)
        pair.a.write(here, pair.random.randbytes(1_000_000), pair.now)
        index = pair.a.session.association.send_key
        assert index is not None
        begin = pair.a.session.status(pair.now).records_sent
        for turn in range(200):
            number = begin + villain.randrange(100)
            place = villain.choice([0, LAST, 355, 3550 | LAST, 1420, 0x7FFF]) if spoil != "offsets" else 0x7FFF
            nonce = index.record_nonce(number)
            if spoil == "guesses":
                nonce = nonce[:-PROOF_BYTES] + villain.randbytes(PROOF_BYTES)
            head = nonce + place.to_bytes(2, "big")
            piece = villain.randbytes(villain.choice([1, 100, 1420, 1420, 9000]))
            packet = bytes(PACKET_HEADER_BYTES) + head + piece
            pair.at(pair.now - 1000 + turn * 0.001, partial(pair.inject, 2, packet))
        pair.run_until(lambda: pair.b.received.get(there) == pair.a.written[here], 20)
        pair.run(1)
        self.assertEqual(pair.a.lost() + pair.b.lost(), [])
        return pair

    def test_guessed_fragments(self) -> None:
        """Of one who knows the key's index and the next numbers, but has not seen these records: none is kept."""
        for seed in range(3):
            pair = self.transfer(seed, "guesses")
            status = pair.b.session.status(pair.now)
            self.assertGreater(status.fragments_refused, 50)
            self.assertEqual(pair.a.session.status(pair.now).records_lost, 0)

    def test_forged_fragments(self) -> None:
        """Of a relay on the path: they spoil their records, which are sent again; the bytes arrive."""
        for seed in range(5):
            pair = self.transfer(seed, "pieces")
            status = pair.b.session.status(pair.now)
            self.assertGreater(status.records_forged + status.fragments_refused, 10)
            self.assertGreater(pair.a.session.status(pair.now).records_lost, 0)

    def test_wrong_offsets(self) -> None:
        pair = self.transfer(1, "offsets")
        self.assertGreater(pair.b.session.status(pair.now).fragments_refused, 10)

    def test_reassembly_is_bounded(self) -> None:
        """First fragments of records that never end: bytes and records stay within bounds, and go in the end."""
        pair = Pair(limits=Limits(reassembly_max=2 << 20))
        pair.accept_all()
        pair.open()
        pair.run(0.3)
        key = pair.a.session.association.send_key
        assert key is not None
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for size, begin in ((64, 1000), (9000, 5000), (64, 6000)):
            for number in range(begin, begin + 2000):
                head = key.record_nonce(number) + bytes(2)
                pair.b.session.receive_fragments([head + bytes(size)], pair.now)
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        self.assertLess(used, 3 << 20)
        self.assertLessEqual(pair.b.session.status(pair.now).reassembly_bytes, 2 << 20)
        pair.run(20)
        self.assertEqual(pair.b.session.status(pair.now).reassembly_bytes, 0)

    def test_incomplete_records_go_in_silence(self) -> None:
        """The memory of fragments comes back although nothing else is ever heard from that peer."""
        pair = Pair()
        pair.accept_all()
        pair.a.session.send_packet(b"hello", pair.now)
        pair.run(1)
        self.assertEqual(pair.b.packets, [b"hello"])
        key = pair.a.session.association.send_key
        assert key is not None
        received = pair.b.session.status(pair.now).records_received
        for number in range(1000, 1100):
            head = key.record_nonce(number) + bytes(2)
            pair.b.session.receive_fragments([head + bytes(9000)], pair.now)
            pair.now += 0.001
        self.assertGreater(pair.b.session.status(pair.now).reassembly_bytes, 900_000)
        pair.run(INCOMPLETE_AGE_MAX)
        self.assertEqual(pair.b.session.status(pair.now).reassembly_bytes, 0)
        self.assertEqual(pair.b.session.status(pair.now).records_received, received)

    def test_repeated_records_cost_nothing(self) -> None:
        """All fragments of a transfer come ten times: each record is read once."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.run(0.2)
        pair.wires[1].duplication = 1.0
        pair.a.write(here, pair.random.randbytes(500_000), pair.now)
        pair.run(2)
        self.assertEqual(pair.b.received[there], pair.a.written[here])
        self.assertGreater(pair.wires[1].doubled, 300)
        status = pair.b.session.status(pair.now)
        self.assertEqual(status.records_forged, 0)
        self.assertGreater(status.records_repeated, 10)
        self.assertLessEqual(status.records_received, pair.a.session.status(pair.now).records_sent)

    def test_recording_after_many_rekeys(self) -> None:
        """Outages renew the keys again and again; what was recorded under any of them is never accepted twice."""
        for seed in range(4):
            pair = Pair(seed)
            pair.run(0.5)
            sent = [b"packet %d" % number for number in range(8)]
            recorded = [self.record(pair, packet) for packet in sent]
            words = {packet[PACKET_HEADER_BYTES : PACKET_HEADER_BYTES + 4] for packet in recorded}
            self.assertGreater(len(words), 5, "keys were renewed")
            before = pair.b.session.status(pair.now)
            for packet in recorded * 3:
                pair.inject(2, packet)
            pair.run(1)
            self.assertEqual(sorted(packet for packet in pair.b.packets if packet != b"lost"), sent)
            after = pair.b.session.status(pair.now)
            self.assertGreaterEqual(after.records_repeated - before.records_repeated, 9)

    def record(self, pair: Pair, packet: bytes) -> bytes:
        """Send ``packet`` and have an outage after it that renews the keys; return the overlay packet that had it."""
        wire = pair.wires[1]
        wire.recorded = []
        pair.a.session.send_packet(packet, pair.now)
        pair.send()
        recorded = wire.recorded[-1]
        pair.run(6)
        for each in pair.wires.values():
            each.down = True
        pair.a.session.send_packet(b"lost", pair.now)
        pair.run(1.5)
        for each in pair.wires.values():
            each.down = False
        pair.run(1)
        return recorded

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_any_payloads(self, payloads: list[bytes]) -> None:
        """Nothing a stranger sends raises, or does anything but count."""
        pair = Pair()
        pair.b.session.receive_fragments(payloads, pair.now)
        for payload in payloads:
            pair.b.session.receive_handshake(payload, pair.now)
        status = pair.b.session.status(pair.now)
        self.assertEqual((status.records_received, status.handshakes_refused), (0, len(payloads)))
        self.assertIsNone(pair.b.session.next_event())
