"""``congestion auto`` between real links over the lab's model of a wire, in virtual time: what it must show.

Rates are low and times short, so that a test costs little; ``python -m bench path`` has the whole matrix.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Impairment
from seamless.test.link.shared_path import Measured, SharedPath, measure, queue_samples, wire

RATE_BPS = 40e6
RTT = 0.01
BDP_PACKETS = RATE_BPS * RTT / 8 / 1500


def left_of(rate_bps: float, loss: float) -> float:
    """Return what a wire of this rate leaves after losses."""
    return rate_bps * (1 - loss)


def auto(impairments: tuple[Impairment, Impairment], seed: int = 1, **others: Any) -> SharedPath:
    """Return a path with one link, whose traffic begins now."""
    path = SharedPath(["auto"], impairments, seed, **others)
    path.begin(path.flows[0])
    return path


def state_of(path: SharedPath, flow: int = 0) -> str:
    """Return what a link's controller does now."""
    return path.flows[flow].ends[0].link.path_estimate().state


def change(path: SharedPath, **changes: Any) -> None:
    """Change the wire; a delay in both directions."""
    for index, direction in enumerate(path.directions):
        mine = changes if index == 0 else {name: value for name, value in changes.items() if name == "delay"}
        direction.change(attrs.evolve(direction.impairment, **mine), path.now)


class RateTests(SynchronousTestCase):
    """Point 1 and 2: it fills what it does not know, and sends little in vain."""

    def check(self, loss: float, share: float, **others: Any) -> Measured:
        path = auto(wire(RATE_BPS, RTT, 1.0, loss, **others))
        path.run(path.now + 1.5)
        measured = measure(path, 2.5)[0]
        self.assertGreater(measured.rate_bps, share * left_of(RATE_BPS, loss))
        self.assertLess(measured.sent_ratio, 1.02 / (1 - loss))
        self.assertLess(measured.spurious, 0.01 * measured.sent)
        self.assertEqual(path.directions[0].counters.lost > 0, loss > 0)
        return measured

    def test_without_loss(self) -> None:
        self.check(0.0, 0.96)

    def test_random_loss_is_not_congestion(self) -> None:
        self.check(0.02, 0.92)

    def test_a_fifth_lost(self) -> None:
        self.check(0.2, 0.88)

    def test_bursts_of_eight(self) -> None:
        self.check(0.05, 0.9, burst_packets=8.0)

    def test_a_shallow_buffer(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 0.25))
        path.run(path.now + 1.5)
        measured = measure(path, 2.5)[0]
        self.assertGreater(measured.rate_bps, 0.92 * RATE_BPS)
        self.assertLess(measured.sent_ratio, 1.02)

    def test_a_configured_bound_holds(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0), rate_bps=20e6)
        path.run(path.now + 1.0)
        measured = measure(path, 1.0)[0]
        self.assertGreater(measured.rate_bps, 0.93 * 20e6)
        self.assertLess(measured.rate_bps, 1.01 * 20e6)


class QueueTests(SynchronousTestCase):
    """Point 3: a keystroke beside bulk waits for little more than alone."""

    def check(self, rtt: float, limit: float) -> None:
        path = auto(wire(RATE_BPS, rtt, 4.0))
        path.run(path.now + 2.0)
        samples = queue_samples(path, 3.0)
        self.assertLess(samples[len(samples) // 2], 0.003)
        self.assertLess(samples[int(len(samples) * 0.95)], limit)
        self.assertLess(samples[int(len(samples) * 0.99)], 0.012)
        self.assertGreater(samples[-1], 0.002, "it has probed")

    def test_short_path(self) -> None:
        self.check(0.01, 0.005)

    def test_long_path(self) -> None:
        self.check(0.05, 0.0085)


class StartupTests(SynchronousTestCase):
    """Point 6."""

    def test_full_rate_within_ten_round_trips_and_few_drops(self) -> None:
        rtt = 0.03
        path = auto(wire(RATE_BPS, rtt, 1.0))
        path.run(path.now + 10 * rtt)
        measured = measure(path, 3 * rtt)[0]
        drops = path.directions[0].counters.queue_dropped
        self.assertGreater(measured.rate_bps, 0.9 * RATE_BPS)
        self.assertLess(drops, 0.5 * RATE_BPS * rtt / 8 / 1500)


class DuelTests(SynchronousTestCase):
    """Point 4, against our own CUBIC, which is fair to others by RFC 9438."""

    RATE_BPS = 30e6

    def shares(self, words: list[str], buffer_bdps: float, late: float, seconds: float) -> list[float]:
        path = SharedPath(words, wire(self.RATE_BPS, 0.02, buffer_bdps))
        for flow, at in zip(path.flows, (0.0, late)):
            path.at(path.now + at, path.begin, flow)
        path.run(path.now + late + 2.0)
        rates = [measured.rate_bps for measured in measure(path, seconds)]
        self.assertGreater(sum(rates), 0.9 * self.RATE_BPS)
        return [rate / sum(rates) for rate in rates]

    def test_against_cubic(self) -> None:
        share = self.shares(["auto", "cubic"], 1.0, 0.0, 8.0)[0]
        self.assertGreater(share, 0.25)
        self.assertLess(share, 0.75)

    def test_two_of_a_kind(self) -> None:
        share = self.shares(["auto", "auto"], 1.0, 0.0, 5.0)[0]
        self.assertLess(abs(share - 0.5), 0.1)

    def test_a_late_one_grows(self) -> None:
        """It gets a quarter within eight seconds of the bottleneck that was another's."""
        self.assertGreater(self.shares(["auto", "auto"], 1.0, 2.0, 6.0)[1], 0.2)


class ChangeTests(SynchronousTestCase):
    """Point 5, and the changes of paths."""

    def test_rate_falls_to_a_fifth_and_rises(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0))
        path.run(path.now + 1.5)
        sent = path.flows[0].ends[0].status.sent
        change(path, rate_bps=int(RATE_BPS / 5))
        path.run(path.now + 1.0)
        down = measure(path, 1.0)[0]
        self.assertGreater(down.rate_bps, 0.9 * RATE_BPS / 5)
        self.assertLess(down.queue_dropped, 0.02 * down.sent)
        change(path, rate_bps=int(RATE_BPS))
        path.run(path.now + 4.0)
        self.assertGreater(measure(path, 1.0)[0].rate_bps, 0.9 * RATE_BPS)
        status = path.flows[0].ends[0].status
        self.assertLess(status.lost, 0.05 * (status.sent - sent))

    def test_policer(self) -> None:
        """Nothing queues there: what exceeds the rate is lost, and the loss goes when we send slower."""
        rate_bps = int(RATE_BPS)
        there = Impairment(delay=RTT / 2, police_bps=rate_bps, police_bytes=int(rate_bps / 8 * 0.05))
        path = auto((there, Impairment(delay=RTT / 2)))
        path.run(path.now + 1.5)
        measured = measure(path, 3.0)[0]
        self.assertGreater(path.directions[0].counters.policed, 100)
        self.assertGreater(measured.rate_bps, 0.9 * rate_bps)
        self.assertLess(measured.lost, 0.05 * measured.sent)

    def test_longer_path(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 4.0))
        path.run(path.now + 1.0)
        change(path, delay=4 * RTT / 2)
        path.run(path.now + 4.0)
        self.assertGreater(measure(path, 1.0)[0].rate_bps, 0.9 * RATE_BPS)
        self.assertGreater(path.flows[0].ends[0].link.path_estimate().min_rtt or 0.0, 3.5 * RTT)

    def test_black_hole(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0))
        path.run(path.now + 1.5)
        change(path, down=True)
        path.run(path.now + 5.0)
        self.assertGreater(path.directions[0].counters.outage, 0)
        change(path, down=False)
        path.run(path.now + 0.5)
        self.assertGreater(measure(path, 0.5)[0].rate_bps, 0.9 * RATE_BPS)

    def test_short_black_hole(self) -> None:
        """The link stays UP; all that was in flight is lost, which says nothing of the path's rate."""
        path = auto(wire(RATE_BPS, RTT, 1.0))
        path.run(path.now + 1.5)
        change(path, down=True)
        path.run(path.now + 0.2)
        change(path, down=False)
        self.assertTrue(path.flows[0].ends[0].link.is_up)
        path.run(path.now + 0.4)
        self.assertGreater(measure(path, 0.5)[0].rate_bps, 0.9 * RATE_BPS)

    def test_reordering(self) -> None:
        path = auto(wire(RATE_BPS, 0.02, 1.0, reorder=0.02, reorder_delay=0.01))
        path.run(path.now + 2.5)
        self.assertGreater(measure(path, 1.5)[0].rate_bps, 0.9 * RATE_BPS)
        self.assertGreater(path.directions[0].counters.reordered, 50)

    def test_acknowledgements_that_come_together(self) -> None:
        path = auto((wire(RATE_BPS, RTT, 1.0)[0], Impairment(delay=RTT / 2, aggregate=0.02)))
        path.run(path.now + 1.5)
        measured = measure(path, 1.5)[0]
        self.assertGreater(measured.rate_bps, 0.92 * RATE_BPS)
        self.assertLess(measured.queue_dropped, 0.01 * measured.sent)

    def test_late_processes(self) -> None:
        """Both ends are late by a millisecond in the mean, and by ten at times: no queue, and no loss of rate."""
        path = auto(wire(RATE_BPS, RTT, 1.0, 0.005), lateness=0.001)
        path.run(path.now + 1.5)
        self.assertGreater(measure(path, 2.0)[0].rate_bps, 0.9 * RATE_BPS)


class IdleTests(SynchronousTestCase):
    """What is known of a path survives, and does no harm."""

    def test_a_new_connection_begins_at_the_rate(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0))
        flow = path.flows[0]
        path.run(path.now + 1.5)
        path.end(flow)
        path.run(path.now + 10.0)
        path.begin(flow)
        path.run(path.now + 2 * RTT)
        self.assertGreater(measure(path, 5 * RTT)[0].rate_bps, 0.9 * RATE_BPS)

    def test_a_path_that_became_slower_meanwhile(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0))
        flow = path.flows[0]
        path.run(path.now + 1.5)
        path.end(flow)
        path.run(path.now + 10.0)
        change(path, rate_bps=int(RATE_BPS / 5))
        path.begin(flow)
        first = measure(path, 0.5)[0]
        self.assertLess(first.queue_dropped, 3 * BDP_PACKETS)
        self.assertGreater(measure(path, 0.5)[0].rate_bps, 0.85 * RATE_BPS / 5)

    def test_little_traffic_teaches_nothing(self) -> None:
        path = auto(wire(RATE_BPS, RTT, 1.0))
        flow = path.flows[0]
        path.run(path.now + 1.5)
        path.end(flow)
        path.run(path.now + 0.5)
        path.begin(flow, limit_bps=1e6)
        path.run(path.now + 6.0)
        estimate = flow.ends[0].link.path_estimate()
        self.assertGreater(estimate.bottleneck_bps or 0.0, 0.95 * RATE_BPS)
        path.end(flow)
        path.begin(flow)
        path.run(path.now + 3 * RTT)
        self.assertGreater(measure(path, 5 * RTT)[0].rate_bps, 0.85 * RATE_BPS)

    def test_little_traffic_from_the_start(self) -> None:
        """Startup goes on as long as there is not enough to find the rate with, and is not ended by it."""
        path = SharedPath(["auto"], wire(RATE_BPS, RTT, 1.0, 0.01))
        flow = path.flows[0]
        path.begin(flow, limit_bps=0.5e6)
        path.run(path.now + 8.0)
        self.assertGreater(path.directions[0].counters.lost, 0)
        self.assertEqual(state_of(path), "Startup")
        path.end(flow)
        path.begin(flow)
        path.run(path.now + 0.5)
        self.assertGreater(measure(path, 0.5)[0].rate_bps, 0.85 * RATE_BPS)
