"""A pure model of an impaired wire, which the emulator on the kernel and the simulated lab share.

One `ImpairedDirection` is one direction of one wire. It is offered *units* (a datagram, or a super-packet of many
wire packets) and answers with *pieces*: runs of consecutive wire packets of that unit, each with the time at which it
arrives. What is missing from the answer did not survive. In the way of a packet the order is that of a real path:

    outage, black hole, policer, drop-tail queue, serialisation at the rate, then the medium: loss, duplication,
    corruption, reordering, the delay, and last aggregation.

A lost packet has therefore taken its share of the rate, and one that the policer or the queue drops has not. Time and
randomness are arguments. Nothing is drawn per packet: each random process keeps the distance to its next event, so that
a super-packet that nothing happens to costs a few comparisons.
"""

from __future__ import annotations

from math import ceil, inf, log, log1p
from typing import NamedTuple, Protocol

import attrs

from seamless.config.model import Impairment

CORRUPTION_BYTES = 4
"""A corruption changes two 16-bit words of the payload such that the Internet checksum stays true (see `corrupted`)."""


class Randomness(Protocol):
    """The one thing needed of ``random.Random``; seeded by the caller."""

    def random(self) -> float:
        """Return a float in [0, 1)."""
        ...


class Piece(NamedTuple):
    """Wire packets ``first .. first + packets - 1`` of a unit, arriving together ``at`` this time."""

    at: float
    first: int
    packets: int
    corrupt: bool = False


@attrs.define
class Counters:
    """What one direction did, in wire packets and bytes of IP.

    ``packets_in + duplicated == packets_out + outage + black_holed + policed + queue_dropped + lost`` at every moment.
    """

    units_in: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    outage: int = 0
    black_holed: int = 0
    policed: int = 0
    queue_dropped: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    queue_bytes_highest: int = 0


class _Runs:
    """Alternating runs of packets that are spared and packets that are hit: a Gilbert-Elliott chain, drop in bad state.

    Both kinds of run are geometric. Independent hits are the chain whose runs of hits are as long as chance makes
    them, 1 / (1 - probability); that is also the shortest mean run which such a probability allows.
    """

    def __init__(self, probability: float, mean_run: float, randomness: Randomness) -> None:
        self._randomness = randomness
        self._leave_hit = 0.0 if probability >= 1 else 1 / max(mean_run, 1 / (1 - probability))
        self._leave_spared = 1.0 if probability >= 1 else probability * self._leave_hit / (1 - probability)
        self._hitting = self._randomness.random() < probability
        self._left = self._length()

    def _length(self) -> float:
        """Draw the length of a run of the present kind: geometric, at least 1."""
        leave = self._leave_hit if self._hitting else self._leave_spared
        if leave <= 0:
            return inf
        if leave >= 1:
            return 1
        return 1 + log(1 - self._randomness.random()) // log1p(-leave)

    def hits(self, count: int) -> list[range]:
        """Return the runs of hit packets among the next ``count``, as ranges of indices."""
        if not self._hitting and self._left >= count:
            self._left -= count
            return []
        runs = []
        index = 0
        while index < count:
            if self._left == 0:
                self._hitting = not self._hitting
                self._left = self._length()
            step = int(min(self._left, count - index))
            if self._hitting:
                runs.append(range(index, index + step))
            self._left -= step
            index += step
        return runs


class ImpairedDirection:
    """One direction of a wire."""

    def __init__(self, impairment: Impairment, randomness: Randomness) -> None:
        self.counters = Counters()
        self._randomness = randomness
        self._idle_at = 0.0
        self._policer_bytes = float(impairment.police_bytes)
        self._policed_at = 0.0
        self._draw(impairment)

    def _draw(self, impairment: Impairment) -> None:
        self.impairment = impairment
        self._losses = _Runs(impairment.loss, impairment.burst_packets, self._randomness)
        self._duplicates = _Runs(impairment.duplicate, 1, self._randomness)
        self._corruptions = _Runs(impairment.corrupt, 1, self._randomness)
        self._reorderings = _Runs(impairment.reorder, 1, self._randomness)

    def change(self, impairment: Impairment, now: float) -> None:
        """Change the impairments. Queued packets stay queued, and leave at the new rate."""
        queued_bytes = self.queued_bytes(now)
        rate_bps = impairment.rate_bps
        self._idle_at = now + queued_bytes * 8 / rate_bps if rate_bps else now
        self._draw(impairment)

    def queued_bytes(self, now: float) -> float:
        """Return how many bytes wait to be serialised."""
        rate_bps = self.impairment.rate_bps
        return max(0.0, self._idle_at - now) * rate_bps / 8 if rate_bps else 0.0

    def offer(self, now: float, header_bytes: int, payload_bytes: int, segment_bytes: int) -> list[Piece]:
        """Send a unit of ``payload_bytes`` that is cut every ``segment_bytes``, each part under its own IP headers.

        Returns the surviving pieces in no order; their times are never before ``now``.
        """
        count = -(-payload_bytes // segment_bytes) if payload_bytes > segment_bytes else 1
        total_bytes = payload_bytes + count * header_bytes
        counters = self.counters
        counters.units_in += 1
        counters.packets_in += count
        counters.bytes_in += total_bytes
        impairment = self.impairment
        if impairment.down:
            counters.outage += count
            return []
        packet_bytes = header_bytes + (segment_bytes if count > 1 else payload_bytes)
        last_bytes = total_bytes - (count - 1) * packet_bytes
        unit = _Unit(0, count, packet_bytes, last_bytes, header_bytes)
        if impairment.black_hole_bytes is not None and packet_bytes > impairment.black_hole_bytes:
            unit = self._into_black_hole(unit, impairment.black_hole_bytes)
        if impairment.police_bps and unit.count:
            unit = self._police(unit, now)
        if impairment.rate_bps and unit.count:
            unit = self._enqueue(unit, now)
        return self._cross(unit, now) if unit.count else []

    def _into_black_hole(self, unit: _Unit, limit_bytes: int) -> _Unit:
        """Keep the last packet if it is short enough; all others are too long."""
        kept = 1 if unit.last_bytes <= limit_bytes else 0
        self.counters.black_holed += unit.count - kept
        return attrs.evolve(unit, first=unit.count - kept, count=kept)

    def _police(self, unit: _Unit, now: float) -> _Unit:
        """Let pass what the token bucket has for, by whole wire packets; the tail of the unit is dropped."""
        impairment = self.impairment
        assert impairment.police_bps
        refilled = self._policer_bytes + (now - self._policed_at) * impairment.police_bps / 8
        self._policer_bytes, self._policed_at = min(refilled, float(impairment.police_bytes)), now
        count = unit.count
        if unit.size_bytes(count) > self._policer_bytes:
            count = min(count - 1, int(self._policer_bytes // unit.packet_bytes))
            self.counters.policed += unit.count - count
        admitted = unit if count == unit.count else attrs.evolve(unit, count=count, last_bytes=unit.packet_bytes)
        self._policer_bytes -= admitted.size_bytes(count)
        return admitted

    def _enqueue(self, unit: _Unit, now: float) -> _Unit:
        """Queue what fits, by whole wire packets; the tail of the unit that does not fit is dropped."""
        impairment = self.impairment
        assert impairment.rate_bps
        count = unit.count
        queued_bytes = self.queued_bytes(now)
        if impairment.queue_bytes is not None:
            room_bytes = impairment.queue_bytes - queued_bytes
            if unit.size_bytes(count) > room_bytes:
                count = max(0, min(count - 1, int(room_bytes // unit.packet_bytes)))
                if not queued_bytes and not count:
                    count = 1  # An idle wire carries any packet, however small its queue.
                self.counters.queue_dropped += unit.count - count
        admitted = unit if count == unit.count else attrs.evolve(unit, count=count, last_bytes=unit.packet_bytes)
        queued_bytes += admitted.size_bytes(count)
        self.counters.queue_bytes_highest = max(self.counters.queue_bytes_highest, int(queued_bytes))
        self._idle_at = max(self._idle_at, now) + admitted.size_bytes(count) * 8 / impairment.rate_bps
        return admitted

    def _cross(self, unit: _Unit, now: float) -> list[Piece]:
        """Cross the medium: apply losses and the rest, and say when what is left arrives."""
        count = unit.count
        lost = self._losses.hits(count)
        duplicated = self._duplicates.hits(count)
        corrupted = self._corruptions.hits(count)
        reordered = self._reorderings.hits(count)
        impairment = self.impairment
        arrival = max(now, self._idle_at) + impairment.delay
        counters = self.counters
        if not (lost or duplicated or corrupted or reordered):
            counters.packets_out += count
            counters.bytes_out += unit.size_bytes(count)
            return [Piece(self._released(arrival), unit.first, count)]
        fates = _Fates(count)
        fates.mark(lost, _LOST)
        fates.mark(duplicated, _DUPLICATED)
        fates.mark(reordered, _REORDERED)
        fates.mark([range(i, i + 1) for run in corrupted for i in run if unit.can_corrupt(i)], _CORRUPTED)
        return [piece for run in fates.runs() for piece in self._pieces_of(unit, *run, arrival)]

    def _pieces_of(self, unit: _Unit, index: int, run: int, fate: int, arrival: float) -> list[Piece]:
        """Return the pieces of ``run`` packets from ``index`` on, which share one fate."""
        counters = self.counters
        if fate & _LOST:
            counters.lost += run
            return []
        impairment = self.impairment
        if impairment.rate_bps:
            arrival -= unit.size_bytes_after(index + run) * 8 / impairment.rate_bps
        if fate & _REORDERED:
            counters.reordered += run
            arrival += impairment.reorder_delay
        if fate & _CORRUPTED:
            counters.corrupted += run
        copies = 2 if fate & _DUPLICATED else 1
        counters.duplicated += run * (copies - 1)
        counters.packets_out += run * copies
        counters.bytes_out += (unit.size_bytes_after(index) - unit.size_bytes_after(index + run)) * copies
        return [Piece(self._released(arrival), unit.first + index, run, bool(fate & _CORRUPTED))] * copies

    def _released(self, arrival: float) -> float:
        interval = self.impairment.aggregate
        return ceil(arrival / interval) * interval if interval else arrival


_LOST = 1
_DUPLICATED = 2
_REORDERED = 4
_CORRUPTED = 8


@attrs.frozen
class _Unit:
    """Wire packets ``first .. first + count - 1`` of what was offered; all but the last are ``packet_bytes`` long."""

    first: int
    count: int
    packet_bytes: int
    last_bytes: int
    header_bytes: int

    def size_bytes(self, count: int) -> int:
        return (count - 1) * self.packet_bytes + self.last_bytes if count else 0

    def size_bytes_after(self, index: int) -> int:
        """Return the bytes of the packets from ``index`` on, which are those serialised after it."""
        return self.size_bytes(self.count - index)

    def can_corrupt(self, index: int) -> bool:
        size = self.last_bytes if index == self.count - 1 else self.packet_bytes
        return size - self.header_bytes >= CORRUPTION_BYTES


class _Fates:
    """What befalls each packet of a unit, as bits."""

    def __init__(self, count: int) -> None:
        self._bits = bytearray(count)

    def mark(self, runs: list[range], bit: int) -> None:
        for run in runs:
            for index in run:
                self._bits[index] |= bit

    def runs(self) -> list[tuple[int, int, int]]:
        """Return (index, length, bits) of packets side by side that share a fate; only spared or lost ones join."""
        runs = []
        bits = self._bits
        start = 0
        for index in range(1, len(bits) + 1):
            if index == len(bits) or bits[index] != bits[start] or bits[start] & ~_LOST:
                runs.append((start, index - start, bits[start]))
                start = index
        return runs


def corrupted(payload: bytes, position: float) -> bytes:
    """Return ``payload`` with two neighboring 16-bit words changed so that its Internet checksum is what it was.

    One word gains one and the other loses one, in the ones' complement arithmetic of RFC 1071. The receiver's kernel
    accepts such a packet, so a corruption is not just another loss. ``position`` in [0, 1) says where, ``payload``
    begins at an even offset of what the checksum covers and holds at least ``CORRUPTION_BYTES``.
    """
    index = int(position * ((len(payload) - CORRUPTION_BYTES) // 2 + 1)) * 2
    one = int.from_bytes(payload[index : index + 2], "big") + 1
    other = int.from_bytes(payload[index + 2 : index + 4], "big") + 0xFFFE
    words = b"".join(((word & 0xFFFF) + (word >> 16)).to_bytes(2, "big") for word in (one, other))
    return payload[:index] + words + payload[index + CORRUPTION_BYTES :]
