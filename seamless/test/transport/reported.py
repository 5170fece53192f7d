"""Reports of real nodes on virtual time, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.payload.ingress import IngressCounters
from seamless.interfaces import Address
from seamless.lab.simulated import Simulation
from seamless.test.lab.test_simulated import Applications, settle, simulation
from seamless.transport.report import SAMPLE_INTERVAL, LinkReport, Report, Reporter
from seamless.transport.udp_counters import UdpCounters

UNIX_TIME = 1_700_000_000.0
"""What the wall clock of the simulated node says at virtual time 0."""


@attrs.define
class QuietPort:
    """A UDP port through which nothing goes: the simulation has wires of its own."""

    local: Address
    offload: bool = True
    counters: UdpCounters = attrs.Factory(UdpCounters)


@attrs.define
class QuietInterceptor:
    """An interceptor with a past."""

    connections: int = 3
    waiting: int = 1
    counters: IngressCounters = attrs.Factory(lambda: IngressCounters(captured=7, gave_up=2))


class QuietDriver:
    """The driver of a simulated node."""

    def __init__(self, net: Simulation, name: str) -> None:
        self.node = net.node(name)
        self.name = name
        self.ports = [QuietPort(address) for address in self.node.config.addresses]


class QuietService:
    """The service of a simulated node."""

    def __init__(self, net: Simulation, name: str) -> None:
        self.driver: Any = QuietDriver(net, name)
        self.acceptors: Any = None


class Reported:
    """The bed of etc/lab.conf on virtual time, with a reporter at one node."""

    def __init__(self, name: str = "r1") -> None:
        self.net = simulation(1)
        settle(self.net)
        self.clock = Clock()
        self.clock.advance(self.net.now)
        self.service = QuietService(self.net, name)
        self.reporter = Reporter(
            self.clock,
            self.service,
            {"payload ingress": QuietInterceptor()},
            unix_time=lambda: self.unix_time,
        )
        self.reporter.startService()

    @property
    def unix_time(self) -> float:
        """Return what the wall clock says."""
        return UNIX_TIME + self.clock.seconds()

    def pass_time(self, seconds: float) -> None:
        """Let the network live, and the reporter look at it when it wants to."""
        for _ in range(round(seconds / SAMPLE_INTERVAL)):
            self.net.run(self.net.now + SAMPLE_INTERVAL)
            self.clock.advance(self.net.now - self.clock.seconds())

    def transfer(self, test: SynchronousTestCase, nbytes: int) -> Applications:
        """Begin to send so many bytes from src to dst."""
        applications = Applications(test, self.net, "src", "dst")
        applications.open(b"bulk", bytes(nbytes), b"")
        return applications

    def report(self) -> Report:
        """Return the node's report."""
        return self.reporter.report()

    def link(self, neighbor: str) -> LinkReport:
        """Return what the node reports of one link."""
        (link,) = [link for link in self.report().links if link.neighbor == neighbor]
        return link
