"""What was sent under packet numbers and is not acknowledged yet: loss detection by RFC 9002, for link and session.

The owner says what a number stands for (a link: one datagram; a session: one record of one class) and what happens to
contents that were acknowledged or lost; the ledger says which those are, and when to look again. What differs between
owners is a `LossRule`, the bounds of `LedgerSettings`, and the unit of ``size``.

The rules:

* Numbers are sent in ascending order. A number is lost by the `LossRule` once a later one was acknowledged, or when its
  owner declares it lost; nothing else is.
* Nothing acknowledged for a probe timeout: the owner sends a probe, and the timeout doubles.
* The numbers of what was lost are remembered for a while: if they are acknowledged after all, the loss was *spurious*,
  is counted, and the `LossRule` learns of it.
* An ACK costs time in proportion to what it acknowledges anew and to its own bytes (`AckReader`), not to the packets
  that its ranges repeat, nor to those that are outstanding or remembered as lost.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, Generic, TypeAlias, TypeVar

import attrs

from seamless.delivery.loss import LossRule
from seamless.delivery.rtt import RttEstimator
from seamless.wire.ack import Ack, AckReader

PTO_BACKOFF_MAX: Final = 6
"""Doublings of the probe timeout: hellos and ``give up`` decide about life, this only bounds the probes."""

Contents = TypeVar("Contents")

Sent: TypeAlias = tuple[float, Contents, int, int]
"""(time sent, contents, size, how often the contents were lost before). A plain tuple: one is made per datagram."""


@attrs.frozen
class LedgerSettings:
    """What differs between the owners of ledgers; times in seconds."""

    initial_rtt: float
    max_ack_delay: float
    """How long the receiver may keep an acknowledgement back (RFC 9000, section 18.2)."""
    probe_timeout_max: float
    lost_kept: int
    """How many losses are remembered, in case they were spurious."""
    keeps_lost_contents: bool
    """Whether their contents are remembered too."""


@attrs.define
class LedgerCounters:
    """What happened so far, in packet numbers."""

    sent: int = 0
    acked: int = 0
    lost: int = 0
    probes: int = 0
    """Sent because nothing was acknowledged for a probe timeout."""
    spurious: int = 0
    """Declared lost, and acknowledged after all."""


class SentLedger(Generic[Contents]):
    """All that is outstanding of one packet number space, or of one class in it."""

    __slots__ = (
        "counters",
        "rtt",
        "rule",
        "settings",
        "outstanding",
        "in_flight",
        "largest_acked",
        "last_sent_at",
        "loss_at",
        "pto_count",
        "_lost",
        "_reader",
        "_samples_from",
    )

    def __init__(
        self, settings: LedgerSettings, rule: LossRule, first_number: int, counters: LedgerCounters | None = None
    ) -> None:
        """``counters``: those of the ledger that this one follows."""
        self.counters = counters or LedgerCounters()
        self.settings = settings
        self.rtt = RttEstimator(settings.initial_rtt)
        self.rule = rule
        self.outstanding: dict[int, Sent[Contents]] = {}
        self.in_flight = 0
        """The sum of the sizes of all that is outstanding."""
        self.largest_acked = -1
        self.last_sent_at = 0.0
        self.loss_at: float | None = None
        """When the oldest outstanding packet will count as lost, if a later one was acknowledged."""
        self.pto_count = 0
        self._lost: dict[int, tuple[float, float, Contents | None]] = {}
        self._reader = AckReader(first_number)
        self._samples_from = first_number

    # Sending.

    def add(self, number: int, contents: Contents, size: int, now: float) -> None:
        """Enter what was sent as ``number``."""
        self.outstanding[number] = (now, contents, size, 0)
        self.in_flight += size
        self.counters.sent += 1
        self.last_sent_at = now

    def sent_again(self, number: int, now: float) -> None:
        """Take note that the same datagram or record went out once more, if it is outstanding."""
        entry = self.outstanding.get(number)
        if entry is not None:
            self.outstanding[number] = (now, *entry[1:])
            self.last_sent_at = now

    # Acknowledgements.

    def take_acked(self, ack: Ack) -> tuple[list[int], list[Sent[Contents]], list[int]]:
        """Remove what ``ack`` acknowledges; return its numbers, its entries, and the numbers that had been declared
        lost."""
        outstanding, lost = self.outstanding, self._lost
        arrived = self._reader.take(ack, outstanding, lost)
        late = [number for number in arrived if number in lost] if lost else []
        numbers = [number for number in arrived if number in outstanding]
        entries = list(map(outstanding.pop, numbers))
        if entries:
            self.in_flight -= sum([entry[2] for entry in entries])
            self.counters.acked += len(entries)
            self.pto_count = 0
        return numbers, entries, late

    def sample(self, number: int, sent_at: float, ack_delay: float, now: float) -> None:
        """Take in the round trip time of a packet, unless it was under way while this process was not served."""
        if self.is_sampled(number):
            self.rtt.update(now - sent_at, min(ack_delay, self.settings.max_ack_delay))

    def is_sampled(self, number: int) -> bool:
        """Return whether the round trip time of ``number`` says something about the path (`sample_from`)."""
        return number >= self._samples_from

    def take_spurious(self, late: list[int], now: float) -> list[Contents]:
        """Count numbers that were declared lost and have been acknowledged; return their contents, if kept."""
        kept: list[Contents] = []
        for number in late:
            _, sent_at, contents = self._lost.pop(number)
            self.counters.spurious += 1
            self.rule.spurious_loss(self.largest_acked - number + 1, now - sent_at, now)
            if contents is not None:
                kept.append(contents)
        return kept

    # Loss.

    def detect_lost(self, now: float) -> list[int]:
        """Return the numbers that count as lost by now, oldest first, to be declared lost; set `loss_at`."""
        self.loss_at = None
        largest = self.largest_acked
        threshold = largest - self.rule.packet_threshold(now)
        delay = self.rule.loss_delay(self.rtt, now)
        lost: list[int] = []
        for number, entry in self.outstanding.items():
            if number > largest:
                break
            if number > threshold and entry[0] + delay > now:
                self.loss_at = entry[0] + delay
                break
            lost.append(number)
        return lost

    def declare_lost(self, numbers: list[int], now: float) -> list[Sent[Contents]]:
        """Remove and return these outstanding entries as lost."""
        keeps = self.settings.keeps_lost_contents
        entries = [self.outstanding.pop(number) for number in numbers]
        for number, (sent_at, contents, size, _) in zip(numbers, entries):
            self._lost[number] = now, sent_at, contents if keeps else None
            self.in_flight -= size
        self.counters.lost += len(numbers)
        return entries

    def forget_lost(self, before: float) -> None:
        """Forget the losses that were declared before ``before``, and all but the newest ``lost_kept``."""
        lost = self._lost
        stale: list[int] = []
        for number, (lost_at, _, _) in lost.items():
            if lost_at > before and len(lost) - len(stale) <= self.settings.lost_kept:
                break
            stale.append(number)
        for number in stale:
            del lost[number]
            self._reader.forget(number)

    def oldest(self, count: int) -> list[int]:
        """Return the numbers of the ``count`` entries that were sent first."""
        return list(islice(self.outstanding, count))

    # Time.

    def next_timeout(self) -> float | None:
        """Return when to call `detect_lost`, or `probe_timeout_passed` while nothing is waited for by the loss rule."""
        if self.loss_at is not None:
            return self.loss_at
        if not self.outstanding:
            return None
        return self.last_sent_at + self.probe_timeout()

    def probe_timeout(self) -> float:
        """Return the probe timeout with its backoff (RFC 9002, section 6.2.1), in seconds."""
        settings = self.settings
        timeout = self.rtt.probe_timeout(settings.max_ack_delay)
        if self.pto_count:
            timeout *= 1 << min(self.pto_count, PTO_BACKOFF_MAX)
        return timeout if timeout < settings.probe_timeout_max else settings.probe_timeout_max

    def probe_timeout_passed(self, now: float) -> bool:
        """Return whether a probe is to be sent now; the timeout has been doubled then."""
        if self.loss_at is not None or not self.outstanding or now < self.last_sent_at + self.probe_timeout():
            return False
        self.pto_count += 1
        return True

    def sample_from(self, number: int) -> None:
        """Take no RTT sample of numbers below ``number``: what was under way while this process was not served says
        nothing about the path."""
        self._samples_from = number

    def shift(self, gap: float) -> None:
        """Take ``gap`` seconds off the age of all that is outstanding or lost."""
        for number, (sent_at, *rest) in self.outstanding.items():
            self.outstanding[number] = (sent_at + gap, *rest)  # type: ignore[assignment]
        for number, (lost_at, sent_at, contents) in self._lost.items():
            self._lost[number] = lost_at, sent_at + gap, contents
        self.last_sent_at += gap
        if self.loss_at is not None:
            self.loss_at += gap

    # The end.

    def remove(self, numbers: list[int]) -> list[Sent[Contents]]:
        """Remove and return these outstanding entries, as if they had not been sent."""
        entries = [self.outstanding.pop(number) for number in numbers]
        self.in_flight -= sum(entry[2] for entry in entries)
        return entries

    def clear(self, next_number: int) -> list[Contents]:
        """Remove and return all contents, oldest first; numbers below ``next_number`` are awaited no more."""
        contents = [entry[1] for entry in self.outstanding.values()]
        self.outstanding.clear()
        self._lost.clear()
        self._reader = AckReader(next_number)
        self.loss_at = None
        self.in_flight = 0
        return contents
