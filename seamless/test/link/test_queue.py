"""What waits on a link is served fairly, is bounded, and can be paused."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.queue import EXPRESS_LIMIT_BYTES, QUANTUM_BYTES, FairQueue

OVERHEAD = 56


def packets(key: bytes, count: int, size: int = 1000) -> list[bytes]:
    """Return ``count`` packets of ``size`` bytes that begin with ``key``."""
    return [key.ljust(size, b".") for _ in range(count)]


class FairQueueTests(SynchronousTestCase):
    """Orders, shares and bounds."""

    def setUp(self) -> None:
        self.queue = FairQueue(limit_bytes=100_000)

    def take(self, budget: int, now: float = 0.0) -> list[bytes]:
        return self.queue.take(budget, budget, OVERHEAD, now)

    def test_express_then_resends_then_bulk(self) -> None:
        self.queue.put_bulk(b"bulk", packets(b"bulk", 1))
        self.queue.put_express(b"express", packets(b"express", 1))
        self.queue.put_resend(b"resend")
        self.assertEqual([packet.rstrip(b".") for packet in self.take(10_000)], [b"express", b"resend", b"bulk"])
        self.assertEqual((self.queue.resends_at, self.queue.attempts), (1, [1]))
        self.assertFalse(self.queue)

    def test_bulk_sessions_share_evenly(self) -> None:
        for key in (b"a", b"b", b"c"):
            self.queue.put_bulk(key, packets(key, 90))
        taken: Counter[bytes] = Counter()
        for _ in range(30):
            taken.update(packet[:1] for packet in self.take(6_000))
        self.assertLess(max(taken.values()) - min(taken.values()), 30)

    def test_sessions_share_by_bytes_not_by_packets(self) -> None:
        self.queue.put_bulk(b"a", packets(b"a", 90, 1000))
        self.queue.put_bulk(b"b", packets(b"b", 900, 100))
        taken: Counter[bytes] = Counter()
        for _ in range(20):
            for packet in self.take(5_000):
                taken[packet[:1]] += len(packet)
        self.assertLess(abs(taken[b"a"] - taken[b"b"]), 30_000)
        self.assertGreater(taken[b"b"], 20_000)

    def shares(self, budget: int, turns: int) -> Counter[bytes]:
        """Return the bytes taken in so many small turns, by the first letter of the packets."""
        taken: Counter[bytes] = Counter()
        for _ in range(turns):
            for packet in self.take(budget):
                taken[packet[:1]] += len(packet)
        return taken

    def test_a_flood_of_express_is_served_as_a_flow_of_bulk_is(self) -> None:
        """Whatever a turn's budget is: its share holds over time."""
        for budget in (1_500, 6_000, 30_000):
            self.queue = FairQueue(limit_bytes=1_000_000)
            self.queue.put_bulk(b"a", packets(b"bulk", 250))
            self.queue.put_express(b"b", packets(b"express", 250))
            taken = self.shares(budget, 240_000 // budget)
            self.assertLess(abs(taken[b"b"] - taken[b"e"]), 2 * QUANTUM_BYTES, budget)

    def test_express_before_bulk_is_a_quarter_over_time(self) -> None:
        """Of three floods, each has its own turns too."""
        self.queue = FairQueue(limit_bytes=1_000_000)
        self.queue.put_bulk(b"a", packets(b"bulk", 900))
        for key in (b"x", b"y", b"z"):
            self.queue.put_express(key, packets(key, 250))
        taken = self.shares(1_500, 240)
        self.assertGreater(taken[b"b"], 0.85 * 240_000 / 4)
        for key in (b"x", b"y", b"z"):
            self.assertGreater(taken[key], 0.7 * 240_000 / 4)

    def test_a_keystroke_passes_a_flood_of_express(self) -> None:
        """The flood has used up what it may; some is kept for flows that had nothing waiting."""
        self.queue.put_bulk(b"a", packets(b"bulk", 90))
        self.queue.put_express(b"flood", packets(b"f", 250))
        self.shares(1_500, 100)
        for _ in range(20):
            self.queue.put_express(b"key", packets(b"key", 1, 60))
            self.assertIn(b"k", {packet[:1] for packet in self.take(1_500)})
            self.shares(1_500, 10)

    def test_what_only_the_share_holds_back_is_not_urgent(self) -> None:
        """Or the link would wake up again and again for what it must not send."""
        self.queue.put_bulk(b"a", packets(b"bulk", 90))
        self.queue.put_express(b"flood", packets(b"f", 250))
        while self.queue.is_urgent:
            self.assertTrue(self.queue.take(1_500, 0, OVERHEAD, 0.0))
        self.assertGreater(self.queue.express_bytes(b"flood"), 200_000)
        self.assertEqual(self.queue.take(1_500, 0, OVERHEAD, 0.0), [])
        self.assertEqual(self.queue.ready_at(), 0.0)

    def test_a_pause_of_express_holds_one_flow_s_express_only(self) -> None:
        for key in (b"a", b"b"):
            self.queue.put_express(key, packets(key.upper(), 2))
            self.queue.put_bulk(key, packets(key, 2))
        self.queue.pause_express(b"a", until=1.0)
        self.assertEqual({packet[:1] for packet in self.take(100_000, now=0.5)}, {b"a", b"B", b"b"})
        self.assertFalse(self.queue.is_urgent)
        self.assertEqual(self.queue.ready_at(), 1.0)
        self.assertEqual({packet[:1] for packet in self.take(100_000, now=1.0)}, {b"A"})
        self.assertFalse(self.queue)

    def test_express_that_comes_while_it_is_paused_waits(self) -> None:
        self.queue.pause_express(b"a", until=1.0)
        self.queue.put_express(b"a", packets(b"a", 2))
        self.assertEqual(self.take(100_000, now=0.5), [])
        self.assertEqual(self.queue.ready_at(), 1.0)
        self.assertEqual(len(self.take(100_000, now=1.0)), 2)

    def test_without_a_budget_for_bulk_only_the_urgent_goes(self) -> None:
        self.queue.put_bulk(b"bulk", packets(b"bulk", 3))
        self.queue.put_express(b"express", packets(b"express", 1))
        self.queue.put_resend(b"resend")
        self.assertTrue(self.queue.is_urgent)
        self.assertEqual(len(self.queue.take(10_000, 0, OVERHEAD, 0.0)), 2)
        self.assertFalse(self.queue.is_urgent)
        self.assertEqual(len(self.queue.take(10_000, 2 * (1000 + OVERHEAD), OVERHEAD, 0.0)), 2)

    def test_bounds_are_kept_and_drops_counted(self) -> None:
        for _ in range(5):
            self.queue.put_bulk(b"a", packets(b"a", 30))
        self.assertLessEqual(self.queue.flow_bytes(b"a"), 100_000)
        self.assertEqual(self.queue.counters.dropped_bulk, 60)
        self.queue.put_express(b"e", packets(b"e", 2000))
        self.queue.put_express(b"f", packets(b"f", 10))
        self.assertEqual(self.queue.express_bytes(b"f"), 10_000, "others have their own bound")
        self.assertLess(self.queue.size_bytes, EXPRESS_LIMIT_BYTES + 112_000)
        self.assertGreater(self.queue.counters.dropped_express, 0)

    def test_a_pause_holds_one_session_only(self) -> None:
        self.queue.put_bulk(b"a", packets(b"a", 2))
        self.queue.put_bulk(b"b", packets(b"b", 2))
        self.queue.pause_bulk(b"a", until=1.0)
        self.assertEqual({packet[:1] for packet in self.take(100_000, now=0.5)}, {b"b"})
        self.assertEqual(self.queue.ready_at(), 1.0)
        self.assertEqual({packet[:1] for packet in self.take(100_000, now=1.0)}, {b"a"})
        self.assertIsNone(self.queue.ready_at())

    def test_drain_returns_everything_once(self) -> None:
        self.queue.put_bulk(b"a", packets(b"a", 3))
        self.queue.put_express(b"a", packets(b"e", 2))
        self.queue.put_resend(b"r")
        self.assertEqual(len(self.queue.drain()), 6)
        self.assertEqual((bool(self.queue), self.queue.size_bytes, self.queue.drain()), (False, 0, []))

    @given(
        st.lists(
            st.tuples(st.sampled_from("abre"), st.integers(1, 20), st.integers(10, 1500), st.integers(0, 40_000)),
            max_size=40,
        )
    )
    def test_nothing_is_lost_or_made_up(self, steps: list[tuple[str, int, int, int]]) -> None:
        queue = FairQueue(limit_bytes=100_000)
        put = 0
        taken = 0
        for kind, count, size, budget in steps:
            if kind == "r":
                queue.put_resend(b"r" * size)
                put += 1
            elif kind == "e":
                queue.put_express(b"e", packets(b"e", count, size))
                put += count
            else:
                queue.put_bulk(kind.encode(), packets(kind.encode(), count, size))
                put += count
            taken += len(queue.take(budget, budget, OVERHEAD, 0.0))
        dropped = queue.counters.dropped_bulk + queue.counters.dropped_express
        while queue:
            taken += len(queue.take(50_000, 50_000, OVERHEAD, 0.0))
        self.assertEqual(put, taken + dropped)
        self.assertEqual(queue.size_bytes, 0)
