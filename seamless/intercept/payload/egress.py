"""The egress of the payload interceptor: dials for its peers what the configuration allows, and splices.

On the way of a byte this stands between the session and the serving application. A stream is accepted only when the
connection stands, so that a refused or dead server looks refused or dead to the client too; bytes that the client sent
meanwhile wait within the stream's window. Everything is refused unless `ReleaseTable` knows no reason to, and every
refusal is one line in the log.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs
from twisted.application.service import Service
from twisted.logger import Logger

from seamless.errors import DialError, RemoteProtocolError
from seamless.intercept.payload.flow import CLEANLY, ENDED_KEPT, Carried, Ended, Flow, OpeningLimit, decode_flow
from seamless.intercept.payload.source_rules import ClientAddresses, encode_request
from seamless.interfaces import (
    RESET_HOST_UNREACHABLE,
    RESET_NETWORK_UNREACHABLE,
    RESET_NOT_ALLOWED,
    RESET_PORT_UNREACHABLE,
    RESET_PROHIBITED,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    RESET_TIMED_OUT,
    Address,
    StreamKey,
)
from seamless.transport.dial import DIAL_TIMEOUT, Connect, Dial
from seamless.transport.limited_log import LimitedLog
from seamless.transport.splice import Splice
from seamless.transport.streams import TARGET_CONNECTION, Acceptors, StreamDriver
from seamless.transport.transparent_dials import TransparentDials

MAX_DIALS: Final = 4096
"""Connections being made at once: one file descriptor each, for 10 s at most."""
MAX_DIALS_PER_PEER: Final = 2048
"""Of these, connections for one peer..."""
MAX_DIALS_PER_CLIENT: Final = 1024
"""...and for one client of that peer's, so that a flood of one client's leaves room for the others."""

_CODES: Final = {
    errno.ETIMEDOUT: RESET_TIMED_OUT,
    errno.EHOSTUNREACH: RESET_HOST_UNREACHABLE,
    errno.EHOSTDOWN: RESET_HOST_UNREACHABLE,
    errno.ENETUNREACH: RESET_NETWORK_UNREACHABLE,
    errno.ENONET: RESET_HOST_UNREACHABLE,
    errno.EACCES: RESET_PROHIBITED,
    errno.EINVAL: RESET_TIMED_OUT,
}
"""The code of a failed dial by its errno. The kernel's own routes say EACCES (prohibit) and EINVAL (blackhole: the
packets of others vanish there)."""
_PORT_TAKEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""A connection with the same addresses and ports stands, or ended less than a minute ago (TIME_WAIT)."""
_PROHIBITED_BY_ICMP: Final = (10, 13)
"""ICMP codes: host administratively prohibited, communication administratively prohibited (RFC 1812)."""

Refusal: TypeAlias = Callable[[str, Address], "str | None"]
"""Called with (peer, destination); returns the reason for a refusal or None (`ReleaseTable.refusal`)."""


@attrs.define
class EgressCounters:
    """Outcomes of the streams that peers opened for connections."""

    asked: int = 0
    connected: int = 0
    not_allowed: int = 0
    overloaded: int = 0
    unreachable: int = 0
    as_client: int = 0
    """Dialled with the client's address..."""
    other_port: int = 0
    """...and from another port, since a connection from the client's port was there already."""
    given_up: int = 0
    """Given up by the client while the connection was being made."""


class PayloadEgress(Service):
    """Releases the connections that peers captured. ``mark`` is the firewall mark of our own connections, if any."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        driver: StreamDriver,
        acceptors: Acceptors,
        refusal: Refusal,
        *,
        mark: int | None = None,
        dial_timeout: float = DIAL_TIMEOUT,
        clients: ClientAddresses | None = None,
        dials: TransparentDials | None = None,
    ) -> None:
        """``clients``, ``dials``: which clients' addresses may be used, and what connects with them."""
        self._reactor = reactor
        self._driver = driver
        self._acceptors = acceptors
        self._refusal = refusal
        self._mark = mark
        self._dial_timeout = dial_timeout
        self._clients = clients
        self._transparent = dials
        self._dials: dict[StreamKey, tuple[Dial, Carried]] = {}
        self._splices: dict[Splice, Carried] = {}
        self._waiting = OpeningLimit(MAX_DIALS, MAX_DIALS_PER_PEER)
        self._clients_waiting = OpeningLimit(MAX_DIALS, MAX_DIALS_PER_CLIENT)
        self._limited = LimitedLog(reactor, self._log)
        self.counters = EgressCounters()
        self.ended: deque[Ended] = deque(maxlen=ENDED_KEPT)
        """Connections that were refused or have ended, the last one last."""

    @property
    def connections(self) -> int:
        """Return how many connections are spliced now."""
        return len(self._splices)

    @property
    def waiting(self) -> int:
        """Return how many connections are being made."""
        return len(self._dials)

    def carried(self) -> Iterator[tuple[Carried, Splice]]:
        """Yield the connections that are spliced now."""
        for splice, carried in self._splices.items():
            yield carried, splice

    def startService(self) -> None:
        """Begin to accept streams for connections from peers."""
        super().startService()
        self._acceptors.register(TARGET_CONNECTION, self._opened)

    def stopService(self) -> None:
        """Reset all connections that have not ended: a stream cut short must not look complete."""
        super().stopService()
        self._acceptors.unregister(TARGET_CONNECTION)
        for stream, (dial, _) in list(self._dials.items()):
            dial.cancel()
            self._driver.reset(stream, RESET_SHUTDOWN, f"node {self._driver.name} is stopping")
        self._dials.clear()
        for splice in list(self._splices):
            splice.abort(RESET_SHUTDOWN, f"node {self._driver.name} is stopping")
        self._limited.close()

    def configure(self, refusal: Refusal, clients: ClientAddresses | None = None) -> int:
        """Decide by another table from now on; return how many connections were reset because it refuses them.

        Connections that stand keep the address that they have.
        """
        self._refusal, self._clients = refusal, clients
        reset = 0
        reasons: dict[tuple[str, Address], str | None] = {}

        def refused(carried: Carried) -> str | None:
            key = (str(carried.peer), carried.flow.destination)
            if key not in reasons:
                reasons[key] = refusal(*key)
            return reasons[key]

        for stream, (dial, carried) in list(self._dials.items()):
            if (reason := refused(carried)) is not None:
                dial.cancel()
                self._dialled(stream)
                self._driver.reset(stream, RESET_NOT_ALLOWED, reason)
                reset += 1
        for splice, carried in list(self._splices.items()):
            if (reason := refused(carried)) is not None:
                splice.abort(RESET_NOT_ALLOWED, reason)
                reset += 1
        return reset

    def _opened(self, stream: StreamKey, peer: str, target: bytes) -> None:
        self.counters.asked += 1
        try:
            flow = decode_flow(target)
        except RemoteProtocolError as error:
            self._refuse(stream, peer, str(error))
            return
        as_client = self._clients is not None and self._clients.uses_client(peer, flow)
        reason = self._reason(peer, flow, as_client)
        if reason is not None:
            self._refuse(stream, peer, reason, flow)
        elif not self._enter(peer, flow):
            self.counters.overloaded += 1
            self._fail(stream, peer, flow, f"node {self._driver.name} waits for too many servers already")
        else:
            if as_client:
                self.counters.as_client += 1
            self._dial(stream, peer, flow, flow.client[1] if as_client else None)

    def _reason(self, peer: str, flow: Flow, as_client: bool) -> str | None:
        """Return why ``peer`` may not have this connection, None when it may."""
        reason = self._refusal(peer, flow.destination)
        if reason is None and as_client and self._clients is not None:
            return self._clients.refusal(peer, flow)
        return reason

    def _enter(self, peer: str, flow: Flow) -> bool:
        """Count one more connection that is being made; return False when that would be too many."""
        if not self._clients_waiting.enter(f"{peer} {flow.client[0]}"):
            return False
        if self._waiting.enter(peer):
            return True
        self._clients_waiting.leave(f"{peer} {flow.client[0]}")
        return False

    def _refuse(self, stream: StreamKey, peer: str, reason: str, flow: Flow | None = None) -> None:
        self.counters.not_allowed += 1
        line = "refused node {peer} a connection ({flow}): {reason}"
        self._limited.warn(peer, line, peer=peer, flow=flow, reason=reason)
        self._driver.reset(stream, RESET_NOT_ALLOWED, reason)
        if flow is not None:
            self.ended.append(Ended(flow, peer, self._reactor.seconds(), reason, is_refused=True))

    def _fail(self, stream: StreamKey, peer: str, flow: Flow, reason: str, code: int = RESET_REFUSED) -> None:
        line = "no connection for node {peer} ({flow}): {reason}"
        self._limited.info(peer, line, peer=peer, flow=flow, reason=reason)
        self._driver.reset(stream, code, reason)
        self.ended.append(Ended(flow, peer, self._reactor.seconds(), reason, is_refused=True))

    def _dial(self, stream: StreamKey, peer: str, flow: Flow, client_port: int | None) -> None:
        """Connect for a stream; with ``client_port`` from the client's address and this port (0: any that is free)."""

        def connected(sock: socket.socket) -> None:
            self._dialled(stream)
            self._connected(stream, peer, flow, sock)

        def failed(error: DialError) -> None:
            if client_port and error.errno in _PORT_TAKEN:
                self.counters.other_port += 1
                self._dial(stream, peer, flow, 0)
                return
            self._dialled(stream)
            self.counters.unreachable += 1
            self._fail(stream, peer, flow, str(error), failure_code(error, flow.destination))

        def given_up() -> None:
            self._dials[stream][0].cancel()
            self._dialled(stream)
            self.counters.given_up += 1

        self._driver.watch_stream(stream, given_up)
        dial = Dial(
            self._reactor,
            flow.destination,
            connected,
            failed,
            mark=self._mark,
            timeout=self._dial_timeout,
            is_bounded=True,
            connect=None if client_port is None else self._connect_as_client(peer, flow, client_port),
        )
        self._dials[stream] = dial, Carried(flow, peer)

    def _connect_as_client(self, peer: str, flow: Flow, port: int) -> Connect:
        assert self._transparent is not None
        dials = self._transparent
        wanted = encode_request(peer, attrs.evolve(flow, client=(flow.client[0], port)))
        return lambda sock, done: dials.connect(sock, wanted, done)

    def _dialled(self, stream: StreamKey) -> None:
        _, carried = self._dials.pop(stream)
        self._waiting.leave(str(carried.peer))
        self._clients_waiting.leave(f"{carried.peer} {carried.flow.client[0]}")

    def _connected(self, stream: StreamKey, peer: str, flow: Flow, sock: socket.socket) -> None:
        self.counters.connected += 1
        self._limited.debug(peer, "connected for node {peer}: {flow}", peer=peer, flow=flow)
        splice = Splice(self._reactor, sock, self._driver, self._ended)
        self._splices[splice] = Carried(flow, peer)
        splice.start(stream)
        self._driver.accept_stream(stream, splice)

    def _ended(self, splice: Splice, reset: tuple[int, str] | None) -> None:
        carried = self._splices.pop(splice)
        peer, now = str(carried.peer), self._reactor.seconds()
        reason = CLEANLY if reset is None else reset[1]
        seconds = now - splice.started_at
        up, down = splice.bytes_up, splice.bytes_down
        self.ended.append(Ended(carried.flow, peer, now, reason, False, seconds, down, up))
        self._limited.debug(
            peer,
            "connection for node {peer} ended: {end}, {up} bytes from the server, {down} to it",
            peer=peer,
            end=reason,
            up=splice.bytes_up,
            down=splice.bytes_down,
        )


def failure_code(error: DialError, server: Address) -> int:
    """Return the code by which the ingress has its client's connect() fail as dialling ``server`` failed here."""
    if error.errno == errno.ECONNREFUSED and error.icmp_code is not None:
        return RESET_PORT_UNREACHABLE
    if error.errno == errno.EHOSTUNREACH:
        if error.icmp_code is None and ":" in server[0]:
            return RESET_NETWORK_UNREACHABLE  # a route of this host's; to others it would say that there is none
        if error.icmp_code in _PROHIBITED_BY_ICMP and ":" not in server[0]:
            return RESET_PROHIBITED
    return _CODES.get(error.errno, RESET_REFUSED)
