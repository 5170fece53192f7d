"""`connect` and `source` once more, with nodes that gave up their privilege: the small process beside them has it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.runner import TestSuite

from seamless.lab import daemons
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.connectbed import CLOSED, SERVER, Attempt
from seamless.test.lab.ground import why_not
from seamless.test.lab.test_source import CLIENT, SourceTests
from seamless.test.trust.daemons import SKIP, USER, USER_ID, status_of
from seamless.test.trust.unprivileged import NO_CAPABILITIES


class ShedTests(SourceTests):
    """``twistd --uid``."""

    skip = why_not() or SKIP

    def setUp(self) -> None:
        plain = daemons.command

        def command(configuration_file: Path, node: str, key_file: Path) -> list[str]:
            words = plain(configuration_file, node, key_file)
            at = words.index("-n") + 1
            return [*words[:at], f"--uid={USER}", *words[at:]]

        self.patch(daemons, "command", command)
        super().setUp()

    def start(self) -> None:
        super().start()
        for node in ("src", "dst"):
            status = status_of(self.lab.node(node).process.pid)
            self.assertEqual({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}, {NO_CAPABILITIES})
            self.assertEqual(set(status["Uid"].split()), {str(USER_ID)})

    def test_a_closed_port(self) -> None:
        self.start()
        attempt = Attempt("a", SERVER[0], CLOSED, CLIENT[0])
        self.assertEqual(self.attempts([attempt])[attempt].error, "ECONNREFUSED")


class ShedSuite(ClassSuite):
    """Its bed, with the two tests that show whether privilege is missing anywhere."""

    def __init__(self) -> None:
        super().__init__(ShedTests)
        self._tests = [ShedTests("test_the_server_sees_the_client"), ShedTests("test_a_closed_port")]


def testSuite() -> TestSuite:
    """Return the tests of this module: those of the base class run as root elsewhere."""
    return TestSuite([ShedSuite()])
