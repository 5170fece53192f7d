"""When what was sent counts as lost, and how a spurious loss changes that (RFC 9002, sections 6.1 and 6.2).

Both rules declare lost only what was sent before something that was acknowledged:

* `PacketLossRule`, for one hop, counts the packets that were sent later and acknowledged, or waits 9/8 of an RTT. A
  spurious loss raises the packet threshold to the distance that was seen, so a path that reorders soon has none.
* `TimeLossRule`, for a path whose hops recover their own losses, goes by time alone: resent by a hop, records arrive
  out of order and several of its RTTs late all the time, so a count of later ones says nothing.
"""

from __future__ import annotations

from typing import Final, Protocol

from seamless.delivery.rtt import GRANULARITY, RttEstimator

# RFC 9002, section 6.1.
PACKET_THRESHOLD: Final = 3
TIME_THRESHOLD: Final = 9 / 8

# Our own choices.
PACKET_THRESHOLD_MAX: Final = 2048
"""A spurious loss at a larger distance does not raise the packet threshold further: only time counts then."""
THRESHOLD_HALF_LIFE: Final = 10.0
"""Seconds without a spurious loss after which the packet threshold is halved, down to `PACKET_THRESHOLD`."""

LOSS_DELAY_MIN: Final = 0.150
"""Seconds: ten resends on a hop of 10 ms. Sooner would resend end to end what a hop is about to deliver; and what a
relay took with it when it died is not waited for (``path_severed``)."""
LOSS_DELAY_MAX: Final = 2.0
"""Seconds, however long round trips were. A sample that spans an outage, or a stop of the peer's process, is as long as
that, and a first one stands alone: without a bound losses would be noticed as late again."""
SPURIOUS_LOSS_DELAY_MAX: Final = 1.0
"""Seconds of loss delay that spurious losses can ask for."""
SPURIOUS_LOSS_MARGIN: Final = 1.5
"""The loss delay after a spurious loss, in ages of what was late."""
SPURIOUS_LOSS_HALF_LIFE: Final = 10.0
"""Seconds without a spurious loss after which that delay is halved."""

NO_PACKET_THRESHOLD: Final = 1 << 64


class LossRule(Protocol):
    """How long to wait for an acknowledgement that others have overtaken."""

    def packet_threshold(self, now: float) -> int:
        """Return how many packets later one must be acknowledged for an earlier one to count as lost at once."""
        ...

    def loss_delay(self, rtt: RttEstimator, now: float) -> float:
        """Return the age in seconds at which a packet counts as lost when a later one was acknowledged."""
        ...

    def spurious_loss(self, distance: int, age: float, now: float) -> None:
        """Learn from a packet that was declared lost and then acknowledged: when one ``distance`` later had been, and
        ``age`` seconds after it was sent."""
        ...


class PacketLossRule:
    """Lost by packet threshold or by time (RFC 9002, section 6.1)."""

    __slots__ = ("_threshold", "_threshold_at")

    def __init__(self) -> None:
        self._threshold = PACKET_THRESHOLD
        self._threshold_at = 0.0

    def packet_threshold(self, now: float) -> int:
        """Return the threshold of the RFC, or what is left of that after the last spurious loss."""
        if self._threshold == PACKET_THRESHOLD:
            return PACKET_THRESHOLD
        halvings = int((now - self._threshold_at) / THRESHOLD_HALF_LIFE)
        return max(PACKET_THRESHOLD, self._threshold >> halvings)

    def loss_delay(self, rtt: RttEstimator, now: float) -> float:
        """Return the time threshold of RFC 9002, section 6.1.2."""
        return max(TIME_THRESHOLD * max(rtt.smoothed_rtt, rtt.latest_rtt), GRANULARITY)

    def spurious_loss(self, distance: int, age: float, now: float) -> None:
        """Raise the packet threshold to ``distance``."""
        self._threshold = max(self.packet_threshold(now), min(distance, PACKET_THRESHOLD_MAX))
        self._threshold_at = now


class TimeLossRule:
    """Lost by time only: two RTTs, and `LOSS_DELAY_MIN` at least."""

    __slots__ = ("_spurious_delay", "_spurious_at")

    def __init__(self) -> None:
        self._spurious_delay = 0.0
        self._spurious_at = 0.0

    def packet_threshold(self, now: float) -> int:
        """Return a number that no packet reaches."""
        return NO_PACKET_THRESHOLD

    def loss_delay(self, rtt: RttEstimator, now: float) -> float:
        """Return the loss delay, longer for a while after a spurious loss."""
        delay = max(
            2 * max(rtt.smoothed_rtt, rtt.latest_rtt),
            rtt.smoothed_rtt + 4 * rtt.rttvar,
            LOSS_DELAY_MIN,
        )
        if self._spurious_delay:
            halvings = (now - self._spurious_at) / SPURIOUS_LOSS_HALF_LIFE
            delay = max(delay, self._spurious_delay * float(0.5**halvings))
        return min(delay, LOSS_DELAY_MAX)

    def spurious_loss(self, distance: int, age: float, now: float) -> None:
        """Wait longer than ``age`` from now on."""
        self._spurious_delay = min(SPURIOUS_LOSS_DELAY_MAX, max(self._spurious_delay, SPURIOUS_LOSS_MARGIN * age))
        self._spurious_at = now
