"""``seamless trace NODE``: the path to another node hop by hop, as the nodes on it see their links."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from seamless.errors import EXIT_DONE
from seamless.linux import control_socket
from seamless.tools import units
from seamless.tools.ping_command import count
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb
from seamless.tools.text_table import Row, table

DESCRIPTION = """\
Show the path from this node to another one, hop by hop: round trip time, loss, what was sent again and what waits, as
the node at the beginning of each hop reports it. What a node does not say within two seconds is unknown. Once, or every
second with -c, until Ctrl-C with -c 0.

    seamless trace dst
    seamless trace dst -c 0 -i 0.5
"""

SHORTEST_INTERVAL: Final = 0.5
"""Seconds: a node answers each of the others twice a second."""
LONGEST_INTERVAL: Final = 86400.0
"""Seconds."""

Json = Mapping[str, Any]


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand trace to the parser."""
    parser = add_verb(subparsers, "trace", run, "show the path to another node hop by hop", DESCRIPTION)
    parser.add_argument("peer", metavar="NODE", help="the other node")
    parser.add_argument("-c", dest="count", metavar="N", type=_times, default=1, help="how often (1); 0: until Ctrl-C")
    parser.add_argument("-i", dest="interval", metavar="SECONDS", type=_interval, default=1.0, help="how far apart (1)")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_socket_arguments(parser)


def _times(word: str) -> int:
    return 0 if word == "0" else count(word)


def _interval(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_INTERVAL <= seconds <= LONGEST_INTERVAL:
        allowed = f"from {SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:g} s"
        raise argparse.ArgumentTypeError(f"{word!r} is no interval {allowed}: nodes answer twice a second")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Print the path as often as asked for."""
    path = control_socket.find(arguments.node, arguments.socket)
    number = 0
    while True:
        answer = control_socket.ask(path, {"ask": "trace", "node": arguments.peer})
        print(json.dumps(answer) if arguments.json else text(answer), flush=True)
        number += 1
        if number == arguments.count:
            return EXIT_DONE
        time.sleep(arguments.interval)


def text(answer: Json) -> str:
    """Return a path for people."""
    header = ("HOP", "RTT", "LOST", "ARRIVES", "SENDS", "RESENT", "QUEUE")
    return table(header, [_row(hop) for hop in answer["hops"]])


def _row(hop: Json) -> Row:
    name = f"{hop['from']} - {hop['to']}"
    if "unknown" in hop:
        return (name, *(units.NOTHING,) * 5, f"unknown: {hop['unknown']}")
    try:
        rates = hop["rates"]
        cells = (
            units.milliseconds(hop["rtt"]),
            units.ratio(rates["lost_ratio"]),
            units.ratio(rates["arrived_ratio"]),
            units.rate(rates["sent_bps"]),
            str(hop["resent"]),
            units.size(hop["queued_bytes"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return (name, *(units.NOTHING,) * 5, "unknown: it reports in another form; is it of another version?")
    return (name, *cells)
