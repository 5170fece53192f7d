"""What a batch saves: UDP ports sending and receiving one datagram a call, and in batches.

Sender and receiver are processes of their own, over loopback; root also gets two namespaces joined by a veth pair.
For every case it prints what the sender and the receiver managed, and the microseconds of processor time per datagram.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

from bench.experiment import Conditions
from seamless.interfaces import Address, Transmit
from seamless.transport.udp import UdpPort

FORK = multiprocessing.get_context("fork")
SEGMENT = 1400
BATCH = 44

RunInside = Callable[[int], None]
Result = tuple[int, float, float]
"""Datagrams, seconds, seconds of processor time."""


class NoReactor:
    """The benchmark turns the ports' cranks itself."""

    def addReader(self, reader: object) -> None:
        """Do nothing."""

    removeReader = addWriter = removeWriter = addReader


def receive(enter: RunInside, host: str, stop: Event, pipe: Connection) -> None:
    enter(1)
    port = UdpPort(NoReactor(), (host, 0), lambda view, segment_size, local, remote, waited: None)
    port.start()
    pipe.send(port.local)
    first = last = 0.0
    while not stop.is_set():
        if select.select([port], [], [], 0.05)[0]:
            port.doRead()
            last = time.monotonic()
            first = first or last
    pipe.send((port.counters.datagrams_in, last - first, time.process_time()))


def send(enter: RunInside, host: str, remote: Address, count: int, seconds: float, pipe: Connection) -> None:
    enter(0)
    port = UdpPort(NoReactor(), (host, 0), lambda view, segment_size, local, remote, waited: None)
    port.start()
    batch = Transmit(port.local, remote, [os.urandom(SEGMENT) for _ in range(count)], SEGMENT, count)
    began, used = time.monotonic(), time.process_time()
    until = began + seconds
    while time.monotonic() < until:
        for _ in range(64 // count):
            port.send(batch)
    pipe.send((port.counters.datagrams_out, time.monotonic() - began, time.process_time() - used))


def measure(name: str, hosts: tuple[str, str], enter: RunInside, count: int, seconds: float) -> None:
    stop = FORK.Event()
    ours, theirs = FORK.Pipe()
    receiver = FORK.Process(target=receive, args=(enter, hosts[1], stop, theirs))
    receiver.start()
    remote = ours.recv()
    sent_here, sent_there = FORK.Pipe()
    sender = FORK.Process(target=send, args=(enter, hosts[0], remote, count, seconds, sent_there))
    sender.start()
    sent: Result = sent_here.recv()
    stop.set()
    received: Result = ours.recv()
    sender.join()
    receiver.join()
    columns = [
        f"{_gbps(*figures):8.2f} Gb/s {figures[2] / max(1, figures[0]) * 1e6:7.3f} us" for figures in (sent, received)
    ]
    print(f"{name:10} {count:3} a call   sent {columns[0]}   received {columns[1]}", flush=True)


def _gbps(datagrams: int, seconds: float, _: float) -> float:
    return datagrams * SEGMENT * 8 / max(seconds, 1e-9) / 1e9


@contextmanager
def veth() -> Iterator[RunInside]:
    """Make two namespaces with a veth pair; yield the function that enters one of them."""
    from seamless.test.linux.namespaces import Namespace

    ends = [Namespace(), Namespace()]
    try:
        ends[0].join(ends[1], "10.99.1.1/24", "10.99.1.2/24")
        inside = [end.entered() for end in ends]
        yield lambda index: inside[index].__enter__()
    finally:
        for end in ends:
            end.remove()


def run(conditions: Conditions) -> None:
    """Measure both ways of sending on every ground there is."""
    for count in (1, BATCH):
        measure("loopback", ("127.0.0.1", "127.0.0.1"), lambda index: None, count, conditions.seconds)
    if os.geteuid() == 0:
        with veth() as enter:
            for count in (1, BATCH):
                measure("veth", ("10.99.1.1", "10.99.1.2"), enter, count, conditions.seconds)
