"""Adjacencies: two ends and a wire in virtual time, then one end and the clock."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.lab.agenda import Agenda
from seamless.link.hello import Adjacency, AdjacencyState

DOWN, INIT, UP = AdjacencyState.DOWN, AdjacencyState.INIT, AdjacencyState.UP
HELLO_INTERVAL = 0.1
DEAD_INTERVAL = 0.3


class Pair:
    """Two adjacencies whose links send hellos when due and acknowledge each, over a wire with delay and loss."""

    def __init__(self, *, delay: float = 0.01, loss: float = 0.0, seed: int = 0) -> None:
        self._agenda = Agenda()
        self.ends = [Adjacency(HELLO_INTERVAL, DEAD_INTERVAL, 0.0) for _ in range(2)]
        self.silenced: set[int] = set()
        self.dropped = 0
        self.hellos_sent = [0, 0]
        self._delay = delay
        self._loss = loss
        self._random = Random(seed)

    @property
    def now(self) -> float:
        return self._agenda.now

    @property
    def states(self) -> list[AdjacencyState]:
        return [end.state for end in self.ends]

    def start(self) -> None:
        for end in range(2):
            self.ends[end].hello_soon(self.now)
            self._send_hello_if_due(end)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._agenda.step(until, (end.next_timeout() for end in self.ends)):
            for end in range(2):
                if self.ends[end].next_timeout() <= self.now:
                    self.ends[end].handle_timeout(self.now)
                self._send_hello_if_due(end)

    def send(self, end: int, hello: AdjacencyState | None) -> None:
        """Send a HELLO, or (None) any other datagram, from ``end``."""
        if end in self.silenced or self._random.random() < self._loss:
            self.dropped += 1
            return
        self._agenda.at(self.now + self._delay, self._receive, 1 - end, hello)

    def _receive(self, end: int, hello: AdjacencyState | None) -> None:
        if hello is None:
            self.ends[end].heard(self.now)
        else:
            self.ends[end].received_hello(hello.value, HELLO_INTERVAL, DEAD_INTERVAL, self.now)
            self.send(end, None)
        self._send_hello_if_due(end)

    def _send_hello_if_due(self, end: int) -> None:
        if self.ends[end].hello_due(self.now):
            self.ends[end].sent_hello(self.now)
            self.hellos_sent[end] += 1
            self.send(end, self.ends[end].state)


class PairTests(SynchronousTestCase):
    def up(self, *, loss: float = 0.0, seed: int = 0) -> Pair:
        pair = Pair(loss=loss, seed=seed)
        pair.start()
        pair.run(1.0)
        self.assertEqual(pair.states, [UP, UP])
        return pair

    def test_up_after_a_round_trip_and_not_an_interval(self) -> None:
        pair = Pair(delay=0.01)
        pair.start()
        pair.run(0.015)
        self.assertEqual(pair.states, [INIT, INIT])
        pair.run(0.01)
        self.assertEqual(pair.states, [UP, UP])

    def test_quiet_link_stays_up_with_a_hello_per_interval(self) -> None:
        pair = self.up()
        before = list(pair.hellos_sent)
        pair.run(100.0)
        self.assertEqual([end.counters.downs for end in pair.ends], [0, 0])
        for end in range(2):
            self.assertIn(pair.hellos_sent[end] - before[end], (999, 1000, 1001))

    def test_dead_wire_is_down_within_the_dead_interval(self) -> None:
        pair = self.up()
        pair.silenced = {0, 1}
        pair.run(DEAD_INTERVAL - 0.1)
        self.assertEqual(pair.states, [UP, UP])
        pair.run(0.11)
        self.assertEqual(pair.states, [DOWN, DOWN])
        self.assertEqual(pair.ends[0].reason, "no datagram for 300 ms")

    def test_wire_that_heals_is_up_again(self) -> None:
        pair = self.up()
        pair.silenced = {0, 1}
        pair.run(60.0)
        self.assertEqual([end.counters.downs for end in pair.ends], [1, 1])
        pair.silenced = set()
        pair.run(HELLO_INTERVAL + 0.05)
        self.assertEqual(pair.states, [UP, UP])
        self.assertEqual([end.counters.ups for end in pair.ends], [2, 2])

    def test_one_way_wire_is_up_at_neither_end(self) -> None:
        pair = self.up()
        pair.silenced = {0}
        pair.run(DEAD_INTERVAL + 0.05)
        self.assertEqual(pair.states, [INIT, DOWN])
        self.assertEqual(pair.ends[0].reason, "it does not hear us")
        pair.run(60.0)
        self.assertEqual(pair.states, [INIT, DOWN])
        self.assertEqual([end.counters.ups for end in pair.ends], [1, 1])
        pair.silenced = set()
        pair.run(HELLO_INTERVAL + 0.05)
        self.assertEqual(pair.states, [UP, UP])

    def test_silent_link_that_loses_a_fifth_stays_up(self) -> None:
        pair = self.up(loss=0.2, seed=1)
        pair.run(600.0)
        self.assertGreater(pair.dropped, 3000)
        self.assertEqual([end.counters.downs for end in pair.ends], [0, 0])

    def test_old_hello_that_arrives_late_is_put_right_in_a_round_trip(self) -> None:
        pair = self.up()
        pair.run(0.04)  # so that no regular hello is on its way
        pair.send(0, DOWN)
        pair.run(0.011)
        self.assertEqual(pair.states, [UP, INIT])
        pair.run(0.02)
        self.assertEqual(pair.states, [UP, UP])


class StateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.adjacency = Adjacency(HELLO_INTERVAL, DEAD_INTERVAL, 0.0)

    def hello(self, state: AdjacencyState, now: float, dead_interval: float = DEAD_INTERVAL) -> None:
        self.adjacency.received_hello(state.value, HELLO_INTERVAL, dead_interval, now)

    def assertState(self, state: AdjacencyState) -> None:
        self.assertIs(self.adjacency.state, state)

    def pass_time(self, start: float, end: float, step: float = 0.01) -> None:
        """Drive the adjacency often, as an idle machine does."""
        steps = round((end - start) / step)
        for number in range(1, steps + 1):
            self.adjacency.handle_timeout(start + number * step)

    def test_every_transition(self) -> None:
        for before, prepare in ((DOWN, None), (INIT, DOWN), (UP, UP)):
            for theirs, after in ((DOWN, INIT), (INIT, UP), (UP, UP)):
                self.setUp()
                if prepare is not None:
                    self.hello(prepare, 0.0)
                self.assertState(before)
                self.hello(theirs, 0.1)
                self.assertState(after)

    def test_data_alone_does_not_lead_out_of_down(self) -> None:
        self.adjacency.heard(0.1)
        self.assertState(DOWN)

    def test_any_datagram_proves_life(self) -> None:
        self.hello(UP, 0.0)
        for number in range(1, 41):
            self.pass_time((number - 1) * 0.25, number * 0.25)
            self.adjacency.heard(number * 0.25)
        self.assertState(UP)
        self.pass_time(10.0, 10.31)
        self.assertState(DOWN)

    def test_goodbye(self) -> None:
        self.hello(UP, 0.0)
        self.adjacency.closed("r1 says: going down for maintenance", 0.1)
        self.assertState(DOWN)
        self.assertEqual(self.adjacency.reason, "r1 says: going down for maintenance")
        self.assertEqual(self.adjacency.counters.downs, 1)

    def test_longer_dead_interval_of_the_neighbor_counts(self) -> None:
        self.hello(UP, 0.0, dead_interval=1.0)
        self.pass_time(0.0, 0.99)
        self.assertState(UP)
        self.pass_time(0.99, 1.01)
        self.assertState(DOWN)

    def test_shorter_dead_interval_of_the_neighbor_does_not(self) -> None:
        self.hello(UP, 0.0, dead_interval=0.05)
        self.pass_time(0.0, 0.29)
        self.assertState(UP)

    def test_change_of_state_is_told_at_once(self) -> None:
        self.adjacency.sent_hello(0.0)
        self.assertFalse(self.adjacency.hello_due(0.05))
        self.hello(DOWN, 0.05)
        self.assertTrue(self.adjacency.hello_due(0.05))


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.adjacency = Adjacency(HELLO_INTERVAL, DEAD_INTERVAL, 0.0)
        self.adjacency.received_hello(UP.value, HELLO_INTERVAL, DEAD_INTERVAL, 0.0)
        self.adjacency.sent_hello(0.0)

    def test_who_slept_through_the_deadline_looks_into_the_socket_first(self) -> None:
        self.adjacency.handle_timeout(5.0)
        self.assertIs(self.adjacency.state, UP)
        self.assertEqual(self.adjacency.counters.graces, 1)
        self.adjacency.heard(5.001)
        self.adjacency.handle_timeout(5.1)
        self.adjacency.handle_timeout(5.2)
        self.assertIs(self.adjacency.state, UP)

    def test_grace_is_one_hello_interval_and_given_once(self) -> None:
        self.adjacency.handle_timeout(5.0)
        self.adjacency.handle_timeout(5.0 + HELLO_INTERVAL - 0.001)
        self.assertIs(self.adjacency.state, UP)
        self.adjacency.handle_timeout(10.0)
        self.assertIs(self.adjacency.state, DOWN)
        self.assertEqual(self.adjacency.counters.graces, 1)

    def test_who_was_awake_gives_no_grace(self) -> None:
        for now in (0.1, 0.2, 0.3):
            self.adjacency.handle_timeout(now)
        self.assertIs(self.adjacency.state, DOWN)
        self.assertEqual(self.adjacency.counters.graces, 0)

    def test_hellos_hurry_when_silence_is_long(self) -> None:
        sent = []
        now = 0.0
        while self.adjacency.state is UP:
            now = self.adjacency.next_timeout()
            self.adjacency.handle_timeout(now)
            if self.adjacency.hello_due(now):
                self.adjacency.sent_hello(now)
                sent.append(now)
        intervals = [round(after - before, 6) for before, after in zip([0.0, *sent], sent)]
        self.assertEqual(intervals, [0.1, 0.05] + [0.0125] * 12)

    def test_hello_that_cannot_be_sent_stays_due_and_wakes_nobody_early(self) -> None:
        wake_ups = 0
        now = 0.0
        while now < 10.0:
            now = self.adjacency.next_timeout()
            self.adjacency.handle_timeout(now)
            wake_ups += 1
            self.assertTrue(self.adjacency.hello_due(now))
        self.assertLess(wake_ups, 125)
