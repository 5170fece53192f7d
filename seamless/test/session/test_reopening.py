"""A peer that dies and comes back: streams that it gave no sign of are opened again, those that it had are reset."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_PEER_LOST,
    StreamAccepted,
    StreamClosed,
    StreamFinished,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.session.limits import Limits
from seamless.test.session.pair import Pair


class ReopeningTests(SynchronousTestCase):
    """Node 2 is restarted; node 1 has its keys of before, and does not know."""

    def restarted(self, limits: Limits | None = None) -> Pair:
        """Return a pair of which node 2 was just started again, long after a session with its former life."""
        pair = Pair(limits=limits)
        pair.accept_all()
        here, there = pair.open()
        pair.run(7)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "", pair.now)
        pair.run(1)
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamReset])
        self.restart(pair)
        return pair

    def restart(self, pair: Pair) -> None:
        """Start node 2 again; its applications begin anew, too."""
        pair.start(2)
        pair.b.received.clear()
        pair.b.events.clear()

    def test_the_first_stream_after_a_restart(self) -> None:
        """With its first bytes and its FIN: the application notices nothing."""
        pair = self.restarted()
        here, there = pair.open(b"10.1.9.2:80")
        pair.a.write(here, b"GET / HTTP/1.0\r\n\r\n", pair.now)
        pair.a.finish(here, pair.now)
        pair.run(0.04)
        self.assertGreater(pair.b.session.status(pair.now).fragments_refused, 0, "it was asked under keys of before")
        pair.run(2)
        self.assertEqual(pair.b.events[1], StreamOpened(there, b"10.1.9.2:80"))
        self.assertEqual(pair.b.received[there], pair.a.written[here])
        pair.b.write(there, b"200 OK", pair.now)
        pair.b.finish(there, pair.now)
        pair.run(1)
        self.assertEqual(pair.a.received[here], b"200 OK")
        self.assertEqual(pair.a.kinds(here), [StreamAccepted, StreamFinished, StreamClosed])
        self.assertEqual((pair.a.ups(), pair.a.session.streams_kept, pair.b.session.streams_kept), (2, 0, 0))

    def test_more_than_may_go_early(self) -> None:
        """What was sent and what still waits, in the order in which it was written, to the last byte."""
        pair = self.restarted()
        here, there = pair.open()
        for nbytes in (1, 5000, 70_000, 300_000):
            pair.a.write(here, pair.random.randbytes(nbytes), pair.now)
        self.assertIn(here, pair.a.blocked)
        pair.run_until(lambda: pair.b.received.get(there) == pair.a.written[here], 5)
        self.assertEqual(pair.a.kinds(here), [StreamAccepted])
        self.assertEqual(pair.a.session.status(pair.now).unsent_bytes, 0)

    def test_a_writer_that_waits_for_room(self) -> None:
        """There is more room in the new session than there was in the old one: it is told."""
        pair = self.restarted(Limits(send_buffer_max=1 << 20))
        others = [pair.open()[0] for _ in range(30)]
        for other in others:
            pair.a.session.send(other, bytes(40_000), pair.now)
        here, there = pair.open()
        self.assertLessEqual(pair.a.session.send(here, bytes(16_384), pair.now), 0)
        for other in others:
            pair.a.session.reset(other, RESET_PEER_LOST, "", pair.now)
        pair.run(3)
        self.assertEqual(len(pair.b.received[there]), 16_384)
        self.assertIn(StreamWritable(here), pair.a.events)

    def test_what_the_peer_had_is_reset(self) -> None:
        """Accepted, or a byte acknowledged, or an answer that came before its ACCEPT: not opened again."""
        for sign in ("accepted", "acknowledged", "answered"):
            pair = Pair()
            pair.run(7)
            if sign == "accepted":
                pair.accept_all()
            elif sign == "answered":
                pair.b.on_open = partial(self.answer, pair)
            here, there = pair.open()
            pair.a.write(here, b"?", pair.now)
            pair.run(7)
            self.assertEqual(pair.a.kinds(here), [StreamAccepted] if sign == "accepted" else [])
            self.restart(pair)
            pair.a.write(here, b"more", pair.now)
            pair.run(5)
            reset = pair.a.reset_of(here)
            self.assertEqual(reset and reset.code, RESET_PEER_LOST, sign)
            self.assertNotIn(there, pair.b.received)

    def answer(self, pair: Pair, event: StreamOpened) -> None:
        pair.b.write(event.stream, b"!", pair.now)

    def test_a_stream_that_its_own_application_reset_is_gone(self) -> None:
        pair = self.restarted()
        here, there = pair.open()
        pair.a.session.reset(here, RESET_BY_APPLICATION, "", pair.now)
        other, elsewhere = pair.open()
        pair.run(3)
        self.assertEqual((pair.b.kinds(there), pair.b.kinds(elsewhere)), ([], [StreamOpened]))
        self.assertEqual((pair.a.kinds(here), pair.a.kinds(other)), ([], [StreamAccepted]))

    def test_restarts_in_a_row(self) -> None:
        """The stream is carried on from life to life until one answers."""
        pair = self.restarted()
        pair.b.on_open = lambda event: None
        here, there = pair.open()
        for _ in range(3):
            pair.run_until(lambda: pair.b.kinds(there) == [StreamOpened])
            self.restart(pair)
            pair.a.session.send(here, b"x", pair.now)
        pair.accept_all()
        pair.run(20)
        self.assertEqual((pair.a.kinds(here), pair.b.received[there]), ([StreamAccepted], b"xxx"))


class RestartAtAnyTime(SynchronousTestCase):
    """The peer dies at any moment of a stream's first second, on wires that lose."""

    @settings(max_examples=100, deadline=None)
    @given(
        seed=st.integers(0, 1 << 32),
        died_after=st.floats(0, 0.5),
        dead_for=st.floats(0, 1.0),
        accepts_after=st.floats(0, 0.3),
        sizes=st.lists(st.sampled_from([1, 300, 5_000]), max_size=3),
        loss=st.sampled_from([0.0, 0.1]),
    )
    def test_whole_or_reset(
        self, seed: int, died_after: float, dead_for: float, accepts_after: float, sizes: list[int], loss: float
    ) -> None:
        """A stream is reset only if its peer had it; else its bytes arrive, once and whole, in one life."""
        pair = Pair(seed)
        pair.open()
        pair.run(7)
        for wire in pair.wires.values():
            wire.loss = loss
        pair.b.on_open = lambda event: pair.at(
            pair.now - 1000 + accepts_after, partial(self.accept, pair, pair.b.incarnation, event)
        )
        before = pair.b.session.status(pair.now).records_received
        here, there = pair.open()
        for nbytes in sizes:
            pair.a.write(here, pair.random.randbytes(nbytes), pair.now)
        pair.run(died_after)
        pair.wires[2].down = pair.wires[1].down = True
        pair.run(dead_for)
        pair.wires[2].down = pair.wires[1].down = False
        had_something = pair.b.session.status(pair.now).records_received > before
        pair.start(2)
        pair.b.received.clear()
        pair.a.write(here, b"!", pair.now)
        pair.run_until(lambda: bool(pair.a.reset_of(here)) or pair.b.received.get(there) == pair.a.written[here], 29)
        pair.run(2)
        if pair.a.reset_of(here) is None:
            self.assertEqual(pair.a.kinds(here), [StreamAccepted])
        else:
            self.assertTrue(had_something, "the peer had given no sign of it")
            self.assertNotIn(there, pair.b.received)

    def accept(self, pair: Pair, incarnation: int, event: StreamOpened) -> None:
        """Accept a stream, unless the process that was asked is dead."""
        if pair.b.incarnation == incarnation:
            pair.b.session.accept_stream(event.stream, pair.now)
