"""``seamless measure NEIGHBOR``: what a link's path carries in each direction, and the ``rate`` line that fits it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from seamless.config.values import spelt_rate
from seamless.errors import EXIT_DONE
from seamless.linux import control_socket
from seamless.tools import units
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb
from seamless.tools.text_table import Row, table

DESCRIPTION = """\
Have the daemon of a node on this host measure a link: it and the neighbor load their direction of the path one after
the other, for about five seconds together (a path of 100 ms takes ten), and see what arrives. Packets that cross the
link meanwhile go first. Prints what each direction carries, what is lost whatever the rate is, what packets wait for
just below the capacity, and the `rate` line for the link's block.

    seamless measure r1
    seamless measure r1 --node src --json | jq .out.capacity_bps

One measurement at a time: a node that takes part in another refuses. docs/operating.rst says how to choose a rate.
"""

MEASURE_TIMEOUT: Final = 60.0
"""Seconds to wait for the daemon; a measurement ends by itself in less, whatever happens."""

Json = Mapping[str, Any]


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand measure to the parser."""
    parser = add_verb(subparsers, "measure", run, "measure what the path of a link carries", DESCRIPTION)
    parser.add_argument("neighbor", metavar="NEIGHBOR", help="the node at the other end of the link")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_socket_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print what was found."""
    path = control_socket.find(arguments.node, arguments.socket)
    found = control_socket.ask(path, {"ask": "measure", "node": arguments.neighbor}, MEASURE_TIMEOUT)
    rate_bps = rate_to_configure(found)
    print(json.dumps({**found, "rate_bps": rate_bps}, indent=1) if arguments.json else text(found, rate_bps))
    return EXIT_DONE


def rate_to_configure(found: Json) -> int:
    """Return the rate, in bits per second, that leaves no queue in either direction, rounded down to
    three digits."""
    rate_bps = int(min(found["out"]["rate_bps"], found["back"]["rate_bps"]))
    step: int = 10 ** max(0, len(str(rate_bps)) - 3)
    return max(1, rate_bps // step * step)


def text(found: Json, rate_bps: int) -> str:
    """Return what was found for people."""
    rows: list[Row] = [_row(f"to {found['neighbor']}", found["out"]), _row(f"from {found['neighbor']}", found["back"])]
    header = (f"{found['node']} - {found['neighbor']}", "CAPACITY", "LOSS FLOOR", "QUEUE AT", "WAITS", "MTU")
    lines = [
        f"path {units.address(found['local'])} to {units.address(found['remote'])}",
        "",
        table(header, rows),
        "",
        "For the block of this link:",
        f"    rate {spelt_rate(rate_bps)};",
    ]
    if found["out"]["is_least"] or found["back"]["is_least"]:
        lines += ["The path carries more than the processes at its ends: that is no bound of the path."]
    return "\n".join(lines)


def _row(name: str, way: Json) -> Row:
    capacity = f"{'at least ' * way['is_least']}{units.rate(way['capacity_bps'])}"
    waits = units.milliseconds(way["queue_delay"])
    return name, capacity, units.ratio(way["loss_floor"]), units.rate(way["rate_bps"]), waits, str(way["mtu_bytes"])
