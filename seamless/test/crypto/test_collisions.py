"""Both ends call at once: whatever the order, whatever gets lost, they end with the same keys, and soon."""

from __future__ import annotations

import random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keyring import MAX_NEXT, MAX_PREVIOUS
from seamless.test.crypto.pair import CONTROL, Pair, Wire
from seamless.wire.header import INITIATION

MAX_INDICES = MAX_PREVIOUS + 1 + MAX_NEXT + 1
"""All keys, and one attempt."""


def converged(pair: Pair) -> bool:
    """Return whether both ends got their latest keys from one handshake and want no other."""
    roles = [end.established[-1].initiator for end in pair.ends if end.established]
    return sorted(roles) == [False, True] and pair.everybody_can_be_understood()


class ByHandTests(SynchronousTestCase):
    def test_the_greater_key_goes_first(self) -> None:
        pair = Pair()
        for end in pair.ends:
            end.association.initiate(pair.now)
        pair.run(1.0)
        self.assertTrue(converged(pair))
        self.assertTrue(pair.alice.established[-1].initiator)
        self.assertEqual(pair.alice.association.counters.collisions_won, 1)
        self.assertEqual([len(end.established) for end in pair.ends], [1, 1])
        self.assertEqual([len(end.indices.lent) for end in pair.ends], [1, 1])

    def test_the_greater_key_cannot_be_heard(self) -> None:
        """A neighbor behind a firewall dials out, and what dials it does not arrive."""
        pair = Pair()
        pair.wires[0].swallows = lambda datagram: datagram[0] == INITIATION
        for end in pair.ends:
            end.association.initiate(pair.now)
        pair.run(4.0)
        self.assertGreater(pair.wires[0].lost, 1)
        self.assertTrue(converged(pair))
        self.assertTrue(pair.bob.established[-1].initiator)

    def test_the_other_answer_is_not_awaited_any_more(self) -> None:
        """A hello takes so long that the side that gave way tries again; then the hello comes."""
        pair = Pair()
        for end in pair.ends:
            end.association.initiate(pair.now)
        pair.wires[0].swallows = lambda datagram: datagram[0] == CONTROL
        pair.wires[1].swallows = lambda datagram: datagram[0] == INITIATION
        pair.run(1.05)
        self.assertEqual([wire.lost for wire in pair.wires], [1, 2])
        self.assertEqual(len(pair.bob.indices.lent), 2)
        pair.wires[0].swallows = lambda datagram: False
        pair.alice.send(b"another hello", pair.now)
        pair.run(0.1)
        sent = pair.bob.association.counters.initiations_sent
        self.assertTrue(converged(pair))
        self.assertEqual(len(pair.bob.indices.lent), 1)
        pair.run(20.0)
        self.assertEqual(pair.bob.association.counters.initiations_sent, sent)

    def test_both_after_a_long_silence(self) -> None:
        """Neither attempt is young any more when the wires come back, and both initiations cross."""
        pair = Pair()
        for wire in pair.wires:
            wire.swallows = lambda datagram: True
        for end in pair.ends:
            end.association.initiate(pair.now)
        pair.run(30.0)
        for wire in pair.wires:
            wire.swallows = lambda datagram: False
            wire.latency = 6.0
        pair.run(7.0)
        for wire in pair.wires:
            wire.latency = 0.01
        pair.run(12.0)
        self.assertTrue(converged(pair))


@attrs.define
class Choices:
    """A path through a tree of choices, followed first and then made up with zeroes."""

    path: list[int]
    at: int = 0
    widths: list[int] = attrs.field(factory=list)

    def choose(self, width: int) -> int:
        """Return a number below ``width``."""
        if self.at == len(self.path):
            self.path.append(0)
        self.widths.append(width)
        self.at += 1
        return self.path[self.at - 1]

    def next_path(self) -> list[int] | None:
        """Return the path after this one; None after the last."""
        path = self.path[: self.at]
        while path and path[-1] + 1 >= self.widths[len(path) - 1]:
            path.pop()
        if not path:
            return None
        path[-1] += 1
        return path


class EveryInterleavingTests(SynchronousTestCase):
    """Deliver what is under way in every order, with up to two datagrams lost or doubled; then let time run."""

    def interleave(self, pair: Pair, choices: Choices, faults: int) -> None:
        """Deliver datagrams until none is left, each choice being which, and what becomes of it."""
        flying: list[tuple[int, bytes]] = []
        for _ in range(40):
            for which, end in enumerate(pair.ends):
                flying += [(1 - which, datagram) for datagram in end.take_outbox(pair.now)]
            if not flying:
                return
            which, datagram = flying[choices.choose(len(flying))]
            fate = choices.choose(3) if faults else 0
            faults -= fate != 0
            if fate != 2:
                flying.remove((which, datagram))
            if fate != 1:
                pair.ends[which].receive(datagram, pair.now)
        self.fail("they never stop talking")

    def explore(self, prepare: list[int], initiators: tuple[int, ...], faults: int) -> int:
        path: list[int] | None = []
        count = 0
        while path is not None:
            pair = Pair(5)
            for which in prepare:
                pair.ends[which].association.initiate(pair.now)
                pair.run(6.0)
            had = [len(end.established) for end in pair.ends]
            choices = Choices(path)
            for which in initiators:
                pair.ends[which].association.initiate(pair.now)
            self.interleave(pair, choices, faults)
            if prepare:
                self.assertTrue(pair.everybody_can_be_understood(), path)
            for _ in range(5):
                for end in pair.ends:
                    end.send(b"another hello", pair.now)
                pair.run(1.0)
            self.assertTrue(converged(pair), path)
            self.assertTrue(all(len(end.established) > n for end, n in zip(pair.ends, had)), path)
            pair.converse()
            self.assertEqual((pair.alice.received[-1], pair.bob.received[-1]), (b"from bob", b"from alice"), path)
            self.assertTrue(all(len(end.indices.lent) <= MAX_INDICES for end in pair.ends))
            path = choices.next_path()
            count += 1
        return count

    def test_at_the_start(self) -> None:
        self.assertGreater(self.explore([], (0, 1), 2), 100)

    def test_one_sided(self) -> None:
        for which in (0, 1):
            self.assertGreater(self.explore([], (which,), 2), 30)

    def test_at_a_renewal(self) -> None:
        for which in (0, 1):
            self.assertGreater(self.explore([which], (0, 1), 1), 20)


class SeededScheduleTests(SynchronousTestCase):
    """Many pairs on bad wires, with one or both calling at random times; then the wires get better."""

    def schedule(self, seed: int, gates: bool) -> Pair:
        source = random.Random(seed)
        latency = source.choice([0.0005, 0.01, 0.1])

        def wire() -> Wire:
            return Wire(
                latency=latency,
                jitter=latency * source.choice([0, 2]),
                loss=source.choice([0, 0.1, 0.4]),
                duplication=0.2,
                corruption=source.choice([0, 0.1]),
            )

        pair = Pair(seed, wire=wire, gates=gates)
        had_keys = [False, False]

        def check() -> None:
            for which, end in enumerate(pair.ends):
                has_key = end.association.send_key is not None
                self.assertTrue(has_key or not had_keys[which], seed)
                had_keys[which] = has_key
                self.assertLessEqual(len(end.indices.lent), MAX_INDICES)
            self.assertTrue(pair.everybody_can_be_understood(), seed)

        for _ in range(12):
            for end in pair.ends:
                if source.random() < 0.4:
                    end.association.initiate(pair.now)
                if source.random() < 0.5:
                    end.send(b"data", pair.now)
            pair.run(source.choice([0, latency, 0.3, 2.0]), check)
        self.wires += pair.wires
        pair.wires = [Wire(latency=latency), Wire(latency=latency)]
        pair.alice.association.initiate(pair.now)
        pair.run(8.0, check)
        for end in pair.ends:
            end.send(b"end", pair.now)
        pair.run(8.0, check)
        for end in pair.ends:
            self.assertIn(b"end", end.received, seed)
        self.assertTrue(converged(pair), seed)
        return pair

    def setUp(self) -> None:
        self.wires: list[Wire] = []

    def check_faults(self) -> None:
        for fault in ("lost", "duplicated", "corrupted"):
            self.assertGreater(sum(getattr(wire, fault) for wire in self.wires), 100, fault)

    def test_without_gates(self) -> None:
        won = sum(self.schedule(seed, False).alice.association.counters.collisions_won for seed in range(1500))
        self.assertGreater(won, 20)
        self.check_faults()

    def test_with_gates(self) -> None:
        for seed in range(3000, 3500):
            pair = self.schedule(seed, True)
            assert pair.bob.gate is not None and pair.alice.gate is not None
            self.assertGreater(pair.bob.gate.answered + pair.alice.gate.answered, 0)
        self.check_faults()
