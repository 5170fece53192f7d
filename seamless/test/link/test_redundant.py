"""RedundantSends of sparse packets: of which, when, and dropped by whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.link.redundant import (
    FEW_IN_FLIGHT_BYTES,
    FILTERED_PACKETS,
    LOSS_MEMORY,
    REDUNDANT_DELAYS,
    SMALL_BYTES,
    DuplicateFilter,
    RedundantSends,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS, CLASS_HANDSHAKE, CLASS_UNRECOVERED


def packet(number: int, size: int = 100, packet_class: int = CLASS_EXPRESS) -> bytes:
    return bytes((packet_class, 32)) + number.to_bytes(22, "big") + bytes(size - 24)


class RedundantSendsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.redundant = RedundantSends()
        self.redundant.lost(0.0)

    def sent(self, *packets: bytes, under_way: int = 0, now: float = 1.0) -> None:
        self.redundant.sent(list(packets), under_way, now)

    def test_each_goes_twice_more(self) -> None:
        self.sent(packet(1), now=1.0)
        self.sent(packet(2), now=1.001)
        self.assertEqual(self.redundant.take(1.0015), [])
        self.assertEqual(self.redundant.due_at, 1.0 + REDUNDANT_DELAYS[0])
        self.assertEqual(self.redundant.take(1.0035), [packet(1), packet(2)])
        self.assertEqual(self.redundant.take(2.0), [packet(1), packet(2)])
        self.assertIsNone(self.redundant.due_at)

    def test_not_on_a_link_that_loses_nothing(self) -> None:
        self.redundant = RedundantSends()
        self.sent(packet(1))
        self.assertIsNone(self.redundant.due_at)
        self.redundant.lost(1.0)
        self.sent(packet(1), now=1.0 + LOSS_MEMORY + 1)
        self.assertIsNone(self.redundant.due_at)

    def test_not_beside_bulk_and_not_of_it(self) -> None:
        self.sent(packet(1), under_way=FEW_IN_FLIGHT_BYTES + 1)
        self.sent(packet(2, SMALL_BYTES + 1, CLASS_BULK))
        self.sent(packet(3, packet_class=CLASS_HANDSHAKE))
        self.sent(packet(4, packet_class=CLASS_UNRECOVERED))
        self.assertIsNone(self.redundant.due_at)

    def test_a_dead_link_sends_none(self) -> None:
        self.sent(packet(1))
        self.redundant.clear()
        self.assertEqual(self.redundant.take(9.0), [])


class DuplicateFilterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen = DuplicateFilter()

    def test_the_first_goes_on(self) -> None:
        self.assertEqual(self.seen.first([packet(1), packet(2), packet(1)]), [packet(1), packet(2)])
        self.assertEqual(self.seen.first([packet(2), packet(3)]), [packet(3)])
        self.assertEqual(self.seen.dropped, 2)

    def test_long_ones_and_handshakes_are_not_looked_at(self) -> None:
        for one in (packet(1, SMALL_BYTES + 1), packet(1, packet_class=CLASS_HANDSHAKE)):
            self.assertEqual(self.seen.first([one, one]), [one, one])

    def test_bounded(self) -> None:
        for number in range(FILTERED_PACKETS + 1):
            self.seen.first([packet(number)])
        self.assertEqual(self.seen.first([packet(0)]), [packet(0)])
        self.assertEqual(self.seen.first([packet(FILTERED_PACKETS)]), [])
