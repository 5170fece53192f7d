"""How many megabytes a second two session cores move back to back, and what a record costs at each end.

    python bench/session.py [--profile]

One process, one core, no wire: whatever one end wants to send the other receives at once. So the figures hold all work of
a session at both ends, AES-256-GCM included, and nothing of links, sockets or splices.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time

from seamless.session.session import Session
from seamless.test.session.pair import Pair
from seamless.wire.header import PACKET_HEADER_BYTES

TOTAL_BYTES = 200 << 20
CHUNK_BYTES = 64 << 10
BATCH_PACKETS = 44
"""Packets that one system call brings."""


class Meter:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.sending = 0.0
        self.receiving = 0.0


def exchange(pair: Pair, sender: Session, receiver: Session, meter: Meter, now: float, batch: int) -> int:
    """Carry what both want to send; return how many bytes the receiver took."""
    taken = 0
    clock = time.perf_counter
    begin = clock()
    express, bulk = sender.packets_to_send(batch, now)
    packets = [packet[PACKET_HEADER_BYTES:] for packet in express + bulk]
    sent = clock()
    receiver.receive_fragments(packets, now)
    while (event := receiver.next_event()) is not None:
        if hasattr(event, "chunks"):
            nbytes = sum(map(len, event.chunks))
            receiver.consumed(event.stream, nbytes, now)
            taken += nbytes
    timeout = receiver.next_timeout()
    if timeout is not None and timeout <= now:
        receiver.handle_timeout(now)
    back, _ = receiver.packets_to_send(0, now)
    received = clock()
    if back:
        sender.receive_fragments([packet[PACKET_HEADER_BYTES:] for packet in back], now)
    while sender.next_event() is not None:
        pass
    meter.sending += sent - begin + clock() - received
    meter.receiving += received - sent
    return taken


def run(streams: int, total: int, late: bool) -> tuple[float, Meter, int]:
    """Move ``total`` bytes over so many streams; return seconds, who spent them, and the records it took."""
    pair = Pair()
    pair.accept_all()
    keys = [pair.open()[0] for _ in range(streams)]
    pair.run(0.2)
    sender, receiver = pair.a.session, pair.b.session
    chunk = bytes(CHUNK_BYTES)
    room = dict.fromkeys(keys, 1)
    meter, taken, now = Meter(), 0, pair.now
    held: list[bytes] = []
    before = sender.status(now).records_sent
    begin = time.perf_counter()
    while taken < total:
        started = time.perf_counter()
        for key in keys:
            while sender.send(key, b"", now) > 0:
                sender.send(key, chunk, now)
        meter.sending += time.perf_counter() - started
        now += 0.001
        taken += exchange(pair, sender, receiver, meter, now, BATCH_PACKETS)
    seconds = time.perf_counter() - begin
    return seconds, meter, sender.status(now).records_sent - before


def main() -> None:
    """Print the table, or a profile."""
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(run, 1, TOTAL_BYTES // 4, False)
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
        return
    print(f"{'streams':>8} {'MB/s':>8} {'Mb/s':>8} {'us/record out':>14} {'us/record in':>13} {'bytes/record':>13}")
    for streams in (1, 8, 100):
        seconds, meter, records = run(streams, TOTAL_BYTES, False)
        rate = TOTAL_BYTES / seconds
        print(
            f"{streams:8} {rate / 1e6:8.0f} {rate * 8 / 1e6:8.0f} {meter.sending / records * 1e6:14.1f}"
            f" {meter.receiving / records * 1e6:13.1f} {TOTAL_BYTES // records:13}"
        )


if __name__ == "__main__":
    main()
