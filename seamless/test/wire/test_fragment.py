"""Fragments cut anew by relays say the same as before."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.session.record import MAX_PIECES, Cutter, Reassembly
from seamless.wire.fragment import LAST, WHOLE_PLACE, cut_packet, decode_place, encode_place
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    PACKET_HEADER_BYTES,
    SEALED_HEADER_BYTES,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_HANDSHAKE

NONCE = bytes(range(SEALED_HEADER_BYTES))
BEFORE_PIECE = PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES


def packets(size: int, packet_bytes: int) -> tuple[bytes, list[bytes]]:
    """Return a sealed record of ``size`` bytes, and its overlay packets."""
    sealed = b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]
    return sealed, Cutter(1, 2, packet_bytes - BEFORE_PIECE).cut(CLASS_BULK, NONCE, sealed)


def together(cut: list[bytes]) -> list[bytes]:
    """Return the records that a reassembly makes of these packets."""
    reassembly = Reassembly(1 << 20)
    whole = []
    for packet in cut:
        payload = packet[PACKET_HEADER_BYTES:]
        if payload[SEALED_HEADER_BYTES:FRAGMENT_HEADER_BYTES] == WHOLE_PLACE:
            whole.append(payload[FRAGMENT_HEADER_BYTES:])
        elif (record := reassembly.add(NONCE, payload, 0.0)) is not None:
            whole.append(record)
    return whole


class CutTests(SynchronousTestCase):
    """One packet into several."""

    def test_nearly_equal_parts(self) -> None:
        """Equal lengths are what segmentation offload needs."""
        sealed, cut = packets(14_200, 1444)
        for packet in cut[:-1]:
            parts = cut_packet(packet, 1344)
            self.assertEqual([len(part) for part in parts], [BEFORE_PIECE + 712, BEFORE_PIECE + 708])
        self.assertEqual(together([part for packet in cut for part in cut_packet(packet, 1344)]), [sealed])

    def test_place(self) -> None:
        self.assertEqual(encode_place(0, True), WHOLE_PLACE)
        for offset in (0, 4, 65_536, 4 * (LAST - 1)):
            for is_last in (False, True):
                self.assertEqual(decode_place(NONCE + encode_place(offset, is_last)), (offset, is_last))

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(
        st.integers(1, 65_556),
        st.integers(1204, 8944),
        st.lists(st.integers(600, 8944), max_size=3),
        st.randoms(use_true_random=False),
    )
    def test_cut_again_and_again(self, size: int, first: int, limits: list[int], order) -> None:  # type: ignore[no-untyped-def]
        sealed, cut = packets(size, first)
        for limit in limits:
            cut = [part for packet in cut for part in ([packet] if len(packet) <= limit else cut_packet(packet, limit))]
            self.assertLessEqual(max(map(len, cut)), max(limit, first))
        order.shuffle(cut)
        self.assertEqual(together(cut), [sealed])

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.integers(1500, 20_000), st.randoms(use_true_random=False))
    def test_two_cuts_of_the_same_record(self, size: int, order) -> None:  # type: ignore[no-untyped-def]
        """A packet that went two ways: what is missing of one cut, the other has."""
        sealed, cut = packets(size, 1444)
        anew = [part for packet in cut for part in cut_packet(packet, 1204)]
        mixed = [*cut, *anew]
        order.shuffle(mixed)
        self.assertIn(sealed, together(mixed))
        kept = [order.choice((cut[i : i + 1], cut_packet(packet, 1204))) for i, packet in enumerate(cut)]
        self.assertEqual(together([packet for packets in kept for packet in packets]), [sealed])

    def test_what_cannot_be_cut(self) -> None:
        handshake = bytes((CLASS_HANDSHAKE,)).ljust(1500, b"\0")
        self.assertEqual(cut_packet(handshake, 1204), [])
        beyond = bytes(PACKET_HEADER_BYTES) + NONCE + encode_place(4 * (LAST - 1), True) + bytes(1400)
        self.assertEqual(cut_packet(beyond, 1204), [])
        for length in range(BEFORE_PIECE + 1):
            self.assertEqual(cut_packet(bytes(length), 10), [])

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.binary(max_size=3000), st.integers(0, 2000))
    def test_any_bytes(self, packet: bytes, limit: int) -> None:
        for part in cut_packet(packet, limit) if packet else []:
            self.assertLessEqual(len(part), limit)


class StrictTests(SynchronousTestCase):
    """What a hostile relay may send."""

    def setUp(self) -> None:
        self.reassembly = Reassembly(1 << 20)

    def add(self, offset: int, length: int, is_last: bool = False) -> None:
        self.assertIsNone(self.reassembly.add(NONCE, NONCE + encode_place(offset, is_last) + bytes(length), 0.0))

    def test_refused(self) -> None:
        for offset, length, is_last in (
            (0, 63, False),  # too short for one that is not the last
            (0, 1422, False),  # the next would begin at no multiple of four
            (65_552, 5, True),  # longer than any record
            (131_064, 64, False),
        ):
            self.add(offset, length, is_last)
        self.assertEqual((self.reassembly.refused_fragments, len(self.reassembly)), (4, 0))

    def test_ends_that_contradict_each_other(self) -> None:
        self.add(1000, 100, True)
        self.add(1000, 104, True)
        self.add(1000, 200)
        self.add(500, 100, True)
        self.assertEqual(self.reassembly.refused_fragments, 3)

    def test_an_end_before_what_is_there(self) -> None:
        self.add(1000, 200)
        self.add(500, 100, True)
        self.assertEqual(self.reassembly.refused_fragments, 1)

    def test_memory_is_what_is_kept(self) -> None:
        """Pieces that overlap take the room of what they add, and all is given back."""
        self.add(0, 1000)
        before = self.reassembly.memory_bytes
        for _ in range(100):
            self.add(0, 1000)
            self.add(500, 500)
        self.assertEqual(self.reassembly.memory_bytes, before)
        self.assertEqual(self.reassembly.repeated_fragments, 200)
        for offset in range(4, 60_000, 4):
            self.add(offset, 64)
        self.assertLess(self.reassembly.memory_bytes, 65_556 + 512 + 96 * MAX_PIECES)
        self.reassembly.expire(100.0)
        self.assertEqual((self.reassembly.memory_bytes, len(self.reassembly)), (0, 0))
