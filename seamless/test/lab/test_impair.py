"""The impairment model keeps its books, its rates and its statistics."""

from __future__ import annotations

from itertools import groupby, pairwise
from random import Random

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Impairment
from seamless.lab.impair import ImpairedDirection, corrupted

HEADER = 28
SEGMENT = 1372
PACKET = HEADER + SEGMENT

impairments = st.builds(
    Impairment,
    delay=st.floats(0, 1),
    rate_bps=st.none() | st.integers(1000, 10**9),
    queue_bytes=st.none() | st.integers(0, 1 << 20),
    loss=st.floats(0, 1),
    burst_packets=st.floats(1, 20),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    reorder_delay=st.floats(0, 0.1),
    corrupt=st.floats(0, 1),
    black_hole_bytes=st.none() | st.integers(100, 2000),
    police_bps=st.none() | st.integers(1000, 1_000_000_000),
    police_bytes=st.integers(0, 100_000),
    aggregate=st.sampled_from((0.0, 0.02)),
    down=st.booleans(),
)
units = st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 64_000)), max_size=12)


def balance(direction: ImpairedDirection) -> int:
    """Return packets that came and are not accounted for."""
    c = direction.counters
    return c.packets_in + c.duplicated - c.packets_out - c.outage - c.black_holed - c.policed - c.queue_dropped - c.lost


def loss_pattern(impairment: Impairment, packets: int, unit: int = 1) -> list[bool]:
    """Return for each wire packet whether it is lost, when offered in units of so many."""
    direction = ImpairedDirection(impairment, Random(1))
    pattern = []
    for _ in range(packets // unit):
        arrived: set[int] = set()
        for piece in direction.offer(0, HEADER, unit * SEGMENT, SEGMENT):
            arrived.update(range(piece.first, piece.first + piece.packets))
        pattern += [index not in arrived for index in range(unit)]
    return pattern


class Conservation(SynchronousTestCase):
    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(impairments, impairments, units, st.integers(0, 1 << 32))
    def test_every_packet_is_accounted_for(
        self, before: Impairment, after: Impairment, offered: list[tuple[float, int]], seed: int
    ) -> None:
        direction = ImpairedDirection(before, Random(seed))
        now = 0.0
        out = out_bytes = 0
        for number, (gap, payload) in enumerate(offered):
            now += gap
            if number == 6:
                direction.change(after, now)
            for piece in direction.offer(now, HEADER, payload, SEGMENT):
                self.assertGreaterEqual(piece.at, now)
                self.assertTrue(piece.packets == 1 or not piece.corrupt)
                out += piece.packets
                sent = payload - piece.first * SEGMENT
                out_bytes += min(sent, piece.packets * SEGMENT) + HEADER * piece.packets
        self.assertEqual(balance(direction), 0)
        self.assertEqual((direction.counters.packets_out, direction.counters.bytes_out), (out, out_bytes))

    def test_a_perfect_wire_keeps_a_super_packet_whole(self) -> None:
        direction = ImpairedDirection(Impairment(delay=0.25), Random(1))
        self.assertEqual(direction.offer(1, HEADER, 40 * SEGMENT - 1, SEGMENT), [(1.25, 0, 40, False)])
        self.assertEqual(direction.counters.bytes_in, 40 * PACKET - 1)

    def test_outage_takes_everything(self) -> None:
        direction = ImpairedDirection(Impairment(down=True), Random(1))
        self.assertEqual(direction.offer(0, HEADER, 3 * SEGMENT, SEGMENT), [])
        self.assertEqual(direction.counters.outage, 3)

    def test_black_hole_takes_what_is_too_long_and_lets_a_short_last_packet_pass(self) -> None:
        direction = ImpairedDirection(Impairment(black_hole_bytes=PACKET - 1), Random(1))
        self.assertEqual(direction.offer(0, HEADER, 2 * SEGMENT + 10, SEGMENT), [(0, 2, 1, False)])
        self.assertEqual((direction.counters.black_holed, direction.counters.bytes_out), (2, HEADER + 10))


class Rate(SynchronousTestCase):
    RATE_BPS = PACKET * 8 * 100  # one packet every 10 ms
    WIRE = Impairment(delay=0.1, rate_bps=RATE_BPS, queue_bytes=10 * PACKET)

    def test_packets_leave_at_the_rate(self) -> None:
        direction = ImpairedDirection(self.WIRE, Random(1))
        times = [direction.offer(0, HEADER, SEGMENT, SEGMENT)[0].at for _ in range(10)]
        for number, at in enumerate(times, start=1):
            self.assertAlmostEqual(at, 0.1 + number * 0.01)

    def test_a_super_packet_leaves_when_its_last_wire_packet_does(self) -> None:
        direction = ImpairedDirection(self.WIRE, Random(1))
        (piece,) = direction.offer(0, HEADER, 5 * SEGMENT, SEGMENT)
        self.assertAlmostEqual(piece.at, 0.1 + 0.05)

    def test_what_does_not_fit_the_queue_is_dropped_from_the_tail(self) -> None:
        direction = ImpairedDirection(self.WIRE, Random(1))
        direction.offer(0, HEADER, 4 * SEGMENT, SEGMENT)
        (piece,) = direction.offer(0, HEADER, 8 * SEGMENT, SEGMENT)
        self.assertEqual((piece.first, piece.packets), (0, 6))
        self.assertEqual(direction.offer(0, HEADER, SEGMENT, SEGMENT), [])
        self.assertEqual(direction.counters.queue_dropped, 3)
        self.assertEqual(direction.counters.queue_bytes_highest, 10 * PACKET)

    def test_the_queue_drains(self) -> None:
        direction = ImpairedDirection(self.WIRE, Random(1))
        direction.offer(0, HEADER, 10 * SEGMENT, SEGMENT)
        self.assertAlmostEqual(direction.queued_bytes(0.05), 5 * PACKET)
        self.assertEqual(direction.offer(0.05, HEADER, 9 * SEGMENT, SEGMENT)[0].packets, 5)

    def test_a_new_rate_holds_for_what_is_queued(self) -> None:
        direction = ImpairedDirection(self.WIRE, Random(1))
        direction.offer(0, HEADER, 9 * SEGMENT, SEGMENT)
        direction.change(attrs.evolve(self.WIRE, rate_bps=self.RATE_BPS * 2), 0)
        self.assertAlmostEqual(direction.offer(0, HEADER, SEGMENT, SEGMENT)[0].at, 0.1 + 0.05)

    def test_an_idle_wire_carries_a_packet_longer_than_its_queue(self) -> None:
        direction = ImpairedDirection(Impairment(rate_bps=1_000_000, queue_bytes=100), Random(1))
        self.assertEqual(len(direction.offer(0, HEADER, SEGMENT, SEGMENT)), 1)

    def test_lost_packets_take_their_share_of_the_rate(self) -> None:
        direction = ImpairedDirection(attrs.evolve(self.WIRE, loss=1.0), Random(1))
        direction.offer(0, HEADER, 5 * SEGMENT, SEGMENT)
        self.assertAlmostEqual(direction.queued_bytes(0), 5 * PACKET)


class Statistics(SynchronousTestCase):
    PACKETS = 200_000

    def test_independent_loss(self) -> None:
        pattern = loss_pattern(Impairment(loss=0.05), self.PACKETS, 40)
        self.assertApproximates(sum(pattern) / self.PACKETS, 0.05, 0.002)
        lost_after_loss = sum(one and other for one, other in pairwise(pattern)) / sum(pattern)
        self.assertApproximates(lost_after_loss, 0.05, 0.006)

    def test_bursts_have_their_mean_length_and_do_not_change_the_loss(self) -> None:
        pattern = loss_pattern(Impairment(loss=0.02, burst_packets=8), self.PACKETS, 4)
        bursts = [len(list(run)) for lost, run in groupby(pattern) if lost]
        self.assertApproximates(sum(pattern) / self.PACKETS, 0.02, 0.003)
        self.assertApproximates(sum(bursts) / len(bursts), 8, 1)

    def test_the_unit_does_not_matter(self) -> None:
        wire = Impairment(loss=0.1, burst_packets=3)
        self.assertEqual(loss_pattern(wire, 4000, 1), loss_pattern(wire, 4000, 40))

    def test_all_or_nothing(self) -> None:
        self.assertEqual(set(loss_pattern(Impairment(loss=1.0), 400, 40)), {True})
        self.assertEqual(set(loss_pattern(Impairment(loss=0.0), 400, 40)), {False})

    def test_duplication_reordering_and_corruption(self) -> None:
        wire = Impairment(duplicate=0.01, reorder=0.02, reorder_delay=0.5, corrupt=0.03)
        direction = ImpairedDirection(wire, Random(1))
        pieces = [p for _ in range(2500) for p in direction.offer(0, HEADER, 40 * SEGMENT, SEGMENT)]
        late = sum(piece.packets for piece in pieces if piece.at == 0.5)
        corrupt = sum(piece.packets for piece in pieces if piece.corrupt)
        counters = direction.counters
        self.assertEqual(sum(piece.packets for piece in pieces), 100_000 + counters.duplicated)
        self.assertApproximates(counters.duplicated, 1000, 100)
        self.assertApproximates(counters.reordered, 2000, 150)
        self.assertApproximates(counters.corrupted, 3000, 200)
        self.assertGreaterEqual(late, counters.reordered)
        self.assertGreaterEqual(corrupt, counters.corrupted)

    def test_a_payload_too_short_to_corrupt_is_let_be(self) -> None:
        direction = ImpairedDirection(Impairment(corrupt=1.0), Random(1))
        self.assertFalse(direction.offer(0, HEADER, 3, 3)[0].corrupt)
        self.assertEqual(direction.counters.corrupted, 0)


class Corruption(SynchronousTestCase):
    @settings(max_examples=100, derandomize=True)
    @given(st.binary(min_size=4, max_size=60), st.floats(0, 1, exclude_max=True))
    def test_changes_the_payload_and_not_its_checksum(self, payload: bytes, position: float) -> None:
        damaged = corrupted(payload, position)
        self.assertEqual(len(damaged), len(payload))
        self.assertNotEqual(damaged, payload)
        self.assertEqual(checksum(damaged), checksum(payload))


def checksum(payload: bytes) -> int:
    """Return the Internet checksum as a number modulo 0xffff, in which 0 and 0xffff are the same."""
    padded = payload + bytes(len(payload) % 2)
    return sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2)) % 0xFFFF


class PolicerAndAggregation(SynchronousTestCase):
    def test_a_policer_lets_a_bucket_pass_and_then_its_rate(self) -> None:
        direction = ImpairedDirection(Impairment(police_bps=PACKET * 8 * 100, police_bytes=10 * PACKET), Random(1))
        (piece,) = direction.offer(0.0, HEADER, 15 * SEGMENT, SEGMENT)
        self.assertEqual((piece.at, piece.first, piece.packets), (0.0, 0, 10))
        passed = 0
        for number in range(1, 101):
            passed += sum(piece.packets for piece in direction.offer(number * 0.005, HEADER, SEGMENT, SEGMENT))
        self.assertLessEqual(abs(passed - 50), 1, "a hundred in a second, of twice as many")
        self.assertEqual(direction.counters.policed, 5 + 100 - passed)
        self.assertEqual(balance(direction), 0)

    def test_what_arrives_is_let_go_together(self) -> None:
        direction = ImpairedDirection(Impairment(delay=0.005, aggregate=0.02), Random(1))
        times = [direction.offer(at, HEADER, SEGMENT, SEGMENT)[0].at for at in (0.0, 0.004, 0.014, 0.016)]
        for at, expected in zip(times, (0.02, 0.02, 0.02, 0.04)):
            self.assertAlmostEqual(at, expected)
