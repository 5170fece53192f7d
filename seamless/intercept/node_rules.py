"""Computes the firewall rules of a node from its configuration, as `seamless.linux.ruleset.Ruleset` values.

For the payload interceptor, in the table ``nat`` and per IP version::

    OUTPUT (but the daemon's user), PREROUTING ─ tcp ─> SEAMLESS-<node>
        the daemon's own connections (they carry a mark)      RETURN
        packets that do not open a connection                 RETURN
        SYNs whose connection is to fail (a mark says how)    RETURN
        tcp to NETWORK, ports                                 REDIRECT to the capture port

* ``OUTPUT`` sees the applications of this host, ``PREROUTING`` those of hosts behind it. REDIRECT sends the first to
  the loopback address and the others to the address of the interface they came in by. So the capture port listens on
  every address (or where ``capture at`` says), and ``route_localnet``, which opens loopback services to the network, is
  never needed.
* No program is meant to connect to the capture port itself. In the table ``filter``, from ``INPUT``, the same chain
  refuses with a reset whatever comes to it and was not redirected: that costs the kernel's time, and none of the
  daemon's.
* Connections from before the rules are left alone: connection tracking may first see them in the middle, and would
  take any of their packets for a new flow.
* The daemon's own connections pass. As root it marks them, which takes CAP_NET_ADMIN. As a user of its own it needs no
  privilege for that: the rules leave out what that user's processes open. So no other program may run as that user.
* ``to`` is what the configuration resolves it to: never what the node itself serves. So what the egress dials is never
  captured there.

With ``connect confirmed`` or ``learned`` a SYN waits before that, until the daemon knows what the egress says. In the
tables ``mangle`` and ``filter``::

    OUTPUT (but the daemon's user), PREROUTING ─ tcp ─> SEAMHOLD-<node>
        the daemon's own connections (they carry a mark)      RETURN
        packets that do not open a connection                 RETURN
        tcp to NETWORK, ports, of no known connection         MARK: what becomes of it if nobody decides
        tcp to NETWORK, ports, of no known connection         NFQUEUE; bypass

    OUTPUT, FORWARD ─ tcp ─> SEAMHOLD-<node>
        SYNs that are marked as refused, unreachable, ...     REJECT with what the server's network answered

With ``source client`` a node that serves what others capture so has rules too, and a routing rule for what they mark
(`seamless.intercept.payload.source_rules`), in the table ``mangle``::

    PREROUTING ─ tcp, icmp ─> SEAMBACK-<node>
        from NETWORK, for a socket with a client's address    MARK
        ICMP errors of connections with this mark             MARK
        with this mark                                        ACCEPT

    OUTPUT ─ tcp, icmp ─> SEAMANSWER-<node>
        what the egress sends with a client's address         CONNMARK
        answers in connections with this mark                 MARK

For the interceptors of whole packets, in the table and at the hook that their `CapturePoint` names::

    hook ──> SEAMLESS-<node>
        what the daemon releases (it carries the mark)        RETURN
        the datagrams of our own links                        RETURN
        from SOURCE to DESTINATION, protocol, ports           NFQUEUE, by interceptor and peer; bypass

What they match is exactly what the other end releases (`seamless.intercept.packets.crossings`).

These rules are there while the daemon is. With ``when unreachable refuse`` there are more, which stay when it is gone
(`kept_rulesets`). For connections that were not captured, in the table ``filter``, which a flush of ``nat`` leaves
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

from seamless.config.model import Configuration
from seamless.intercept.packets.capture_points import LOCAL, ROUTER
from seamless.intercept.packets.crossings import packet_queues
from seamless.intercept.packets.queue_rules import queue_rules
from seamless.intercept.payload.hold_rules import hold_rules, holds
from seamless.intercept.payload.redirect_rules import guard_rules, redirect_rules
from seamless.intercept.payload.source_rules import source_routes, source_rulesets
from seamless.interfaces import Address
from seamless.linux.policy_routes import LocalRoute
from seamless.linux.ruleset import GUARD_PREFIX, HOLD_PREFIX, IP_VERSIONS, QUEUE_PREFIX, Ruleset


def rulesets(configuration: Configuration, node_name: str, user: int | None = None) -> tuple[Ruleset, ...]:
    """Return the rules that a node installs, for IPv4 and IPv6; no rules where it captures nothing of that version.

    Those that hold SYNs come last: of two chains at one hook the later is on top, and a SYN that is marked to fail in
    one way must not come to a rule that rejects it in another.

    ``user``: the user id that the daemon has without privilege, None when it runs as root. ``KeyError`` if there is no
    such node.
    """
    queues = packet_queues(configuration, node_name)
    own = (
        Ruleset(
            node_name,
            version,
            (
                *redirect_rules(configuration, node_name, version, user),
                *queue_rules(configuration, node_name, queues, LOCAL, version, is_kept=False),
                *queue_rules(configuration, node_name, queues, ROUTER, version, is_kept=False),
            ),
        )
        for version in IP_VERSIONS
    )
    holding = (
        Ruleset(node_name, version, tuple(hold_rules(configuration, node_name, version, user)), HOLD_PREFIX)
        for version in IP_VERSIONS
        if holds(configuration, node_name, version)
    )
    return (*own, *holding, *source_rulesets(configuration, node_name))


def routes(configuration: Configuration, node_name: str) -> tuple[LocalRoute, ...]:
    """Return the routes that a node installs for what its rules mark. ``KeyError`` if there is no such node."""
    return source_routes(configuration, node_name)


def kept_rulesets(configuration: Configuration, node_name: str, user: int | None = None) -> tuple[Ruleset, ...]:
    """Return the rules that stay when the daemon is gone, for IPv4 and IPv6: those of ``when unreachable refuse``.

    A ruleset without rules says that none of its kind may be left. Arguments and errors as with `rulesets`.
    """
    queues = packet_queues(configuration, node_name)
    guards = (
        Ruleset(node_name, version, tuple(guard_rules(configuration, node_name, version, user)), GUARD_PREFIX)
        for version in IP_VERSIONS
    )
    diverting = (
        Ruleset(
            node_name,
            version,
            tuple(
                rule
                for point in (LOCAL, ROUTER)
                for rule in queue_rules(configuration, node_name, queues, point, version, is_kept=True)
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
        if any(redirect_rules(configuration, node_name, version, None))
        for host in [str(host) for host in node.capture_at if host.version == version] or [everywhere[version]]
    )
