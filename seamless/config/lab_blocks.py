"""From blocks to the model: the lab's hosts and wires, and the checks between them.

The lab is a network to try the overlay in. Its blocks stand in the same file, so that one file says what runs where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, cast

import attrs

from seamless.config.grammar import Parsed
from seamless.config.model import HostConfig, Impairment, Interface, Network, NodeConfig, WireConfig, overlap
from seamless.config.overlay_blocks import is_declared, mtu, note_repeated_names
from seamless.config.syntax import Block, Problems, Statement
from seamless.config.values import Endpoint

MINIMUM_WIRE_MTU_BYTES: Final = 576
"""What every IPv4 host takes (RFC 791, section 3.1): the lab may be narrower than the overlay's links allow."""

_FIELDS: Final = {
    "delay": "delay",
    "rate": "rate_bps",
    "queue": "queue_bytes",
    "loss": "loss",
    "burst": "burst_packets",
    "duplicate": "duplicate",
    "corrupt": "corrupt",
    "black hole": "black_hole_bytes",
}


def host(block: Block, problems: Problems) -> HostConfig:
    """Build a host."""
    note_repeated_names(block.values("run"), problems)
    if block.first("gateway", str) == block.name():
        at = block.values("gateway")[0].start
        problems.add(at, f"{block.title} is its own gateway: name a host at the other end of one of its wires")
    return HostConfig(
        name=block.name(),
        addresses=block.of("address", IPv4Address) + block.of("address", IPv6Address),
        servers=block.of("run", str),
        gateway=block.first("gateway", str),
    )


def wire(block: Block, hosts: Mapping[str, HostConfig], parsed: Parsed, problems: Problems) -> WireConfig:
    """Build a wire; what stands directly in it holds for both directions, and ``from`` changes one."""
    ends = block.name(0), block.name(1)
    if ends[0] == ends[1]:
        problems.add(block.start, f"{block.title} joins a host to itself: name two hosts")
    else:
        _note_senders(block, problems)
    for name in block.names:
        is_declared(name, "host", hosts, parsed, problems)
    one, other = (cast(Interface, value.value) for value in block.values("between"))
    if one.network != other.network:
        problems.add(block.where("between"), f"{one} and {other} are not in one subnet: give both ends the same prefix")
    elif one.ip == other.ip:
        problems.add(block.where("between"), f"both ends have the address {one.ip}: give each its own")
    both = _impairment(Impairment(), block.statements)
    return WireConfig(
        ends=ends,
        addresses=(one, other),
        carries=tuple(_carried(statement) for statement in block.all("carries")),
        forward=_direction(block, 0, both, problems),
        backward=_direction(block, 1, both, problems),
        mtu_bytes=mtu(block, MINIMUM_WIRE_MTU_BYTES, problems),
    )


def _note_senders(block: Block, problems: Problems) -> None:
    """Note ``from`` of a host that is at neither end, or that has one already."""
    senders = block.values("from")
    for sender in senders:
        if sender.value not in (block.name(0), block.name(1)):
            ends = f"{block.name(0)} or {block.name(1)}"
            problems.add(sender.start, f"{sender.value} is no end of {block.title}: from must name {ends}")
    note_repeated_names(senders, problems)


def _carried(statement: Statement) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    one, other = (cast(tuple[Network, ...], value.value) for value in statement.values)
    return one, other


def _direction(block: Block, end: int, both: Impairment, problems: Problems) -> Impairment:
    """Return what happens to the packets that one end sends."""
    impairment = both
    for statement in block.all("from"):
        if statement.of(str) == (block.name(end),):
            impairment = _impairment(both, statement.body)
    if impairment.burst_packets > 1 and not impairment.loss:
        problems.add(block.where("burst"), "burst says how losses cluster, but there is no loss: add `loss 0.5 %;`")
    if impairment.queue_bytes is not None and impairment.rate_bps is None:
        problems.add(block.where("queue"), "queue never fills without a rate: add `rate 500 mbit;`")
    return impairment


def _impairment(base: Impairment, statements: Iterable[Statement]) -> Impairment:
    changes: dict[str, Any] = {}
    for statement in statements:
        if statement.keyword in _FIELDS:
            changes[_FIELDS[statement.keyword]] = statement.values[0].value
        elif statement.keyword == "reorder":
            changes["reorder"], changes["reorder_delay"] = statement.of(float)
        elif statement.keyword == "down":
            changes["down"] = True
    return attrs.evolve(base, **changes)


def note_gateways(
    blocks: Iterable[tuple[Block, HostConfig]],
    hosts: Mapping[str, HostConfig],
    wires: Iterable[WireConfig],
    parsed: Parsed,
    problems: Problems,
) -> None:
    """Note gateways that are not at the other end of a wire."""
    joined = {frozenset(wire.ends) for wire in wires}
    for block, config in blocks:
        if config.gateway is None:
            continue
        name = block.values("gateway")[0]
        if not is_declared(name, "host", hosts, parsed, problems) or not parsed.complete:
            continue
        if frozenset((config.name, config.gateway)) not in joined:
            text = f"no wire joins {config.name} to its gateway {config.gateway}"
            problems.add(name.start, f"{text}: add `wire {config.name} {config.gateway}` or name a neighbor")


def note_shared_addresses(
    hosts: Iterable[tuple[Block, HostConfig]], wires: Collection[tuple[Block, WireConfig]], problems: Problems
) -> None:
    """Note addresses that two interfaces of the lab have, and wires whose subnets overlap."""
    taken: dict[IPv4Address | IPv6Address, int] = {}
    for block, wire_config in wires:
        for interface in wire_config.addresses:
            _take(interface.ip, block.where("between"), taken, problems)
    for block, _ in hosts:
        for value in block.values("address"):
            _take(cast(IPv4Address, value.value), value.start, taken, problems)
    _note_shared_subnets(wires, problems)


def _note_shared_subnets(wires: Iterable[tuple[Block, WireConfig]], problems: Problems) -> None:
    seen: list[tuple[Block, Network]] = []
    for block, wire_config in wires:
        subnet = wire_config.addresses[0].network
        twin = next((other for other, network in seen if overlap(network, subnet)), None)
        if twin is not None:
            line, _ = problems.place(twin.start)
            text = f"the subnet {subnet} overlaps that of {twin.title} in line {line}"
            problems.add(block.where("between"), f"{text}: give each wire its own")
        seen.append((block, subnet))


def _take(
    address: IPv4Address | IPv6Address, at: int, taken: dict[IPv4Address | IPv6Address, int], problems: Problems
) -> None:
    if taken.setdefault(address, at) != at:
        line, _ = problems.place(taken[address])
        problems.add(at, f"{address} is given in line {line} already: every interface needs its own address")


def note_nodes_off_their_hosts(
    nodes: Iterable[tuple[Block, NodeConfig]],
    hosts: Mapping[str, HostConfig],
    wires: Iterable[WireConfig],
    problems: Problems,
) -> None:
    """Note addresses of nodes that the host of the same name does not have."""
    available = {name: {str(address) for address in host.addresses} for name, host in hosts.items()}
    for wire_config in wires:
        for name, interface in zip(wire_config.ends, wire_config.addresses, strict=True):
            available.get(name, set()).add(str(interface.ip))
    for block, config in nodes:
        if config.name not in available:
            continue
        for value in block.values("address"):
            endpoint = cast(Endpoint, value.value)
            if endpoint.host not in available[config.name]:
                text = f"host {config.name} has no address {endpoint.host}"
                problems.add(value.start, f"{text}: give it to the host, or to its end of a wire")
