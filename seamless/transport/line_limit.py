"""How many log lines others may cause: a core with explicit time, which knows nothing of logs.

The problem: a connection to the capture port, a peer's OPEN or a stranger's datagram costs its sender next to nothing,
and each was worth a line of ours. 58,106 lines in ten seconds took the disk, and a third of the transfer beside them.
So every *kind* of line (its format) has a token bucket, and every *source* within a kind (a client's address, a peer)
has a smaller one: a source that is loud leaves room for the others, and all sources together are bounded too. What is
left out is counted by kind, and reported with its number once a while.

The rules:

* A line is written while both its source and its kind have a token. Otherwise it is counted.
* Counts of what was left out are due `REPORT_INTERVAL` after the first of them, and all at once at the end.
* Memory is bounded: at most `MAX_SOURCES` sources have a bucket; the one that was heard last longest ago gives way.
"""

from __future__ import annotations

from typing import Final

import attrs

from seamless.delivery.token_bucket import TokenBuckets

SOURCE_LINES: Final = 32.0
"""Lines of one kind that one source may cause at once: a person who tries something sees all of it..."""
SOURCE_LINES_PER_SECOND: Final = 0.5
"""...and what goes on for hours fills no disk: 40,000 lines a day."""
KIND_LINES: Final = 200.0
"""The same for all sources of a kind: more than a start of a large overlay logs of its nodes."""
KIND_LINES_PER_SECOND: Final = 2.0
REPORT_INTERVAL: Final = 10.0
"""Seconds between two lines about how many were left out."""
MAX_SOURCES: Final = 1024
"""Buckets kept: a source that was forgotten begins anew, but within its kind's bucket."""


@attrs.frozen
class LeftOut:
    """``lines`` lines of ``kind`` were not written in the last ``seconds``."""

    kind: str
    lines: int
    seconds: float


@attrs.define
class _Count:
    lines: int
    since: float


class LineLimiter:
    """Decides line by line, and counts."""

    def __init__(self) -> None:
        self._kinds: TokenBuckets[str] = TokenBuckets(KIND_LINES, KIND_LINES_PER_SECOND)
        self._sources: TokenBuckets[tuple[str, str]] = TokenBuckets(SOURCE_LINES, SOURCE_LINES_PER_SECOND, MAX_SOURCES)
        self._left_out: dict[str, _Count] = {}
        self.lines_left_out = 0
        """All that were left out so far."""

    def admits(self, kind: str, source: str, now: float) -> bool:
        """Return whether a line of this kind that ``source`` causes is written; count it if not."""
        of_kind = self._kinds.bucket(kind, now)
        of_source = self._sources.bucket((kind, source), now)
        if of_kind.refill(now) >= 1 and of_source.take(now):
            of_kind.spend(1, now)
            return True
        count = self._left_out.setdefault(kind, _Count(0, now))
        count.lines += 1
        self.lines_left_out += 1
        return False

    @property
    def sources_kept(self) -> int:
        """Return how many sources have a bucket."""
        return len(self._sources)

    def next_timeout(self) -> float | None:
        """Return when `take_left_out` has something; None while nothing was left out."""
        since = min((count.since for count in self._left_out.values()), default=None)
        return None if since is None else since + REPORT_INTERVAL

    def take_left_out(self, now: float, *, all_of_them: bool = False) -> list[LeftOut]:
        """Return the counts that are due, or ``all_of_them``, and begin to count anew."""
        due = [kind for kind, count in self._left_out.items() if all_of_them or now >= count.since + REPORT_INTERVAL]
        counts = [(kind, self._left_out.pop(kind)) for kind in due]
        return [LeftOut(kind, count.lines, now - count.since) for kind, count in counts]
