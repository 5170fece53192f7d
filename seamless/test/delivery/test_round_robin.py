"""Turns by bytes, new ones first."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.round_robin import RoundRobin, Turn

QUANTUM = 1000


@attrs.define(eq=False)
class Queue:
    """Packets of one member, as sizes."""

    name: str
    packets: list[int] = attrs.Factory(list)
    turn: Turn = attrs.Factory(Turn)


class RoundRobinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.left: list[str] = []
        self.turns: RoundRobin[Queue] = RoundRobin(
            QUANTUM, lambda queue: queue.packets, lambda queue: self.left.append(queue.name)
        )

    def queue(self, name: str, *packets: int) -> Queue:
        queue = Queue(name, list(packets))
        self.turns.join(queue)
        return queue

    def serve(self, count: int) -> str:
        """Send so many packets; return whose they were."""
        served = ""
        while len(served) < count and (queue := self.turns.head()) is not None:
            queue.turn.deficit_bytes -= queue.packets.pop(0)
            served += queue.name
        return served

    def test_shares_are_of_bytes(self) -> None:
        self.queue("a", *(1000,) * 100)
        self.queue("b", *(250,) * 400)
        served = self.serve(100)
        self.assertAlmostEqual(served.count("b") / served.count("a"), 4, delta=0.5)

    def test_a_new_one_goes_first_for_a_quantum(self) -> None:
        self.queue("a", *(1000,) * 10)
        self.assertEqual(self.serve(2), "aa")
        self.queue("b", *(500,) * 10)
        self.assertEqual(self.serve(2), "bb")
        self.assertEqual(self.serve(6).count("b"), 4)

    def test_one_that_sends_a_packet_at_a_time_is_not_new_each_time(self) -> None:
        """It goes first while it has something left of its quantum, and then waits until the others had their turns."""
        self.queue("a", *(1000,) * 10)
        one = self.queue("b", 400)
        self.assertEqual(self.serve(1), "a")
        served = self.serve(1)
        for _ in range(3):
            one.packets.append(400)
            self.turns.join(one)
            served += self.serve(1)
        self.assertEqual(served, "bbba")

    def test_what_is_left_of_a_quantum_waits_for_no_round(self) -> None:
        """Where the others may not send now, one that paused after a part of its quantum still may."""
        self.queue("a", *(1000,) * 10)
        one = self.queue("b", 100)
        self.assertEqual(self.serve(2), "ab")
        self.assertIsNone(self.turns.head(serves_old=False))
        one.packets.append(100)
        self.turns.join(one)
        self.assertIs(self.turns.head(serves_old=False), one)

    def test_who_is_empty_leaves_once(self) -> None:
        queue = self.queue("a", 100)
        self.assertEqual(self.serve(5), "a")
        self.assertEqual((self.left, queue.turn.is_waiting), (["a"], False))
        queue.packets.append(100)
        self.turns.join(queue)
        self.assertEqual(self.serve(5), "a")

    def test_only_those_served_go(self) -> None:
        old = self.queue("a", *(1000,) * 10)
        self.serve(1)
        self.assertIsNone(self.turns.head(serves_old=False))
        self.queue("b", 100)
        self.assertEqual(self.turns.head(serves_old=False).name, "b")  # type: ignore[union-attr]
        self.assertEqual(self.turns.head(serves_new=False), old)
        self.assertTrue(self.turns.may_go(serves_new=False))

    @given(st.lists(st.lists(st.integers(1, 3000), max_size=8), max_size=6))
    def test_all_is_sent_and_all_leave(self, queues: list[list[int]]) -> None:
        members = [self.queue(chr(97 + number), *packets) for number, packets in enumerate(queues)]
        self.left.clear()
        served = self.serve(1000)
        self.assertEqual(
            sorted(served), sorted("".join(each.name * len(packets) for each, packets in zip(members, queues)))
        )
        self.assertEqual(sorted(self.left), sorted(member.name for member in members))
