"""Packets back in order: what waits, for how long, and what never does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.packets.reorder import CONNECTIONS_KEPT, LEAST_WAIT, MOST_HELD_BYTES, MOST_WAIT, Reorder

KEY = b"one connection"


class ReorderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reorder: Reorder[str] = Reorder()

    def receive(self, sequence: int, length: int, name: str, now: float = 0.0, first: bool = False) -> list[str]:
        return self.reorder.receive(KEY, sequence, length, first, name, now)

    def begin(self, sequence: int = 0) -> None:
        self.assertEqual(self.receive(sequence - 1 & 0xFFFF_FFFF, 1, "syn", first=True), ["syn"])

    def test_in_order(self) -> None:
        self.begin()
        for number in range(10):
            self.assertEqual(self.receive(number * 100, 100, str(number)), [str(number)])
        self.assertEqual(self.reorder.counters.held, 0)
        self.assertIsNone(self.reorder.next_timeout())

    def test_a_gap_that_fills(self) -> None:
        self.begin(0xFFFF_FF9C)
        self.assertEqual(self.receive(0, 100, "1", now=1.0), [])
        self.assertEqual(self.receive(200, 100, "3", now=1.001), [])
        self.assertEqual(self.receive(100, 100, "2", now=1.002), [])
        self.assertEqual(self.receive(0xFFFF_FF9C, 100, "0", now=1.014), ["0", "1", "2", "3"])
        self.assertEqual(self.receive(300, 100, "4", now=1.015), ["4"])
        self.assertEqual((self.reorder.counters.held, self.reorder.counters.filled), (3, 1))

    def test_two_gaps(self) -> None:
        self.begin()
        self.assertEqual(self.receive(100, 100, "1"), [])
        self.assertEqual(self.receive(300, 100, "3"), [])
        self.assertEqual(self.receive(0, 100, "0", now=0.01), ["0", "1"])
        self.assertEqual(self.reorder.gaps, 1)
        self.assertEqual(self.receive(200, 100, "2", now=0.02), ["2", "3"])
        self.assertEqual(self.reorder.gaps, 0)

    def test_a_gap_that_does_not_fill(self) -> None:
        """TCP's own recovery takes over: all goes on, in order, and what comes after is in order again."""
        self.begin()
        self.assertEqual(self.receive(200, 100, "2"), [])
        self.assertEqual(self.receive(100, 100, "1"), [])
        self.assertEqual(self.reorder.next_timeout(), MOST_WAIT)
        self.assertEqual(self.reorder.handle_timeout(MOST_WAIT / 2), [])
        self.assertEqual(self.reorder.handle_timeout(MOST_WAIT), ["1", "2"])
        self.assertEqual(self.receive(300, 100, "3", now=1.0), ["3"])
        self.assertEqual(self.receive(0, 100, "again", now=1.0), ["again"])
        self.assertEqual(self.reorder.counters.expired, 1)

    def test_the_wait_is_learned(self) -> None:
        self.begin()
        now, sequence = 0.0, 0
        for _ in range(5):
            self.receive(sequence + 100, 100, "later", now=now)
            self.assertEqual(len(self.receive(sequence, 100, "late", now=now + 0.012)), 2)
            now, sequence = now + 15, sequence + 200
        self.assertAlmostEqual(self.reorder.wait, 0.015)
        # The path gets slower: a gap is given up, and fills at once after that.
        self.receive(sequence + 100, 100, "later", now=now)
        self.assertEqual(self.reorder.handle_timeout(now + 0.016), ["later"])
        self.assertEqual(self.receive(sequence, 100, "late", now=now + 0.02), ["late"])
        self.assertAlmostEqual(self.reorder.wait, 0.025)

    def test_a_packet_that_tcp_sent_again_teaches_nothing(self) -> None:
        self.begin()
        self.receive(100, 100, "later", now=0.0)
        self.receive(0, 100, "late", now=0.004)
        self.receive(300, 100, "later", now=20.0)
        self.reorder.handle_timeout(20.01)
        before = self.reorder.wait
        self.receive(200, 100, "sent again", now=20.05)
        self.assertEqual(self.reorder.wait, before)
        self.assertGreaterEqual(before, LEAST_WAIT)

    def test_what_never_waits(self) -> None:
        self.begin()
        self.receive(100, 100, "held")
        self.assertEqual(self.receive(200, 0, "an acknowledgement"), ["an acknowledgement"])
        self.assertEqual(self.receive(0xFFFF_FF00, 100, "sent again"), ["sent again"])
        self.assertEqual(self.reorder.receive(b"another", 900, 100, False, "other", 0.0), ["other"])

    def test_a_new_connection_in_the_place_of_the_old(self) -> None:
        self.begin()
        self.receive(100, 100, "held")
        self.assertEqual(self.receive(5000, 1, "syn", first=True), ["held", "syn"])
        self.assertEqual(self.receive(5001, 100, "data"), ["data"])

    def test_bounded(self) -> None:
        self.begin()
        released: list[str] = []
        for number in range(1, MOST_HELD_BYTES // 60_000 + 2):
            released = self.receive(number * 60_000, 60_000, str(number))
        self.assertEqual(released, [str(number) for number in range(1, len(released) + 1)])
        self.assertEqual(self.reorder.counters.overflowed, 1)
        for number in range(CONNECTIONS_KEPT + 10):
            self.reorder.receive(b"%d" % number, 0, 1, True, "syn", 0.0)
        self.assertEqual(self.reorder.connections, CONNECTIONS_KEPT)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.permutations(range(12)), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 11)))
    def test_any_order(self, arrival: list[int], start: int, missing: set[int]) -> None:
        """Nothing is lost or doubled here, and without losses all is in order."""
        self.reorder = Reorder()
        self.begin(start)
        released: list[str] = []
        for number in arrival:
            if number not in missing:
                released += self.receive((start + number * 100) & 0xFFFF_FFFF, 100, str(number))
        released += self.reorder.handle_timeout(MOST_WAIT)
        expected = [str(number) for number in range(12) if number not in missing]
        self.assertEqual(released, expected)
        self.assertIsNone(self.reorder.next_timeout())
