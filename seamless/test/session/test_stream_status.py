"""What a stream says that it waits for: each cause made real, and named."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import StreamKey
from seamless.session.limits import Limits
from seamless.session.stream_status import StreamStatus
from seamless.test.session.pair import Pair

MUCH = 40_000_000


class HoldTests(SynchronousTestCase):
    def start(self, room: int = 100, limits: Limits | None = None) -> Pair:
        pair = Pair(room=room, limits=limits or Limits())
        pair.accept_all()
        return pair

    def status(self, pair: Pair, stream: StreamKey) -> StreamStatus:
        found = pair.a.session.stream_status(stream)
        assert found is not None
        return found

    def test_an_idle_stream_waits_for_nothing(self) -> None:
        pair = self.start()
        here, there = pair.open()
        pair.a.write(here, b"hello", pair.now)
        pair.run(0.5)
        self.assertEqual(pair.b.received[there], b"hello")
        status = self.status(pair, here)
        self.assertEqual((status.accepted, status.held_by, status.unsent_bytes, status.in_flight_bytes),
                         (True, None, 0, 0))  # fmt: skip

    def test_a_reader_who_has_stopped(self) -> None:
        pair = self.start()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.a.write(here, bytes(MUCH), pair.now)
        pair.run(2.0)
        status = self.status(pair, here)
        self.assertEqual((status.held_by, status.window_bytes), ("window", 0))
        self.assertGreater(status.unsent_bytes, 0)
        other = pair.b.session.stream_status(there)
        assert other is not None
        self.assertGreater(other.unread_bytes, 500_000)

    def test_a_slow_link(self) -> None:
        pair = self.start()
        pair.wires[1].rate_pps = 100
        pair.room = 2
        here, _ = pair.open()
        pair.a.write(here, bytes(MUCH), pair.now)
        pair.run(0.5)
        self.assertEqual(self.status(pair, here).held_by, "link")

    def test_a_peer_that_does_not_answer(self) -> None:
        pair = Pair(room=100)
        here = pair.a.session.open_stream(b"target", pair.now)
        pair.run(0.5)
        status = self.status(pair, here)
        self.assertEqual((status.accepted, status.held_by), (False, "opening"))

    def test_no_path(self) -> None:
        pair = self.start()
        here, _ = pair.open()
        pair.a.session.path_changed(None, pair.now)
        pair.a.write(here, bytes(1000), pair.now)
        self.assertEqual(self.status(pair, here).held_by, "path")

    def test_loss_is_counted(self) -> None:
        pair = self.start()
        here, there = pair.open()
        for wire in pair.wires.values():
            wire.loss = 0.02
        pair.a.write(here, bytes(3_000_000), pair.now)
        pair.run_until(lambda: len(pair.b.received.get(there, b"")) == 3_000_000, 30)
        self.assertGreater(pair.wires[1].lost, 10)
        self.assertGreater(self.status(pair, here).resends, 10)

    def test_a_stream_that_is_over(self) -> None:
        pair = self.start()
        here, _ = pair.open()
        pair.a.session.reset(here, 0, "enough", pair.now)
        pair.run(1.0)
        self.assertIsNone(pair.a.session.stream_status(here))
