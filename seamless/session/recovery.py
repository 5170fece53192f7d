"""Which records arrived, which are lost, when to ask: RFC 9002, bent to a path whose hops recover their own losses.

Every hop resends what it lost, and relays forward out of order. So records arrive out of order all the time, several
hop round trips late, and no count of later receiver says anything: there is no packet threshold. A record counts as
lost only by time, when one sent after it was acknowledged and it is itself older than ``Lane.loss_delay``. What is
resent although it was only late is counted (``wasted``), and makes the lane more patient for a while.

What was under way while our own process was not served (``resumed``) gives no round trip time, and that time counts for
no deadline: what waited in our own sockets says nothing about the path.

Express records overtake bulk ones at every relay, so the two classes are two *lanes*: one number space, but each its
own round trip time, its own order, its own probe. A probe is a PING in its lane: its acknowledgement shows what is
missing, and costs nothing if nothing is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import attrs

from seamless.errors import RemoteProtocolError
from seamless.wire.ack import Ack, AckReader
from seamless.wire.header import CLASS_BULK, CLASS_EXPRESS

INITIAL_RTT: Final = 0.333
"""Seconds, until there is a sample (RFC 9002, section 6.2.2)."""

GRANULARITY: Final = 0.001
"""Seconds (RFC 9002, section 6.1.2)."""

MAX_ACK_DELAY: Final = 0.025
"""Seconds for which the peer may keep an acknowledgement back (RFC 9000, section 18.2)."""

LOSS_DELAY_MIN: Final = 0.150
"""Seconds: ten resends on a hop of 10 ms. Sooner would resend end to end what a hop is about to deliver; and what a
relay took with it when it died is not waited for (``path_severed``)."""

LOSS_DELAY_MAX: Final = 2.0
PROBE_TIMEOUT_MAX: Final = 2.0
"""Seconds, however long round trips were. A sample that spans an outage, or a stop of the peer's process, is as long as
that, and a first one stands alone: without a bound what was lost is missed as late again. On a path whose round trip is
longer than this, the price is a probe every two seconds, and records that are sent twice."""

PATIENCE_MAX: Final = 1.0
"""Seconds that a lane may wait for what is late, however late things have been."""

PATIENCE_MARGIN: Final = 1.5
"""After a wasted resend a lane waits this much longer than what then was late."""

PATIENCE_HALF_LIFE: Final = 10.0
"""Seconds without a wasted resend after which that patience is halved."""

MAX_BACKOFF: Final = 6
"""Doublings of the probe timeout: enough to reach ``give up``."""

LOST_KEPT: Final = 256
"""Records declared lost that are remembered, in case they were only late."""


class Outgoing(Protocol):
    """What a record carried, and what becomes of it."""

    def acked(self) -> None:
        """The peer has it."""
        ...

    def lost(self) -> None:
        """The record is lost: send again what is still needed."""
        ...


@attrs.define(slots=True, eq=False)
class Sent:
    """A record under way."""

    number: int
    sent_at: float
    lane: int
    contents: Sequence[Outgoing]
    is_wanted: bool
    """Whether it carries anything but probes and acknowledgements."""
    settled: bool = False


class Lane:
    """The records of one class: their round trip time, and which of them are still under way."""

    __slots__ = (
        "order",
        "under_way",
        "wanted",
        "wanted_lost",
        "largest_acked",
        "last_sent_at",
        "latest",
        "smoothed",
        "rttvar",
        "sampled",
        "loss_at",
        "backoff",
        "probe_wanted",
        "patience",
        "patience_at",
    )

    def __init__(self) -> None:
        self.order: deque[Sent] = deque()
        self.under_way = 0
        self.wanted = 0
        self.wanted_lost = 0
        self.largest_acked = -1
        self.last_sent_at = 0.0
        self.latest = 0.0
        self.smoothed = INITIAL_RTT
        self.rttvar = INITIAL_RTT / 2
        self.sampled = False
        self.loss_at: float | None = None
        self.backoff = 0
        self.probe_wanted = False
        self.patience = 0.0
        self.patience_at = 0.0

    def loss_delay(self, now: float) -> float:
        """Return the age in seconds at which a record counts as lost if a later one was acknowledged."""
        longest = max(2 * max(self.smoothed, self.latest), self.smoothed + 4 * self.rttvar, LOSS_DELAY_MIN)
        if self.patience:
            halvings = (now - self.patience_at) / PATIENCE_HALF_LIFE
            longest = max(longest, self.patience * float(0.5**halvings))
        return min(longest, LOSS_DELAY_MAX)

    def sample(self, rtt: float) -> None:
        """Take a round trip time into account (RFC 9002, section 5.3)."""
        self.latest = rtt
        if not self.sampled:
            self.sampled = True
            self.smoothed, self.rttvar = rtt, rtt / 2
            return
        self.rttvar += (abs(self.smoothed - rtt) - self.rttvar) / 4
        self.smoothed += (rtt - self.smoothed) / 8

    def was_only_late(self, age: float, now: float) -> None:
        """A record of this age was declared lost and then acknowledged."""
        self.patience = min(PATIENCE_MAX, max(self.patience, PATIENCE_MARGIN * age))
        self.patience_at = now

    def first_probe_timeout(self) -> float:
        """Return the seconds after which to ask for the first time (RFC 9002, section 6.2.1)."""
        return self.smoothed + max(4 * self.rttvar, GRANULARITY) + MAX_ACK_DELAY

    def probe_timeout(self) -> float:
        """Return the seconds after which to ask again, with the backoff."""
        return min(float(self.first_probe_timeout() * (1 << self.backoff)), PROBE_TIMEOUT_MAX)

    def next_timeout(self) -> float | None:
        """Return when to call ``handle_timeout``."""
        if self.under_way == 0 or self.probe_wanted:
            return None
        if self.loss_at is not None:
            return self.loss_at
        return self.last_sent_at + self.probe_timeout()


class Recovery:
    """All records under way to one peer, numbered from ``first_number``."""

    def __init__(self, first_number: int) -> None:
        self.next_number = first_number
        self.lanes = {CLASS_BULK: Lane(), CLASS_EXPRESS: Lane()}
        self.acked_records = 0
        self.lost_records = 0
        self.wasted_records = 0
        self._samples_from = first_number
        self._under_way: dict[int, Sent] = {}
        self._lost: dict[int, Sent] = {}
        self._reader = AckReader(first_number)

    @property
    def anything_under_way(self) -> bool:
        """Say whether an acknowledgement is awaited."""
        return bool(self._under_way)

    def take_number(self) -> int:
        """Return the number of the next record; it is never used twice."""
        number = self.next_number
        self.next_number = number + 1
        return number

    def sent(self, number: int, lane: int, contents: Sequence[Outgoing], now: float, *, is_wanted: bool = True) -> None:
        """Watch over a record that asks for an acknowledgement; ``is_wanted`` unless it is only a probe."""
        record = Sent(number, now, lane, contents, is_wanted)
        self._under_way[number] = record
        road = self.lanes[lane]
        road.order.append(record)
        road.under_way += 1
        road.wanted += is_wanted
        road.last_sent_at = now
        road.probe_wanted = False

    def receive_ack(self, ack: Ack, now: float) -> set[int]:
        """Settle what ``ack`` names; return the classes that made progress: something wanted arrived, or a probe when
        nothing else had been sent. Raise `RemoteProtocolError` for what was never sent.
        """
        if ack.largest >= self.next_number:
            raise RemoteProtocolError(f"an ACK for record {ack.largest}, which was never sent")
        newly, late = self._newly_acked(ack)
        progress: set[int] = set()
        for record in newly:
            self._settle(record)
            road = self.lanes[record.lane]
            road.backoff = 0
            road.probe_wanted = False
            if record.is_wanted:
                road.wanted_lost = 0
                progress.add(record.lane)
            elif not road.wanted and not road.wanted_lost:
                progress.add(record.lane)
        self._sample(newly, ack, now)
        self.acked_records += len(newly)
        for record in newly:
            for outgoing in record.contents:
                outgoing.acked()
            record.contents = ()
        self._count_late(late, now)
        self.detect_lost(now)
        return progress

    def _newly_acked(self, ack: Ack) -> tuple[list[Sent], list[int]]:
        """Return the records under way that ``ack`` names, newest first, and the numbers of those declared lost."""
        newly: list[Sent] = []
        late: list[int] = []
        numbers = self._reader.take(ack, self._under_way, self._lost)
        numbers.sort(reverse=True)
        for number in numbers:
            record = self._under_way.pop(number, None)
            if record is not None:
                newly.append(record)
            elif number in self._lost:
                late.append(number)
        return newly, late

    def _sample(self, newly: list[Sent], ack: Ack, now: float) -> None:
        """Take a round trip time from the newest record of each lane, if it is newer than any acknowledged before."""
        for record in newly:
            road = self.lanes[record.lane]
            if record.number <= road.largest_acked:
                continue
            road.largest_acked = record.number
            if record.number < self._samples_from:
                continue
            delay = min(ack.delay, MAX_ACK_DELAY) if record.number == ack.largest else 0.0
            rtt = now - record.sent_at
            road.sample(rtt - delay if rtt > delay else rtt)

    def _settle(self, record: Sent) -> None:
        record.settled = True
        road = self.lanes[record.lane]
        road.under_way -= 1
        road.wanted -= record.is_wanted

    def _count_late(self, late: list[int], now: float) -> None:
        """Settle records that were declared lost and were only late."""
        for number in late:
            record = self._lost.pop(number)
            self.wasted_records += 1
            self.lanes[record.lane].was_only_late(now - record.sent_at, now)
            for outgoing in record.contents:
                outgoing.acked()

    def detect_lost(self, now: float) -> None:
        """Declare lost what is old enough, and note when the next one will be."""
        for road in self.lanes.values():
            order = road.order
            road.loss_at = None
            delay = road.loss_delay(now)
            while order:
                record = order[0]
                if not record.settled:
                    if record.number > road.largest_acked:
                        break
                    if record.sent_at + delay > now:
                        road.loss_at = record.sent_at + delay
                        break
                    self._declare_lost(record)
                order.popleft()

    def _declare_lost(self, record: Sent) -> None:
        del self._under_way[record.number]
        self._settle(record)
        self.lost_records += 1
        self.lanes[record.lane].wanted_lost += record.is_wanted
        self._lost[record.number] = record
        if len(self._lost) > LOST_KEPT:
            forgotten = next(iter(self._lost))
            del self._lost[forgotten]
            self._reader.forget(forgotten)
        for outgoing in record.contents:
            outgoing.lost()

    def sent_again(self, numbers: Iterable[int], now: float) -> None:
        """Our own node has these records back from a dead link, and sends them another way."""
        for number in numbers:
            record = self._under_way.get(number)
            if record is not None:
                record.sent_at = self.lanes[record.lane].last_sent_at = now

    def forget_losses(self) -> None:
        """Begin to count anew what was lost in vain: nothing of it is sent again, and another path was asked for."""
        for road in self.lanes.values():
            road.wanted_lost = 0

    def resumed(self, gap: float) -> None:
        """Take note that this process was not served for ``gap`` seconds, until now."""
        self._samples_from = self.next_number
        for record in (*self._under_way.values(), *self._lost.values()):
            record.sent_at += gap
        for road in self.lanes.values():
            road.last_sent_at += gap
            if road.loss_at is not None:
                road.loss_at += gap

    def path_severed(self, now: float) -> None:
        """A relay may have died with what it had acknowledged: what should have been heard of by now is lost."""
        for record in list(self._under_way.values()):
            if record.sent_at <= now - self.lanes[record.lane].smoothed:
                self._declare_lost(record)
        for road in self.lanes.values():
            road.backoff = 0
        self.forget_losses()

    def next_timeout(self) -> float | None:
        """Return when to call ``handle_timeout``."""
        times = [time for time in (road.next_timeout() for road in self.lanes.values()) if time is not None]
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Declare losses, and ask for a probe in a lane that heard nothing for too long."""
        self.detect_lost(now)
        for road in self.lanes.values():
            due = road.next_timeout()
            if due is not None and due <= now:
                road.probe_wanted = True
                road.backoff = min(road.backoff + 1, MAX_BACKOFF)
