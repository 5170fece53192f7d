"""What would become of a connection from this node: captured or not, by which rule, to which egress, over which path.

Pure: a configuration, a node, an address and what is reachable in; sentences out. It decides with the same tables as
the interceptors do.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import attrs

from seamless.config.model import Capture, Configuration, PortRange
from seamless.errors import UsageError
from seamless.intercept.node_rules import capture_addresses
from seamless.intercept.packets.crossings import crossings
from seamless.intercept.payload.flow import IPAddress, ReleaseTable, canonical, sentence
from seamless.interfaces import Address


@attrs.frozen
class Explanation:
    """``reason`` says why, in sentences; ``rule`` and ``egress`` are None where no interceptor matches."""

    destination: Address
    captured: bool
    rule: str | None
    egress: str | None
    path: tuple[str, ...]
    reason: str


def destination_of(text: object) -> Address:
    """Return the address and TCP port that a text like ``10.1.9.2:22`` or ``[fd00::1]:22`` names, or `UsageError`."""
    host, colon, port = str(text).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        address = None
    is_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 and len(port) < 6
    if not colon or address is None or not is_port or bracketed is not (address.version == 6):
        raise UsageError(f"{text!r} is no address and TCP port: write 10.1.9.2:22 or [fd00::1]:22")
    return str(canonical(str(address))), int(port)


def explain(
    configuration: Configuration, node: str, destination: Address, path: Callable[[str], tuple[str, ...]]
) -> Explanation:
    """Return what becomes of a TCP connection to ``destination`` that is opened here.

    ``path(peer)`` returns the names of the nodes from here to there, none when there is no path.
    """
    address, port = canonical(destination[0]), destination[1]
    captures = [capture for capture in configuration.captures(node) if capture.protocol in ("tcp", "ip")]
    egress = configuration.serving_node(address)
    found = next((capture for capture in captures if _matches(capture, address, port)), None)
    if found is None or egress is None:
        name = None if egress is None else egress.name
        return Explanation(destination, False, None, name, (), _why_not(configuration, node, destination, name))
    if found.intercept.mode != "payload" and not _crosses(configuration, node, egress.name, found):
        reason = f"whole packets need an address at both ends, and node {node} serves none that could be the source"
        return Explanation(destination, False, _named(found), egress.name, (), reason)
    rule, way = _named(found), path(egress.name)
    refuses = found.intercept.when_unreachable == "refuse"
    if not way:
        then = "it is refused" if refuses else "it goes directly, over the underlay"
        reason = f"there is no path to node {egress.name} now, so {then} (`when unreachable`)"
        return Explanation(destination, refuses, rule, egress.name, (), reason)
    if found.intercept.mode == "payload":
        listening = capture_addresses(configuration, egress.name)
        refusal = ReleaseTable(configuration, egress.name, listening).refusal(node, destination)
        if refusal is not None:
            return Explanation(destination, True, rule, egress.name, way, f"node {egress.name} refuses it: {refusal}")
    reason = f"node {egress.name} serves {destination[0]}"
    if found.intercept.mode == "payload" and found.intercept.source == "client":
        reason += f"; the server sees the client, whose address must be one that node {node} serves or has itself"
    return Explanation(destination, True, rule, egress.name, way, reason)


def _crosses(configuration: Configuration, node: str, egress: str, capture: Capture) -> bool:
    """Return whether whole packets of any source cross from here to the egress by this rule."""
    return any(crossing.intercept is capture.intercept for crossing in crossings(configuration, node, egress))


def _why_not(configuration: Configuration, node: str, destination: Address, egress: str | None) -> str:
    """Return why no interceptor captures a connection here."""
    address, port = canonical(destination[0]), destination[1]
    if egress is None:
        return f"no node serves {destination[0]}: it goes as without seamless; `serves` of a node would change that"
    if egress == node:
        return f"this node serves {destination[0]} itself: it goes as without seamless"
    same_address = [each for each in configuration.captures(node) if any(address in to for to in each.to)]
    with_tcp = [capture for capture in same_address if capture.protocol in ("tcp", "ip")]
    if with_tcp:
        ports = ", ".join(_ports(capture.ports or ()) for capture in with_tcp)
        return f"the interceptors of this node name {destination[0]}, but not port {port} (they name {ports})"
    if same_address:
        return f"the interceptors of this node name {destination[0]} for UDP only"
    elsewhere = [
        name
        for name in configuration.nodes
        if name != node and any(_matches(capture, address, port) for capture in configuration.captures(name))
    ]
    if elsewhere:
        return f"interceptors capture {sentence(destination)} on {', '.join(elsewhere)}, not on {node}: see `on`"
    return f"node {egress} serves {destination[0]}, but no interceptor of {node} names it"


def _matches(capture: Capture, address: IPAddress, port: int) -> bool:
    if capture.protocol == "udp" or not any(address in network for network in capture.to):
        return False
    return capture.ports is None or any(first <= port <= last for first, last in capture.ports)


def _named(capture: Capture) -> str:
    """Return how a message names a rule: its interceptor, where that stands in the file, and its words."""
    ports = "" if capture.ports is None else f" port {_ports(capture.ports)}"
    to = ", ".join(map(str, capture.to))
    intercept = capture.intercept
    return f"intercept {intercept.mode} in line {intercept.line}: {capture.protocol} to {to}{ports}"


def _ports(ranges: tuple[PortRange, ...]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
