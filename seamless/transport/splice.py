"""A splice joins one kernel TCP socket to one overlay stream, and keeps what TCP promises on either side.

*Up* is from the socket to the stream, *down* from the stream to the socket.

=============================  =====================================================================================
what happens                   what the splice does
=============================  =====================================================================================
bytes up                       one ``send`` per readable event, and after a short read a look for the FIN that
                               often follows, so that it goes with the bytes; when the stream has no room, reading
                               stops, the kernel's buffer fills, and the application's writer waits
bytes down                     one ``sendmsg`` per batch; each byte is given back (``consumed``) only once the kernel
                               took it, so what waits here is bounded by the stream's window
FIN from the application       ``finish``; down lives on
FIN from the stream            after the last byte down: ``shutdown(SHUT_WR)``; up lives on
both                           the socket is closed cleanly
RST from the application       every byte that came before it goes up, then the stream is reset
one FIN, or no room            keepalive, so that connection tracking does not forget a silent connection
stream reset                   every byte that came before it goes down; once the application's kernel has
                               acknowledged them all (SIOCOUTQ), and a FIN that came before the reset, or takes no
                               more for `DRAIN_TIMEOUT`: RST
abort, or the process dies     RST (`seamless.transport.dial.prepare`)
=============================  =====================================================================================

Why not Twisted's own TCP transport: when a write fails it drops the connection together with everything that could
still be read, so a server's early answer to an upload would be lost. Here a failed write only ends the way down. What
the kernel has received is still read, and what follows it tells FIN from RST: Linux reports EPIPE to the writer if the
peer's FIN had come before its RST (then end of file is true), and otherwise ECONNRESET, once, after which ``recv``
returns end of file for a stream that was cut short. That end of file is never believed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.interfaces import RESET_BY_APPLICATION, StreamKey
from seamless.transport.dial import TCP_CLOSE, close_cleanly, close_with_reset, keep_alive, tcp_state
from seamless.transport.streams import StreamCommands

READ_BYTES: Final = 64 * 1024
"""One read, one ``send``: four sealed records, and few enough that other connections get their turn."""
MAX_BUFFERS: Final = 1024
"""Buffers in one ``sendmsg`` (IOV_MAX of Linux)."""
DRAIN_INTERVAL: Final = 0.01
"""Seconds between two looks at a socket that is to be reset once its application has everything."""
DRAIN_TIMEOUT: Final = 10.0
"""Seconds without any progress after which such a socket is reset all the same: its reader has stopped."""


@implementer(IReadWriteDescriptor)
class Splice:
    """The joint of ``sock`` (prepared, connected) and a stream. Make it, have the driver own it, then ``start``.

    ``accepted`` is called when the peer accepts a stream that we opened; ``ended`` once, when the socket is closed,
    with the code and reason of the stream's reset or None. Both get the splice. There is no timer on an idle splice.
    """

    __slots__ = (
        "_accepted", "_down", "_down_bytes", "_drain", "_driver", "_ended", "_finished_down", "_finished_up",
        "_kept_alive", "_peer_finished", "_reactor", "_reading", "_reset", "_sock", "_stream", "_stream_lives",
        "_unacknowledged", "_write_error", "_writing", "bytes_down", "bytes_up", "started_at",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        driver: StreamCommands,
        ended: Callable[[Splice, tuple[int, str] | None], None],
        accepted: Callable[[Splice], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._sock: socket.socket | None = sock
        self._driver = driver
        self._ended = ended
        self._accepted = accepted
        self._stream: StreamKey = (0, 0)
        self._stream_lives = True
        self._reading = self._writing = False
        self._down: deque[bytes | memoryview] = deque()
        self._down_bytes = 0
        self._finished_up = self._peer_finished = self._finished_down = False
        self._reset: tuple[int, str] | None = None
        self._write_error = 0
        self._kept_alive = False
        self._drain: IDelayedCall | None = None
        self._unacknowledged = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.started_at: float = reactor.seconds()

    @property
    def stream(self) -> StreamKey:
        """Return the key of the stream, once it was started."""
        return self._stream

    @property
    def unwritten_bytes(self) -> int:
        """Return how many bytes the application's kernel does not take, because the application does not read."""
        return self._down_bytes

    def start(self, stream: StreamKey) -> None:
        """Begin to read."""
        self._stream = stream
        self._want_reading()

    def abort(self, code: int, reason: str) -> None:
        """Reset both sides at once."""
        self._reset_stream(code, reason)
        self._reset = self._reset or (code, reason)
        self._close()

    def gave_up(self) -> bool:
        """Return whether the application has reset its connection, even while we read nothing."""
        return self._sock is None or is_reset(self._sock)

    # Up: from the socket to the stream.

    def doRead(self) -> None:
        """Read once and send it on; after a short read look whether the FIN has come too."""
        if self._read():
            self._read()

    def _read(self) -> bool:
        """Read once and send it on; return whether it was less than a whole read, and reading goes on."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._application_reset(error.errno)
            return False
        if data:
            self.bytes_up += len(data)
            if self._driver.send(self._stream, data) <= 0:
                self._stop_reading()
                self._keep_alive()  # a FIN may come that we do not read
            return self._reading and len(data) < READ_BYTES
        if self._write_error in (0, errno.EPIPE):
            self._application_finished()
        else:
            self._application_reset(self._write_error)
        return False

    def stream_writable(self) -> None:
        """Read on."""
        if self._sock is not None and not self._finished_up and self._reset is None:
            self._want_reading()

    def _application_finished(self) -> None:
        self._stop_reading()
        self._finished_up = True
        if self._stream_lives:
            self._driver.finish(self._stream)
        if self._write_error:
            self._application_reset(self._write_error)
        else:
            self._keep_alive()
            self._close_if_done()

    def _application_reset(self, error: int | None) -> None:
        reason = "connection reset by the application"
        if error not in (errno.ECONNRESET, errno.EPIPE):
            reason = f"connection lost: {os.strerror(error or errno.EIO)}"
        self.abort(RESET_BY_APPLICATION, reason)

    def _reset_stream(self, code: int, reason: str) -> None:
        if self._stream_lives:
            self._stream_lives = False
            self._driver.reset(self._stream, code, reason)

    # Down: from the stream to the socket.

    def stream_data(self, chunks: list[bytes]) -> None:
        """Write as much as the kernel takes."""
        nbytes = sum(map(len, chunks))
        if self._sock is None or self._write_error:
            self._give_back(nbytes)
            return
        self._down.extend(chunks)
        self._down_bytes += nbytes
        if not self._writing:
            self.doWrite()

    def doWrite(self) -> None:
        """Write what waits, and end the way down when that was all."""
        if self._sock is None:
            return
        while self._down:
            try:
                written = self._sock.sendmsg(list(islice(self._down, MAX_BUFFERS)))
            except (BlockingIOError, InterruptedError):
                self._want_writing()
                return
            except OSError as error:
                self._write_failed(error.errno or errno.EIO)
                return
            self._written(written)
        self._stop_writing()
        self._drained()

    def _written(self, nbytes: int) -> None:
        self.bytes_down += nbytes
        self._down_bytes -= nbytes
        down = self._down
        left = nbytes
        while left:
            first = down[0]
            if len(first) > left:
                down[0] = memoryview(first)[left:]
                break
            left -= len(first)
            down.popleft()
        self._give_back(nbytes)

    def _give_back(self, nbytes: int) -> None:
        if self._stream_lives:
            self._driver.consumed(self._stream, nbytes)

    def _drained(self) -> None:
        if self._sock is None:
            return
        if self._peer_finished and not self._finished_down:
            self._shutdown()
        if self._reset is not None and self._sock is not None:
            self._reset_when_acknowledged()

    def stream_finished(self) -> None:
        """Pass the peer's FIN on, after the bytes."""
        self._peer_finished = True
        if self._sock is not None and not self._down and not self._write_error:
            self._shutdown()

    def _shutdown(self) -> None:
        assert self._sock is not None
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # Reset already; recv still knows whether FIN came first.
            self._write_failed(errno.EPIPE)
            return
        self._finished_down = True
        self._keep_alive()
        self._close_if_done()

    def _write_failed(self, error: int) -> None:
        """Note that the application takes no more; read what it said before that, and how it ended."""
        self._write_error = error
        self._stop_writing()
        waiting, self._down_bytes = self._down_bytes, 0
        self._down.clear()
        self._give_back(waiting)
        if self._reset is not None:
            self._close()
        elif self._finished_up:
            self._application_reset(error)

    # The ends.

    def stream_accepted(self) -> None:
        """Pass on that the far side is connected."""
        if self._accepted is not None and self._sock is not None:
            self._accepted(self)

    def stream_closed(self) -> None:
        """Take note that the stream is closed; the last bytes may still wait for the kernel here."""
        self._stream_lives = False

    def stream_reset(self, code: int, reason: str) -> None:
        """Pass the reset on, after the bytes."""
        self._stream_lives = False
        if self._sock is None:
            return
        self._reset = (code, reason)
        self._stop_reading()
        if self._write_error:
            self._close()
        else:
            self._reset_when_acknowledged()

    def _reset_when_acknowledged(self, idle: float = 0.0) -> None:
        """Close with RST once nothing is unacknowledged: a reset makes the kernel drop what it still has to send."""
        assert self._sock is not None
        unacknowledged = self._down_bytes + _unacknowledged_bytes(self._sock)
        if unacknowledged == 0 or idle >= DRAIN_TIMEOUT:
            self._close()
            return
        if unacknowledged != self._unacknowledged:
            idle = 0.0
        self._unacknowledged = unacknowledged
        if self._drain is not None and self._drain.active():
            self._drain.cancel()
        self._drain = self._reactor.callLater(DRAIN_INTERVAL, self._reset_when_acknowledged, idle + DRAIN_INTERVAL)

    def _keep_alive(self) -> None:
        if not self._kept_alive and self._sock is not None:
            self._kept_alive = True
            keep_alive(self._sock)

    def _close_if_done(self) -> None:
        if self._finished_up and self._finished_down and self._reset is None:
            self._close()

    def _close(self) -> None:
        sock = self._sock
        if sock is None:
            return
        self._stop_reading()
        self._stop_writing()
        if self._drain is not None and self._drain.active():
            self._drain.cancel()
        self._sock = None
        self._down.clear()
        if self._reset is None:
            close_cleanly(sock)
        else:
            close_with_reset(sock)
        self._ended(self, self._reset)

    # What the reactor needs.

    def _want_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def _want_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return -1 if self._sock is None else self._sock.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """Take note that the reactor watches this socket no more: it is dead, or one of our own methods raised.

        The reactor reports a hang-up in place of writability. How the connection ended, and what is still to be read,
        the system calls tell; a socket that waits to be read is watched again.
        """
        was_reading = self._reading
        self._reading = self._writing = False
        if self._sock is None:
            return
        if not reason.check(ConnectionDone, ConnectionLost):
            self.abort(RESET_BY_APPLICATION, "an internal error; the daemon's log has it")
            return
        self.doWrite()
        if was_reading and self._sock is not None:
            self._want_reading()

    def logPrefix(self) -> str:
        """Return how the log names this descriptor."""
        return "splice"


def is_reset(sock: socket.socket) -> bool:
    """Return whether the peer of a connected socket has reset it, without reading from it."""
    return tcp_state(sock) == TCP_CLOSE


def _unacknowledged_bytes(sock: socket.socket) -> int:
    """Return what the kernel holds because its peer has not acknowledged it (SIOCOUTQ, which is TIOCOUTQ; tcp(7))."""
    answer: bytes = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])
