"""Twisted endpoints over the overlay: any Twisted protocol between any two nodes, in five lines.

    endpoint = OverlayServerEndpoint(node, "echo")              # on one node
    endpoint.listen(Factory.forProtocol(Echo))

    endpoint = OverlayClientEndpoint(node, "dst", "echo")       # on another
    connecting = endpoint.connect(Factory.forProtocol(Client))

``node`` is a running `seamless.service.NodeService`, or anything else with a ``driver`` and its ``acceptors``. A
service is a name of the program's own choosing, or a number if it thinks in ports; it has nothing to do with the ports
of any host. Every peer that the configuration names may connect to it.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    NoProtocol,
    NoRouteError,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import UnreachableError
from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_NOT_ALLOWED,
    RESET_PEER_LOST,
    RESET_REFUSED,
    StreamKey,
)
from seamless.transport.limited_log import LimitedLog
from seamless.transport.streams import TARGET_SERVICE, Acceptors, OverlayAddress, StreamDriver, StreamTransport

MAX_NAME_BYTES: Final = 255
"""Of a service's name in UTF-8: with its kind it fits the shortest target that a session must take."""


class Services:
    """The services that this node's programs listen for, by name: the acceptor for their kind of target."""

    _log = Logger()
    _limited = LimitedLog(None, _log)

    def __init__(self, driver: StreamDriver) -> None:
        self._driver = driver
        self._ports: dict[str, ServicePort] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all services that are listened for."""
        return tuple(self._ports)

    def add(self, port: ServicePort) -> None:
        """Let ``port`` have the streams for its name. `CannotListenError` when another has it."""
        if port.name in self._ports:
            in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise CannotListenError(f"node {self._driver.name}", f"service {port.name}", in_use)
        self._ports[port.name] = port

    def remove(self, port: ServicePort) -> None:
        """Refuse streams for this name from now on."""
        self._ports.pop(port.name, None)

    def address(self, name: str) -> OverlayAddress:
        """Return the address of a service here."""
        return OverlayAddress(self._driver.name, name)

    def __call__(self, stream: StreamKey, peer: str, target: bytes) -> None:
        """Answer a peer that asks for a service."""
        try:
            name = target[1:].decode()
        except UnicodeDecodeError:
            self._driver.reset(stream, RESET_NOT_ALLOWED, "the service's name is not UTF-8")
            return
        there = OverlayAddress(peer)
        protocol = self._build_protocol(name, there)
        if protocol is None:
            reason = f"nobody listens for service {name!r} on node {self._driver.name}"
            self._driver.reset(stream, RESET_REFUSED, reason)
            return
        transport = StreamTransport(self._driver, self.address(name), there)
        self._driver.accept_stream(stream, transport)
        transport.start(stream, protocol)

    def _build_protocol(self, name: str, peer: OverlayAddress) -> IProtocol | None:
        port = self._ports.get(name)
        if port is None:
            return None
        try:
            return port.factory.buildProtocol(peer)
        except Exception:
            line = "the factory of service {name} failed; the connection is refused"
            self._limited.failure(peer.node, line, name=name)
            return None


class OverlayNode(Protocol):
    """A running node, as endpoints need it."""

    @property
    def driver(self) -> StreamDriver:
        """Return the node's driver."""
        ...

    @property
    def acceptors(self) -> Acceptors:
        """Return the acceptors of streams that peers open."""
        ...


def services_of(node: OverlayNode) -> Services:
    """Return the services of a node, which are there from when they are first asked for."""
    services = node.acceptors.acceptor(TARGET_SERVICE)
    if not isinstance(services, Services):
        services = Services(node.driver)
        node.acceptors.register(TARGET_SERVICE, services)
    return services


@implementer(IListeningPort)
class ServicePort:
    """A service that is listened for, until ``stopListening``; connections that stand live on."""

    def __init__(self, services: Services, name: str, factory: IProtocolFactory) -> None:
        self._services = services
        self.name = name
        self.factory = factory

    def startListening(self) -> None:
        """Take connections."""
        self._services.add(self)
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Take no more."""
        self._services.remove(self)
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> OverlayAddress:
        """Return the node and the service."""
        return self._services.address(self.name)


@implementer(IStreamServerEndpoint)
class OverlayServerEndpoint:
    """Listens for a service on ``node``."""

    def __init__(self, node: OverlayNode, service: str | int) -> None:
        self._node = node
        self._service = _service_name(service)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[ServicePort]:  # type: ignore[override]
        """Return a Deferred of the `ServicePort`; it fails with `CannotListenError` if the name is taken."""

        def listening() -> ServicePort:
            port = ServicePort(services_of(self._node), self._service, protocolFactory)
            port.startListening()
            return port

        return maybeDeferred(listening)


@implementer(IStreamClientEndpoint)
class OverlayClientEndpoint:
    """Connects from ``node`` to a service on the node named ``peer``."""

    def __init__(self, node: OverlayNode, peer: str, service: str | int) -> None:
        self._node = node
        self._peer = OverlayAddress(peer, _service_name(service))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Return a Deferred of the connected protocol.

        It fails with `ConnectionRefusedError` when nobody listens, with `NoRouteError` when there is no way to the
        peer for as long as the overlay waits, and with `ConnectingCancelledError` when it is cancelled.
        """
        driver = self._node.driver
        connecting = _Connecting(driver, OverlayAddress(driver.name), self._peer, protocolFactory)
        try:
            connecting.open()
        except UnreachableError as error:
            return fail(NoRouteError(string=str(error)))
        return connecting.connected_protocol


class _Connecting(StreamTransport):
    """A transport from the moment its stream is asked for; it gets its protocol when the peer accepts."""

    def __init__(
        self, driver: StreamDriver, host: OverlayAddress, peer: OverlayAddress, factory: IProtocolFactory
    ) -> None:
        super().__init__(driver, host, peer)
        self._factory = factory
        self.connected_protocol: Deferred[IProtocol] = Deferred(self._cancel)

    def open(self) -> None:
        """Ask for the stream."""
        target = bytes([TARGET_SERVICE]) + self._peer.service.encode()
        self._stream = self._driver.open_stream(self._peer.node, target, self)
        self._factory.doStart()

    def stream_accepted(self) -> None:
        """Build the protocol."""
        try:
            protocol: Any = self._factory.buildProtocol(self._peer)
            if protocol is None:
                raise NoProtocol
        except Exception:
            self._driver.reset(self._stream, RESET_BY_APPLICATION, "the application built no protocol")
            self._fail(Failure())
            return
        self.start(self._stream, protocol)
        self.connected_protocol.callback(protocol)

    def stream_reset(self, code: int, reason: str) -> None:
        """Fail to connect, or lose the connection."""
        if self._protocol is not None:
            super().stream_reset(code, reason)
        elif code in (RESET_REFUSED, RESET_NOT_ALLOWED):
            self._fail(ConnectionRefusedError(string=reason))
        elif code == RESET_PEER_LOST:
            self._fail(NoRouteError(string=reason))
        else:
            self._fail(ConnectError(string=reason))

    def _cancel(self, connecting: Deferred[IProtocol]) -> None:
        self._driver.reset(self._stream, RESET_BY_APPLICATION, "the application no longer wants to connect")
        self._fail(ConnectingCancelledError(self._peer))

    def _fail(self, reason: Exception | Failure) -> None:
        self.connected = False
        self._factory.doStop()
        self.connected_protocol.errback(reason)

    def _lost(self, reason: Exception) -> None:
        if self.connected:
            super()._lost(reason)
            self._factory.doStop()


def _service_name(service: str | int) -> str:
    name = str(service)
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"a service's name has 1 to {MAX_NAME_BYTES} bytes in UTF-8, not {len(name.encode())}")
    return name
