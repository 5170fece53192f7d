"""A search for capacity whose acknowledgements lie, or do not come."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import AckEvent
from seamless.link.capacity_search import (
    MISSING_ACK_MAX,
    RATE_MAX_BPS,
    RATE_START_BPS,
    RTT_MAX,
    SEARCH_RTTS,
    SEARCH_SECONDS,
    SEARCH_SECONDS_MAX,
    CapacitySearch,
)

RTT = 0.01
HOUR = 3600.0
bytes_ = st.integers(0, 1 << 30)
events = st.builds(
    lambda ago, **fields: (ago, fields),
    st.floats(0, 1),
    acked_bytes=bytes_,
    lost_bytes=bytes_,
    smoothed_rtt=st.floats(0, 100),
    rtt=st.none() | st.floats(1e-5, 10),
    receive_time=st.none() | st.floats(0, 1e12),
    delay_variation=st.floats(0, 10),
)


class BusyMachineTests(SynchronousTestCase):
    """A path of 50 Mb/s with a deep buffer, and acknowledgements in bunches."""

    def test_a_ramp_that_shows_too_much(self) -> None:
        """What a short step makes of a bunch is corrected by the longer ones that follow."""
        search, now, free_at = CapacitySearch(0.0, RTT, 1500, 0.0), 0.0, 0.0
        waiting: deque[tuple[float, float, int]] = deque()
        exaggerated = 0
        while not search.is_over:
            size = int(search.pacing_rate_bps() * 0.001 / 8)
            free_at = max(now, free_at) + size * 8 / 50e6
            waiting.append((free_at + RTT, now, size))
            now += 0.001
            while waiting and waiting[0][0] <= now:
                at, sent_at, size = waiting.popleft()
                queue = at - sent_at - RTT
                if queue > 0.002 and exaggerated < 80:
                    exaggerated += 1
                    size = 2 * size
                search.on_ack(
                    AckEvent(
                        at, 0, at - sent_at, size, sent_at, rtt=at - sent_at, receive_time=at, delay_variation=queue
                    )
                )
            deadline = search.next_timeout()
            if deadline is not None and now >= deadline:
                search.handle_timeout(now)
        self.assertEqual(exaggerated, 80)
        assert search.result is not None
        self.assertLess(abs(search.result.capacity_bps / 50e6 - 1), 0.05)
        self.assertLess(search.result.loss_floor, 0.001)


class HostileTests(SynchronousTestCase):
    """The neighbor says what it likes."""

    def setUp(self) -> None:
        self.now = 100.0
        self.search = CapacitySearch(0.0, RTT, 1500, self.now)
        self.fastest_bps = 0.0

    def acknowledge_all_at_once(self, step: float, clock: float) -> None:
        """Acknowledge all that is sent within one ``step`` seconds, with a clock that is ``clock`` times as fast."""
        search = self.search
        while not search.is_over:
            rate_bps = search.pacing_rate_bps()
            self.fastest_bps = max(self.fastest_bps, rate_bps)
            sent_at, self.now = self.now, self.now + step
            search.on_ack(
                AckEvent(
                    self.now,
                    0,
                    step,
                    acked_bytes=int(rate_bps * step / 8),
                    sent_at=sent_at,
                    rtt=step,
                    receive_time=self.now * clock,
                )
            )
            deadline = search.next_timeout()
            if deadline is not None and self.now >= deadline:
                search.handle_timeout(self.now)

    def test_everything_is_acknowledged_at_once(self) -> None:
        """It ends after its time, and at its highest rate; the result says that it is no bound of the path."""
        began_at = self.now
        self.acknowledge_all_at_once(0.002, 1.0)
        self.assertEqual(self.fastest_bps, RATE_MAX_BPS)
        self.assertLess(self.now - began_at, SEARCH_SECONDS + SEARCH_RTTS * RTT + 0.01)
        assert self.search.result is not None
        self.assertTrue(self.search.result.is_least)
        self.assertLessEqual(self.search.result.capacity_bps, 1.01 * RATE_MAX_BPS)

    def test_a_clock_that_stands_still_or_runs(self) -> None:
        """A rate is counted by our own clock then."""
        for clock in (0.0, 0.01, 100.0, -1.0):
            self.setUp()
            self.acknowledge_all_at_once(0.002, clock)
            assert self.search.result is not None
            self.assertLessEqual(self.search.result.capacity_bps, 1.01 * RATE_MAX_BPS)

    def test_nothing_is_acknowledged(self) -> None:
        """It ends soon, having sent no more than its window at the rate it begins with."""
        deadline = self.search.next_timeout()
        assert deadline is not None
        self.assertLess(deadline - self.now, RTT + MISSING_ACK_MAX + 0.5)
        self.assertLessEqual(self.search.window_bytes(), RATE_START_BPS / 8)
        self.search.handle_timeout(deadline)
        self.assertTrue(self.search.is_over)
        self.assertIsNone(self.search.result)

    def test_acknowledgements_that_cease(self) -> None:
        for _ in range(200):
            sent_at, self.now = self.now, self.now + 0.002
            size = int(self.search.pacing_rate_bps() * 0.002 / 8)
            self.search.on_ack(
                AckEvent(self.now, 0, RTT, acked_bytes=size, sent_at=sent_at, rtt=RTT, receive_time=self.now)
            )
        self.assertFalse(self.search.is_over)
        deadline = self.search.next_timeout()
        assert deadline is not None
        self.assertLess(deadline - self.now, 1.5)
        self.search.handle_timeout(deadline)
        self.assertTrue(self.search.is_over)

    @given(st.lists(events, max_size=60))
    def test_whatever_is_said(self, said: list[tuple[float, dict[str, float]]]) -> None:
        """Nothing is divided by zero; rate, window and time stay within their bounds."""
        search, now = CapacitySearch(0.0, RTT, 1500, 0.0), 0.0
        for ago, fields in said:
            now += 0.03
            lost = [(now - ago, int(fields.get("lost_bytes", 0)))]
            search.on_ack(AckEvent(now, 0, sent_at=now - ago, lost_batches=lost, **fields))  # type: ignore[arg-type]
            self.assertTrue(0 < search.pacing_rate_bps() <= RATE_MAX_BPS)
            self.assertLessEqual(search.window_bytes(), RATE_MAX_BPS / 8 * (RTT_MAX + 0.3))
            deadline = search.next_timeout()
            self.assertLessEqual(deadline or 0.0, SEARCH_SECONDS_MAX + 0.1)
            if deadline is not None and now >= deadline:
                search.handle_timeout(now)
        if search.result is not None:
            self.assertGreater(search.result.rate_bps, 0)
            self.assertLess(search.result.loss_floor, 1)
