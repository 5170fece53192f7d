"""Sets of numbers as ranges, against Python's own sets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.wire.ranges import RangeSet

Operation = tuple[str, int, int]


def members(ranges: RangeSet) -> set[int]:
    """Return all numbers in it."""
    return {number for first, last in ranges for number in range(first, last + 1)}


class RangeSetTests(SynchronousTestCase):
    """A model test, and the cases worth reading."""

    def assertTidy(self, ranges: RangeSet) -> None:
        """Ranges ascend, and neither overlap nor touch."""
        above = -2
        for first, last in ranges:
            self.assertTrue(above + 1 < first <= last)
            above = last

    def test_joins_what_touches(self) -> None:
        ranges = RangeSet()
        for first, last in [(5, 6), (1, 2), (9, 9), (7, 8), (3, 4)]:
            ranges.add(first, last)
        self.assertEqual(list(ranges), [(1, 9)])

    def test_keep_newest(self) -> None:
        ranges = RangeSet()
        for number in range(0, 100, 2):
            ranges.add(number, number)
        ranges.keep_newest(3)
        self.assertEqual(list(ranges), [(94, 94), (96, 96), (98, 98)])

    @settings(derandomize=True, max_examples=300)
    @given(
        st.lists(
            st.tuples(st.sampled_from(["add", "add", "add", "forget"]), st.integers(0, 60), st.integers(0, 8)),
            max_size=40,
        )
    )
    def test_as_a_set(self, operations: list[Operation]) -> None:
        ranges, model = RangeSet(), set[int]()
        for name, number, length in operations:
            if name == "add":
                ranges.add(number, number + length)
                model.update(range(number, number + length + 1))
            else:
                ranges.forget_below(number)
                model = {member for member in model if member >= number}
            self.assertTidy(ranges)
            self.assertEqual(members(ranges), model)
            self.assertEqual([number for number in range(80) if number in ranges], sorted(model))
