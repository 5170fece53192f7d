"""The parts of ``congestion auto``'s model of a path, each by itself, and what a neighbor may lie about."""

from __future__ import annotations

from math import isfinite
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.rate import BELIEVED_MIN, ROUND_MIN, DeliveryRate, RateSample
from seamless.interfaces import AckEvent
from seamless.link.congestion.aggregation import AckAggregation
from seamless.link.congestion.auto import Auto
from seamless.link.congestion.bandwidth import Bandwidth
from seamless.link.congestion.loss_floor import FLOOR_MAX, LossFloor, Phase
from seamless.link.congestion.queue_delay import QueueDelay

BATCH = 15_000
RTT = 0.02


class Sending:
    """A sender of a batch every ``interval`` whose acknowledgements come by a plan."""

    def __init__(self) -> None:
        self.rates = DeliveryRate()
        self.samples: list[RateSample] = []

    def acked(self, sent_at: float, now: float, received_at: float | None = None, acked_bytes: int = BATCH) -> None:
        sample = self.rates.on_ack(acked_bytes, 0, BATCH, sent_at, received_at, True, RTT, now)
        if sample is not None:
            self.samples.append(sample)

    def run(self, count: int, interval: float, ack_at: list[float], received_at: list[float] | None = None) -> None:
        events = [(number * interval, False, number) for number in range(count)]
        newest = {at: number for number, at in enumerate(ack_at)}
        events += [(at, True, number) for at, number in newest.items()]
        for now, is_ack, number in sorted(events):
            if is_ack:
                times = None if received_at is None else received_at[number]
                self.acked(number * interval, now, times, BATCH * ack_at.count(now))
            else:
                self.rates.on_sent(BATCH, False, now)


class DeliveryRateTests(SynchronousTestCase):
    RATE_BPS = BATCH * 8 / 0.002

    def test_a_steady_path_is_as_fast_as_it_is_sent(self) -> None:
        sending = Sending()
        sending.run(200, 0.002, [number * 0.002 + RTT for number in range(200)])
        self.assertGreater(len(sending.samples), 5)
        for sample in sending.samples[1:]:
            self.assertAlmostEqual(sample.delivered_bps / self.RATE_BPS, 1.0, places=3)
        self.assertFalse(any(sample.is_application_limited for sample in sending.samples[2:]))

    def test_a_bottleneck_spreads_acknowledgements(self) -> None:
        sending = Sending()
        sending.run(100, 0.002, [number * 0.004 + RTT for number in range(100)])
        self.assertAlmostEqual(sending.samples[-1].delivered_bps / self.RATE_BPS, 0.5, places=2)
        self.assertGreater(sending.samples[-1].sent_bps, 0.95 * self.RATE_BPS)

    def test_acknowledgements_that_come_together_are_no_fast_path(self) -> None:
        """Every 20 ms all at once: the receiver's times say when it came, and without them the sending bounds it."""
        ack_at = [(int((number * 0.004 + RTT) / 0.02) + 1) * 0.02 for number in range(200)]
        received_at = [7000 + number * 0.004 for number in range(200)]
        for times in (None, received_at):
            sending = Sending()
            sending.run(200, 0.004, ack_at, times)
            rates = [sample.delivered_bps / (self.RATE_BPS / 2) for sample in sending.samples[2:]]
            self.assertLess(max(rates), 1.01 if times else 1.05)
            self.assertGreater(min(rates), 0.85)

    def test_rounds_last_a_while_on_short_paths(self) -> None:
        sending = Sending()
        sending.run(500, 0.001, [number * 0.001 + 0.0005 for number in range(500)])
        self.assertLessEqual(len(sending.samples), 0.5 / ROUND_MIN)
        self.assertGreater(len(sending.samples), 0.4 / ROUND_MIN)

    def test_application_limited_until_the_bubble_has_passed(self) -> None:
        rates = DeliveryRate()
        rates.on_sent(BATCH, False, 0.0)
        self.assertTrue(rates.is_application_limited, "it was idle before")
        rates.on_ack(BATCH, 0, BATCH, 0.0, None, True, RTT, RTT)
        rates.on_ack(BATCH, 0, BATCH, 0.0, None, True, RTT, RTT)
        self.assertFalse(rates.is_application_limited)
        rates.on_sent(3 * BATCH, True, RTT)
        self.assertTrue(rates.is_application_limited)
        rates.on_ack(3 * BATCH, 0, BATCH, RTT, None, True, RTT, 2 * RTT)
        self.assertTrue(rates.is_application_limited)
        rates.on_ack(BATCH, 0, 0, RTT, None, True, RTT, 2 * RTT)
        self.assertFalse(rates.is_application_limited)

    def test_a_stalled_round_says_so(self) -> None:
        sending = Sending()
        sending.run(40, 0.002, [number * 0.002 + RTT + (0.3 if number > 20 else 0.0) for number in range(40)])
        self.assertTrue(any(sample.is_stalled for sample in sending.samples))
        self.assertFalse(sending.samples[0].is_stalled)


class LyingReceiverTests(SynchronousTestCase):
    """Whatever times a neighbor reports, no rate beyond what it acknowledged in that time, but once by LATE_MAX."""

    def delivered(self, received_at: list[float]) -> None:
        """Send twice as fast as acknowledgements come, and compare with the true rate of these."""
        sending = Sending()
        count = len(received_at)
        sending.run(count, 0.002, [number * 0.004 + RTT for number in range(count)], received_at)
        true_bps = BATCH * 8 / 0.004
        rates = [sample.delivered_bps / true_bps for sample in sending.samples]
        self.assertGreater(len(rates), 3)
        self.assertLess(max(rates), 1 / BELIEVED_MIN + 0.01)
        self.assertLess(rates[-1], 1.1, "a round of some 0.5 s, which a lie of LATE_MAX hardly shortens")

    def test_standing_still(self) -> None:
        self.delivered([5.0] * 400)

    def test_running_slow(self) -> None:
        self.delivered([number * 0.001 for number in range(400)])

    def test_going_back(self) -> None:
        self.delivered([1e6 - number for number in range(400)])

    def test_jumping_by_hours(self) -> None:
        random = Random(3)
        self.delivered([number * 0.004 + random.choice((0.0, 3600.0, -7200.0)) for number in range(400)])


class QueueDelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.delay = QueueDelay()

    def round(self, *rtts: float, variation: float = 1.0) -> None:
        for rtt in rtts:
            self.delay.sample(rtt, variation, 0.0)
        self.delay.end_round()

    def test_a_queue_counts_when_all_of_a_round_show_it(self) -> None:
        for _ in range(5):
            self.round(0.010, 0.010)
        self.round(0.010, 0.030, 0.025)
        self.assertEqual(self.delay.standing, 0.0)
        self.round(0.016, 0.030, 0.025)
        self.assertAlmostEqual(self.delay.standing, 0.006)

    def test_a_queue_on_the_way_back_is_none(self) -> None:
        for _ in range(5):
            self.round(0.010)
        self.round(0.030, variation=0.001)
        self.assertAlmostEqual(self.delay.standing, 0.001)

    def test_one_early_sample_is_not_the_path(self) -> None:
        for _ in range(10):
            self.round(0.010, 0.011)
        self.round(0.006, 0.011)
        self.assertGreater(self.delay.min_rtt, 0.0085)
        for _ in range(20):
            self.round(0.006, 0.007)
        self.assertAlmostEqual(self.delay.min_rtt, 0.006, places=4)

    def test_what_stays_belongs_to_the_path(self) -> None:
        for _ in range(5):
            self.round(0.010)
        self.delay.mark()
        self.round(0.040)
        self.delay.rebase(1.0)
        self.assertEqual(self.delay.min_rtt, 0.040)


class LossFloorTests(SynchronousTestCase):
    def phase(self, packets: int, lost: int) -> Phase:
        return Phase(0.0, (packets - lost) * 1500, lost * 1500)

    def test_few_losses_are_chance(self) -> None:
        losses = LossFloor(1500, 0.0)
        self.assertFalse(losses.has_excess(self.phase(100, 5)))
        self.assertFalse(losses.has_excess(self.phase(5000, 45)))
        self.assertTrue(losses.has_excess(self.phase(100, 30)))

    def test_what_is_lost_while_sending_slower_is_the_floor(self) -> None:
        losses = LossFloor(1500, 0.0)
        losses.set(self.phase(1000, 200))
        self.assertAlmostEqual(losses.floor, 0.2)
        self.assertFalse(losses.has_excess(self.phase(1000, 215)))
        self.assertTrue(losses.has_excess(self.phase(1000, 300)))

    def test_bursts_are_seen_and_allowed_for(self) -> None:
        random, losses = Random(1), LossFloor(1500, 0.0)
        losses.set(self.phase(1000, 50))
        for _ in range(200):
            bursts = sum(random.random() < 0.05 / 8 for _ in range(100))
            losses.on_ack(0, 0.0, [(0.0, 8 * 1500)] * bursts, bursts)
            losses.learn(self.phase(100, 8 * bursts))
        self.assertFalse(losses.has_excess(self.phase(200, 26)))
        self.assertLess(abs(losses.floor - 0.05), 0.02)
        self.assertGreater(losses.telling_packets(0.05), 500)

    def test_datagrams_count_where_they_were_sent(self) -> None:
        losses = LossFloor(1500, 0.0)
        losses.begin_phase(1.0)
        losses.on_ack(3000, 1.5, [(0.5, 1500), (1.2, 4500)])
        self.assertEqual((losses.phase.acked, losses.phase.lost), (3000, 4500))
        self.assertEqual((losses.previous.acked, losses.previous.lost), (0, 1500))

    def test_the_floor_is_bounded(self) -> None:
        losses = LossFloor(1500, 0.0)
        losses.set(self.phase(100, 100))
        self.assertEqual(losses.floor, FLOOR_MAX)
        losses.set(Phase(0.0))
        self.assertEqual(losses.floor, FLOOR_MAX)


class BandwidthTests(SynchronousTestCase):
    def sample(self, delivered: float, settled: float | None = None, limited: bool = False) -> RateSample:
        return RateSample(delivered, settled or delivered, delivered, 100_000, limited, False)

    def test_the_most_of_two_cycles(self) -> None:
        bandwidth = Bandwidth()
        for rate in (5e6, 9e6, 7e6):
            bandwidth.update(self.sample(rate), 0.0)
        bandwidth.advance()
        bandwidth.update(self.sample(6e6), 0.0)
        self.assertEqual(bandwidth.bottleneck_bps(0.0), 9e6)
        bandwidth.advance()
        self.assertEqual(bandwidth.bottleneck_bps(0.0), 6e6)

    def test_application_limited_only_if_higher(self) -> None:
        bandwidth = Bandwidth()
        bandwidth.update(self.sample(5e6), 0.0)
        bandwidth.advance()
        bandwidth.update(self.sample(1e6, limited=True), 0.0)
        bandwidth.advance()
        self.assertEqual(bandwidth.bottleneck_bps(0.0), 5e6)
        bandwidth.update(self.sample(6e6, limited=True), 0.0)
        self.assertEqual(bandwidth.bottleneck_bps(0.0), 6e6)

    def test_the_floor_has_used_the_bottleneck_too(self) -> None:
        bandwidth = Bandwidth()
        bandwidth.update(self.sample(8.4e6, 10e6), 0.0)
        self.assertEqual(bandwidth.bottleneck_bps(0.0), 8.4e6)
        self.assertEqual(bandwidth.bottleneck_bps(0.2), 10e6, "and not 10.5: no more reached it")


class AggregationTests(SynchronousTestCase):
    def test_what_comes_at_once_beyond_the_rate(self) -> None:
        aggregation = AckAggregation()
        for number in range(50):
            aggregation.on_ack(20_000, 8e6, number * 0.02)
        self.assertAlmostEqual(aggregation.extra_acked, 20_000, delta=100)


class HostileNeighborTests(SynchronousTestCase):
    """The controller by itself: numbers of any kind, and no exception, no infinity, no rate out of nothing."""

    def test_any_times(self) -> None:
        random = Random(7)
        auto = Auto(None, None, 1500, 0.0)
        now, sent_at, sent_bytes = 0.0, 0.0, 0
        highest = 0.0
        for _ in range(20_000):
            now += random.choice((0.0, 1e-6, 0.001, 0.01))
            window = auto.window_bytes()
            auto.on_sent(window, random.random() < 0.3, now)
            sent_at, sent_bytes = now, sent_bytes + 1500
            now += random.choice((0.0, 0.001, 0.02))
            rtt = random.choice((None, 1e-9, 0.001, 0.02, 3.0))
            receive_time = random.choice((None, 0.0, now, -now, 1e12, random.random() * 1e6))
            lost = random.choice((0, 0, 1500))
            batches = [(sent_at, lost)] if lost else []
            auto.on_ack(
                AckEvent(
                    now,
                    random.choice((0, window)),
                    0.02,
                    1500,
                    sent_at,
                    rtt,
                    receive_time,
                    lost,
                    lost // 1500,
                    batches,
                    delay_variation=random.choice((0.0, 1e-3, 1e9)),
                )
            )
            deadline = auto.next_timeout()
            if deadline is not None and deadline <= now:
                auto.handle_timeout(now)
            self.assertTrue(isfinite(auto.pacing_rate_bps()) and auto.pacing_rate_bps() > 0)
            self.assertGreater(auto.window_bytes(), 0)
            highest = max(highest, auto.path_estimate().bottleneck_bps or 0.0)
        self.assertLess(highest, 20e6, "a datagram each time, and some hundred times in a second")

    def test_everything_at_once(self) -> None:
        """All of a second is acknowledged in one: the rate is what was delivered in that second."""
        auto = Auto(None, None, 1500, 0.0)
        now = 0.0
        for _ in range(30):
            sent = 0
            while sent < 100_000:
                auto.on_sent(min(sent + BATCH, 100_000), False, now)
                sent += BATCH
                now += 0.005
            now += 1.0
            auto.on_ack(AckEvent(now, 0, 0.02, 100_000, now - 1.0, 0.02, 17.0))
        self.assertLess(auto.path_estimate().bottleneck_bps or 0.0, 1.1 * 100_000 * 8)
