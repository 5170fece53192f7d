"""What the floors say to one another: batches, events, the protocol of cores, and policies that are chosen by name.

Times are float seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, Union

import attrs

Address: TypeAlias = tuple[str, int]
"""An underlay address: numeric host and UDP port."""

StreamKey: TypeAlias = tuple[int, int]
"""A stream, as the owner of a node names it: (peer's node identifier, stream id)."""

Buffer: TypeAlias = Union[bytes, bytearray, memoryview]


@attrs.define(slots=True)
class Transmit:
    """A batch to send with one system call.

    ``buffers`` joined are whole datagrams of ``segment_size`` bytes each, of which only the last may be shorter;
    one datagram may span several buffers. ``count`` datagrams in all.
    """

    local: Address
    remote: Address
    buffers: list[bytes]
    segment_size: int
    count: int


# Cores.

EventT_co = TypeVar("EventT_co", covariant=True)


class Core(Protocol[EventT_co]):
    """A protocol part without I/O, driven with explicit time: input, commands, output, two verbs of time, and events.

    Time never goes back. A core reads no clock, writes no log, draws no random numbers of its own, and does not call
    its owner back. What the network brings raises `RemoteProtocolError` or nothing; a misuse by the owner raises
    `LocalProtocolError`. After every input, command and ``handle_timeout`` the owner drains ``next_event``, sends what
    is to be sent, and asks ``next_timeout``.

    Commands take ``now`` last when they depend on time. Input and output are named by the unit of the floor:

    ===========  =============================================  ====================================
    core         input                                          output
    ===========  =============================================  ====================================
    Node, Link   ``receive_datagrams`` (`DatagramCore`)         ``datagrams_to_send`` (`DatagramCore`)
    Session      ``receive_handshake``, ``receive_fragments``:  ``packets_to_send(room, now)``: overlay
                 payloads of overlay packets                    packets, as many as a link has room for
    Routing      ``receive_lsa``                                ``lsas_to_flood``
    Association  ``receive_initiation``, ``receive_response``,  ``messages_to_send(now)``: handshake messages
                 ``receive_cookie``
    ===========  =============================================  ====================================
    """

    def next_timeout(self) -> float | None:
        """Return the time at which ``handle_timeout`` is to be called, perhaps one that has passed; None for never.

        Asking changes nothing.
        """
        ...

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline up to ``now``; harmless when there is none."""
        ...

    def next_event(self) -> EventT_co | None:
        """Remove and return the oldest event; None when there is no more."""
        ...


class DatagramCore(Core[EventT_co], Protocol):
    """A core whose input and output are underlay datagrams, in batches."""

    def receive_datagrams(
        self,
        buffer: bytes | memoryview,
        segment_size: int,
        local: Address,
        remote: Address,
        now: float,
        received_at: float | None = None,
    ) -> None:
        """Take in one batch: datagrams of ``segment_size`` bytes each, the last perhaps shorter.

        ``received_at``: when they came, before they waited for this process; None where nothing says so.
        """
        ...

    def datagrams_to_send(self, now: float) -> list[Transmit]:
        """Return the batches that may go out now; they count as sent."""
        ...


# Events. A node (and below it a session) hands these to its owner.


@attrs.frozen
class StreamOpened:
    """The peer asks for a stream to ``target``; answer with ``accept_stream`` or ``reset``.

    Its other events are held back until it is accepted; of one that is reset instead there are none.
    """

    stream: StreamKey
    target: bytes


@attrs.frozen
class StreamAccepted:
    """The peer accepted a stream that we opened."""

    stream: StreamKey


@attrs.define
class DataReceived:
    """Bytes in order. Give each back with ``consumed`` once the application's kernel has taken it."""

    stream: StreamKey
    chunks: list[bytes]


@attrs.frozen
class StreamWritable:
    """There is room again after ``send`` returned no room."""

    stream: StreamKey


@attrs.frozen
class StreamFinished:
    """The peer's FIN, after every byte before it."""

    stream: StreamKey


@attrs.frozen
class StreamReset:
    """The stream is gone, after the bytes that were in flight. ``code`` is one of the RESET_ constants."""

    stream: StreamKey
    code: int
    reason: str


@attrs.frozen
class StreamClosed:
    """Both directions ended cleanly and every byte we sent is acknowledged. The last event of a stream."""

    stream: StreamKey


@attrs.define
class PacketReceived:
    """A whole packet from ``peer``; unordered, perhaps lost, never twice."""

    peer: int
    packet: bytes


@attrs.frozen
class LinkUp:
    """A link came up: both ends receive each other's datagrams."""

    neighbor: str
    local: Address
    remote: Address


@attrs.frozen
class LinkDown:
    """A neighbor is gone; ``reason`` is for the log."""

    neighbor: str
    reason: str


@attrs.frozen
class LinkNeverUp:
    """Nothing has come from a neighbor for ten dead intervals, and the link has not been UP in its life."""

    neighbor: str
    local: Address
    remote: Address


@attrs.frozen
class LinkMtuChanged:
    """The path of the link from ``local`` to ``neighbor`` was found to carry IP packets of ``mtu_bytes``.

    ``configured_bytes`` is the most that the link's configuration allows.
    """

    neighbor: str
    local: Address
    mtu_bytes: int
    configured_bytes: int


@attrs.frozen
class PeerReachable:
    """A session with this node can be had: there is a path."""

    peer: str


@attrs.frozen
class PeerUnreachable:
    """No path, no keys, or no answer within ``give up``."""

    peer: str
    reason: str


@attrs.frozen
class NodeEquivocated:
    """Two LSAs of this node with one sequence number and different content were seen, for the first time."""

    node: str


@attrs.frozen
class ConfigurationDiffers:
    """The configuration of a neighbor or peer differs from ours in this; in nothing any more when it is empty."""

    node: str
    differences: tuple[str, ...]


@attrs.frozen
class PathMeasured:
    """What a measurement has found of one direction of a link; rates in bits per second of IP packets.

    ``is_least``: the path carries more than ``capacity_bps``, and the processes at its ends do not.
    """

    capacity_bps: int
    rate_bps: int
    """A rate that leaves no queue in the path."""
    loss_floor: float
    """The share that is lost whatever the rate is."""
    queue_delay: float
    """Seconds that most datagrams waited for at most in the path's queue, at ``rate_bps``."""
    mtu_bytes: int
    is_least: bool


@attrs.frozen
class MeasurementEnded:
    """A measurement that this node had asked for is over: with ``out`` and ``back``, or with the reason why not."""

    neighbor: str
    reason: str
    local: Address | None = None
    remote: Address | None = None
    out: PathMeasured | None = None
    back: PathMeasured | None = None


StreamEvent: TypeAlias = Union[
    StreamOpened,
    StreamAccepted,
    DataReceived,
    StreamWritable,
    StreamFinished,
    StreamReset,
    StreamClosed,
]
"""What happens to one stream, named by ``stream``."""
Event: TypeAlias = Union[
    StreamEvent,
    PacketReceived,
    LinkUp,
    LinkDown,
    LinkNeverUp,
    LinkMtuChanged,
    PeerReachable,
    PeerUnreachable,
    NodeEquivocated,
    ConfigurationDiffers,
    MeasurementEnded,
]

RESET_BY_APPLICATION = 0
"""The application's TCP was reset."""
RESET_REFUSED = 1
"""The target refused the connection, or the egress cannot dial it now."""
RESET_NOT_ALLOWED = 2
"""The egress does not serve this target for this peer."""
RESET_PEER_LOST = 3
"""The peer restarted, or was silent for longer than ``give up``."""
RESET_PROTOCOL = 4
"""The peer broke the protocol on this stream."""
RESET_SHUTDOWN = 5
"""The daemon is stopping."""
RESET_PORT_UNREACHABLE = 6
"""An ICMP port unreachable refused the connection to the target."""
RESET_HOST_UNREACHABLE = 7
"""The target's host cannot be reached from the egress."""
RESET_NETWORK_UNREACHABLE = 8
"""The target's network cannot be reached from the egress."""
RESET_PROHIBITED = 9
"""A firewall on the way from the egress to the target prohibits the connection."""
RESET_TIMED_OUT = 10
"""The target does not answer."""
CONNECT_FAILURES = frozenset(
    (
        RESET_REFUSED,
        RESET_PORT_UNREACHABLE,
        RESET_HOST_UNREACHABLE,
        RESET_NETWORK_UNREACHABLE,
        RESET_PROHIBITED,
        RESET_TIMED_OUT,
    )
)
"""The codes with which an egress says how connecting to a target failed."""


def counter(description: str, trouble: str | None = None) -> Any:
    """Declare a field of an attrs record that counts from 0 and never goes back.

    It is reported to Prometheus under its own name, described by ``description``. ``trouble``: what ``seamless status``
    calls it among what was refused or dropped; it says nothing of counters without.
    """
    return attrs.field(default=0, metadata={COUNTER: description, TROUBLE: trouble})


def gauge(name: str, description: str) -> Any:
    """Declare a field of an attrs record that goes up and down, reported to Prometheus as ``name``, with its unit."""
    return attrs.field(metadata={GAUGE: (name, description)})


COUNTER = "counter"
"""Key of the metadata of a `counter`: its description."""
TROUBLE = "trouble"
"""Key of the metadata of a `counter`: its name among what was refused or dropped, or None."""
GAUGE = "gauge"
"""Key of the metadata of a `gauge`: its name and description."""


def troubles(record_type: type[attrs.AttrsInstance], values: Mapping[str, Any]) -> dict[str, int]:
    """Return the counters in ``values`` that stand for trouble, by its name; those of one name are added up."""
    found: dict[str, int] = {}
    for field in attrs.fields(record_type):
        name = field.metadata.get(TROUBLE)
        if name is not None:
            found[name] = found.get(name, 0) + values[field.name]
    return found


@attrs.define
class AckEvent:
    """What one ACK says about a link's path, or the time that has passed without one; sizes in bytes of IP packets."""

    now: float
    bytes_in_flight: int
    """What is left in flight."""
    smoothed_rtt: float
    """The smoothed RTT in seconds."""
    acked_bytes: int = 0
    sent_at: float = 0.0
    """When the newest of what was acknowledged had been sent."""
    rtt: float | None = None
    """The raw RTT sample in seconds: the path's, where kernels say when datagrams came; None where there is none."""
    receive_time: float | None = None
    """When the datagram of that sample was received, on the neighbor's clock, which starts anywhere and may lie."""
    lost_bytes: int = 0
    lost_packets: int = 0
    lost_batches: Sequence[tuple[float, int]] = ()
    """When what is lost had been sent, and how many bytes of it, oldest first."""
    lost_runs: int = 0
    """How many runs of consecutive datagrams that is: on some paths losses come in bursts."""
    spurious_packets: int = 0
    """How many of those declared lost before were acknowledged now."""
    has_backlog: bool = True
    """Whether datagrams wait to be sent."""
    delay_variation: float = 0.0
    """How many seconds longer than the fastest lately the datagram of the RTT sample took on its way there; no more
    than that sample, whatever the neighbor says."""


@attrs.frozen
class PathEstimate:
    """What a congestion controller knows about its path, for people; rates in bits per second, times in seconds."""

    state: str
    """What it does now, in the words of its specification."""
    reason: str
    """Why the rate is what it is, in one clause."""
    bottleneck_bps: float | None = None
    """The rate that the path carries, losses included that do not depend on the rate; None while not known."""
    min_rtt: float | None = None
    queue_delay: float = 0.0
    """What datagrams wait for in the path's queue now."""
    loss_floor: float = 0.0
    """The share that is lost whatever the rate is."""
    congestion_loss: float = 0.0
    """The share that was lost beyond that in the last round trip."""


class CongestionController(Protocol):
    """How much may be in flight on a link, and how fast (RFC 9002, section 7).

    It is asked for window and rate after each event: a batch that was sent, an ACK, and its own deadline.
    """

    name: str
    min_burst_bytes: int
    """What may go out at once after a pause, however low the rate is."""

    def window_bytes(self) -> int:
        """Return the most bytes that may be in flight."""
        ...

    def pacing_rate_bps(self) -> float:
        """Return the rate, in bits per second of IP packets, at which the pacer sends."""
        ...

    def on_sent(self, bytes_in_flight: int, is_application_limited: bool, now: float) -> None:
        """Take note of a batch that went out, after which ``bytes_in_flight`` are in flight.

        ``is_application_limited``: before it, window and rate had allowed more than there was to send.
        """
        ...

    def on_ack(self, event: AckEvent) -> None:
        """Take note of what is acknowledged and what is lost."""
        ...

    def on_abandoned(self) -> None:
        """Take note that nothing is in flight any more: the link went down or its neighbor restarted."""
        ...

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due; None for never."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Act on the deadline that has passed."""
        ...

    def path_estimate(self) -> PathEstimate:
        """Return what is known about the path."""
        ...
