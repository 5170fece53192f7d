"""Is a node there, and how far is it? Every node answers the service ``seamless.ping`` with what it was sent.

So a ping crosses all that an application's bytes cross: links, relays, the session and both daemons. Nothing of it is
ever lost, since links and the session send again: a ping over a lossy link is late instead.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import UnreachableError
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayNode, OverlayServerEndpoint, ServicePort

PING_SERVICE: Final = "seamless.ping"
PING_BYTES: Final = 64
"""As many as ping(8) sends, headers and all, if nothing else is said."""
PING_MAX_BYTES: Final = 1 << 20
"""Of the longest ping, which is in the daemon's memory as a whole."""
PING_TIMEOUT: Final = 5.0
"""Seconds: who has not answered by then is of no use to an application."""


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """Sends back what comes, and reads no faster than its peer does."""

    def connectionMade(self) -> None:
        """Let the peer's window stop our reading."""
        transport: Any = self.transport
        transport.registerProducer(transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        assert self.transport is not None
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        """End as the peer has."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Need not be told: both directions end together."""


class _PingClient(Protocol):
    """Sends ``nbytes``, and tells how many seconds it took until all of them were back."""

    def __init__(self, reactor: Any, nbytes: int) -> None:
        self._reactor = reactor
        self._nbytes = self._missing_bytes = nbytes
        self._sent_at = 0.0
        self.round_trip: Deferred[float] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._sent_at = self._reactor.seconds()
        self.transport.write(bytes(self._nbytes))

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._missing_bytes -= len(data)
        if self._missing_bytes <= 0 and not self.round_trip.called:
            self.transport.loseConnection()
            self.round_trip.callback(self._reactor.seconds() - self._sent_at)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.round_trip.called:
            self.round_trip.errback(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _PingFactory(Factory):
    noisy = False

    def __init__(self, reactor: Any, nbytes: int) -> None:
        self._reactor = reactor
        self._nbytes = nbytes

    def buildProtocol(self, addr: Any) -> _PingClient:
        return _PingClient(self._reactor, self._nbytes)


class PingService(Service):
    """Answers the pings of other nodes, and pings them."""

    def __init__(self, reactor: Any, node: OverlayNode) -> None:
        self._reactor = reactor
        self._node = node
        self._port: ServicePort | None = None

    def startService(self) -> None:
        """Answer from now on."""
        super().startService()
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        OverlayServerEndpoint(self._node, PING_SERVICE).listen(factory).addCallback(self._listening)

    def _listening(self, port: ServicePort) -> None:
        self._port = port

    def stopService(self) -> Any:
        """Answer no more."""
        super().stopService()
        return self._port.stopListening() if self._port is not None else None

    def ping(self, peer: str, nbytes: int = PING_BYTES) -> Deferred[float]:
        """Return a Deferred of the seconds until ``nbytes`` are at ``peer`` and all of them back here.

        It fails with `UnreachableError` and a sentence.
        """
        if not self._node.driver.reachable(peer):
            raise UnreachableError(f"there is no path to node {peer} now: look at the links with seamless status")

        def too_late(result: object, seconds: float) -> NoReturn:
            raise UnreachableError(f"node {peer} has not answered for {seconds:g} s")

        def failed(failure: Failure) -> NoReturn:
            failure.trap(ConnectError, ConnectionClosed)
            raise UnreachableError(f"node {peer} does not answer: {failure.getErrorMessage()}")

        endpoint = OverlayClientEndpoint(self._node, peer, PING_SERVICE)
        pinging: Deferred[float] = endpoint.connect(_PingFactory(self._reactor, nbytes)).addCallback(_round_trip)
        return pinging.addErrback(failed).addTimeout(PING_TIMEOUT, self._reactor, too_late)


def _round_trip(protocol: IProtocol) -> Deferred[float]:
    assert isinstance(protocol, _PingClient)
    return protocol.round_trip
