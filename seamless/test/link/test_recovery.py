"""Loss detection of one hop (RFC 9002): what is lost, when, and what was only late."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.link.recovery import Acknowledged, Control, Recovery
from seamless.test.work import lines_run
from seamless.wire.ack import Ack
from seamless.wire.link_frames import Ping

OVERHEAD = 56


def acked(*ranges: tuple[int, int]) -> Ack:
    """Return an ACK of these ranges, the newest first, without delay."""
    return Ack(ranges[0][1], 0.0, list(ranges))


class RecoveryTests(SynchronousTestCase):
    """One sender; the receiver is spelled out as ACKs."""

    def setUp(self) -> None:
        self.recovery = Recovery(max_ack_delay=0.001)

    def send(self, count: int, now: float) -> list[bytes]:
        first = self.recovery.next_number
        packets = [b"%06d" % (first + index) for index in range(count)]
        self.recovery.sent(first, packets, OVERHEAD, now)
        return packets

    def ack(self, now: float, *ranges: tuple[int, int]) -> Acknowledged:
        return self.recovery.receive_ack(acked(*ranges), now, now)

    def test_all_acknowledged(self) -> None:
        self.send(10, 0.0)
        self.assertEqual(self.recovery.bytes_in_flight, 10 * (6 + OVERHEAD))
        result = self.ack(0.010, (0, 9))
        self.assertEqual((result.packets, result.lost), (10, []))
        self.assertEqual(self.recovery.bytes_in_flight, 0)
        self.assertIsNone(self.recovery.next_timeout())
        self.assertAlmostEqual(self.recovery.rtt.smoothed_rtt, 0.010)

    def test_lost_by_packet_threshold(self) -> None:
        """RFC 9002, section 6.1.1: three later ones were acknowledged."""
        packets = self.send(10, 0.0)
        self.assertEqual(self.ack(0.010, (1, 2)).lost, [])
        self.assertEqual(self.ack(0.0101, (1, 3)).lost, [packets[0]])

    def test_lost_by_time_threshold(self) -> None:
        """RFC 9002, section 6.1.2: with fewer later ones, after 9/8 of a round trip."""
        packets = self.send(3, 0.0)
        self.assertEqual(self.ack(0.010, (1, 2)).lost, [])
        due = self.recovery.next_timeout()
        assert due is not None
        self.assertAlmostEqual(due, 0.01125)
        self.assertEqual(self.recovery.handle_timeout(due).lost, [packets[0]])
        self.assertEqual(self.recovery.counters.lost, 1)

    def test_tail_is_probed(self) -> None:
        """RFC 9002, section 6.2: without any acknowledgement, the oldest go out again, and then with backoff."""
        self.send(1, 0.0)
        self.ack(0.010, (0, 0))
        packets = self.send(3, 1.0)
        first = self.recovery.next_timeout()
        assert first is not None
        self.assertAlmostEqual(first - 1.0, 0.010 + 4 * 0.005 + 0.001)
        result = self.recovery.handle_timeout(first)
        self.assertEqual(result.lost, packets[:2])
        self.assertEqual(result.lost_bytes, 0, "a probe is no sign of congestion")
        second = self.recovery.next_timeout()
        assert second is not None
        self.assertAlmostEqual(second - 1.0, 2 * (first - 1.0))

    def test_a_spurious_loss_is_counted_and_teaches(self) -> None:
        self.send(20, 0.0)
        self.assertEqual(len(self.ack(0.010, (10, 15), (0, 4)).lost), 5)
        self.ack(0.011, (0, 19))
        self.assertEqual(self.recovery.counters.spurious, 5)
        self.send(20, 1.0)
        self.assertEqual(self.ack(1.010, (28, 30), (20, 24)).lost, [], "a distance seen before is not a loss")

    def test_a_lesson_wears_off(self) -> None:
        self.send(20, 0.0)
        self.ack(0.010, (10, 15), (0, 4))
        self.ack(0.011, (0, 15))
        now = 1.0
        for _ in range(10):
            now += 20.0
            first = self.recovery.next_number
            self.send(5, now)
            self.ack(now + 0.010, (first + 1, first + 4))
            self.ack(now + 0.020, (first + 1, first + 4))
        first = self.recovery.next_number
        packets = self.send(5, now + 20)
        self.assertIn(packets[0], self.ack(now + 20.010, (first + 1, first + 4)).lost)

    def test_ack_of_the_unsent_is_an_attack(self) -> None:
        self.send(3, 0.0)
        self.assertRaises(RemoteProtocolError, self.ack, 0.010, (0, 3))

    def test_a_repeated_ack_changes_nothing(self) -> None:
        self.send(10, 0.0)
        self.ack(0.010, (5, 9))
        smoothed = self.recovery.rtt.smoothed_rtt
        result = self.ack(0.5, (5, 9))
        self.assertEqual((result.packets, self.recovery.rtt.smoothed_rtt), (0, smoothed))

    def test_controls_come_back(self) -> None:
        control = Control((Ping(),), 41)
        self.recovery.sent_control(0, control, 60, 0.0)
        self.assertEqual(self.ack(0.010, (0, 0)).controls, [control])

    def test_giving_up_returns_everything(self) -> None:
        packets = self.send(5, 0.0)
        self.ack(0.010, (0, 0))
        self.assertEqual(self.recovery.take_outstanding(), packets[1:])
        self.assertEqual(self.recovery.bytes_in_flight, 0)
        self.assertIsNone(self.recovery.next_timeout())

    def test_an_ack_that_ends_at_a_bare_ack_says_when_the_newest_was_sent(self) -> None:
        """A bare ACK has a number of its own and no entry: with traffic both ways ACKs often end at one."""
        self.send(10, 1.0)
        self.recovery.next_number += 1
        result = self.ack(1.02, (0, 10))
        self.assertEqual(result.packets, 10)
        self.assertEqual(result.newest_sent_at, 1.0)
        self.assertIsNone(result.rtt)

    def test_an_ack_of_what_an_earlier_one_left_out_says_when_that_was_sent(self) -> None:
        self.send(1, 1.0)
        self.send(1, 1.001)
        self.send(1, 1.002)
        self.assertAlmostEqual(self.ack(1.022, (2, 2)).rtt or 0.0, 0.02)
        result = self.ack(1.0225, (2, 2), (0, 1))
        self.assertEqual(result.packets, 2)
        self.assertEqual(result.newest_sent_at, 1.001)
        self.assertIsNone(result.rtt)

    def test_bytes_in_flight_never_drift(self) -> None:
        """Whatever is acknowledged, lost or probed, nothing in flight means zero bytes."""
        now = 0.0
        for round_number in range(50):
            first = self.recovery.next_number
            self.send(7, now)
            now += 0.010
            gap = first + round_number % 7
            ranges = [(gap + 1, first + 6)] if gap < first + 6 else []
            ranges += [(first, gap - 1)] if gap > first else []
            self.ack(now, *ranges)
            deadline = self.recovery.next_timeout()
            while deadline is not None:
                now = max(now, deadline)
                self.recovery.handle_timeout(now)
                deadline = self.recovery.next_timeout()
        self.assertEqual(self.recovery.bytes_in_flight, 0)
        self.assertEqual(self.recovery.counters.acked + self.recovery.counters.lost, 350)
        self.assertEqual(self.recovery.counters.lost, 50)


class AckWorkTests(SynchronousTestCase):
    """A neighbor that acknowledges as it likes costs what it says anew, counted in lines of Python."""

    def hostile(self, packets: int) -> Recovery:
        """Return a sender with half of ``packets`` outstanding or lost, in single numbers, and as many that follow."""
        recovery = Recovery(max_ack_delay=0.001)
        recovery.sent(0, [b"packet"] * packets, OVERHEAD, 0.0)
        for last in range(0, packets, 512):
            ranges = [(number, number) for number in range(last + 510, last - 1, -2)]
            recovery.receive_ack(acked(*ranges), 0.01, 0.01)
        recovery.sent(packets, [b"packet"] * packets, OVERHEAD, 0.01)
        self.assertEqual(recovery.counters.acked, packets // 2)
        self.assertGreater(recovery.counters.lost, packets // 2 - 4)
        return recovery

    def test_an_ack_of_256_ranges_said_again(self) -> None:
        """As much as its own ranges cost, with a few hundred and with thousands of lost packets remembered."""
        costs = []
        for packets in (1024, 8192):
            recovery = self.hostile(packets)
            again = acked(*((number, number) for number in range(packets - 2, packets - 514, -2)))
            costs.append(lines_run(lambda: recovery.receive_ack(again, 0.01, 0.01)))  # noqa: B023
        self.assertLess(costs[1], 1.1 * costs[0])
        self.assertLess(costs[1], 256 * 5)

    def test_a_long_range_said_again(self) -> None:
        recovery = self.hostile(1024)
        recovery.receive_ack(acked((1024, 2047)), 0.02, 0.02)
        self.assertEqual(recovery.counters.acked, 512 + 1024)
        self.assertLess(lines_run(lambda: recovery.receive_ack(acked((1024, 2047)), 0.02, 0.02)), 100)
