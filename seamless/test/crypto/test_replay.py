"""The replay window: WireGuard's expectations, and batches against the plainest model there is."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.replay import NUMBER_LIMIT, WINDOW_NUMBERS, ReplayWindow

LAST = WINDOW_NUMBERS - 1
"""WireGuard's COUNTER_WINDOW_SIZE: how far below the greatest number one is still accepted."""
LIMIT = LAST + 1
"""Its T_LIM."""


class WireGuardTests(SynchronousTestCase):
    """The cases of the Linux kernel's drivers/net/wireguard/selftest/counter.c, with our window and our limit."""

    def check(self, *cases: tuple[int, bool]) -> None:
        window = ReplayWindow()
        for position, (number, expected) in enumerate(cases, 1):
            self.assertIs(window.is_new(number), expected, f"case {position}: {number}")
            self.assertIs(window.accept(number), expected, f"case {position}: {number}")

    def test_cases(self) -> None:
        self.check(
            (0, True),
            (1, True),
            (1, False),
            (9, True),
            (8, True),
            (7, True),
            (7, False),
            (LIMIT, True),
            (LIMIT - 1, True),
            (LIMIT - 1, False),
            (LIMIT - 2, True),
            (2, True),
            (2, False),
            (LIMIT + 16, True),
            (3, False),
            (LIMIT + 16, False),
            (LIMIT * 4, True),
            (LIMIT * 4 - (LIMIT - 1), True),
            (10, False),
            (LIMIT * 4 - LIMIT, False),
            (LIMIT * 4 - (LIMIT + 1), False),
            (LIMIT * 4 - (LIMIT - 2), True),
            (LIMIT * 4 + 1 - LIMIT, False),
            (0, False),
            (NUMBER_LIMIT, False),
            (NUMBER_LIMIT - 1, True),
            (NUMBER_LIMIT, False),
            (NUMBER_LIMIT - 1, False),
            (NUMBER_LIMIT - 2, True),
            (NUMBER_LIMIT + 1, False),
            (NUMBER_LIMIT + 2, False),
            (NUMBER_LIMIT - 2, False),
            (NUMBER_LIMIT - 3, True),
            (0, False),
        )

    def test_upwards(self) -> None:
        self.check(*((number, True) for number in range(1, LAST + 1)), (0, True), (0, False))
        self.check(*((number, True) for number in range(2, LAST + 2)), (1, True), (0, False))

    def test_downwards(self) -> None:
        self.check(*((number, True) for number in range(LAST + 1, 0, -1)))
        self.check(*((number, True) for number in range(LAST + 2, 1, -1)), (0, False))
        self.check(*((number, True) for number in range(LAST, 0, -1)), (LAST + 1, True), (0, False))
        self.check(*((number, True) for number in range(LAST, 0, -1)), (0, True), (LAST + 1, True))


class Model:
    """A set of all numbers ever accepted."""

    def __init__(self) -> None:
        self.accepted: set[int] = set()
        self.greatest = -1

    def accept(self, number: int) -> bool:
        too_old = number <= self.greatest - WINDOW_NUMBERS
        accepted = number < NUMBER_LIMIT and not too_old and number not in self.accepted
        if accepted:
            self.accepted.add(number)
            self.greatest = max(self.greatest, number)
        return accepted


class BatchTests(SynchronousTestCase):
    def check(self, batches: list[list[int]]) -> int:
        """Check that a window says of each number what the model says; return how many batches were taken whole."""
        window, model, whole = ReplayWindow(), Model(), 0
        for numbers in batches:
            accepted = window.accept_batch(numbers)
            expected = [model.accept(number) for number in numbers]
            self.assertEqual(expected if accepted is None else accepted, expected)
            self.assertIs(accepted is None, all(expected))
            whole += accepted is None
            self.assertEqual(window.greatest, model.greatest)
        return whole

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 64))))
    def test_small_numbers(self, batches: list[list[int]]) -> None:
        self.check(batches)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 3 * WINDOW_NUMBERS) | st.integers(NUMBER_LIMIT - 9, 1 << 64))))
    def test_any_numbers(self, batches: list[list[int]]) -> None:
        self.check(batches)

    def test_a_network(self) -> None:
        """Forty-four at a time, of which some are lost, late, or come twice: all but the replays are new."""
        source = random.Random(3)
        numbers = [number for number in range(20_000) if source.random() > 0.05]
        numbers += source.sample(numbers, 300)
        numbers.sort(key=lambda number: number + source.random() * 20)
        batches = [numbers[start : start + 44] for start in range(0, len(numbers), 44)]
        whole = self.check(batches)
        self.assertTrue(0 < whole < len(batches))
        self.assertEqual(self.check([sorted(set(batch)) for batch in batches[:1]]), 1)

    def test_numbers_far_apart(self) -> None:
        """A sender may leap as far as it likes; that costs us no memory."""
        for leap in (WINDOW_NUMBERS - 1, WINDOW_NUMBERS, WINDOW_NUMBERS + 1, NUMBER_LIMIT - 1):
            self.assertEqual(self.check([[0, leap], [leap], [0], [leap - 1]]), 2)

    def test_an_empty_batch(self) -> None:
        self.assertIsNone(ReplayWindow().accept_batch([]))
