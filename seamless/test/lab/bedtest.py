"""The bed of ``etc/lab.conf`` for tests of the main job: real nodes, real servers, and sockets on its hosts.

A `Bed` is brought up once for a test module, when the first of its tests asks for it, and goes with the module's
`BedSuite`. A test may kill whatever it likes: the next one starts what is missing again.

`TestBed.new_socket` returns a socket of this process that belongs to a host of the lab: sockets stay in the network
namespace in which they were made, so a small process there makes them and passes them on. A test is then both of the
applications, and reads like a transcript of what they do to each other.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import random
import resource
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Final

from twisted.trial.runner import TestLoader, TestSuite
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.config.load import load_file
from seamless.errors import UsageError
from seamless.lab.daemons import reaches
from seamless.lab.lab import Lab
from seamless.linux import control_socket
from seamless.test.lab.ground import why_not

BED_FILE: Final = Path(seamless.__file__).parents[1] / "etc" / "lab.conf"
DST: Final = "10.1.9.2"
PORTS: Final = range(5202, 5209)
"""What ``etc/lab.conf`` captures and no server of the lab has."""
DEAD_PORT: Final = 5209
"""Captured, and no server ever listens there."""
NODES: Final = ("src", "r1", "r2", "dst")

LONG: Final = bool(os.environ.get("SEAMLESS_LONG_TESTS"))
"""Whether to take the sizes and times of issue 2 where a shorter test shows nearly the same."""

PATIENCE: Final = 20.0
"""Seconds until a test that waits has failed; less than the 30 s after which a session gives up its path, so that no
end which comes only from that passes for one that was told."""
POLL_SECONDS: Final = 0.02
MEMORY_LIMIT_BYTES: Final = 300_000_000

EOF: Final = "EOF"
RESET: Final = "RST"

_SOCKET_MAKER: Final = """
import socket
channel = socket.socket(fileno=0)
while kind := channel.recv(1):
    family = socket.AF_INET6 if kind == b"6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == b"u" else socket.SOCK_STREAM) as made:
        socket.send_fds(channel, [b"."], [made.fileno()])
"""
"""What runs on a host to make its sockets: "t" asks for TCP, "6" for TCP over IPv6, "u" for UDP."""


class TestBed:
    """A lab with all its servers, and its nodes as long as no test stops them."""

    __test__ = False

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._makers: dict[str, socket.socket] = {}

    def close(self) -> None:
        """Let go of what makes sockets; those that it made live on."""
        for maker in self._makers.values():
            maker.close()

    # Nodes.

    def restore(self) -> None:
        """Start the nodes that do not run, and return once the overlay carries."""
        self.lab.start_nodes([name for name in NODES if not self.is_running(name)])
        self._wait_for("src", "dst")
        self._wait_for("dst", "src")

    def _wait_for(self, near: str, far: str) -> None:
        wait_until(lambda: self.reaches(near, far), f"{near} reaches {far}")
        wait_until(lambda: self.has_rules(near), f"{near} has its rules")

    def is_running(self, node: str) -> bool:
        """Return whether a node was started and has not ended."""
        try:
            return self.lab.node(node).process.poll() is None
        except UsageError:
            return False

    def reaches(self, node: str, peer: str) -> bool:
        """Return whether a node has a path to another now."""
        status = self.lab.node(node).status()
        return status is not None and reaches(status, peer)

    def log(self, node: str) -> str:
        """Return what a node has logged since its last start."""
        return self.lab.node(node).log_text()

    def links_down_since(self, node: str, time: float) -> list[str]:
        """Return the neighbors whose links to a node are not UP, or came up only after ``time`` (Unix time)."""
        links = self.report(node)["links"]
        return [link["neighbor"] for link in links if link["state"] != "UP" or link["since"] > time]

    def has_rules(self, host: str) -> bool:
        """Return whether any firewall rule of ours is on a host."""
        return "SEAMLESS" in self.lab.run(host, ["iptables-save"]).stdout

    def report(self, node: str) -> Any:
        """Return all that a node says of itself, as ``seamless status --json`` prints it."""
        return control_socket.ask(self.lab.node_socket(node), {"ask": "status"})

    def resident_bytes(self, node: str) -> int:
        """Return how much memory a node takes now (VmRSS)."""
        return status_bytes(self.lab.node(node).process.pid, "VmRSS")

    def highest_resident_bytes(self, node: str) -> int:
        """Return how much memory a node took at most since it was started (VmHWM)."""
        return status_bytes(self.lab.node(node).process.pid, "VmHWM")

    # Wires.

    def native_packets(self) -> int:
        """Return how many packets the native wire between src and dst was ever given, in both directions."""
        return sum(sent["packets_in"] for sent in self.lab.counters("src", "dst").values())

    def overlay_bytes(self) -> int:
        """Return how many bytes the first hop of the overlay was ever given, in both directions."""
        return sum(sent["bytes_in"] for sent in self.lab.counters("src", "r1").values())

    # Sockets.

    def new_socket(self, host: str, kind: str = "t") -> socket.socket:
        """Return a socket of a host: TCP, with ``kind`` "6" over IPv6, with "u" UDP; it waits `PATIENCE` at most."""
        if host not in self._makers:
            ours, theirs = socket.socketpair()
            with theirs, theirs.makefile("rb") as stdin:
                self.lab.popen(host, [sys.executable, "-S", "-c", _SOCKET_MAKER], stdin=stdin, stderr=None)
            self._makers[host] = ours
        self._makers[host].send(kind.encode())
        _, (descriptor,), _, _ = socket.recv_fds(self._makers[host], 1, 1)
        made = socket.socket(fileno=descriptor)
        made.settimeout(PATIENCE)
        return made

    def listen(self, host: str, port: int) -> socket.socket:
        """Return a socket that listens on a host."""
        listening = self.new_socket(host)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("", port))
        listening.listen(4096)
        return listening

    def connect(self, host: str, address: str, port: int) -> socket.socket:
        """Return a connection that an application on ``host`` made."""
        connection = self.new_socket(host)
        connection.connect((address, port))
        return connection

    def connect_and_read(self, host: str, address: str, port: int) -> tuple[bytes, str]:
        """Return all that a connection which is refused at once reads, and how it ends.

        The kernel of ``host`` completes the handshake by itself, so RST may be there before `connect` returns or after.
        """
        with self.new_socket(host) as connection:
            try:
                connection.connect((address, port))
            except ConnectionResetError:
                return b"", RESET
            return read_to_end(connection)


class BedTestCase(SynchronousTestCase):
    """A test on the bed, with every node up and the overlay carrying when it begins."""

    skip = why_not()

    def setUp(self) -> None:
        self.bed = shared_bed()
        self.lab = self.bed.lab
        self.bed.restore()

    def listen(self, port: int = PORTS[0], host: str = "dst") -> socket.socket:
        listening = self.bed.listen(host, port)
        self.addCleanup(listening.close)
        return listening

    def connect(self, port: int) -> socket.socket:
        """Return what an application on src gets when it connects to dst."""
        client = self.bed.connect("src", DST, port)
        self.addCleanup(client.close)
        return client

    def pair(self, port: int = PORTS[0], receive_buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection through the overlay: a client on src, a server on dst.

        ``receive_buffer``: of the server, in bytes, as it asks for it; left out, the kernel finds one.
        """
        with self.bed.listen("dst", port) as listening:
            if receive_buffer is not None:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client = self.connect(port)
            server, _ = listening.accept()
        self.addCleanup(server.close)
        server.settimeout(PATIENCE)
        return client, server

    def one_exchange(self, port: int) -> None:
        """Ask and answer, on a connection of its own, up to both ends."""
        client, server = self.pair(port)
        client.sendall(b"question")
        self.assertEqual(read_exactly(server, 8), b"question")
        server.sendall(ANSWER)
        server.close()
        self.assertTrue(read_to_end(client) == (ANSWER, EOF))
        client.close()

    def said(self, node: str, words: str) -> None:
        """Wait until a node's log holds these words."""
        wait_until(lambda: words in self.bed.log(node), f"{node} says: {words}")

    def temporary(self) -> Path:
        """Return a folder for this test."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return folder


def pattern(size: int) -> bytes:
    """Return bytes of which no two stretches are alike, the same at every call."""
    return random.Random(size).randbytes(size)


ANSWER: Final = pattern(2_000_000)

_bed: TestBed | None = None


def shared_bed() -> TestBed:
    """Return the bed that is up, or bring one up."""
    global _bed
    if _bed is None:
        # Ten thousand connections in one process; the nodes inherit it.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        _bed = TestBed(Lab(load_file(BED_FILE), configuration_file=BED_FILE).__enter__())
        _bed.lab.start_servers()
    return _bed


def close_shared_bed() -> None:
    """Take the bed down, if there is one."""
    global _bed
    bed, _bed = _bed, None
    if bed is not None:
        bed.close()
        bed.lab.close()


atexit.register(close_shared_bed)


class BedSuite(TestSuite):
    """The tests of a module, and after them the bed goes."""

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Run them all; whatever happens, nothing of the bed is left."""
        try:
            super().run(result)
        finally:
            close_shared_bed()
        return result


def bed_suite(*cases: type[BedTestCase]) -> BedSuite:
    """Return what a module's ``testSuite`` returns."""
    return BedSuite(TestLoader().loadClass(case) for case in cases)


# What applications do.


class Writer(Thread):
    """An application that writes, for ever or some bytes, while the test goes on; ``error`` says how it ended."""

    def __init__(self, sock: socket.socket, data: bytes | None = None) -> None:
        super().__init__(daemon=True)
        self.written = 0
        self.error: OSError | None = None
        self._sock = sock
        self._data = data
        self.start()

    def run(self) -> None:
        """Write."""
        block = memoryview(self._data if self._data is not None else pattern(1 << 20))
        try:
            while self.written < len(block) or self._data is None:
                at = self.written % len(block)
                self.written += self._sock.send(block[at : at + 65_536])
        except OSError as error:
            self.error = error

    def outcome(self) -> OSError | None:
        """Return the error with which writing ended, None if all was written."""
        self.join(PATIENCE)
        if self.is_alive():
            raise AssertionError(f"still writing after {PATIENCE:g} s")
        return self.error


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return this many bytes, fewer if the stream ends before."""
    pieces = []
    while size:
        piece = sock.recv(min(size, 1 << 18))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    """Return all that comes, and how it ends: `EOF` or `RESET`."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = sock.recv(1 << 18)
        except ConnectionResetError:
            return b"".join(pieces), RESET
        if not piece:
            return b"".join(pieces), EOF
        pieces.append(piece)


def reset(sock: socket.socket) -> None:
    """Close a connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail the test if it never does."""
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited {PATIENCE:g} s in vain: {what}")
        time.sleep(POLL_SECONDS)


def digest(path: Path) -> str:
    """Return the checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def status_bytes(pid: int, field: str) -> int:
    """Return a figure of /proc/PID/status that is in kB there."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no {field}")


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process, and return its exit code."""
    return process.wait(PATIENCE)
