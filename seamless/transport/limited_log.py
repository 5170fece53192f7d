"""A log for what others can cause: writes what `LineLimiter` admits, and how much it left out.

Use it in the place of a `Logger` wherever a client, a peer, a neighbor or a stranger decides how often a line is
written. Every such place makes its own; the kinds of lines are few and fixed, so all of them together are bounded too.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel, formatEvent

from seamless.transport import clock
from seamless.transport.line_limit import LineLimiter


class LimitedLog:
    """Lines of ``log`` within limits. Call `close` when no more come but the last ones.

    Without a ``reactor`` what was left out is reported with the next line, instead of in time.
    """

    def __init__(self, reactor: Any | None, log: Logger) -> None:
        self._reactor = reactor
        self._seconds = clock.now if reactor is None else reactor.seconds
        self._log = log
        self._limiter = LineLimiter()
        self._levels: dict[str, Any] = {}
        self._last: dict[str, dict[str, object]] = {}
        self._call: IDelayedCall | None = None
        self._is_closed = False

    @property
    def lines_left_out(self) -> int:
        """Return how many lines were left out so far."""
        return self._limiter.lines_left_out

    def debug(self, source: str, line: str, **fields: object) -> None:
        """Write a line (a format) for developers, unless ``source`` has caused too many like it."""
        self._write(LogLevel.debug, source, line, fields)

    def info(self, source: str, line: str, **fields: object) -> None:
        """Write a line about what is as it should be, unless ``source`` has caused too many like it."""
        self._write(LogLevel.info, source, line, fields)

    def warn(self, source: str, line: str, **fields: object) -> None:
        """Write a line that a person should see, unless ``source`` has caused too many like it."""
        self._write(LogLevel.warn, source, line, fields)

    def error(self, source: str, line: str, **fields: object) -> None:
        """Write a line about what failed here, unless ``source`` has caused too many like it."""
        self._write(LogLevel.error, source, line, fields)

    def failure(self, source: str, line: str, **fields: object) -> None:
        """Write a line and the traceback of the exception being handled, unless ``source`` has caused too many."""
        if self._admits(LogLevel.critical, source, line, fields):
            self._log.failure(line, None, LogLevel.critical, **fields)

    def _write(self, level: Any, source: str, line: str, fields: dict[str, object]) -> None:
        if self._admits(level, source, line, fields):
            self._log.emit(level, line, **fields)

    def _admits(self, level: Any, source: str, line: str, fields: dict[str, object]) -> bool:
        if self._reactor is None:
            self._report(all_of_them=False)
        if self._limiter.admits(line, source, self._seconds()):
            return True
        self._levels[line] = level
        self._last[line] = fields
        self._set_timer()
        return False

    def close(self) -> None:
        """Write what is still to be said of lines that were left out."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        self._is_closed = True
        self._report(all_of_them=True)

    def _set_timer(self) -> None:
        due_at = self._limiter.next_timeout()
        if self._reactor is not None and self._call is None and due_at is not None and not self._is_closed:
            self._call = self._reactor.callLater(max(0.0, due_at - self._seconds()), self._report_due)

    def _report_due(self) -> None:
        self._call = None
        self._report(all_of_them=False)
        self._set_timer()

    def _report(self, *, all_of_them: bool) -> None:
        for left_out in self._limiter.take_left_out(self._seconds(), all_of_them=all_of_them):
            last = self._last.pop(left_out.kind)
            self._log.emit(
                self._levels.pop(left_out.kind),
                "{lines} more such lines were left out in the last {seconds:.0f} s, the last of them: {last}",
                lines=left_out.lines,
                seconds=left_out.seconds,
                last=formatEvent({"log_format": left_out.kind, **last}),
            )
