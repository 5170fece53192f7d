"""Congestion control: what the RFCs compute, and what becomes of it before a bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import LocalProtocolError
from seamless.interfaces import AckEvent
from seamless.link.congestion import make_controller
from seamless.link.congestion.cubic import (
    BETA,
    CSS_ROUNDS,
    CUBE_SCALE,
    INITIAL_WINDOW_DATAGRAMS,
    MAX_WINDOW_BYTES,
    MIN_WINDOW_DATAGRAMS,
    PACING_GAIN,
    RENO_INCREASE,
    SLOW_START_PACING_GAIN,
    Cubic,
    SlowStartExit,
)
from seamless.link.congestion.off import OFF_WINDOW_MIN_INTERVAL, OFF_WINDOW_ROUNDS, Off
from seamless.test.link.bottleneck import DATAGRAM_BYTES, Bottleneck, Sender, lost

RTT = 0.02


def acked(acked_bytes: int, bytes_in_flight: int, sent_at: float, rtt: float, now: float) -> AckEvent:
    return AckEvent(now, bytes_in_flight, rtt, acked_bytes, sent_at, rtt)


class ChoiceTests(SynchronousTestCase):
    def test_by_name(self) -> None:
        self.assertIsInstance(make_controller("off", 1e6, DATAGRAM_BYTES, 0.0), Off)
        self.assertIsInstance(make_controller("cubic", None, DATAGRAM_BYTES, 0.0), Cubic)
        self.assertEqual(make_controller("off", 1e6, DATAGRAM_BYTES, 0.0).name, "off")
        self.assertEqual(make_controller("cubic", 1e6, DATAGRAM_BYTES, 0.0).name, "cubic")

    def test_unknown_name_and_missing_rate(self) -> None:
        self.assertRaises(LocalProtocolError, make_controller, "reno", 1e6, DATAGRAM_BYTES, 0.0)
        self.assertRaises(LocalProtocolError, make_controller, "off", None, DATAGRAM_BYTES, 0.0)


class OffTests(SynchronousTestCase):
    def test_rate_is_constant_whatever_gets_lost(self) -> None:
        off = Off(5e8)
        for number in range(100):
            off.on_ack(lost(number * 0.001, number * 0.001 + 0.02))
        self.assertEqual(off.pacing_rate_bps(), 5e8)

    def test_window_is_some_round_trips_of_the_rate(self) -> None:
        off = Off(8e6)
        self.assertEqual(off.window_bytes(), int(1e6 * OFF_WINDOW_MIN_INTERVAL))
        off.on_ack(acked(DATAGRAM_BYTES, 0, 0.0, 0.3, 0.3))
        self.assertEqual(off.window_bytes(), int(1e6 * 0.3 * OFF_WINDOW_ROUNDS))
        off.on_ack(acked(DATAGRAM_BYTES, 0, 0.3, 0.001, 0.301))
        self.assertEqual(off.window_bytes(), int(1e6 * OFF_WINDOW_MIN_INTERVAL))

    def test_bottleneck_is_sent_at_the_rate(self) -> None:
        sender = Sender(Off(1e7))
        path = Bottleneck([sender], rate_bps=2e7, rtt=RTT, buffer_bytes=50_000)
        path.run(5.0)
        self.assertGreater(sender.delivered_bytes * 8 / 5.0, 0.99e7)
        self.assertEqual(sender.lost, 0)


class CubicTestCase(SynchronousTestCase):
    """A controller whose window is always in use; acknowledgements come a datagram at a time, a window per RTT."""

    def setUp(self) -> None:
        self.cubic = Cubic(None, DATAGRAM_BYTES, 0.0)
        self.now = 0.0

    @property
    def window(self) -> float:
        """Return the window in datagrams."""
        return self.cubic.window_bytes() / DATAGRAM_BYTES

    def round_trips(self, seconds: float, rtt: float = RTT) -> Iterator[float]:
        """Have everything acknowledged for ``seconds``; yield the time after each round trip."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            window_bytes = self.cubic.window_bytes()
            count = window_bytes // DATAGRAM_BYTES
            for number in range(count):
                now = self.now + rtt * (number + 1) / count
                self.cubic.on_ack(acked(DATAGRAM_BYTES, window_bytes - DATAGRAM_BYTES, now - rtt, rtt, now))
            self.now += rtt
            yield self.now

    def acknowledge(self, seconds: float, rtt: float = RTT) -> None:
        for _ in self.round_trips(seconds, rtt):
            pass

    def lose(self) -> None:
        self.cubic.on_ack(lost(self.now, self.now + 1e-6))
        self.now += RTT


class SlowStartTests(CubicTestCase):
    def test_window_doubles_in_a_round_trip(self) -> None:
        self.assertEqual(self.window, INITIAL_WINDOW_DATAGRAMS)
        self.acknowledge(4 * RTT)
        self.assertEqual(self.window, INITIAL_WINDOW_DATAGRAMS * 16)

    def test_paced_at_twice_the_window_until_a_loss(self) -> None:
        self.acknowledge(RTT)
        per_round_bps = self.cubic.window_bytes() * 8 / RTT
        self.assertEqual(self.cubic.pacing_rate_bps(), SLOW_START_PACING_GAIN * per_round_bps)
        self.lose()
        per_round_bps = self.cubic.window_bytes() * 8 / RTT
        self.assertEqual(self.cubic.pacing_rate_bps(), PACING_GAIN * per_round_bps)

    def test_configured_rate_bounds_the_pacing(self) -> None:
        cubic = Cubic(1e6, DATAGRAM_BYTES, 0.0)
        cubic.on_ack(acked(DATAGRAM_BYTES, 10 * DATAGRAM_BYTES, 0.0, 0.001, 0.001))
        self.assertEqual(cubic.pacing_rate_bps(), 1e6)

    def test_window_is_bounded(self) -> None:
        self.cubic.on_ack(acked(1 << 40, 1 << 40, 0.0, RTT, RTT))
        self.assertEqual(self.cubic.window_bytes(), MAX_WINDOW_BYTES)


class SlowStartExitTests(SynchronousTestCase):
    """RFC 9406, with 16 samples in each round."""

    def setUp(self) -> None:
        self.slow_start = SlowStartExit()
        self.now = 0.0

    def round(self, rtt: float) -> bool:
        began_at, self.now = self.now, self.now + rtt
        return [self.slow_start.sees_queue(began_at, rtt, self.now + number * 1e-4) for number in range(16)][-1]

    def test_steady_rtt_goes_on(self) -> None:
        self.assertEqual([self.round(0.1) for _ in range(20)], [False] * 20)
        self.assertEqual(self.slow_start.growth_divisor, 1)

    def test_rise_of_an_eighth_slows_down_and_five_rounds_later_ends(self) -> None:
        self.round(0.1)
        self.round(0.1 * 9 / 8 + 1e-9)
        self.assertEqual(self.slow_start.growth_divisor, 4)
        verdicts = [self.round(0.12) for _ in range(CSS_ROUNDS)]
        self.assertEqual(verdicts, [False] * (CSS_ROUNDS - 1) + [True])

    def test_smaller_rise_is_noise(self) -> None:
        self.round(0.1)
        self.round(0.112)
        self.assertEqual(self.slow_start.growth_divisor, 1)

    def test_short_path_needs_four_milliseconds(self) -> None:
        self.round(0.001)
        self.round(0.0049)
        self.assertEqual(self.slow_start.growth_divisor, 1)
        self.round(0.0090)
        self.assertEqual(self.slow_start.growth_divisor, 4)

    def test_rise_that_passes_goes_back_to_slow_start(self) -> None:
        self.round(0.1)
        self.round(0.12)
        self.round(0.1)
        self.assertEqual(self.slow_start.growth_divisor, 1)
        self.assertEqual([self.round(0.1) for _ in range(20)], [False] * 20)


class LossTests(CubicTestCase):
    def test_window_shrinks_once_for_all_that_was_sent_before(self) -> None:
        self.acknowledge(4 * RTT)
        before = self.window
        for number in range(50):
            self.cubic.on_ack(lost(self.now - number * 1e-4, self.now + 0.001 + number * 1e-5))
        self.assertAlmostEqual(self.window / before, BETA, places=2)
        self.cubic.on_ack(lost(self.now + 0.01, self.now + 0.03))
        self.assertAlmostEqual(self.window / before, BETA * BETA, places=2)

    def test_no_growth_while_recovering(self) -> None:
        self.acknowledge(4 * RTT)
        self.cubic.on_ack(lost(self.now, self.now + 0.001))
        before = self.cubic.window_bytes()
        for number in range(100):
            self.cubic.on_ack(acked(DATAGRAM_BYTES, before, self.now, RTT, self.now + 0.001 + number * 1e-4))
        self.assertEqual(self.cubic.window_bytes(), before)

    def test_floor_of_two_datagrams(self) -> None:
        for _ in range(100):
            self.lose()
        self.assertEqual(self.window, MIN_WINDOW_DATAGRAMS)
        self.acknowledge(1.0)
        self.assertGreater(self.window, 2 * MIN_WINDOW_DATAGRAMS)


class GrowthTests(CubicTestCase):
    """Congestion avoidance against the formulas of RFC 9438, section 4; windows in datagrams."""

    def reach(self, window: float, rtt: float) -> None:
        while self.window < window:
            self.acknowledge(rtt, rtt)

    def test_long_path_follows_the_cubic(self) -> None:
        rtt = 0.1
        self.reach(1000, rtt)
        w_max = self.window
        self.lose()
        self.now += rtt
        k = ((w_max - self.window) / CUBE_SCALE) ** (1 / 3)
        began_at = self.now + rtt / self.window
        for now in self.round_trips(1.5 * k, rtt):
            expected = CUBE_SCALE * (now - began_at - k) ** 3 + w_max
            # It aims at the window of one RTT later and gets there within that RTT.
            self.assertLess(abs(self.window - expected), 0.5)
        self.assertGreater(self.window, w_max)

    def test_short_path_is_as_fast_as_reno(self) -> None:
        rtt = 0.002
        self.reach(100, rtt)
        before = self.window
        self.lose()
        start = self.window
        self.acknowledge(50 * rtt, rtt)
        self.assertLess(abs(self.window - (start + 50 * RENO_INCREASE)), 1.0)
        # Having reached the window of before the loss, it grows by one datagram per round trip, as Reno does.
        self.reach(before, rtt)
        start = self.window
        self.acknowledge(50 * rtt, rtt)
        self.assertLess(abs(self.window - (start + 50)), 1.0)

    def test_who_shrinks_before_being_back_makes_room(self) -> None:
        """The plateau after two losses in a row lies below the window before the second (fast convergence)."""
        rtt = 0.1
        self.reach(1000, rtt)
        self.lose()
        self.now += rtt
        self.acknowledge(rtt, rtt)
        second = self.window
        self.lose()
        self.now += rtt
        plateau = second * (1 + BETA) / 2
        k = ((plateau - self.window) / CUBE_SCALE) ** (1 / 3)
        self.acknowledge(k, rtt)
        self.assertLess(abs(self.window / plateau - 1), 0.02)

    def test_unused_window_does_not_grow(self) -> None:
        for prepare in (lambda: None, self.lose):
            prepare()
            before = self.cubic.window_bytes()
            for _ in range(1000):
                self.now += RTT
                self.cubic.on_ack(acked(DATAGRAM_BYTES, DATAGRAM_BYTES, self.now - RTT, RTT, self.now))
            self.assertEqual(self.cubic.window_bytes(), before)

    def test_time_in_which_the_window_was_unused_does_not_count(self) -> None:
        rtt = 0.1
        self.reach(1000, rtt)
        self.lose()
        self.now += rtt
        self.acknowledge(rtt, rtt)
        before = self.window
        for _ in range(600):
            self.now += rtt
            self.cubic.on_ack(acked(DATAGRAM_BYTES, DATAGRAM_BYTES, self.now - rtt, rtt, self.now))
        self.acknowledge(rtt, rtt)
        self.assertLess(self.window, 1.2 * before)


class BottleneckTests(SynchronousTestCase):
    RATE_BPS = 2e7
    BDP_BYTES = RATE_BPS * RTT / 8

    def cubic(self, rate_bps: float | None = None, starts_at: float = 0.0) -> Sender:
        return Sender(make_controller("cubic", rate_bps, DATAGRAM_BYTES, starts_at), starts_at)

    def test_path_is_full(self) -> None:
        sender = self.cubic()
        path = Bottleneck([sender], rate_bps=self.RATE_BPS, rtt=RTT, buffer_bytes=self.BDP_BYTES)
        path.run(10.0)
        self.assertGreater(sender.delivered_bytes * 8 / 10.0, 0.95 * self.RATE_BPS)
        self.assertGreater(sender.lost, 0)
        self.assertLess(sender.lost * DATAGRAM_BYTES, 0.01 * sender.delivered_bytes)

    def test_slow_start_ends_before_a_deep_buffer_is_full(self) -> None:
        sender = self.cubic()
        path = Bottleneck([sender], rate_bps=self.RATE_BPS, rtt=RTT, buffer_bytes=16 * self.BDP_BYTES)
        path.run(1.0)
        self.assertEqual(sender.lost, 0)
        self.assertGreater(sender.peak_window_bytes, 2 * self.BDP_BYTES)
        self.assertGreater(sender.delivered_bytes * 8 / 1.0, 0.8 * self.RATE_BPS)

    def test_slow_start_that_meets_a_shallow_buffer_loses_little(self) -> None:
        """Doubling until the buffer is full would lose what fits into it: 238 datagrams here."""
        sender = self.cubic()
        path = Bottleneck([sender], rate_bps=self.RATE_BPS, rtt=RTT, buffer_bytes=4 * self.BDP_BYTES)
        path.run(1.0)
        self.assertGreater(sender.lost, 0)
        self.assertLess(sender.lost, 60)

    def test_newcomer_gets_its_share(self) -> None:
        first, second = self.cubic(), self.cubic(starts_at=5.0)
        path = Bottleneck([first, second], rate_bps=self.RATE_BPS, rtt=RTT, buffer_bytes=self.BDP_BYTES)
        path.run(20.0)
        before = first.delivered_bytes, second.delivered_bytes
        path.run(40.0)
        rates_bps = [(sender.delivered_bytes - start) * 8 / 20.0 for sender, start in zip((first, second), before)]
        self.assertGreater(min(rates_bps), 0.4 * self.RATE_BPS)
        self.assertGreater(sum(rates_bps), 0.95 * self.RATE_BPS)

    def test_configured_rate_leaves_the_buffer_empty_and_the_window_small(self) -> None:
        sender = self.cubic(rate_bps=self.RATE_BPS / 2)
        path = Bottleneck([sender], rate_bps=self.RATE_BPS, rtt=RTT, buffer_bytes=self.BDP_BYTES)
        path.run(5.0)
        self.assertEqual(sender.lost, 0)
        self.assertGreater(sender.delivered_bytes * 8 / 5.0, 0.48 * self.RATE_BPS)
        self.assertLess(path.peak_backlog_bytes, 2 * DATAGRAM_BYTES)
        self.assertLess(sender.peak_window_bytes, 2 * self.BDP_BYTES)
