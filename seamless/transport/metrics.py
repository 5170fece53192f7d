"""A node's report in the words of Prometheus (its text format), for ``seamless status --metrics``.

One registry for each node, so that several nodes in one process do not mix. Nothing is kept here: the numbers are those
of the report, and what a scraper makes of them over time is its own business. Counters and gauges are declared, with
their descriptions, in the records that hold them (`seamless.interfaces.counter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from seamless.interfaces import COUNTER, GAUGE
from seamless.transport.report import LinkReport, PortReport, Report, SessionReport
from seamless.transport.udp_counters import UdpCounters


def exposition(report: Report) -> str:
    """Return a report in the text format that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_Reported(report))
    return generate_latest(registry).decode()


class _Reported(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        report = self._report
        node = InfoMetricFamily("seamless_node", "The node that says this")
        node.add_metric([], {"node": report.node, "overlay": report.overlay, "version": report.version})
        yield node
        yield GaugeMetricFamily("seamless_uptime_seconds", "Seconds since the start", value=report.uptime)
        yield from _links(report.links)
        yield from _sessions(report)
        yield from _routes(report)
        yield _configuration(report)
        yield from _interceptors(report)
        yield from _ports(report.ports)
        yield _by_reason("seamless_packets", "Overlay packets by what became of them", attrs.asdict(report.packets))
        yield _by_reason("seamless_handshakes", "Link handshakes by what became of them", report.handshakes)
        yield _by_reason("seamless_routing", "What routing did", report.routing)
        if report.firewall is not None:
            yield _by_reason("seamless_firewall", "What became of the firewall rules", report.firewall)


def _configuration(report: Report) -> Metric:
    differences = GaugeMetricFamily(
        "seamless_configuration_differences",
        "In how many things the configuration of a neighbor or peer is not ours",
        labels=["node"],
    )
    for other in report.configuration:
        differences.add_metric([other.node], len(other.differences))
    return differences


def _links(links: Iterable[LinkReport]) -> Iterator[Metric]:
    labelled = [([link.neighbor, _address(link.local), _address(link.remote)], link) for link in links]
    labels = ["neighbor", "local", "remote"]
    up = GaugeMetricFamily("seamless_link_up", "Whether the neighbor is heard and hears us", labels=labels)
    for values, link in labelled:
        up.add_metric(values, link.state == "UP")
    yield up
    yield from _families("seamless_link", labels, labelled, LinkReport)


def _sessions(report: Report) -> Iterator[Metric]:
    labelled = [([session.peer], session) for session in report.sessions]
    yield from _families("seamless_session", ["peer"], labelled, SessionReport)


def _routes(report: Report) -> Iterator[Metric]:
    reachable = GaugeMetricFamily("seamless_node_reachable", "Whether there is a path to a node", labels=["to"])
    hops = GaugeMetricFamily("seamless_path_hops", "Links on the path to a node", labels=["to"])
    for route in report.routes:
        reachable.add_metric([route.node], bool(route.path))
        if route.path:
            hops.add_metric([route.node], len(route.path) - 1)
    yield reachable
    yield hops


def _interceptors(report: Report) -> Iterator[Metric]:
    labels = ["interceptor"]
    connections = GaugeMetricFamily("seamless_interceptor_connections", "Spliced connections", labels=labels)
    waiting = GaugeMetricFamily("seamless_interceptor_waiting", "Connections without a far end yet", labels=labels)
    events = CounterMetricFamily(
        "seamless_interceptor", "Connections by what became of them", labels=["interceptor", "event"]
    )
    for each in report.interceptors:
        connections.add_metric([each.name], each.connections)
        waiting.add_metric([each.name], each.waiting)
        for event, count in each.counters.items():
            events.add_metric([each.name, event], count)
    yield connections
    yield waiting
    yield events


def _ports(ports: Iterable[PortReport]) -> Iterator[Metric]:
    labelled = [([_address(port.local)], port.counters) for port in ports]
    yield from _families("seamless_udp", ["local"], labelled, UdpCounters)
    offload = GaugeMetricFamily("seamless_udp_offload", "Whether batches go out whole", labels=["local"])
    errors = CounterMetricFamily("seamless_udp_send_errors", "Failed sends", labels=["local", "errno"])
    for port in ports:
        offload.add_metric([_address(port.local)], port.offload)
        for name, count in port.counters.send_errors.items():
            errors.add_metric([_address(port.local), name], count)
    yield offload
    yield errors


def _families(
    prefix: str, labels: list[str], labelled: list[tuple[list[str], Any]], record_type: type[attrs.AttrsInstance]
) -> Iterator[Metric]:
    """Yield a family for every counter and gauge of ``record_type``, with a sample for every labelled record."""
    for field in attrs.fields(record_type):
        family: CounterMetricFamily | GaugeMetricFamily
        if COUNTER in field.metadata:
            family = CounterMetricFamily(f"{prefix}_{field.name}", field.metadata[COUNTER], labels=labels)
        elif GAUGE in field.metadata:
            name, text = field.metadata[GAUGE]
            family = GaugeMetricFamily(f"{prefix}_{name}", text, labels=labels)
        else:
            continue
        for values, record in labelled:
            family.add_metric(values, getattr(record, field.name))
        yield family


def _by_reason(name: str, text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["event"])
    for event, count in counts.items():
        family.add_metric([event], count)
    return family


def _address(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
