"""Events of a session besides those of its streams, and its status."""

from __future__ import annotations

from typing import TypeAlias, Union

import attrs

from seamless.interfaces import PacketReceived, StreamEvent, counter, gauge
from seamless.wire.digest import ConfigurationDigest


@attrs.frozen
class SessionUp:
    """Keys are established with this incarnation of the peer: records can be sent."""

    incarnation: int


@attrs.frozen
class PeerLost:
    """All streams were reset, and ``reason`` says why; a sentence for a log. New streams may be opened and are tried
    anew."""

    reason: str


@attrs.frozen
class PathStalled:
    """Nothing that was sent in the last second or two before ``at`` has arrived: another path should be tried."""

    at: float


SessionEvent: TypeAlias = Union[StreamEvent, PacketReceived, SessionUp, PeerLost, PathStalled, ConfigurationDigest]
"""A digest is what the peer's configuration says of one section."""


@attrs.frozen(kw_only=True)
class SessionStatus:
    """Figures of a session, for people and for metrics. Records and packets count from the start of the session."""

    established: bool
    streams: int = gauge("streams", "Open streams")
    smoothed_rtt: float = gauge("rtt_seconds", "Smoothed round trip time of express records")
    """Seconds, of express records."""
    records_sent: int = counter("Records sent")
    records_acked: int = counter("Records acknowledged")
    records_lost: int = counter("Records taken for lost")
    records_spurious: int = counter("Records declared lost and then acknowledged")
    """Spurious resends: records that were declared lost and arrived after all."""
    records_received: int = counter("Records received")
    records_repeated: int = counter("Records received again")
    records_forged: int = counter("Records that did not open")
    handshakes_refused: int = counter("Handshake messages that were no good, or too many")
    fragments_refused: int = counter("Fragments that fit no record")
    reassembly_bytes: int = gauge("reassembly_bytes", "Bytes of incomplete records")
    unsent_bytes: int = gauge("unsent_bytes", "Bytes that wait to be sent")
    unread_bytes: int = gauge("unread_bytes", "Bytes that wait to be read")
    held_bytes: int
    """Memory of what came before the bytes or the OPEN that it follows."""
    granted_bytes: int
    """What the windows of all streams still allow the peer to send, were it not for the session's."""
    send_window_bytes: int
    """What the session's window allows this end to send."""
    receive_window_bytes: int
    """What it allows the peer to send."""
    packets_dropped: int = counter("Whole packets dropped because they were late")
    bulk_rtt: float = gauge("bulk_rtt_seconds", "Smoothed round trip time of bulk records")
