"""Which records arrived, which are lost, when to ask: RFC 9002, bent to a path whose hops recover their own losses.

Every hop resends what it lost, and relays forward out of order. So a record counts as lost only by time
(`seamless.delivery.loss.TimeLossRule`), and nothing is resent on a probe timeout: a probe is a PING in the record's
class, whose acknowledgement shows what is missing, and costs nothing if nothing is.

Express records overtake bulk ones at every relay, so the two classes have one number space, but each a ledger of its
own: its own round trip time, its own order, its own probe.

Two things differ from a link's recovery, and why:

* What was under way while our own process was not served (``resumed``) becomes younger by that time, since only age
  says what is lost here.
* The ACK delay is taken off a sample even when the rest is less than ``min_rtt``: a session has no exchange that is
  never delayed, so its ``min_rtt`` holds such a delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final, Protocol

from seamless.delivery.ledger import LedgerSettings, Sent, SentLedger
from seamless.delivery.loss import TimeLossRule
from seamless.errors import RemoteProtocolError
from seamless.wire.ack import Ack
from seamless.wire.traffic_class import ORDERED_CLASSES

MAX_ACK_DELAY: Final = 0.025
"""Seconds for which the peer may keep an acknowledgement back (RFC 9000, section 18.2)."""

PROBE_TIMEOUT_MAX: Final = 2.0
"""Seconds, however long round trips were, as for `seamless.delivery.loss.LOSS_DELAY_MAX`. On a path whose round trip is
longer than this, the price is a probe every two seconds, and records that are sent twice."""

SETTINGS: Final = LedgerSettings(
    initial_rtt=0.333,  # RFC 9002, section 6.2.2
    max_ack_delay=MAX_ACK_DELAY,
    probe_timeout_max=PROBE_TIMEOUT_MAX,
    lost_kept=256,
    keeps_lost_contents=True,
)


class Outgoing(Protocol):
    """What a record carried, and what becomes of it."""

    def acked(self) -> None:
        """The peer has it."""
        ...

    def lost(self) -> None:
        """The record is lost: send again what is still needed."""
        ...


class ClassLedger(SentLedger[Sequence[Outgoing]]):
    """The records of one class. A record's size is 1, or 0 if it carries nothing but probes and acknowledgements."""

    __slots__ = ("lost_in_vain", "probe_wanted")

    def __init__(self, first_number: int) -> None:
        super().__init__(SETTINGS, TimeLossRule(), first_number)
        self.lost_in_vain = 0
        """Records of size 1 lost since the last one that was acknowledged."""
        self.probe_wanted = False

    def receive_ack(self, ack: Ack, now: float) -> bool:
        """Settle what ``ack`` names; return whether the class made progress: something of size 1 arrived, or a probe
        when nothing else had been sent."""
        numbers, entries, late = self.take_acked(ack)
        progress = False
        if numbers:
            self.probe_wanted = False
            self._sample(max(zip(numbers, entries)), ack, now)
            if any(size for _, _, size, _ in entries):
                self.lost_in_vain = 0
                progress = True
            else:
                progress = not self.in_flight and not self.lost_in_vain
            for _, contents, _, _ in reversed(entries):
                _acked(contents)
        for contents in self.take_spurious(late, now):
            _acked(contents)
        return progress

    def _sample(self, newest: tuple[int, Sent[Sequence[Outgoing]]], ack: Ack, now: float) -> None:
        """Take a round trip time from the newest record, if it is newer than any acknowledged before."""
        number, (sent_at, *_) = newest
        if number <= self.largest_acked:
            return
        self.largest_acked = number
        delay = min(ack.delay, MAX_ACK_DELAY) if number == ack.largest else 0.0
        self.sample(number, sent_at + delay if now - sent_at > delay else sent_at, 0.0, now)

    def lose(self, numbers: list[int], now: float) -> None:
        """Declare records lost."""
        for _, contents, size, _ in self.declare_lost(numbers, now):
            self.lost_in_vain += size
            for outgoing in contents:
                outgoing.lost()
        self.forget_lost(-inf)

    def next_timeout(self) -> float | None:
        """Return when to look again; None also while a probe waits to be sent."""
        return None if self.probe_wanted else super().next_timeout()


def _acked(contents: Sequence[Outgoing]) -> None:
    for outgoing in contents:
        outgoing.acked()


class Recovery:
    """All records under way to one peer, numbered from ``first_number``."""

    def __init__(self, first_number: int) -> None:
        self.next_number = first_number
        self.classes = {each: ClassLedger(first_number) for each in ORDERED_CLASSES}

    @property
    def anything_under_way(self) -> bool:
        """Return whether an acknowledgement is awaited."""
        return any(ledger.outstanding for ledger in self.classes.values())

    @property
    def acked_records(self) -> int:
        """Return how many records were acknowledged and not declared lost before."""
        return sum(ledger.counters.acked for ledger in self.classes.values())

    @property
    def lost_records(self) -> int:
        """Return how many records were declared lost."""
        return sum(ledger.counters.lost for ledger in self.classes.values())

    @property
    def spurious_records(self) -> int:
        """Return how many records were declared lost and then acknowledged."""
        return sum(ledger.counters.spurious for ledger in self.classes.values())

    def take_number(self) -> int:
        """Return the number of the next record; it is never used twice."""
        number = self.next_number
        self.next_number = number + 1
        return number

    def sent(
        self, number: int, record_class: int, contents: Sequence[Outgoing], now: float, *, is_wanted: bool = True
    ) -> None:
        """Watch over a record that asks for an acknowledgement; ``is_wanted`` unless it is only a probe."""
        ledger = self.classes[record_class]
        ledger.add(number, contents, int(is_wanted), now)
        ledger.probe_wanted = False

    def receive_ack(self, ack: Ack, now: float) -> set[int]:
        """Settle what ``ack`` names; return the classes that made progress (`ClassLedger.receive_ack`).

        Raise `RemoteProtocolError` for what was never sent.
        """
        if ack.largest >= self.next_number:
            raise RemoteProtocolError(f"an ACK for record {ack.largest}, which was never sent")
        progress = {each for each, ledger in self.classes.items() if ledger.receive_ack(ack, now)}
        self.detect_lost(now)
        return progress

    def detect_lost(self, now: float) -> None:
        """Declare lost what is old enough, and note when the next one will be."""
        for ledger in self.classes.values():
            lost = ledger.detect_lost(now)
            if lost:
                ledger.lose(lost, now)

    def sent_again(self, numbers: Iterable[int], now: float) -> None:
        """Our own node has these records back from a dead link, and sends them another way."""
        for number in numbers:
            for ledger in self.classes.values():
                ledger.sent_again(number, now)

    def forget_losses(self) -> None:
        """Begin to count anew what was lost in vain: nothing of it is sent again, and another path was asked for."""
        for ledger in self.classes.values():
            ledger.lost_in_vain = 0

    def resumed(self, gap: float) -> None:
        """Take note that this process was not served for ``gap`` seconds, until now."""
        for ledger in self.classes.values():
            ledger.sample_from(self.next_number)
            ledger.shift(gap)

    def path_severed(self, now: float) -> None:
        """A relay may have died with what it had acknowledged: what should have been heard of by now is lost."""
        for ledger in self.classes.values():
            latest = now - ledger.rtt.smoothed_rtt
            ledger.lose([number for number, entry in ledger.outstanding.items() if entry[0] <= latest], now)
            ledger.pto_count = 0
        self.forget_losses()

    @property
    def probe_timeout(self) -> float:
        """Return the longest probe timeout of a class, without backoff, in seconds."""
        longest = 0.0
        for ledger in self.classes.values():
            longest = max(longest, ledger.rtt.probe_timeout(MAX_ACK_DELAY))
        return longest

    @property
    def pto_count(self) -> int:
        """Return how many probe timeouts have passed in a class since it was heard of."""
        return max(ledger.pto_count for ledger in self.classes.values())

    def next_timeout(self) -> float | None:
        """Return when to call ``handle_timeout``."""
        earliest: float | None = None
        for ledger in self.classes.values():
            at = ledger.next_timeout()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def handle_timeout(self, now: float) -> None:
        """Declare losses, and ask for a probe in a class that heard nothing for too long."""
        self.detect_lost(now)
        for ledger in self.classes.values():
            if not ledger.probe_wanted and ledger.probe_timeout_passed(now):
                ledger.counters.probes += 1
                ledger.probe_wanted = True
