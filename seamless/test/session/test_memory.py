"""What a peer can make a session keep: bounded in bytes and in objects, as Python counts them, and given back."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import RESET_BY_APPLICATION, RESET_PEER_LOST, StreamOpened
from seamless.session.limits import Limits
from seamless.session.streams import STREAM_MEMORY_BYTES
from seamless.test.session.test_hostile import Villain
from seamless.wire.session_frames import EARLY_WINDOW_BYTES, encode_open, encode_reset

HELD_MAX = 4 << 20
UNOPENED = range(2, 20_002, 2)
"""Streams of the villain, who is node 1, beside the good one."""


def traced(call: Callable[[], object]) -> tuple[int, int]:
    """Return (bytes that ``call`` left allocated, the most that were allocated meanwhile)."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before, peak - before
    finally:
        tracemalloc.stop()


class HeldTests(SynchronousTestCase):
    """Bytes that come before those, or the OPEN, that they follow."""

    def held(self, villain: Villain) -> int:
        """Return what the victim says that it holds."""
        return villain.pair.b.session.status(villain.pair.now).held_bytes

    def say_pieces(self, villain: Villain, streams: range, pieces: int, size: int) -> None:
        """Send so many pieces of every stream, none of which touches another, until the session is over."""
        data = bytes(range(256)) * (size // 256 + 1)
        for stream in streams:
            offsets = range(1, 1 + pieces * (size + 1), size + 1)
            for begin in range(0, pieces, 200):
                frames = [
                    villain.stream_frame(offset, data[:size], stream=stream) for offset in offsets[begin : begin + 200]
                ]
                villain.say(b"".join(frames))
            if villain.pair.b.lost():
                return

    def test_objects_are_counted(self) -> None:
        """What is counted covers what Python takes, for few and many pieces, short and long, and not ten times over."""
        for streams, pieces, size in [
            (3000, 1, 2),
            (500, 6, 2),
            (300, 11, 2),
            (20, 700, 2),
            (1, 5400, 2),
            (60, 3, 5000),
        ]:
            villain = Villain()
            shape = f"{streams} streams of {pieces} pieces of {size} bytes"
            left, _ = traced(lambda: self.say_pieces(villain, UNOPENED[:streams], pieces, size))  # noqa: B023
            counted = self.held(villain)
            self.assertEqual(villain.pair.b.lost(), [], shape)
            self.assertLess(left, 1.05 * counted + 20_000, shape)
            self.assertGreater(left, counted / 6, shape)

    def test_streams_that_were_never_opened(self) -> None:
        """Bytes and objects stay within the bound; who goes beyond it loses the session, and all is given back."""
        for pieces, size in [(1, 2), (100, 2), (1000, 2), (3, 5000)]:
            villain = Villain(Limits(held_max=HELD_MAX))
            left, peak = traced(lambda: self.say_pieces(villain, UNOPENED, pieces, size))  # noqa: B023
            self.assertEqual(["gaps" in reason for reason in villain.pair.b.lost()], [True], f"{pieces} of {size}")
            self.assertLess(peak, 1.2 * HELD_MAX)
            self.assertLess(left, 200_000)
            self.assertEqual(self.held(villain), 0)
            self.assertEqual(villain.pair.b.session.streams_kept, 0)

    def test_streams_that_were_opened(self) -> None:
        """The bound is for all streams of the session together."""
        villain = Villain(Limits(held_max=HELD_MAX))
        for stream in UNOPENED[:1000]:
            villain.say(encode_open(stream, 0, b"x"))
        _, peak = traced(lambda: self.say_pieces(villain, UNOPENED[:1000], 1000, 2))
        self.assertEqual(["gaps" in reason for reason in villain.pair.b.lost()], [True])
        self.assertLess(peak, 1.2 * HELD_MAX)

    def test_given_back_in_time(self) -> None:
        """Within the bound, and then silence: streams whose OPEN never comes are forgotten; the session goes on."""
        villain = Villain()
        pair = villain.pair
        self.say_pieces(villain, UNOPENED[:200], 20, 2)
        self.assertGreater(self.held(villain), 1_000_000)
        villain.hand_over()
        pair.run(70)
        self.assertEqual((self.held(villain), pair.b.session.streams_kept), (0, 1))
        self.assertEqual(pair.b.lost(), [])
        villain.say(encode_open(UNOPENED[0], 0, b"x"), number=1 << 20)
        self.assertEqual(pair.b.kinds((1, UNOPENED[0])), [], "too late")

    def test_given_back_with_the_bytes_that_were_missing(self) -> None:
        villain = Villain()
        for offset in (2, 5, 3, 9):
            villain.say(villain.stream_frame(offset, b"xy"))
        self.assertGreater(self.held(villain), 0)
        villain.say(villain.stream_frame(0, bytes(12)))
        self.assertEqual(self.held(villain), 0)
        self.assertEqual(len(villain.pair.b.received[villain.there]), 12)

    def test_given_back_with_the_stream(self) -> None:
        """By a reset of either end, also of one that was never opened."""
        villain = Villain()
        villain.say(villain.stream_frame(5, b"xy"))
        villain.pair.b.session.reset(villain.there, RESET_BY_APPLICATION, "", villain.pair.now)
        self.assertEqual(self.held(villain), 0)
        villain.say(villain.stream_frame(5, b"xy", stream=2) + encode_reset(2, RESET_PEER_LOST, 7, ""))
        self.assertEqual(self.held(villain), STREAM_MEMORY_BYTES, "it waits for our own RESET to arrive")

    def test_no_more_than_an_opener_may_send(self) -> None:
        """Before its OPEN a stream brings 16 KiB, whatever its window will be."""
        for beyond in (0, 1):
            villain = Villain()
            villain.say(villain.stream_frame(EARLY_WINDOW_BYTES - 1 + beyond, b"x", stream=2))
            self.assertEqual(len(villain.pair.b.lost()), beyond)
            villain = Villain()
            villain.say(encode_reset(2, RESET_BY_APPLICATION, EARLY_WINDOW_BYTES + beyond, ""))
            self.assertEqual(len(villain.pair.b.lost()), beyond)

    def test_overtaken_opens_work(self) -> None:
        """Early bytes of an honest peer count only until the OPEN is there."""
        villain = Villain()
        villain.say(villain.stream_frame(0, b"early", stream=2))
        self.assertGreater(self.held(villain), 0)
        villain.say(encode_open(2, 0, b"x"))
        self.assertEqual(self.held(villain), 0)
        self.assertEqual(villain.pair.b.kinds((1, 2)), [StreamOpened])
        self.assertEqual(villain.pair.b.received[1, 2], b"early")
