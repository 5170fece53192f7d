"""Connections over the overlay for any program: the same calls on Twisted and on asyncio.

    node = await seamless.start("lab.conf", "src", "src.key")
    connection = await seamless.connect(node, "dst", "echo")
    connection.write(b"hello")
    print(await connection.read())
    await seamless.stop(node)

Everything that takes time returns a txaio future: a Deferred in a program on Twisted, an asyncio Future in one on
asyncio. A program on asyncio is one whose loop runs when it first calls us and that has no Twisted reactor; Twisted's
asyncio reactor is then put on that loop, and asyncio stays in charge. Call from the loop's thread only.

Twisted programs that want protocols rather than these calls use `seamless.transport.endpoints`, on which this stands.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.internet import error
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import UnreachableError
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayNode, OverlayServerEndpoint, ServicePort
from seamless.transport.limited_log import LimitedLog

if TYPE_CHECKING:
    from seamless.service import NodeService

Future: TypeAlias = Any
"""A txaio future: await it, or give it to `txaio.add_callbacks`."""

HELD_BYTES: Final = 256 * 1024
"""Bytes of unread data that a connection holds before the writer at the other end has to wait."""

_limited = LimitedLog(None, Logger())
txaio: Any = import_module("txaio")  # whose functions come and go with the framework that is chosen


def _choose_framework() -> None:
    """Let txaio make the futures of the program that calls us."""
    if txaio.using_twisted or txaio.using_asyncio:
        if txaio.using_asyncio:
            _join_loop(asyncio.get_running_loop())
        return
    if "twisted.internet.reactor" not in sys.modules:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            pass  # no loop runs: a Twisted program that has not begun to
        else:
            txaio.use_asyncio()
            _join_loop(loop)
            return
    txaio.use_twisted()


def _join_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have Twisted's timers and sockets served by a loop that runs already."""
    if "twisted.internet.reactor" in sys.modules:
        return
    from twisted.internet import asyncioreactor

    asyncioreactor.install(loop)
    from twisted.internet import reactor

    txaio.config.loop = loop
    reactor.startRunning(installSignalHandlers=False)  # type: ignore[attr-defined]


def start(configuration: str | Path, node: str, key: str | Path) -> Future:
    """Start the node named ``node`` of a configuration file; return a future of its `NodeService`.

    ``key`` is the path of its private key. `ConfigurationError` tells what is wrong with a file, or with an address.
    """
    _choose_framework()
    return txaio.as_future(_start, configuration, node, str(key))


def _start(configuration: str | Path, node: str, key: str) -> NodeService:
    # Not before the reactor has been chosen.
    from seamless.config.load import load_file
    from seamless.service import NodeService
    from seamless.tools.keys import read_private_key

    service = NodeService(load_file(configuration), node, read_private_key(key))
    service.startService()
    return service


def stop(node: NodeService) -> Future:
    """Stop a node; return a future that is done when CLOSE was sent to its neighbors."""
    _choose_framework()
    return _future_of(maybeDeferred(node.stopService))


def connect(node: OverlayNode, peer: str, service: str | int) -> Future:
    """Connect from ``node`` to a service on the node named ``peer``; return a future of the `Connection`.

    It fails with `ConnectionRefusedError` when no listener is there, and with `UnreachableError` when there is no way
    to the peer for as long as the overlay waits. To give up earlier, cancel it.
    """
    _choose_framework()
    factory = _factory(lambda connection: None)
    return _future_of(OverlayClientEndpoint(node, peer, service).connect(factory))


def listen(node: OverlayNode, service: str | int, connected: Callable[[Connection], Any]) -> Future:
    """Listen for a service on ``node``; return a future of the `ServicePort`.

    ``connected`` is called with the `Connection` of each client and may be a coroutine function; what it raises resets
    that connection. ``stopListening()`` of the port ends it. The future fails with `CannotListenError` when another
    program part listens for this service.
    """
    _choose_framework()
    listening: Deferred[ServicePort] = OverlayServerEndpoint(node, service).listen(_factory(connected))
    return _future_of(listening)


def _factory(connected: Callable[[Connection], Any]) -> Any:
    factory: Any = Factory.forProtocol(lambda: Connection(connected))
    factory.noisy = False
    return factory


def _future_of(deferred: Deferred[Any]) -> Future:
    future = txaio.create_future(canceller=lambda _: deferred.cancel())

    def succeeded(result: Any) -> None:
        if not txaio.is_called(future):
            txaio.resolve(future, result)

    def failed(failure: Failure) -> None:
        if not txaio.is_called(future):
            txaio.reject(future, _as_program_knows_it(failure.value))

    deferred.addCallbacks(succeeded, failed)
    return future


def _as_program_knows_it(problem: BaseException | None) -> BaseException:
    """Return Python's own error for one of Twisted's, where there is one."""
    if isinstance(problem, error.ConnectionRefusedError):
        return ConnectionRefusedError(_reason(problem))
    if isinstance(problem, error.NoRouteError):
        return UnreachableError(_reason(problem))
    if isinstance(problem, (error.ConnectionLost, error.ConnectionAborted, error.ConnectError)):
        return ConnectionResetError(_reason(problem))
    return problem or ConnectionResetError("the connection broke")


def _reason(problem: BaseException) -> str:
    """Return our own sentence without the one that Twisted puts before it."""
    return str(problem.args[0]) if problem.args and problem.args[0] else str(problem)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Connection(Protocol):
    """A byte stream to a program on another node, with back-pressure in both directions."""

    transport: Any

    def __init__(self, connected: Callable[[Connection], Any]) -> None:
        self._connected = connected
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._reader: Future | None = None
        self._writers: list[Future] = []
        self._room = True
        self._ended: BaseException | None = None

    @property
    def peer(self) -> str:
        """Return the name of the node at the other end."""
        return str(self.transport.getPeer().node)

    def write(self, data: bytes) -> None:
        """Send ``data``; never waits. `drain` tells when there is room for more."""
        self.transport.write(data)

    def drain(self) -> Future:
        """Return a future that is done when the stream has room; it fails when the connection broke."""
        if self._ended is not None:
            return self._failed_or(None)
        if self._room:
            return txaio.create_future_success(None)
        future = txaio.create_future()
        self._writers.append(future)
        return future

    def read(self) -> Future:
        """Return a future of the bytes that come next, at least one; ``b""`` after the peer's last.

        It fails with `ConnectionResetError` when the connection broke: what was read then is not all.
        """
        if self._reader is not None and not txaio.is_called(self._reader):
            raise RuntimeError("another read of this connection waits already")
        if self._held:
            return txaio.create_future_success(self._take())
        if self._ended is not None:
            return self._failed_or(b"")
        self._reader = txaio.create_future()
        return self._reader

    def finish(self) -> None:
        """Send FIN: the peer reads ``b""`` after what was written. Reading goes on."""
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """End both directions, after what was written has been sent."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection at once; the peer's next read fails."""
        self.transport.abortConnection()

    def _take(self) -> bytes:
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self.transport.resumeProducing()
        return data

    def _failed_or(self, result: Any) -> Future:
        if isinstance(self._ended, EOFError):
            return txaio.create_future_success(result)
        return txaio.create_future_error(self._ended)

    def _read_ended(self, how: BaseException) -> None:
        if self._ended is None:
            self._ended = how
        reader, self._reader = self._reader, None
        if reader is not None and not txaio.is_called(reader):
            if isinstance(how, EOFError):
                txaio.resolve(reader, b"")
            else:
                txaio.reject(reader, how)

    # What the transport tells.

    def connectionMade(self) -> None:
        """Report the new connection to the program."""
        self.transport.registerProducer(self, True)
        txaio.add_callbacks(txaio.as_future(self._connected, self), None, self._failed)

    def _failed(self, failure: Any) -> None:
        _limited.error(
            str(self.peer), "a connection of {peer} is reset: {why}", peer=self.peer, why=txaio.failure_message(failure)
        )
        self.abort()

    def dataReceived(self, data: bytes) -> None:
        """Give the bytes to the reader, or hold them."""
        reader, self._reader = self._reader, None
        if reader is not None and not txaio.is_called(reader):
            txaio.resolve(reader, data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """Report the end of the peer's bytes to the reader."""
        self._read_ended(EOFError())

    def writeConnectionLost(self) -> None:
        """Do nothing: the program itself finished."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End every pending read and write with the way in which the connection ended."""
        clean = reason.check(error.ConnectionDone) is not None
        how = EOFError() if clean else _as_program_knows_it(reason.value)
        if not clean:
            self._ended = how
        self._read_ended(how)
        self._tell_writers()

    # What the stream tells the producer of its bytes.

    def pauseProducing(self) -> None:
        """Make `drain` wait: the stream has no room."""
        self._room = False

    def resumeProducing(self) -> None:
        """Complete pending `drain` futures: the stream has room again."""
        self._room = True
        self._tell_writers()

    def stopProducing(self) -> None:
        """Ignore that the write side is gone; ``connectionLost`` follows with the reason."""

    def _tell_writers(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            if txaio.is_called(writer):
                continue
            if self._ended is None or isinstance(self._ended, EOFError):
                txaio.resolve(writer, None)
            else:
                txaio.reject(writer, self._ended)
