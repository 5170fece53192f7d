"""Receive times in ACKs: a link's round trip time is the path's, whatever processes let wait and neighbors claim."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link.path_delay import BASE_INTERVAL, RTT_MIN, PathDelay, PathDelaySample
from seamless.test.link.pair import LinkPair, packet
from seamless.wire.ack import Ack

RTT = 0.010
OFFSET = 12_345.0
"""Seconds that the neighbor's clock is ahead."""
HOUR = 3600.0
times = st.floats(0, 1e13)


class SampleTests(SynchronousTestCase):
    """One neighbor; its ACKs are spelled out."""

    def setUp(self) -> None:
        self.path = PathDelay()
        self.now = 1000.0

    def sample(
        self,
        there: float = RTT / 2,
        back: float = RTT / 2,
        waits: float = 0.0,
        own_wait: float = 0.0,
        jump: float = 0.0,
    ) -> PathDelaySample:
        """Send one datagram and take in its ACK; the neighbor's clock is wrong by ``jump`` more."""
        sent_at = self.now
        received_at = sent_at + there + waits + back
        self.now = received_at + own_wait
        ack = Ack(0, waits, [(0, 0)], sent_at + there + OFFSET + jump)
        return self.path.sample(ack, sent_at, self.now, received_at)

    def assert_sample(self, sample: PathDelaySample, rtt: float, variation: float) -> None:
        self.assertAlmostEqual(sample.rtt, rtt, places=6)
        self.assertAlmostEqual(sample.variation, variation, places=6)

    def test_what_processes_let_wait_is_left_out(self) -> None:
        self.assert_sample(self.sample(), RTT, 0.0)
        self.assert_sample(self.sample(waits=0.020, own_wait=0.030), RTT, 0.0)

    def test_only_a_queue_on_the_way_there_is_delay_variation(self) -> None:
        self.sample()
        self.assert_sample(self.sample(there=0.012), 0.017, 0.007)
        self.assert_sample(self.sample(back=0.012), 0.017, 0.0)

    def test_a_path_that_became_longer_is_believed_after_a_while(self) -> None:
        self.sample()
        self.assertAlmostEqual(self.sample(there=0.012).variation, 0.007, places=6)
        self.now += BASE_INTERVAL
        self.sample(there=0.012)
        self.now += BASE_INTERVAL
        self.assertAlmostEqual(self.sample(there=0.012).variation, 0.0, places=6)

    def test_a_clock_that_jumps_begins_a_new_period(self) -> None:
        for jump in (HOUR, -HOUR):
            self.path = PathDelay()
            self.sample()
            self.assertLessEqual(self.sample(jump=jump).variation, RTT + 1e-6)
            self.assert_sample(self.sample(jump=jump), RTT, 0.0)
            self.assert_sample(self.sample(there=0.012, jump=jump), 0.017, 0.007)

    def test_an_ack_that_claims_to_have_waited_too_long(self) -> None:
        ack = Ack(0, HOUR, [(0, 0)], OFFSET)
        self.assertAlmostEqual(self.path.sample(ack, self.now, self.now + RTT, self.now + RTT).rtt, RTT)

    def test_a_receive_time_of_ours_that_cannot_be(self) -> None:
        """The wall clock was set while the ACK waited in our socket."""
        ack = Ack(0, 0.0, [(0, 0)], OFFSET)
        self.assertAlmostEqual(self.path.sample(ack, self.now, self.now + RTT, self.now - HOUR).rtt, RTT)

    @given(st.lists(st.tuples(times, times, st.floats(0, 100), st.floats(-100, 100)), min_size=1, max_size=20))
    def test_whatever_is_claimed(self, claims: list[tuple[float, float, float, float]]) -> None:
        """No sample is longer than it took, negative, or zero."""
        path, now = PathDelay(), 1000.0
        for delay, received_at, took, waited in claims:
            sent_at, now = now, now + took
            sample = path.sample(Ack(0, delay, [(0, 0)], received_at), sent_at, now, min(now, now - waited))
            self.assertLessEqual(RTT_MIN, sample.rtt)
            self.assertLessEqual(sample.rtt, max(took, RTT_MIN) + 1e-9)
            self.assertLessEqual(0.0, sample.variation)
            self.assertLessEqual(sample.variation, sample.rtt)


class LinkTests(SynchronousTestCase):
    """Two links on a wire of 5 ms each way."""

    def run_with(self, waits: tuple[float, float]) -> LinkPair:
        pair = LinkPair()
        for end, each in zip(pair.ends, waits):
            end.waits = each
        for number in range(100):
            pair.ends[0].put(packet(number))
            pair.run(0.02)
        self.assertEqual(len(pair.ends[1].packets), 100)
        return pair

    def test_waits_of_processes_are_no_round_trip_time(self) -> None:
        for waits in ((0.0, 0.0), (0.007, 0.0), (0.0, 0.007)):
            status = self.run_with(waits).ends[0].status
            self.assertAlmostEqual(status.rtt, RTT, places=4)

    def test_waits_of_processes_are_no_loss(self) -> None:
        """The probe timeout allows for them: nothing is sent again."""
        status = self.run_with((0.012, 0.012)).ends[0].status
        # The first ones, before there was anything to learn from.
        self.assertLess(status.probes, 10)
        self.assertEqual(status.lost, status.spurious)
