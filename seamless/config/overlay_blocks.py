"""From blocks to the model: the overlay's own blocks, each by itself, and links once the nodes are known.

A builder notes what is wrong inside its block and still returns a value, so that one block can have several problems;
`seamless.config.load` drops the value when there were any. What concerns several blocks is in `seamless.config.check`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, cast

from seamless.config.grammar import Parsed
from seamless.config.model import (
    DEFAULT_CAPTURE_PORT,
    DEFAULT_CONGESTION,
    DEFAULT_DEAD_INTERVAL,
    DEFAULT_GIVE_UP,
    DEFAULT_HELLO_INTERVAL,
    DEFAULT_MTU_BYTES,
    DEFAULT_PORT,
    MAXIMUM_MEMORY_BYTES,
    MINIMUM_MEMORY_BYTES,
    MINIMUM_MTU_BYTES,
    Connect,
    InterceptConfig,
    LinkConfig,
    Match,
    Mode,
    NodeConfig,
    Overlay,
    Protocol,
    Recovery,
    Release,
    Source,
    WhenUnreachable,
    overlap,
)
from seamless.config.syntax import Block, Problems, Statement, Value
from seamless.config.syntax_hints import similar
from seamless.config.values import Endpoint, spelt_rate
from seamless.interfaces import Address
from seamless.link.congestion import CONTROLLERS
from seamless.session.limits import DEFAULT_MEMORY_BYTES

MAXIMUM_INTERVAL: Final = 65.535
"""Seconds: a HELLO carries its intervals as 16 bits of milliseconds (docs/protocol.rst)."""
MINIMUM_INTERVAL: Final = 0.001
MAXIMUM_MTU_BYTES: Final = 65535
"""The longest IPv4 packet."""

RULES: Final = ("tcp", "udp", "ip")
_REPEATABLE: Final = {"link": ("between",), "intercept": RULES, "wire": ("carries", "from")}
_REQUIRED: Final = {
    "node": {"address": "address 10.1.1.1:7400;", "key": 'key "...";'},
    "wire": {"between": "between 10.1.1.1/30 10.1.1.2/30;"},
}


def is_sound(block: Block, problems: Problems) -> bool:
    """Return whether the block has every statement that it must have, and none that it may have once twice."""
    before = len(problems)
    for keyword, example in _REQUIRED.get(block.keyword, {}).items():
        if not block.has(keyword):
            problems.add(block.start, f"{block.title} has no {keyword}: add `{example}`")
    _note_repeated(block.statements, _REPEATABLE.get(block.keyword, ()), problems)
    for statement in block.statements:
        _note_repeated(statement.body, (), problems)
    return len(problems) == before


def _note_repeated(statements: Iterable[Statement], repeatable: Collection[str], problems: Problems) -> None:
    seen: dict[str, int] = {}
    for statement in statements:
        if statement.keyword in repeatable:
            continue
        if statement.keyword in seen:
            line, _ = problems.place(seen[statement.keyword])
            problems.add(statement.start, f"{statement.keyword} is given in line {line} already: keep one of them")
        seen.setdefault(statement.keyword, statement.start)


def is_declared(name: Value, keyword: str, declared: Collection[str], parsed: Parsed, problems: Problems) -> bool:
    """Return whether such a node or host is declared; note a problem if no block names it, not even a faulty one."""
    if name.value in declared:
        return True
    if (keyword, name.value) not in parsed.broken:
        other = similar(str(name.value), declared)
        correct = "correct the name" if other is None else f"correct the name (did you mean {other}?)"
        problems.add(name.start, f"{keyword} {name.value} is not declared: add a {keyword} block for it or {correct}")
    return False


def note_repeated_names(names: Iterable[Value], problems: Problems) -> None:
    """Note every name that a list has twice."""
    seen = set()
    for name in names:
        if name.value in seen:
            problems.add(name.start, f"{name.value} is in the list twice: leave one out")
        seen.add(name.value)


def mtu(block: Block, minimum_bytes: int, problems: Problems) -> int:
    """Return the block's MTU in bytes."""
    mtu_bytes = block.first("mtu", int) or DEFAULT_MTU_BYTES
    if not minimum_bytes <= mtu_bytes <= MAXIMUM_MTU_BYTES:
        at = block.where("mtu")
        problems.add(
            at, f"an mtu of {mtu_bytes} bytes cannot be used: write one from {minimum_bytes} to {MAXIMUM_MTU_BYTES}"
        )
    return mtu_bytes


def overlay(block: Block, nodes: Collection[str], parsed: Parsed, problems: Problems) -> Overlay:
    """Build what holds for the whole overlay."""
    note_repeated_names(block.values("operators"), problems)
    for name in block.values("operators"):
        is_declared(name, "node", nodes, parsed, problems)
    hello = _time(block, "hello", DEFAULT_HELLO_INTERVAL)
    dead = _time(block, "dead", DEFAULT_DEAD_INTERVAL)
    give_up = _time(block, "give up", DEFAULT_GIVE_UP)
    for keyword, interval in (("hello", hello), ("dead", dead)):
        if not MINIMUM_INTERVAL <= interval <= MAXIMUM_INTERVAL:
            problems.add(block.where(keyword), f"{keyword} must be from 1 ms to {MAXIMUM_INTERVAL:g} s")
    if dead < 2 * hello:
        at = block.where("dead" if block.has("dead") else "hello")
        problems.add(at, f"dead must be at least twice hello: write `dead {3000 * hello:g} ms;` for three hellos")
    if give_up < dead:
        at = block.where("give up" if block.has("give up") else "dead")
        problems.add(at, f"give up must be at least dead ({1000 * dead:g} ms): no path can be replaced in less")
    return Overlay(block.name(), hello, dead, give_up, block.of("operators", str) or None)


def _time(block: Block, keyword: str, default: float) -> float:
    given = block.first(keyword, float)
    return default if given is None else given


def listening(endpoint: Endpoint) -> Address:
    """Return the address that a node's ``address`` means."""
    return endpoint.host, DEFAULT_PORT if endpoint.port is None else endpoint.port


def node(block: Block, problems: Problems) -> NodeConfig:
    """Build a node. What else can be wrong with it concerns other nodes too."""
    memory_bytes = block.first("memory", int) or DEFAULT_MEMORY_BYTES
    if not MINIMUM_MEMORY_BYTES <= memory_bytes <= MAXIMUM_MEMORY_BYTES:
        least, most = MINIMUM_MEMORY_BYTES >> 20, MAXIMUM_MEMORY_BYTES >> 30
        at = block.where("memory")
        problems.add(at, f"a memory of {memory_bytes} bytes cannot be used: write one from {least} MiB to {most} GiB")
    serves = tuple(network for statement in block.all("serves") for network in statement.networks())
    return NodeConfig(
        name=block.name(),
        addresses=tuple(listening(endpoint) for endpoint in block.of("address", Endpoint)),
        serves=serves,
        public_key=block.first("key", bytes) or b"",
        leaf=block.has("leaf"),
        capture_port=block.first("capture", int) or DEFAULT_CAPTURE_PORT,
        capture_at=(*block.of("capture", IPv4Address), *block.of("capture", IPv6Address)),
        memory_bytes=memory_bytes,
    )


def link(block: Block, nodes: Mapping[str, NodeConfig], parsed: Parsed, problems: Problems) -> LinkConfig:
    """Build a link; what needs a node that is not there is left out."""
    ends = block.name(0), block.name(1)
    present = [is_declared(name, "node", nodes, parsed, problems) for name in block.names]
    if ends[0] == ends[1]:
        problems.add(block.start, f"{block.title} joins a node to itself: name two nodes")
    elif all(present):
        paths = _paths(block, nodes[ends[0]], nodes[ends[1]], problems)
        return _link(block, ends, paths, problems)
    return _link(block, ends, (), problems)


def _link(
    block: Block, ends: tuple[str, str], paths: tuple[tuple[Address, Address], ...], problems: Problems
) -> LinkConfig:
    congestion = block.first("congestion", str) or DEFAULT_CONGESTION
    floor_bps, rate_bps = _rates(block, congestion, problems)
    passive = block.first("passive", str)
    if passive is not None and passive not in ends:
        at = block.values("passive")[0].start
        problems.add(at, f"{passive} is no end of {block.title}: passive must name {ends[0]} or {ends[1]}")
    return LinkConfig(
        ends=ends,
        paths=paths,
        rate_bps=rate_bps,
        floor_bps=floor_bps,
        congestion=congestion,
        cost=block.first("cost", int),
        mtu_bytes=mtu(block, MINIMUM_MTU_BYTES, problems),
        passive=passive,
    )


def _rates(block: Block, congestion: str, problems: Problems) -> tuple[int | None, int | None]:
    """Return the least rate and the rate itself, or its ceiling; None for what is not said."""
    rates = block.of("rate", int)
    if not rates:
        if CONTROLLERS[congestion].requires_rate:
            problem = f"{block.title} has congestion {congestion} but no rate: add `rate 500 mbit;` or say congestion"
            problems.add(block.where("congestion"), f"{problem} {DEFAULT_CONGESTION}")
        return None, None
    if len(rates) == 1:
        return None, rates[0]
    floor_bps, ceiling_bps = rates
    if floor_bps > ceiling_bps:
        swapped = f"rate {spelt_rate(ceiling_bps)} to {spelt_rate(floor_bps)};"
        problems.add(block.where("rate"), f"the least rate comes first and is not above the other: write `{swapped}`")
    if not CONTROLLERS[congestion].takes_floor:
        able = "".join(f", or say congestion {word}" for word, each in CONTROLLERS.items() if each.takes_floor)
        problem = f"{block.title} has congestion {congestion}, which takes one rate: write"
        problems.add(block.where("rate"), f"{problem} `rate {spelt_rate(max(rates))};`{able}")
    return floor_bps, ceiling_bps


def _paths(block: Block, one: NodeConfig, other: NodeConfig, problems: Problems) -> tuple[tuple[Address, Address], ...]:
    """Return the pairs of addresses that join two nodes: the ``between`` lines, or the first address of each."""
    if not block.has("between"):
        return _same_version(one.addresses[0], other.addresses[0], block.start, problems)
    paths: list[tuple[Address, Address]] = []
    for statement in block.all("between"):
        ends = [_own(value, end, problems) for value, end in zip(statement.values, (one, other), strict=True)]
        if ends[0] is None or ends[1] is None:
            continue
        if (ends[0], ends[1]) in paths:
            problems.add(statement.start, "this pair of addresses is given already: leave one out")
        paths += _same_version(ends[0], ends[1], statement.start, problems)
    return tuple(paths)


def _same_version(one: Address, other: Address, at: int, problems: Problems) -> tuple[tuple[Address, Address], ...]:
    if (":" in one[0]) != (":" in other[0]):
        problems.add(at, f"{one[0]} and {other[0]} differ in IP version: choose two of one version with `between`")
    return ((one, other),)


def _own(value: Value, of: NodeConfig, problems: Problems) -> Address | None:
    """Return the one address of a node that ``between`` means."""
    endpoint = cast(Endpoint, value.value)
    candidates = [
        address for address in of.addresses if address[0] == endpoint.host and endpoint.port in (None, address[1])
    ]
    if not candidates:
        known = ", ".join(map(_written, of.addresses))
        problems.add(value.start, f"{endpoint} is not an address of node {of.name}: use one of its own ({known})")
        return None
    if len(candidates) > 1:
        advice = f"write which one, as {_written(candidates[0])}"
        problems.add(value.start, f"node {of.name} has several ports at {endpoint}: {advice}")
    return candidates[0]


def _written(address: Address) -> str:
    host, port = address
    return str(Endpoint(host, 6 if ":" in host else 4, port))


def intercept(block: Block, nodes: Mapping[str, NodeConfig], parsed: Parsed, problems: Problems) -> InterceptConfig:
    """Build an interceptor."""
    mode = cast(Mode, block.name())
    rules = tuple(_rule(statement, problems) for statement in block.statements if statement.keyword in RULES)
    if not rules:
        problems.add(block.start, f"{block.title} captures nothing: add a rule such as `tcp to 10.1.9.2 port 22;`")
    if mode == "payload":
        _note_whole_packet_statements(block, problems)
    else:
        _note_payload_statements(block, problems)
    on = block.of("on", str)
    note_repeated_names(block.values("on"), problems)
    for name in block.values("on"):
        is_declared(name, "node", nodes, parsed, problems)
    line, column = problems.place(block.start)
    return InterceptConfig(
        mode=mode,
        rules=rules,
        on=on or None,
        when_unreachable=cast(WhenUnreachable, block.first("when unreachable", str) or "direct"),
        connect=cast(Connect, block.first("connect", str) or "learned"),
        source=cast(Source, block.first("source", str) or "egress"),
        recovery=cast(Recovery, block.first("recovery", str) or "reliable"),
        release=cast(Release, block.first("release", str) or "ordered"),
        clamp_mss=block.has("clamp mss"),
        line=line,
        column=column,
    )


def _note_whole_packet_statements(block: Block, problems: Problems) -> None:
    for keyword in ("udp", "ip", "recovery", "release", "clamp mss"):
        for statement in block.all(keyword):
            problems.add(
                statement.start,
                f"{keyword} is for whole packets, and intercept payload carries TCP streams: "
                "leave it out, or use intercept local or intercept router",
            )


def _note_payload_statements(block: Block, problems: Problems) -> None:
    for keyword, carried in (("connect", "the SYN itself"), ("source", "the client's own address")):
        for statement in block.all(keyword):
            problems.add(
                statement.start,
                f"{keyword} is for TCP streams, and whole packets carry {carried}: "
                "leave it out, or use intercept payload",
            )


def _rule(statement: Statement, problems: Problems) -> Match:
    to = statement.networks()
    ports = tuple(value.value for value in statement.values if isinstance(value.value, tuple))
    _note_overlapping(statement, problems)
    return Match(cast(Protocol, statement.keyword), to or None, ports or None)


def _note_overlapping(statement: Statement, problems: Problems) -> None:
    """Note destinations and ports of one rule that an earlier one in it holds already."""
    for index, value in enumerate(statement.values):
        for earlier in statement.values[:index]:
            if _share(earlier.value, value.value):
                text = f"{shown_range(value.value)} overlaps {shown_range(earlier.value)} in the same rule"
                problems.add(value.start, f"{text}: leave one of them out")


def _share(one: object, other: object) -> bool:
    """Return whether two networks, or two ranges of ports, have anything in common."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return ports_overlap([one], [other])
    if isinstance(one, (IPv4Network, IPv6Network)) and isinstance(other, (IPv4Network, IPv6Network)):
        return overlap(one, other)
    return False


def shown_range(item: object) -> str:
    """Return a network or a range of ports as a person writes it: one address or one port without its length."""
    if isinstance(item, tuple):
        return f"port {item[0]}" if item[0] == item[1] else f"port {item[0]}-{item[1]}"
    if isinstance(item, (IPv4Network, IPv6Network)) and item.prefixlen == item.max_prefixlen:
        return str(item.network_address)
    return str(item)


def ports_overlap(ones: Sequence[tuple[int, int]] | None, others: Sequence[tuple[int, int]] | None) -> bool:
    """Return whether two lists of port ranges share a port; None is every port."""
    if ones is None or others is None:
        return True
    return any(one[0] <= other[1] and other[0] <= one[1] for one in ones for other in others)
