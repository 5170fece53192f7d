"""Packets that wait: conversations take turns, and who has nothing waiting goes first."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.session.packets import FLOW_BUCKETS, QUANTUM_BYTES, PacketQueue, flow_bucket

MAX_BYTES = 200_000
MAX_AGE = 1.0


def ipv4(flow: int, size: int, number: int = 0) -> bytes:
    """Return what a queue takes for packet ``number`` of a conversation."""
    header = struct.pack("!BBHHHBBH4s4sHH", 0x45, 0, size, number, 0, 64, 6, 0, bytes(4), bytes(4), flow, 22)
    return header + bytes(size - len(header))


def flow_of(packet: bytes) -> int:
    """Return the conversation that `ipv4` was asked for."""
    return int.from_bytes(packet[20:22], "big")


def number_of(packet: bytes) -> int:
    """Return the number that `ipv4` was asked for."""
    return int.from_bytes(packet[4:6], "big")


class QueueTests(SynchronousTestCase):
    """One queue of at most 200 kB."""

    def setUp(self) -> None:
        self.queue = PacketQueue(MAX_BYTES, MAX_AGE)

    def put(self, *packets: bytes, now: float = 0.0) -> None:
        for packet in packets:
            self.queue.put(packet, True, now)

    def drained(self, now: float = 0.0) -> list[bytes]:
        """Return what comes, in order, until the queue is empty."""
        packets = []
        while (head := self.queue.head(now)) is not None:
            self.queue.take()
            packets.append(head.packet)
        return packets

    def test_a_keystroke_passes_a_bulk_transfer(self) -> None:
        self.put(*(ipv4(1, 1500, number) for number in range(100)))
        for _ in range(30):
            self.assertIsNotNone(self.queue.head(0.0))
            self.queue.take()
        self.put(ipv4(2, 100))
        self.assertEqual([flow_of(packet) for packet in self.drained()], [2] + [1] * 70)

    def test_what_the_head_was_is_taken(self) -> None:
        """`take` removes the packet that `head` returned, also when one that would go first was put in between."""
        self.put(ipv4(1, 20_000), ipv4(1, 20_000))
        self.drained()
        self.put(ipv4(1, 1000, 7))
        head = self.queue.head(0.0)
        self.put(ipv4(2, 100))
        self.queue.take()
        self.assertEqual(head and number_of(head.packet), 7)
        self.assertEqual([flow_of(packet) for packet in self.drained()], [2])

    def test_turns_are_fair_in_bytes(self) -> None:
        """Super-packets beside small ones."""
        self.put(*(ipv4(1, 40_000) for _ in range(2)), *(ipv4(2, 400) for _ in range(200)))
        sent = {1: 0, 2: 0}
        for packet in self.drained():
            sent[flow_of(packet)] += len(packet)
            if sum(sent.values()) < 150_000:
                self.assertLessEqual(abs(sent[1] - sent[2]), 40_000 + QUANTUM_BYTES)
        self.assertEqual(sent, {1: 80_000, 2: 80_000})

    def test_the_longest_queue_gives_way(self) -> None:
        """What exceeds the bound is dropped from the longest queue, oldest first; the others lose nothing."""
        self.put(*(ipv4(2, 1000, number) for number in range(10)))
        self.put(*(ipv4(1, 1000, number) for number in range(300)))
        self.assertEqual((self.queue.dropped, self.queue.size_bytes), (110, MAX_BYTES))
        numbers: dict[int, list[int]] = {1: [], 2: []}
        for packet in self.drained():
            numbers[flow_of(packet)].append(number_of(packet))
        self.assertEqual(numbers, {1: list(range(110, 300)), 2: list(range(10))})

    def test_the_old_are_dropped(self) -> None:
        self.put(ipv4(1, 100, 1), ipv4(2, 100, 1))
        self.put(ipv4(1, 100, 2), now=1.0)
        self.assertEqual([number_of(packet) for packet in self.drained(1.5)], [2])
        self.assertEqual(self.queue.dropped, 2)
        self.assertFalse(self.queue)

    def test_nobody_is_remembered(self) -> None:
        for flow in range(10 * FLOW_BUCKETS):
            self.put(ipv4(flow, 100))
            self.assertEqual(len(self.drained()), 1)
        self.assertEqual(self.queue.conversations, 0)

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, 4), st.integers(24, 60_000)),
                st.just(None),
                st.floats(0, 0.6),
            ),
            max_size=60,
        )
    )
    def test_any_order(self, steps: list[tuple[int, int] | float | None]) -> None:
        """Packets come, go and grow old: each conversation in order, sizes right, nothing twice, nothing forgotten."""
        self.setUp()
        now = 0.0
        put: dict[int, int] = {}
        got: dict[int, list[int]] = {}
        taken = 0
        for step in [*steps, *[None] * 61]:
            if isinstance(step, float):
                now += step
            elif step is not None:
                flow, size = step
                put[flow] = put.get(flow, 0) + 1
                self.queue.put(ipv4(flow, size, put[flow]), True, now)
            elif (head := self.queue.head(now)) is not None:
                self.assertLessEqual(now - head.queued_at, MAX_AGE)
                self.queue.take()
                taken += 1
                got.setdefault(flow_of(head.packet), []).append(number_of(head.packet))
            self.assertLessEqual(self.queue.size_bytes, MAX_BYTES)
        for numbers in got.values():
            self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(taken + self.queue.dropped, sum(put.values()))
        self.assertEqual((self.queue.size_bytes, self.queue.conversations, bool(self.queue)), (0, 0, False))


class PlaceTests(SynchronousTestCase):
    """What makes two packets one conversation."""

    def test_ports_and_addresses(self) -> None:
        packets = [ipv4(1, 100), ipv4(2, 100)]
        packets.append(packets[0][:12] + b"\x0a" + packets[0][13:])
        packets.append(packets[0][:9] + b"\x11" + packets[0][10:])
        self.assertEqual(len({flow_bucket(packet) for packet in packets}), 4)
        self.assertEqual(flow_bucket(ipv4(1, 100, 1)), flow_bucket(ipv4(1, 900, 2)))

    def test_fragments(self) -> None:
        """Only the first knows the ports: they must not overtake one another."""
        first = bytearray(ipv4(1, 1500))
        first[6] |= 0x20
        second = bytearray(ipv4(7, 1500))
        second[6:8] = (185).to_bytes(2, "big")
        self.assertEqual(flow_bucket(bytes(first)), flow_bucket(bytes(second)))

    def test_ipv6(self) -> None:
        def ipv6(port: int, size: int) -> bytes:
            return struct.pack("!IHBB16s16sHH", 6 << 28, size, 17, 64, bytes(16), bytes(16), port, 53) + bytes(size)

        self.assertEqual(flow_bucket(ipv6(1, 10)), flow_bucket(ipv6(1, 99)))
        self.assertNotEqual(flow_bucket(ipv6(1, 10)), flow_bucket(ipv6(2, 10)))

    @given(st.binary(max_size=80))
    def test_anything(self, packet: bytes) -> None:
        self.assertIn(flow_bucket(packet), range(FLOW_BUCKETS))
