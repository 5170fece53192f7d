"""Delivery-rate samples (draft-ietf-ccwg-bbr, section "Delivery Rate Samples"): what a path carried in a round trip.

A round begins with an acknowledgement and ends with the first one of something that was sent after that, and not before
`ROUND_MIN`. Each gives one sample: what was acknowledged in between, over the longer of two times: between the arrivals
of the newest datagrams that the two acknowledge, and between the sending of these. So acknowledgements that come late,
and then all at once, do not look like a fast path.

When datagrams arrived is taken from our own clock, less what the acknowledgement is later than others by what the
receiver says of its clock. That is believed up to `LATE_MAX`, so a receiver whose times stand still, run slow, or jump
gains that once at most: in the long run its path is as fast as its acknowledgements come.

The draft takes a sample per acknowledgement, from state that it keeps with each packet. Here an acknowledgement covers
a batch or more, and the owner says when the newest of what it acknowledges was sent; so no state is kept per packet.

A sample is *application-limited* if at some time while its datagrams were sent there was less to send than rate and
window allowed. It says what the path carried at least.
"""

from __future__ import annotations

from typing import Final

import attrs

ROUND_MIN: Final = 0.010
"""Seconds that a round lasts at least: on a shorter path batches and the lateness of processes would be most of it."""
LATE_MAX: Final = 0.030
"""Seconds by which an acknowledgement may have been late: a batch, a busy process, Wi-Fi that gathers for 20 ms."""
BELIEVED_MIN: Final = 0.5
"""The share of the time on our clock that a round takes at least, whatever the receiver says."""
CLOCK_DRIFT: Final = 1e-4
"""Seconds per second by which the clocks of two hosts drift apart at most."""
STALL_ROUND_TRIPS: Final = 2
STALL_MIN: Final = 0.02
"""Round trips, and seconds beyond these, after which a round is said to have stalled."""
INTERVAL_MIN: Final = 1e-4
"""Seconds: a sample over less is none."""


@attrs.frozen
class RateSample:
    """What the path carried in one round; rates in bits per second."""

    delivered_bps: float
    settled_bps: float
    """Of what was acknowledged or is lost: what reached the bottleneck, if losses come after it."""
    sent_bps: float
    """At which this had been sent."""
    settled_bytes: int
    is_application_limited: bool
    is_stalled: bool
    """Whether the round lasted for much longer than a round trip: nothing was acknowledged for a while."""


@attrs.frozen
class _Knee:
    """Where a round began: when the acknowledgement came, and what had been settled by then."""

    at: float
    arrived_at: float
    """When the newest that it acknowledged arrived there, on our clock, but for a constant."""
    sent_at: float
    delivered: int
    lost: int


class DeliveryRate:
    """Samples of one direction of a link, and its rounds; sizes in bytes of IP packets."""

    def __init__(self) -> None:
        self.delivered = 0
        """All that was acknowledged so far."""
        self.lost = 0
        self.rounds = 0
        """Rounds that have ended."""
        self.is_idle = True
        """Whether nothing is in flight, and nothing waits; hellos are sent all the same."""
        self._limited_until = -1
        self._knee = _Knee(0.0, 0.0, 0.0, 0, 0)
        self._offset: float | None = None
        """The least by which an acknowledgement came after the receiver's receive time; that clock starts anywhere."""
        self._offset_at = 0.0

    @property
    def is_application_limited(self) -> bool:
        """Return whether a sample that ended now would be application-limited."""
        return self.is_idle or self.delivered <= self._limited_until

    def on_sent(self, bytes_in_flight: int, is_application_limited: bool, now: float) -> bool:
        """Take note of a batch, after which so much is in flight; return whether it ends an idle time."""
        was_idle = self.is_idle
        if was_idle:
            self.is_idle = False
            self._knee = _Knee(now, now, now, self.delivered, self.lost)
        if is_application_limited or was_idle:
            self._limited_until = self.delivered + bytes_in_flight
        return was_idle

    def on_ack(
        self,
        acked_bytes: int,
        lost_bytes: int,
        bytes_in_flight: int,
        sent_at: float,
        received_at: float | None,
        has_backlog: bool,
        rtt: float,
        now: float,
    ) -> RateSample | None:
        """Take note of an ACK, of which the newest was sent at ``sent_at``; return a sample if it ends a round.

        ``received_at``: when that newest was received, on the receiver's clock; None where it does not say.
        ``has_backlog``: whether datagrams wait to be sent; ``rtt``: the smoothed RTT.
        """
        late = 0.0 if received_at is None else self._lateness(now - received_at, now)
        self.delivered += acked_bytes
        self.lost += lost_bytes
        knee = self._knee
        sample = None
        if acked_bytes and sent_at >= knee.at and now >= knee.at + ROUND_MIN and not self.is_idle:
            self.rounds += 1
            sample = self._sample(knee, sent_at, now - late, rtt, now)
            self._knee = _Knee(now, now - late, sent_at, self.delivered, self.lost)
        if bytes_in_flight <= 0 and not has_backlog:
            self.is_idle = True
        return sample

    def _lateness(self, offset: float, now: float) -> float:
        """Return how much later than the earliest an acknowledgement came."""
        least = offset if self._offset is None else self._offset + (now - self._offset_at) * CLOCK_DRIFT
        if offset - least > LATE_MAX:
            # The clock has jumped or stands still, or the way back became longer.
            least = offset - LATE_MAX
        self._offset, self._offset_at = min(least, offset), now
        return offset - self._offset

    def _sample(self, knee: _Knee, sent_at: float, arrived_at: float, rtt: float, now: float) -> RateSample | None:
        interval = max(arrived_at - knee.arrived_at, sent_at - knee.sent_at, (now - knee.at) * BELIEVED_MIN)
        if interval < INTERVAL_MIN:
            return None
        delivered = self.delivered - knee.delivered
        settled = delivered + self.lost - knee.lost
        return RateSample(
            delivered * 8 / interval,
            settled * 8 / interval,
            settled * 8 / max(sent_at - knee.sent_at, INTERVAL_MIN),
            settled,
            knee.delivered <= self._limited_until,
            interval > STALL_ROUND_TRIPS * rtt + STALL_MIN,
        )

    def abandon(self) -> None:
        """Take note that nothing is in flight any more: what was is neither acknowledged nor lost."""
        self.is_idle = True
