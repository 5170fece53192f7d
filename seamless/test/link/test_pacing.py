"""The pacer: never more than its rate and one burst, never less for being woken late."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.pacing import BACKLOG_LATENESS_INTERVAL, LATENESS_INTERVAL, MIN_BURST_BYTES, Pacer

RATES = st.sampled_from([1e5, 1e6, 3.3e7, 5e8, 1e10])
WAKE_UPS = st.lists(st.tuples(st.floats(0.0, 0.05), st.floats(0.0, 1.0)), min_size=1, max_size=40)
"""Seconds since the wake-up before, and the part of the budget that is used."""


class BoundTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(RATES, st.floats(0.0, 1e6), WAKE_UPS)
    def test_in_any_interval_at_most_rate_and_one_burst(
        self, rate_bps: float, start: float, wake_ups: list[tuple[float, float]]
    ) -> None:
        pacer = Pacer(rate_bps, start)
        now = start
        sent: list[tuple[float, int]] = []
        for gap, part in wake_ups:
            now += gap
            size_bytes = int(pacer.budget_bytes(now) * part)
            pacer.spend(size_bytes, now)
            sent.append((now, size_bytes))
        for index, (begin, _) in enumerate(sent):
            total_bytes = 0
            for end, size_bytes in sent[index:]:
                total_bytes += size_bytes
                self.assertLessEqual(total_bytes, rate_bps * (end - begin) / 8 + pacer.burst_bytes + 1)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(RATES, st.floats(0.0, 1e6), st.integers(0, 100_000), st.integers(1, 10_000_000))
    def test_ready_at_is_neither_too_early_nor_late(
        self, rate_bps: float, start: float, spent_bytes: int, needed_bytes: int
    ) -> None:
        pacer = Pacer(rate_bps, start)
        pacer.spend(spent_bytes, start)
        reachable_bytes = min(needed_bytes, pacer.burst_bytes)
        ready_at = pacer.ready_at(needed_bytes)
        if ready_at - 16 / rate_bps - 1e-6 > start:
            # Two bytes' time before; a copy, since time must not go back.
            early = Pacer(rate_bps, start)
            early.spend(spent_bytes, start)
            self.assertLess(early.budget_bytes(ready_at - 16 / rate_bps - 1e-6), reachable_bytes)
        self.assertGreaterEqual(pacer.budget_bytes(max(ready_at, start)), reachable_bytes)


class RateTests(SynchronousTestCase):
    def sent_bytes(self, rate_bps: float, lateness: float, seconds: float) -> int:
        """Send all that is allowed whenever woken, up to ``lateness`` seconds after the time asked for."""
        random = Random(1)
        pacer = Pacer(rate_bps, 0.0)
        pacer.spend(pacer.burst_bytes, 0.0)
        total_bytes = 0
        now = 0.0
        while True:
            now = max(now, pacer.ready_at(1)) + random.uniform(0.0, lateness)
            if now > seconds:
                return total_bytes
            size_bytes = pacer.budget_bytes(now)
            pacer.spend(size_bytes, now)
            total_bytes += size_bytes

    def test_late_wake_ups_cost_nothing(self) -> None:
        for rate_bps in (1e6, 5e8, 1e10):
            self.assertGreater(self.sent_bytes(rate_bps, LATENESS_INTERVAL, 1.0), 0.99 * rate_bps / 8)

    def test_sleep_costs_rate(self) -> None:
        """What was not sent in a long sleep is not made up for: the path would have to take it all at once."""
        self.assertLess(self.sent_bytes(5e8, 0.1, 10.0), 0.2 * 10.0 * 5e8 / 8)

    def test_burst_is_a_few_milliseconds_or_ten_datagrams(self) -> None:
        self.assertEqual(Pacer(1e6, 0.0).burst_bytes, MIN_BURST_BYTES)
        self.assertEqual(Pacer(1e9, 0.0).burst_bytes, int(1e9 * LATENESS_INTERVAL / 8))


class BookkeepingTests(SynchronousTestCase):
    def test_debt_is_repaid_first(self) -> None:
        pacer = Pacer(8e6, 0.0)
        pacer.spend(pacer.burst_bytes + 10_000, 0.0)
        self.assertEqual(pacer.budget_bytes(0.0), 0)
        self.assertEqual(pacer.budget_bytes(0.010), 0)
        self.assertAlmostEqual(pacer.ready_at(1), 0.010002)
        self.assertEqual(pacer.budget_bytes(0.0110001), 1000)

    def test_new_rate_counts_from_now_on(self) -> None:
        pacer = Pacer(8e6, 0.0)
        pacer.spend(pacer.burst_bytes, 0.0)
        pacer.set_rate(16e6, 0.001)
        self.assertEqual(pacer.budget_bytes(0.002), 1000 + 2000)

    def test_lower_rate_lowers_the_burst(self) -> None:
        pacer = Pacer(1e9, 0.0)
        self.assertEqual(pacer.budget_bytes(0.0), 500_000)
        pacer.set_rate(1e6, 0.0)
        self.assertEqual(pacer.budget_bytes(0.0), MIN_BURST_BYTES)

    def test_a_backlog_is_made_good_for_longer(self) -> None:
        pacer = Pacer(5e8, 0.0)
        pacer.spend(pacer.burst_bytes, 0.0)
        pacer.set_backlog(True, 0.0)
        self.assertAlmostEqual(pacer.budget_bytes(1.0), 5e8 * BACKLOG_LATENESS_INTERVAL / 8, delta=2)
        pacer.set_backlog(False, 1.0)
        self.assertEqual(pacer.budget_bytes(2.0), pacer.burst_bytes)
