"""The ledger of what was sent, with both rules of loss; the receiver is spelled out as ACKs."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.ledger import LedgerSettings, SentLedger
from seamless.delivery.loss import (
    LOSS_DELAY_MAX,
    LOSS_DELAY_MIN,
    PACKET_THRESHOLD,
    SPURIOUS_LOSS_DELAY_MAX,
    SPURIOUS_LOSS_HALF_LIFE,
    SPURIOUS_LOSS_MARGIN,
    THRESHOLD_HALF_LIFE,
    LossRule,
    PacketLossRule,
    TimeLossRule,
)
from seamless.delivery.rtt import RttEstimator
from seamless.wire.ack import Ack

SETTINGS = LedgerSettings(
    initial_rtt=0.1, max_ack_delay=0.0, probe_timeout_max=2.0, lost_kept=3, keeps_lost_contents=True
)


def acked(*ranges: tuple[int, int]) -> Ack:
    """Return an ACK of these ranges, the newest first, without delay."""
    return Ack(ranges[0][1], 0.0, list(ranges))


class LedgerTests(SynchronousTestCase):
    def ledger(self, rule: LossRule, *sent_at: float) -> SentLedger[str]:
        """Return a ledger of as many packets as there are times, each of size 10."""
        ledger: SentLedger[str] = SentLedger(SETTINGS, rule, 0)
        for number, at in enumerate(sent_at):
            ledger.add(number, f"packet {number}", 10, at)
        return ledger

    def ack(self, ledger: SentLedger[str], ack: Ack, now: float) -> list[str]:
        """Take in an ACK; return the contents of what is lost then."""
        numbers, entries, late = ledger.take_acked(ack)
        if numbers and max(numbers) > ledger.largest_acked:
            ledger.largest_acked = max(numbers)
            ledger.sample(max(numbers), max(entries)[0], 0.0, now)
        ledger.take_spurious(late, now)
        return [entry[1] for entry in ledger.declare_lost(ledger.detect_lost(now), now)]

    def test_time_alone_counts_without_a_packet_threshold(self) -> None:
        ledger = self.ledger(TimeLossRule(), *(0.0,) * 100)
        self.assertEqual(self.ack(ledger, acked((1, 99)), 0.030), [])
        self.assertEqual(ledger.next_timeout(), LOSS_DELAY_MIN)
        self.assertEqual(ledger.detect_lost(LOSS_DELAY_MIN), [0])

    def test_what_is_spurious_is_counted_once_and_given_back(self) -> None:
        ledger = self.ledger(PacketLossRule(), *(0.0,) * 10)
        self.assertEqual(self.ack(ledger, acked((1, 9)), 0.01), ["packet 0"])
        _, _, late = ledger.take_acked(acked((0, 9)))
        self.assertEqual(ledger.take_spurious(late, 0.02), ["packet 0"])
        self.assertEqual(ledger.take_acked(acked((0, 9))), ([], [], []))
        self.assertEqual((ledger.counters.acked, ledger.counters.lost, ledger.counters.spurious), (9, 1, 1))

    def test_few_losses_are_remembered(self) -> None:
        ledger = self.ledger(PacketLossRule(), *(0.0,) * 20)
        self.assertEqual(len(self.ack(ledger, acked((10, 19)), 0.01)), 10)
        ledger.forget_lost(-inf)
        self.assertEqual(ledger.take_acked(acked((0, 19)))[2], [7, 8, 9])

    def test_the_probe_timeout_doubles_up_to_its_bound(self) -> None:
        ledger = self.ledger(TimeLossRule(), 0.0)
        timeouts = []
        for _ in range(10):
            timeouts.append(ledger.probe_timeout())
            self.assertFalse(ledger.probe_timeout_passed(timeouts[-1] - 0.001))
            self.assertTrue(ledger.probe_timeout_passed(timeouts[-1]))
        self.assertAlmostEqual(timeouts[0], 0.3)
        self.assertAlmostEqual(timeouts[1], 0.6)
        self.assertEqual(timeouts[-1], 2.0)
        self.ack(ledger, acked((0, 0)), 1.0)
        self.assertIsNone(ledger.next_timeout())
        self.assertEqual(ledger.pto_count, 0)

    def test_time_not_served_makes_nothing_older(self) -> None:
        ledger = self.ledger(TimeLossRule(), *(0.0,) * 5)
        self.assertEqual(self.ack(ledger, acked((1, 4)), 0.1), [])
        before = ledger.next_timeout()
        assert before is not None
        ledger.shift(5.0)
        self.assertEqual(ledger.next_timeout(), before + 5.0)
        self.assertEqual(ledger.detect_lost(before + 4.9), [])
        ledger.sample_from(5)
        ledger.sample(0, 0.0, 0.0, 9.0)
        self.assertAlmostEqual(ledger.rtt.latest_rtt, 0.1)

    def test_what_is_sent_again_is_young_again(self) -> None:
        ledger = self.ledger(TimeLossRule(), *(0.0,) * 5)
        self.ack(ledger, acked((1, 4)), 0.1)
        ledger.sent_again(0, 0.14)
        ledger.sent_again(4, 0.14)
        self.assertEqual(ledger.detect_lost(0.15), [])
        self.assertAlmostEqual(ledger.next_timeout() or 0.0, 0.14 + ledger.rule.loss_delay(ledger.rtt, 0.15))

    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20), st.booleans())
    def test_every_number_ends_once(self, ranges: list[tuple[int, int]], by_time: bool) -> None:
        """Whatever is acknowledged in whatever order, a number is acknowledged or lost, once."""
        ledger = self.ledger(TimeLossRule() if by_time else PacketLossRule(), *(0.001 * n for n in range(61)))
        lost: list[str] = []
        now = 0.1
        for first, last in ranges:
            now += 0.01
            lost += self.ack(ledger, acked((min(first, last), max(first, last))), now)
        counters = ledger.counters
        self.assertEqual(len(lost), len(set(lost)))
        self.assertEqual(counters.lost, len(lost))
        self.assertEqual(counters.acked + counters.lost + len(ledger.outstanding), 61)
        self.assertLessEqual(counters.spurious, counters.lost)
        self.assertEqual(ledger.in_flight, 10 * len(ledger.outstanding))
        self.assertEqual(len(ledger.clear(61)), 61 - counters.acked - counters.lost)
        self.assertEqual(ledger.in_flight, 0)


class RuleTests(SynchronousTestCase):
    def test_the_packet_threshold_falls_back_by_halves(self) -> None:
        rule = PacketLossRule()
        rule.spurious_loss(40, 0.01, 100.0)
        thresholds = [rule.packet_threshold(100.0 + step * THRESHOLD_HALF_LIFE) for step in range(6)]
        self.assertEqual(thresholds, [40, 20, 10, 5, PACKET_THRESHOLD, PACKET_THRESHOLD])

    def test_the_loss_delay_exceeds_what_was_late_and_falls_back(self) -> None:
        rule, rtt = TimeLossRule(), RttEstimator(0.01)
        self.assertEqual(rule.loss_delay(rtt, 0.0), LOSS_DELAY_MIN)
        rule.spurious_loss(1, 0.4, 0.0)
        self.assertAlmostEqual(rule.loss_delay(rtt, 0.0), 0.4 * SPURIOUS_LOSS_MARGIN)
        self.assertAlmostEqual(rule.loss_delay(rtt, SPURIOUS_LOSS_HALF_LIFE), 0.2 * SPURIOUS_LOSS_MARGIN)
        rule.spurious_loss(1, 40.0, 20.0)
        self.assertAlmostEqual(rule.loss_delay(rtt, 20.0), SPURIOUS_LOSS_DELAY_MAX)

    def test_the_loss_delay_is_bounded(self) -> None:
        rtt = RttEstimator(0.01)
        rtt.update(20.0, 0.0)
        self.assertEqual(TimeLossRule().loss_delay(rtt, 0.0), LOSS_DELAY_MAX)
