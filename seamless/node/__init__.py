"""The whole node, still pure: links below, sessions above, routing beside. Start reading at `seamless.node.node`."""

from seamless.node.node import Node
from seamless.node.status import NodeCounters, NodeStatus

__all__ = ["Node", "NodeCounters", "NodeStatus"]
