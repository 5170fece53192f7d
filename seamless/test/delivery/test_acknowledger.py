"""What was received, and when it is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.acknowledger import PING_RANGES, Acknowledger, AckPolicy
from seamless.link.link import ACK_INTERVAL, ACK_POLICY
from seamless.wire.ack import Ack, decode_ack


class AcknowledgerTests(SynchronousTestCase):
    """The receiving half of one packet number space."""

    def setUp(self) -> None:
        self.acknowledger = Acknowledger(ACK_POLICY)

    def take(self, now: float) -> Ack:
        return decode_ack(self.acknowledger.take(now), 0)[0]

    def receive(self, numbers: list[int], asks: bool, now: float) -> None:
        """As a link does."""
        self.acknowledger.receive(numbers, now)
        if asks:
            self.acknowledger.ask(0.0, now)

    def test_first_after_a_silence_is_acknowledged_at_once(self) -> None:
        self.receive([0], True, 5.0)
        self.assertEqual(self.acknowledger.due_at, 5.0)

    def test_under_load_one_ack_per_interval(self) -> None:
        self.receive([0], True, 5.0)
        self.take(5.0)
        self.receive([1, 2, 3], True, 5.0001)
        self.assertEqual(self.acknowledger.due_at, 5.0 + ACK_INTERVAL)

    def test_what_asks_for_no_ack_gets_none(self) -> None:
        self.receive([0], False, 5.0)
        self.assertIsNone(self.acknowledger.due_at)

    def test_delay_is_that_of_the_largest(self) -> None:
        self.receive([7], True, 5.0)
        self.receive([3], True, 5.004)
        ack = self.take(5.005)
        self.assertEqual((ack.largest, ack.ranges), (7, [(7, 7), (3, 3)]))
        self.assertAlmostEqual(ack.delay, 0.005, places=5)

    def test_many_ranges_ask_to_be_acknowledged_themselves(self) -> None:
        self.assertFalse(self.acknowledger.wants_ping(5.0))
        for number in range(0, 4 * PING_RANGES, 2):
            self.receive([number], True, 5.0)
        self.assertTrue(self.acknowledger.wants_ping(5.0))
        self.assertFalse(self.acknowledger.wants_ping(5.001), "not again before an answer can have come")
        self.acknowledger.ack_acknowledged(4 * PING_RANGES - 2)
        self.assertFalse(self.acknowledger.wants_ping(6.0))

    def test_a_batch_out_of_order_with_gaps(self) -> None:
        """As long as one without gaps would be: what is missing inside must not be acknowledged."""
        self.receive([5, 9, 7], True, 5.0)
        self.assertEqual(self.take(5.0).ranges, [(9, 9), (7, 7), (5, 5)])

    @given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=20, unique=True), min_size=1, max_size=10))
    def test_ranges_are_the_set_of_what_came(self, batches: list[list[int]]) -> None:
        acknowledger = Acknowledger(ACK_POLICY)
        for batch in batches:
            acknowledger.receive(batch, 0.0)
        expected = {number for batch in batches for number in batch}
        ack, _ = decode_ack(acknowledger.take(0.0), 0)
        self.assertEqual({n for first, last in ack.ranges for n in range(first, last + 1)}, expected)


class PolicyTests(SynchronousTestCase):
    """What a session wants otherwise than a link."""

    def setUp(self) -> None:
        policy = AckPolicy(min_interval=0.0, at_once_count=3, max_ranges=4, kept_count=10)
        self.acknowledger = Acknowledger(policy)

    def receive(self, number: int, delay: float, now: float) -> float | None:
        self.acknowledger.receive((number,), now)
        self.acknowledger.ask(delay, now)
        return self.acknowledger.due_at

    def test_the_shortest_delay_counts(self) -> None:
        self.assertEqual(self.receive(0, 0.025, 5.0), 5.025)
        self.assertEqual(self.receive(1, 0.010, 5.001), 5.011)

    def test_enough_of_them_are_acknowledged_at_once(self) -> None:
        self.receive(0, 0.025, 5.0)
        self.receive(1, 0.025, 5.001)
        self.assertEqual(self.receive(2, 0.025, 5.002), 5.002)
        self.acknowledger.take(5.002)
        self.assertEqual(self.receive(3, 0.025, 5.003), 5.003 + 0.025)

    def test_what_the_sender_knows_is_forgotten_later(self) -> None:
        for number in range(30):
            self.receive(number, 0.025, 5.0)
        self.acknowledger.ack_acknowledged(25)
        self.assertEqual(self.acknowledger.floor, 15)
        self.assertEqual(list(self.acknowledger.received), [(15, 29)])

    def test_of_too_many_ranges_the_oldest_go(self) -> None:
        for number in range(0, 20, 2):
            self.receive(number, 0.025, 5.0)
        self.assertEqual(list(self.acknowledger.received), [(12, 12), (14, 14), (16, 16), (18, 18)])
        self.assertEqual(self.acknowledger.floor, 12)
