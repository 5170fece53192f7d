"""Which firewall rules a node needs: from the configuration to values, on which `seamless.linux.rules` works.

For the payload interceptor, in the table ``nat`` and per IP version::

    OUTPUT (but the daemon's user), PREROUTING ─ tcp ─> SEAMLESS-<node>
        the daemon's own connections (they carry a mark)      RETURN
        packets that do not open a connection                 RETURN
        tcp to NETWORK, ports                                 REDIRECT to the capture port

* ``OUTPUT`` sees the applications of this host, ``PREROUTING`` those of hosts behind it. REDIRECT sends the first to
  the loopback address and the others to the address of the interface they came in by. So the capture port listens on
  every address (or where ``capture at`` says), and ``route_localnet``, which opens loopback services to the network, is
  never needed.
* Nobody is meant to connect to the capture port itself. In the table ``filter``, from ``INPUT``, the same chain refuses
  with a reset whatever comes to it and was not redirected: that costs the kernel's time, and none of the daemon's.
* Connections from before the rules are left alone: connection tracking may first see them in the middle, and would
  take any of their packets for a new flow.
* The daemon's own connections pass. As root it marks them, which takes CAP_NET_ADMIN. As a user of its own it needs no
  privilege for that: the rules leave out what that user's processes open. So the user must be nobody else's.
* ``to`` is what the configuration resolves it to: never what the node itself serves. So what the egress dials is never
  captured there.

For the interceptors of whole packets, in the table and at the hook that their `Place` names::

    hook ──> SEAMLESS-<node>
        what the daemon releases (it carries the mark)        RETURN
        the datagrams of our own links                        RETURN
        from SOURCE to DESTINATION, protocol, ports           NFQUEUE, by interceptor and peer; bypass

What they match is exactly what the other end releases (`seamless.intercept.whole`).

These rules are there while the daemon is. With ``when unreachable refuse`` there are more, which stay when it is gone
(`kept_rulesets`). For connections that were not captured, in the table ``filter``, which whoever flushes ``nat`` leaves
alone::

    OUTPUT (but the daemon's user), FORWARD ─ tcp ─> SEAMGUARD-<node>
        the daemon's own connections (they carry a mark)      RETURN
        packets that do not open a connection                 RETURN
        from a node that serves NETWORK, to NETWORK           RETURN
        tcp to NETWORK, ports                                 REJECT with a reset

A captured connection never comes by there: ``nat`` comes first, and gives it another destination. Connections from
before the rules are left alone here as there. For whole packets the diverting rules themselves stay, in chains
SEAMQUEUE-<node>, and without ``bypass``: the kernel drops what no daemon takes from the queue.

(Answers to one interceptor's packets may be what another one captures. The earlier one decides; so with whole packets
of both kinds each chain names the other's, too, to RETURN them.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from seamless.config.model import Capture, Configuration, Network, PortRange, overlap
from seamless.intercept.local import LOCAL
from seamless.intercept.router import ROUTER
from seamless.intercept.whole import Crossing, PacketQueue, Place, packet_queues
from seamless.interfaces import Address
from seamless.linux.rules import (
    CHAIN_PREFIX,
    GUARD_PREFIX,
    IP_VERSIONS,
    QUEUE_PREFIX,
    IpVersion,
    Rule,
    Ruleset,
    chain_name,
)

OWN_MARK: Final = 0x1000
"""Firewall mark of the daemon's own connections: a bit that kubernetes, docker, cilium and tailscale leave alone."""
_OWN_PASS: Final = ("-m", "mark", "--mark", f"{OWN_MARK:#x}/{OWN_MARK:#x}", "-j", "RETURN")
_OTHERS_PASS: Final = ("-p", "tcp", "-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN", "-j", "RETURN")
"""Packets that do not open a connection."""
MAX_MULTIPORT_ENTRIES: Final = 15
"""Of one multiport match (iptables-extensions(8)); a range counts as two."""


def rulesets(configuration: Configuration, node_name: str, user: int | None = None) -> tuple[Ruleset, ...]:
    """Return what a node installs, for IPv4 and IPv6; without rules where it captures nothing of that version.

    ``user``: the user id that the daemon has without privilege, None when it runs as root. ``KeyError`` if there is no
    such node.
    """
    queues = packet_queues(configuration, node_name)
    return tuple(
        Ruleset(
            node_name,
            version,
            (
                *_payload(configuration, node_name, version, user),
                *_whole(configuration, node_name, queues, LOCAL, version, is_kept=False),
                *_whole(configuration, node_name, queues, ROUTER, version, is_kept=False),
            ),
        )
        for version in IP_VERSIONS
    )


def kept_rulesets(configuration: Configuration, node_name: str, user: int | None = None) -> tuple[Ruleset, ...]:
    """Return the rules that stay when the daemon is gone, for IPv4 and IPv6: those of ``when unreachable refuse``.

    A ruleset without rules says that none of its kind may be left. Arguments and errors as with `rulesets`.
    """
    queues = packet_queues(configuration, node_name)
    guards = (
        Ruleset(node_name, version, tuple(_guard(configuration, node_name, version, user)), GUARD_PREFIX)
        for version in IP_VERSIONS
    )
    diverting = (
        Ruleset(
            node_name,
            version,
            tuple(
                rule
                for place in (LOCAL, ROUTER)
                for rule in _whole(configuration, node_name, queues, place, version, is_kept=True)
            ),
            QUEUE_PREFIX,
        )
        for version in IP_VERSIONS
    )
    return (*guards, *diverting)


def capture_addresses(configuration: Configuration, node_name: str) -> tuple[Address, ...]:
    """Return where the payload interceptor of a node must listen for what its rules divert; none if it has no rules."""
    everywhere = {4: "0.0.0.0", 6: "::"}
    node = configuration.nodes[node_name]
    return tuple(
        (host, node.capture_port)
        for version in IP_VERSIONS
        if any(_payload(configuration, node_name, version, None))
        for host in [str(host) for host in node.capture_at if host.version == version] or [everywhere[version]]
    )


def _payload(configuration: Configuration, node_name: str, version: IpVersion, user: int | None) -> Iterator[Rule]:
    """Yield the payload interceptor's rules for one IP version, or none at all."""
    chain = chain_name(node_name)
    capture_port = str(configuration.nodes[node_name].capture_port)
    redirects = [
        Rule(
            "nat",
            chain,
            (*_network("-d", network), "-p", "tcp", *ports, "-j", "REDIRECT", "--to-ports", capture_port),
        )
        for capture in configuration.captures(node_name)
        if capture.intercept.mode == "payload"
        for network in capture.to
        if network.version == version
        for ports in _ports("--dports", capture.ports)
    ]
    if not redirects:
        return
    comment = _comment(node_name)
    yield Rule("nat", "PREROUTING", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("nat", "OUTPUT", ("-p", "tcp", *_not_the_daemon(user), *comment, "-j", chain))
    yield Rule("nat", chain, _OWN_PASS)
    yield Rule("nat", chain, _OTHERS_PASS)
    yield from redirects
    yield from _straight(node_name, capture_port)


def _straight(node_name: str, capture_port: str) -> Iterator[Rule]:
    """Yield the rules that refuse connections which were made straight to the capture port.

    The interceptors of whole packets share the chain, from ``OUTPUT``: there too only packets to this host are meant.
    """
    to_port = ("-p", "tcp", "-m", "tcp", "--dport", capture_port)
    straight = ("-m", "addrtype", "--dst-type", "LOCAL", "-m", "conntrack", "!", "--ctstate", "DNAT")
    yield Rule("filter", "INPUT", (*to_port, *_comment(node_name), "-j", chain_name(node_name)))
    yield Rule("filter", chain_name(node_name), (*to_port, *straight, "-j", "REJECT", "--reject-with", "tcp-reset"))


def _guard(configuration: Configuration, node_name: str, version: IpVersion, user: int | None) -> Iterator[Rule]:
    """Yield the rules that reject what the payload interceptor was to capture and did not, or none at all."""
    chain = chain_name(node_name, GUARD_PREFIX)
    captures = [
        capture
        for capture in configuration.captures(node_name)
        if capture.intercept.mode == "payload" and capture.intercept.when_unreachable == "refuse"
    ]
    rejecting = [
        (*_network("-d", network), "-p", "tcp", *ports, "-j", "REJECT", "--reject-with", "tcp-reset")
        for capture in captures
        for network in capture.to
        if network.version == version
        for ports in _ports("--dports", capture.ports)
    ]
    if not rejecting:
        return
    comment = _comment(node_name)
    yield Rule("filter", "FORWARD", ("-p", "tcp", *comment, "-j", chain))
    yield Rule("filter", "OUTPUT", ("-p", "tcp", *_not_the_daemon(user), *comment, "-j", chain))
    yield Rule("filter", chain, _OWN_PASS)
    yield Rule("filter", chain, _OTHERS_PASS)
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
                            to = _network("-d", network)
                            yield ("-s", str(source), *to, "-p", "tcp", "-j", "RETURN")


def _up_to_last_wanted(decisions: list[tuple[bool, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Return the rules up to the last one that is wanted: what would only RETURN after it decides nothing."""
    last = max((index for index, (is_wanted, _) in enumerate(decisions) if is_wanted), default=-1)
    return [words for _, words in decisions[: last + 1]]


def _whole(
    configuration: Configuration,
    node_name: str,
    queues: Iterable[PacketQueue],
    place: Place,
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
        if queue.intercept.mode == place.mode
        for is_wanted in ((queue.intercept.when_unreachable == "refuse") is is_kept,)
        for crossing in queue.crossings
        for words in _crossing(queue, crossing, version)
    ]
    diverted = [Rule(place.table, chain, words) for words in _up_to_last_wanted(decisions)]
    if not diverted:
        return
    yield Rule(place.table, place.hook, (*_comment(node_name), "-j", chain))
    yield Rule(place.table, chain, _OWN_PASS)
    for host, port in configuration.nodes[node_name].addresses:
        address = ip_network(host)
        if address.version == version:
            link = ("-s", str(address), "-p", "udp", "-m", "udp", "--sport", str(port))
            yield Rule(place.table, chain, (*link, "-j", "RETURN"))
    if place.gathers_fragments:
        untracked = ("-m", "conntrack", "--ctstate", "UNTRACKED")
        yield Rule(place.table, chain, (*untracked, "-j", "RETURN"))
    yield from diverted


def _crossing(queue: PacketQueue, crossing: Crossing, version: IpVersion) -> Iterator[tuple[str, ...]]:
    """Yield the matches that cover what of a crossing goes into this queue; TCP's rules stand before the others."""
    name = "tcp" if queue.is_tcp else crossing.protocol
    protocol = () if name == "ip" else ("-p", name)
    for source in crossing.source:
        for destination in crossing.destination:
            if source.version == destination.version == version:
                networks = (*_network("-s", source), *_network("-d", destination))
                for source_ports in _ports("--sports", crossing.source_ports):
                    for destination_ports in _ports("--dports", crossing.destination_ports):
                        yield (*networks, *protocol, *source_ports, *destination_ports)


def _queue_target(queue: PacketQueue, is_kept: bool) -> tuple[str, ...]:
    """Return the target that queues a packet, and what becomes of it while no process reads the queue."""
    return ("-j", "NFQUEUE", "--queue-num", str(queue.number), *(() if is_kept else ("--queue-bypass",)))


def _not_the_daemon(user: int | None) -> tuple[str, ...]:
    """Return the match on the connections of all processes but those of the daemon's user, if it has one."""
    return () if user is None else ("-m", "owner", "!", "--uid-owner", str(user))


def _comment(node_name: str) -> tuple[str, ...]:
    return ("-m", "comment", "--comment", f"seamless:{node_name}")


def _network(option: str, network: Network) -> tuple[str, ...]:
    """Return the match on an address; all addresses need none, and iptables-save prints none."""
    return (option, str(network)) if network.prefixlen else ()


def _ports(option: str, ranges: tuple[PortRange, ...] | None) -> Iterator[tuple[str, ...]]:
    """Yield the matches that cover these ports, each within what one multiport match can hold."""
    if ranges is None:
        yield ()
        return
    entries: list[str] = []
    used = 0
    for first, last in ranges:
        size = 1 if first == last else 2
        if used + size > MAX_MULTIPORT_ENTRIES:
            yield _multiport(option, entries)
            entries, used = [], 0
        entries.append(str(first) if first == last else f"{first}:{last}")
        used += size
    yield _multiport(option, entries)


def _multiport(option: str, entries: list[str]) -> tuple[str, ...]:
    return ("-m", "multiport", option, ",".join(entries))
