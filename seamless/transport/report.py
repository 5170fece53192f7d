"""What a node says of itself: one record, from everything that counts something.

The cores, the UDP ports and the interceptors count from their start on and never look back. This takes a sample of the
links once a second, so that "now" can be said too: what two samples differ by is what happened between them, and costs
nothing per packet.

The fields of `Report` are the keys of ``seamless status --json``; docs/operating.rst explains them to people.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import attrs
from twisted.application.service import Service
from twisted.internet.task import LoopingCall

import seamless
from seamless.crypto.gate import DropReason
from seamless.interfaces import Address
from seamless.link.status import LinkStatus
from seamless.node import Node, NodeCounters
from seamless.routing.routing import RoutingStatus
from seamless.session.events import SessionStatus
from seamless.transport.driver import Driver
from seamless.transport.streams import Acceptors
from seamless.transport.udp_counters import UdpCounters

SAMPLE_INTERVAL: Final = 1.0
"""Seconds: what people mean by "now"."""
REPORTED_MIN: Final = 100
"""Datagrams in a sample below which it is not said how many of them arrived: those under way would matter too much."""
_NO_HANDSHAKES: Final = dict.fromkeys((reason.name.lower() for reason in DropReason), 0)


class RunningNode(Protocol):
    """A node service that has been started."""

    @property
    def driver(self) -> Driver:
        """Return its driver."""
        ...

    @property
    def acceptors(self) -> Acceptors:
        """Return the acceptors of streams that peers open."""
        ...


class Counting(Protocol):
    """Counts: ``counters`` is an attrs record of integers."""

    @property
    def counters(self) -> Any:
        """Return the record."""
        ...


class RuleKeeping(Counting, Protocol):
    """The rules' service, as far as a report is concerned."""

    @property
    def is_needed(self) -> bool:
        """Return whether the node has rules, or had some."""
        ...


class Intercepting(Counting, Protocol):
    """An interceptor, as far as a report is concerned."""

    @property
    def connections(self) -> int:
        """Return how many connections are spliced now."""
        ...

    @property
    def waiting(self) -> int:
        """Return how many connections wait for their far end."""
        ...


@attrs.frozen
class LinkRates:
    """What a link did during the last ``interval`` seconds; a ratio is None where there is nothing to divide by."""

    interval: float
    sent_bps: float
    received_bps: float
    arrived_ratio: float | None
    """Of the datagrams that we sent, what the neighbor says it received; None where it is few, too."""
    lost_ratio: float | None
    spurious_ratio: float | None


@attrs.frozen(kw_only=True, slots=False)
class LinkReport(LinkStatus):
    """The status of a link, with the rates of the last second; ``since`` is Unix time."""

    rates: LinkRates


@attrs.frozen
class SessionReport(SessionStatus):
    """The status of the session with the node ``peer``."""

    peer: str


@attrs.frozen
class RouteReport:
    """The way to another node: names from here to there, none when there is no way."""

    node: str
    path: tuple[str, ...]
    cost: int | None
    mtu_bytes: int | None


@attrs.frozen
class InterceptorReport:
    """An interceptor; ``counters`` has its connections by outcome, refusals by reason."""

    name: str
    connections: int
    waiting: int
    counters: dict[str, int]


@attrs.frozen
class PortReport:
    """A UDP port: every link with this ``local`` address goes through it."""

    local: Address
    offload: bool
    counters: UdpCounters


@attrs.frozen
class DriftReport:
    """A neighbor or peer whose configuration differs from ours, and the parts that differ."""

    node: str
    differences: tuple[str, ...]


@attrs.frozen
class Report:
    """All that a node reports. ``time`` is when it was made, in Unix time; durations are in seconds."""

    node: str
    overlay: str
    version: str
    process: int
    time: float
    uptime: float
    links: tuple[LinkReport, ...]
    routes: tuple[RouteReport, ...]
    sessions: tuple[SessionReport, ...]
    interceptors: tuple[InterceptorReport, ...]
    ports: tuple[PortReport, ...]
    packets: NodeCounters
    handshakes: dict[str, int]
    routing: dict[str, int]
    firewall: dict[str, int] | None
    configuration: tuple[DriftReport, ...]


_NO_RATES: Final = LinkRates(0.0, 0.0, 0.0, None, None, None)
_Ends: TypeAlias = tuple[str, Address, Address]


def _ends(link: LinkStatus) -> _Ends:
    """Return what tells a link from all others of a node."""
    return link.neighbor, link.local, link.remote


@attrs.frozen
class _Sample:
    at: float
    links: tuple[LinkStatus, ...]


class Reporter(Service):
    """Samples the links of a running node once a second, and makes reports of the node."""

    def __init__(
        self,
        reactor: Any,
        node: RunningNode,
        interceptors: Mapping[str, Intercepting],
        firewall: RuleKeeping | None = None,
        *,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._node = node
        self._interceptors = interceptors
        self._firewall = firewall
        self._unix_time = unix_time
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = reactor

    def startService(self) -> None:
        """Take the first sample, and one every second."""
        super().startService()
        self._started_at = self._reactor.seconds()
        self._before = self._latest = self._look()
        self._sampling.start(SAMPLE_INTERVAL, now=False)

    def stopService(self) -> None:
        """Stop sampling."""
        super().stopService()
        if self._sampling.running:
            self._sampling.stop()

    def _look(self) -> _Sample:
        now = self._reactor.seconds()
        return _Sample(now, self._core.status(now).links)

    def _sample(self) -> None:
        self._before, self._latest = self._latest, self._look()

    @property
    def _core(self) -> Node:
        return self._node.driver.node

    def report(self) -> Report:
        """Return what can be said of the node now."""
        driver, core = self._node.driver, self._core
        now = self._reactor.seconds()
        unix_time = self._unix_time()
        status = core.status(now)
        rates = self._rates()
        firewall = self._firewall
        return Report(
            node=core.name,
            overlay=core.configuration.overlay.name,
            version=seamless.__version__,
            process=os.getpid(),
            time=unix_time,
            uptime=now - self._started_at,
            links=tuple(
                LinkReport(
                    **_fields(attrs.evolve(link, since=unix_time - (now - link.since))),
                    rates=rates.get(_ends(link), _NO_RATES),
                )
                for link in status.links
            ),
            routes=self._routes(status.routing),
            sessions=tuple(SessionReport(**_fields(session), peer=peer) for peer, session in status.sessions.items()),
            interceptors=tuple(
                InterceptorReport(name, each.connections, each.waiting, _fields(each.counters))
                for name, each in self._interceptors.items()
            ),
            ports=tuple(PortReport(port.local, port.offload, _copied(port.counters)) for port in driver.ports),
            packets=status.counters,
            handshakes={**_NO_HANDSHAKES, **status.gate},
            routing=_routing_counters(_fields(status.routing.counters)),
            firewall=_fields(firewall.counters) if firewall is not None and firewall.is_needed else None,
            configuration=tuple(DriftReport(*differing) for differing in status.differences.items()),
        )

    def _rates(self) -> dict[_Ends, LinkRates]:
        """Return the rates between the last two samples, of the links in both: a reload opens and closes some."""
        interval = self._latest.at - self._before.at
        before = {_ends(link): link for link in self._before.links}
        pairs = ((before.get(_ends(link)), link) for link in self._latest.links)
        return {_ends(link): _rates(former, link, interval) for former, link in pairs if former is not None}

    def path(self, peer: str) -> tuple[str, ...]:
        """Return the names of the nodes from here to ``peer``, none when there is no way now."""
        routing = self._core.status(self._reactor.seconds()).routing
        return next((route.path for route in self._routes(routing) if route.node == peer), ())

    def _routes(self, routing: RoutingStatus) -> tuple[RouteReport, ...]:
        core = self._core
        found = {route.destination: route for route in routing.routes}
        reports = []
        for name, node in core.configuration.nodes.items():
            route = found.get(node.identifier)
            if route is not None:
                path = tuple(core.peer_name(identifier) for identifier in route.path)
                reports.append(RouteReport(name, path, route.distance, route.mtu_bytes))
            elif name != core.name:
                reports.append(RouteReport(name, (), None, None))
        return tuple(reports)


def _copied(counters: UdpCounters) -> UdpCounters:
    return attrs.evolve(counters, send_errors=counters.send_errors.copy())


def _fields(record: Any) -> dict[str, Any]:
    return attrs.asdict(record, recurse=False)


def _rates(before: LinkStatus, after: LinkStatus, interval: float) -> LinkRates:
    sent = after.sent - before.sent
    seen = after.sent_at_report - before.sent_at_report
    arrived = after.neighbor_received - before.neighbor_received
    return LinkRates(
        interval=interval,
        sent_bps=_per_second((after.sent_bytes - before.sent_bytes) * 8, interval),
        received_bps=_per_second((after.received_bytes - before.received_bytes) * 8, interval),
        arrived_ratio=_ratio(arrived, seen) if seen >= REPORTED_MIN else None,
        lost_ratio=_ratio(after.lost - before.lost, sent),
        spurious_ratio=_ratio(after.spurious - before.spurious, sent),
    )


def _per_second(amount: float, interval: float) -> float:
    return amount / interval if interval > 0 else 0.0


def _ratio(part: int, whole: int) -> float | None:
    """Return a number from 0 to 1; None of nothing, and when a count began anew because the neighbor restarted."""
    return min(1.0, part / whole) if whole > 0 and part >= 0 else None


def _routing_counters(counters: dict[str, Any]) -> dict[str, int]:
    refused = counters.pop("refused")
    return {**counters, **{f"refused_{reason.name.lower()}": count for reason, count in refused.items()}}
