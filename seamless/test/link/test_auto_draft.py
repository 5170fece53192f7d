"""The test cases of draft-ietf-ccwg-bbr, appendix "BBR Example Test Cases", by their names.

docs/congestion.rst says of each what differs here; these do not apply, and why: *Exiting STARTUP on Loss When
Application-Limited* (what an application-limited link loses is not its doing), *Handling Spurious Fast Recovery* and
*Handling Spurious RTO Recovery* (no loss lowers anything before a trial has shown that it is congestion, so there is
nothing to restore; `test_auto` has a path that reorders), *Entering and Exiting PROBE_RTT During STARTUP* (ProbeRTT is
entered from CRUISE only), and all of ``inflight_longterm``, which is not kept: *Handling Loss During PROBE_UP After
inflight_longterm is Set* is here as the end of UP by loss.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Impairment
from seamless.link.congestion.auto import PROBE_RTT_DURATION, PROBE_RTT_INTERVAL, Auto
from seamless.link.congestion.startup import FULL_BW_ROUNDS
from seamless.test.link.shared_path import SharedPath, measure, wire

RATE_BPS = 20e6
RTT = 0.02
STARTUP, DRAIN = "Startup", "Drain"
DOWN, CRUISE, REFILL, UP = "ProbeBW_DOWN", "ProbeBW_CRUISE", "ProbeBW_REFILL", "ProbeBW_UP"
PROBE_RTT = "ProbeRTT"


class Watched(SharedPath):
    """One link, and the states that its controller was in, with the time at which each began."""

    def __init__(self, impairments: tuple[Impairment, Impairment], **others: Any) -> None:
        super().__init__(["auto"], impairments, **others)
        self.states: list[tuple[str, float]] = []
        self.flow = self.flows[0]
        self._watch()

    def _watch(self) -> None:
        state = self.flow.ends[0].link.path_estimate().state
        if not self.states or self.states[-1][0] != state:
            self.states.append((state, self.now))
        self.at(self.now + 0.001, self._watch)

    @property
    def auto(self) -> Auto:
        """Return the controller."""
        controller = self.flow.ends[0].link._controller
        assert isinstance(controller, Auto)
        return controller

    def until(self, state: str, seconds: float = 5.0) -> None:
        """Let time pass until the controller is in ``state``."""
        self.run(self.now + seconds, lambda: self.states[-1][0] == state)
        if self.states[-1][0] != state:
            raise AssertionError(f"no {state} within {seconds} s: {self.states}")

    def left(self, state: str, seconds: float = 5.0) -> str:
        """Let time pass until the controller is no more in ``state``; return what it is in then."""
        self.run(self.now + seconds, lambda: self.states[-1][0] != state)
        return self.states[-1][0]

    def change(self, **changes: Any) -> None:
        """Change the way there."""
        direction = self.directions[0]
        direction.change(attrs.evolve(direction.impairment, **changes), self.now)


class DraftCases(SynchronousTestCase):
    def path(self, buffer_bdps: float = 2.0, rtt: float = RTT, begins: bool = True, **others: Any) -> Watched:
        path = Watched(wire(RATE_BPS, rtt, buffer_bdps, **others))
        if begins:
            path.begin(path.flow)
        return path

    def test_exiting_startup_on_bandwidth_plateau(self) -> None:
        """A queue ends it before three rounds without growth would; where there is none (a policer), these do."""
        path = self.path()
        self.assertEqual(path.left(STARTUP), DRAIN)
        path.until(CRUISE)
        bottleneck_bps = path.flow.ends[0].link.path_estimate().bottleneck_bps or 0.0
        self.assertLess(abs(bottleneck_bps / RATE_BPS - 1), 0.05)
        self.assertEqual(FULL_BW_ROUNDS, 3)

    def test_exiting_drain_based_on_inflight(self) -> None:
        """By the queue itself, which receive times show."""
        path = self.path()
        path.until(DRAIN)
        self.assertLess(path.auto.pacing_rate_bps(), 0.7 * RATE_BPS)
        self.assertEqual(path.left(DRAIN), DOWN)
        self.assertLess(path.directions[0].queued_bytes(path.now) * 8 / RATE_BPS, 0.004)

    def test_exiting_drain_based_on_time(self) -> None:
        path = self.path(buffer_bdps=4.0)
        path.until(DRAIN)
        began_at = path.now
        path.change(rate_bps=int(0.4 * RATE_BPS))
        self.assertEqual(path.left(DRAIN), DOWN)
        self.assertGreater(path.directions[0].queued_bytes(path.now), 0)
        self.assertLess(path.now - began_at, 0.5, "three round trips, longer by the queue")

    def test_exiting_probe_up_on_bandwidth_plateau(self) -> None:
        path = self.path()
        path.until(UP)
        dropped = path.directions[0].counters.queue_dropped
        self.assertEqual(path.left(UP), DOWN)
        self.assertEqual(path.directions[0].counters.queue_dropped, dropped)

    def test_exiting_probe_up_on_loss(self) -> None:
        """Also after a bandwidth is known, which is where the draft has inflight_longterm."""
        path = self.path(buffer_bdps=0.1)
        path.until(UP)
        dropped = path.directions[0].counters.queue_dropped
        self.assertEqual(path.left(UP), DOWN)
        self.assertGreater(path.directions[0].counters.queue_dropped, dropped)
        path.until(CRUISE)
        self.assertLess(path.auto.pacing_rate_bps(), 1.03 * RATE_BPS)

    def test_never_exiting_startup_when_application_limited_with_no_loss(self) -> None:
        path = self.path(begins=False)
        path.begin(path.flow, limit_bps=2e6)
        path.run(path.now + 5.0)
        self.assertEqual([state for state, _ in path.states], [STARTUP])

    def test_exiting_probe_down_on_inflight(self) -> None:
        path = self.path()
        path.until(UP)
        path.until(DOWN)
        self.assertLess(path.auto.pacing_rate_bps(), 0.95 * RATE_BPS)
        self.assertEqual(path.left(DOWN), CRUISE)
        self.assertLess(path.directions[0].queued_bytes(path.now) * 8 / RATE_BPS, 0.003)

    def test_exiting_probe_down_after_max_time(self) -> None:
        """It ends although the queue does not: then that is looked into by going slower yet, and this ends too."""
        path = self.path(buffer_bdps=8.0)
        path.until(UP)
        path.until(DOWN)
        path.change(rate_bps=int(0.75 * RATE_BPS))
        path.until(CRUISE, 2.0)
        path.run(path.now + 2.0)
        self.assertGreater(measure(path, 1.0)[0].rate_bps, 0.9 * 0.75 * RATE_BPS)

    def lengthen(self, path: Watched) -> None:
        """Make the path longer by too little for a queue, so that no round trip is as short as before."""
        for direction in path.directions:
            direction.change(attrs.evolve(direction.impairment, delay=RTT / 2 + 0.0014), path.now)

    def test_entering_and_exiting_probe_rtt(self) -> None:
        path = self.path()
        path.run(path.now + 1.0)
        self.lengthen(path)
        path.run(path.now + PROBE_RTT_INTERVAL + 4.0)
        states = [state for state, _ in path.states]
        estimate = path.flow.ends[0].link.path_estimate().min_rtt or 0.0
        if PROBE_RTT in states:
            index = states.index(PROBE_RTT)
            self.assertEqual(states[index + 1], CRUISE)
            (_, began_at), (_, ended_at) = path.states[index : index + 2]
            self.assertGreaterEqual(ended_at - began_at, PROBE_RTT_DURATION)
        self.assertGreater(estimate, RTT + 0.002, "the longer round trip is known")

    def test_skipping_probe_rtt_due_to_application_limited_sending(self) -> None:
        path = self.path()
        path.run(path.now + 1.5)
        path.end(path.flow)
        path.run(path.now + PROBE_RTT_INTERVAL + 1.0)
        path.begin(path.flow)
        path.run(path.now + 0.3)
        self.assertNotIn(PROBE_RTT, [state for state, _ in path.states])

    def aggregating(self) -> Watched:
        return Watched((wire(RATE_BPS, RTT, 2.0)[0], Impairment(delay=RTT / 2, aggregate=0.03)))

    def test_achieving_expected_startup_bandwidth_on_a_link_with_aggregation(self) -> None:
        path = self.aggregating()
        path.begin(path.flow)
        path.until(CRUISE)
        self.assertGreater(path.auto.path_estimate().bottleneck_bps or 0.0, 0.85 * RATE_BPS)

    def test_achieving_expected_cruise_bandwidth_on_a_link_with_aggregation(self) -> None:
        path = self.aggregating()
        path.begin(path.flow)
        path.run(path.now + 1.5)
        self.assertGreater(path.auto.window_bytes(), 2 * RATE_BPS * RTT / 8)
        self.assertGreater(measure(path, 1.5)[0].rate_bps, 0.92 * RATE_BPS)

    def test_correctly_managing_sub_packet_bdps(self) -> None:
        rate_bps = 1e6
        path = Watched(wire(rate_bps, 0.004, 20.0))
        path.begin(path.flow)
        path.run(path.now + 3.0)
        self.assertGreaterEqual(path.auto.window_bytes(), 4 * 1500)
        self.assertGreater(measure(path, 3.0)[0].rate_bps, 0.85 * rate_bps)

    def test_increasing_bandwidth_10x_and_ensuring_full_bandwidth_is_reached(self) -> None:
        path = self.path()
        path.change(rate_bps=int(RATE_BPS / 10))
        path.run(path.now + 2.0)
        path.change(rate_bps=int(RATE_BPS))
        path.until(UP)
        path.run(path.now + 20 * RTT)
        self.assertGreater(measure(path, 0.5)[0].rate_bps, 0.85 * RATE_BPS)

    def test_decreasing_bandwidth_10x_and_ensuring_max_bandwidth_adapts_down(self) -> None:
        path = self.path()
        path.run(path.now + 1.5)
        path.change(rate_bps=int(RATE_BPS / 10))
        path.run(path.now + 4.0)
        self.assertLess(path.auto.path_estimate().bottleneck_bps or 0.0, 1.3 * RATE_BPS / 10)
        measured = measure(path, 2.0)[0]
        self.assertGreater(measured.rate_bps, 0.85 * RATE_BPS / 10)
        self.assertLess(measured.lost, 0.03 * measured.sent)

    def test_handling_token_bucket_policers(self) -> None:
        """`test_auto` has the bounds; here, that no round with the bucket's surplus stays in the model."""
        there = Impairment(delay=RTT / 2, police_bps=int(RATE_BPS), police_bytes=100_000)
        path = Watched((there, Impairment(delay=RTT / 2)))
        path.begin(path.flow)
        path.run(path.now + 3.0)
        self.assertGreater(path.directions[0].counters.policed, 20)
        self.assertLess(path.auto.path_estimate().bottleneck_bps or 0.0, 1.15 * RATE_BPS)

    def test_handling_application_limited_sending_during_probe_refill(self) -> None:
        path = self.path()
        path.until(REFILL)
        known_bps = path.auto.path_estimate().bottleneck_bps or 0.0
        path.end(path.flow)
        path.begin(path.flow, limit_bps=1e6)
        path.run(path.now + 2.0)
        self.assertGreaterEqual(path.auto.path_estimate().bottleneck_bps or 0.0, 0.99 * known_bps)

    def test_states_follow_one_another_as_in_the_draft(self) -> None:
        path = self.path()
        path.run(path.now + 4.0)
        states = [state for state, _ in path.states]
        self.assertEqual(states[:3], [STARTUP, DRAIN, DOWN])
        self.assertIn(UP, states)
        allowed = {(STARTUP, DRAIN), (DRAIN, DOWN), (DOWN, CRUISE), (CRUISE, REFILL), (REFILL, UP), (UP, DOWN)}
        self.assertLessEqual(set(pairwise(states)), allowed | {(CRUISE, DOWN)})
