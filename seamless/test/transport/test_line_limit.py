"""However often others cause a line, the log has few of them, and the number of those left out."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from seamless.transport.limited_log import LimitedLog
from seamless.transport.line_limit import (
    KIND_LINES,
    KIND_LINES_PER_SECOND,
    MAX_SOURCES,
    REPORT_INTERVAL,
    SOURCE_LINES,
    SOURCE_LINES_PER_SECOND,
    LeftOut,
    LineLimiter,
)


class LineLimiterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.limiter = LineLimiter()

    def admitted(self, kind: str, source: str, times: int, now: float) -> int:
        return sum(self.limiter.admits(kind, source, now) for _ in range(times))

    def test_a_flood_of_one_source(self) -> None:
        written = sum(self.admitted("refused", "127.0.0.1", 5810, second / 10) for second in range(101))
        self.assertEqual(written, SOURCE_LINES + 10 * SOURCE_LINES_PER_SECOND)
        self.assertEqual(self.limiter.lines_left_out, 101 * 5810 - written)

    def test_a_loud_source_leaves_room_for_others_and_other_kinds(self) -> None:
        self.admitted("refused", "loud", 100_000, 0.0)
        self.assertEqual(self.admitted("refused", "quiet", 3, 0.0), 3)
        self.assertEqual(self.admitted("ended", "loud", 3, 0.0), 3)

    def test_many_sources_together(self) -> None:
        written = sum(self.admitted("refused", f"source {number}", 10, 0.0) for number in range(100_000))
        self.assertEqual(written, KIND_LINES)
        written = sum(self.admitted("refused", f"new {number}", 1, 10.0) for number in range(1000))
        self.assertEqual(written, 10 * KIND_LINES_PER_SECOND)

    def test_memory_is_bounded(self) -> None:
        for number in range(10 * MAX_SOURCES):
            self.limiter.admits("refused", f"source {number}", 0.0)
        self.assertLessEqual(self.limiter.sources_kept, MAX_SOURCES)

    def test_what_was_left_out_is_due_after_the_interval(self) -> None:
        self.assertIsNone(self.limiter.next_timeout())
        self.admitted("refused", "a", 52, 5.0)
        self.admitted("ended", "a", 34, 6.0)
        self.assertEqual(self.limiter.next_timeout(), 5.0 + REPORT_INTERVAL)
        self.assertEqual(self.limiter.take_left_out(5.0), [])
        self.assertEqual(self.limiter.take_left_out(5.0 + REPORT_INTERVAL), [LeftOut("refused", 20, REPORT_INTERVAL)])
        self.assertEqual(self.limiter.take_left_out(7.0, all_of_them=True), [LeftOut("ended", 2, 1.0)])
        self.assertIsNone(self.limiter.next_timeout())


class LimitedLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        log = Logger(observer=self.note)  # type: ignore[arg-type]
        self.limited = LimitedLog(self.clock, log)

    def note(self, event: LogEvent) -> None:
        self.lines.append(f"{cast(str, event['log_level'].name)}: {formatEvent(event)}")

    def test_a_flood_is_counted(self) -> None:
        for number in range(1000):
            self.limited.warn("a", "refused {number}", number=number)
        self.assertEqual(self.lines, [f"warn: refused {number}" for number in range(32)])
        self.clock.advance(REPORT_INTERVAL)
        self.assertEqual(
            self.lines[32:], ["warn: 968 more such lines were left out in the last 10 s, the last of them: refused 999"]
        )
        self.clock.advance(10 * REPORT_INTERVAL)
        self.assertEqual((len(self.lines), self.clock.getDelayedCalls()), (33, []))

    def test_the_count_is_written_at_the_end(self) -> None:
        for _ in range(34):
            self.limited.info("a", "again")
        self.clock.advance(1)
        self.limited.close()
        self.assertEqual(
            self.lines[32:], ["info: 2 more such lines were left out in the last 1 s, the last of them: again"]
        )
        for _ in range(34):
            self.limited.info("a", "again")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_reactor_the_next_line_brings_the_count(self) -> None:
        times = [0.0]
        limited = LimitedLog(None, Logger(observer=self.note))  # type: ignore[arg-type]
        self.patch(limited, "_seconds", lambda: times[0])
        for _ in range(33):
            limited.info("a", "again")
        times[0] = REPORT_INTERVAL
        limited.info("a", "again")
        self.assertEqual(
            self.lines[32:],
            ["info: 1 more such lines were left out in the last 10 s, the last of them: again", "info: again"],
        )

    def test_failures(self) -> None:
        for _ in range(50):
            try:
                raise ValueError("of a protocol")
            except ValueError:
                self.limited.failure("peer", "a protocol failed")
        self.assertEqual(len(self.lines), 32)
