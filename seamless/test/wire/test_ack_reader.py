"""What an ACK says anew: against Python's own sets, and in counted work."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.test.wire.test_ack import range_set
from seamless.test.work import lines_run
from seamless.wire.ack import MAX_ACK_RANGES, Ack, AckReader

SENT = 60


def ack_of(numbers: set[int]) -> Ack:
    """Return an ACK of these numbers."""
    ranges = list(reversed(list(range_set(numbers))))[:MAX_ACK_RANGES]
    return Ack(max(numbers), 0.0, ranges)


class AckReaderTests(SynchronousTestCase):
    """Every number once, and no more work than there is news."""

    @settings(derandomize=True, max_examples=300)
    @given(
        st.lists(st.sets(st.integers(0, SENT - 1), min_size=1), max_size=12),
        st.sets(st.integers(0, SENT - 1)),
        st.sets(st.integers(0, SENT - 1)),
    )
    def test_as_sets(self, acks: list[set[int]], awaited: set[int], forgotten: set[int]) -> None:
        """A number that is awaited is given by the first ACK that names it, whatever the ACKs before left out."""
        reader = AckReader(0)
        awaited = set(awaited)
        for number, numbers in enumerate(acks):
            if number == 3:
                awaited -= forgotten
                for gone in forgotten:
                    reader.forget(gone)
            arrived = reader.take(ack_of(numbers), awaited)
            self.assertEqual(len(arrived), len(set(arrived)))
            self.assertEqual(awaited & set(arrived), awaited & numbers)
            awaited -= numbers

    def test_a_range_that_was_said_before_costs_nothing(self) -> None:
        """However long it is, and though a number below it is still awaited."""
        costs = []
        for length in (10, 100_000):
            reader = AckReader(0)
            ack = Ack(length, 0.0, [(1, length)])
            self.assertEqual(len(reader.take(ack, {0})), length)
            costs.append(lines_run(lambda: reader.take(ack, {0})))  # noqa: B023
        self.assertEqual(costs[0], costs[1])
        self.assertLess(costs[1], 30)

    def test_many_that_are_awaited_cost_nothing(self) -> None:
        """One range, and thousands of numbers that no ACK has named yet."""
        reader = AckReader(0)
        awaited = set(range(0, 20_000, 2))
        reader.take(ack_of(set(range(19_000, 20_001))), awaited)
        again = Ack(20_000, 0.0, [(20_000, 20_000), (7, 7)])
        self.assertLess(lines_run(lambda: reader.take(again, awaited)), 30)

    def test_ranges_below_all_that_is_awaited_are_not_looked_at(self) -> None:
        reader = AckReader(0)
        ack = ack_of(set(range(0, 512, 2)))
        self.assertEqual(len(ack.ranges), 256)
        reader.take(ack, ())
        self.assertLess(lines_run(lambda: reader.take(ack, ())), 20)
