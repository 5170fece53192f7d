"""An overlay stream as a Twisted transport, and what a stream's owner and its driver say to each other.

This is where the node's events become method calls. A *driver* (one per node) carries out commands on streams; each
stream has one *owner* that is told what happens to it: a `StreamTransport` here, which any Twisted protocol can use, or
a `seamless.transport.splice.Splice`, which joins the stream to a kernel socket.

The rules of a `StreamTransport`:

* Bytes written go to the driver at once; when it says that there is no room, a registered producer is paused.
* Bytes read are given back (``consumed``) once ``dataReceived`` returned, and kept back while the protocol is paused:
  so a protocol that reads no more stops the writer at the other end, and what waits is bounded by the stream's window.
* Whatever happens to a paused stream is told in order after the protocol resumed. Nothing overtakes bytes.
* FIN is told to `IHalfCloseableProtocol`; any other protocol answers it by closing its own direction.
* After ``loseConnection`` the stream ends cleanly when the peer has everything and ended its own direction; what it
  still sends is thrown away, and more than a window full of that is answered with a reset, as the kernel's TCP would.
* The protocol hears ``connectionLost`` exactly once: ConnectionDone after both FINs, ConnectionAborted after its own
  ``abortConnection``, ConnectionLost with the reason otherwise. A stream that was cut short never looks complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias

import attrs
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.interfaces import RESET_BY_APPLICATION, RESET_NOT_ALLOWED, StreamKey
from seamless.transport.limited_log import LimitedLog

TARGET_CONNECTION: Final = 0x01
"""First byte of a target: an intercepted TCP connection (`seamless.intercept.payload.flow`)."""
TARGET_SERVICE: Final = 0x02
"""First byte of a target: a service that a program listens for by name (`seamless.transport.endpoints`)."""

DISCARD_LIMIT_BYTES: Final = 1 << 20
"""After ``loseConnection``: what a peer may have had in flight before it could know; more is answered with a reset."""


class StreamOwner(Protocol):
    """Gets the events of one stream, in order; ``stream_reset`` or ``stream_closed`` is the last."""

    def stream_accepted(self) -> None:
        """Called when the peer has accepted the stream that we opened."""
        ...

    def stream_data(self, chunks: list[bytes]) -> None:
        """Take bytes in order; give them back with ``consumed`` when they have gone where they belong."""
        ...

    def stream_writable(self) -> None:
        """Called when there is room again after ``send`` had none."""
        ...

    def stream_finished(self) -> None:
        """Called for the peer's FIN, after every byte before it."""
        ...

    def stream_reset(self, code: int, reason: str) -> None:
        """Called when the stream was reset, after the bytes that were in flight."""
        ...

    def stream_closed(self) -> None:
        """Called when both directions ended with FIN and the peer has acknowledged every byte."""
        ...


OnOpen: TypeAlias = Callable[[StreamKey, str, bytes], None]
"""Called with (stream, name of the peer, target); answers with ``accept_stream`` or ``reset``."""


class StreamCommands(Protocol):
    """What the owner of an open stream may ask for.

    Owners may do so from within their own methods. Commands on a stream that ended are ignored.
    """

    def send(self, stream: StreamKey, data: bytes) -> int:
        """Take all of ``data``; return the bytes of room left. At 0 or less wait for ``stream_writable``."""
        ...

    def finish(self, stream: StreamKey) -> None:
        """Send FIN after the bytes sent before."""
        ...

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        """End both directions at once, after the bytes sent before; the owner gets no more events."""
        ...

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Open the receive window by ``nbytes`` of what ``stream_data`` was given."""
        ...


class StreamDriver(StreamCommands, Protocol):
    """A node's driver, as those see it who open streams and take the streams that peers open."""

    @property
    def name(self) -> str:
        """Return the node's name."""
        ...

    def open_stream(self, peer: str, target: bytes, owner: StreamOwner) -> StreamKey:
        """Ask ``peer`` for a stream; bytes may follow at once. `UnreachableError` when there is no way to it."""
        ...

    def listen(self, callback: OnOpen) -> None:
        """Call ``callback`` for every stream that a peer opens, from now on."""
        ...

    def change_owner(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Report what happens to an open stream to another owner from now on."""
        ...

    def watch_stream(self, stream: StreamKey, given_up: Callable[[], None]) -> None:
        """Call ``given_up`` if a stream that was offered is reset, before anything else came and it was accepted."""
        ...

    def accept_stream(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Take the stream; what happened to it meanwhile (bytes, FIN, a reset) is reported to ``owner`` in order."""
        ...

    def reachable(self, peer: str) -> bool:
        """Return whether there is a path to node ``peer`` now."""
        ...


class Acceptors:
    """Dispatches the streams that peers open by the kind of their target (its first byte)."""

    def __init__(self, driver: StreamDriver) -> None:
        self._driver = driver
        self._acceptors: dict[int, OnOpen] = {}
        driver.listen(self._opened)

    def register(self, kind: int, acceptor: OnOpen) -> None:
        """Call ``acceptor`` for streams whose target begins with ``kind``."""
        self._acceptors[kind] = acceptor

    def acceptor(self, kind: int) -> OnOpen | None:
        """Return the acceptor of targets that begin with ``kind``, or None."""
        return self._acceptors.get(kind)

    def unregister(self, kind: int) -> None:
        """Refuse targets of this kind from now on."""
        self._acceptors.pop(kind, None)

    def _opened(self, stream: StreamKey, peer: str, target: bytes) -> None:
        acceptor = self._acceptors.get(target[0]) if target else None
        if acceptor is None:
            reason = f"node {self._driver.name} releases no connections and offers no services of this kind"
            self._driver.reset(stream, RESET_NOT_ALLOWED, reason)
        else:
            acceptor(stream, peer, target)


@implementer(IAddress)
@attrs.frozen
class OverlayAddress:
    """One end of a stream: a node and, where it is known, the service there."""

    node: str
    service: str = ""


@implementer(ITCPTransport, IConsumer, IPushProducer)
class StreamTransport:
    """One stream, for one Twisted protocol; see the rules above. Make it, have the driver own it, then ``start``."""

    _log = Logger()
    _limited = LimitedLog(None, _log)
    disconnecting = False

    def __init__(self, driver: StreamDriver, host: OverlayAddress, peer: OverlayAddress) -> None:
        self._driver = driver
        self._host = host
        self._peer = peer
        self._stream: StreamKey = (0, 0)
        self._protocol: Any = None
        self._producer: Any = None
        self._producer_is_streaming = False
        self._pulling = False
        self._wrote = False
        self._room = True
        self._paused = True
        self._waiting: list[Callable[[], None]] = []
        self._finished = False
        self._discarded_bytes = 0
        self.connected = True

    def start(self, stream: StreamKey, protocol: IProtocol) -> None:
        """Join ``protocol`` to ``stream``; what arrived before is delivered first."""
        self._stream = stream
        self._protocol = protocol
        protocol.makeConnection(self)
        self.resumeProducing()

    # What the driver tells.

    def stream_accepted(self) -> None:
        """Do nothing: the protocol was started only after the stream had been accepted."""

    def stream_data(self, chunks: list[bytes]) -> None:
        """Hand the bytes to the protocol."""
        self._in_order(lambda: self._data(b"".join(chunks)))

    def stream_writable(self) -> None:
        """Let the producer go on."""
        self._room = True
        if self._producer is not None:
            self._ask_producer()

    def stream_finished(self) -> None:
        """Pass FIN to the protocol."""
        self._in_order(self._read_ended)

    def stream_reset(self, code: int, reason: str) -> None:
        """End the protocol's connection with `ConnectionLost`."""
        self._in_order(lambda: self._lost(ConnectionLost(reason)))

    def stream_closed(self) -> None:
        """End the protocol's connection cleanly."""
        self._in_order(lambda: self._lost(ConnectionDone()))

    def _in_order(self, happened: Callable[[], None]) -> None:
        if self._waiting or (self._paused and not self.disconnecting):
            self._waiting.append(happened)
        else:
            happened()

    def _data(self, data: bytes) -> None:
        if not self.connected:
            return
        if self.disconnecting:
            self._discard(len(data))
            return
        try:
            self._protocol.dataReceived(data)
        except Exception:
            self._limited.failure(self._peer.node, "a protocol raised an exception on data; its stream is reset")
            self.abortConnection()
        self._give_back(len(data))

    def _give_back(self, nbytes: int) -> None:
        if self.connected:
            self._driver.consumed(self._stream, nbytes)

    def _discard(self, nbytes: int) -> None:
        self._discarded_bytes += nbytes
        if self._discarded_bytes > DISCARD_LIMIT_BYTES:
            self._driver.reset(self._stream, RESET_BY_APPLICATION, "the application closed the connection")
            self._lost(ConnectionLost("the peer went on sending after the application closed the connection"))
        else:
            self._driver.consumed(self._stream, nbytes)

    def _read_ended(self) -> None:
        if not IHalfCloseableProtocol.providedBy(self._protocol):
            self.loseConnection()
        elif self.connected and not self.disconnecting:
            self._protocol.readConnectionLost()

    def _lost(self, reason: Exception) -> None:
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        self._waiting.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._protocol.connectionLost(Failure(reason))

    # ITransport

    def write(self, data: bytes) -> None:
        """Send bytes; after a close they go nowhere, as on any Twisted transport."""
        if not data or not self.connected or self._finished or (self.disconnecting and self._producer is None):
            return
        self._wrote = True
        self._room = self._driver.send(self._stream, data) > 0
        if self._producer is None:
            return
        if not self._producer_is_streaming:
            self._ask_producer()
        elif not self._room:
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """End cleanly once everything written, and all that a registered producer has, is sent."""
        if self.disconnecting:
            return
        self.disconnecting = True
        if self._producer is None:
            self._finish()
        self._tell_waiting()

    def abortConnection(self) -> None:
        """Reset the stream at once."""
        if self.connected:
            self._driver.reset(self._stream, RESET_BY_APPLICATION, "the application aborted the connection")
            self._lost(ConnectionAborted())

    def getHost(self) -> OverlayAddress:  # type: ignore[override]  # the interface knows addresses of IP only
        """Return our end."""
        return self._host

    def getPeer(self) -> OverlayAddress:  # type: ignore[override]
        """Return the other end."""
        return self._peer

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """End our direction only."""
        if self._finished or not self.connected:
            return
        self._finish()
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def getTcpNoDelay(self) -> bool:
        """Return True: a stream never waits to fill a packet."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Change nothing: a stream never waits to fill a packet, whatever is asked."""

    def getTcpKeepAlive(self) -> bool:
        """Return True: a session watches its peer while it has streams."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Change nothing: a session watches its peer while it has streams, whatever is asked."""

    def _finish(self) -> None:
        if not self._finished and self.connected:
            self._finished = True
            self._driver.finish(self._stream)

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take bytes from ``producer``, no faster than the stream does."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already; unregister it before {producer!r}")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_is_streaming = streaming
        if not streaming:
            self._ask_producer()
        elif not self._room:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Take no more from the producer; a close that waited for it goes on."""
        self._producer = None
        if self.disconnecting:
            self._finish()

    def _ask_producer(self) -> None:
        """Resume a streaming producer; pull from any other for as long as it writes and there is room."""
        if self._producer_is_streaming:
            self._producer.resumeProducing()
            return
        if self._pulling:
            return
        self._pulling = self._wrote = True
        while self._wrote and self._room and self._producer is not None:
            self._wrote = False
            self._producer.resumeProducing()
        self._pulling = False

    # IPushProducer

    def pauseProducing(self) -> None:
        """Hand over nothing until ``resumeProducing``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Hand over what came meanwhile, and what comes."""
        self._paused = False
        self._tell_waiting()

    def stopProducing(self) -> None:
        """Close: the consumer is gone."""
        self.loseConnection()

    def _tell_waiting(self) -> None:
        while self._waiting and (self.disconnecting or not self._paused):
            self._waiting.pop(0)()
