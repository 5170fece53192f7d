"""RTT estimates (RFC 9002, section 5)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.rtt import RttEstimator


class RttTests(SynchronousTestCase):
    def test_first_sample_replaces_the_guess(self) -> None:
        rtt = RttEstimator(0.1)
        rtt.update(0.010, 0.0)
        self.assertEqual((rtt.smoothed_rtt, rtt.rttvar, rtt.min_rtt), (0.010, 0.005, 0.010))

    def test_ack_delay_is_taken_off_but_not_below_the_minimum(self) -> None:
        rtt = RttEstimator(0.1)
        rtt.update(0.010, 0.0)
        rtt.update(0.020, 0.008)
        self.assertAlmostEqual(rtt.smoothed_rtt, 0.875 * 0.010 + 0.125 * 0.012)
        before = rtt.smoothed_rtt
        rtt.update(0.012, 0.008)
        self.assertAlmostEqual(rtt.smoothed_rtt, 0.875 * before + 0.125 * 0.012)

    def test_recent_minimum_starts_anew(self) -> None:
        rtt = RttEstimator(0.1)
        rtt.update(0.010, 0.0)
        for _ in range(50):
            rtt.update(0.030, 0.0)
        self.assertEqual(rtt.min_rtt, 0.010)
        rtt.restart_min_rtt()
        self.assertGreater(rtt.min_rtt, 0.029)

    def test_the_probe_timeout_waits_for_what_varies(self) -> None:
        rtt = RttEstimator(0.1)
        rtt.update(0.010, 0.0)
        self.assertAlmostEqual(rtt.probe_timeout(0.025), 0.010 + 4 * 0.005 + 0.025)
        for _ in range(100):
            rtt.update(0.010, 0.0)
        self.assertAlmostEqual(rtt.probe_timeout(0.025), 0.010 + 0.001 + 0.025)
