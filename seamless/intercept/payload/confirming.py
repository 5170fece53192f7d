"""Asks the egress about each held SYN: the daemon's half of ``connect confirmed`` and ``learned``.

A held SYN is a connection that the firewall has not let through yet (`seamless.linux.syn_holder`). For each the stream
to the egress is opened at once, and what the egress answers decides: the SYN passes, and the connection that it opens
at the capture port takes the stream that waits for it (`claim`); or the client's connect() fails as the egress's did.

* What ``learned`` knows to accept passes at once, without a stream: the connection opens one as with ``early``.
* While there is no way to the egress a SYN goes natively, or is refused, as configured. That needs neither a socket nor
  a privilege of the daemon's: it is a mark on the SYN.
* A server that does not answer gives no answer to the client either. Its next SYN is another try, and it gives up in
  its own time.
* Clients take turns: a flood of one's SYNs is asked about one at a time between those of the others.
* Those that wait, and those that were answered and whose connection has not come yet, are bounded together; when a
  client gives up, its stream is reset.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IDelayedCall

from seamless.errors import UnreachableError
from seamless.intercept.payload.flow import CaptureTable, Flow, OpeningLimit, Route
from seamless.intercept.payload.held_connection import HeldConnection, unpacked
from seamless.intercept.payload.learned import LearnedServers
from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_HOST_UNREACHABLE,
    RESET_NETWORK_UNREACHABLE,
    RESET_NOT_ALLOWED,
    RESET_PORT_UNREACHABLE,
    RESET_PROHIBITED,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    RESET_TIMED_OUT,
)
from seamless.linux import held_syns
from seamless.linux.held_syns import MAX_HELD, MAX_HELD_PER_CLIENT, HoldCounters, Outcome
from seamless.transport.held_syn_reader import HeldSynReader
from seamless.transport.limited_log import LimitedLog
from seamless.transport.streams import StreamDriver

CLAIM_TIMEOUT: Final = 5.0
"""Seconds within which a client that was let through connects: its SYN has arrived, only our answer can get lost."""
ASKS_PER_TURN: Final = 8
"""SYNs that one turn of the reactor asks the egress about."""

OUTCOMES: Final = {
    RESET_REFUSED: Outcome.REFUSED,
    RESET_NOT_ALLOWED: Outcome.REFUSED,
    RESET_PORT_UNREACHABLE: Outcome.PORT_UNREACHABLE,
    RESET_HOST_UNREACHABLE: Outcome.HOST_UNREACHABLE,
    RESET_NETWORK_UNREACHABLE: Outcome.NETWORK_UNREACHABLE,
    RESET_PROHIBITED: Outcome.PROHIBITED,
    RESET_TIMED_OUT: Outcome.DROP,
}
"""What becomes of a SYN by the code with which the egress resets its stream. Any other: the egress is gone."""


@attrs.define
class ConfirmCounters:
    """What became of the SYNs that were held."""

    held: int = 0
    confirmed: int = 0
    learned: int = 0
    """Let through at once, since the server had accepted a short while ago."""
    refused: int = 0
    """Refused by the server, or by a network on the way to it."""
    timed_out: int = 0
    overloaded: int = 0
    """Refused because too many waited, in all or of their client."""
    unreachable: int = 0
    direct: int = 0
    gave_up: int = 0
    repeated: int = 0
    """Sent again by their client while the first one waited."""
    bypassed: int = 0
    """Let go natively, or refused, because this daemon was too busy to read of them."""


class Confirmer:
    """Decides about the SYNs of one node. It holds none until it is attached to what does (`attach`)."""

    def __init__(
        self,
        reactor: Any,
        driver: StreamDriver,
        captures: CaptureTable,
        log: LimitedLog,
        refused: Callable[[Flow, str | None, str], None] = lambda flow, peer, reason: None,
    ) -> None:
        """``refused`` is called with (flow, egress if it was asked, reason) of what is refused."""
        self.counters = ConfirmCounters()
        self.servers = LearnedServers()
        self._reactor = reactor
        self._driver = driver
        self._captures = captures
        self._log = log
        self._refused = refused
        self._reader: HeldSynReader | None = None
        self._overloaded_here = 0
        self._fresh: dict[str, deque[HeldConnection]] = {}
        self._asking: IDelayedCall | None = None
        self._held: dict[int, HeldConnection] = {}
        self._confirmed: dict[Flow, HeldConnection] = {}
        self._limit = OpeningLimit(MAX_HELD, MAX_HELD_PER_CLIENT)

    @property
    def connections(self) -> int:
        """Return 0: a connection that was made is the ingress's."""
        return 0

    @property
    def waiting(self) -> int:
        """Return how many SYNs wait for the egress, or were let through and have not come to the capture port yet."""
        return self._limit.count

    def attach(self, channel: socket.socket) -> None:
        """Begin to decide about the SYNs that the other end of ``channel`` holds."""
        self._detach()
        self._reader = HeldSynReader(
            self._reactor, channel, self._on_held, self._on_counters, self._on_failure, self._detach
        )

    def configure(self, captures: CaptureTable) -> None:
        """Decide by other captures from now on. What they send elsewhere is dropped: its client sends it again."""
        self._captures = captures
        for held in [*self._held.values(), *self._confirmed.values()]:
            route = captures.route(held.flow.destination)
            if route is None or route.egress != held.route.egress:
                is_waiting = self._held.get(held.number) is held
                self._abandon(held, RESET_NOT_ALLOWED, "the configuration captures it no more")
                if is_waiting:
                    self._decide(held.number, Outcome.DROP)

    def close(self) -> None:
        """Reset all streams that wait."""
        self._detach()
        for held in list(self._confirmed.values()):
            self._abandon(held, RESET_SHUTDOWN, f"node {self._driver.name} is stopping")

    def _detach(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        for held in list(self._held.values()):
            self._abandon(held, RESET_SHUTDOWN, "what held its SYN is gone")
        self._fresh.clear()

    def _on_counters(self, counters: HoldCounters) -> None:
        self.counters.repeated = counters.repeated
        self.counters.bypassed = counters.unread
        self.counters.overloaded = counters.full + self._overloaded_here

    def _on_failure(self, sentence: str) -> None:
        self._log.error("", "connections go natively, or are refused: {error}", error=sentence)

    # SYNs come.

    def _on_held(self, number: int, packed: held_syns.Flow | None) -> None:
        if packed is None:
            self._gave_up(number)
            return
        self.counters.held += 1
        flow = unpacked(packed)
        client = flow.client[0]
        route = self._captures.route(flow.destination)
        if route is None or flow in self._confirmed:
            self._decide(number, Outcome.PASS)
        elif route.connect == "learned" and self.servers.accepts(flow.destination, self._reactor.seconds()):
            self.counters.learned += 1
            self._decide(number, Outcome.PASS)
        elif not self._driver.reachable(route.egress):
            self._unreachable(number, flow, route, f"node {route.egress} cannot be reached now")
        elif not self._limit.enter(client):
            self._overloaded_here += 1
            self.counters.overloaded += 1
            self._log.warn(client, "refused {flow}: too many connections of this client wait", flow=flow)
            self._decide(number, Outcome.REFUSED)
        else:
            self._held[number] = held = HeldConnection(self, number, flow, route)
            self._fresh.setdefault(client, deque()).append(held)
            self._ask_soon()

    def _decide(self, number: int, outcome: Outcome) -> None:
        if self._reader is not None:
            self._reader.decide(number, outcome)

    def _unreachable(self, number: int, flow: Flow, route: Route, reason: str) -> None:
        self.counters.unreachable += 1
        if route.when_unreachable == "direct":
            self.counters.direct += 1
            self._log.info(flow.client[0], "{flow} goes direct: {reason}", flow=flow, reason=reason)
            self._decide(number, Outcome.NATIVE)
        else:
            self._log.warn(flow.client[0], "refused {flow}: {reason}", flow=flow, reason=reason)
            self._refused(flow, None, reason)
            self._decide(number, Outcome.REFUSED)

    def _gave_up(self, number: int) -> None:
        held = self._held.get(number)
        if held is not None:
            self.counters.gave_up += 1
            self._abandon(held, RESET_BY_APPLICATION, "the client gave up")

    # The egress is asked.

    def _ask_soon(self) -> None:
        """Ask about the first SYN of a turn of the reactor at once, and about the others in the next turns."""
        if self._asking is None and self._fresh:
            self._asking = self._reactor.callLater(0, self._ask_some)
            self._ask_next()

    def _ask_some(self) -> None:
        self._asking = None
        for _ in range(ASKS_PER_TURN - 1):
            if not self._fresh:
                return
            self._ask_next()
        self._ask_soon()

    def _ask_next(self) -> None:
        """Ask about one SYN, of each client in turn."""
        client = next(iter(self._fresh))
        mine = self._fresh.pop(client)
        held = mine.popleft()
        if mine:
            self._fresh[client] = mine
        if held.number in self._held:
            self._ask(held)

    def _ask(self, held: HeldConnection) -> None:
        try:
            held.stream = self._driver.open_stream(held.route.egress, held.flow.encode(), held)
        except UnreachableError as error:
            self._forget(held)
            self._unreachable(held.number, held.flow, held.route, str(error))

    def accepted(self, held: HeldConnection) -> None:
        """Let the client connect: the egress has."""
        self.counters.confirmed += 1
        self.servers.accepted(held.flow.destination, self._reactor.seconds())
        del self._held[held.number]
        self._confirmed[held.flow] = held
        held.expiry = self._reactor.callLater(CLAIM_TIMEOUT, self._not_claimed, held)
        self._decide(held.number, Outcome.PASS)

    def failed(self, held: HeldConnection, code: int, reason: str) -> None:
        """Have the client's connect() fail as the egress's did."""
        self._forget(held)
        self.servers.failed(held.flow.destination)
        if code not in OUTCOMES:
            self._unreachable(held.number, held.flow, held.route, reason)
            return
        outcome = OUTCOMES[code]
        if outcome == Outcome.DROP:
            self.counters.timed_out += 1
        else:
            self.counters.refused += 1
        self._refused(held.flow, held.route.egress, reason)
        self._log.info(held.flow.client[0], "no connection for {flow}: {reason}", flow=held.flow, reason=reason)
        self._decide(held.number, outcome)

    # The connection comes.

    def claim(self, flow: Flow) -> HeldConnection | None:
        """Return the stream that waits for a connection that came to the capture port, None if there is none."""
        held = self._confirmed.get(flow)
        if held is not None:
            self._forget(held)
        return held

    def _not_claimed(self, held: HeldConnection) -> None:
        self.counters.gave_up += 1
        self._abandon(held, RESET_BY_APPLICATION, "the client gave up")

    def _abandon(self, held: HeldConnection, code: int, reason: str) -> None:
        self._forget(held)
        if held.stream is not None:
            self._driver.reset(held.stream, code, reason)

    def _forget(self, held: HeldConnection) -> None:
        if self._held.get(held.number) is held:
            del self._held[held.number]
        else:
            del self._confirmed[held.flow]
        if held.expiry is not None and held.expiry.active():
            held.expiry.cancel()
        self._limit.leave(held.flow.client[0])
