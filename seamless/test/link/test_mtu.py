"""The search for a path's MTU (RFC 8899) by itself: rounds in virtual time, and what it is told of lost data."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.mtu import (
    BASE_MTU_BYTES,
    ERROR_INTERVAL,
    MAX_PROBES,
    MAX_ROUNDS,
    RAISE_INTERVAL,
    SPREAD,
    SUSPICION_DELAY,
    SUSPICIOUS_LOSSES,
    VERIFY_INTERVAL,
    MtuSearch,
    MtuState,
    Probe,
)

RTT = 0.010
PROBES_PER_ROUND = SPREAD + 1 + MAX_PROBES
"""At the most: the sizes between, the smallest that was lost, the ceiling, and the small one behind them."""


class Path:
    """A search, and a path that carries ``mtu_bytes`` and loses some datagrams besides."""

    def __init__(self, ceiling_bytes: int, mtu_bytes: int, loss: float = 0.0) -> None:
        self.search = MtuSearch(ceiling_bytes)
        self.mtu_bytes = mtu_bytes
        self.now = 0.0
        self.rounds = 0
        self.answers: Callable[[Probe], bool] = self.carries
        self._loss = loss
        self._random = Random(1)

    def carries(self, probe: Probe) -> bool:
        """Return whether this probe is acknowledged."""
        return probe.size_bytes <= self.mtu_bytes and self._random.random() >= self._loss

    def settle(self) -> None:
        """Let rounds go by until there are no more probes."""
        while probes := self.search.probes_to_send():
            self.rounds += 1
            self.now += RTT
            for probe in probes:
                if self.answers(probe):
                    self.search.probe_acked(probe, self.now)
                else:
                    self.search.probe_lost(probe, self.now)

    def begin(self) -> None:
        """Begin, as when the neighbor is heard, and find what there is."""
        self.search.begin()
        self.settle()

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self.search.handle_timeout(self.now)
        self.settle()

    def lose_data(self, size: int, count: int = SUSPICIOUS_LOSSES) -> None:
        """Lose datagrams of this size, over a while."""
        for _ in range(count):
            self.search.data_lost([size], self.now)
            self.now += SUSPICION_DELAY
        self.search.data_lost([size], self.now)
        self.settle()

    def found(self) -> tuple[MtuState, int]:
        """Return what came of it."""
        return self.search.state, self.search.mtu_bytes


class SearchTests(SynchronousTestCase):
    """From the base to what the path carries."""

    def test_usual_path_takes_one_round(self) -> None:
        path = Path(1500, 1500)
        self.assertEqual(path.found(), (MtuState.DISABLED, 1280))
        path.search.begin()
        self.assertEqual(path.found(), (MtuState.BASE, 1280))
        sizes = [probe.size_bytes for probe in path.search.probes_to_send()]
        self.assertEqual(sizes, [1500, 1280, 0])
        path.search.probe_acked(Probe(1500, 1), 0.01)
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1500))
        self.assertIsNone(path.search.next_timeout())

    def test_every_mtu_is_found_within_seven_rounds(self) -> None:
        for mtu_bytes in range(1280, 1501):
            path = Path(1500, mtu_bytes)
            path.begin()
            expected = 1500 if mtu_bytes == 1500 else mtu_bytes & -4
            self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, expected))
            self.assertLessEqual(path.rounds, 7)

    def test_jumbo_ceiling(self) -> None:
        for mtu_bytes, rounds in ((9000, 1), (1500, 8), (8996, 8), (1280, 8)):
            path = Path(9000, mtu_bytes)
            path.begin()
            self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, mtu_bytes))
            self.assertLessEqual(path.rounds, rounds)

    def test_losses_are_not_taken_for_sizes(self) -> None:
        """At 10 % loss a size fails by chance once in a thousand."""
        for mtu_bytes in (1280, 1352, 1400, 1476, 1500):
            path = Path(1500, mtu_bytes, loss=0.1)
            path.begin()
            self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, mtu_bytes))

    def test_silence_says_nothing(self) -> None:
        """Rounds of which nothing came through do not count; a search ends in any case."""
        path = Path(1500, 1500)
        path.answers = lambda probe: False
        path.begin()
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1280))
        self.assertEqual(path.rounds, MAX_ROUNDS)
        self.assertEqual(path.search.counters.black_holes, 0)

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.integers(1280, 9000), st.integers(0, 9100), st.floats(0, 0.9))
    def test_any_path(self, ceiling: int, mtu_bytes: int, loss: float) -> None:
        """It ends, within its bounds, on a size that passed, or the base."""
        path = Path(ceiling, mtu_bytes, loss)
        path.begin()
        self.assertIn(path.search.state, (MtuState.SEARCH_COMPLETE, MtuState.ERROR))
        self.assertLessEqual(path.search.mtu_bytes, max(mtu_bytes, 1280))
        self.assertLessEqual(path.search.counters.mtu_probes, MAX_ROUNDS * PROBES_PER_ROUND)


class ErrorTests(SynchronousTestCase):
    """Paths that do not carry the base."""

    def test_error_and_back(self) -> None:
        path = Path(1500, 1200)
        path.begin()
        self.assertEqual(path.found(), (MtuState.ERROR, BASE_MTU_BYTES))
        self.assertLessEqual(path.rounds, MAX_PROBES)
        path.wait(ERROR_INTERVAL)
        self.assertEqual(path.search.state, MtuState.ERROR)
        path.mtu_bytes = 1400
        path.wait(ERROR_INTERVAL)
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1400))

    def test_silence_in_error_is_no_base(self) -> None:
        path = Path(1500, 1200)
        path.begin()
        path.answers = lambda probe: False
        path.wait(ERROR_INTERVAL)
        self.assertEqual(path.search.state, MtuState.ERROR)

    def test_it_may_shrink_below_the_base_later(self) -> None:
        path = Path(1500, 1500)
        path.begin()
        path.mtu_bytes = 1000
        path.lose_data(1500)
        self.assertFalse(path.search.carries_base)


class BlackHoleTests(SynchronousTestCase):
    """Data of the size in use vanishes."""

    def setUp(self) -> None:
        self.path = Path(1500, 1500)
        self.path.begin()

    def test_shrunk(self) -> None:
        self.path.mtu_bytes = 1400
        self.path.lose_data(1500)
        self.assertEqual(self.path.found(), (MtuState.SEARCH_COMPLETE, 1400))
        self.assertEqual(self.path.search.counters.black_holes, 1)

    def test_losses_by_chance_change_nothing(self) -> None:
        before = self.path.search.counters.mtu_probes
        self.path.lose_data(1500)
        self.assertEqual(self.path.found(), (MtuState.SEARCH_COMPLETE, 1500))
        self.assertEqual(self.path.search.counters.black_holes, 0)
        self.assertEqual(self.path.search.counters.mtu_probes, before + 2 * MAX_PROBES)

    def test_what_is_acknowledged_meanwhile_clears_the_suspicion(self) -> None:
        self.path.mtu_bytes = 1400
        before = self.path.search.counters.mtu_probes
        for _ in range(100):
            self.path.search.data_lost([1500, 1500], self.path.now)
            self.path.search.data_acked(1500)
            self.path.now += SUSPICION_DELAY
        self.assertEqual(self.path.search.counters.mtu_probes, before)
        for _ in range(10):
            self.path.search.data_lost([1500, 1500], self.path.now)
            self.path.search.data_acked(1400)
            self.path.now += SUSPICION_DELAY
        self.path.settle()
        self.assertEqual(self.path.search.mtu_bytes, 1400)

    def test_short_datagrams_say_nothing(self) -> None:
        before = self.path.search.counters.mtu_probes
        self.path.lose_data(500, 100)
        self.assertEqual(self.path.search.counters.mtu_probes, before)

    def test_verifying_is_rare_whatever_is_lost(self) -> None:
        """A neighbor that acknowledges probes and no data does not make us probe all the time."""
        begin, before = self.path.now, self.path.search.counters.mtu_probes
        while self.path.now < begin + 10 * VERIFY_INTERVAL:
            self.path.lose_data(1500)
        self.assertLessEqual(self.path.search.counters.mtu_probes - before, 11 * 2 * MAX_PROBES)


class RaiseTests(SynchronousTestCase):
    """A path that carries more again."""

    def test_raised_after_a_while(self) -> None:
        path = Path(1500, 1400)
        path.begin()
        at = path.search.next_timeout()
        assert at is not None
        self.assertAlmostEqual(at, path.now + RAISE_INTERVAL)
        path.wait(RAISE_INTERVAL)
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1400))
        path.mtu_bytes = 1500
        path.wait(RAISE_INTERVAL)
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1500))
        self.assertIsNone(path.search.next_timeout())

    def test_suspicion_does_not_put_it_off(self) -> None:
        path = Path(1500, 1400)
        path.begin()
        due = path.search.next_timeout()
        path.lose_data(1400)
        self.assertEqual(path.search.mtu_bytes, 1400)
        self.assertEqual(path.search.next_timeout(), due)

    def test_a_neighbor_that_acknowledges_what_it_never_got(self) -> None:
        """The search believes it, so it is sent datagrams that do not arrive; only its own link carries nothing."""
        path = Path(1500, 1400)
        path.answers = lambda probe: True
        path.begin()
        self.assertEqual(path.found(), (MtuState.SEARCH_COMPLETE, 1500))

    def test_stopped_and_begun_anew(self) -> None:
        path = Path(1500, 1400)
        path.search.begin()
        late = path.search.probes_to_send()
        path.search.stop()
        self.assertEqual(path.search.state, MtuState.DISABLED)
        self.assertEqual(path.search.probes_to_send(), [])
        path.begin()
        for probe in late:
            path.search.probe_acked(probe, path.now)  # of the neighbor's former life
        self.assertEqual(path.search.mtu_bytes, 1400)
