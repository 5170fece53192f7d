"""Applications for tests: plain blocking sockets that say how a connection ended."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios
import time
from typing import Final

PATIENCE: Final = 20.0
"""Seconds after which a blocked call fails its test."""


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback: (accepted, connecting)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    return accepted, connecting


class Application:
    """A program with one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def send_all(self, data: bytes) -> None:
        self.sock.sendall(data)

    def try_to_send(self, data: bytes) -> int:
        """Send; return 0, or the errno with which it failed."""
        try:
            self.sock.sendall(data)
        except ConnectionError as error:
            return error.errno or errno.EIO
        return 0

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read_exactly(self, nbytes: int) -> bytes:
        data = b""
        while len(data) < nbytes:
            piece = self.sock.recv(nbytes - len(data))
            assert piece, "the connection ended early"
            data += piece
        return data

    def read_to_end(self, pause: float = 0.0) -> tuple[bytes, str]:
        """Return what came, and "EOF" or "RST"."""
        data = bytearray()
        while True:
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                return bytes(data), "RST"
            if not piece:
                return bytes(data), "EOF"
            data += piece
            time.sleep(pause)

    def readable(self) -> int:
        answer = fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def unacknowledged(self) -> int:
        answer = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()
