"""What was sent over a link and is not acknowledged yet: loss detection by RFC 9002, for one hop.

In the way of a byte this stands between the pacer and the wire: every ack-eliciting datagram leaves its contents
here until the neighbor acknowledges its packet number, or until it is *lost* and its contents go out again, sealed
anew under a new number. The names are those of RFC 9002.

The rules:

* A packet is lost when one sent ``reordering_packets`` later, or `TIME_THRESHOLD` round trips later, was
  acknowledged (RFC 9002, section 6.1). Nothing else is ever resent, but for the probes of a PTO.
* A packet that was only late is a *wasted* resend. Each one teaches: the packet threshold grows to the distance seen
  (RFC 9002, section 6.2 allows it), so that a path that reorders soon wastes nothing, and falls back when the path
  has behaved for a while.
* What was under way while our own process was not served (`resumed`) gives no RTT sample, and its time does not count
  towards a PTO: an acknowledgement that waited in our own socket says nothing about the path.
* An ACK costs time in proportion to what it acknowledges anew and to its own bytes (`AckReader`), not to the packets
  that its ranges repeat, nor to those that are outstanding or remembered as lost. Numbers are sent, and lost, in order:
  so what is lost is always the beginning of `_outstanding`.
"""

from __future__ import annotations

from typing import Final

import attrs

from seamless.errors import RemoteProtocolError
from seamless.link.mtu import Probe
from seamless.wire.ack import Ack, AckReader
from seamless.wire.link_frames import OwnFrame

# RFC 9002, section 6.1 and appendix A.2.
PACKET_THRESHOLD: Final = 3
TIME_THRESHOLD: Final = 9 / 8
GRANULARITY: Final = 0.001
INITIAL_RTT: Final = 0.1
"""Seconds. RFC 9002 says 333 ms for the wide internet; one hop of an overlay is shorter, and a guess that is too long
delays the first resend only."""

# Our own choices.
REORDERING_PACKETS_MAX: Final = 2048
"""Beyond this distance only the time threshold counts."""
REORDERING_MEMORY: Final = 10.0
"""Seconds without a wasted resend after which the packet threshold is halved."""
LOST_MEMORY_RTTS: Final = 4
LOST_MEMORY_MIN: Final = 0.1
"""Round trips, and seconds at least, for which a lost packet's number is remembered, to tell late from lost: every ACK
is looked through for them."""
LOST_MEMORY_PACKETS: Final = 4096
PROBE_PACKETS: Final = 2
PTO_BACKOFF_MAX: Final = 6
"""Doublings of the PTO: a link's hellos decide about its life, this only bounds the probes."""


@attrs.define
class Control:
    """What one ack-eliciting CONTROL datagram carried."""

    frames: tuple[OwnFrame, ...]
    acked_below: int
    """Largest number acknowledged by an ACK frame in the same datagram: once that is acknowledged in turn, the ranges
    up to it need no repeating (RFC 9000, section 13.2.4)."""


Contents = bytes | Control | Probe
"""What a datagram carried: an overlay packet, frames, or padding that probes the MTU."""


@attrs.define
class Acknowledged:
    """What an ACK brought."""

    packets: int = 0
    acked_bytes: int = 0
    largest_bytes: int = 0
    """Of the largest datagram with data that was acknowledged."""
    newest_sent_at: float = 0.0
    lost: list[bytes | Control] = attrs.Factory(list)
    attempts: list[int] = attrs.Factory(list)
    """How often each of ``lost`` had been sent again."""
    lost_bytes: int = 0
    newest_lost_sent_at: float = 0.0
    controls: list[Control] = attrs.Factory(list)
    probes: list[Probe] = attrs.Factory(list)
    lost_probes: list[Probe] = attrs.Factory(list)
    """Probes of the MTU. Their loss is no sign of congestion (RFC 8899, section 3)."""


@attrs.define
class RecoveryCounters:
    """What happened so far, in datagrams."""

    sent: int = 0
    acked: int = 0
    lost: int = 0
    probes: int = 0
    wasted: int = 0


class RoundTrip:
    """RTT estimates (RFC 9002, section 5)."""

    __slots__ = ("latest", "minimum", "smoothed", "variation", "has_sample")

    def __init__(self) -> None:
        self.latest = INITIAL_RTT
        self.minimum = INITIAL_RTT
        self.smoothed = INITIAL_RTT
        self.variation = INITIAL_RTT / 2
        self.has_sample = False

    def restart_minimum(self) -> None:
        """Begin a new period over which `minimum` is taken (RFC 9002, section 5.2 allows it)."""
        self.minimum = self.smoothed

    def update(self, latest: float, ack_delay: float) -> None:
        """Take in one sample; ``ack_delay`` is what the peer says it waited."""
        self.latest = latest
        if not self.has_sample:
            self.has_sample = True
            self.minimum = self.smoothed = latest
            self.variation = latest / 2
            return
        self.minimum = min(self.minimum, latest)
        adjusted = latest - ack_delay if latest - ack_delay >= self.minimum else latest
        self.variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - adjusted)
        self.smoothed = 0.875 * self.smoothed + 0.125 * adjusted


class Recovery:
    """The sending half of one packet number space."""

    def __init__(self, max_ack_delay: float) -> None:
        """``max_ack_delay``: seconds the neighbor may wait before it acknowledges."""
        self.counters = RecoveryCounters()
        self.next_number = 0
        self._max_ack_delay = max_ack_delay
        self.restart()

    def restart(self) -> None:
        """Forget all about the neighbor's process, which another one has replaced.

        Our numbers go on: a process that was replaced by a twin, and is back, remembers them.
        """
        self.rtt = RoundTrip()
        self.bytes_in_flight = 0
        self.largest_acked = -1
        self._outstanding: dict[int, tuple[float, Contents, int, int]] = {}
        self._lost_at: dict[int, float] = {}
        self._reader = AckReader(self.next_number)
        self._reordering_packets = PACKET_THRESHOLD
        self._reordering_seen_at = 0.0
        self._last_sent_at = 0.0
        self._samples_from = self.next_number
        self._loss_at: float | None = None
        self._pto_count = 0

    # Sending.

    def sent(self, first: int, packets: list[bytes], overhead_bytes: int, now: float) -> None:
        """Note that ``packets`` went out as DATA under the numbers from ``first`` on."""
        outstanding = self._outstanding
        total = overhead_bytes * len(packets)
        number = first
        for packet in packets:
            size = len(packet)
            outstanding[number] = (now, packet, size + overhead_bytes, 0)
            total += size
            number += 1
        self.next_number = number
        self.bytes_in_flight += total
        self.counters.sent += len(packets)
        self._last_sent_at = now

    def sent_before(self, first: int, attempts: list[int]) -> None:
        """Note how often the packets just `sent` under the numbers from ``first`` on had been lost before."""
        for number, count in enumerate(attempts, first):
            sent_at, contents, size, _ = self._outstanding[number]
            self._outstanding[number] = (sent_at, contents, size, count)

    def sent_control(self, number: int, control: Control | Probe, size_bytes: int, now: float) -> None:
        """Note that an ack-eliciting CONTROL datagram of ``size_bytes`` went out as ``number``."""
        self._outstanding[number] = (now, control, size_bytes, 0)
        self.next_number = number + 1
        self.bytes_in_flight += size_bytes
        self.counters.sent += 1
        self._last_sent_at = now

    # Acknowledgements.

    def on_ack(self, ack: Ack, now: float) -> Acknowledged:
        """Take in an ACK; return what it acknowledged and what is lost now.

        Raise `RemoteProtocolError` when it acknowledges what was never sent.
        """
        if ack.largest >= self.next_number:
            raise RemoteProtocolError("an acknowledgement of a packet number that was never sent")
        result = Acknowledged()
        late = self._take_acked(ack, result, now)
        if self._lost_at:
            self._count_wasted(late, now)
        self._detect_lost(result, now)
        return result

    def _take_acked(self, ack: Ack, result: Acknowledged, now: float) -> list[int]:
        """Take in what is acknowledged; return the numbers that were taken for lost and have arrived after all."""
        outstanding = self._outstanding
        lost_at = self._lost_at
        pop = outstanding.pop
        largest_entry = outstanding.get(ack.largest)
        packets = acked_bytes = largest_bytes = 0
        late: list[int] = []
        for number in self._reader.take(ack, outstanding, lost_at):
            entry = pop(number, None)
            if entry is not None:
                _, contents, size, _ = entry
                packets += 1
                acked_bytes += size
                if contents.__class__ is bytes:
                    if size > largest_bytes:
                        largest_bytes = size
                elif contents.__class__ is Control:
                    result.controls.append(contents)
                elif isinstance(contents, Probe):
                    result.probes.append(contents)
            elif number in lost_at:
                late.append(number)
        result.largest_bytes = largest_bytes
        if packets:
            self._settle(ack, largest_entry, packets, acked_bytes, result, now)
        return late

    def _settle(
        self,
        ack: Ack,
        largest_entry: tuple[float, Contents, int, int] | None,
        packets: int,
        acked_bytes: int,
        result: Acknowledged,
        now: float,
    ) -> None:
        """Account for packets that were acknowledged."""
        result.packets = packets
        result.acked_bytes = acked_bytes
        self.bytes_in_flight -= acked_bytes
        self.counters.acked += packets
        self._pto_count = 0
        if largest_entry is not None:
            result.newest_sent_at = largest_entry[0]
        if largest_entry is not None and ack.largest >= self._samples_from:
            self.rtt.update(now - largest_entry[0], min(ack.delay, self._max_ack_delay))
        if ack.largest > self.largest_acked:
            self.largest_acked = ack.largest

    def _count_wasted(self, late: list[int], now: float) -> None:
        """Count packets that were taken for lost and have arrived after all."""
        lost_at = self._lost_at
        for number in late:
            del lost_at[number]
            self.counters.wasted += 1
            distance = min(self.largest_acked - number + 1, REORDERING_PACKETS_MAX)
            self._reordering_packets = max(self._reordering_packets, distance)
            self._reordering_seen_at = now
        self._forget_lost(now)

    def _forget_lost(self, now: float) -> None:
        lost_at = self._lost_at
        memory = max(LOST_MEMORY_MIN, LOST_MEMORY_RTTS * self.rtt.smoothed)
        stale: list[int] = []
        for number, at in lost_at.items():
            if now - at < memory and len(lost_at) - len(stale) <= LOST_MEMORY_PACKETS:
                break
            stale.append(number)
        for number in stale:
            del lost_at[number]
        if stale:
            self._reader.forget_to(stale[-1])
        if now - self._reordering_seen_at > REORDERING_MEMORY and self._reordering_packets > PACKET_THRESHOLD:
            self._reordering_packets = max(PACKET_THRESHOLD, self._reordering_packets // 2)
            self._reordering_seen_at = now

    # Loss.

    def _loss_delay(self) -> float:
        rtt = self.rtt
        return max(TIME_THRESHOLD * max(rtt.smoothed, rtt.latest), GRANULARITY)

    def _detect_lost(self, result: Acknowledged, now: float) -> None:
        self._loss_at = None
        largest = self.largest_acked
        threshold = largest - self._reordering_packets
        delay = self._loss_delay()
        lost: list[int] = []
        for number, entry in self._outstanding.items():
            if number > largest:
                break
            if number > threshold and entry[0] + delay > now:
                self._loss_at = entry[0] + delay
                break
            lost.append(number)
        if lost:
            self._declare_lost(lost, result, now)

    def _declare_lost(self, lost: list[int], result: Acknowledged, now: float) -> None:
        for number in lost:
            sent_at, contents, size, attempts = self._outstanding.pop(number)
            self.bytes_in_flight -= size
            if isinstance(contents, Probe):
                result.lost_probes.append(contents)
                continue
            self._lost_at[number] = now
            result.lost.append(contents)
            result.attempts.append(attempts)
            result.lost_bytes += size
            result.newest_lost_sent_at = sent_at
        self.counters.lost += len(lost) - len(result.lost_probes)

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `on_timeout` is due."""
        if self._loss_at is not None:
            return self._loss_at
        if not self._outstanding:
            return None
        return self._last_sent_at + self.pto_interval()

    def pto_interval(self) -> float:
        """Return the probe timeout (RFC 9002, section 6.2.1) with its backoff, in seconds."""
        rtt = self.rtt
        interval = rtt.smoothed + max(4 * rtt.variation, GRANULARITY) + self._max_ack_delay
        return float(interval * (1 << min(self._pto_count, PTO_BACKOFF_MAX)))

    def on_timeout(self, now: float) -> Acknowledged:
        """Return what is lost now, by the time threshold, or to be sent again as a probe."""
        result = Acknowledged()
        if self._loss_at is not None:
            if now >= self._loss_at:
                self._detect_lost(result, now)
        elif self._outstanding and now >= self._last_sent_at + self.pto_interval():
            self._pto_count += 1
            probes = [number for number, _ in zip(self._outstanding, range(PROBE_PACKETS))]
            self.counters.probes += len(probes)
            self._declare_lost(probes, result, now)
            # A probe says nothing about congestion (RFC 9002, section 7.5).
            result.lost_bytes = 0
        return result

    def resumed(self, now: float) -> None:
        """Take note that this process was not served until ``now``."""
        self._samples_from = self.next_number
        self._last_sent_at = now

    def take_longer_than(self, size_bytes: int) -> list[bytes]:
        """Remove overlay packets in longer datagrams, which the path does not carry any more; return them."""
        numbers = [
            number
            for number, (_, contents, size, _) in self._outstanding.items()
            if size > size_bytes and isinstance(contents, bytes)
        ]
        packets = []
        for number in numbers:
            _, contents, size, _ = self._outstanding.pop(number)
            self.bytes_in_flight -= size
            self.counters.lost += 1
            if isinstance(contents, bytes):
                packets.append(contents)
        return packets

    def take_outstanding(self) -> list[Contents]:
        """Give up: empty this space and return the contents of all that was not acknowledged, oldest first."""
        contents = [entry[1] for entry in self._outstanding.values()]
        self._outstanding.clear()
        self._lost_at.clear()
        self._reader = AckReader(self.next_number)
        self._loss_at = None
        self.bytes_in_flight = 0
        return contents
