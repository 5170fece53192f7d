"""The program that keeps root for the interceptors: ``python -m seamless.intercept.privileged``.

It reads the configuration file itself, and again when the daemon asks for it, and computes the rules of its node from
that; from the daemon it takes single words only (`seamless.linux.rule_keeper`). It is the daemon's child, or a service
of its own (``etc/systemd``). It imports no Twisted, to stay small.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.errors import EXIT_DONE, ConfigurationError, SeamlessError, UsageError
from seamless.intercept.node_rules import kept_rulesets, routes, rulesets
from seamless.intercept.packets.admission import inspection
from seamless.intercept.packets.crossings import packet_queues
from seamless.intercept.payload.hold_rules import MARKS, hold_queues, holds
from seamless.intercept.payload.source_rules import DIAL_MARK, authorisation, uses_clients
from seamless.intercept.rule_matches import OWN_MARK
from seamless.linux.capture import Capture
from seamless.linux.installation import Installed
from seamless.linux.outlet import Outlet
from seamless.linux.privileged_channel import CAPTURE, DIAL, HOLD
from seamless.linux.rawip import SendsPackets
from seamless.linux.rawsocket import PACKET_SOCKET, open_packet, open_raw
from seamless.linux.rule_keeper import Assignment, Starters, keep_rules, report_failure, serve_daemons
from seamless.linux.ruleset import Ruleset
from seamless.linux.syn_holder import SynHolder
from seamless.linux.system import user_id
from seamless.linux.transparent import TransparentDialer


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="seamless.intercept.privileged", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, as the daemon has it")
    parser.add_argument("--node", required=True, metavar="NAME", help="the node whose rules to keep")
    parser.add_argument("--user", metavar="NAME", help="whom the daemon runs as, when not as root")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--channel", type=int, metavar="DESCRIPTOR", help="a socket to the daemon, which is our parent")
    way.add_argument("--listen", type=Path, metavar="SOCKET", help="where daemons of --user come to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the rules of a node until the daemon is gone, or until SIGTERM; return the exit code."""
    arguments = make_parser().parse_args(argv)
    if arguments.channel is None:
        return _stand(arguments)
    with socket.socket(fileno=arguments.channel) as channel:
        try:
            read = partial(_read, arguments)
            keep_rules(channel, arguments.node, read(), read=read)
        except SeamlessError as error:
            report_failure(channel, error)
            return error.exit_code
    return EXIT_DONE


def _stand(arguments: argparse.Namespace) -> int:
    try:
        if arguments.user is None:
            raise UsageError("--listen needs --user: the user that the daemon runs as")
        read = partial(_read, arguments)
        serve_daemons(arguments.listen, user_id(arguments.user), arguments.node, read(), read=read)
    except SeamlessError as error:
        print(f"seamless: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


def _read(arguments: argparse.Namespace) -> Assignment:
    """Read the configuration; return what it asks for, or raise `SeamlessError`."""
    configuration = _configuration(arguments)
    rules, kept = _rulesets(arguments, configuration)
    return Assignment(rules, kept, _starters(arguments, configuration), configuration.digest)


def _configuration(arguments: argparse.Namespace) -> Configuration:
    configuration = load_file(arguments.config)
    if arguments.node not in configuration.nodes:
        raise ConfigurationError(f"{arguments.config}: there is no node {arguments.node}")
    return configuration


def _rulesets(
    arguments: argparse.Namespace, configuration: Configuration
) -> tuple[tuple[Installed, ...], tuple[Ruleset, ...]]:
    """Return the rules that are installed while the daemon runs, and those that stay."""
    user = None if arguments.user is None else user_id(arguments.user)
    own: tuple[Installed, ...] = (
        *routes(configuration, arguments.node),
        *rulesets(configuration, arguments.node, user),
    )
    return own, kept_rulesets(configuration, arguments.node, user)


def _starters(arguments: argparse.Namespace, configuration: Configuration) -> Starters:
    """Return what this node has started when its daemon asks for it."""
    starters = {CAPTURE: _capturing(arguments, configuration)}
    if holds(configuration, arguments.node):
        queues = hold_queues(arguments.node)
        starters[HOLD] = lambda channel: SynHolder(channel, queues, MARKS).start()
    if uses_clients(configuration, arguments.node):
        authorise = authorisation(configuration, arguments.node)
        starters[DIAL] = lambda channel: TransparentDialer(channel, authorise, DIAL_MARK).start()
    return starters


def _capturing(arguments: argparse.Namespace, configuration: Configuration) -> Callable[[socket.socket], None]:
    """Return a function that starts to capture and release whole packets over a socket to the daemon.

    It handles the queues and packets that the configuration allows, whatever the daemon asks for.
    """
    found = packet_queues(configuration, arguments.node)
    queues = {queue.number: queue.super_packets for queue in found}
    refused = {queue.number for queue in found if queue.intercept.when_unreachable == "refuse"}
    is_gateway = any(queue.intercept.mode == "router" for queue in found)
    versions = {network.version for network in configuration.nodes[arguments.node].serves}
    inspect = inspection(configuration, arguments.node)

    def begin(channel: socket.socket) -> None:
        sockets: dict[int, SendsPackets] = {version: open_raw(version, OWN_MARK) for version in versions}
        if is_gateway and (sending := open_packet(OWN_MARK)) is not None:
            sockets[PACKET_SOCKET] = sending
        Capture(channel, queues, Outlet(inspect, sockets), refused).start()

    return begin


if __name__ == "__main__":
    sys.exit(main())
