"""The overlay as one node can see it: the reports of all nodes at once, and a path hop by hop.

What a node does not say within `ANSWER_TIMEOUT` is unknown, and the answer says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from seamless.errors import UnreachableError, UsageError
from seamless.transport.remote_status import Report, StatusService
from seamless.transport.report import Reporter, RunningNode

HOP_FIELDS = ("state", "reason", "rtt", "rates", "resent", "queued_bytes", "mtu_bytes")
"""What a trace says of each link."""


class Overview:
    """Asks other nodes what they report."""

    def __init__(self, node: RunningNode, reporter: Reporter, status: StatusService) -> None:
        self._node = node
        self._reporter = reporter
        self._status = status

    def report(self) -> Report:
        """Return what this node reports."""
        return attrs.asdict(self._reporter.report())

    def of(self, name: object) -> Deferred[Report]:
        """Fire with the report of one node; fail with `UnreachableError`, or `UsageError` if there is no such node."""
        core = self._node.driver.node
        names = core.configuration.nodes
        if not isinstance(name, str) or name not in names:
            raise UsageError(f"node {core.name} knows no node {name!r}: name one of {', '.join(names)}")
        return succeed(self.report()) if name == core.name else self._status.ask(name)

    def of_each(self, names: Iterable[str]) -> Deferred[dict[str, Report]]:
        """Fire with the reports of these nodes by name; in the place of one that is unknown stands the reason."""
        asked = list(names)

        def unknown(failure: Failure) -> Report:
            failure.trap(UnreachableError)
            return {"unknown": str(failure.value)}

        asking = gatherResults([self.of(name).addErrback(unknown) for name in asked])
        return asking.addCallback(lambda reports: dict(zip(asked, reports)))

    def all(self) -> Deferred[dict[str, Report]]:
        """Fire with the reports of all nodes."""
        return self.of_each(self._node.driver.node.configuration.nodes)

    def trace(self, peer: object) -> Deferred[dict[str, Any]]:
        """Fire with the path from here to ``peer``, and what the node before each hop says of its link."""
        core = self._node.driver.node
        others = [name for name in core.configuration.nodes if name != core.name]
        if not isinstance(peer, str) or peer not in others:
            raise UsageError(f"node {core.name} knows no other node {peer!r}: trace one of {', '.join(others)}")
        path = self._reporter.path(peer)
        if not path:
            raise UnreachableError(f"there is no path to node {peer} now: look at the links with seamless status --all")
        asking = self.of_each(path[:-1])
        return asking.addCallback(lambda reports: {"path": path, "hops": _hops(path, reports)})


def _hops(path: tuple[str, ...], reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    return [{"from": here, "to": there, **_hop(reports[here], there)} for here, there in pairwise(path)]


def _hop(report: Report, neighbor: str) -> dict[str, Any]:
    """Return what a node reports of its link to a neighbor, the best of several; or why that is unknown."""
    if "unknown" in report:
        return {"unknown": report["unknown"]}
    links = report.get("links")
    found = [
        link
        for link in (links if isinstance(links, list | tuple) else ())
        if isinstance(link, dict) and link.get("neighbor") == neighbor
    ]
    if not found:
        return {"unknown": f"it reports no link to {neighbor}"}
    best = next((link for link in found if link.get("state") == "UP"), found[0])
    return {field: best.get(field) for field in HOP_FIELDS}
