"""Events of a session besides those of its streams, and its status."""

from __future__ import annotations

from typing import TypeAlias, Union

import attrs

from seamless.interfaces import PacketReceived, StreamEvent
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


@attrs.frozen
class SessionStatus:
    """Figures of a session, for people and for metrics. Records and packets count from the start of the session."""

    established: bool
    streams: int
    smoothed_rtt: float
    """Seconds, of express records."""
    records_sent: int
    records_acked: int
    records_lost: int
    records_spurious: int
    """Spurious resends: records that were declared lost and arrived after all."""
    records_received: int
    records_repeated: int
    records_forged: int
    handshakes_refused: int
    fragments_refused: int
    reassembly_bytes: int
    unsent_bytes: int
    unread_bytes: int
    held_bytes: int
    """Memory of what came before the bytes or the OPEN that it follows."""
    granted_bytes: int
    """What the windows of all streams still allow the peer to send, were it not for the session's."""
    send_window_bytes: int
    """What the session's window allows this end to send."""
    receive_window_bytes: int
    """What it allows the peer to send."""
    packets_dropped: int
    bulk_rtt: float
