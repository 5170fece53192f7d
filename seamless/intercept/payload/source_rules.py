"""``source client``: which clients' addresses an egress may use, and the rules that bring the answers back to it.

Pure: from the configuration to decisions, `Rule` and `LocalRoute` values. The egress dials with the client's address,
which is not its own: so the answers are packets that the kernel would forward to the client, and they must be delivered
here instead. The dialling socket marks what it sends (`DIAL_MARK`).

* What we send gives its connection a mark in connection tracking.
* Answers of a server elsewhere (on the LAN, behind a bridge) come in; ``-m socket --transparent`` knows the socket that
  they are for, and marks them (`BACK_MARK`); a routing rule delivers what is marked so to this host.
* Answers of a server on this host, and ICMP errors of either, take the mark from their connection.

With src_valid_mark=1 the kernel looks for the way back to a marked packet's source by the same routing rule, finds it
on ``lo``, and drops the first kind as martians.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from seamless.config.model import Capture, Configuration, Network, overlap
from seamless.errors import RemoteProtocolError
from seamless.intercept.payload.flow import (
    Flow,
    ReleaseTable,
    canonical,
    decode_flow,
    matches,
    payload_captures,
    sentence,
    target_bytes,
)
from seamless.intercept.rule_matches import OWN_MARK, comment_match, network_match
from seamless.linux.policy_routes import LocalRoute
from seamless.linux.ruleset import ANSWER_PREFIX, BACK_PREFIX, IP_VERSIONS, IpVersion, Rule, Ruleset, chain_name
from seamless.linux.transparent import Authorise, Endpoints

BACK_MARK: Final = 0x2000
"""Firewall mark of the answers that a server sends to a client whose address the egress used."""
DIAL_MARK: Final = OWN_MARK | BACK_MARK
"""Firewall mark of what the egress sends with a client's address: it is the daemon's own, and not captured."""


_BACK: Final = f"{BACK_MARK:#x}/0xffffffff"
_ICMP: Final[dict[IpVersion, str]] = {4: "icmp", 6: "ipv6-icmp"}
_ANSWERS: Final = (
    *("-m", "connmark", "--mark", f"{BACK_MARK:#x}", "-m", "conntrack", "--ctdir", "REPLY"),
    *("-j", "CONNMARK", "--restore-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"),
)
"""Rule that marks what answers in a connection that connection tracking has the mark of, ICMP errors among it."""


class ClientAddresses:
    """The clients' addresses that one node may use when it connects for its peers: by default none."""

    def __init__(self, configuration: Configuration, node: str) -> None:
        self._captures = {peer: source_captures(configuration, peer, node) for peer in configuration.nodes}
        self._own = {canonical(host) for host, _ in configuration.nodes[node].addresses}
        self._allowed = {
            peer.name: (peer.serves, {canonical(host) for host, _ in peer.addresses})
            for peer in configuration.nodes.values()
        }

    def uses_client(self, peer: str, flow: Flow) -> bool:
        """Return whether a server is to see the client of ``peer``, and not this node."""
        address, port = canonical(flow.destination[0]), flow.destination[1]
        return any(matches(capture, address, port) for capture in self._captures.get(peer, ()))

    def refusal(self, peer: str, flow: Flow) -> str | None:
        """Return the reason why the client's address may not be used for ``peer``, None when it may."""
        address, destination = canonical(flow.client[0]), canonical(flow.destination[0])
        if address.is_loopback or address.is_multicast or address.is_link_local or address.is_unspecified:
            return f"{flow.client[0]} is no address of a client"
        if address.version != destination.version:
            return f"{flow.client[0]} and {flow.destination[0]} differ in IP version"
        if address in self._own:
            return f"{flow.client[0]} is this node's own address, and no client's of node {peer}"
        serves, own = self._allowed[peer]
        if address in own or any(address in network for network in serves):
            return None
        return (
            f"node {peer} does not serve the client's address {flow.client[0]}, which source client would have to use: "
            f"add it to the `serves` of {peer}, or say source egress"
        )


def encode_request(peer: str, flow: Flow) -> bytes:
    """Return what the daemon asks the privileged part for: a connection for ``peer``, from the flow's client."""
    return flow.encode() + peer.encode()


def decode_request(message: bytes) -> tuple[str, Flow]:
    """Return (peer, flow) of such a request; `RemoteProtocolError` when it is none."""
    size = target_bytes(message)
    return message[size:].decode(errors="replace"), decode_flow(message[:size])


def authorisation(configuration: Configuration, node: str) -> Authorise:
    """Return what says, to a request of the daemon's, where a socket may be connected from and to, or why not."""
    release, clients = ReleaseTable(configuration, node), ClientAddresses(configuration, node)

    def authorise(message: bytes) -> Endpoints | str:
        try:
            peer, flow = decode_request(message)
        except RemoteProtocolError as error:
            return str(error)
        if not clients.uses_client(peer, flow):
            return (
                f"no interceptor lets node {peer} connect with its clients' addresses to {sentence(flow.destination)}"
            )
        reason = release.refusal(peer, flow.destination) or clients.refusal(peer, flow)
        return Endpoints(flow.client, flow.destination) if reason is None else reason

    return authorise


def source_captures(configuration: Configuration, peer: str, node: str) -> tuple[Capture, ...]:
    """Return what ``peer`` captures that ``node`` releases with the client's address."""
    if peer == node:
        return ()
    serves = configuration.nodes[node].serves
    return tuple(
        capture
        for capture in payload_captures(configuration, peer)
        if capture.intercept.source == "client" and any(overlap(to, served) for to in capture.to for served in serves)
    )


def authorised(configuration: Configuration, node: str) -> tuple[object, ...]:
    """Return what `authorisation` decides by, to be compared with that of another configuration."""
    return tuple(
        (peer.name, captures, peer.serves, peer.addresses, configuration.nodes[node].serves)
        for peer in configuration.nodes.values()
        if (captures := source_captures(configuration, peer.name, node))
    )


def servers(configuration: Configuration, node: str, version: IpVersion) -> tuple[Network, ...]:
    """Return the networks of one IP version whose servers see their client, as far as this node releases to them."""
    found = {
        max((to, served), key=lambda network: network.prefixlen): None
        for peer in configuration.nodes
        for capture in source_captures(configuration, peer, node)
        for to in capture.to
        for served in configuration.nodes[node].serves
        if to.version == version and overlap(to, served)
    }
    return tuple(found)


def uses_clients(configuration: Configuration, node: str) -> bool:
    """Return whether this node connects with its peers' clients' addresses."""
    return any(servers(configuration, node, version) for version in IP_VERSIONS)


def source_rulesets(configuration: Configuration, node: str) -> tuple[Ruleset, ...]:
    """Return the rules that mark what answers clients whose addresses this node uses; none where it uses none."""
    return tuple(
        ruleset
        for version in IP_VERSIONS
        if servers(configuration, node, version)
        for ruleset in (
            Ruleset(node, version, tuple(_back_rules(configuration, node, version)), BACK_PREFIX),
            Ruleset(node, version, tuple(_answer_rules(node, version)), ANSWER_PREFIX),
        )
    )


def source_routes(configuration: Configuration, node: str) -> tuple[LocalRoute, ...]:
    """Return the routes that deliver to this host what these rules mark."""
    return tuple(
        LocalRoute(node, version, BACK_MARK) for version in IP_VERSIONS if servers(configuration, node, version)
    )


def _back_rules(configuration: Configuration, node: str, version: IpVersion) -> Iterator[Rule]:
    chain, icmp = chain_name(node, BACK_PREFIX), _ICMP[version]
    for protocol in ("tcp", icmp):
        yield Rule("mangle", "PREROUTING", ("-p", protocol, *comment_match(node), "-j", chain))
    for network in servers(configuration, node, version):
        ours = (*network_match("-s", network), "!", "-i", "lo", "-p", "tcp", "-m", "socket", "--transparent")
        yield Rule("mangle", chain, (*ours, "-j", "MARK", "--set-xmark", _BACK))
    yield Rule("mangle", chain, ("!", "-i", "lo", "-p", icmp, *_ANSWERS))
    yield Rule("mangle", chain, ("!", "-i", "lo", "-m", "mark", "--mark", f"{BACK_MARK:#x}", "-j", "ACCEPT"))


def _answer_rules(node: str, version: IpVersion) -> Iterator[Rule]:
    chain = chain_name(node, ANSWER_PREFIX)
    for protocol in ("tcp", _ICMP[version]):
        yield Rule("mangle", "OUTPUT", ("-p", protocol, *comment_match(node), "-j", chain))
    dialled = ("-p", "tcp", "-m", "mark", "--mark", f"{DIAL_MARK:#x}")
    yield Rule("mangle", chain, (*dialled, "-j", "CONNMARK", "--set-xmark", _BACK))
    yield Rule("mangle", chain, _ANSWERS)
