"""Timers of the reactor while the wall clock is stepped back."""

from __future__ import annotations

import time

from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SynchronousTestCase

from seamless.transport.clock import make_monotonic, now

HOUR = 3600.0
SHORT = 0.01


class SteppedClockTests(SynchronousTestCase):
    """A reactor of its own, never run, whose wall clock the test steps by hand."""

    def setUp(self) -> None:
        """Make a reactor that believes in ``self.step``."""
        self.step = 0.0
        self.reactor = EPollReactor()
        self.reactor.seconds = lambda: time.time() + self.step
        self.addCleanup(self.reactor._poller.close)
        self.fired: list[str] = []

    def pass_time(self) -> None:
        """Let a short timer expire, and let the reactor look at its timers as it does in every turn."""
        time.sleep(2 * SHORT)
        self.reactor.runUntilCurrent()

    def test_the_fault_is_real(self) -> None:
        """Without our help a clock stepped back freezes a timer."""
        self.reactor.callLater(SHORT, self.fired.append, "timer")
        self.step = -HOUR
        self.pass_time()
        self.assertEqual(self.fired, [])
        self.step = 0.0
        self.pass_time()
        self.assertEqual(self.fired, ["timer"])

    def test_a_new_timer_fires(self) -> None:
        """After `make_monotonic` the step has no effect."""
        make_monotonic(self.reactor)
        self.reactor.callLater(SHORT, self.fired.append, "timer")
        self.step = -HOUR
        self.pass_time()
        self.assertEqual(self.fired, ["timer"])

    def test_a_step_forward_fires_nothing_early(self) -> None:
        """A clock stepped forward is the other half of the fault: every timer at once."""
        make_monotonic(self.reactor)
        self.reactor.callLater(HOUR / 2, self.fired.append, "timer")
        self.step = HOUR
        self.pass_time()
        self.assertEqual(self.fired, [])

    def test_waiting_timers_keep_what_they_had_left(self) -> None:
        """Timers set before the change fire when they would have, in their order."""
        self.reactor.callLater(HOUR, self.fired.append, "late")
        self.reactor.callLater(SHORT, self.fired.append, "second")
        self.reactor.callLater(0, self.fired.append, "first")
        make_monotonic(self.reactor)
        self.step = -HOUR
        self.pass_time()
        self.assertEqual(self.fired, ["first", "second"])
        (late,) = self.reactor.getDelayedCalls()
        self.assertApproximates(late.getTime() - now(), HOUR, 1)
        late.reset(0)
        self.pass_time()
        self.assertEqual(self.fired, ["first", "second", "late"])

    def test_twice_is_once(self) -> None:
        """A program that embeds two nodes may ask twice."""
        make_monotonic(self.reactor)
        self.reactor.callLater(SHORT, self.fired.append, "timer")
        make_monotonic(self.reactor)
        self.pass_time()
        self.assertEqual(self.fired, ["timer"])
