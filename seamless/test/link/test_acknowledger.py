"""What was received, and when it is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.acknowledger import ACK_INTERVAL, PING_RANGES, Acknowledger
from seamless.wire.ack import Ack
from seamless.wire.link_frames import parse_link_frames


class AcknowledgerTests(SynchronousTestCase):
    """The receiving half of one packet number space."""

    def setUp(self) -> None:
        self.acknowledger = Acknowledger()

    def take(self, now: float) -> Ack:
        (frame,) = parse_link_frames(self.acknowledger.take(now))
        assert isinstance(frame, Ack)
        return frame

    def test_first_after_a_silence_is_acknowledged_at_once(self) -> None:
        self.acknowledger.on_received([0], True, 5.0)
        self.assertEqual(self.acknowledger.due_at, 5.0)

    def test_under_load_one_ack_per_interval(self) -> None:
        self.acknowledger.on_received([0], True, 5.0)
        self.take(5.0)
        self.acknowledger.on_received([1, 2, 3], True, 5.0001)
        self.assertEqual(self.acknowledger.due_at, 5.0 + ACK_INTERVAL)

    def test_what_asks_for_no_ack_gets_none(self) -> None:
        self.acknowledger.on_received([0], False, 5.0)
        self.assertIsNone(self.acknowledger.due_at)

    def test_delay_is_that_of_the_largest(self) -> None:
        self.acknowledger.on_received([7], True, 5.0)
        self.acknowledger.on_received([3], True, 5.004)
        ack = self.take(5.005)
        self.assertEqual((ack.largest, ack.ranges), (7, [(7, 7), (3, 3)]))
        self.assertAlmostEqual(ack.delay, 0.005, places=5)

    def test_many_ranges_ask_to_be_acknowledged_themselves(self) -> None:
        self.assertFalse(self.acknowledger.wants_ping(5.0))
        for number in range(0, 4 * PING_RANGES, 2):
            self.acknowledger.on_received([number], True, 5.0)
        self.assertTrue(self.acknowledger.wants_ping(5.0))
        self.assertFalse(self.acknowledger.wants_ping(5.001), "not again before an answer can have come")
        self.acknowledger.on_ack_acknowledged(4 * PING_RANGES - 2)
        self.assertFalse(self.acknowledger.wants_ping(6.0))

    def test_a_batch_out_of_order_with_gaps(self) -> None:
        """As long as one without gaps would be: what is missing inside must not be acknowledged."""
        self.acknowledger.on_received([5, 9, 7], True, 5.0)
        self.assertEqual(self.take(5.0).ranges, [(9, 9), (7, 7), (5, 5)])

    @given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=20, unique=True), min_size=1, max_size=10))
    def test_ranges_are_the_set_of_what_came(self, batches: list[list[int]]) -> None:
        acknowledger = Acknowledger()
        for batch in batches:
            acknowledger.on_received(batch, True, 0.0)
        expected = {number for batch in batches for number in batch}
        (ack,) = parse_link_frames(acknowledger.take(0.0))
        assert isinstance(ack, Ack)
        self.assertEqual({n for first, last in ack.ranges for n in range(first, last + 1)}, expected)
