"""``seamless ping NODE``: measure the round trip to another node over the overlay, and print the path."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from seamless.errors import EXIT_DONE, UnreachableError
from seamless.linux import control_socket
from seamless.tools import units
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb

DESCRIPTION = """\
Have the daemon of a node on this host send 64 bytes (or as many as -s says) to another node and back, once a second, as
the bytes of an application go: over the links of the present path, sealed end to end, through both daemons. A lost
datagram is sent again by its link, so nothing is ever missing here: it is late.

    seamless ping dst -c 3
    seamless ping 10.1.9.2 -i 0.2 -s 10000

The exit code is 0 when there was at least one answer and 5 when there was none.
"""

PING_INTERVAL: Final = 1.0
"""Seconds from one ping to the next, as ping(8) has it."""
SHORTEST_INTERVAL: Final = 0.01
"""Seconds: a hundred connections a second to the daemon."""
LONGEST_INTERVAL: Final = 86400.0
DEFAULT_COUNT: Final = 4


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand ping to the parser."""
    parser = add_verb(subparsers, "ping", run, "measure the round trip to another node, and show the path", DESCRIPTION)
    parser.add_argument("peer", metavar="NODE", help="the other node, or an application's address that it serves")
    parser.add_argument("-c", dest="count", metavar="N", type=count, default=DEFAULT_COUNT, help="how often (4)")
    parser.add_argument(
        "-i", dest="interval", metavar="SECONDS", type=interval, default=PING_INTERVAL, help="how far apart (1)"
    )
    parser.add_argument("-s", dest="bytes", metavar="N", type=count, default=64, help="how many bytes (64)")
    add_socket_arguments(parser)


def count(word: str) -> int:
    """Return a number of times from 1 on; ``ValueError`` for anything else."""
    times = int(word)
    if times < 1:
        raise ValueError
    return times


def interval(word: str) -> float:
    """Return a number of seconds between two pings; ``ValueError`` for anything else."""
    seconds = float(word)
    if not SHORTEST_INTERVAL <= seconds <= LONGEST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{word!r} is not from {SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:g} s")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Ping ``count`` times; raise `UnreachableError` when there was no answer at all."""
    path = control_socket.find(arguments.node, arguments.socket)
    times: list[float] = []
    for number in range(arguments.count):
        if number:
            time.sleep(arguments.interval)
        answer = _ping(path, arguments.peer, arguments.bytes)
        if answer["round_trip"] is None:
            print(f"no answer: {answer['reason']}", flush=True)
        else:
            times.append(answer["round_trip"])
            way = " - ".join(answer["path"])
            print(f"answer from {answer['node']} after {units.milliseconds(times[-1])} ({way})", flush=True)
    if not times:
        raise UnreachableError(f"node {arguments.peer} did not answer any of {arguments.count} pings")
    shown = ", ".join(units.milliseconds(value) for value in (min(times), sum(times) / len(times), max(times)))
    print(f"{len(times)} of {arguments.count} answered; shortest, mean and longest: {shown}")
    return EXIT_DONE


def _ping(path: Path, peer: str, nbytes: int) -> Any:
    return control_socket.ask(path, {"ask": "ping", "node": peer, "bytes": nbytes})
