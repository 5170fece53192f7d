"""``seamless doctor``: what on this host, or of its links, is in the way of a node, and what to do about it.

Looking (`look`) and judging (`findings`) are apart: the second is a function of what was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.errors import EXIT_DONE, EXIT_FAILED, PrivilegeError, SeamlessError
from seamless.intercept.payload.source_rules import uses_clients
from seamless.intercept.rule_changes import has_rules
from seamless.interfaces import troubles
from seamless.linux import control_socket, iptables
from seamless.linux.foreign_rules import rules_ahead
from seamless.linux.ruleset import IP_VERSIONS, PREFIXES, chain_name
from seamless.linux.transparent import lossy_settings
from seamless.tools import units
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb
from seamless.tools.text_table import wrapped
from seamless.transport.udp_counters import UdpCounters

DESCRIPTION = """\
Look for what is in the way of a node on this host: firewall rules of others that take its traffic first, links that are
down or whose paths carry shorter packets than configured, drops, full tables of the kernel, another configuration
elsewhere. Each finding says what to do. Nothing is changed; what needs root to be looked at is said to be unknown
without it.

The exit code is 0 when nothing was found, and 1 otherwise.
"""

CONNTRACK: Final = Path("/proc/sys/net/netfilter")
CONNTRACK_FULL: Final = 0.8
"""Of the connection tracking table: above it a burst of connections fills it, and the kernel drops new ones."""

Json = Mapping[str, Any]


@attrs.frozen
class Facts:
    """What was found on this host; ``unknown`` has a sentence for each thing that could not be looked at."""

    status: Json
    configuration: Configuration
    rules_ahead: tuple[str, ...] = ()
    conntrack: tuple[int, int] | None = None
    """Entries in the connection tracking table, and how many it has room for."""
    lossy_settings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@attrs.frozen
class Finding:
    """What is wrong, and what to do."""

    what: str
    advice: str


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand doctor to the parser."""
    parser = add_verb(subparsers, "doctor", run, "look for what is in the way of a node", DESCRIPTION)
    add_socket_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print all findings; return `EXIT_FAILED` if there are any."""
    facts = look(control_socket.find(arguments.node, arguments.socket))
    found = list(findings(facts))
    for finding in found:
        print(wrapped(f"{finding.what}: {finding.advice}"))
    for sentence in facts.unknown:
        print(wrapped(f"not looked at: {sentence}"))
    if not found:
        print(f"nothing is in the way of node {facts.status['node']}")
    return EXIT_FAILED if found else EXIT_DONE


# Looking.


def look(socket: Path) -> Facts:
    """Return what there is to see of the node at this control socket, and of its host."""
    status = control_socket.ask(socket, {"ask": "status"})
    answer = control_socket.ask(socket, {"ask": "configuration"})
    configuration = load_text(answer["text"], f"the configuration of node {answer['node']}")
    ahead: list[str] = []
    unknown: list[str] = []
    if has_rules(configuration, status["node"]):
        try:
            ahead = _look_at_rules(status["node"])
        except PrivilegeError:
            unknown.append("the rules of other programs; run this as root")
        except SeamlessError as error:
            unknown.append(f"the rules of other programs; {error}")
    clients = uses_clients(configuration, status["node"])
    lossy = lossy_settings() if clients else ()
    return Facts(status, configuration, tuple(ahead), _conntrack(), lossy, tuple(unknown))


def _look_at_rules(node: str) -> list[str]:
    saved = {version: iptables.save(version) for version in IP_VERSIONS}
    return [
        f"{'iptables' if version == 4 else 'ip6tables'} {line}"
        for version, text in saved.items()
        for prefix in PREFIXES
        for line in rules_ahead(text, chain_name(node, prefix))
    ]


def _conntrack() -> tuple[int, int] | None:
    try:
        count, most = ((CONNTRACK / f"nf_conntrack_{name}").read_text() for name in ("count", "max"))
        return int(count), int(most)
    except (OSError, ValueError):
        return None  # the kernel tracks no connections


# Judging.


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong, the gravest first."""
    yield from _of_rules(facts)
    yield from _of_links(facts.status)
    yield from _of_host(facts)
    for other in facts.status["configuration"]:
        differences = ", ".join(other["differences"])
        yield Finding(
            f"the configuration of {other['node']} differs in {differences}",
            "give both nodes the same file, and reload them",
        )


def _of_rules(facts: Facts) -> Iterator[Finding]:
    firewall = facts.status["firewall"]
    if has_rules(facts.configuration, facts.status["node"]) and not (firewall and firewall["installed"]):
        yield Finding("the firewall rules are not installed, so nothing is captured", "see the log of the daemon")
    for line in facts.rules_ahead:
        yield Finding(
            f"a rule of another program takes our traffic first ({line})",
            "remove it, or restart this node, whose rules then stand above it",
        )


def _of_links(status: Json) -> Iterator[Finding]:
    for link in status["links"]:
        name = f"the link to {link['neighbor']} ({units.address(link['remote'])})"
        if link["state"] != "UP":
            yield Finding(
                f"{name} is {link['state']}: {link['reason']}",
                f"is the node running, and does a firewall let UDP port {link['remote'][1]} pass, both ways",
            )
        elif link["mtu_bytes"] < link["mtu_ceiling_bytes"]:
            yield Finding(
                f"{name} carries IP packets of {link['mtu_bytes']} bytes, not {link['mtu_ceiling_bytes']}",
                "it works so; a larger MTU on the way, or `mtu` in the configuration, would end the search for more",
            )
        if link["failed_authentication"] or link["blocked"]:
            yield Finding(
                f"{name} has had datagrams that were not its neighbor's, or a neighbor that broke the protocol",
                "is its key used twice, or an address shared?",
            )


def _of_host(facts: Facts) -> Iterator[Finding]:
    for port in facts.status["ports"]:
        trouble = {**troubles(UdpCounters, port["counters"]), **port["counters"]["send_errors"]}
        if any(trouble.values()):
            yield Finding(
                f"UDP port {units.address(port['local'])}: {units.counts(trouble)}",
                "the machine is overloaded, or the daemon may not have large buffers: start it as root, or raise "
                "net.core.rmem_max and net.core.wmem_max to 8388608",
            )
        if not port["offload"]:
            yield Finding(
                f"UDP port {units.address(port['local'])} sends datagrams one by one",
                "the kernel or its driver has no UDP segmentation (UDP_SEGMENT): use Linux 5.0 or later",
            )
    if facts.conntrack is not None and facts.conntrack[0] > CONNTRACK_FULL * facts.conntrack[1]:
        entries, most = facts.conntrack
        yield Finding(
            f"the connection tracking table has {entries} of {most} entries",
            f"raise net.netfilter.nf_conntrack_max to {2 * most}, or the kernel drops new connections",
        )
    for setting in facts.lossy_settings:
        yield Finding(
            f"with {setting}=1 this kernel drops what servers answer to clients' addresses (source client)",
            f"sysctl -w {setting}=0, or say source egress",
        )
