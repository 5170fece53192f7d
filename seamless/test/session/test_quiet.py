"""Seeded schedules of streams that are reset and given up, with tight windows: afterwards nothing is left of them."""

from __future__ import annotations

import random
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_PROTOCOL,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    StreamClosed,
    StreamKey,
    StreamOpened,
    StreamReset,
)
from seamless.session.limits import Limits
from seamless.test.session.pair import End, Pair
from seamless.wire.session_frames import SESSION_WINDOW_INITIAL_BYTES

SCHEDULES = 120
GROUPS = 6
SESSION_WINDOW = 200_000
GIVE_UP = 3.0
CODES = [RESET_BY_APPLICATION, RESET_BY_APPLICATION, RESET_REFUSED, RESET_SHUTDOWN, RESET_PROTOCOL]


class Turmoil:
    """One run, drawn from its seed: what both applications do to forty streams, and what the wires do meanwhile."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"turmoil {seed}")
        limits = Limits(
            stream_window_initial=self.random.choice([20_000, 65_536]),
            session_window_max=SESSION_WINDOW,
            unread_max=self.random.choice([100_000, 4 << 20]),
            give_up=GIVE_UP,
            watch_interval=1.0,
        )
        self.pair = Pair(seed, limits, room=24)
        self.pair.accept_all()
        self.finished: set[tuple[int, StreamKey]] = set()
        self.resets = 0
        self.harsh_after_mild = 0
        self.use_up_the_first_window()
        for wire in self.pair.wires.values():
            wire.delay = self.random.choice([0.0005, 0.010])
            wire.loss = self.random.choice([0, 0.01, 0.1])
            wire.late = self.random.choice([0, 0.2])
            wire.duplication = self.random.choice([0, 0.1])
            wire.rate_pps = self.random.choice([0, 400, 4000])
        begin = self.pair.now - 1000
        for _ in range(40):
            self.pair.at(begin + self.random.random() * 2, partial(self.open, self.random.choice([1, 2])))
        for _ in range(400):
            self.pair.at(begin + self.random.random() * 4, self.act)
        if self.random.random() < 0.5:
            self.pair.at(begin + 1 + self.random.random(), self.cut)

    def use_up_the_first_window(self) -> None:
        """Move as much as makes the session's windows as tight as the limits say, both ways."""
        pair = self.pair
        here, there = pair.open()
        data = bytes(SESSION_WINDOW_INITIAL_BYTES + SESSION_WINDOW)
        for end, key in ((pair.a, here), (pair.b, there)):
            end.write(key, data, pair.now)
            end.finish(key, pair.now)
        pair.run_until(lambda: pair.a.session.streams_kept + pair.b.session.streams_kept == 0)
        for end in pair.ends.values():
            end.known.clear()

    def open(self, name: int) -> None:
        """Open a stream from one end."""
        end = self.pair.ends[name]
        end.known.add(end.session.open_stream(b"10.1.9.2:22", self.pair.now))

    def living(self, end: End) -> list[StreamKey]:
        """Return the streams of which an application has not heard the end."""
        over = {event.stream for event in end.events if isinstance(event, (StreamReset, StreamClosed))}
        return sorted(end.known - over)

    def act(self) -> None:
        """Do something to a stream at one end."""
        end = self.pair.ends[self.random.choice([1, 2])]
        streams = self.living(end)
        if not streams:
            return
        key = self.random.choice(streams)
        what = self.random.choice(["write", "write", "write", "stop", "resume", "finish", "reset"])
        if what == "write" and (end.name, key) not in self.finished:
            end.write(key, self.random.randbytes(self.random.choice([1, 500, 20_000, 100_000])), self.pair.now)
        elif what == "stop":
            end.stopped.add(key)
        elif what == "resume":
            end.resume(key, self.pair.now)
        elif what == "finish":
            self.finished.add((end.name, key))
            end.finish(key, self.pair.now)
        elif what == "reset":
            self.reset(end, key)

    def reset(self, end: End, key: StreamKey) -> None:
        """Reset a stream at one end, and now and then once more, with another code."""
        self.resets += 1
        first, second = self.random.choice(CODES), self.random.choice(CODES)
        end.known.discard(key)
        end.waiting.pop(key, None)
        end.session.reset(key, first, "", self.pair.now)
        if self.random.random() < 0.3:
            self.harsh_after_mild += 1
            later = self.pair.now - 1000 + self.random.random() * 0.2
            self.pair.at(later, lambda: end.session.reset(key, second, "", self.pair.now))

    def cut(self) -> None:
        """Cut one wire or both for less or more time than the ends wait."""
        for wire in self.random.choice([[1], [2], [1, 2], [1, 2]]):
            self.pair.wires[wire].down = True
        self.pair.at(self.pair.now - 1000 + self.random.choice([0.5, 2, 5, 8]), self.mend)

    def mend(self) -> None:
        """Mend both wires."""
        for wire in self.pair.wires.values():
            wire.down = False

    def end_all(self) -> None:
        """Let every reader read, and end every stream that is left, at one end or at both."""
        for end in self.pair.ends.values():
            for key in list(end.stopped):
                end.resume(key, self.pair.now)
            for key in self.living(end):
                if self.random.random() < 0.2:
                    self.reset(end, key)
                else:
                    end.finish(key, self.pair.now)
        for wire in self.pair.wires.values():
            wire.rate_pps = 0


class QuietTests(SynchronousTestCase):
    """Sixscore schedules."""

    def run_group(self, group: int) -> None:
        """Run every ``GROUPS``-th schedule."""
        given_up = resets = twice = 0
        for seed in range(group, SCHEDULES, GROUPS):
            turmoil = Turmoil(seed)
            pair = turmoil.pair
            pair.run_until(lambda pair=pair: not pair.calls_left)  # type: ignore[misc]
            turmoil.mend()
            for _ in range(20):
                turmoil.end_all()
                pair.run(2)
                pair.check_prefix()
            self.check_quiet(pair, seed)
            self.check_alive(pair, seed)
            given_up += len(pair.a.lost()) + len(pair.b.lost())
            resets += turmoil.resets
            twice += turmoil.harsh_after_mild
        self.assertGreater(given_up, 0)
        self.assertGreater(resets, 100)
        self.assertGreater(twice, 10)

    def check_quiet(self, pair: Pair, seed: int) -> None:
        """Neither stream nor byte is left, and neither end broke the protocol."""
        for end in pair.ends.values():
            self.assertEqual([reason for reason in end.lost() if "protocol" in reason], [], f"{seed}")
            status = end.session.status(pair.now)
            left = (
                end.session.streams_kept,
                status.streams,
                status.unsent_bytes,
                status.unread_bytes,
                status.held_bytes,
                status.granted_bytes,
            )
            self.assertEqual(left, (0,) * 6, f"{seed}: {pair.describe()}")

    def check_alive(self, pair: Pair, seed: int) -> None:
        """A stream that is opened now carries more than a window, and both ends agree on what is left of it."""
        for wire in pair.wires.values():
            wire.loss = 0
        here, there = pair.open()
        pair.a.write(here, bytes(3 * SESSION_WINDOW), pair.now)
        pair.run_until(lambda: len(pair.b.received.get(there, b"")) == 3 * SESSION_WINDOW, 30)
        self.assertIn(StreamOpened, pair.b.kinds(there), f"{seed}")
        pair.run(2)
        a, b = (end.session.status(pair.now) for end in pair.ends.values())
        self.assertEqual(a.send_window_bytes, b.receive_window_bytes, f"{seed}: {pair.describe()}")
        self.assertEqual(b.send_window_bytes, a.receive_window_bytes, f"{seed}: {pair.describe()}")


for _group in range(GROUPS):

    def _test(self: QuietTests, group: int = _group) -> None:
        self.run_group(group)

    setattr(QuietTests, f"test_schedules_{_group}", _test)
