"""Endpoints carry the protocols that Twisted ships, and fail the way Twisted's own do."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
    NoProtocol,
    NoRouteError,
)
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.amp import AMP, Command, Integer
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from seamless.interfaces import RESET_BY_APPLICATION, RESET_NOT_ALLOWED, RESET_SHUTDOWN
from seamless.testing import MemoryNode, MemoryOverlay
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayServerEndpoint, services_of
from seamless.transport.streams import OverlayAddress


class Sum(Command):
    """Add two numbers."""

    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Adder(AMP):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class Upper(LineReceiver):
    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line.upper())


class Collector(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.ended: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason.type


class NoProtocols(Factory):
    noisy = False

    def buildProtocol(self, addr: Any) -> None:
        return None


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overlay = MemoryOverlay(self.clock, 0.01)
        self.src, self.dst = MemoryNode(self.overlay, "src"), MemoryNode(self.overlay, "dst")

    def run_all(self) -> None:
        while self.overlay.in_flight:
            self.clock.advance(0.01)

    def listen(self, protocol: Any, service: str | int = "test") -> Any:
        factory = Factory.forProtocol(protocol)
        factory.noisy = False
        return self.successResultOf(OverlayServerEndpoint(self.dst, service).listen(factory))

    def connect(self, protocol: Any, service: str | int = "test") -> Any:
        factory = Factory.forProtocol(protocol)
        factory.noisy = False
        return OverlayClientEndpoint(self.src, "dst", service).connect(factory)

    def test_interfaces(self) -> None:
        self.assertTrue(verifyObject(IStreamServerEndpoint, OverlayServerEndpoint(self.dst, "test")))
        self.assertTrue(verifyObject(IStreamClientEndpoint, OverlayClientEndpoint(self.src, "dst", "test")))
        port = self.listen(Upper)
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertEqual(port.getHost(), OverlayAddress("dst", "test"))

    def test_amp(self) -> None:
        self.listen(Adder)
        connecting = self.connect(AMP)
        self.assertNoResult(connecting)
        self.run_all()
        client = self.successResultOf(connecting)
        answer = client.callRemote(Sum, a=19, b=23)
        self.run_all()
        self.assertEqual(self.successResultOf(answer), {"total": 42})

    def test_lines_at_a_service_that_is_a_number(self) -> None:
        self.listen(Upper, 7)
        connecting = self.connect(Collector, 7)
        self.run_all()
        client = self.successResultOf(connecting)
        client.transport.write(b"half a li")
        self.run_all()
        client.transport.write(b"ne\r\nanother\r\n")
        self.run_all()
        self.assertEqual(client.data, b"HALF A LINE\r\nANOTHER\r\n")

    def test_file_of_many_windows(self) -> None:
        content = bytes(range(256)) * 8000

        class Server(Protocol):
            def connectionMade(self) -> None:
                sending = FileSender().beginFileTransfer(BytesIO(content), cast(Any, self.transport))
                sending.addCallback(lambda _: cast(Any, self.transport).loseConnection())

        self.listen(Server)
        connecting = self.connect(Collector)
        self.run_all()
        client = self.successResultOf(connecting)
        self.assertEqual((client.data, client.ended), (content, ConnectionDone))
        self.assertEqual((self.src.driver.open_streams, self.dst.driver.open_streams), (0, 0))

    def test_refused_where_nobody_listens(self) -> None:
        connecting = self.connect(Collector)
        self.run_all()
        failure = self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertIn("node dst releases no connections and offers no services of this kind", str(failure.value))
        self.listen(Upper, "another")
        connecting = self.connect(Collector)
        self.run_all()
        failure = self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertIn("nobody listens for service 'test' on node dst", str(failure.value))

    def test_refused_after_listening_ended(self) -> None:
        port = self.listen(Upper)
        self.successResultOf(port.stopListening())
        connecting = self.connect(Collector)
        self.run_all()
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.listen(Upper)

    def test_refused_by_a_factory_without_a_protocol(self) -> None:
        self.successResultOf(OverlayServerEndpoint(self.dst, "test").listen(NoProtocols()))
        connecting = self.connect(Collector)
        self.run_all()
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_refused_by_a_factory_that_fails(self) -> None:
        self.listen(lambda: 1 // 0)
        connecting = self.connect(Collector)
        self.run_all()
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.dst.driver.open_streams, 0)

    def test_name_that_is_taken(self) -> None:
        self.listen(Upper)
        listening = OverlayServerEndpoint(self.dst, "test").listen(Factory.forProtocol(Upper))
        error = self.failureResultOf(listening, CannotListenError).value
        self.assertIn("node dst:service test: [Errno 98] Address already in use", str(error))
        self.assertEqual(services_of(self.dst).names, ("test",))

    def test_names_that_cannot_be(self) -> None:
        self.assertRaises(ValueError, OverlayServerEndpoint, self.dst, "")
        self.assertRaises(ValueError, OverlayClientEndpoint, self.src, "dst", "é" * 128)

    def test_no_route(self) -> None:
        self.overlay.cut("src", "dst")
        self.failureResultOf(self.connect(Collector), NoRouteError)

    def test_peer_lost_while_connecting(self) -> None:
        connecting = self.connect(Collector)
        self.overlay.cut("src", "dst")
        self.run_all()
        self.failureResultOf(connecting, NoRouteError)

    def test_peer_stopping_while_connecting(self) -> None:
        self.dst.driver.listen(lambda stream, peer, target: self.dst.driver.reset(stream, RESET_SHUTDOWN, "bye"))
        connecting = self.connect(Collector)
        self.run_all()
        self.assertIs(self.failureResultOf(connecting).type, ConnectError)

    def test_cancel(self) -> None:
        self.listen(Upper)
        connecting = self.connect(Collector)
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.run_all()
        self.assertEqual([code for code, _ in self.src.driver.resets], [RESET_BY_APPLICATION])
        self.assertEqual((self.src.driver.open_streams, self.dst.driver.open_streams), (0, 0))

    def test_client_factory_without_a_protocol(self) -> None:
        self.listen(Upper)
        connecting = OverlayClientEndpoint(self.src, "dst", "test").connect(NoProtocols())
        self.run_all()
        self.failureResultOf(connecting, NoProtocol)
        self.assertEqual(self.dst.driver.open_streams, 0)

    def test_name_that_is_not_utf8(self) -> None:
        self.listen(Upper)
        self.src.driver.open_stream("dst", b"\x02\xff\xfe", cast(Any, None))
        self.clock.advance(0.01)
        self.assertEqual([code for code, _ in self.dst.driver.resets], [RESET_NOT_ALLOWED])
