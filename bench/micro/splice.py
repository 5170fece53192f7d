"""What a splice costs: CPU for each 64 kB in either direction, CPU and memory of ten thousand that are idle.

The stream's side is a driver that throws everything away, so this is the kernel socket, the reactor and the splice.
"""

from __future__ import annotations

import resource
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from twisted.internet import reactor as global_reactor

from bench.experiment import Conditions
from seamless.interfaces import RESET_SHUTDOWN, StreamKey
from seamless.test.transport.sockets import connected_pair
from seamless.transport.dial import prepare
from seamless.transport.splice import READ_BYTES, Splice

IDLE = 10_000
SMOKE_IDLE = 100
STREAM: StreamKey = (1, 1)

reactor: Any = global_reactor


class Sink:
    """Takes everything at once and gives nothing."""

    def send(self, stream: StreamKey, data: bytes) -> int:
        """Have room for ever."""
        return 1 << 20

    def finish(self, stream: StreamKey) -> None:
        """Do not care."""

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        """Do not care."""

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Do not care."""


def splice_of(sock: socket.socket) -> Splice:
    prepare(sock)
    splice = Splice(reactor, sock, Sink(), lambda splice, reset: None)
    splice.start(STREAM)
    return splice


def thread_seconds() -> float:
    """CPU of this thread: the application's side runs in another."""
    return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)


def up(seconds: float) -> None:
    ours, theirs = connected_pair()
    splice = splice_of(ours)

    def write() -> None:
        piece = bytes(1 << 20)
        with suppress(OSError):
            while True:
                theirs.sendall(piece)

    threading.Thread(target=write, daemon=True).start()
    started, cpu, rounds = time.monotonic(), thread_seconds(), 0
    while time.monotonic() - started < seconds:
        reactor.iterate(1)
        rounds += 1
    report("up", splice.bytes_up, time.monotonic() - started, thread_seconds() - cpu)
    print(f"      {splice.bytes_up / rounds / 1024:.0f} kB in one turn of the reactor")
    splice.abort(RESET_SHUTDOWN, "done")


def down(seconds: float) -> None:
    ours, theirs = connected_pair()
    splice = splice_of(ours)

    def read() -> None:
        buffer = bytearray(1 << 20)
        while theirs.recv_into(buffer):
            pass

    threading.Thread(target=read, daemon=True).start()
    chunks = [bytes(16_000) for _ in range(4)]
    nbytes = sum(map(len, chunks))
    started, cpu = time.monotonic(), thread_seconds()
    given = 0
    while time.monotonic() - started < seconds:
        splice.stream_data(list(chunks))
        given += nbytes
        while splice.bytes_down < given:
            reactor.iterate(1)
    report("down", given, time.monotonic() - started, thread_seconds() - cpu)
    splice.stream_finished()


def report(direction: str, nbytes: int, seconds: float, cpu: float) -> None:
    rate = nbytes * 8 / seconds / 1e9
    print(f"{direction:5} {rate:5.1f} Gb/s, {cpu / (nbytes / READ_BYTES) * 1e6:5.1f} us of CPU for each 64 kB")


def idle(count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, (hard - 100) // 2)
    pairs = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        for _ in range(count):
            theirs = socket.create_connection(listener.getsockname())
            pairs.append((listener.accept()[0], theirs))
    before = resident_bytes()
    splices = [splice_of(ours) for ours, _ in pairs]
    added = resident_bytes() - before
    cpu = time.process_time()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        reactor.iterate(0.5)
    print(
        f"idle  {count} splices: {added / count / 1024:.1f} kB each beside their sockets, "
        f"{(time.process_time() - cpu) / 2 * 100:.2f} % of a CPU"
    )
    for splice in splices:
        splice.abort(RESET_SHUTDOWN, "done")


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def run(conditions: Conditions) -> None:
    """Print a line for each direction, and one for those that are idle."""
    up(conditions.seconds)
    down(conditions.seconds)
    idle(SMOKE_IDLE if conditions.is_smoke else IDLE)
