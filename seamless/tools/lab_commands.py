"""``seamless lab ...``: bring the lab of a configuration up, use it, change its wires, take it down."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from seamless.errors import EXIT_DONE, UsageError
from seamless.lab import background, wire_settings
from seamless.lab.bed import Bed
from seamless.tools.subcommands import EXIT_CODES, VerbParsers, add_verb

DESCRIPTION = """\
Run a wide area on this machine: every host of the configuration is a network namespace, every wire an emulated one
with delay, loss and the rest. Real servers run on the hosts, and with --nodes the overlay's daemons too. Where user
namespaces are allowed and /dev/net/tun may be opened by every user, this needs no root.

  seamless lab up etc/lab.conf --nodes
  seamless lab run src -- scp big.iso dst:/tmp/
  seamless lab wire r1 r2 loss 5 % burst 4 packets
  seamless lab wire r1 r2 from r1 down
  seamless lab status
  seamless lab down
"""

_SHOWN_COUNTERS = ("lost", "queue_dropped", "duplicated", "reordered", "corrupted", "black_holed", "outage")


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand lab, and those under it, to the parser."""
    parser = add_verb(subparsers, "lab", run, "run hosts and wires on this machine", DESCRIPTION)
    parser.add_argument("--lab", metavar="NAME", help="the lab meant, when several are up (its overlay's name)")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="lab_verb", required=True)

    up = verbs.add_parser("up", help="bring a lab up; it stays in the background", epilog=EXIT_CODES)
    up.add_argument("file", metavar="FILE", type=Path, help="a configuration with host and wire blocks")
    up.add_argument("--nodes", action="store_true", help="start the daemon of every host that is a node")
    up.add_argument("--seed", type=int, default=1, help="of all randomness on the wires (default 1)")

    run_verb = verbs.add_parser("run", help="run a command on a host; its exit code is this command's")
    run_verb.add_argument("host", metavar="HOST")
    run_verb.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="after --")

    shell = verbs.add_parser("shell", help="open a shell on a host")
    shell.add_argument("host", metavar="HOST")

    wire = verbs.add_parser("wire", help="change the wires between two hosts, or show them")
    wire.add_argument("one", metavar="A")
    wire.add_argument("other", metavar="B")
    wire.add_argument("words", metavar="WORDS", nargs="*", help="as in a wire block: loss 5 %%; from A; no loss; up")

    status = verbs.add_parser("status", help="show what is up and what the wires did")
    status.add_argument("--json", action="store_true", help="for machines")

    verbs.add_parser("down", help="take the lab down")


def run(arguments: argparse.Namespace) -> int:
    """Run one subcommand of ``seamless lab``; return the exit code."""
    if arguments.lab_verb == "up":
        return _up(arguments)
    bed = background.find(arguments.lab)
    match arguments.lab_verb:
        case "run":
            _become(
                bed, arguments.host, arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
            )
        case "shell":
            _become(bed, arguments.host, [os.environ.get("SHELL", "/bin/sh")])
        case "wire":
            _wire(bed, arguments)
        case "status":
            _status(bed, arguments.json)
        case "down":
            background.stop(bed)
    return EXIT_DONE


def _up(arguments: argparse.Namespace) -> int:
    bed = background.start(arguments.file, arguments.seed, arguments.nodes)
    print(f"lab {bed.directory.name} is up: {', '.join(bed.hosts)}; files and logs are in {bed.directory}")
    return EXIT_DONE


def _become(bed: Bed, host: str, command: list[str]) -> None:
    """Replace this process by the command, so that signals and the terminal are the command's own."""
    if not command:
        raise UsageError(f"Say what to run: seamless lab run {host} -- COMMAND")
    argv = bed.command(host, command)
    sys.stdout.flush()
    os.execv(argv[0], argv)


def _wire(bed: Bed, arguments: argparse.Namespace) -> None:
    told: list[str] = arguments.words
    direction = None
    if told[:1] == ["from"]:
        direction, told = (told[1:2] or [""])[0], told[2:]
    if told:
        bed.set_wire(arguments.one, arguments.other, direction=direction, **wire_settings.changes(told))
    for sender, impairment in bed.impairments(arguments.one, arguments.other).items():
        print(f"from {sender}: {wire_settings.described(impairment)}")


def _status(bed: Bed, as_json: bool) -> None:
    wires = {tuple(wire.hosts): bed.counters(*wire.hosts) for wire in bed.wires}
    if as_json:
        listed = [{"ends": ends, "counters": counters} for ends, counters in wires.items()]
        print(json.dumps({"lab": bed.directory.name, "hosts": list(bed.hosts), "wires": listed}, indent=1))
        return
    print(f"lab {bed.directory.name}: {', '.join(bed.hosts)} ({bed.directory})")
    for (one, other), sides in wires.items():
        impairments = bed.impairments(one, other)
        for sender, receiver in ((one, other), (other, one)):
            print(f"{sender} -> {receiver}: {wire_settings.described(impairments[sender])}")
            print(f"    {_sentence(sides[sender])}")


def _sentence(counters: Mapping[str, int]) -> str:
    """Return one direction's counters: what passed, and whatever else is not nought."""
    passed = f"{counters['packets_out']} of {counters['packets_in']} packets, {counters['bytes_out']} bytes"
    events = [f"{counters[name]} {name.replace('_', ' ')}" for name in _SHOWN_COUNTERS if counters[name]]
    return ", ".join([passed, *events])
