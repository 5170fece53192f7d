"""How far the peer may send: the windows that this end opens, and how they grow.

A stream's window is the most that the peer may have sent beyond what the application consumed. It must hold what a
round trip of the path carries, resends included. Routing knows the path's rate and delay, so windows begin at their
product and a little more (`PathRate`). What resends need beyond that, and what a path carries whose rate is not known,
is found out: each time that the window turns out to be what held the sender up, it grows. Seen from here that is so
when bytes which only the last update allowed arrive as soon as they can: about one round trip after it. A sender with
credit to spare has other bytes to send first, and they come later. A window that has just grown is judged by the next
update, not by the one that advertised it. (Measuring the time in which the application consumes a window, as is usual,
stops short where recovery on the way makes bytes wait much longer than a round trip.)

A reader that is slower than the path holds its sender up too, and a larger window would only have more bytes wait for
it. So a window grows only if the application had read nearly all when the update was sent; and a window that grew
beyond its first size, and is mostly unread, goes back to that. A stream that had to begin with less, as too much was
granted to others, gets the full size with its first update.

The session's window bounds memory. It opens with what arrived in order, consumed or not, so a reader who has stopped
stalls its own stream only; only what slow readers leave unread beyond ``unread_max`` is held against it. To
keep away from that, a window is never more than a share of what is left, as in the dynamic thresholds of shared-memory
switches (Choudhury and Hahne, 1998): first windows a share of what is not granted to any stream, windows that grow a
share of what is not unread. So windows are overcommitted, as memory is: only if readers of many grown windows stopped
in the same instant would the session wait for one of them.
"""

from __future__ import annotations

from typing import Final

import attrs

from seamless.errors import RemoteProtocolError
from seamless.session.limits import Limits
from seamless.wire.session_frames import SESSION_WINDOW_INITIAL_BYTES

PROMPT_ROUND_TRIPS: Final = 1.5
"""Bytes that an update allowed and that arrive within so many round trips were waiting for it."""

PROMPT_SLACK: Final = 0.005
"""Seconds more: what two event loops and the batches between them take."""

UPDATE_SHARE: Final = 3
UPDATE_STEP_MAX_BYTES: Final = 4 << 20
"""A window is advertised again when a third of it is free, or this much: early enough that the sender never waits, and
cheap. Of a window of 128 MiB a third is a third of what the path has under way."""

SHARE_OF_FREE: Final = 4
"""One stream's window is at most a quarter of the memory that unread bytes have left over."""

WINDOW_MIN_BYTES: Final = 16 << 10
"""No share is smaller: one record."""

FIRST_WINDOW_MIN_BYTES: Final = 64 << 10
"""No stream begins with less, however much is granted to others: the first window of Linux's TCP. What a server says
before it resets its connection, and its client's kernel would have taken in unread, so arrives here too. This much is
overcommitted: the session's window is what bounds memory."""

WINDOW_MARGIN: Final = 1.5
"""Windows begin at so many times the bandwidth-delay product: bytes that a hop sends again wait a round trip of that
hop more."""

PROCESSING_INTERVAL: Final = 0.002
"""Seconds that processors add to a round trip of a path of a few hops."""

SLOW_READER_SHARE: Final = 4
SLOW_READER_MIN_BYTES: Final = 32 << 10
"""A reader is slow when more than a quarter of its window, and more than this, is unread as an update is sent. What
waits for one that keeps up is a batch, of two records where windows are small."""

GROWTH: Final = 2.0
GROWTH_BEYOND_PATH: Final = 1.25
"""How a window grows: twofold while it may be far too small, and slowly beyond what a path of a known rate carries."""


@attrs.frozen
class PathRate:
    """What the path from the peer carries: bits per second, and the round trip time in seconds.

    ``is_estimate``: the rate is what congestion control has found so far, and may be far too low.
    """

    rate_bps: float
    round_trip: float
    is_estimate: bool

    def window_bytes(self) -> int:
        """Return the window that lets a stream have the whole path."""
        return int(WINDOW_MARGIN * self.rate_bps / 8 * (self.round_trip + PROCESSING_INTERVAL))


class SessionCredit:
    """The window over all streams that this end opens, the unread bytes of its applications, and the memory of what
    came too early."""

    __slots__ = (
        "limits",
        "first",
        "rate_is_known",
        "arrived",
        "in_order",
        "granted",
        "unread",
        "held",
        "advertised",
        "update_queued",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.begin_at(None)
        self.arrived = 0
        self.in_order = 0
        self.unread = 0
        self.granted = 0
        self.held = 0
        self.advertised = SESSION_WINDOW_INITIAL_BYTES
        self.update_queued = False

    def begin_at(self, path: PathRate | None) -> None:
        """Have windows begin at what ``path`` carries; None: its rate is not known."""
        limits = self.limits
        self.rate_is_known = path is not None and not path.is_estimate
        least = FIRST_WINDOW_MIN_BYTES if self.rate_is_known else limits.stream_window_initial
        wanted = least if path is None else max(least, path.window_bytes())
        self.first = min(limits.stream_window_max, wanted)

    def limit(self) -> int:
        """Return the sum over all streams that the peer may send now; it never shrinks."""
        excess = max(0, self.unread - self.limits.unread_max)
        return max(self.advertised, self.in_order + self.limits.session_window_max - excess)

    def update_due(self) -> bool:
        """Return whether enough has come free for an update."""
        return self.limit() - self.advertised >= min(
            UPDATE_STEP_MAX_BYTES, self.limits.session_window_max // UPDATE_SHARE
        )

    def advertise(self) -> int:
        """Return the limit for a frame that is about to be sent; it counts as advertised."""
        self.advertised = self.limit()
        return self.advertised

    def hold(self, nbytes: int) -> None:
        """Count memory for what came too early; raise `RemoteProtocolError` beyond `Limits.held_max`."""
        self.held += nbytes
        if self.held > self.limits.held_max:
            raise RemoteProtocolError("its streams have more gaps than any loss could make")

    def stream_share(self) -> int:
        """Return the most that one stream's window may be now."""
        return max(WINDOW_MIN_BYTES, (self.limits.unread_max - self.unread) // SHARE_OF_FREE)

    def first_window(self) -> int:
        """Return the window with which a stream begins."""
        share = (self.limits.unread_max - self.unread - self.granted) // SHARE_OF_FREE
        return min(self.first, max(FIRST_WINDOW_MIN_BYTES, share))

    def grown(self, size: int) -> int:
        """Return the size of a window of ``size`` that has turned out to be too small."""
        if self.rate_is_known and size >= self.limits.stream_window_initial:
            size = int(GROWTH_BEYOND_PATH * size)
        else:
            size = int(GROWTH * size)
        return min(self.limits.stream_window_max, size)


class StreamWindow:
    """The window of one stream that this end opens: ``advertised`` is the highest offset the peer may send."""

    __slots__ = ("size", "advertised", "consumed", "_advertised_size", "_probe_offset", "_probe_at")

    def __init__(self, credit: SessionCredit) -> None:
        self.size = self.advertised = credit.first_window()
        credit.granted += self.advertised
        self.consumed = 0
        self._advertised_size = self.size
        self._probe_offset: int | None = None
        self._probe_at = 0.0

    def consume(self, nbytes: int) -> None:
        """Count ``nbytes`` that the application has taken."""
        self.consumed += nbytes

    def limit(self, credit: SessionCredit) -> int:
        """Return the highest offset that the peer may send now; it never shrinks."""
        return max(self.advertised, self.consumed + min(self.size, credit.stream_share()))

    def update_due(self, credit: SessionCredit) -> bool:
        """Return whether enough has come free for an update."""
        share = min(self.size, credit.stream_share()) // UPDATE_SHARE
        return self.limit(credit) - self.advertised >= min(UPDATE_STEP_MAX_BYTES, share)

    def advertise(self, credit: SessionCredit, unread: int, now: float) -> int:
        """Return the limit for a frame that is about to be sent; it counts as advertised.

        ``unread``: bytes in order that the application has not taken.
        """
        if unread > max(SLOW_READER_MIN_BYTES, self.size // SLOW_READER_SHARE):
            self._probe_offset = None
            if 2 * unread > self.size > credit.first:
                self.size = credit.first
            probes = False
        else:
            self.size = max(self.size, credit.first)
            probes = self._probe_offset is None and self._advertised_size == self.size
        limit = self.limit(credit)
        if probes and limit > self.advertised:
            self._probe_offset, self._probe_at = self.advertised, now
        credit.granted += limit - self.advertised
        self.advertised = limit
        self._advertised_size = self.size
        return limit

    def arrived(self, highest: int, credit: SessionCredit, rtt: float, now: float) -> bool:
        """Let the window grow if bytes up to ``highest`` had waited for the last update; return whether it did."""
        if self._probe_offset is None or highest <= self._probe_offset:
            return False
        self._probe_offset = None
        if now - self._probe_at > PROMPT_ROUND_TRIPS * rtt + PROMPT_SLACK:
            return False
        before, self.size = self.size, max(self.size, credit.grown(self.size))
        return self.size > before
