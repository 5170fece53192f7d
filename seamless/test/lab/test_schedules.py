"""A hundred random schedules of faults, and an oracle that is not blind."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stdout

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_PEER_LOST,
    RESET_PROTOCOL,
    RESET_REFUSED,
    DataReceived,
    Event,
)
from seamless.lab.schedules.__main__ import main, seeds_of
from seamless.lab.schedules.conditions import SETTLING, Conditions
from seamless.lab.schedules.draw import KINDS, draw
from seamless.lab.schedules.faults import Fault, Outage
from seamless.lab.schedules.liveness import Progress, leftovers, memory_bytes
from seamless.lab.schedules.node_faults import Stop
from seamless.lab.schedules.oracle import End, PacketRules, Violation
from seamless.lab.schedules.plan import Conversation, Schedule, Script, Wire
from seamless.lab.schedules.play import Result, ScheduleRun, play
from seamless.lab.schedules.shrink import shrink

SEEDS = range(1, 101)
GROUPS = 10
GIVE_UP = 30.0
NOT_YET: frozenset[str] = frozenset()
"""Kinds of faults that the overlay does not cope with yet: links do not find their MTU."""


class ScheduleTests(SynchronousTestCase):
    """A hundred seeds; more with ``python -m seamless.lab.schedules --seeds 1-1000``."""

    def run_group(self, group: int) -> None:
        """Play every ``GROUPS``-th seed."""
        hits: Counter[str] = Counter()
        for seed in SEEDS[group::GROUPS]:
            result = play(draw(seed).without(NOT_YET))
            if result.violation is not None:
                self.fail("\n".join((str(result.violation), *result.schedule.lines(streams=12))))
            self.assertEqual(set(result.endings) & {"none", ""}, set())
            hits.update(result.hits)
        self.assertGreater(sum(hits.values()), 0, "no fault took effect")

    def test_a_hundred_seeds_have_everything(self) -> None:
        """Every kind of fault, every shape, streams by the hundred, and whole packets are in the hundred seeds."""
        schedules = [draw(seed) for seed in SEEDS]
        drawn = frozenset[str]().union(*(schedule.kinds for schedule in schedules))
        self.assertEqual(drawn, {kind.kind for kind in KINDS})
        self.assertEqual({schedule.shape for schedule in schedules}, {"chain", "ring", "diamond"})
        self.assertGreater(max(len(schedule.conversations) for schedule in schedules), 200)
        self.assertGreater(sum(bool(schedule.packets) for schedule in schedules), 20)

    def test_same_seed_same_run(self) -> None:
        first, second = play(draw(12)), play(draw(12))
        self.assertGreater(first.read_bytes, 0)
        for name in ("at", "streams", "read_bytes", "packets", "endings", "hits"):
            self.assertEqual(getattr(first, name), getattr(second, name), name)


for _group in range(GROUPS):

    def _test(self: ScheduleTests, group: int = _group) -> None:
        self.run_group(group)

    setattr(ScheduleTests, f"test_schedules_{_group}", _test)


SCRIPT = Script(((0.0, 10),))
CONVERSATION = Conversation(1, "a", "b", 0.0, SCRIPT, SCRIPT)


def both_ends() -> tuple[End, End]:
    """Return the two ends of a stream, of which the client has written six bytes."""
    client = End(CONVERSATION, "a", 1, SCRIPT, b"0123456789", 0.0)
    server = End(CONVERSATION, "b", 1, SCRIPT, b"abcdefghij", 0.0)
    client.far, server.far = server, client
    client.written = 6
    return client, server


class RuleTests(SynchronousTestCase):
    """The oracle finds what is wrong, and lets pass what is right."""

    def broken(self, rule: str, what: str) -> None:
        self.assertEqual(self.caught.rule, rule)
        self.assertIn(what, str(self.caught))

    def check(self, end: End, name: str, *arguments: object, **named: object) -> None:
        """Call a check that must fail."""
        with self.assertRaises(Violation) as context:
            getattr(end, name)(*arguments, **named)
        self.caught = context.exception

    def test_prefix(self) -> None:
        _, server = both_ends()
        server.check_data([b"01", b"23"])
        self.check(server, "check_data", [b"5"])
        self.broken("prefix", "not those written")
        self.check(server, "check_data", [b"456"])
        self.broken("prefix", "7 bytes came of 6 that were written")

    def test_eof(self) -> None:
        client, server = both_ends()
        server.check_data([b"01234"])
        self.check(server, "check_eof")
        self.broken("eof", "without a FIN")
        client.finished = True
        self.check(server, "check_eof")
        self.broken("eof", "after 5 of 6 bytes")
        server.check_data([b"5"])
        server.check_eof()
        self.check(server, "check_eof")
        self.broken("eof", "two ends of file")
        self.check(server, "check_data", [b"6"])
        self.broken("eof", "bytes after the end of file")

    def test_closed(self) -> None:
        client, _ = both_ends()
        self.check(client, "check_closed")
        self.broken("closed", "before its own FIN")
        client.finished = True
        self.check(client, "check_closed")
        self.broken("closed", "before the end of file of the peer")
        client.eof = True
        client.check_closed()
        self.check(client, "check_data", [b"a"])
        self.broken("order", "after the end (closed)")

    def test_reset_by_the_application(self) -> None:
        client, server = both_ends()
        no_cause = {"gap": 0.0, "give_up": GIVE_UP, "far_restarted": False}
        self.check(server, "check_reset", RESET_BY_APPLICATION, "", **no_cause)
        self.broken("reset", "without cause")
        client.reset_code = RESET_REFUSED
        self.check(server, "check_reset", RESET_BY_APPLICATION, "", **no_cause)
        client.reset_code = RESET_BY_APPLICATION
        server.check_reset(RESET_BY_APPLICATION, "", gap=0.0, give_up=GIVE_UP, far_restarted=False)

    def test_reset_of_a_lost_peer(self) -> None:
        for gap, far_restarted, justified in ((28.0, False, False), (29.5, False, True), (0.0, True, True)):
            _, server = both_ends()
            cause = {"gap": gap, "give_up": GIVE_UP, "far_restarted": far_restarted}
            if justified:
                server.check_reset(RESET_PEER_LOST, "", gap=gap, give_up=GIVE_UP, far_restarted=far_restarted)
            else:
                self.check(server, "check_reset", RESET_PEER_LOST, "", **cause)
                self.broken("reset", "no path for 28.0 s at most")

    def test_no_reset_for_a_broken_protocol(self) -> None:
        _, server = both_ends()
        self.check(server, "check_reset", RESET_PROTOCOL, "", gap=99.0, give_up=GIVE_UP, far_restarted=True)
        self.broken("reset", "without cause")

    def test_packets(self) -> None:
        packets = PacketRules()
        packets.note_sent("a", "b", b"one")
        packets.check_received("a", "b", b"one")
        for source, packet in (("a", b"one"), ("a", b"two"), ("b", b"three")):
            packets.note_sent("a", "b", b"three")
            with self.assertRaises(Violation):
                packets.check_received(source, "b", packet)


class ConditionTests(SynchronousTestCase):
    """When two nodes are connected, and for how long they were not."""

    def setUp(self) -> None:
        self.pair = frozenset(("a", "d"))
        wires = (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"))
        self.conditions = Conditions(wires, frozenset(), [self.pair])

    def test_one_way_out_of_two(self) -> None:
        self.conditions.down["b", "a"] += 1
        self.conditions.changed(1.0)
        self.assertEqual(self.conditions.connected_since(self.pair), 0.0)
        self.conditions.dropping["c"] += 1
        self.conditions.changed(2.0)
        self.assertEqual(self.conditions.connected_since(self.pair), None)
        self.conditions.down["b", "a"] -= 1
        self.conditions.changed(5.0)
        self.assertEqual(self.conditions.connected_since(self.pair), 5.0)

    def cut(self, at: float, length: float) -> None:
        for change, now in ((1, at), (-1, at + length)):
            self.conditions.absent["a"] += change
            self.conditions.changed(now)

    def test_gaps_without_a_steady_time_between_them_are_one(self) -> None:
        self.cut(10.0, 5.0)
        self.cut(16.0, 5.0)
        self.assertEqual(self.conditions.longest_gap(self.pair, 0.0, 40.0), 11.0 + SETTLING)
        self.assertEqual(self.conditions.longest_gap(self.pair, 30.0, 40.0), 0.0)

    def test_a_gap_that_lasts(self) -> None:
        self.conditions.absent["d"] += 1
        self.conditions.changed(10.0)
        self.assertEqual(self.conditions.longest_gap(self.pair, 12.0, 25.0), 15.0)


def small(*faults: Fault, conversations: int = 1) -> Schedule:
    """Return a schedule of three nodes in a chain."""
    wires = tuple(Wire(ends, 100_000_000, 0.005, 1 << 20, "off") for ends in (("a", "b"), ("b", "c")))
    bulk = Script(((0.0, 2_000_000),))
    talks = tuple(Conversation(number, "a", "c", 1.0, bulk, SCRIPT) for number in range(conversations))
    return Schedule(1, "chain", ("a", "b", "c"), frozenset(), wires, 0.1, faults, talks, ())


class PlayTests(SynchronousTestCase):
    """What is found when whole nodes do wrong."""

    def test_an_outage_longer_than_give_up_justifies_a_reset(self) -> None:
        result = play(small(Outage(1.1, 36.0, "a", "b", True)))
        self.assertEqual(result.violation, None)
        self.assertEqual(result.endings["reset 3"], 2)

    def test_a_shorter_one_does_not(self) -> None:
        """The oracle is told that there was no outage: the same reset is then without cause."""
        self.patch(Conditions, "longest_gap", lambda *arguments: 20.0)
        result = play(small(Outage(1.1, 36.0, "a", "b", True)))
        self.assertIn("reset without cause", str(result.violation))

    def test_altered_bytes(self) -> None:
        """A node that hands over one wrong byte is found out."""
        bed = ScheduleRun(small())
        hear = bed.net.nodes["c"].on_event
        assert hear is not None

        def alter(event: Event) -> None:
            if isinstance(event, DataReceived):
                event.chunks[-1] = bytes((event.chunks[-1][0] ^ 1,)) + bytes(event.chunks[-1][1:])
            hear(event)

        bed.net.nodes["c"].on_event = alter
        with self.assertRaises(Violation) as context:
            bed.run()
        self.assertEqual(context.exception.rule, "prefix")

    def test_a_stream_left_over(self) -> None:
        bed = ScheduleRun(small())
        bed.run()
        self.assertEqual(list(leftovers(bed.net)), [])
        bed.net.command("a", lambda node, now: node.open_stream("c", b"forgotten", now))
        self.assertIn("a keeps 1 streams", list(leftovers(bed.net)))

    def test_memory(self) -> None:
        bed = ScheduleRun(small())
        bed.run()
        node = bed.net.node("a")
        before = memory_bytes(node)
        node.config = bytearray(300_000)  # type: ignore[assignment]
        self.assertGreater(memory_bytes(node), before + 300_000)

    def test_a_stall(self) -> None:
        """A path that the oracle takes for good carries nothing."""
        schedule = small()
        bed = ScheduleRun(schedule)
        progress = Progress(bed.net, bed.applications)
        bed.net.run(1.1)
        bed.net.impair("a", "b", down=True)
        with self.assertRaises(Violation) as context:
            for _ in range(20):
                bed.net.run(bed.net.now + 0.5)
                progress.look(excused=False)
        self.assertEqual(context.exception.rule, "stall")

    def test_a_fault_that_meets_nothing(self) -> None:
        self.patch(Outage, "impair", lambda *arguments: None)
        result = play(small(Outage(1.0, 2.0, "a", "b", True)))
        self.assertIn("took no effect", str(result.violation))

    def test_a_stopped_process_goes_on(self) -> None:
        result = play(small(Stop(1.1, 2.0, "b", False)))
        self.assertEqual((result.violation, result.hits["stopped process"]), (None, 1))


class ShrinkTests(SynchronousTestCase):
    """A smaller schedule that breaks the same rule."""

    def test_one_fault_and_one_stream_are_left(self) -> None:
        faults = [Outage(float(number), 0.1, "a", "b", True) for number in range(7)]
        guilty = faults[4]

        def play_again(schedule: Schedule) -> Result:
            violation = Violation("stall", "") if guilty in schedule.faults else None
            return Result(schedule, violation, 0.0, 0, 0, 0, Counter(), Counter())

        smaller = shrink(play_again(small(*faults, conversations=6)), play_again).schedule
        self.assertEqual(smaller.faults, (guilty,))
        self.assertEqual(len(smaller.conversations), 1)


class ProgramTests(SynchronousTestCase):
    """The program prints seeds, and repeats them."""

    def run_program(self, *arguments: str) -> tuple[int, str]:
        with redirect_stdout(io.StringIO()) as out:
            code = main(list(arguments))
        return code, out.getvalue()

    def test_seeds(self) -> None:
        self.assertEqual(seeds_of("3-5,9"), [3, 4, 5, 9])

    def test_a_good_seed(self) -> None:
        code, text = self.run_program("--seed", "99", "--verbose")
        self.assertEqual(code, 0, text)
        self.assertIn("seed 99: chain of 3", text)
        self.assertIn("as it should be", text)
        self.assertIn("stream 0", text)
        self.assertIn("1 schedules, 0 broke a rule", text)

    def test_a_bad_one(self) -> None:
        """Whatever is wrong, the schedule is printed, and the exit code says so."""
        self.patch(ScheduleRun, "run", lambda bed: (_ for _ in ()).throw(Violation("eof", "made up")))
        code, text = self.run_program("--seed", "99", "--shrink")
        self.assertEqual(code, 1)
        self.assertIn("eof: made up", text)
        self.assertIn("a-b: ", text)
        self.assertIn("  eof: 1: 99", text)
