"""What the floors say to one another: batches, events, and the policies that are chosen by name.

A *core* is driven with explicit time and has six verbs: ``receive_datagrams``, commands, ``datagrams_to_send``,
``next_timeout``, ``handle_timeout`` and ``next_event``. Times are float seconds of a monotonic clock.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, Union

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


# Events. A node (and below it a session) hands these to its owner.


@attrs.frozen
class StreamOpened:
    """The peer asks for a stream to ``target``; answer with ``accept_stream`` or ``reset``."""

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
    """A neighbor is heard and hears us."""

    neighbor: str
    local: Address
    remote: Address


@attrs.frozen
class LinkDown:
    """A neighbor is gone; ``reason`` is for the log."""

    neighbor: str
    reason: str


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


StreamEvent: TypeAlias = Union[
    StreamOpened,
    StreamAccepted,
    DataReceived,
    StreamWritable,
    StreamFinished,
    StreamReset,
    StreamClosed,
    PacketReceived,
]
Event: TypeAlias = Union[
    StreamEvent,
    LinkUp,
    LinkDown,
    LinkMtuChanged,
    PeerReachable,
    PeerUnreachable,
    NodeEquivocated,
    ConfigurationDiffers,
]

RESET_BY_APPLICATION = 0
"""The application's TCP was reset."""
RESET_REFUSED = 1
"""Nobody listens at the target, or it cannot be reached."""
RESET_NOT_ALLOWED = 2
"""The egress does not serve this target for this peer."""
RESET_PEER_LOST = 3
"""The peer restarted, or was silent for longer than ``give up``."""
RESET_PROTOCOL = 4
"""The peer broke the protocol on this stream."""
RESET_SHUTDOWN = 5
"""The daemon is stopping."""


class CongestionController(Protocol):
    """How much may be in flight on a link, and how fast (RFC 9002, section 7)."""

    name: str

    def window_bytes(self) -> int:
        """Return the most bytes that may be in flight."""
        ...

    def pacing_rate_bps(self) -> float:
        """Return the rate, in bits per second of IP packets, at which the pacer sends."""
        ...

    def on_acked(self, acked_bytes: int, bytes_in_flight: int, sent_at: float, rtt: float, now: float) -> None:
        """Take note of newly acked bytes, the last of them sent at ``sent_at``."""
        ...

    def on_lost(self, lost_bytes: int, sent_at: float, now: float) -> None:
        """Take note of lost bytes, the last of them sent at ``sent_at``."""
        ...
