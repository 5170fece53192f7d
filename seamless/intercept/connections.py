"""Which connections a node carries, how fast, and what holds each one up: the answers of ``seamless connections``.

Nothing is sampled while nobody asks. A question takes two looks at the bytes of all connections, `RATE_INTERVAL` apart,
and builds whole rows only for those that are asked for. Whatever grows with the number of connections is done in slices
between which the links are served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import Any, Final, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from seamless.config.model import Network
from seamless.errors import UsageError
from seamless.intercept.interceptors import Interceptors
from seamless.intercept.payload.flow import Carried, Ended, canonical
from seamless.session.stream_status import StreamStatus
from seamless.transport.report import RunningNode
from seamless.transport.splice import Splice

RATE_INTERVAL: Final = 0.5
"""Seconds between two looks at the bytes of a connection."""
SLICE: Final = 250
"""Connections looked at in one turn of the reactor: about 2 ms."""
ROWS_MAX: Final = 1000
DEFAULT_ROWS: Final = 100

Question: TypeAlias = Mapping[str, Any]
_Connection: TypeAlias = tuple[bool, Carried, Splice]


@attrs.frozen(kw_only=True)
class ConnectionReport:
    """One connection; ``client`` and ``server`` are address and port as the application means them.

    Rates are of the last `RATE_INTERVAL` seconds. ``path`` leads from the ingress to the egress; it is empty while
    there is none. ``egress`` is None for a connection that goes directly. ``held_by`` is a sentence, None when nothing
    holds it up.
    """

    client: tuple[str, int]
    server: tuple[str, int]
    ingress: str
    egress: str | None
    path: tuple[str, ...]
    age: float
    to_server_bytes: int
    to_client_bytes: int
    to_server_bps: float
    to_client_bps: float
    rtt: float | None
    held_by: str | None
    resends: int
    unsent_bytes: int
    in_flight_bytes: int
    unread_bytes: int


@attrs.frozen
class EndedReport:
    """A connection that was refused, or has ended, ``ago`` seconds ago."""

    client: tuple[str, int]
    server: tuple[str, int]
    peer: str | None
    ago: float
    refused: bool
    reason: str
    seconds: float
    to_server_bytes: int
    to_client_bytes: int


_SORTS: Final[Mapping[str, Callable[[ConnectionReport], float]]] = {
    "rate": lambda row: row.to_server_bps + row.to_client_bps,
    "age": lambda row: row.age,
    "bytes": lambda row: row.to_server_bytes + row.to_client_bytes,
    "resends": lambda row: row.resends,
}


@attrs.frozen
class Selection:
    """Which connections are asked for: to any of ``to`` and ``port``; with ``slow`` those that something holds up."""

    to: Network | None = None
    port: int | None = None
    slow: bool = False
    sort: str = "rate"
    rows: int = DEFAULT_ROWS

    def has(self, server: tuple[str, int]) -> bool:
        """Return whether connections to this server are asked for."""
        return (self.port is None or self.port == server[1]) and (self.to is None or canonical(server[0]) in self.to)


def selection(question: Question) -> Selection:
    """Return what a question asks for; raise `UsageError` when it makes no sense."""
    network = None
    if (to := question.get("to")) is not None:
        try:
            network = ip_network(str(to), strict=False)
        except ValueError:
            raise UsageError(f"--to {to!r} is no IP address and no prefix: write 10.1.9.2 or 10.1.9.0/24") from None
    port, rows, sort = question.get("port"), question.get("rows", DEFAULT_ROWS), question.get("sort", "rate")
    if port is not None and not (isinstance(port, int) and 0 < port < 65536):
        raise UsageError(f"--port {port!r} is no TCP port: write a number from 1 to 65535")
    if not (isinstance(rows, int) and 0 < rows <= ROWS_MAX):
        raise UsageError(f"--rows {rows!r} is not possible: write a number from 1 to {ROWS_MAX}")
    if sort not in _SORTS:
        raise UsageError(f"--sort {sort!r} is not possible: sort by {', '.join(_SORTS)}")
    return Selection(network, port, bool(question.get("slow")), sort, rows)


class Connections:
    """Looks at the connections of one running node; ``path(peer)`` returns the names from here to there."""

    def __init__(
        self, reactor: Any, node: RunningNode, interceptors: Interceptors, path: Callable[[str], tuple[str, ...]]
    ) -> None:
        self._reactor = reactor
        self._node = node
        self._interceptors = interceptors
        self._path = path

    def ask(self, question: Question) -> Deferred[dict[str, Any]]:
        """Fire with the rows that are asked for; raise `UsageError` when the question makes no sense."""
        return Deferred.fromCoroutine(self._answer(selection(question)))

    async def _answer(self, wanted: Selection) -> dict[str, Any]:
        before = {splice: (splice.bytes_up, splice.bytes_down) for _, _, splice in self._interceptors.carried()}
        began_at = self._reactor.seconds()
        await deferLater(self._reactor, RATE_INTERVAL)
        found = list(self._interceptors.carried())
        chosen = [each for each in found if wanted.has(each[1].flow.destination)]
        interval = self._reactor.seconds() - began_at
        paths: dict[str, tuple[str, ...]] = {}
        rows: list[ConnectionReport] = []
        for start in range(0, len(chosen), SLICE):
            for each in chosen[start : start + SLICE]:
                row = self._row(each, before.get(each[2]), interval, paths)
                if row.held_by is not None or not wanted.slow:
                    rows.append(row)
            await deferLater(self._reactor, 0)
        rows.sort(key=_SORTS[wanted.sort], reverse=True)
        now = self._reactor.seconds()
        return {
            "node": self._node.driver.name,
            "time": time.time(),
            "open": len(found),
            "matching": len(rows),
            "connections": [attrs.asdict(row) for row in rows[: wanted.rows]],
            "ended": [attrs.asdict(each) for each in self._ended(wanted, now)],
        }

    def _ended(self, wanted: Selection, now: float) -> Iterable[EndedReport]:
        for _, ended in self._interceptors.ended():
            if wanted.has(ended.flow.destination):
                yield _ended_report(ended, now)

    def _row(
        self,
        connection: _Connection,
        before: tuple[int, int] | None,
        interval: float,
        paths: dict[str, tuple[str, ...]],
    ) -> ConnectionReport:
        is_ingress, carried, splice = connection
        core = self._node.driver.node
        peer = carried.peer
        if peer is not None and peer not in paths:
            paths[peer] = self._path(peer)
        path = () if peer is None else paths[peer]
        up, down = splice.bytes_up, splice.bytes_down
        before = before or (up, down)
        rates = [(now - then) * 8 / interval if interval > 0 else 0.0 for now, then in zip((up, down), before)]
        stream = core.stream_status(splice.stream) if peer is not None else None
        to_server, to_client = (up, down) if is_ingress else (down, up)
        to_server_bps, to_client_bps = rates if is_ingress else reversed(rates)
        return ConnectionReport(
            client=carried.flow.client,
            server=carried.flow.destination,
            ingress=core.name if is_ingress else str(peer),
            egress=peer if is_ingress else core.name,
            path=path if is_ingress else path[::-1],
            age=self._reactor.seconds() - splice.started_at,
            to_server_bytes=to_server,
            to_client_bytes=to_client,
            to_server_bps=to_server_bps,
            to_client_bps=to_client_bps,
            rtt=stream.rtt if stream is not None and stream.accepted else None,
            held_by=_held_by(connection, stream, path),
            resends=0 if stream is None else stream.resends,
            unsent_bytes=0 if stream is None else stream.unsent_bytes,
            in_flight_bytes=0 if stream is None else stream.in_flight_bytes,
            unread_bytes=splice.unwritten_bytes + (0 if stream is None else stream.missing_bytes),
        )


def _held_by(connection: _Connection, stream: StreamStatus | None, path: tuple[str, ...]) -> str | None:
    """Return in words what a connection waits for, None when it does not wait."""
    is_ingress, carried, splice = connection
    near, far = ("client", "server") if is_ingress else ("server", "client")
    hold = None if stream is None else stream.held_by
    if hold == "path" or (stream is not None and not path):
        return f"there is no path to node {carried.peer}"
    if splice.unwritten_bytes:
        return f"the {near} does not read"
    if hold == "opening":
        return f"node {carried.peer} has not connected to the server yet"
    if hold == "window":
        return f"the {far} does not read, and its window at node {carried.peer} is full"
    if hold == "session window":
        return f"the window for all connections with node {carried.peer} is full: other readers there do not read"
    if hold == "link":
        return f"the link to {path[1]} has no room for more" if len(path) > 1 else "the first link has no room for more"
    return None


def _ended_report(ended: Ended, now: float) -> EndedReport:
    return EndedReport(
        client=ended.flow.client,
        server=ended.flow.destination,
        peer=ended.peer,
        ago=now - ended.at,
        refused=ended.is_refused,
        reason=ended.reason,
        seconds=ended.seconds,
        to_server_bytes=ended.to_server_bytes,
        to_client_bytes=ended.to_client_bytes,
    )
