"""Holds SYNs in an NFQUEUE until the daemon says what becomes of them: the privileged half of ``connect confirmed``.

    kernel ── SYN ──> holder ── a socket pair ──> daemon, which asks the egress
           <─ verdict, mark ─   <── outcome ──

The daemon gives numbers of SYNs that wait, and outcomes; what an outcome means to the firewall (verdict, mark) is the
caller's table. `seamless.linux.held_syns` decides, this does the input and output, in a thread. When the daemon stops
reading, SYNs go on with the mark that their rule gave them, which says what becomes of a SYN that nobody decides about;
and so they do when this stops (SIGSTOP) and one of the kernel's queues (of `QUEUE_SYNS`) is full, or nothing reads it.
The kernel spreads SYNs over several queues by client and server, so a flood of one client's leaves room for others.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from seamless.errors import SeamlessError
from seamless.linux.held_syns import MAX_HELD, Flow, HeldSyns, HoldCounters, Outcome, decode_decisions, encode_counters
from seamless.linux.nfqueue import ACCEPT, DROP, OUTPUT, QueueSocket
from seamless.linux.sockopt import set_buffers
from seamless.linux.syn_sent import flows_in_syn_sent

QUEUE_SYNS: Final = 3 * MAX_HELD // 2
"""SYNs in one of the kernel's queues: those that are held, and half as many that were not looked at yet."""
COPY_BYTES: Final = 128
"""Of each SYN: the headers. The packet itself stays with the kernel, data and all."""
BUFFER_BYTES: Final = 8 << 20
CHANNEL_BYTES: Final = 1 << 20
BATCH: Final = 64
"""SYNs handled between two looks at the daemon's decisions."""
SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks for clients that gave up..."""
CROWDED_SWEEP_INTERVAL: Final = 0.1
"""...and while SYNs are refused for want of room."""
MESSAGE_BYTES: Final = 16_384
"""More than any message on the socket pair."""
FAILED: Final = b"!"
"""First byte of a message to the daemon that carries the sentence of an error; no other follows."""


class SynHolder:
    """Holds the SYNs of some queues. ``marks``: the firewall mark of each outcome that needs one, as (bits, mask)."""

    def __init__(
        self,
        channel: socket.socket,
        queues: range,
        marks: Mapping[Outcome, tuple[int, int]],
        opening: Callable[[], set[Flow]] = flows_in_syn_sent,
    ) -> None:
        self.syns = HeldSyns()
        self._channel = channel
        self._queues = queues
        self._marks = marks
        self._opening = opening
        self._original_marks: dict[int, int] = {}
        self._next_sweep = 0.0
        self._reported = HoldCounters()
        self._socket = QueueSocket(BUFFER_BYTES)
        set_buffers(channel, CHANNEL_BYTES)
        channel.setblocking(False)

    def start(self) -> None:
        """Hold SYNs in a thread, until the daemon is gone; it is told if the queue cannot be had."""
        try:
            for queue in self._queues:
                self._socket.bind(queue, super_packets=False, packets=QUEUE_SYNS, copy_bytes=COPY_BYTES)
        except (OSError, SeamlessError) as error:
            self._say(FAILED + str(error).encode())
            self._socket.close()
            self._channel.close()
            return
        threading.Thread(target=self.run, name="syn holder", daemon=True).start()

    def run(self) -> None:
        """Hold SYNs until the daemon is gone."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while self._obey():
            self._receive(time.monotonic())
            self._sweep(time.monotonic())
            self._pass_verdicts()
            poll.poll(SWEEP_INTERVAL * 1000 if self._has_news() else None)
        self.syns.release_all()
        self._pass_verdicts()
        self._socket.close()
        self._channel.close()

    def _receive(self, now: float) -> None:
        """Take SYNs. Each queue counts its own: a SYN's number here says which one it is in, too."""
        syns, first, count = self.syns, self._queues.start, len(self._queues)
        for queued in self._socket.receive(BATCH):
            number = queued.number * count + queued.queue - first
            if queued.mark:
                self._original_marks[number] = queued.mark
            syns.receive(number, queued.packet, queued.hook == OUTPUT, now)
        self._tell()

    def _tell(self) -> None:
        for message, numbers in self.syns.messages():
            if not self._say(message):
                self.syns.not_handed_over(numbers)

    def _sweep(self, now: float) -> None:
        syns = self.syns
        if now >= self._next_sweep or (
            syns.is_crowded and now >= self._next_sweep - SWEEP_INTERVAL + CROWDED_SWEEP_INTERVAL
        ):
            self._next_sweep = now + SWEEP_INTERVAL
            syns.sweep(now, self._opening)
            self._tell()
            self._report()

    def _report(self) -> None:
        counters = self.syns.counters
        if counters != self._reported and self._say(encode_counters(counters)):
            self._reported = attrs.evolve(counters)

    def _has_news(self) -> bool:
        return bool(len(self.syns)) or self.syns.counters != self._reported

    def _obey(self) -> bool:
        """Take the daemon's decisions; return False when it is gone."""
        try:
            while message := self._channel.recv(MESSAGE_BYTES):
                for number, outcome in decode_decisions(message):
                    self.syns.decide(number, outcome)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _say(self, message: bytes) -> bool:
        try:
            self._channel.send(message)
        except OSError:
            return False
        return True

    def _pass_verdicts(self) -> None:
        verdicts, self.syns.verdicts = self.syns.verdicts, []
        by_queue: dict[int, list[tuple[int, int, int | None]]] = {}
        for number, outcome in verdicts:
            verdict, mark = self._verdict(number, outcome)
            in_queue, index = divmod(number, len(self._queues))
            by_queue.setdefault(self._queues[index], []).append((in_queue, verdict, mark))
        for queue, decided in by_queue.items():
            self._socket.decide_each(queue, decided)

    def _verdict(self, number: int, outcome: Outcome) -> tuple[int, int | None]:
        """Return the verdict and the new mark, if there is one."""
        mark = self._original_marks.pop(number, 0)
        if outcome == Outcome.DROP:
            return DROP, None
        if outcome not in self._marks:
            return ACCEPT, None
        bits, mask = self._marks[outcome]
        return ACCEPT, mark & ~mask | bits
