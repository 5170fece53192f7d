"""The demo: a small one for real, one that is stopped in the middle, and what it says about what it found."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_DONE, EXIT_FAILED, EXIT_PRIVILEGE, PrivilegeError, SeamlessError
from seamless.lab import demo, measure
from seamless.lab.daemons import environment
from seamless.lab.demo import Plan
from seamless.lab.demo_report import SEAMLESS, Figures, Row, report, targets
from seamless.lab.lab import Lab
from seamless.lab.measure import Copied
from seamless.test.lab.ground import why_not
from seamless.test.lab.test_lab import processes_mentioning

GOOD = "0a" * 32
BAD = "0b" * 32


def row(way: str, iperf3_mbps: float, scp_mbps: float, loss: float = 0.005, received: str = GOOD) -> Row:
    """Return a row whose file took scp ten seconds."""
    return Row(loss, way, iperf3_mbps * 1e6, Copied(int(scp_mbps * 1e6 / 8 * 10), 10.0, GOOD, received))


FIGURES = Figures(
    (row("TCP CUBIC", 6.6, 6.0), row("TCP BBR", 467, 300), row(SEAMLESS, 461.7, 240)),
    native_bytes=0,
    overlay_bytes=1_000_000_000,
)

REPORT = f"""
loss    program     TCP CUBIC      TCP BBR     seamless  / TCP CUBIC    / TCP BBR
0.5 %   iperf3       6.6 Mb/s     467 Mb/s     462 Mb/s           70         0.99
0.5 %   scp          6.0 Mb/s     300 Mb/s     240 Mb/s           40         0.80

Files that scp copied (random bytes; the time is that of the whole command), and their SHA-256:
0.5 %   TCP CUBIC  7.5 MB in 10.0 s     {GOOD}
0.5 %   TCP BBR    375.0 MB in 10.0 s   {GOOD}
0.5 %   seamless   300.0 MB in 10.0 s   {GOOD}

Meanwhile the overlay's middle wire was given 1000 MB.
met     iperf3 over seamless at 0.5 % loss: 462 Mb/s, at least 450 Mb/s
met     scp over seamless at 0.5 % loss: 40 times TCP CUBIC, at least 24
met     bytes on the native wire while connections were captured: 0, none"""


class Reporting(SynchronousTestCase):
    def test_report(self) -> None:
        self.assertEqual(report(FIGURES), REPORT)

    def test_each_target_can_be_missed(self) -> None:
        cubic, bbr, ours = FIGURES.rows
        slow = attrs.evolve(FIGURES, rows=(cubic, bbr, attrs.evolve(ours, iperf3_bps=449e6)))
        self.assertEqual([met for met, _ in targets(slow)], [False, True, True])
        slow = attrs.evolve(FIGURES, rows=(cubic, bbr, row(SEAMLESS, 461, 143)))
        self.assertEqual([met for met, _ in targets(slow)], [True, False, True])
        astray = attrs.evolve(FIGURES, native_bytes=1)
        self.assertEqual([met for met, _ in targets(astray)], [True, True, False])
        nowhere = attrs.evolve(FIGURES, overlay_bytes=0)
        self.assertEqual([met for met, _ in targets(nowhere)], [True, True, False])
        self.assertIn("\nMISSED  bytes on the native wire while connections were captured: 1, none", report(astray))

    def test_a_loss_without_targets_has_only_that_of_the_native_wire(self) -> None:
        rows = tuple(attrs.evolve(each, loss=0.2) for each in FIGURES.rows)
        self.assertEqual(len(targets(attrs.evolve(FIGURES, rows=rows))), 1)

    def test_a_copy_that_is_none_is_shown_with_both_checksums(self) -> None:
        rows = (*FIGURES.rows[:2], row(SEAMLESS, 461, 240, received=BAD))
        self.assertIn(f"{GOOD} BECAME {BAD}", report(attrs.evolve(FIGURES, rows=rows)))


class ReadingIperf3(SynchronousTestCase):
    def test_both_directions_at_once_are_told_apart(self) -> None:
        end = {
            "sum_sent": {"sender": True},
            "sum_received": {"bits_per_second": 3e8},
            "sum_received_bidir_reverse": {"bits_per_second": 2e8},
            "streams": [
                {"receiver": {"bits_per_second": 3e8, "sender": True}},
                {"receiver": {"bits_per_second": 2e8, "sender": False}},
            ],
            "sender_tcp_congestion": "cubic",
        }
        throughput = measure.read_throughput(end)
        self.assertEqual(throughput, measure.Throughput(3e8, (3e8,), 2e8, "cubic"))


class Command(SynchronousTestCase):
    def ends(self, outcome: Figures | BaseException) -> tuple[int, str, str]:
        """Run the command with this outcome; return exit code, output and errors."""

        def run(plan: Plan, tell: demo.Tell) -> Figures:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        self.patch(demo, "run", run)
        with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
            code = demo.main([])
        return code, output.getvalue(), errors.getvalue()

    def test_words(self) -> None:
        self.assertEqual(demo.parse([]), Plan((0.005, 0.05), 10.0, None))
        self.assertEqual(demo.parse(["--quick"]), Plan((0.005,), 4.0, None))
        chosen = demo.parse(["--quick", "--loss", "1", "--loss", "20", "--directory", "logs"])
        self.assertEqual(chosen, Plan((0.01, 0.2), 4.0, Path("logs")))
        with redirect_stderr(io.StringIO()):
            for words in (["--loss", "100"], ["--loss", "-1"], ["fast"]):
                self.assertRaises(SystemExit, demo.parse, words)

    def test_a_missed_target_is_shown_and_is_no_failure(self) -> None:
        code, output, _ = self.ends(attrs.evolve(FIGURES, native_bytes=1))
        self.assertEqual(code, EXIT_DONE)
        self.assertIn("MISSED", output)

    def test_a_copy_that_is_none_is_a_failure(self) -> None:
        code, output, _ = self.ends(attrs.evolve(FIGURES, rows=(*FIGURES.rows[:2], row(SEAMLESS, 1, 1, 0.005, BAD))))
        self.assertEqual(code, EXIT_FAILED)
        self.assertIn("BECAME", output)

    def test_errors_are_sentences_with_their_exit_codes(self) -> None:
        self.assertEqual(self.ends(SeamlessError("Do this."))[::2], (EXIT_FAILED, "\ndemo: Do this.\n"))
        self.assertEqual(self.ends(PrivilegeError("Be root."))[0], EXIT_PRIVILEGE)
        self.assertEqual(self.ends(KeyboardInterrupt())[0], demo.EXIT_INTERRUPTED)


class MainJob(SynchronousTestCase):
    skip = why_not()

    def test_unmodified_programs_cross_the_overlay_and_no_byte_goes_astray(self) -> None:
        told: list[str] = []
        figures = demo.run(Plan((0.005,), seconds=1.0), told.append)
        self.assertEqual([each.way for each in figures.rows], ["TCP CUBIC", "TCP BBR", SEAMLESS])
        self.assertTrue(all(each.copied.equal for each in figures.rows))
        ours = figures.row(0.005, SEAMLESS)
        self.assertEqual(figures.native_bytes, 0)
        self.assertGreater(figures.overlay_bytes, ours.copied.size_bytes)
        self.assertIn("checksums equal", "".join(told))

    def test_a_congestion_control_that_is_not_there_is_named(self) -> None:
        with Lab(measure.load_bed()) as lab:
            with self.assertRaisesRegex(SeamlessError, "TCP nonsense cannot be had here .modprobe tcp_nonsense"):
                measure.set_congestion_control(lab, "nonsense")
            measure.set_congestion_control(lab, "reno")
            measure.set_congestion_control(lab, "cubic")
            route = lab.run("src", ["ip", "route", "show", "dev", "dst", "10.1.9.2"]).stdout
            self.assertEqual(route.count("congctl"), 1)
            self.assertIn("congctl cubic", route)


class Stopped(SynchronousTestCase):
    skip = why_not()

    def test_nothing_is_left_after_ctrl_c_however_often_it_is_pressed(self) -> None:
        temporary = Path(self.mktemp()).resolve()
        temporary.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "seamless.lab.demo", "--quick"],
            env={**environment(), "TMPDIR": str(temporary)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.addCleanup(process.wait)
        assert process.stderr is not None
        said = b""
        while b"iperf3 for" not in said:
            piece = os.read(process.stderr.fileno(), 1000)
            self.assertTrue(piece, said)
            said += piece
        self.assertTrue(processes_mentioning(str(temporary)))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        self.assertEqual((process.returncode, output), (demo.EXIT_INTERRUPTED, b""))
        self.assertTrue(errors.endswith(b"demo: stopped; the lab is gone\n"), errors)
        self.assertEqual(processes_mentioning(str(temporary)), [])
        self.assertEqual(list(temporary.iterdir()), [])
