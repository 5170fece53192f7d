"""Processes that stop for seconds and go on: what they missed is not counted as their neighbors' or peers' silence."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import StreamOpened, StreamReset
from seamless.lab.simulated import Simulation
from seamless.test.lab.test_simulated import HOPS, Applications, settle, simulation

STOP = 20.0
UPLOAD_BYTES = 4_000_000


class StopTests(SynchronousTestCase):
    """The bed of etc/lab.conf with two percent of loss, and one stream over it."""

    def begin(self, seconds: float) -> tuple[Simulation, Applications]:
        """Be so many seconds into a stream that is up to two tenths of a second long, and the first of its session."""
        net = simulation(1)
        for one, other in HOPS:
            net.impair(one, other, loss=0.02)
            net.impair(other, one, loss=0.02)
        settle(net)
        net.run(net.now + 0.5)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"bulk", Random(1).randbytes(UPLOAD_BYTES), bytes(100_000))
        net.run(net.now + seconds)
        self.assertFalse(applications.done())
        return net, applications

    def stop(self, name: str, seconds: float, stop: float, *, timers_first: bool) -> float:
        """Stop a process in mid-stream; return how long after its return the stream took to end."""
        net, applications = self.begin(seconds)
        net.stop_process(name)
        net.run(net.now + stop)
        self.assertFalse(applications.done())
        begin = net.now
        net.continue_process(name, timers_first=timers_first)
        net.run(begin + 60.0, applications.done)
        applications.check()
        self.assertEqual(net.node(name).status(net.now).counters.service_gaps, 1)
        return net.now - begin

    def test_the_ingress(self) -> None:
        """First acknowledgements that waited in its own sockets for 20 s are no round trip times."""
        for seconds, timers_first in ((0.02, True), (0.08, False), (0.1, True), (0.12, False), (0.15, True)):
            self.assertLess(self.stop("src", seconds, STOP, timers_first=timers_first), 1.0)

    def test_the_egress(self) -> None:
        """The ingress, which ran on, does not take 20 s for the round trip time either."""
        for seconds in (0.02, 0.1):
            self.assertLess(self.stop("dst", seconds, STOP, timers_first=False), 1.0)

    def press_a_key(self) -> Simulation:
        """Return a network in which a byte is on its way from src to dst, and nothing else but hellos."""
        net = simulation(1)
        settle(net)
        stream = net.command("src", lambda node, now: node.open_stream("dst", b"", now))
        net.run(net.now + 0.5)
        theirs = next(event.stream for event in net.nodes["dst"].events if isinstance(event, StreamOpened))
        net.command("dst", lambda node, now: node.accept_stream(theirs, now))
        net.run(net.now + 3.0)
        net.command("src", lambda node, now: node.send(stream, b"x", now))
        net.run(net.now + 0.005)
        return net

    def test_longer_than_one_gives_up(self) -> None:
        """Who was stopped for longer than ``give up`` has not waited in vain for so long."""
        for timers_first in (False, True):
            net = self.press_a_key()
            net.stop_process("src")
            net.run(net.now + 33.0)
            net.continue_process("src", timers_first=timers_first)
            net.run(net.now + 5.0)
            events = net.nodes["src"].events + net.nodes["dst"].events
            self.assertEqual([event for event in events if isinstance(event, StreamReset)], [])
            self.assertEqual(net.node("src").status(net.now).counters.service_gaps, 1)

    def test_round_trip_time_of_a_link(self) -> None:
        """What a relay's links measure is what the wires are, whatever it missed."""
        net, _ = self.begin(0.1)
        net.stop_process("r1")
        net.run(net.now + STOP)
        net.continue_process("r1")
        for _ in range(20):
            net.run(net.now + 0.05)
            for link in net.node("r1").status(net.now).links:
                self.assertLess(link.rtt, 0.1)

    def test_a_late_call_is_no_gap(self) -> None:
        """A machine that is busy for a tenth of a second has not stopped anything."""
        net, applications = self.begin(0.1)
        net.stop_process("src")
        net.run(net.now + 0.1)
        net.continue_process("src")
        net.run(net.now + 5.0, applications.done)
        applications.check()
        self.assertEqual(net.node("src").status(net.now).counters.service_gaps, 0)
