"""A node's report in the words of Prometheus (its text format), for ``seamless status --metrics``.

One registry for each node, so that several nodes in one process do not mix. Nothing is kept here: the numbers are those
of the report, and what a scraper makes of them over time is its own business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from seamless.transport.report import LinkReport, PortReport, Report

_LINK_COUNTERS: Final = {
    "sent_bytes": "Bytes of IP packets sent",
    "received_bytes": "Bytes of datagrams received",
    "data_sent": "Datagrams with overlay packets sent",
    "control_sent": "Datagrams with link frames sent",
    "received": "Datagrams received",
    "acked": "Datagrams acknowledged",
    "lost": "Datagrams taken for lost",
    "resent": "Overlay packets sent again",
    "redundant": "Small overlay packets sent once more before they are missed",
    "duplicates_dropped": "Overlay packets that had come before",
    "forgotten": "Overlay packets lost and not to be sent again",
    "undelivered": "Overlay packets lost too often and given back",
    "cut": "Overlay packets cut anew, as they were longer than the path carries",
    "too_big": "Overlay packets longer than the path carries that could not be cut",
    "mtu_probes": "Datagrams sent to find the MTU of the path",
    "mtu_probes_lost": "Datagrams sent to find the MTU of the path, and lost",
    "black_holes": "Times that the path was found to carry less than before",
    "spurious": "Datagrams declared lost and then acknowledged",
    "probes": "Datagrams sent again to get an answer",
    "dropped_bulk": "Overlay packets dropped from a full queue",
    "dropped_express": "Express overlay packets dropped from a full queue",
    "failed_authentication": "Datagrams that did not open under their key",
    "replayed": "Datagrams that had come before",
    "malformed": "Datagrams with frames that make no sense",
    "blocked": "Datagrams of a neighbor that has broken the protocol too often",
    "restarts": "Times that the neighbor was another process than before",
    "pauses_sent": "Times that the neighbor was asked to pause a session",
    "pauses_received": "Times that the neighbor asked us to pause a session",
}
_LINK_GAUGES: Final = {
    "rate_bits_per_second": ("rate_bps", "Rate at which the link may send"),
    "mtu_bytes": ("mtu_bytes", "Longest IP packet that the path is known to carry"),
    "rtt_seconds": ("rtt", "Smoothed round trip time"),
    "rttvar_seconds": ("rttvar", "Variation of the round trip time"),
    "queued_bytes": ("queued_bytes", "Bytes that wait to be sent"),
    "in_flight_bytes": ("bytes_in_flight", "Bytes sent and not yet acknowledged"),
    "state_since_timestamp_seconds": ("since", "Unix time when the state last changed"),
}
_SESSION_COUNTERS: Final = {
    "records_sent": "Records sent",
    "records_acked": "Records acknowledged",
    "records_lost": "Records taken for lost",
    "records_spurious": "Records declared lost and then acknowledged",
    "records_received": "Records received",
    "records_repeated": "Records received again",
    "records_forged": "Records that did not open",
    "handshakes_refused": "Handshake messages that were no good, or too many",
    "fragments_refused": "Fragments that fit no record",
    "packets_dropped": "Whole packets dropped because they were late",
}
_SESSION_GAUGES: Final = {
    "streams": ("streams", "Open streams"),
    "rtt_seconds": ("smoothed_rtt", "Smoothed round trip time of express records"),
    "bulk_rtt_seconds": ("bulk_rtt", "Smoothed round trip time of bulk records"),
    "unsent_bytes": ("unsent_bytes", "Bytes that wait to be sent"),
    "unread_bytes": ("unread_bytes", "Bytes that wait to be read"),
    "reassembly_bytes": ("reassembly_bytes", "Bytes of incomplete records"),
}
_PORT_COUNTERS: Final = {
    "batches_in": "Batches received",
    "datagrams_in": "Datagrams received",
    "empty_in": "Datagrams received without a single byte",
    "batches_out": "Batches sent",
    "datagrams_out": "Datagrams sent",
    "datagrams_lost": "Datagrams that the kernel would not send",
    "kernel_drops": "Packets that the kernel dropped because our buffer was full",
    "receive_errors": "Failed receives",
    "offload_fallbacks": "Batches sent again as plain datagrams",
}


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
    yield from _families("seamless_link", labels, labelled, _LINK_COUNTERS, _LINK_GAUGES)


def _sessions(report: Report) -> Iterator[Metric]:
    labelled = [([session.peer], session) for session in report.sessions]
    yield from _families("seamless_session", ["peer"], labelled, _SESSION_COUNTERS, _SESSION_GAUGES)


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
    yield from _families("seamless_udp", ["local"], labelled, _PORT_COUNTERS, {})
    offload = GaugeMetricFamily("seamless_udp_offload", "Whether batches go out whole", labels=["local"])
    errors = CounterMetricFamily("seamless_udp_send_errors", "Failed sends", labels=["local", "errno"])
    for port in ports:
        offload.add_metric([_address(port.local)], port.offload)
        for name, count in port.counters.send_errors.items():
            errors.add_metric([_address(port.local), name], count)
    yield offload
    yield errors


def _families(
    prefix: str,
    labels: list[str],
    labelled: list[tuple[list[str], Any]],
    counters: dict[str, str],
    gauges: dict[str, tuple[str, str]],
) -> Iterator[Metric]:
    """Yield a family for every field that the tables name, with a sample for every labelled record."""
    for field, text in counters.items():
        counter = CounterMetricFamily(f"{prefix}_{field}", text, labels=labels)
        for values, record in labelled:
            counter.add_metric(values, getattr(record, field))
        yield counter
    for name, (field, text) in gauges.items():
        gauge = GaugeMetricFamily(f"{prefix}_{name}", text, labels=labels)
        for values, record in labelled:
            gauge.add_metric(values, getattr(record, field))
        yield gauge


def _by_reason(name: str, text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["event"])
    for event, count in counts.items():
        family.add_metric([event], count)
    return family


def _address(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
