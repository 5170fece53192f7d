"""``seamless status``: what is this node doing? The answer of its daemon, for people, for programs, for Prometheus.

What is sent, what arrives and what is sent again without need stand side by side for every link, because a rate that
was set too high shows nowhere else. Everything that is refused or dropped is there with its reason.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from seamless.config.values import spelt_rate
from seamless.errors import EXIT_DONE, SeamlessError, UsageError
from seamless.interfaces import troubles
from seamless.link.congestion.overload import passing_rate
from seamless.link.status import LinkStatus
from seamless.linux import control_socket
from seamless.tools import units
from seamless.tools.subcommands import VerbParsers, add_verb
from seamless.tools.text_table import WIDTH, Row, table
from seamless.transport.udp_counters import UdpCounters

DESCRIPTION = """\
Ask the daemon of a node on this host what it is doing, and print it: one line for each link, route, session and
interceptor, and what is wrong. Rates, and percentages beside them, are those of the last second. With -v there is all
that it counts, too.

    seamless status
    seamless status -v
    seamless status --node src --json | jq '.links[] | {neighbor, state}'
    watch -n 1 seamless status
    seamless status --all
    seamless status --node dst -v

--all, and --node with a node that does not run on this host, have the daemon here ask the others. What they do not say
within two seconds is unknown, and the reason stands there. Which nodes may ask is in the configuration (operators).

The daemon listens at /run/seamless/NODE.sock when root started it, else in the seamless folder of $XDG_RUNTIME_DIR, or
in the folder that the variable SEAMLESS_SOCKET_DIR named when it was started. docs/operating.rst explains every number.
"""

SUSPICIOUS_ARRIVAL: Final = 0.75
"""Below it, more gets lost than on any path that was worth a link: the path is probably slower than the link's rate."""
SUSPICIOUS_SHARE: Final = 0.1
"""Of its rate that a link must use before so much is said of it."""

_NOT_AS_HERE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a report raises that another version, or a liar, has made."""

Json = Mapping[str, Any]


def add_socket_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which daemon is asked."""
    parser.add_argument(
        "--node", metavar="NAME", help="the node; left out, the only one here, or the one called as this host is"
    )
    parser.add_argument("--socket", metavar="PATH", help="where its daemon listens, if not at the usual place")


def add_arguments(subparsers: VerbParsers) -> None:
    """Describe the verb status."""
    parser = add_verb(subparsers, "status", run, "show what a running node does", DESCRIPTION)
    add_socket_arguments(parser)
    parser.add_argument("--all", action="store_true", help="a line for each node of the overlay")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-v", "--verbose", action="store_true", help="addresses, sums and counters as well")
    form.add_argument("--json", action="store_true", help="everything, for programs")
    form.add_argument("--metrics", action="store_true", help="in the text format of Prometheus")


def run(arguments: argparse.Namespace) -> int:
    """Print a node's report."""
    if arguments.all:
        return _run_all(arguments)
    remote = _remote_node(arguments)
    path = control_socket.find(None if remote else arguments.node, arguments.socket)
    if arguments.metrics:
        print(control_socket.ask(path, {"ask": "metrics"}), end="")
        return EXIT_DONE
    question = {"ask": "status"} if remote is None else {"ask": "status of", "node": remote}
    report = control_socket.ask(path, question)
    if arguments.json:
        print(json.dumps(report, indent=1))
    elif remote is None:
        print(text(report, is_verbose=arguments.verbose))
    else:
        print(remote_text(report, is_verbose=arguments.verbose))
    return EXIT_DONE


def _remote_node(arguments: argparse.Namespace) -> str | None:
    """Return the node that is meant if it is none of this host, and a node of this host can ask it."""
    if (
        arguments.node is None
        or arguments.socket
        or arguments.metrics
        or control_socket.path_of(arguments.node).exists()
    ):
        return None
    return str(arguments.node) if control_socket.has_running() else None


def _run_all(arguments: argparse.Namespace) -> int:
    """Print what each node of the overlay says of itself."""
    if arguments.metrics:
        raise UsageError("--metrics are those of one node: leave --all out")
    path = control_socket.find(arguments.node, arguments.socket)
    reports = control_socket.ask(path, {"ask": "status of all"})
    print(json.dumps(reports, indent=1) if arguments.json else overview(reports))
    return EXIT_DONE


def remote_text(report: Json, *, is_verbose: bool = False) -> str:
    """Return a report of another node for people; raise `SeamlessError` when it is not as reports are here."""
    try:
        return text(report, is_verbose=is_verbose)
    except _NOT_AS_HERE:
        raise SeamlessError(
            f"node {report['node']} reports in another form: is it of another version? --json prints it as it is"
        ) from None


def overview(reports: Json) -> str:
    """Return a table with a line for each node."""
    rows: list[Row] = []
    for name, report in reports.items():
        try:
            rows.append(_overview_row(name, report))
        except _NOT_AS_HERE:
            rows.append((name, "unknown", *(units.NOTHING,) * 4))
            rows.append("it reports in another form: is it of another version?")
        else:
            rows.extend(_overview_remarks(report))
    return table(("NODE", "UP FOR", "LINKS UP", "CONNECTIONS", "SENDS", "VERSION"), rows)


def _overview_row(name: str, report: Json) -> Row:
    if "unknown" in report:
        return (name, "unknown", *(units.NOTHING,) * 4)
    links = report["links"]
    up = sum(link["state"] == "UP" for link in links)
    connections = sum(each["connections"] for each in report["interceptors"] if each["name"].startswith("payload"))
    sends = sum(link["rates"]["sent_bps"] for link in links)
    return (
        name,
        units.duration(report["uptime"]),
        f"{up} of {len(links)}",
        str(connections),
        units.rate(sends),
        str(report["version"]),
    )


def _overview_remarks(report: Json) -> Iterator[str]:
    """Yield why a node is unknown, or what is wrong there."""
    if "unknown" in report:
        yield str(report["unknown"])
        return
    for link in report["links"]:
        if link["state"] != "UP":
            yield f"its link to {link['neighbor']} is {link['state']}: {link['reason']}"
    for other in report["configuration"]:
        yield f"its configuration differs from that of {other['node']}"


def text(report: Json, *, is_verbose: bool = False) -> str:
    """Return a report for people: with one line for each thing and what is wrong, or with everything."""
    title = (
        f"node {report['node']} of overlay {report['overlay']}: seamless {report['version']}, "
        f"up {units.duration(report['uptime'])}, process {report['process']}"
    )
    parts = [textwrap.fill(title, WIDTH), _links(report, is_verbose), _routes(report)]
    if report.get("configuration"):
        parts.insert(1, _configuration(report))
    if report["sessions"]:
        parts.append(_sessions(report))
    if report["interceptors"]:
        parts.append(_interceptors(report))
    if is_verbose or any(_port_trouble(port) for port in report["ports"]):
        parts.append(_ports(report))
    if is_verbose:
        parts.append(_counted(report))
    return "\n\n".join(parts)


def _links(report: Json, is_verbose: bool) -> str:
    header = ("LINK", "STATE", "SENDS", "ARRIVES", "LOST", "WASTED", "RECEIVES", "RTT", "QUEUE")
    rows: list[Row] = []
    neighbors = [link["neighbor"] for link in report["links"]]
    for link in report["links"]:
        rates = link["rates"]
        state = f"{link['state']} {units.duration(report['time'] - link['since'])}"
        if link["state"] == "UP":
            now = (
                units.rate(rates["sent_bps"]),
                units.ratio(rates["arrived_ratio"]),
                units.ratio(rates["lost_ratio"]),
                units.ratio(rates["spurious_ratio"]),
                units.rate(rates["received_bps"]),
                units.milliseconds(link["rtt"]),
                units.size(link["queued_bytes"]),
            )
        else:
            now = (units.NOTHING,) * 7
        rows.append((link["neighbor"], state, *now))
        if is_verbose or neighbors.count(link["neighbor"]) > 1:
            rows.append(_path(link))
        if is_verbose:
            rows += [_estimates(link), _sums(link)] if link["state"] == "UP" else [_sums(link)]
        rows.extend(_remarks(link))
    return table(header, rows)


def _path(link: Json) -> str:
    """Return between which addresses a link is, and how fast and how long its packets are."""
    limit = "at" if link["congestion"] == "off" else f"{link['congestion']}, now at"
    mtu = f"mtu {link['mtu_bytes']}"
    if link["mtu_bytes"] < link["mtu_ceiling_bytes"]:
        mtu += f" of {link['mtu_ceiling_bytes']} ({link['mtu_state']})"
    ends = f"{units.address(link['local'])} to {units.address(link['remote'])}"
    return f"{ends}, {limit} {units.rate(link['rate_bps'])}, {mtu}"


def _sums(link: Json) -> str:
    """Return what a link has carried since the daemon's start."""
    return (
        f"in all: sent {units.size(link['sent_bytes'])}, received {units.size(link['received_bytes'])}, "
        f"lost {units.quotient(link['lost'], link['sent'])}, resent {link['resent']}, "
        f"spurious {units.quotient(link['spurious'], link['sent'])}"
    )


def _remarks(link: Json) -> Iterator[str]:
    """Yield what is wrong with a link."""
    if link["state"] != "UP":
        yield f"because: {link['reason']}"
    trouble = troubles(LinkStatus, link)
    if any(trouble.values()):
        yield f"refused or dropped: {units.counts(trouble)}"
    yield from _overload(link)


def _estimates(link: Json) -> str:
    """Return why the rate is what it is, and what is known of the path."""
    known = [f"queue {units.milliseconds(link['queue_delay'])}", f"lost at any rate {units.ratio(link['loss_floor'])}"]
    if link["minimum_rtt"] is not None:
        known.insert(0, f"RTT at least {units.milliseconds(link['minimum_rtt'])}")
    if link["bottleneck_bps"] is not None:
        known.insert(0, f"path {units.rate(link['bottleneck_bps'])}")
    return f"{link['congestion_state']}: {link['congestion_reason']}; {', '.join(known)}"


def _overload(link: Json) -> Iterator[str]:
    """Yield which rate would pass where a configured one is too high."""
    if link["congestion"] == "off" and link["bottleneck_bps"] is not None:
        passing = spelt_rate(passing_rate(link["bottleneck_bps"]))
        yield (
            f"the rate overloads the path (standing queue {units.milliseconds(link['queue_delay'])}, lost by it"
            f" {units.ratio(link['congestion_loss'])}): `rate {passing};` would pass; seamless measure"
            f" {link['neighbor']} finds out more exactly"
        )
    elif _is_overdriven(link):
        yield "much of what is sent does not arrive: is the path slower than the rate of this link?"


def _is_overdriven(link: Json) -> bool:
    rates = link["rates"]
    arrived = rates["arrived_ratio"]
    busy = rates["sent_bps"] > SUSPICIOUS_SHARE * link["rate_bps"]
    return link["congestion"] == "off" and busy and arrived is not None and arrived < SUSPICIOUS_ARRIVAL


def _routes(report: Json) -> str:
    rows = []
    for route in report["routes"]:
        if route["path"]:
            cells = (str(route["cost"]), f"{route['mtu_bytes']} B", " - ".join(route["path"]))
        else:
            cells = (units.NOTHING, units.NOTHING, "no path")
        rows.append((route["node"], *cells))
    return table(("NODE", "COST, 0.1 ms", "MTU", "PATH"), rows)


def _configuration(report: Json) -> str:
    rows = [(each["node"], ", ".join(each["differences"])) for each in report["configuration"]]
    remark = "give all nodes the same file, and reload those that had another"
    return table(("CONFIGURATION OF", "DIFFERS FROM OURS IN"), [*rows, remark])


def _sessions(report: Json) -> str:
    header = ("SESSION", "STREAMS", "RTT", "RECORDS SENT", "LOST", "WASTED", "UNSENT", "UNREAD")
    rows: list[Row] = []
    for session in report["sessions"]:
        sent = session["records_sent"]
        rows.append(
            (
                session["peer"],
                str(session["streams"]),
                units.milliseconds(session["smoothed_rtt"]) if session["established"] else "no keys yet",
                str(sent),
                units.quotient(session["records_lost"], sent),
                units.quotient(session["records_spurious"], sent),
                units.size(session["unsent_bytes"]),
                units.size(session["unread_bytes"]),
            )
        )
    return table(header, rows)


def _interceptors(report: Json) -> str:
    rows = [
        (each["name"], str(each["connections"]), str(each["waiting"]), units.counts(each["counters"]))
        for each in report["interceptors"]
    ]
    return table(("INTERCEPTOR", "OPEN", "WAITING", "CONNECTIONS SO FAR"), rows)


def _port_trouble(port: Json) -> dict[str, int]:
    """Return what is wrong with a UDP port, by name; nothing where nothing is."""
    counters = port["counters"]
    found = {**troubles(UdpCounters, counters), **counters["send_errors"]}
    return {name: count for name, count in found.items() if count}


def _ports(report: Json) -> str:
    rows = []
    for port in report["ports"]:
        counters, trouble = port["counters"], _port_trouble(port)
        rows.append(
            (
                units.address(port["local"]),
                "on" if port["offload"] else "off",
                units.size(counters["bytes_in"]),
                units.size(counters["bytes_out"]),
                units.counts(trouble) if trouble else "none",
            )
        )
    return table(("UDP PORT", "OFFLOAD", "IN", "OUT", "TROUBLE"), rows)


def _counted(report: Json) -> str:
    rows = [
        (name, units.counts(report[name])) for name in ("packets", "handshakes", "routing", "firewall") if report[name]
    ]
    return table(("COUNTED", "SO FAR"), rows)
