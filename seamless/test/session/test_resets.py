"""Resets under tight windows, and resets that follow one another: the session goes on, and both ends hear the end."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_PEER_LOST,
    RESET_SHUTDOWN,
    StreamKey,
    StreamOpened,
    StreamReset,
)
from seamless.session.limits import Limits
from seamless.session.scheduler import Scheduler
from seamless.session.send_half import SendHalf
from seamless.test.session.pair import End, Pair
from seamless.wire.session_frames import SESSION_WINDOW_INITIAL_BYTES
from seamless.wire.traffic_class import CLASS_EXPRESS

Ends = tuple[StreamKey, StreamKey]


class FullSessionWindowTests(SynchronousTestCase):
    """Streams whose own windows are open, in a session whose window is not."""

    def setUp(self) -> None:
        """Use up the session's window with a hundred streams, the news of a greater one being lost on their way."""
        self.pair = Pair(
            limits=Limits(
                stream_window_initial=4 << 20,
                session_window_max=1 << 20,
                unread_max=4 << 30,
                send_buffer_max=64 << 20,
            )
        )
        self.pair.accept_all()
        self.streams = [self.pair.open() for _ in range(100)]
        self.pair.run(1)
        self.pair.wires[2].down = True
        self.pair.room = 4000
        for here, _ in self.streams:
            self.pair.a.session.send(here, bytes(60_000), self.pair.now)
        self.pair.run(0.1)
        status = self.pair.a.session.status(self.pair.now)
        self.assertEqual(status.send_window_bytes, 0, "the session's window is used up")
        self.assertGreater(status.unsent_bytes, 1 << 20, "the window that the peer has opened meanwhile")
        self.assertGreater(self.pair.wires[2].lost, 0)

    def others_arrive(self, aborted: int) -> None:
        """All streams but the first ``aborted`` bring what was written, and the session has lived."""
        pair = self.pair
        pair.run(0.1)
        pair.wires[2].down = False
        pair.run(6)
        self.assertEqual((pair.a.lost(), pair.b.lost()), ([], []))
        for _, there in self.streams[aborted:]:
            self.assertEqual(len(pair.b.received.get(there, b"")), 60_000)
            self.assertEqual(pair.b.kinds(there), [StreamOpened])
        for _, there in self.streams[:aborted]:
            self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamReset])
        self.assertEqual(pair.a.session.status(pair.now).unsent_bytes, 0)

    def test_one_aborted_upload(self) -> None:
        """Its RESET waits until the session's window lets the bytes before it go, and they all arrive."""
        here, there = self.streams[0] = self.pair.open()
        self.pair.a.session.send(here, bytes(3 << 20), self.pair.now)
        self.pair.run(0.2)
        self.pair.a.session.reset(here, RESET_BY_APPLICATION, "", self.pair.now)
        self.others_arrive(1)
        self.assertEqual(len(self.pair.b.received[there]), 3 << 20)

    def test_all_aborted(self) -> None:
        for here, _ in self.streams:
            self.pair.a.session.reset(here, RESET_BY_APPLICATION, "", self.pair.now)
        self.others_arrive(100)

    def test_what_is_announced_is_nobody_elses(self) -> None:
        """Half the window is free, and a reset stream has as much to send: the others leave it its part."""
        pair = Pair(limits=Limits(stream_window_initial=4 << 20, session_window_max=1 << 20, send_buffer_max=64 << 20))
        pair.accept_all()
        (first, at_first), *others = (pair.open() for _ in range(20))
        pair.run(1)
        pair.wires[1].down = True
        size = SESSION_WINDOW_INITIAL_BYTES // 2
        pair.a.session.send(first, bytes(size), pair.now)
        pair.a.session.reset(first, RESET_BY_APPLICATION, "", pair.now)
        for here, _ in others:
            pair.a.session.send(here, bytes(size), pair.now)
        pair.run(0.2)
        self.assertGreater(pair.wires[1].lost, 100)
        pair.wires[1].down = False
        pair.run(10)
        self.assertEqual((pair.a.lost(), pair.b.lost()), ([], []))
        self.assertEqual(len(pair.b.received[at_first]), size)
        self.assertEqual(pair.b.kinds(at_first), [StreamOpened, StreamReset])
        for _, there in others:
            self.assertEqual(len(pair.b.received[there]), size)

    def test_a_fin_needs_no_window(self) -> None:
        """An end of file without bytes does not wait behind streams that have some."""
        scheduler = Scheduler(1 << 20)
        scheduler.limit = 0
        blocked, finished = SendHalf(2, scheduler), SendHalf(4, scheduler)
        scheduler.write(blocked, b"bytes", 0.0)
        finished.finishing = True
        scheduler.wake(finished, 0.0)
        self.assertTrue(scheduler.wants(CLASS_EXPRESS))
        piece = scheduler.next_piece(CLASS_EXPRESS, 1000, 0.0)
        self.assertIsNotNone(piece)
        self.assertEqual(piece and (piece.half.stream, len(piece.data), piece.fin), (4, 0, True))
        self.assertFalse(scheduler.wants(CLASS_EXPRESS))


class HarsherResetTests(SynchronousTestCase):
    """An orderly RESET has announced bytes; then comes one that says that they will never come."""

    def announced(self, limits: Limits | None = None) -> tuple[Pair, Ends]:
        """Reset a stream with bytes under way that do not arrive; its RESET does."""
        pair = Pair(limits=limits or Limits())
        pair.accept_all()
        here, there = pair.open()
        pair.run(1)
        pair.wires[1].down = True
        pair.a.session.send(here, bytes(300_000), pair.now)
        pair.run(0.002)
        self.assertGreater(pair.wires[1].lost, 100)
        pair.wires[1].down = False
        pair.wires[1].rate_pps = 0.1
        pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.kinds(there), [StreamOpened], "the reset waits for the bytes before it")
        return pair, (here, there)

    def test_a_harsher_reset_replaces_the_milder(self) -> None:
        pair, (here, there) = self.announced()
        pair.a.session.reset(here, RESET_SHUTDOWN, "the daemon is stopping", pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.reset_of(there), StreamReset(there, RESET_SHUTDOWN, "the daemon is stopping"))
        pair.wires[1].rate_pps = 0
        pair.run(1)
        self.check_nothing_left(pair)

    def test_a_milder_reset_does_not_replace_the_harsher(self) -> None:
        pair, (here, there) = self.announced()
        pair.a.session.reset(here, RESET_SHUTDOWN, "the daemon is stopping", pair.now)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "again", pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.reset_of(there), StreamReset(there, RESET_SHUTDOWN, "the daemon is stopping"))

    def test_an_equal_reset_changes_nothing(self) -> None:
        """The bytes are waited for still, and arrive."""
        pair, (here, there) = self.announced()
        pair.a.session.reset(here, RESET_BY_APPLICATION, "again", pair.now)
        pair.wires[1].rate_pps = 0
        pair.run(2)
        self.assertEqual(pair.b.reset_of(there), StreamReset(there, RESET_BY_APPLICATION, "RST"))
        self.assertEqual(len(pair.b.received[there]), 300_000)

    def test_give_up_after_an_orderly_reset(self) -> None:
        """The end that gave up has forgotten the bytes; the other one, which did not give up, is told at once."""
        pair, (_, there) = self.announced(Limits(give_up=3.0, watch_interval=1000.0))
        pair.wires[2].down = True
        pair.run_until(lambda: bool(pair.a.lost()), 10)
        self.assertEqual(pair.b.lost(), [], "it had nothing to wait for")
        for wire in pair.wires.values():
            wire.down, wire.rate_pps = False, 0
        pair.open()
        pair.run(1)
        reset = pair.b.reset_of(there)
        self.assertEqual(reset and (reset.code, reset.reason), (RESET_PEER_LOST, "the peer gave up: it had no answer"))
        self.assertEqual(pair.b.session.streams_kept, 1)
        status = pair.b.session.status(pair.now)
        self.assertEqual((status.held_bytes, status.unread_bytes), (0, 0))

    def check_nothing_left(self, pair: Pair) -> None:
        """No stream, and the same windows at both ends."""
        self.assertEqual((pair.a.lost(), pair.b.lost()), ([], []))
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)
        a, b = (end.session.status(pair.now) for end in pair.ends.values())
        self.assertEqual(a.send_window_bytes, b.receive_window_bytes)
        self.assertEqual((a.unsent_bytes, b.held_bytes, b.granted_bytes), (0, 0, 0))


class BothGaveUpTests(SynchronousTestCase):
    """An outage that is longer than both ends wait."""

    def test_nothing_is_kept(self) -> None:
        """Streams in all states; after the outage neither end can report their ends to the other."""
        pair = Pair()
        pair.accept_all()
        streams = [pair.open() for _ in range(200)]
        pair.run(1)
        for wire in pair.wires.values():
            wire.down = True
        for position, (here, there) in enumerate(streams):
            for end, key in ((pair.a, here), (pair.b, there)):
                self.begin_to_end(pair, end, key, position)
        pair.run(80)
        self.assertEqual((pair.a.lost(), pair.b.lost()), (["no answer for 30 s"], ["no answer for 30 s"]))
        self.assertEqual((pair.a.session.streams_kept, pair.b.session.streams_kept), (0, 0))
        self.assertGreater(pair.wires[1].lost, 10)
        self.check_both_are_silent(pair)
        for wire in pair.wires.values():
            wire.down = False
        here, there = pair.open()
        pair.a.write(here, b"as if nothing had been", pair.now)
        pair.run(1)
        self.assertEqual(pair.b.received[there], b"as if nothing had been")
        self.assertEqual((pair.a.session.streams_kept, pair.b.session.streams_kept), (1, 1))

    def begin_to_end(self, pair: Pair, end: End, key: StreamKey, position: int) -> None:
        """Write, and then finish, reset or neither."""
        end.session.send(key, bytes(1000), pair.now)
        if position % 3 == 0:
            end.session.finish(key, pair.now)
        elif position % 3 == 1:
            end.session.reset(key, RESET_BY_APPLICATION, "", pair.now)

    def check_both_are_silent(self, pair: Pair) -> None:
        """Who has given up sends nothing."""
        lost = [wire.lost for wire in pair.wires.values()]
        pair.run(600)
        self.assertEqual([wire.lost for wire in pair.wires.values()], lost)
