"""Virtual time: the order of planned calls, and deadlines beside them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import SeamlessError
from seamless.lab.agenda import Agenda


class AgendaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.agenda = Agenda(10.0)
        self.calls: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        self.calls.append((name, self.agenda.now))

    def test_calls_by_time_and_at_one_time_by_planning(self) -> None:
        for when, name in ((12.0, "late"), (11.0, "first"), (11.0, "second")):
            self.agenda.at(when, self.note, name)
        self.agenda.run(20.0)
        self.assertEqual(self.calls, [("first", 11.0), ("second", 11.0), ("late", 12.0)])
        self.assertEqual(self.agenda.now, 20.0)

    def test_what_is_planned_for_the_past_is_due_now(self) -> None:
        self.agenda.at(3.0, self.note, "missed")
        self.assertEqual(self.agenda.next_time(), 10.0)
        self.agenda.run(10.0)
        self.assertEqual(self.calls, [("missed", 10.0)])

    def test_time_set_by_hand_does_not_go_back(self) -> None:
        self.agenda.at(11.0, self.note, "overtaken")
        self.agenda.now = 15.0
        self.agenda.run(15.0)
        self.assertEqual(self.calls, [("overtaken", 15.0)])

    def test_done_stops_at_that_call(self) -> None:
        for when in (11.0, 12.0, 13.0):
            self.agenda.at(when, self.note, "call")
        self.agenda.run(20.0, lambda: len(self.calls) == 2)
        self.assertEqual((self.agenda.now, self.agenda.next_time()), (12.0, 13.0))

    def test_step_goes_to_the_earlier_of_call_and_deadline(self) -> None:
        self.agenda.at(12.0, self.note, "call")
        self.assertTrue(self.agenda.step(20.0, [None, 11.0, 13.0]))
        self.assertEqual((self.agenda.now, self.calls), (11.0, []))
        self.assertTrue(self.agenda.step(20.0, [13.0]))
        self.assertEqual(self.calls, [("call", 12.0)])
        self.assertFalse(self.agenda.step(20.0, [None]))
        self.assertFalse(self.agenda.step(20.0, [21.0]))
        self.assertEqual(self.agenda.now, 20.0)

    def test_a_call_that_is_always_due_does_not_stop_the_clock_in_silence(self) -> None:
        def again() -> None:
            self.agenda.at(self.agenda.now, again)

        again()
        error = self.assertRaises(SeamlessError, self.agenda.run, 11.0)
        self.assertIn("time stands still at 10.0", str(error))
