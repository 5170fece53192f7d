"""What another configuration means for the interceptors of a node: whether rules change, and what needs a restart.

Pure: two configurations in, an answer out.
"""

from __future__ import annotations

from collections.abc import Iterator

from seamless.config.model import Configuration
from seamless.intercept.node_rules import capture_addresses, kept_rulesets, rulesets
from seamless.intercept.packets.crossings import Crossing, PacketQueue, crossings, packet_queues
from seamless.intercept.payload.source_rules import authorised, uses_clients


def has_rules(configuration: Configuration, node: str) -> bool:
    """Return whether a node captures anything, or uses clients' addresses, and so has firewall rules."""
    return bool(
        capture_addresses(configuration, node)
        or packet_queues(configuration, node)
        or uses_clients(configuration, node)
    )


def changes_rules(old: Configuration, new: Configuration, node: str) -> bool:
    """Return whether the privileged part of a node has to act on another configuration."""
    return (
        rulesets(old, node) != rulesets(new, node)
        or kept_rulesets(old, node) != kept_rulesets(new, node)
        or changes_whole_packets(old, new, node)
        or authorised(old, node) != authorised(new, node)
    )


def changes_whole_packets(old: Configuration, new: Configuration, node: str) -> bool:
    """Return whether other whole packets may be captured or released than before."""
    return _whole_packets(old, node) != _whole_packets(new, node)


def _whole_packets(
    configuration: Configuration, node: str
) -> tuple[tuple[PacketQueue, ...], dict[str, tuple[Crossing, ...]]]:
    others = (peer for peer in configuration.nodes if peer != node)
    admitted = {peer: found for peer in others if (found := crossings(configuration, peer, node))}
    return packet_queues(configuration, node), admitted


def reasons_to_restart(old: Configuration, new: Configuration, node: str) -> Iterator[str]:
    """Yield a sentence for each thing that the interceptors of a running node cannot change."""
    if changes_whole_packets(old, new, node):
        yield f"other whole packets are captured or released on node {node}: restart the daemon"
    before, after = set(capture_addresses(old, node)), set(capture_addresses(new, node))
    for port in sorted({port for _, port in after - before} & {port for _, port in before - after}):
        yield (
            f"node {node} captures at other addresses with port {port}, where it still listens: change the port of "
            "`capture` too, or restart the daemon"
        )
