"""Rates and latencies in LSAs: one byte each, never too low, and what they make of a path."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.capacity import NEWS_STEPS, LinkCapacity, PathCapacity, path_capacity
from seamless.routing.graph import LiveGraph
from seamless.routing.lsa import Lsa, LsaLink

STEP = 2 ** (1 / 8)


def capacity(mbit: float, latency: float | None, *, is_estimate: bool = False) -> LinkCapacity:
    return LinkCapacity.of(mbit * 1e6, latency, is_estimate=is_estimate)


class CodeTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None)
    @given(st.floats(1e6, 5e10), st.floats(1e-6, 3000), st.booleans())
    def test_a_code_is_at_most_a_step_above(self, rate_bps: float, latency: float, is_estimate: bool) -> None:
        found = LinkCapacity.of(rate_bps, latency, is_estimate=is_estimate)
        self.assertTrue(found.is_known)
        self.assertEqual(found.is_estimate, is_estimate)
        self.assertTrue(0.999999 * rate_bps <= found.rate_bps <= 1.000001 * STEP * rate_bps)
        self.assertTrue(0.999999 * latency <= found.latency <= 1.000001 * STEP * latency)

    def test_what_is_beyond_the_scale(self) -> None:
        self.assertEqual(capacity(0.001, 1e-9), LinkCapacity(1, 1))
        self.assertEqual(capacity(1e9, 1e9), LinkCapacity(0x7F, 0xFF))
        self.assertFalse(capacity(100, None).is_known)
        self.assertFalse(capacity(0, 0.1).is_known)

    def test_small_changes_of_what_is_measured_are_no_news(self) -> None:
        before = capacity(100, 0.010, is_estimate=True)
        self.assertFalse(capacity(100 * STEP ** (NEWS_STEPS - 1), 0.010, is_estimate=True).is_news(before))
        self.assertTrue(capacity(100 * STEP**NEWS_STEPS, 0.010, is_estimate=True).is_news(before))
        self.assertFalse(capacity(100, 0.012, is_estimate=True).is_news(before))
        self.assertTrue(capacity(100, 0.015, is_estimate=True).is_news(before))

    def test_another_configured_rate_is_news(self) -> None:
        self.assertTrue(capacity(120, 0.010).is_news(capacity(100, 0.010)))
        self.assertTrue(capacity(100, 0.010).is_news(capacity(100, None)))


class PathTests(SynchronousTestCase):
    def path(self, **links: LinkCapacity) -> PathCapacity | None:
        """Return what a path over nodes 1, 2 and 3 carries to node 1; ``links`` by their two ends, as ``a21``."""
        announced: dict[int, list[LsaLink]] = {1: [], 2: [], 3: []}
        for ends in ("12", "21", "23", "32"):
            link = LsaLink(int(ends[1]), 10, 1400, links.get(f"a{ends}", capacity(100, 0.010)))
            announced[int(ends[0])].append(link)
        lsas = [Lsa(origin, 1, False, tuple(links)) for origin, links in announced.items()]
        return path_capacity(LiveGraph().update(lsas), (1, 2, 3))

    def test_the_slowest_link_towards_us_counts(self) -> None:
        slow = capacity(20, 0.030)
        found = self.path(a32=slow, a12=capacity(1, 0.010))
        assert found is not None
        self.assertEqual(found.rate_bps, slow.rate_bps)
        self.assertTrue(0.060 <= found.round_trip <= 0.060 * STEP, found)
        self.assertFalse(found.is_estimate)

    def test_an_estimate_makes_the_path_an_estimate(self) -> None:
        found = self.path(a21=capacity(50, 0.010, is_estimate=True))
        self.assertTrue(found is not None and found.is_estimate)

    def test_what_is_not_known_of_one_link_is_not_known_of_the_path(self) -> None:
        self.assertIsNone(self.path(a21=LinkCapacity()))
        self.assertIsNone(self.path(a12=LinkCapacity()))
        self.assertIsNone(path_capacity(LiveGraph().update([]), (1, 2)))
