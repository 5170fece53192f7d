"""The ingress of the payload interceptor: takes the connections that the firewall diverts and splices each to a stream.

On the way of a byte this stands between the capturing application and the session. One port serves every rule of the
node: the kernel remembers where each diverted connection meant to go, the configuration says which node releases that.

With ``connect confirmed`` and ``learned`` the egress was asked while the client's SYN waited
(`seamless.intercept.payload.confirming`), and the connection takes the stream that waits for it. Where it was not, the
kernel has answered the client's SYN before we see the connection, so a refusal can only be a reset; it comes as
soon as it is known. What the client says meanwhile goes up with the stream already, so a connection costs one round
trip. Those that wait for their far end are bounded, shared between clients, and dropped once a second if their client
has given up. While the egress is unreachable, a new connection is dialled directly or refused, as configured; one that
was opened before waits for the overlay as long as the overlay waits.

Never captured: a connection made straight to the capture port, which would loop, and our own direct connections. These
carry the firewall mark that the rules let pass, or the rules leave out the daemon's user (``is_left_out``). Where
neither is so nothing is dialled directly.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from seamless.errors import UnreachableError
from seamless.intercept.payload.confirming import Confirmer
from seamless.intercept.payload.flow import (
    CLEANLY,
    ENDED_KEPT,
    CaptureTable,
    Carried,
    Ended,
    Flow,
    OpeningLimit,
    Route,
    canonical,
)
from seamless.intercept.payload.held_connection import HeldConnection
from seamless.interfaces import RESET_BY_APPLICATION, RESET_NOT_ALLOWED, RESET_SHUTDOWN, Address
from seamless.linux.sockopt import original_destination
from seamless.transport.dial import Dial, close_with_reset
from seamless.transport.direct import FIRST, SECOND, DirectPair
from seamless.transport.limited_log import LimitedLog
from seamless.transport.listener import Listener
from seamless.transport.splice import Splice, is_reset
from seamless.transport.streams import StreamDriver

MAX_WAITING: Final = 8192
"""Connections that wait for the egress at once."""
MAX_WAITING_PER_CLIENT: Final = 4096
"""Of these, connections from one client address."""
SWEEP_INTERVAL: Final = 1.0
"""Seconds between two checks whether clients of waiting connections have given up."""


@attrs.define
class IngressCounters:
    """What became of the connections that the firewall diverted."""

    captured: int = 0
    accepted: int = 0
    refused_by_egress: int = 0
    straight: int = 0
    not_configured: int = 0
    overloaded: int = 0
    unreachable: int = 0
    direct: int = 0
    direct_failed: int = 0
    gave_up: int = 0


class Opening(Protocol):
    """A connection that waits for its far end."""

    def gave_up(self) -> bool:
        """Return whether the client has reset its connection."""
        ...

    def abort(self, code: int, reason: str) -> None:
        """Reset the client's connection."""
        ...


class PayloadIngress(Service):
    """Captures TCP connections for one node, at ``listen``: the same port at several addresses.

    Port 0 takes any free one; ``addresses`` has it once the service runs.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        driver: StreamDriver,
        captures: CaptureTable,
        listen: Iterable[Address],
        *,
        mark: int | None = None,
        is_left_out: bool = False,
        original_destination: Callable[[socket.socket], Address] = original_destination,
    ) -> None:
        self._reactor = reactor
        self._driver = driver
        self._captures = captures
        self._listen = tuple(listen)
        self._mark = mark
        self._dials_directly = mark is not None or is_left_out
        self._original_destination = original_destination
        self._listeners: dict[Address, Listener] = {}
        """By the address that was asked for."""
        self._splices: dict[Splice, Carried] = {}
        self._openings: dict[Opening, Flow] = {}
        self._waiting = OpeningLimit(MAX_WAITING, MAX_WAITING_PER_CLIENT)
        self._sweep_call: IDelayedCall | None = None
        self._limited = LimitedLog(reactor, self._log)
        self.counters = IngressCounters()
        self.confirmer = Confirmer(reactor, driver, captures, self._limited, self._note_refused)
        self.ended: deque[Ended] = deque(maxlen=ENDED_KEPT)
        """Connections that were refused or have ended, the last one last."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return the addresses and ports that the firewall has to divert connections to."""
        return tuple(listener.address for listener in self._listeners.values())

    @property
    def connections(self) -> int:
        """Return how many sockets are spliced now: one for each connection, two for a direct one."""
        return len(self._splices)

    @property
    def waiting(self) -> int:
        """Return how many connections wait for their far end; those whose SYN is held are the confirmer's."""
        return self._waiting.count

    def carried(self) -> Iterator[tuple[Carried, Splice]]:
        """Yield the connections that are spliced now, each once."""
        for splice, carried in self._splices.items():
            if carried.peer is not None or splice.stream == FIRST:
                yield carried, splice

    def startService(self) -> None:
        """Bind the capture port; raise `ConfigurationError` when it is taken."""
        super().startService()
        self.listen(self._listen)

    def listen(self, addresses: Iterable[Address]) -> None:
        """Listen at these addresses, too; raise `ConfigurationError`, with nothing changed, when one is taken."""
        added: dict[Address, Listener] = {}
        port = 0
        try:
            for host, wanted in addresses:
                if (host, wanted) not in self._listeners:
                    listener = Listener(self._reactor, (host, wanted or port), self._accepted)
                    port = listener.address[1]
                    added[host, wanted] = listener
        except Exception:
            for listener in added.values():
                listener.close()
            raise
        self._listeners |= added

    def listen_only(self, addresses: Iterable[Address]) -> None:
        """Stop listening anywhere else. Connections that were taken there go on."""
        for address in set(self._listeners) - set(addresses):
            self._listeners.pop(address).close()

    def configure(self, captures: CaptureTable) -> int:
        """Decide by other captures from now on; return how many connections were reset because they have no way now."""
        self._captures = captures
        self.confirmer.configure(captures)
        reset = 0
        routes: dict[Address, Route | None] = {}
        for splice, carried in list(self._splices.items()):
            destination = carried.flow.destination
            if destination not in routes:
                routes[destination] = captures.route(destination)
            route = routes[destination]
            if carried.peer is not None and (route is None or route.egress != carried.peer):
                splice.abort(RESET_NOT_ALLOWED, f"the configuration of node {self._driver.name} captures it no more")
                reset += 1
        return reset

    def stopService(self) -> None:
        """Reset all connections that have not ended: a stream cut short must not look complete."""
        super().stopService()
        self.listen_only(())
        self.confirmer.close()
        for opening in [*self._openings, *self._splices]:
            opening.abort(RESET_SHUTDOWN, f"node {self._driver.name} is stopping")
            self._wait_no_more(opening)
        if self._sweep_call is not None and self._sweep_call.active():
            self._sweep_call.cancel()
        self._limited.close()

    # A connection comes in.

    def _accepted(self, sock: socket.socket, client: Address) -> None:
        self.counters.captured += 1
        try:
            destination = self._original_destination(sock)
            straight = destination == sock.getsockname()[:2]
        except OSError:
            close_with_reset(sock)  # reset already by its client
            return
        flow = Flow((str(canonical(destination[0])), destination[1]), (str(canonical(client[0])), client[1]))
        route = None if straight else self._captures.route(flow.destination)
        if straight:
            self.counters.straight += 1
            self._refuse(sock, flow, "it was made straight to the capture port")
        elif route is None:
            self.counters.not_configured += 1
            self._refuse(sock, flow, "no interceptor on this node names its destination; are the rules up to date?")
        elif (held := self.confirmer.claim(flow)) is not None:
            self._take(sock, flow, held)
        elif not self._waiting.enter(flow.client[0]):
            self.counters.overloaded += 1
            self._refuse(sock, flow, "too many connections of this client wait for their far end")
        else:
            self._open(sock, flow, route)

    def _refuse(self, sock: socket.socket, flow: Flow, reason: str) -> None:
        self._limited.warn(flow.client[0], "refused {flow}: {reason}", flow=flow, reason=reason)
        self._note_refused(flow, None, reason)
        close_with_reset(sock)

    def _note_refused(self, flow: Flow, peer: str | None, reason: str) -> None:
        self.ended.append(Ended(flow, peer, self._reactor.seconds(), reason, is_refused=True))

    def _open(self, sock: socket.socket, flow: Flow, route: Route) -> None:
        if not self._driver.reachable(route.egress):
            self._unreachable(sock, flow, route, f"node {route.egress} cannot be reached now")
            return
        splice = Splice(self._reactor, sock, self._driver, self._ended, self._stream_accepted)
        try:
            stream = self._driver.open_stream(route.egress, flow.encode(), splice)
        except UnreachableError as error:
            self._unreachable(sock, flow, route, str(error))
            return
        self._splices[splice] = Carried(flow, route.egress)
        self._wait(splice, flow)
        splice.start(stream)
        splice.doRead()  # most clients have sent their request by now: it goes with the OPEN

    def _take(self, sock: socket.socket, flow: Flow, held: HeldConnection) -> None:
        """Splice a connection to the stream that the egress has accepted already."""
        self.counters.accepted += 1
        assert held.stream is not None
        splice = Splice(self._reactor, sock, self._driver, self._ended)
        self._splices[splice] = Carried(flow, held.route.egress)
        self._driver.change_owner(held.stream, splice)
        splice.start(held.stream)
        held.replay(splice)

    def _stream_accepted(self, splice: Splice) -> None:
        self.counters.accepted += 1
        flow = self._splices[splice].flow
        self.confirmer.servers.accepted(flow.destination, self._reactor.seconds())
        self._limited.debug(flow.client[0], "connected: {flow}", flow=flow)
        self._wait_no_more(splice)

    def _ended(self, splice: Splice, reset: tuple[int, str] | None) -> None:
        carried = self._splices.pop(splice)
        flow, now = carried.flow, self._reactor.seconds()
        if self._wait_no_more(splice) and reset is not None and reset[0] not in (RESET_BY_APPLICATION, RESET_SHUTDOWN):
            self.counters.refused_by_egress += 1
            self.confirmer.servers.failed(flow.destination)
            self.ended.append(Ended(flow, carried.peer, now, reset[1], is_refused=True))
            self._limited.info(flow.client[0], "no connection for {flow}: {reason}", flow=flow, reason=reset[1])
            return
        reason = CLEANLY if reset is None else reset[1]
        if splice.stream != SECOND:
            seconds = now - splice.started_at
            up, down = splice.bytes_up, splice.bytes_down
            self.ended.append(Ended(flow, carried.peer, now, reason, False, seconds, up, down))
        self._limited.debug(
            flow.client[0],
            "{flow} ended: {end}, {up} bytes from the client, {down} to it",
            flow=flow,
            end=reason,
            up=splice.bytes_up,
            down=splice.bytes_down,
        )

    # The egress cannot be reached.

    def _unreachable(self, sock: socket.socket, flow: Flow, route: Route, reason: str) -> None:
        self.counters.unreachable += 1
        if route.when_unreachable == "direct" and not self._dials_directly:
            reason += "; and without CAP_NET_ADMIN a direct connection would be captured again"
        elif route.when_unreachable == "direct":
            self._limited.info(flow.client[0], "{flow} goes direct: {reason}", flow=flow, reason=reason)
            self._wait(_DirectOpening(self._reactor, sock, flow.destination, self._mark, self._direct), flow)
            return
        self._waiting.leave(flow.client[0])
        self._refuse(sock, flow, reason)

    def _direct(self, opening: _DirectOpening, near: socket.socket, far: socket.socket | str) -> None:
        flow = self._openings[opening]
        self._wait_no_more(opening)
        if isinstance(far, str):
            self.counters.direct_failed += 1
            self._refuse(near, flow, far)
            return
        self.counters.direct += 1
        pair = DirectPair()
        for key, sock in ((FIRST, near), (SECOND, far)):
            splice = Splice(self._reactor, sock, pair, self._ended)
            self._splices[splice] = Carried(flow, None)
            pair.join(splice)
            splice.start(key)

    # Those that wait.

    def _wait(self, opening: Opening, flow: Flow) -> None:
        self._openings[opening] = flow
        if self._sweep_call is None:
            self._sweep_call = self._reactor.callLater(SWEEP_INTERVAL, self._sweep)

    def _wait_no_more(self, opening: Opening) -> bool:
        flow = self._openings.pop(opening, None)
        if flow is not None:
            self._waiting.leave(flow.client[0])
        return flow is not None

    def _sweep(self) -> None:
        self._sweep_call = None
        for opening in [opening for opening in self._openings if opening.gave_up()]:
            self.counters.gave_up += 1
            opening.abort(RESET_BY_APPLICATION, "the client gave up")
            self._wait_no_more(opening)
        if self._openings:
            self._sweep_call = self._reactor.callLater(SWEEP_INTERVAL, self._sweep)


class _DirectOpening:
    """A captured connection whose direct connection to the server is being made.

    ``done`` is called with this object, the client's socket, and the server's socket or the reason why there is none.
    """

    def __init__(
        self,
        reactor: Any,
        near: socket.socket,
        destination: Address,
        mark: int | None,
        done: Callable[[_DirectOpening, socket.socket, socket.socket | str], None],
    ) -> None:
        self._near = near
        self._dial = Dial(
            reactor,
            destination,
            lambda far: done(self, near, far),
            lambda error: done(self, near, str(error)),
            mark=mark,
        )

    def gave_up(self) -> bool:
        """Return whether the client has reset its connection."""
        return is_reset(self._near)

    def abort(self, code: int, reason: str) -> None:
        """Stop dialling, and reset the client."""
        self._dial.cancel()
        close_with_reset(self._near)
