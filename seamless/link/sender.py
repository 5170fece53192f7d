"""DATA that leaves one end of a link: what waits, what may go now, what is on its way, and what goes once more.

In the way of a byte a packet is queued here, goes when pacer and congestion controller allow, sealed under a fresh
number, and is kept until the neighbor acknowledges it or it is lost, and then queued again before all others.

The rules:

* Bulk gathers into full batches, from turn to turn. What is urgent does not wait, and neither does the first bulk
  packet after a pause.
* A packet that is longer than the path carries, be it cut for another path or before this one shrank, is cut anew on
  its way out (`seamless.wire.fragment`).
* A packet is sent again `MAX_RESENDS` times at most: a path on which hellos pass and it does not must not be kept busy
  with it for ever. Then it is given back, for another path.
* What CONTROL sends is charged to the same pacer and kept in the same packet number space, but never waits here.
"""

from __future__ import annotations

from typing import Final

from seamless.crypto.sealing import SendKey
from seamless.interfaces import AckEvent, Address, CongestionController, Transmit
from seamless.link.batches import seal_batches
from seamless.link.pacing import Pacer
from seamless.link.queue import FairQueue
from seamless.link.recovery import Acknowledged, Control, Recovery
from seamless.link.redundant import FEW_PACKETS, RedundantSends
from seamless.link.status import LinkCounters
from seamless.wire.fragment import cut_packet
from seamless.wire.header import LOAD
from seamless.wire.traffic_class import TRAFFIC_CLASSES

BATCH_INTERVAL: Final = 0.002
"""Seconds from one turn of bulk packets to the next, in which they gather into full batches. Every batch and every
wake-up of a node costs as much as twenty datagrams, so on a busy machine this decides about the throughput."""
FULL_BATCH_BYTES: Final = 32 << 10
"""After a turn of less than this the next comes that much sooner: a link with little to do gathers nothing (as network
cards moderate their interrupts). TCP that crosses it as whole packets would take such delays for a queue, and stop
growing: its HyStart allows for 4 ms on a path of 30 ms."""
LOAD_INTERVAL: Final = 0.001
"""Seconds from one batch of padding to the next: short, since a batch waits for itself in a shallow buffer."""
MAX_ACK_DELAY: Final = 0.004
"""Seconds: `ACK_INTERVAL`, and a timer's lateness on a busy machine."""
QUEUE_LIMIT_BYTES: Final = 4 << 20
"""Of one session, that a link holds at most: six round trips of 10 ms at 500 Mb/s."""
MAX_RESENDS: Final = 20
"""Of one packet on one link. At 40 % loss one packet in 200 million is lost so often."""
LOSS_WEIGHT: Final = 1 / 16
"""How fast the estimate of the loss rate follows, per ACK."""


class Sender:
    """The packets that go from ``local``, each ``overhead_bytes`` longer on the wire."""

    def __init__(
        self,
        local: Address,
        overhead_bytes: int,
        controller: CongestionController,
        counters: LinkCounters,
        now: float,
    ) -> None:
        self.queue = FairQueue(QUEUE_LIMIT_BYTES)
        self.recovery = Recovery(MAX_ACK_DELAY)
        self.pacer = Pacer(controller.pacing_rate_bps(), now, controller.min_burst_bytes)
        self.redundant = RedundantSends()
        self.loss_rate = 0.0
        self.packet_bytes = 0
        """The longest overlay packet that goes out whole; set by the owner, as the path's MTU is found."""
        self.undelivered: list[bytes] = []
        """Packets that were lost too often, for the owner to take away."""
        self._local = local
        self._overhead_bytes = overhead_bytes
        self._controller = controller
        self._counters = counters
        self._bulk_waits_until = now
        self._sends_load = False
        self._ran_out = True
        """Whether there was less to send, the last time that something was sent, than rate and window allowed."""

    def set_controller(self, controller: CongestionController, now: float, *, sends_load: bool = False) -> None:
        """Send as another controller says from now on; with ``sends_load`` padding fills what packets leave."""
        self._controller = controller
        self._sends_load = sends_load
        self.pacer.forgive_debt(now)
        self.pacer.set_min_burst(controller.min_burst_bytes, now)
        self.pacer.set_rate(controller.pacing_rate_bps(), now)

    def ready_at(self) -> float | None:
        """Return when packets or padding may go; None when there are none, or only an ACK can make room for them."""
        packets_at = self._packets_ready_at()
        if not self._sends_load or self._window_left() < self._load_quantum:
            return packets_at
        load_at = self.pacer.ready_at(self._load_quantum)
        return load_at if packets_at is None else min(packets_at, load_at)

    def _packets_ready_at(self) -> float | None:
        queue = self.queue
        if not queue or self._window_left() <= 0:
            return None
        paced_at = self.pacer.ready_at(1)
        if queue.is_urgent:
            return paced_at
        ready_at = queue.ready_at()
        if ready_at is None:
            return None
        turn_at = ready_at if self._sends_load else max(ready_at, self._bulk_waits_until)
        return max(paced_at, min(queue.express_resumes_at(), turn_at))

    def packets_wait(self, now: float) -> float | None:
        """Take note that packets were queued; return when they may go, as `ready_at` does."""
        if not self.pacer.has_backlog:
            self.pacer.set_backlog(self._window_left() > 0, now)
        return self.ready_at()

    def _window_left(self) -> int:
        return self._controller.window_bytes() - self.recovery.bytes_in_flight

    # Out.

    def send(self, key: SendKey, remote: Address, transmits: list[Transmit], now: float) -> None:
        """Seal what may go now, and add it to ``transmits``."""
        window_left = self._window_left()
        allowed = min(self.pacer.budget_bytes(now), window_left)
        if allowed > 0:
            # Padding would take what bulk waits for.
            bulk_goes = self._sends_load or now >= self._bulk_waits_until
            was_limited = self._ran_out and self.pacer.is_unused(now)
            packets = self.queue.take(allowed, allowed if bulk_goes else 0, self._overhead_bytes, now)
            if packets:
                self._send_packets(key, packets, self.queue.attempts, remote, transmits, now)
                self._controller.on_sent(self.recovery.bytes_in_flight, was_limited, now)
                if bulk_goes:
                    size = sum(map(len, packets))
                    self._ran_out = size + self._overhead_bytes * len(packets) < allowed
                    self._bulk_waits_until = now + BATCH_INTERVAL * min(1.0, size / FULL_BATCH_BYTES)
        self.pacer.set_backlog(window_left > 0 and self.queue.size_bytes > 0, now)

    @property
    def _load_quantum(self) -> int:
        """Return how many bytes of padding go at a time."""
        turn_bytes = int(self._controller.pacing_rate_bps() / 8 * LOAD_INTERVAL)
        return max(self.packet_bytes + self._overhead_bytes, min(turn_bytes, FULL_BATCH_BYTES))

    def send_load(self, key: SendKey, remote: Address, transmits: list[Transmit], now: float) -> None:
        """Fill what packets have left of rate and window with padding."""
        allowed = min(self.pacer.budget_bytes(now), self._window_left())
        if not self._sends_load or allowed < self._load_quantum:
            return
        size = self.packet_bytes + self._overhead_bytes
        count = allowed // size
        number = self.recovery.next_number
        self.recovery.sent_load(number, count, size, now)
        padding = [bytes(self.packet_bytes)] * count
        transmits += seal_batches(key, number, padding, self._local, remote, LOAD)
        self._counters.load_sent += count
        self._counters.sent_bytes += count * size
        self.pacer.spend(count * size, now)
        self.pacer.set_backlog(True, now)

    def _send_packets(
        self,
        key: SendKey,
        packets: list[bytes],
        attempts: list[int],
        remote: Address,
        transmits: list[Transmit],
        now: float,
    ) -> None:
        number = self.recovery.next_number
        resends_at = self.queue.resends_at
        if max(map(len, packets)) > self.packet_bytes:
            packets, attempts = self._cut(packets, resends_at, attempts)
            resends_at = 0
        self.recovery.sent(number, packets, self._overhead_bytes, now)
        if attempts:
            self.recovery.sent_before(number + resends_at, attempts)
        transmits += seal_batches(key, number, packets, self._local, remote)
        if len(packets) <= FEW_PACKETS:
            self.redundant.sent(packets, self.recovery.bytes_in_flight, now)
        self._count(packets, now)

    def _cut(self, packets: list[bytes], resends_at: int, attempts: list[int]) -> tuple[list[bytes], list[int]]:
        """Return what says the same as ``packets`` and goes out whole, and how often each was lost before."""
        fitting: list[bytes] = []
        lost: list[int] = []
        before = [0] * resends_at + attempts
        before += [0] * (len(packets) - len(before))
        for packet, count in zip(packets, before):
            if len(packet) <= self.packet_bytes:
                parts = [packet]
            else:
                parts = cut_packet(packet, self.packet_bytes)
                self._counters.cut += bool(parts)
                self._counters.too_big += not parts
            fitting += parts
            lost += [count] * len(parts)
        return fitting, lost

    def send_redundant(self, key: SendKey, remote: Address, transmits: list[Transmit], now: float) -> None:
        """Seal the redundant sends that are due, under numbers that are not recovered."""
        packets = self.redundant.take(now)
        if not packets:
            return
        transmits += seal_batches(key, self.recovery.next_number, packets, self._local, remote)
        self.recovery.next_number += len(packets)
        self._counters.redundant += len(packets)
        self._count(packets, now)

    def _count(self, packets: list[bytes], now: float) -> None:
        size = sum(map(len, packets)) + self._overhead_bytes * len(packets)
        self._counters.data_sent += len(packets)
        self._counters.sent_bytes += size
        self.pacer.spend(size, now)

    # What became of it.

    def settle(self, result: Acknowledged, now: float) -> list[Control]:
        """Act on what was acknowledged and what is lost; return what CONTROL datagrams have lost."""
        self._tell_controller(result, now)
        total = result.acked_bytes + result.lost_bytes
        if total and not self._sends_load:
            self.loss_rate += LOSS_WEIGHT * (result.lost_bytes / total - self.loss_rate)
        lost: list[Control] = []
        if result.lost:
            self.redundant.lost(now)
            for contents, attempts in zip(result.lost, result.attempts):
                if isinstance(contents, Control):
                    lost.append(contents)
                else:
                    self._send_again(contents, attempts + 1)
        self.pacer.set_rate(self._controller.pacing_rate_bps(), now)
        return lost

    def _tell_controller(self, result: Acknowledged, now: float) -> None:
        if result.packets or result.lost_bytes or result.spurious:
            self._controller.on_ack(
                AckEvent(
                    now,
                    self.recovery.bytes_in_flight,
                    self.recovery.rtt.smoothed_rtt,
                    result.acked_bytes,
                    result.newest_sent_at,
                    result.rtt,
                    result.receive_time,
                    result.lost_bytes,
                    len(result.lost),
                    result.lost_batches,
                    result.lost_runs,
                    result.spurious,
                    bool(self.queue) or bool(result.lost),
                    result.delay_variation,
                )
            )

    def _send_again(self, packet: bytes, attempts: int) -> None:
        if not TRAFFIC_CLASSES[packet[0]].is_recovered:
            self._counters.forgotten += 1
        elif attempts > MAX_RESENDS:
            self._counters.undelivered += 1
            self.undelivered.append(packet)
        else:
            self._counters.resent += 1
            self.queue.put_resend(packet, attempts)

    def handle_timeout(self, now: float) -> None:
        """Act on the congestion controller's deadline, which has passed."""
        self._controller.handle_timeout(now)
        self.pacer.set_rate(self._controller.pacing_rate_bps(), now)

    def shrink(self) -> None:
        """Send again, cut anew, what is under way in datagrams that the path does not carry any more."""
        for packet in self.recovery.take_longer_than(self.packet_bytes + self._overhead_bytes):
            self._send_again(packet, 1)
        self.loss_rate = 0.0

    def abandon(self) -> list[bytes]:
        """Give back all that waits or is unacknowledged and may go another way."""
        packets = [
            contents
            for contents in self.recovery.take_outstanding()
            if isinstance(contents, bytes) and TRAFFIC_CLASSES[contents[0]].is_recovered
        ]
        packets += self.queue.drain()
        self._controller.on_abandoned()
        self.redundant.clear()
        return packets
