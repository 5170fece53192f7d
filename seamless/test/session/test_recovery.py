"""What is sent again, when, and what is not: dead relays, narrower paths, silence, and bulk that express overtakes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.loss import LOSS_DELAY_MIN
from seamless.session.limits import Limits
from seamless.test.session.pair import Pair


class RecoveryTests(SynchronousTestCase):
    """Two sessions and a wire that takes things with it."""

    def flowing(self, rate_pps: float = 20_000) -> tuple[Pair, tuple[int, int], tuple[int, int]]:
        """Return a pair in the middle of a transfer."""
        pair = Pair(room=100)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps = rate_pps
        here, there = pair.open()
        pair.a.write(here, pair.random.randbytes(12_000_000), pair.now)
        pair.run(0.4)
        self.assertLess(len(pair.b.received[there]), 11_000_000)
        return pair, here, there

    def test_dead_relay(self) -> None:
        """All that a relay held is lost; when the path has changed, it is sent again at once."""
        pair, here, there = self.flowing()
        pair.wires[1].down = True
        pair.run(0.1)
        self.assertGreater(pair.wires[1].lost, 1000)
        stood_at = len(pair.b.received[there])
        pair.wires[1].down = False
        for end in pair.ends.values():
            end.session.path_changed(1444, pair.now)
        begin = pair.now
        pair.run_until(lambda: len(pair.b.received[there]) > stood_at, 1)
        self.assertLess(pair.now - begin, 0.02, "one way, and no timeout")
        pair.run_until(lambda: pair.b.received[there] == pair.a.written[here], 3)
        self.assertEqual(pair.a.session.status(pair.now).records_spurious, 0)

    def test_dead_relay_that_nobody_noticed(self) -> None:
        """The path stays as it is: later acknowledgements show what is missing."""
        pair, here, there = self.flowing()
        pair.wires[1].down = True
        pair.run(0.02)
        pair.wires[1].down = False
        stood_at = len(pair.b.received[there])
        begin = pair.now
        pair.run_until(lambda: len(pair.b.received[there]) > stood_at + 1_000_000, 2)
        self.assertLess(pair.now - begin, LOSS_DELAY_MIN + 0.2)
        pair.run_until(lambda: pair.b.received[there] == pair.a.written[here], 3)
        status = pair.a.session.status(pair.now)
        self.assertGreater(status.records_lost, 10)
        self.assertEqual(status.records_spurious, 0)

    def test_tail_that_is_lost(self) -> None:
        """The last record has no later one to show its loss: a probe asks, and does not resend what it need not."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.run(1)
        pair.b.received[there] = bytearray()
        pair.wires[1].down = True
        pair.a.write(here, b"the last words", pair.now)
        pair.run(0.05)
        self.assertEqual(pair.wires[1].lost, 1)
        pair.wires[1].down = False
        begin = pair.now
        pair.run_until(lambda: pair.b.received[there] == b"the last words", 3)
        self.assertLess(pair.now - begin, 0.5)

    def test_path_changed_resends_only_what_is_old(self) -> None:
        """What was sent less than a round trip ago may well have gone the new way."""
        pair, _, _ = self.flowing()
        before = pair.a.session.status(pair.now)
        pair.a.session.path_changed(1444, pair.now)
        after = pair.a.session.status(pair.now)
        under_way = before.records_sent - before.records_acked
        self.assertGreater(under_way, 30)
        self.assertLess(after.records_lost, under_way // 2)

    def test_narrower_path(self) -> None:
        """Records that were cut for 1444 bytes are sent again in pieces that fit."""
        pair, here, there = self.flowing()
        pair.wires[1].down = True
        pair.run(0.05)
        pair.wires[1].down = False
        for end in pair.ends.values():
            end.session.path_changed(700, pair.now)
        pair.send()
        pair.run(0.1)
        express, bulk = pair.a.session.packets_to_send(100, pair.now)
        self.assertLessEqual(max(map(len, express + bulk)), 700)
        pair.run_until(lambda: pair.b.received[there] == pair.a.written[here], 3)

    def test_bulk_that_queues_behind_express_is_not_lost(self) -> None:
        """Bulk waits long in relays while later express records are acknowledged: nothing is resent."""
        pair = Pair(room=100)
        pair.accept_all()
        bulk, there = pair.open()
        shell, _ = pair.open()
        pair.run(0.3)
        pair.wires[1].rate_pps = 40
        pair.a.session.send(bulk, bytes(110_000), pair.now)
        pair.a.session.packets_to_send(0, pair.now)
        wire = pair.wires[1]
        wire.busy_until = pair.now
        pair.send()
        for turn in range(80):
            pair.at(pair.now - 1000 + turn * 0.025, lambda: pair.a.write(shell, b"k", pair.now))
        pair.run(4)
        status = pair.a.session.status(pair.now)
        self.assertEqual(len(pair.b.received[there]), 110_000)
        self.assertEqual((status.records_lost, status.records_spurious), (0, 0))

    def test_spurious_losses_are_counted_and_lengthen_the_loss_delay(self) -> None:
        """Lateness beyond all expectation is resent, counted, and soon expected."""
        pair = Pair(room=100)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps, wire.late, wire.lateness = 10_000, 0.01, 0.3
        here, there = pair.open()
        pair.a.write(here, bytes(20_000_000), pair.now)
        pair.run(1)
        early = pair.a.session.status(pair.now)
        self.assertGreater(early.records_spurious, 3)
        pair.run(1)
        later = pair.a.session.status(pair.now)
        self.assertLess(later.records_spurious - early.records_spurious, early.records_spurious)
        self.assertGreater(len(pair.b.received[there]), 5_000_000)

    def test_acknowledgements_are_few(self) -> None:
        """One about every 10 ms or 64 records, and no chatter when all is still."""
        pair, _, _ = self.flowing(25_000)
        before = pair.b.session.status(pair.now).records_sent
        pair.run(0.1)
        sent = pair.b.session.status(pair.now).records_sent - before
        self.assertTrue(4 <= sent <= 30, f"{sent} records")

    def test_quiet_when_idle(self) -> None:
        """Open and idle: a PING about every five seconds, and its answer."""
        pair = Pair()
        pair.accept_all()
        pair.open()
        pair.run(1)
        carried = pair.wires[1].carried + pair.wires[2].carried
        pair.run(100)
        self.assertTrue(20 <= pair.wires[1].carried + pair.wires[2].carried - carried <= 90)

    def test_still_after_bulk(self) -> None:
        """However a transfer ends, the silence after it is no reason to give up."""
        for records in range(60, 70):
            pair = Pair(limits=Limits(stream_window_initial=8 << 20, watch_interval=1000), room=100_000)
            pair.accept_all()
            here, there = pair.open()
            pair.run(0.5)
            pair.a.write(here, bytes(records * 15_590), pair.now)
            pair.run(90)
            self.assertEqual(len(pair.b.received[there]), records * 15_590)
            self.assertEqual(pair.a.lost() + pair.b.lost(), [])

    def test_keys_are_renewed_under_way(self) -> None:
        """A transfer over several rekeys loses nothing, and sends nothing twice."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        for turn in range(500):
            pair.at(turn, lambda: pair.a.write(here, bytes(20_000), pair.now))
        pair.run(501)
        self.assertEqual(len(pair.b.received[there]), 500 * 20_000)
        self.assertGreaterEqual(pair.a.session.association.counters.established, 4)
        self.assertEqual(pair.a.session.status(pair.now).records_lost, 0)
        self.assertEqual((pair.a.ups(), pair.b.ups()), (1, 1))
