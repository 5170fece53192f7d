"""The model of a link's path that ``congestion auto`` keeps (draft-ietf-ccwg-bbr, "Network Path Model"), of its parts.

Sizes in bytes of IP packets, rates in bits per second, times in seconds.
"""

from __future__ import annotations

from typing import Final

from seamless.delivery.rate import DeliveryRate, RateSample
from seamless.interfaces import AckEvent
from seamless.link.congestion.aggregation import AckAggregation
from seamless.link.congestion.bandwidth import Bandwidth
from seamless.link.congestion.loss_floor import LossFloor
from seamless.link.congestion.queue_delay import QueueDelay

INITIAL_RTT: Final = 0.1
"""Seconds, until there is a sample."""
QUEUE_TARGET: Final = 0.001
QUEUE_TARGET_RATIO: Final = 0.03
"""Seconds of queue, or share of the least round trip, that count as none."""
QUEUE_LIMIT: Final = 0.003
QUEUE_LIMIT_RATIO: Final = 0.1
"""Seconds of queue, or share of the least round trip, that a probe for more makes at most."""
STANDING_LIMIT: Final = 4 / 3
"""Of that: what a queue that stands has to exceed to be looked into."""
SPARSE_DATAGRAMS: Final = 10
"""Datagrams in a round trip, below which an application-limited link is taken for no cause of queues and losses."""


class PathModel:
    """What is known of one path, and how it is learned from acknowledgements."""

    def __init__(self, datagram_bytes: int, now: float) -> None:
        self.datagram_bytes = datagram_bytes
        self.rates = DeliveryRate()
        self.delay = QueueDelay()
        self.losses = LossFloor(datagram_bytes, now)
        self.bandwidth = Bandwidth()
        self.smoothed_rtt = INITIAL_RTT
        self.has_rtt = False
        self._aggregation = AckAggregation()

    @property
    def bottleneck_bps(self) -> float:
        """Return the rate of the bottleneck; 0 while not known."""
        return self.bandwidth.bottleneck_bps(self.losses.floor)

    @property
    def min_rtt(self) -> float:
        """Return the least round trip; the smoothed one without a sample."""
        return self.delay.min_rtt if self.has_rtt else self.smoothed_rtt

    @property
    def bdp_bytes(self) -> float:
        """Return the bandwidth-delay product; 0 while not known."""
        return self.bottleneck_bps * self.min_rtt / 8 if self.has_rtt else 0.0

    @property
    def extra_acked(self) -> float:
        """Return how many bytes are acknowledged at once beyond what is delivered in that time."""
        return self._aggregation.extra_acked

    @property
    def queue_limit(self) -> float:
        """Return how long a queue a probe for more may make."""
        return max(QUEUE_LIMIT, self.min_rtt * QUEUE_LIMIT_RATIO)

    @property
    def is_drained(self) -> bool:
        """Return whether there is no queue to speak of."""
        return self.delay.standing <= max(QUEUE_TARGET, self.min_rtt * QUEUE_TARGET_RATIO)

    @property
    def has_standing_queue(self) -> bool:
        """Return whether the queue of the last round is one to look into."""
        return self.delay.standing > STANDING_LIMIT * self.queue_limit

    def is_sparse(self, sample: RateSample) -> bool:
        """Return whether a round had so little traffic that what it waits for, or loses, is not its own doing."""
        return sample.is_application_limited and sample.settled_bytes < SPARSE_DATAGRAMS * self.datagram_bytes

    def on_sent(self, bytes_in_flight: int, is_application_limited: bool, now: float) -> bool:
        """Take note of a batch; return whether it ends an idle time."""
        if not self.rates.on_sent(bytes_in_flight, is_application_limited, now):
            return False
        self.losses.begin_phase(now)
        self._aggregation.restart(now)
        return True

    def on_ack(self, event: AckEvent) -> RateSample | None:
        """Take note of an ACK; return a sample if it ends a round."""
        now = event.now
        self.smoothed_rtt = event.smoothed_rtt
        if event.rtt is not None:
            self.has_rtt = True
            self.delay.sample(event.rtt, event.delay_variation, now)
        self.losses.on_ack(event.acked_bytes, event.sent_at, event.lost_batches, event.lost_runs)
        self._aggregation.on_ack(event.acked_bytes, self.bottleneck_bps, now)
        sample = self.rates.on_ack(
            event.acked_bytes,
            event.lost_bytes,
            event.bytes_in_flight,
            event.sent_at,
            event.receive_time,
            event.has_backlog,
            event.smoothed_rtt,
            now,
        )
        if sample is not None:
            self.delay.end_round()
            self.bandwidth.update(sample, self.losses.floor)
        return sample
