"""``seamless connections`` and ``seamless explain ADDRESS:PORT``: what a node carries now, and what it would do.

The daemon measures for half a second before it answers. Text of other nodes was escaped when it arrived
(`seamless.wire.text`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from seamless.errors import EXIT_DONE
from seamless.linux import control_socket
from seamless.tools import units
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb
from seamless.tools.text_table import Row, table

CONNECTIONS_DESCRIPTION = """\
Show the connections that a node on this host carries, as ingress or as egress: who talks to whom as the applications
mean it, over which nodes, since when, how fast, and what holds them up. Rates are those of the last half second. Below
stand the last ones that were refused or have ended, with the reason.

    seamless connections --to 10.1.9.0/24 --port 22
    seamless connections --slow
    seamless connections --json | jq '.connections[] | {client, server, held_by}'

Whole packets (intercept local, intercept router) belong to no connection of the node's and are not listed.
"""

EXPLAIN_DESCRIPTION = """\
Say what would become of a TCP connection from this node's host to an address: whether it would be captured, by which
rule, to which egress and over which path, and if not, why. Nothing is sent.

    seamless explain 10.1.9.2:22
"""

ENDED_SHOWN: Final = 10
"""Ended connections shown without --ended."""

Json = Mapping[str, Any]


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommands connections and explain to the parser."""
    parser = add_verb(
        subparsers, "connections", connections, "show the connections that a node carries", CONNECTIONS_DESCRIPTION
    )
    parser.add_argument("--to", metavar="ADDRESS", help="only those to this address or prefix")
    parser.add_argument("--port", type=int, metavar="N", help="only those to this port")
    parser.add_argument("--slow", action="store_true", help="only those that something holds up")
    parser.add_argument("--sort", metavar="BY", default="rate", help="rate, age, bytes or resends (rate)")
    parser.add_argument("--rows", type=int, metavar="N", default=100, help="how many at most (100, up to 1000)")
    parser.add_argument("--ended", action="store_true", help="all of the last hundred that were refused or have ended")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_socket_arguments(parser)
    parser = add_verb(
        subparsers, "explain", explain, "say what would become of a connection to an address", EXPLAIN_DESCRIPTION
    )
    parser.add_argument("to", metavar="ADDRESS:PORT", help="as in 10.1.9.2:22 or [fd00::1]:22")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_socket_arguments(parser)


def connections(arguments: argparse.Namespace) -> int:
    """Print the connections of a node."""
    question = {
        "ask": "connections",
        "to": arguments.to,
        "port": arguments.port,
        "slow": arguments.slow,
        "sort": arguments.sort,
        "rows": arguments.rows,
    }
    answer = control_socket.ask(control_socket.find(arguments.node, arguments.socket), question)
    if arguments.json:
        print(json.dumps(answer, indent=1))
    else:
        print(text(answer, len(answer["ended"]) if arguments.ended else ENDED_SHOWN))
    return EXIT_DONE


def explain(arguments: argparse.Namespace) -> int:
    """Print what would become of a connection."""
    path = control_socket.find(arguments.node, arguments.socket)
    answer = control_socket.ask(path, {"ask": "explain", "to": arguments.to})
    print(json.dumps(answer, indent=1) if arguments.json else explanation(answer))
    return EXIT_DONE


def text(answer: Json, ended: int) -> str:
    """Return the answer for people, with so many of the ended connections."""
    shown = len(answer["connections"])
    title = f"node {answer['node']}: {answer['open']} connections"
    if answer["matching"] != answer["open"] or shown != answer["matching"]:
        title += f", {answer['matching']} of them asked for, {shown} shown"
    parts = [title]
    if shown:
        parts.append(_open(answer["connections"]))
    if answer["ended"][:ended]:
        parts.append(_ended(answer["ended"][:ended]))
    return "\n\n".join(parts)


def _open(rows: list[Json]) -> str:
    header = ("CLIENT", "SERVER", "AGE", "TO SERVER", "TO CLIENT", "RTT", "RESENT", "PATH")
    cells: list[Row] = []
    for row in rows:
        rtt = units.NOTHING if row["rtt"] is None else units.milliseconds(row["rtt"])
        cells.append(
            (
                units.address(row["client"]),
                units.address(row["server"]),
                units.duration(row["age"]),
                units.rate(row["to_server_bps"]),
                units.rate(row["to_client_bps"]),
                rtt,
                str(row["resends"]),
                _way(row),
            )
        )
        if row["held_by"] is not None:
            sizes = f"{units.size(row['to_server_bytes'])} to the server, {units.size(row['to_client_bytes'])} back"
            cells.append(f"held up: {row['held_by']} ({sizes})")
    return table(header, cells)


def _way(row: Json) -> str:
    if row["egress"] is None:
        return "direct"
    return " - ".join(row["path"]) or f"no path from {row['ingress']} to {row['egress']}"


def _ended(rows: list[Json]) -> str:
    header = ("CLIENT", "SERVER", "AGO", "OPEN FOR", "TO SERVER", "TO CLIENT", "BECAUSE")
    cells = [
        (
            units.address(row["client"]),
            units.address(row["server"]),
            units.duration(row["ago"]),
            "refused" if row["refused"] else units.duration(row["seconds"]),
            units.size(row["to_server_bytes"]),
            units.size(row["to_client_bytes"]),
            row["reason"],
        )
        for row in rows
    ]
    return table(header, cells)


def explanation(answer: Json) -> str:
    """Return what would become of a connection, for people."""
    verdict = "is captured" if answer["captured"] else "is not captured"
    lines = [f"{units.address(answer['destination'])} {verdict} here: {answer['reason']}"]
    if answer["rule"]:
        lines.append(f"rule:   {answer['rule']}")
    if answer["egress"] and answer["rule"]:
        lines.append(f"egress: {answer['egress']}")
        lines.append(f"path:   {' - '.join(answer['path']) or 'none now'}")
    if answer["captured"] and not answer["rules_installed"]:
        lines.append("but the firewall rules are not installed: see the log of the daemon")
    return "\n".join(lines)
