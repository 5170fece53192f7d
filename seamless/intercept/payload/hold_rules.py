"""Firewall rules that hold the SYNs of captured connections, and that end them as the egress says.

Pure: from the configuration to `Rule` values. `seamless.intercept.node_rules` draws the chains. What holds is
`seamless.linux.syn_holder`; how a connection fails is a mark on its SYN (`MARKS`), by which the firewall rejects it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from seamless.config.model import Configuration, WhenUnreachable
from seamless.intercept.rule_matches import (
    OTHERS_PASS,
    OWN_MARK,
    OWN_PASS,
    comment_match,
    network_match,
    not_the_daemon,
    port_matches,
)
from seamless.linux.held_syns import Outcome
from seamless.linux.ruleset import HOLD_PREFIX, IP_VERSIONS, IpVersion, Rule, chain_name

QUEUES: Final = 8
"""Packet queues of a node for held SYNs."""
_ALL_BITS: Final = 0xFFFF_FFFF
_FAILED: Final = 0x2000
"""Firewall mark of a SYN whose connection fails, and above it the way it fails. Nothing else of the packet's mark is
kept: it goes no further than to the rule that rejects it. As with `OWN_MARK`, others leave this bit alone."""
_REJECT: Final = {
    Outcome.REFUSED: ("tcp-reset", "tcp-reset"),
    Outcome.PORT_UNREACHABLE: ("icmp-port-unreachable", "icmp6-port-unreachable"),
    Outcome.HOST_UNREACHABLE: ("icmp-host-unreachable", "icmp6-addr-unreachable"),
    Outcome.NETWORK_UNREACHABLE: ("icmp-net-unreachable", "icmp6-no-route"),
    Outcome.PROHIBITED: ("icmp-admin-prohibited", "icmp6-adm-prohibited"),
}
"""What the firewall answers to a SYN with this outcome: for IPv4, for IPv6."""

_OURS: Final = OWN_MARK | _FAILED | 0xF
MARKS: Final = {
    Outcome.PASS: (0, _OURS),
    Outcome.NATIVE: (OWN_MARK, _OURS),
    **{outcome: (_FAILED + outcome, _ALL_BITS) for outcome in _REJECT},
}
"""The mark that a SYN with this outcome is given, as (bits, mask)."""
_UNDECIDED: Final = {
    "direct": f"{OWN_MARK:#x}/{OWN_MARK:#x}",
    "refuse": f"{_FAILED + Outcome.REFUSED:#x}/{_ALL_BITS:#x}",
}
"""The mark of a SYN that nobody decides about, since the queue is full or has no reader, by ``when unreachable``."""
FAILED_PASS: Final = ("-m", "mark", "--mark", f"{_FAILED:#x}/{_ALL_BITS & ~0xF:#x}", "-j", "RETURN")
"""RETURN for SYNs whose connection fails: they are not redirected, so that a rule of ``filter`` rejects them."""


def hold_queues(node_name: str) -> range:
    """Return the numbers of the packet queues in which a node's SYNs are held: of the upper half, by its name.

    The kernel spreads SYNs over them by client and server: a flood of one client's fills one of them.
    """
    first = 0x8000 | int.from_bytes(hashlib.blake2s(node_name.encode()).digest()[:2], "big") & ~(QUEUES - 1)
    return range(first, first + QUEUES)


def holds(configuration: Configuration, node_name: str, version: IpVersion | None = None) -> bool:
    """Return whether a node holds SYNs of this IP version, or of any."""
    versions = IP_VERSIONS if version is None else (version,)
    return any(True for one in versions for _ in _held(configuration, node_name, one))


def _held(
    configuration: Configuration, node_name: str, version: IpVersion
) -> Iterator[tuple[tuple[str, ...], WhenUnreachable]]:
    """Yield the matches on the connections whose SYN is held, and what becomes of those without the egress."""
    for capture in configuration.captures(node_name):
        if capture.intercept.mode == "payload" and capture.intercept.connect != "early":
            for network in capture.to:
                if network.version == version:
                    for ports in port_matches("--dports", capture.ports):
                        new = ("-m", "conntrack", "--ctstate", "NEW")
                        words = (*network_match("-d", network), "-p", "tcp", *ports, *new)
                        yield words, capture.intercept.when_unreachable


def hold_rules(configuration: Configuration, node_name: str, version: IpVersion, user: int | None) -> Iterator[Rule]:
    """Yield the rules that hold SYNs and reject those that fail, for one IP version, or none at all."""
    held = list(_held(configuration, node_name, version))
    if not held:
        return
    chain = chain_name(node_name, HOLD_PREFIX)
    comment = comment_match(node_name)
    queues = hold_queues(node_name)
    queue = ("-j", "NFQUEUE", "--queue-balance", f"{queues[0]}:{queues[-1]}", "--queue-bypass")
    yield Rule("mangle", "PREROUTING", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("mangle", "OUTPUT", ("-p", "tcp", *not_the_daemon(user), *comment, "-j", chain))
    yield Rule("mangle", chain, OWN_PASS)
    yield Rule("mangle", chain, OTHERS_PASS)
    for words, when_unreachable in held:
        yield Rule("mangle", chain, (*words, "-j", "MARK", "--set-xmark", _UNDECIDED[when_unreachable]))
        yield Rule("mangle", chain, (*words, *queue))
    yield Rule("filter", "FORWARD", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("filter", "OUTPUT", ("-p", "tcp", *comment, "-j", chain))
    for outcome, answers in _REJECT.items():
        mark = ("-m", "mark", "--mark", f"{MARKS[outcome][0]:#x}")
        answer = answers[0 if version == 4 else 1]
        yield Rule("filter", chain, ("-p", "tcp", *mark, "-j", "REJECT", "--reject-with", answer))
