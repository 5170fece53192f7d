"""What an ACK costs, counted in lines of Python: as much as it says anew, whatever is under way or repeated."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.session.recovery import Recovery
from seamless.test.session.test_hostile import Villain
from seamless.test.work import lines_run
from seamless.wire.ack import Ack, encode_ack
from seamless.wire.ranges import RangeSet
from seamless.wire.session_frames import ACK
from seamless.wire.traffic_class import CLASS_BULK


class AckWorkTests(SynchronousTestCase):
    """A peer that acknowledges as it likes."""

    def under_way(self, records: int) -> Recovery:
        """Return what is left of so many records when all but the first are acknowledged."""
        recovery = Recovery(0)
        for _ in range(records):
            recovery.sent(recovery.take_number(), CLASS_BULK, (), 0.0)
        self.assertTrue(recovery.receive_ack(Ack(records - 1, 0.0, [(1, records - 1)]), 0.1))
        self.assertEqual(recovery.acked_records, records - 1)
        return recovery

    def test_repeated_acks(self) -> None:
        """Hundreds of thousands of records in one range, said again, while the oldest is kept under way."""
        costs = []
        for records in (100, 20_000):
            recovery = self.under_way(records)
            again = Ack(records - 1, 0.0, [(1, records - 1)])
            costs.append(lines_run(lambda: recovery.receive_ack(again, 0.1)))  # noqa: B023
            self.assertTrue(recovery.anything_under_way)
        self.assertEqual(costs[0], costs[1])

    def test_a_second_ack_ends_the_session(self) -> None:
        """And our own sender never puts two into a record: both ends of all other tests would end theirs."""
        villain = Villain()
        ranges = RangeSet()
        ranges.add(0, 0)
        frame = bytes((ACK,)) + encode_ack(ranges, 0.0)
        villain.say(frame)
        self.assertEqual(villain.pair.b.lost(), [])
        villain.say(frame + frame)
        self.assertEqual(["two ACKs" in reason for reason in villain.pair.b.lost()], [True])
