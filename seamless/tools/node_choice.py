"""Chooses the node that a command means: the configuration is the same on every host, so a node must be named."""

from __future__ import annotations

from seamless.config.model import Configuration, NodeConfig
from seamless.errors import UsageError


def choose_node(configuration: Configuration, path: str, name: str | None, hostname: str) -> NodeConfig:
    """Return the node called ``name``, or if that is None the one with the name of this host.

    Raises `UsageError` naming the nodes that the file ``path`` has.
    """
    short_hostname = hostname.partition(".")[0]
    node = configuration.nodes.get(short_hostname if name is None else name)
    if node is not None:
        return node
    known = ", ".join(configuration.nodes)
    if name is None:
        raise UsageError(
            f"{path} has no node with the name of this host, {short_hostname}: "
            f"say with --node which one it is ({known})"
        )
    raise UsageError(f"{path} has no node {name}: give --node one that it has ({known})")
