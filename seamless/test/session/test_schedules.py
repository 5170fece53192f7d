"""Seeded schedules of everything a network does, at once: every byte arrives, and every stream ends as it should."""

from __future__ import annotations

import random
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import StreamClosed, StreamFinished, StreamKey
from seamless.session.limits import Limits
from seamless.test.session.pair import End, Pair

SCHEDULES = 180
GROUPS = 6


class Schedule:
    """What happens in one run, drawn from its seed: the wires, and what the applications write and when."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"schedule {seed}")
        draw = self.random.random
        self.pair = Pair(seed, Limits(stream_window_initial=65536, session_window_max=4 << 20), room=24)
        self.pair.accept_all()
        for wire in self.pair.wires.values():
            wire.delay = self.random.choice([0.0005, 0.005, 0.040])
            wire.loss = self.random.choice([0, 0, 0.005, 0.02])
            wire.late = self.random.choice([0, 0.1, 0.3])
            wire.duplication = self.random.choice([0, 0.1])
            wire.corruption = self.random.choice([0, 0.01])
            wire.rate_pps = self.random.choice([0, 0, 4000])
        self.streams: list[StreamKey] = []
        for _ in range(self.random.randrange(1, 6)):
            self.pair.at(draw() * 0.5, self.open)
        if draw() < 0.5:
            self.pair.at(draw(), self.cut)

    def open(self) -> None:
        """Open a stream and write both ways, in bursts, then finish."""
        here, there = self.pair.open()
        self.streams.append(here)
        for end, key in ((self.pair.a, here), (self.pair.b, there)):
            at = self.pair.now - 1000 + 0.3
            for _ in range(self.random.randrange(0, 5)):
                nbytes = self.random.choice([1, 100, 5000, 70_000, 200_000])
                self.pair.at(at, partial(self.write, end, key, nbytes))
                at += self.random.random() * 0.2
            self.pair.at(at + 0.5, partial(self.finish, end, key))

    def finish(self, end: End, key: StreamKey) -> None:
        """End one direction."""
        end.finish(key, self.pair.now)

    def write(self, end: End, key: StreamKey, nbytes: int) -> None:
        """Write some bytes."""
        end.write(key, self.random.randbytes(nbytes), self.pair.now)

    def cut(self) -> None:
        """Cut both wires for a while, perhaps with a change of the path afterwards."""
        length = self.random.random() * 3
        for wire in self.pair.wires.values():
            wire.down = True
        self.pair.at(self.pair.now - 1000 + length, self.mend)

    def mend(self) -> None:
        """Mend what was cut; the way may be a narrower one."""
        mtu = self.random.choice([1444, 1300, 600])
        for wire in self.pair.wires.values():
            wire.down = False
        for end in self.pair.ends.values():
            end.session.path_changed(mtu, self.pair.now)

    def done(self) -> bool:
        """All streams were opened and are closed at both ends."""
        a, b = self.pair.a, self.pair.b
        return (
            bool(self.streams)
            and not self.pair.calls_left
            and not (a.session.status(self.pair.now).streams + b.session.status(self.pair.now).streams)
        )


class ScheduleTests(SynchronousTestCase):
    """A hundred and more schedules."""

    def run_group(self, group: int) -> None:
        """Run every ``GROUPS``-th schedule."""
        lost = late = 0
        for seed in range(group, SCHEDULES, GROUPS):
            schedule = Schedule(seed)
            pair = schedule.pair
            until = pair.now + 60
            steps = 0
            while not schedule.done():
                self.assertTrue(pair.step(until), f"schedule {seed} does not end: {pair.describe()}")
                steps += 1
                if steps % 16 == 0:
                    pair.check_prefix()
            pair.check_prefix()
            for key in schedule.streams:
                for end, other, name in ((pair.a, pair.b, key), (pair.b, pair.a, (1, key[1]))):
                    peer_name = (1, key[1]) if end is pair.a else key
                    self.assertEqual(end.received.get(name, b""), other.written.get(peer_name, b""), f"{seed} {name}")
                    self.assertEqual(end.kinds(name)[-2:], [StreamFinished, StreamClosed], f"{seed} {name}")
            lost += sum(wire.lost for wire in pair.wires.values())
            late += sum(wire.made_late for wire in pair.wires.values())
        self.assertGreater(lost, 100)
        self.assertGreater(late, 100)


for _group in range(GROUPS):

    def _test(self: ScheduleTests, group: int = _group) -> None:
        self.run_group(group)

    setattr(ScheduleTests, f"test_schedules_{_group}", _test)
