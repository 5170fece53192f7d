"""What one stream does now, at one of its ends: what waits in each direction, and what holds up what is sent."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from seamless.session.stream import Stream

Hold: TypeAlias = Literal["opening", "window", "session window", "link", "path"]
"""What bytes wait for that are to be sent: the peer's ACCEPT; the stream's window, which opens as the application at
the other end reads; the window over all streams with that peer; room on the first link; a path to the peer."""


@attrs.frozen
class StreamStatus:
    """Figures of one stream at this end. ``held_by`` is None when all that was written is sent."""

    accepted: bool
    held_by: Hold | None
    unsent_bytes: int
    """Written by the application and not sent yet."""
    in_flight_bytes: int
    """Sent and not acknowledged yet."""
    window_bytes: int
    """What the peer still lets this end send."""
    resends: int
    """How often bytes of this stream were taken for lost, and sent again, end to end. Links resend more, hop by hop."""
    unread_bytes: int
    """Received in order, and not taken by the application yet."""
    rtt: float
    """Smoothed round trip time of the session, in seconds; a guess until the first answer."""
    missing_bytes: int
    """Between what is in order and the last byte that arrived: something in there is missing."""


def status_of(stream: Stream, rtt: float, session_window_bytes: int, is_connected: bool) -> StreamStatus:
    """Return the status of a stream; ``is_connected``: there are keys and a path."""
    send, receive = stream.send, stream.receive
    return StreamStatus(
        accepted=stream.flowing,
        held_by=_held_by(stream, session_window_bytes, is_connected),
        unsent_bytes=send.unsent,
        in_flight_bytes=send.under_way,
        window_bytes=send.limit - send.next_offset,
        resends=send.resends,
        unread_bytes=receive.unread,
        rtt=rtt,
        missing_bytes=receive.highest - receive.in_order,
    )


def _held_by(stream: Stream, session_window_bytes: int, is_connected: bool) -> Hold | None:
    send = stream.send
    waits = send.unsent or send.under_way or (stream.ours and not stream.flowing)
    if waits and not is_connected:
        return "path"
    if stream.ours and not stream.flowing and not send.ready():
        return "opening"
    if not send.unsent:
        return None
    if not send.ready():
        return "window"
    return "link" if send.reserved or session_window_bytes > 0 else "session window"
