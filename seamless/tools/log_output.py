"""The daemon's log: which lines are written, and in what form, with an unmodified twistd.

twistd asks the application that it starts for an observer before it makes one of its own. Ours goes to the file that
twistd's own would have gone to (``--logfile``, standard output with ``-n``), as text like twistd's, or as one JSON
object a line. What other nodes say was escaped when it arrived; in JSON control characters are escaped in any case.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile

from seamless.errors import UsageError

LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
"""From the one with the most lines: debug, info, warn, error, critical."""
DEFAULT_LEVEL: Final = "info"
DEFAULT_FILE: Final = "twistd.log"
"""As twistd has it in the background."""


def json_line(event: LogEvent) -> str | None:
    """Return an event as one JSON object in a line: time (RFC 3339), level, logger, message, and a traceback if any."""
    record = {
        "time": formatTime(event.get("log_time")),
        "level": getattr(event.get("log_level"), "name", DEFAULT_LEVEL),
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        record["traceback"] = failure.getTraceback()
    return json.dumps(record) + "\n"


FORMATS: Final[dict[str, Callable[[LogEvent], str | None]]] = {"text": formatEventAsClassicLogText, "json": json_line}


def check(level: str, form: str) -> None:
    """Raise `UsageError` when a level or a format is none."""
    if level not in LEVELS:
        raise UsageError(f"--log-level {level!r} is none: say one of {', '.join(LEVELS)}")
    if form not in FORMATS:
        raise UsageError(f"--log-format {form!r} is none: say one of {', '.join(FORMATS)}")


def make_observer(file: TextIO, level: str, form: str) -> ILogObserver:
    """Return what writes the lines of this level and above to ``file``; arguments as `check` wants them."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.lookupByName(level))
    return FilteringLogObserver(FileLogObserver(file, FORMATS[form]), [predicate])


def open_log(path: str | None, *, is_foreground: bool) -> TextIO:
    """Return the file that twistd would write its log to; SIGUSR1 rotates it as it rotates twistd's.

    Raise `UsageError` when it cannot be written to.
    """
    if is_foreground and (not path or path == "-"):
        return sys.stdout
    try:
        file: Any = LogFile.fromFullPath(path or DEFAULT_FILE)
    except OSError as error:
        raise UsageError(f"cannot write the log to {path or DEFAULT_FILE}: {error.strerror}; see --logfile") from None
    if not signal.getsignal(signal.SIGUSR1):

        def rotate(number: int, frame: FrameType | None) -> None:
            from twisted.internet import reactor

            reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

        signal.signal(signal.SIGUSR1, rotate)
    opened: TextIO = file
    return opened
