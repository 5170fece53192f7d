"""The checks between the overlay's blocks: names, addresses, what is served and captured, and the ways between nodes.

Each check takes what was built together with the block that it was built from, which knows the places that messages
need. Checks that would blame one block for another that could not be read run only when all could be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar, cast

import attrs

from seamless.config.model import (
    Configuration,
    InterceptConfig,
    LinkConfig,
    Match,
    Network,
    NodeConfig,
    overlap,
    without,
)
from seamless.config.overlay_blocks import RULES, listening, ports_overlap, shown_range
from seamless.config.syntax import Block, Problems, Statement, Value
from seamless.config.values import Endpoint
from seamless.interfaces import Address
from seamless.routing.lsa import MAX_LINKS


class Named(Protocol):
    """A node or a host: anything declared with a name."""

    @property
    def name(self) -> str:
        """Return its name."""
        ...


N = TypeVar("N", bound=Named)


def unique(pairs: Iterable[tuple[Block, N]], problems: Problems) -> list[tuple[Block, N]]:
    """Return nodes or hosts without those declared a second time, which are noted."""
    first: dict[str, tuple[Block, N]] = {}
    for block, config in pairs:
        kept, _ = first.setdefault(config.name, (block, config))
        if kept is not block:
            line, _ = problems.place(kept.start)
            problems.add(block.start, f"{block.title} is declared in line {line} already: rename or remove one of them")
    return list(first.values())


def note_shared_keys(nodes: Iterable[tuple[Block, NodeConfig]], problems: Problems) -> None:
    """Note nodes that cannot be told apart on the wire."""
    seen: dict[int, NodeConfig] = {}
    for block, node in nodes:
        twin = seen.setdefault(node.identifier, node)
        if twin is node:
            continue
        if twin.public_key == node.public_key:
            text = f"node {node.name} has the key of node {twin.name}"
        else:
            text = f"the keys of nodes {twin.name} and {node.name} have the same identifier {node.identifier:#010x}"
        problems.add(block.where("key"), f"{text}: make a new one with `seamless genkey`")


def note_shared_addresses(nodes: Iterable[tuple[Block, NodeConfig]], problems: Problems) -> None:
    """Note addresses that are given twice, to one node or to two."""
    seen: dict[Address, str] = {}
    for block, node in nodes:
        for value in block.values("address"):
            address = listening(cast(Endpoint, value.value))
            if address in seen:
                text = f"{value.value} belongs to node {seen[address]} already"
                problems.add(value.start, f"{text}: choose another address, or another port")
            seen[address] = node.name


def note_overlapping_serves(nodes: Iterable[tuple[Block, NodeConfig]], problems: Problems) -> None:
    """Note addresses that are served twice, so that their egress would be ambiguous."""
    seen: list[tuple[Network, str]] = []
    for block, node in nodes:
        for statement in block.all("serves"):
            for value, network in zip(statement.values, statement.networks(), strict=True):
                for other, owner in seen:
                    if overlap(network, other):
                        text = f"{shown_range(network)} overlaps {shown_range(other)}, which node {owner} serves"
                        problems.add(value.start, f"{text}: an address can have one egress only")
                seen.append((network, node.name))


def note_double_links(links: Iterable[tuple[Block, LinkConfig]], problems: Problems) -> None:
    """Note a second link between two nodes."""
    seen: dict[frozenset[str], Block] = {}
    for block, link in links:
        twin = seen.setdefault(frozenset(link.ends), block)
        if twin is not block:
            line, _ = problems.place(twin.start)
            text = f"{block.title} joins the same nodes as {twin.title} in line {line}"
            problems.add(block.start, f"{text}: write one link with several `between` lines")


def note_many_neighbors(
    nodes: Iterable[tuple[Block, NodeConfig]], links: Iterable[LinkConfig], problems: Problems
) -> None:
    """Note nodes with more neighbors than an LSA has room for: it must fit a datagram on every path."""
    neighbors: dict[str, set[str]] = {}
    for link in links:
        for one, other in (link.ends, link.ends[::-1]):
            neighbors.setdefault(one, set()).add(other)
    for block, node in nodes:
        count = len(neighbors.get(node.name, ()))
        if count > MAX_LINKS:
            text = f"node {node.name} has {count} neighbors, and what it announces has room for {MAX_LINKS}"
            problems.add(block.start, f"{text}: give some of its links to another node")


@attrs.frozen
class _Applied:
    """A rule of an interceptor as one node applies it, with the places that messages need."""

    block: Block
    statement: Statement
    rule: Match
    node: str
    to: tuple[Network, ...]


def _applied(block: Block, intercept: InterceptConfig, configuration: Configuration) -> list[_Applied]:
    """Return each rule on each node that captures something by it."""
    statements = [statement for statement in block.statements if statement.keyword in RULES]
    return [
        _Applied(block, statement, rule, node, to)
        for node in (configuration.nodes if intercept.on is None else intercept.on)
        for statement, rule in zip(statements, intercept.rules, strict=True)
        if (to := configuration.captured(rule, node))
    ]


def note_captures(
    intercepts: Iterable[tuple[Block, InterceptConfig]], configuration: Configuration, problems: Problems
) -> None:
    """Note interceptors that cannot do what they say. Every node they name is declared."""
    ways = _Ways(configuration)
    everything: list[_Applied] = []
    for block, intercept in intercepts:
        if not _all_served(block, configuration, problems):
            continue
        applied = _applied(block, intercept, configuration)
        _note_idle(block, intercept, {one.node for one in applied}, problems)
        _note_missing_ways(block, applied, ways, problems)
        _note_missing_clients(block, intercept, applied, configuration, problems)
        everything += applied
    _note_double_captures(everything, problems)


def _all_served(block: Block, configuration: Configuration, problems: Problems) -> bool:
    """Return whether every destination that the block names has an egress; note those that have none."""
    served = [network for node in configuration.nodes.values() for network in node.serves]
    before = len(problems)
    for keyword in RULES:
        for statement in block.all(keyword):
            for value in statement.values:
                if not isinstance(value.value, tuple):
                    _note_unserved(value, served, problems)
    return len(problems) == before


def _note_unserved(value: Value, served: list[Network], problems: Problems) -> None:
    network = cast(Network, value.value)
    missing = without([network], served)
    if missing:
        part = "" if missing[0] == network else f", a part of {network}"
        text = f"no node serves {shown_range(missing[0])}{part}"
        problems.add(value.start, f"{text}: add it to the `serves` of its node, or leave it out here")


def _note_idle(block: Block, intercept: InterceptConfig, capturing: set[str], problems: Problems) -> None:
    """Note nodes that are to capture, but serve all of it themselves."""
    if intercept.on is None and not capturing:
        problems.add(block.start, f"{block.title} captures nothing: no node serves anything for another one to capture")
    for name in block.values("on"):
        if name.value not in capturing:
            text = f"node {name.value} captures nothing here, since no other node serves any of it"
            problems.add(name.start, f"{text}: leave it out of `on`")


def _note_missing_clients(
    block: Block,
    intercept: InterceptConfig,
    applied: Iterable[_Applied],
    configuration: Configuration,
    problems: Problems,
) -> None:
    """Note nodes that capture with ``source client`` and have no address that a client could have."""
    if intercept.source != "client":
        return
    noted = set()
    for one in applied:
        node = configuration.nodes[one.node]
        known = {network.version for network in node.serves} | {6 if ":" in host else 4 for host, _ in node.addresses}
        for version in sorted({to.version for to in one.to} - known):
            if (one.node, version) not in noted:
                noted.add((one.node, version))
                text = f"node {one.node} serves no IPv{version} address, so no client of its may be seen by a server"
                advice = f"add its clients to the `serves` of {one.node}, or say source egress"
                problems.add(block.where("source"), f"{text}: {advice}")


def _note_double_captures(everything: list[_Applied], problems: Problems) -> None:
    """Note rules of different interceptors that would capture the same packet on the same node."""
    before: dict[str, list[_Applied]] = {}
    for later in everything:
        for earlier in before.setdefault(later.node, []):
            if earlier.block is not later.block and _collide(earlier, later):
                line, _ = problems.place(earlier.statement.start)
                text = f"the rule in line {line} captures some of this on node {later.node} already"
                problems.add(later.statement.start, f"{text}: let their ports, addresses or `on` differ")
        before[later.node].append(later)


def _collide(one: _Applied, other: _Applied) -> bool:
    protocols = {one.rule.protocol, other.rule.protocol}
    return (
        (len(protocols) == 1 or "ip" in protocols)
        and ports_overlap(one.rule.ports, other.rule.ports)
        and any(overlap(network, twin) for network in one.to for twin in other.to)
    )


class _Ways:
    """Which nodes can be reached from which over the configured links; leaves carry no transit."""

    def __init__(self, configuration: Configuration) -> None:
        self.nodes = configuration.nodes
        self._neighbors: dict[str, set[str]] = {name: set() for name in configuration.nodes}
        for link in configuration.links:
            for one, other in (link.ends, link.ends[::-1]):
                self._neighbors[one].add(other)

    def reachable(self, start: str, through_leaves: bool = False) -> set[str]:
        """Return the nodes that ``start`` can reach, itself included."""
        reached, frontier = {start}, [start]
        while frontier:
            node = frontier.pop()
            if node != start and self.nodes[node].leaf and not through_leaves:
                continue
            further = self._neighbors[node] - reached
            reached |= further
            frontier += further
        return reached


def _note_missing_ways(block: Block, applied: Iterable[_Applied], ways: _Ways, problems: Problems) -> None:
    """Note pairs of capturing and serving nodes that no path joins."""
    places = {name.value: name.start for name in block.values("on")}
    for one in applied:
        reached = ways.reachable(one.node)
        for egress in ways.nodes.values():
            if egress.name in reached or not any(overlap(to, served) for to in one.to for served in egress.serves):
                continue
            text = f"node {one.node} captures what node {egress.name} serves, but no links lead there"
            if egress.name in ways.reachable(one.node, through_leaves=True):
                advice = "the only way is through a leaf, so let that node carry transit or add a link around it"
            else:
                advice = "add a link, or name in `on` only the nodes that are to capture"
            problems.add(places.get(one.node, block.start), f"{text}: {advice}")
