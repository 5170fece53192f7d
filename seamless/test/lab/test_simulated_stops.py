"""Processes that stop for a while on virtual time, as under SIGSTOP: what waits for them, and what comes of it."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import SeamlessError
from seamless.interfaces import LinkDown
from seamless.lab import simulated
from seamless.test.lab.test_simulated import Applications, settle, simulation


class StoppedProcessTests(SynchronousTestCase):
    """The bed of etc/lab.conf, on which processes stop."""

    def test_datagrams_wait(self) -> None:
        """A relay that stops for less than a dead interval loses nothing: its datagrams wait in its sockets."""
        net = simulation(1)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"bulk", Random(2).randbytes(20_000_000), b"thanks")
        net.run(net.now + 0.2)
        net.stop_process("r1")
        before = net.node("r1").status(net.now).links[0].received
        net.run(net.now + 0.1)
        self.assertEqual(net.node("r1").status(net.now).links[0].received, before)
        waited = net.continue_process("r1")
        self.assertGreater(len(waited.batches), 10)
        self.assertEqual(waited.dropped, 0)
        self.assertGreater(net.node("r1").status(net.now).links[0].received, before + 10)
        net.run(net.now + 10.0, applications.done)
        applications.check()

    def test_sockets_are_bounded(self) -> None:
        self.patch(simulated, "SOCKET_BUFFER_BYTES", 200_000)
        net = simulation(1)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"bulk", Random(2).randbytes(20_000_000), b"thanks")
        net.run(net.now + 0.2)
        net.stop_process("r1")
        net.run(net.now + 0.2)
        waited = net.continue_process("r1", timers_first=True)
        self.assertGreater(waited.dropped, 10)
        self.assertLessEqual(waited.size_bytes, 200_000)
        net.run(net.now + 10.0, applications.done)
        applications.check()

    def test_no_timer_fires(self) -> None:
        """A process that is stopped for longer than the dead interval notices nothing of it before it goes on."""
        net = simulation(1)
        settle(net)
        downs: list[tuple[str, float]] = []
        for name in ("src", "r1"):
            net.nodes[name].on_event = lambda event, name=name: (
                downs.append((name, net.now)) if isinstance(event, LinkDown) else None
            )
        begin = net.now
        net.stop_process("r1")
        net.run(begin + 5.0)
        self.assertEqual({name for name, _ in downs}, {"src"})
        self.assertRaises(SeamlessError, net.command, "r1", lambda node, now: None)
        net.continue_process("r1")
        settle(net)
        self.assertRaises(SeamlessError, net.continue_process, "r1")
