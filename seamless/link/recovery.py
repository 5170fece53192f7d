"""What was sent over a link and is not acknowledged yet, and what becomes of it: the sending half of one hop.

In the way of a byte this stands between the pacer and the wire: every ack-eliciting datagram leaves its contents
here until the neighbor acknowledges its packet number, or until it is *lost* and its contents go out again, sealed
anew under a new number. `seamless.delivery.ledger` says which those are.

The rules:

* Nothing but what is lost is ever resent, but for the probes of a probe timeout.
* Padding of a measurement is not resent when it is lost, but its loss counts as any.
* A lost probe of the path's MTU is not resent, nor remembered.
* What was under way while our own process was not served (`resumed`) gives no RTT sample, and its time does not count
  towards the probe timeout: an acknowledgement that waited in our own socket says nothing about the path. The age of
  datagrams goes on: what their neighbor did not get was lost as long ago as it seems.
"""

from __future__ import annotations

import enum
from itertools import pairwise
from math import inf
from typing import Final

import attrs

from seamless.delivery.ledger import LedgerCounters, LedgerSettings, Sent, SentLedger
from seamless.delivery.loss import PacketLossRule
from seamless.errors import RemoteProtocolError
from seamless.link.mtu import Probe
from seamless.link.path_delay import PathDelay
from seamless.wire.ack import Ack
from seamless.wire.link_frames import OwnFrame

INITIAL_RTT: Final = 0.1
"""Seconds. RFC 9002 says 333 ms for the wide internet; one hop of an overlay is shorter, and a guess that is too long
delays the first resend only."""
LOST_MEMORY_RTTS: Final = 4
LOST_MEMORY_MIN: Final = 0.1
"""Round trips, and seconds at least, for which a lost packet's number is remembered, to tell late from lost."""
LOST_MEMORY_PACKETS: Final = 4096
PROBE_PACKETS: Final = 2
"""Outstanding packets that go out again when a probe timeout has passed (RFC 9002, section 6.2.4)."""


@attrs.define
class Control:
    """What one ack-eliciting CONTROL datagram carried."""

    frames: tuple[OwnFrame, ...]
    acked_below: int
    """Largest number acknowledged by an ACK frame in the same datagram: once that is acknowledged in turn, the ranges
    up to it need no repeating (RFC 9000, section 13.2.4)."""


class Load(enum.Enum):
    """What LOAD carries."""

    PADDING = 0


Contents = bytes | Control | Probe | Load
"""What a datagram carried: an overlay packet, frames, padding that probes the MTU, or padding of a measurement."""


@attrs.define
class Acknowledged:
    """What an ACK brought."""

    packets: int = 0
    acked_bytes: int = 0
    largest_bytes: int = 0
    """Of the largest datagram with data that was acknowledged."""
    newest_sent_at: float = 0.0
    rtt: float | None = None
    """The raw RTT sample in seconds; None where the largest number acknowledged gives none."""
    receive_time: float | None = None
    """When the neighbor received that, on its own clock."""
    delay_variation: float = 0.0
    """How many seconds longer than the fastest lately that took on its way there."""
    spurious: int = 0
    """How many had been declared lost before."""
    lost: list[bytes | Control] = attrs.Factory(list)
    attempts: list[int] = attrs.Factory(list)
    """How often each of ``lost`` had been sent again."""
    lost_bytes: int = 0
    lost_batches: list[tuple[float, int]] = attrs.Factory(list)
    """When what is lost had been sent, and how many bytes of it, oldest first."""
    lost_runs: int = 0
    """How many runs of consecutive numbers that is."""
    controls: list[Control] = attrs.Factory(list)
    probes: list[Probe] = attrs.Factory(list)
    lost_probes: list[Probe] = attrs.Factory(list)
    """Probes of the MTU. Their loss is no sign of congestion (RFC 8899, section 3)."""


class Recovery:
    """The sending half of one packet number space; sizes in bytes of IP packets."""

    def __init__(self, max_ack_delay: float) -> None:
        """``max_ack_delay``: seconds the neighbor may wait before it acknowledges."""
        self.counters = LedgerCounters()
        self.next_number = 0
        self._settings = LedgerSettings(
            initial_rtt=INITIAL_RTT,
            max_ack_delay=max_ack_delay,
            probe_timeout_max=inf,
            lost_kept=LOST_MEMORY_PACKETS,
            keeps_lost_contents=False,
        )
        self.restart()

    def restart(self) -> None:
        """Forget all about the neighbor's process, which another one has replaced.

        Our numbers go on: a process that was replaced by a twin, and is back, remembers them.
        """
        self._ledger: SentLedger[Contents] = SentLedger(
            self._settings, PacketLossRule(), self.next_number, self.counters
        )
        self.rtt = self._ledger.rtt
        self._path_delay = PathDelay()

    @property
    def bytes_in_flight(self) -> int:
        """Return the bytes of all that was sent and is neither acknowledged nor lost."""
        return self._ledger.in_flight

    # Sending.

    def sent(self, first: int, packets: list[bytes], overhead_bytes: int, now: float) -> None:
        """Note that ``packets`` went out as DATA under the numbers from ``first`` on."""
        ledger = self._ledger
        self.next_number = first + len(packets)
        ledger.outstanding.update(
            zip(
                range(first, self.next_number),
                [(now, packet, len(packet) + overhead_bytes, 0) for packet in packets],
            )
        )
        ledger.in_flight += sum(map(len, packets)) + overhead_bytes * len(packets)
        ledger.counters.sent += len(packets)
        ledger.last_sent_at = now

    def sent_before(self, first: int, attempts: list[int]) -> None:
        """Note how often the packets just `sent` under the numbers from ``first`` on had been lost before."""
        outstanding = self._ledger.outstanding
        for number, count in enumerate(attempts, first):
            sent_at, contents, size, _ = outstanding[number]
            outstanding[number] = (sent_at, contents, size, count)

    def sent_control(self, number: int, control: Control | Probe, size_bytes: int, now: float) -> None:
        """Note that an ack-eliciting CONTROL datagram of ``size_bytes`` went out as ``number``."""
        self._ledger.add(number, control, size_bytes, now)
        self.next_number = number + 1

    def sent_load(self, first: int, count: int, size_bytes: int, now: float) -> None:
        """Note that ``count`` datagrams of padding went out, of ``size_bytes`` each, numbered from ``first`` on."""
        ledger = self._ledger
        self.next_number = first + count
        ledger.outstanding.update(dict.fromkeys(range(first, first + count), (now, Load.PADDING, size_bytes, 0)))
        ledger.in_flight += count * size_bytes
        ledger.counters.sent += count
        ledger.last_sent_at = now

    # Acknowledgements.

    def receive_ack(self, ack: Ack, now: float, received_at: float) -> Acknowledged:
        """Take in an ACK that the kernel has received at ``received_at``; return what it acknowledged and what is lost
        now.

        Raise `RemoteProtocolError` when it acknowledges what was never sent.
        """
        if ack.largest >= self.next_number:
            raise RemoteProtocolError("an acknowledgement of a packet number that was never sent")
        ledger = self._ledger
        result = Acknowledged()
        before_bytes = ledger.in_flight
        largest_entry = ledger.outstanding.get(ack.largest)
        numbers, entries, late = ledger.take_acked(ack)
        if entries:
            result.packets = len(entries)
            result.acked_bytes = before_bytes - ledger.in_flight
            _sort_acked(entries, result)
            # Not that of the largest, which may be a number without contents (a bare ACK), or acknowledged before.
            result.newest_sent_at = entries[numbers.index(max(numbers))][0]
            if largest_entry is not None and ledger.is_sampled(ack.largest):
                self._sample(ack, largest_entry[0], result, now, received_at)
            if ack.largest > ledger.largest_acked:
                ledger.largest_acked = ack.largest
        if late:
            result.spurious = len(late)
            ledger.take_spurious(late, now)
        ledger.forget_lost(now - max(LOST_MEMORY_MIN, LOST_MEMORY_RTTS * self.rtt.smoothed_rtt))
        self._declare_lost(ledger.detect_lost(now), result, now)
        return result

    def _sample(self, ack: Ack, sent_at: float, result: Acknowledged, now: float, received_at: float) -> None:
        sample = self._path_delay.sample(ack, sent_at, now, received_at)
        self.rtt.update_path(sample.rtt, now - sent_at - sample.rtt)
        result.rtt, result.delay_variation = sample.rtt, sample.variation
        result.receive_time = ack.received_at

    # Loss.

    def _declare_lost(self, numbers: list[int], result: Acknowledged, now: float) -> None:
        if not numbers:
            return
        ledger = self._ledger
        outstanding = ledger.outstanding
        probes = [number for number in numbers if isinstance(outstanding[number][1], Probe)]
        if probes:
            result.lost_probes += [entry[1] for entry in ledger.remove(probes) if isinstance(entry[1], Probe)]
            numbers = [number for number in numbers if number in outstanding]
        result.lost_runs += 1 + sum(later != number + 1 for number, later in pairwise(numbers)) if numbers else 0
        for sent_at, contents, size, attempts in ledger.declare_lost(numbers, now):
            if isinstance(contents, Probe):
                continue
            result.lost_bytes += size
            batches = result.lost_batches
            if batches and batches[-1][0] == sent_at:
                batches[-1] = sent_at, batches[-1][1] + size
            else:
                batches.append((sent_at, size))
            if contents is not Load.PADDING:
                result.lost.append(contents)
                result.attempts.append(attempts)

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due."""
        return self._ledger.next_timeout()

    def handle_timeout(self, now: float) -> Acknowledged:
        """Return what is lost now, by time, or to be sent again as a probe."""
        ledger = self._ledger
        result = Acknowledged()
        if ledger.loss_at is not None:
            if now >= ledger.loss_at:
                self._declare_lost(ledger.detect_lost(now), result, now)
        elif ledger.probe_timeout_passed(now):
            probes = ledger.oldest(PROBE_PACKETS)
            ledger.counters.probes += len(probes)
            self._declare_lost(probes, result, now)
            # A probe says nothing about congestion (RFC 9002, section 7.5).
            result.lost_bytes = 0
            result.lost_batches = []
        return result

    def resumed(self, now: float) -> None:
        """Take note that this process was not served until ``now``."""
        self._ledger.sample_from(self.next_number)
        self._ledger.last_sent_at = now

    def take_longer_than(self, size_bytes: int) -> list[bytes]:
        """Remove overlay packets in longer datagrams, which the path does not carry any more; return them."""
        numbers = [
            number
            for number, (_, contents, size, _) in self._ledger.outstanding.items()
            if size > size_bytes and isinstance(contents, bytes)
        ]
        self.counters.lost += len(numbers)
        return [entry[1] for entry in self._ledger.remove(numbers) if isinstance(entry[1], bytes)]

    def take_outstanding(self) -> list[Contents]:
        """Give up: empty this space and return the contents of all that was not acknowledged, oldest first."""
        return self._ledger.clear(self.next_number)


def _sort_acked(entries: list[Sent[Contents]], result: Acknowledged) -> None:
    """Enter what was acknowledged into ``result``, by what it is."""
    largest_bytes = 0
    for _, contents, size, _ in entries:
        if contents.__class__ is bytes:
            if size > largest_bytes:
                largest_bytes = size
        elif contents.__class__ is Control:
            result.controls.append(contents)
        elif isinstance(contents, Probe):
            result.probes.append(contents)
    result.largest_bytes = largest_bytes
