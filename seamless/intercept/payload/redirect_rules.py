"""Firewall rules of the payload interceptor: what it redirects to the capture port, and what is rejected without it.

Pure: from the configuration to `Rule` values. `seamless.intercept.node_rules` draws the chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from seamless.config.model import Capture, Configuration, overlap
from seamless.intercept.payload.hold_rules import FAILED_PASS, holds
from seamless.intercept.rule_matches import (
    OTHERS_PASS,
    OWN_PASS,
    comment_match,
    network_match,
    not_the_daemon,
    port_matches,
)
from seamless.linux.ruleset import GUARD_PREFIX, IpVersion, Rule, chain_name


def redirect_rules(
    configuration: Configuration, node_name: str, version: IpVersion, user: int | None
) -> Iterator[Rule]:
    """Yield the payload interceptor's rules for one IP version, or none at all."""
    chain = chain_name(node_name)
    capture_port = str(configuration.nodes[node_name].capture_port)
    redirects = [
        Rule(
            "nat",
            chain,
            (*network_match("-d", network), "-p", "tcp", *ports, "-j", "REDIRECT", "--to-ports", capture_port),
        )
        for capture in configuration.captures(node_name)
        if capture.intercept.mode == "payload"
        for network in capture.to
        if network.version == version
        for ports in port_matches("--dports", capture.ports)
    ]
    if not redirects:
        return
    comment = comment_match(node_name)
    yield Rule("nat", "PREROUTING", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("nat", "OUTPUT", ("-p", "tcp", *not_the_daemon(user), *comment, "-j", chain))
    yield Rule("nat", chain, OWN_PASS)
    yield Rule("nat", chain, OTHERS_PASS)
    if holds(configuration, node_name, version):
        yield Rule("nat", chain, FAILED_PASS)
    yield from redirects
    yield from _straight_connection_rules(node_name, capture_port)


def _straight_connection_rules(node_name: str, capture_port: str) -> Iterator[Rule]:
    """Yield the rules that refuse connections which were made straight to the capture port.

    The interceptors of whole packets share the chain, from ``OUTPUT``: there too only packets to this host are meant.
    """
    to_port = ("-p", "tcp", "-m", "tcp", "--dport", capture_port)
    straight = ("-m", "addrtype", "--dst-type", "LOCAL", "-m", "conntrack", "!", "--ctstate", "DNAT")
    yield Rule("filter", "INPUT", (*to_port, *comment_match(node_name), "-j", chain_name(node_name)))
    yield Rule("filter", chain_name(node_name), (*to_port, *straight, "-j", "REJECT", "--reject-with", "tcp-reset"))


def guard_rules(configuration: Configuration, node_name: str, version: IpVersion, user: int | None) -> Iterator[Rule]:
    """Yield the rules of ``when unreachable refuse``: they reject connections that were to be captured and were not."""
    chain = chain_name(node_name, GUARD_PREFIX)
    captures = [
        capture
        for capture in configuration.captures(node_name)
        if capture.intercept.mode == "payload" and capture.intercept.when_unreachable == "refuse"
    ]
    rejecting = [
        (*network_match("-d", network), "-p", "tcp", *ports, "-j", "REJECT", "--reject-with", "tcp-reset")
        for capture in captures
        for network in capture.to
        if network.version == version
        for ports in port_matches("--dports", capture.ports)
    ]
    if not rejecting:
        return
    comment = comment_match(node_name)
    yield Rule("filter", "FORWARD", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("filter", "OUTPUT", ("-p", "tcp", *not_the_daemon(user), *comment, "-j", chain))
    yield Rule("filter", chain, OWN_PASS)
    yield Rule("filter", chain, OTHERS_PASS)
    for words in (*dict.fromkeys(_egress_dials(configuration, node_name, captures, version)), *rejecting):
        yield Rule("filter", chain, words)


def _egress_dials(
    configuration: Configuration, node_name: str, captures: Iterable[Capture], version: IpVersion
) -> Iterator[tuple[str, ...]]:
    """Yield the rules that let pass, on a gateway, what an egress behind it dials among the hosts that it serves."""
    for capture in captures:
        for network in capture.to:
            for node in configuration.nodes.values():
                if node.name != node_name and any(overlap(network, served) for served in node.serves):
                    for source in (ip_network(host) for host, _ in node.addresses):
                        if source.version == network.version == version:
                            to = network_match("-d", network)
                            yield ("-s", str(source), *to, "-p", "tcp", "-j", "RETURN")
