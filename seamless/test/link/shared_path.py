"""Links that share one path, in virtual time: real links, and the lab's model of wires between them.

Every pair of ends has traffic from end 0 to end 1, as much as the link takes. All that the ends 0 send crosses one
direction of a wire, and all that the ends 1 send the other, so queues, policers and losses are shared as they are by
flows through one router. Processes may be late: then what the kernel received waits, and a deadline is met later.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.config.model import Impairment
from seamless.crypto.noise import public_key_of
from seamless.interfaces import Transmit
from seamless.lab.agenda import Agenda
from seamless.lab.impair import ImpairedDirection
from seamless.test.link.pair import LinkEnd, packet
from seamless.wire.header import IPV4_UDP_BYTES, PACKET_ENDS
from seamless.wire.traffic_class import CLASS_BULK

MTU_BYTES = 1500
PACKET_BYTES = MTU_BYTES - IPV4_UDP_BYTES - 28
PACKETS_AT_ONCE = 16


def wire(
    rate_bps: float, rtt: float, buffer_bdps: float | None, loss: float = 0.0, **others: Any
) -> tuple[Impairment, Impairment]:
    """Return both directions of a wire of this rate and round trip time; losses are on both, the rest on the way there.

    ``buffer_bdps``: the buffer in bandwidth-delay products, None for no rate at all.
    """
    there = Impairment(
        delay=rtt / 2,
        rate_bps=int(rate_bps) if buffer_bdps is not None else None,
        queue_bytes=max(int(rate_bps * rtt / 8 * buffer_bdps), 2 * MTU_BYTES) if buffer_bdps is not None else None,
        loss=loss,
    )
    return attrs.evolve(there, **others), Impairment(delay=rtt / 2, loss=loss)


@attrs.define
class Flow:
    """One link, and what it carried."""

    ends: list[LinkEnd]
    wants: bool = True
    """Whether there is traffic."""
    limit_bps: float | None = None
    """The rate of the traffic, None for as much as the link takes."""
    offered_from: float = 0.0
    offered_bytes: int = 0
    delivered_bytes: int = 0
    """Of overlay packets that arrived."""
    wake_at: list[float | None] = attrs.Factory(lambda: [None, None])
    read_at: list[float] = attrs.Factory(lambda: [0.0, 0.0])
    """When each process reads what came last: in order, however late it is."""


class SharedPath(Agenda):
    """Some links from host 0 to host 1 over one wire; ``congestion`` has the word for each."""

    def __init__(
        self,
        congestion: list[str],
        impairments: tuple[Impairment, Impairment],
        seed: int = 1,
        *,
        lateness: float = 0.0,
        rate_bps: float | None = None,
    ) -> None:
        super().__init__(1000.0)
        self.random = random.Random(seed)
        self.directions = [ImpairedDirection(each, self.random) for each in impairments]
        self.lateness = lateness
        self.on_sample: Callable[[], None] | None = None
        self._packets = [packet(0, PACKET_BYTES)] * PACKETS_AT_ONCE
        self._ends_of = self._packets[0][PACKET_ENDS]
        self.flows = []
        for word in congestion:
            private = [self.random.randbytes(32) for _ in range(2)]
            keys = [(each, public_key_of(X25519PrivateKey.from_private_bytes(each))) for each in private]
            flow = Flow(
                [LinkEnd(which, keys[which], keys[1 - which][1], self.random, lambda: self.now) for which in range(2)],
                False,
            )
            for end in flow.ends:
                end.start(self.now, congestion=word, rate_bps=rate_bps, mtu_bytes=MTU_BYTES)  # type: ignore[arg-type]
            self.flows.append(flow)
            for which in range(2):
                self._after(flow, which)
        self.run(self.now + 5.0, lambda: all(end.link.mtu_is_found for flow in self.flows for end in flow.ends))

    # Traffic.

    def begin(self, flow: Flow, limit_bps: float | None = None) -> None:
        """Begin the traffic of a link: as much as it takes, or of a rate."""
        flow.wants, flow.limit_bps = True, limit_bps
        flow.offered_from, flow.offered_bytes = self.now, 0
        if limit_bps is None:
            self._after(flow, 0)
        else:
            self._offer(flow)

    def end(self, flow: Flow) -> None:
        """End the traffic of a link; what waits still goes."""
        flow.wants = False

    def _offer(self, flow: Flow) -> None:
        if not flow.wants or flow.limit_bps is None:
            return
        due = flow.limit_bps / 8 * (self.now - flow.offered_from)
        while flow.offered_bytes < due:
            flow.ends[0].link.enqueue(self._packets[:1], CLASS_BULK, self._ends_of, self.now)
            flow.offered_bytes += PACKET_BYTES
        self._after(flow, 0)
        self.at(self.now + 0.002, self._offer, flow)

    def _fill(self, flow: Flow) -> None:
        link = flow.ends[0].link
        if flow.wants and flow.limit_bps is None:
            while link.room_bytes(self._ends_of, CLASS_BULK) > 0:
                link.enqueue(self._packets, CLASS_BULK, self._ends_of, self.now)

    # Time.

    def _after(self, flow: Flow, which: int) -> None:
        link = flow.ends[which].link
        if which == 0 and flow.wants and link.is_up:
            self._fill(flow)
        for transmit in link.datagrams_to_send(self.now):
            self._transmit(flow, which, transmit)
        at = link.next_timeout()
        planned = flow.wake_at[which]
        if planned is None or at < planned or planned <= self.now:
            at = max(at, self.now)
            flow.wake_at[which] = at
            self.at(at + self._late(), self._wake, flow, which, at)

    def _late(self) -> float:
        """Return by how much a process is late: exponential, as a busy machine's scheduler makes it."""
        return min(self.random.expovariate(1 / self.lateness), 10 * self.lateness) if self.lateness else 0.0

    def _wake(self, flow: Flow, which: int, at: float) -> None:
        if flow.wake_at[which] == at:
            flow.wake_at[which] = None
            flow.ends[which].link.handle_timeout(self.now)
            self._after(flow, which)

    def _transmit(self, flow: Flow, which: int, transmit: Transmit) -> None:
        data = b"".join(transmit.buffers)
        size = transmit.segment_size
        for piece in self.directions[which].offer(self.now, IPV4_UDP_BYTES, len(data), size):
            part = data[piece.first * size : (piece.first + piece.packets) * size]
            self.at(piece.at, self._receive, flow, 1 - which, part, size)

    def _receive(self, flow: Flow, which: int, data: bytes, size: int) -> None:
        flow.read_at[which] = max(flow.read_at[which], self.now + self._late())
        self.at(flow.read_at[which], self._arrive, flow, which, data, size, self.now)

    def _arrive(self, flow: Flow, which: int, data: bytes, size: int, received_at: float) -> None:
        end = flow.ends[which]
        end.receive(data, size, received_at, self.now)
        if end.packets:
            flow.delivered_bytes += sum(map(len, end.packets))
            end.packets.clear()
        self._after(flow, which)


@attrs.define
class Measured:
    """What one flow did in an interval of time."""

    rate_bps: float
    """Of IP packets that arrived for the first time, headers included."""
    sent_ratio: float
    """Bytes sent for each that was delivered."""
    lost: int
    queue_dropped: int
    spurious: int
    sent: int


def measure(path: SharedPath, seconds: float) -> list[Measured]:
    """Let time pass, and return what each flow did in it."""
    flows = path.flows
    counters = path.directions[0].counters

    def snapshot() -> list[tuple[int, int, int, int, int]]:
        result = []
        for flow in flows:
            status = flow.ends[0].status
            result.append((flow.delivered_bytes, status.sent_bytes, status.lost, status.spurious, status.sent))
        return result

    before, dropped = snapshot(), counters.queue_dropped + counters.policed
    path.run(path.now + seconds)
    dropped = counters.queue_dropped + counters.policed - dropped
    measured = []
    for (delivered, sent_bytes, lost, spurious, sent), now in zip(before, snapshot()):
        payload = (now[0] - delivered) * MTU_BYTES / PACKET_BYTES
        measured.append(
            Measured(
                payload * 8 / seconds,
                (now[1] - sent_bytes) / payload if payload else 0.0,
                now[2] - lost,
                dropped,
                now[3] - spurious,
                now[4] - sent,
            )
        )
    return measured


def queue_samples(path: SharedPath, seconds: float, interval: float = 0.002) -> list[float]:
    """Let time pass; return the seconds that a datagram would have waited in the buffer, sampled evenly and sorted."""
    samples: deque[float] = deque()
    until = path.now + seconds

    def take() -> None:
        direction = path.directions[0]
        rate_bps = direction.impairment.rate_bps
        samples.append(direction.queued_bytes(path.now) * 8 / rate_bps if rate_bps else 0.0)
        if path.now + interval < until:
            path.at(path.now + interval, take)

    take()
    path.run(until)
    return sorted(samples)
