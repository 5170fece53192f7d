"""Firewall rules of the whole-packet interceptors: which packets go into which NFQUEUE.

Pure: from packet queues to `Rule` values. `seamless.intercept.node_rules` draws the chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from seamless.config.model import Configuration
from seamless.intercept.packets.capture_points import CapturePoint
from seamless.intercept.packets.crossings import Crossing, PacketQueue
from seamless.intercept.rule_matches import OWN_PASS, comment_match, network_match, port_matches
from seamless.linux.ruleset import CHAIN_PREFIX, QUEUE_PREFIX, IpVersion, Rule, chain_name


def queue_rules(
    configuration: Configuration,
    node_name: str,
    queues: Iterable[PacketQueue],
    point: CapturePoint,
    version: IpVersion,
    *,
    is_kept: bool,
) -> Iterator[Rule]:
    """Yield the rules of a whole-packet interceptor for one IP version, or none at all.

    ``is_kept``: those for packets that must not go natively, which stay without the daemon; else the others.
    """
    chain = chain_name(node_name, QUEUE_PREFIX if is_kept else CHAIN_PREFIX)
    decisions = [
        (is_wanted, (*words, *(_queue_target(queue, is_kept) if is_wanted else ("-j", "RETURN"))))
        for queue in queues
        if queue.intercept.mode == point.mode
        for is_wanted in ((queue.intercept.when_unreachable == "refuse") is is_kept,)
        for crossing in queue.crossings
        for words in _crossing(queue, crossing, version)
    ]
    diverted = [Rule(point.table, chain, words) for words in _up_to_last_wanted(decisions)]
    if not diverted:
        return
    yield Rule(point.table, point.hook, (*comment_match(node_name), "-j", chain))
    yield Rule(point.table, chain, OWN_PASS)
    for host, port in configuration.nodes[node_name].addresses:
        address = ip_network(host)
        if address.version == version:
            link = ("-s", str(address), "-p", "udp", "-m", "udp", "--sport", str(port))
            yield Rule(point.table, chain, (*link, "-j", "RETURN"))
    if point.gathers_fragments:
        untracked = ("-m", "conntrack", "--ctstate", "UNTRACKED")
        yield Rule(point.table, chain, (*untracked, "-j", "RETURN"))
    yield from diverted


def _up_to_last_wanted(decisions: list[tuple[bool, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Return the rules up to the last one that is wanted: what would only RETURN after it decides nothing."""
    last = max((index for index, (is_wanted, _) in enumerate(decisions) if is_wanted), default=-1)
    return [words for _, words in decisions[: last + 1]]


def _crossing(queue: PacketQueue, crossing: Crossing, version: IpVersion) -> Iterator[tuple[str, ...]]:
    """Yield the matches that cover what of a crossing goes into this queue; TCP's rules stand before the others."""
    name = "tcp" if queue.is_tcp else crossing.protocol
    protocol = () if name == "ip" else ("-p", name)
    for source in crossing.source:
        for destination in crossing.destination:
            if source.version == destination.version == version:
                networks = (*network_match("-s", source), *network_match("-d", destination))
                for source_ports in port_matches("--sports", crossing.source_ports):
                    for destination_ports in port_matches("--dports", crossing.destination_ports):
                        yield (*networks, *protocol, *source_ports, *destination_ports)


def _queue_target(queue: PacketQueue, is_kept: bool) -> tuple[str, ...]:
    """Return the target that queues a packet, and what becomes of it while no process reads the queue."""
    return ("-j", "NFQUEUE", "--queue-num", str(queue.number), *(() if is_kept else ("--queue-bypass",)))
