"""The daemon's log: levels, forms, and a twistd that takes its observer from the service."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.logger import ILogObserver, Logger
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import UsageError
from seamless.tools.exit_report import ExitReport, Supervised
from seamless.tools.log_output import DEFAULT_LEVEL, FORMATS, LEVELS, check, make_observer, open_log

HOSTILE = "a\x1b[2Jb\nc\x00"


class ObserverTests(SynchronousTestCase):
    def written(self, level: str, form: str) -> str:
        """Return what becomes of one line of each level, and of an exception."""
        file = StringIO()
        log = Logger("seamless.test", observer=make_observer(file, level, form))
        for name in LEVELS:
            getattr(log, "critical" if name == "critical" else name)("line of {name}: {text}", name=name, text=HOSTILE)
        try:
            raise ZeroDivisionError("a mistake")
        except ZeroDivisionError:
            log.failure("it failed")
        return file.getvalue()

    def test_levels(self) -> None:
        self.assertEqual(LEVELS, ("debug", "info", "warn", "error", "critical"))
        for form in FORMATS:
            for number, level in enumerate(LEVELS):
                written = self.written(level, form)
                found = [name for name in LEVELS if f"line of {name}" in written]
                self.assertEqual(found, list(LEVELS[number:]), (form, level))
                self.assertIn("ZeroDivisionError", written)

    def test_json_is_one_object_a_line(self) -> None:
        lines = [json.loads(line) for line in self.written("debug", "json").splitlines()]
        self.assertEqual([line["level"] for line in lines], [*LEVELS, "critical"])
        self.assertEqual(lines[1]["message"], f"line of info: {HOSTILE}")
        self.assertEqual(lines[1]["logger"], "seamless.test")
        self.assertRegex(lines[1]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}$")
        self.assertIn("ZeroDivisionError: a mistake", lines[-1]["traceback"])
        self.assertTrue(all(line.isprintable() for line in self.written("debug", "json").splitlines()))

    def test_nonsense(self) -> None:
        for level, form in (("loud", "text"), ("", "text"), ("info", "xml"), ("INFO", "text")):
            error = self.assertRaises(UsageError, check, level, form)
            self.assertRegex(str(error), "say one of")
        check(DEFAULT_LEVEL, "json")


class FileTests(SynchronousTestCase):
    def test_a_file_that_cannot_be_written(self) -> None:
        with self.assertRaisesRegex(UsageError, "cannot write the log to /nonexistent/log: .*see --logfile"):
            open_log("/nonexistent/log", is_foreground=False)

    def test_a_named_file(self) -> None:
        path = Path(self.mktemp()).absolute()
        file: Any = open_log(str(path), is_foreground=True)
        file.write("line\n")
        file.close()
        self.assertEqual(path.read_text(), "line\n")

    def test_twistd_is_given_the_observer(self) -> None:
        """It asks its application for this component (twisted.application.app.AppLogger)."""
        for observer in (None, make_observer(StringIO(), "info", "text")):
            service = Supervised(ExitReport(daemonizes=False), reactor)
            service.observer = observer
            application: Any = Application("seamless")
            service.setServiceParent(application)
            self.assertIs(application.getComponent(ILogObserver, None), observer)
