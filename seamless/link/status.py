"""What a link is told when it is made, and what it tells people about itself."""

from __future__ import annotations

import attrs

from seamless.interfaces import Address, counter, gauge
from seamless.link.mtu import MtuCounters
from seamless.link.queue import QueueCounters


@attrs.frozen
class LinkSettings:
    """What the configuration says about one path of one link, seen from one end."""

    neighbor: str
    neighbor_id: int
    local: Address
    remote: Address
    mtu_bytes: int
    hello_interval: float
    dead_interval: float
    dials: bool
    """Whether this end opens the link; the other end does too unless it is `passive`."""
    neighbor_dials: bool
    cost: int | None = None
    """The cost that routing counts with; None: by latency and loss."""


@attrs.frozen
class LinkState:
    """What a link is like now: what routing counts with, and why it is UP or not."""

    state: str
    """UP, INIT or DOWN; DOWN also when the path does not carry the base MTU."""
    reason: str
    """Why it is in this state, for people."""
    since: float
    """When the adjacency last changed, on the clock that the core is driven with."""
    remote: Address
    """Where the neighbor is now."""
    rtt: float
    """Smoothed RTT in seconds."""
    minimum_rtt: float | None
    """The least RTT in seconds since `Link.restart_minimum_rtt`; None without a sample."""
    loss_rate: float
    """The share of bytes sent that was lost lately."""
    rate_bps: float
    """The rate at which the link sends, in bits per second of IP packets."""
    mtu_bytes: int
    """The longest IP packet that goes out now."""
    cost: int | None
    """The cost that is configured; None: routing counts latency and loss."""


@attrs.define(slots=False)
class LinkCounters:
    """What a link counts by itself, in datagrams unless it says bytes or packets."""

    sent_bytes: int = counter("Bytes of IP packets sent")
    received_bytes: int = counter("Bytes of datagrams received")
    data_sent: int = counter("Datagrams with overlay packets sent")
    control_sent: int = counter("Datagrams with link frames sent")
    """``sent`` leaves out bare ACKs."""
    load_sent: int = counter("Datagrams of padding sent to measure a path")
    """Besides: padding that measures the path. All datagrams sealed and sent are these three together."""
    data_received: int = 0
    resent: int = counter("Overlay packets sent again")
    redundant: int = counter("Small overlay packets sent once more before they are missed")
    """Small packets sent once more, on a link that loses (`seamless.link.redundant`)."""
    forgotten: int = counter("Overlay packets lost and not to be sent again")
    """Packets lost, of the class that is not sent again."""
    undelivered: int = counter("Overlay packets lost too often and given back", trouble="undelivered")
    """Packets lost so often that they were given back, for another path."""
    cut: int = counter("Overlay packets cut anew, as they were longer than the path carries")
    """Packets that were longer than the path carries, and went on in several."""
    too_big: int = counter("Overlay packets longer than the path carries that could not be cut", trouble="too big")
    """Packets that were longer than the path carries and could not be cut."""
    failed_authentication: int = counter("Datagrams that did not open under their key", trouble="not authentic")
    replayed: int = counter("Datagrams that had come before", trouble="replayed")
    malformed: int = counter("Datagrams with frames that make no sense", trouble="malformed")
    blocked: int = counter("Datagrams of a neighbor that has broken the protocol too often")
    """Datagrams that were not read, because the neighbor had broken the protocol too often."""
    restarts: int = counter("Times that the neighbor was another process than before")
    """How often the neighbor was another process than before."""
    pauses_sent: int = counter("Times that the neighbor was asked to pause a session")
    pauses_received: int = counter("Times that the neighbor asked us to pause a session")


@attrs.frozen(kw_only=True, slots=False)
class LinkStatus(LinkCounters, QueueCounters, MtuCounters):
    """A snapshot for people; rates in bits per second, times in seconds, counts in datagrams unless they say bytes."""

    neighbor: str
    state: str
    reason: str
    since: float = gauge("state_since_timestamp_seconds", "Unix time when the state last changed")
    """When the state last changed, on the clock that the core is driven with."""
    local: Address
    remote: Address
    congestion: str
    congestion_state: str
    """What the congestion controller does now."""
    congestion_reason: str
    """Why the rate is what it is, in one clause."""
    bottleneck_bps: float | None
    """The rate that the path carries, as far as the controller knows."""
    minimum_rtt: float | None
    """The lowest RTT lately."""
    queue_delay: float = gauge("queue_delay_seconds", "What datagrams wait for in the queue of the path")
    loss_floor: float = gauge("loss_floor_ratio", "Share of what is sent that is lost whatever the rate is")
    congestion_loss: float = gauge("congestion_loss_ratio", "Share that is lost beyond that, as the rate is too high")
    rate_bps: float = gauge("rate_bits_per_second", "Rate at which the link may send")
    mtu_bytes: int = gauge("mtu_bytes", "Longest IP packet that the path is known to carry")
    """The longest IP packet that goes out now, as the search for the path's MTU found (`seamless.link.mtu`)."""
    mtu_ceiling_bytes: int
    """The longest that the configuration allows."""
    mtu_state: str
    """How far that search has come, in the words of RFC 8899."""
    rtt: float = gauge("rtt_seconds", "Smoothed round trip time")
    rttvar: float = gauge("rttvar_seconds", "Variation of the round trip time")
    sent: int
    acked: int = counter("Datagrams acknowledged")
    lost: int = counter("Datagrams taken for lost")
    probes: int = counter("Datagrams sent again to get an answer")
    spurious: int = counter("Datagrams declared lost and then acknowledged")
    duplicates_dropped: int = counter("Overlay packets that had come before")
    """Packets received a second time."""
    received: int = counter("Datagrams received")
    neighbor_received: int
    """What the neighbor's last HELLO said that it had received, of any life of ours."""
    sent_at_report: int
    """How many datagrams we had sent when that HELLO came: the differences of both between two HELLOs compare."""
    bytes_in_flight: int = gauge("in_flight_bytes", "Bytes sent and not yet acknowledged")
    queued_bytes: int = gauge("queued_bytes", "Bytes that wait to be sent")
