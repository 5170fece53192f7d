"""What a session may use, in one frozen record: memory, streams, timeouts. Each has a unit and a reason."""

from __future__ import annotations

from typing import Final

import attrs

DEFAULT_MEMORY_BYTES: Final = 64 << 20
"""Bytes: lets a stream run at 1 Gb/s over 130 ms, and keeps a node under 300 MB."""


@attrs.frozen
class Limits:
    """Bounds of one session. The defaults are those of `within` for `DEFAULT_MEMORY_BYTES`."""

    @classmethod
    def within(cls, memory_bytes: int, *, give_up: float) -> Limits:
        """Return the bounds of a session whose slow readers may leave ``memory_bytes`` unread.

        One stream may have a quarter of that, so 512 MiB let it run at 10 Gb/s over 100 ms.
        """
        return cls(
            stream_window_max=memory_bytes // 4,
            session_window_max=memory_bytes // 2,
            unread_max=memory_bytes,
            held_max=memory_bytes,
            send_buffer_max=memory_bytes // 4,
            reassembly_max=memory_bytes // 2,
            give_up=give_up,
        )

    stream_window_max: int = 16 << 20
    """Bytes: the most that one stream may have received and not yet consumed."""

    stream_window_initial: int = 1 << 20
    """Bytes: where a stream's window begins while the path's rate is not known: 280 Mb/s over 30 ms. It doubles every
    round trip while it is too small."""

    session_window_max: int = 32 << 20
    """Bytes: the most that may be under way to us over all streams."""

    unread_max: int = 64 << 20
    """Bytes in order that slow readers together may leave unread before the session window takes note of them."""

    held_max: int = 64 << 20
    """Bytes of memory for what came before the bytes or the OPEN that it follows: a whole session window of it, and as
    much again for what small pieces and streams take besides their bytes."""

    send_buffer_max: int = 16 << 20
    """Bytes: the most that applications may hand to all streams ahead of what was sent."""

    reassembly_max: int = 32 << 20
    """Bytes of fragments whose records are not complete: a whole session window may be waiting for resends."""

    max_streams: int = 65_536
    """Streams open at once that this end may open; the other end may open as many."""

    give_up: float = 30.0
    """Seconds without any acknowledgement, while we wait for one, after which the peer counts as lost."""

    watch_interval: float = 5.0
    """Seconds of silence, while streams are open, after which the peer is asked whether it lives."""
