"""What a configuration asks of one node: its links, one for each underlay path, and what routing may believe.

These are plain values. A node is built from them, and when its configuration changes they are compared
(`seamless.node.change`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import attrs

from seamless.config.model import Configuration, LinkConfig
from seamless.interfaces import Address
from seamless.link.status import LinkSettings
from seamless.routing.lsdb import Topology

LinkKey: TypeAlias = tuple[int, Address, Address]
"""Neighbor's identifier, local and remote address: what makes a link the same one in two configurations."""


@attrs.frozen
class LinkPlan:
    """One link of a node: its settings, its congestion control, and the neighbor's raw X25519 public key."""

    settings: LinkSettings
    public_key: bytes
    congestion: str
    rate_bps: int | None
    floor_bps: int | None

    @property
    def congestion_control(self) -> tuple[str, int | None, int | None]:
        """Return what a congestion controller is made from."""
        return self.congestion, self.rate_bps, self.floor_bps

    @property
    def key(self) -> LinkKey:
        """Return what identifies this link among all of the node."""
        return self.settings.neighbor_id, self.settings.local, self.settings.remote


def planned_links(configuration: Configuration, name: str) -> dict[LinkKey, LinkPlan]:
    """Return the links of the node ``name``, in the order of the configuration."""
    plans = (plan for link in configuration.links if name in link.ends for plan in _plans(configuration, link, name))
    return {plan.key: plan for plan in plans}


def _plans(configuration: Configuration, link: LinkConfig, name: str) -> Iterator[LinkPlan]:
    own_end = link.ends.index(name)
    neighbor = configuration.nodes[link.ends[1 - own_end]]
    for path in link.paths:
        settings = LinkSettings(
            neighbor=neighbor.name,
            neighbor_id=neighbor.identifier,
            local=path[own_end],
            remote=path[1 - own_end],
            mtu_bytes=link.mtu_bytes,
            hello_interval=configuration.overlay.hello_interval,
            dead_interval=configuration.overlay.dead_interval,
            dials=link.passive != name,
            neighbor_dials=link.passive != neighbor.name,
            cost=link.cost,
        )
        yield LinkPlan(settings, neighbor.x25519_public_key, link.congestion, link.rate_bps, link.floor_bps)


def topology_of(configuration: Configuration) -> Topology:
    """Return which nodes, links and leaves routing may believe in."""
    identifier = {name: node.identifier for name, node in configuration.nodes.items()}
    return Topology(
        nodes=frozenset(identifier.values()),
        links=frozenset(frozenset(identifier[end] for end in link.ends) for link in configuration.links),
        leaves=frozenset(node.identifier for node in configuration.nodes.values() if node.leaf),
    )
