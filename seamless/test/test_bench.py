"""Every benchmark still runs: each for about a second, as ``python -m bench NAME --smoke`` by itself.

What it prints is a table; how fast anything was says nothing here, on a machine that does other work. Most of a
benchmark's time is waiting for wires and nodes, so the suite of this module runs `AT_ONCE` of them at a time, each in a
lab of its own.
"""

from __future__ import annotations

import subprocess
import sys
import unittest
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from twisted.trial.runner import TestLoader, TestSuite
from twisted.trial.unittest import SynchronousTestCase

from seamless.lab.daemons import environment
from seamless.test.lab.ground import why_not

CHECKOUT = Path(__file__).parents[2]
TIMEOUT: Final = 120.0
"""Seconds: more than any takes on a busy machine."""
AT_ONCE: Final = 3


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m bench`` in the checkout."""
    argv = [sys.executable, "-m", "bench", *words]
    return subprocess.run(argv, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT)


def smoke(name: str) -> subprocess.CompletedProcess[str]:
    """Run one benchmark for about a second of each measurement."""
    return bench(name, "--smoke")


_running: dict[str, Future[subprocess.CompletedProcess[str]]] = {}
"""By name: the benchmarks that the suite has started, or will, and that no test has asked for yet."""


class SmokeCase(SynchronousTestCase):
    skip: str | None = None

    def assert_runs(self, name: str, *shown: str) -> None:
        """Assert that a benchmark ends well and prints what it is about, in figures."""
        running = _running.pop(name, None)
        done = smoke(name) if running is None else running.result()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for word in shown:
            self.assertIn(word, done.stdout)
        self.assertRegex(done.stdout, r"\d\.?\d*")


class Words(SynchronousTestCase):
    def test_without_a_name_the_experiments_are_listed(self) -> None:
        listed = bench().stdout.split()
        for name in ("crypto", "session", "splice", "udp", "bed", "keystroke", "relay", "reorder", "emulator"):
            self.assertIn(name, listed)

    def test_an_unknown_name_is_an_error_that_says_which_there_are(self) -> None:
        done = bench("nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no nonsense; there are crypto, ", done.stderr)


class Micro(SmokeCase):
    def test_crypto(self) -> None:
        self.assert_runs("crypto", "seal 1400 bytes", "open an initiation", "cookie given out")

    def test_session(self) -> None:
        self.assert_runs("session", "us/record out")

    def test_splice(self) -> None:
        self.assert_runs("splice", "up ", "down ", "idle ")

    def test_udp(self) -> None:
        self.assert_runs("udp", "loopback    44 a call")


class Lab(SmokeCase):
    skip = why_not()

    def test_bed(self) -> None:
        self.assert_runs("bed", "TCP BBR", "seamless", "met     bytes on the native wire: 0, none")

    def test_paper(self) -> None:
        self.assert_runs("paper", "flood at 200 Mb/s", "scp")

    def test_gigabit(self) -> None:
        self.assert_runs("gigabit", "seamless, three hops")

    def test_keystroke(self) -> None:
        self.assert_runs("keystroke", "0 % loss, seamless")

    def test_short(self) -> None:
        self.assert_runs("short", "TCP BBR", "30 ms, 0 % loss, 1 MB: ")

    def test_measure(self) -> None:
        self.assert_runs("measure", "20.0 Mb/s", "rate line")

    def test_wakeup(self) -> None:
        self.assert_runs("wakeup", "over three hops", "seamless ping", "idle: ", "virtual time")

    def test_relay(self) -> None:
        self.assert_runs("relay", "r1 killed with -9", "equal to the byte")

    def test_compared(self) -> None:
        self.assert_runs("compared", "TCP CUBIC", "times the best of the others")

    def test_reorder(self) -> None:
        self.assert_runs("reorder", "local, no reorder buffer")

    def test_jitter(self) -> None:
        self.assert_runs("jitter", "native", "local")

    def test_local(self) -> None:
        self.assert_runs("local", "local / payload")

    def test_router(self) -> None:
        self.assert_runs("router", "router, a1 to 10.2.2.1")

    def test_emulator(self) -> None:
        self.assert_runs("emulator", "one, perfect")


class SmokeSuite(TestSuite):
    """All tests of this module; their benchmarks run beside each other."""

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Start the benchmarks in the order of the tests, and run the tests."""
        methods = [method for case in (Lab, Micro) if not case.skip for method in sorted(vars(case))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name in (method.removeprefix("test_") for method in methods if method.startswith("test_")):
                _running[name] = pool.submit(smoke, name)
            super().run(result)
        return result


def testSuite() -> SmokeSuite:
    """Return all tests of this module (trial asks for it)."""
    return SmokeSuite(TestLoader().loadClass(case) for case in (Lab, Micro, Words))
