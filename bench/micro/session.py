"""How many megabytes a second two session cores move back to back, and what a record costs at each end.

One process, one core, no wire: whatever one end wants to send the other receives at once. So the figures hold all work
of a session at both ends, AES-256-GCM included, and nothing of links, sockets or splices.
"""

from __future__ import annotations

import time

from bench.experiment import Conditions
from seamless.interfaces import DataReceived, StreamKey, StreamWritable
from seamless.session.session import Session
from seamless.test.session.pair import Pair
from seamless.wire.header import PACKET_HEADER_BYTES

STREAMS = (1, 8, 100)
CHUNK_BYTES = 64 << 10
BATCH_INTERVAL = 0.001
"""Virtual seconds from one batch to the next."""
BATCH_PACKETS = 44
"""Packets that one system call brings."""


class Meter:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.sending = 0.0
        self.receiving = 0.0


def fill(sender: Session, streams: set[StreamKey], now: float) -> None:
    """Write to these streams until the session has no more room."""
    chunk = bytes(CHUNK_BYTES)
    for stream in streams:
        while sender.send(stream, chunk, now) > 0:
            pass
    streams.clear()


def take(receiver: Session, packets: list[bytes], now: float) -> int:
    """Receive a batch as an application that reads at once; return how many bytes came."""
    taken = 0
    receiver.receive_fragments(packets, now)
    while (event := receiver.next_event()) is not None:
        if isinstance(event, DataReceived):
            nbytes = sum(map(len, event.chunks))
            receiver.consumed(event.stream, nbytes, now)
            taken += nbytes
    timeout = receiver.next_timeout()
    if timeout is not None and timeout <= now:
        receiver.handle_timeout(now)
    return taken


def move(streams: int, seconds: float) -> tuple[float, Meter, int, int]:
    """Move bytes over so many streams; return seconds, what spent them, the bytes, and the records that they took."""
    pair = Pair()
    pair.accept_all()
    writable = {pair.open()[0] for _ in range(streams)}
    pair.run(0.2)
    sender, receiver = pair.a.session, pair.b.session
    meter, taken, now = Meter(), 0, pair.now
    before = sender.status(now).records_sent
    clock = time.perf_counter
    begin = clock()
    while clock() - begin < seconds:
        now += BATCH_INTERVAL
        started = clock()
        fill(sender, writable, now)
        express, bulk = sender.packets_to_send(BATCH_PACKETS, now)
        packets = [packet[PACKET_HEADER_BYTES:] for packet in express + bulk]
        sent = clock()
        taken += take(receiver, packets, now)
        back, _ = receiver.packets_to_send(0, now)
        received = clock()
        if back:
            sender.receive_fragments([packet[PACKET_HEADER_BYTES:] for packet in back], now)
        while (event := sender.next_event()) is not None:
            if isinstance(event, StreamWritable):
                writable.add(event.stream)
        meter.sending += sent - started + clock() - received
        meter.receiving += received - sent
    return clock() - begin, meter, taken, sender.status(now).records_sent - before


def run(conditions: Conditions) -> None:
    """Print the table, a row for each number of streams."""
    print(f"{'streams':>8} {'MB/s':>8} {'Mb/s':>8} {'us/record out':>14} {'us/record in':>13} {'bytes/record':>13}")
    for streams in conditions.cases(STREAMS):
        seconds, meter, taken, records = move(streams, conditions.seconds)
        rate = taken / seconds
        print(
            f"{streams:8} {rate / 1e6:8.0f} {rate * 8 / 1e6:8.0f} {meter.sending / records * 1e6:14.1f}"
            f" {meter.receiving / records * 1e6:13.1f} {taken // records:13}"
        )
