"""``seamless status`` and ``seamless ping``: what people read, and the commands with real daemons behind them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keys import encode_private_key
from seamless.errors import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE
from seamless.linux.control_socket import DIRECTORY_VARIABLE
from seamless.test.test_tap import free_udp_port
from seamless.test.tools.command import seamless
from seamless.test.tools.test_main import configuration_text
from seamless.test.tools.twistd import START_TIMEOUT, Twistd
from seamless.test.transport.reported import Reported
from seamless.tools.status import text
from seamless.tools.text_table import WIDTH


def as_json(bed: Reported) -> Any:
    """Return a report as it comes out of the socket."""
    return json.loads(json.dumps(attrs.asdict(bed.report())))


class TextTests(SynchronousTestCase):
    def lines(self, report: Any, *, is_verbose: bool = True) -> list[str]:
        lines = text(report, is_verbose=is_verbose).splitlines()
        self.assertLessEqual(max(map(len, lines)), WIDTH)
        return lines

    def line(self, report: Any, beginning: str) -> list[str]:
        """Return the words of the only line that begins so."""
        (line,) = [line for line in self.lines(report) if line.startswith(beginning)]
        return line.split()

    def test_one_line_for_each_thing(self) -> None:
        """Without -v, while all is well; two links with one neighbor say which is which."""
        bed = Reported("src")
        bed.transfer(self, 1_000_000)
        bed.pass_time(1.0)
        report = as_json(bed)
        things = sum(len(report[name]) for name in ("links", "routes", "sessions", "interceptors"))
        shown = self.lines(report, is_verbose=False)
        self.assertEqual(len(shown), things + 1 + 2 * 4, "the title, and for each table a header and an empty line")
        self.assertGreater(len(self.lines(report)), len(shown) + 2 * len(report["links"]))
        twins = {**report, "links": [*report["links"], {**report["links"][0], "local": ["10.9.9.9", 7400]}]}
        self.assertEqual(len(self.lines(twins, is_verbose=False)), len(shown) + 1 + 2)
        self.assertTrue(any("10.9.9.9:7400 to 10.1.1.2:7400" in line for line in self.lines(twins, is_verbose=False)))

    def test_what_is_wrong_is_said_without_being_asked(self) -> None:
        report = as_json(Reported("src"))
        report["links"][0].update(state="DOWN", reason="nothing has ever come from it", replayed=3)
        report["ports"][0]["counters"].update(kernel_drops=12)
        shown = "\n".join(self.lines(report, is_verbose=False))
        for words in ("because: nothing has ever come", "refused or dropped: replayed 3", "dropped by the kernel 12"):
            self.assertIn(words, shown)

    def test_a_busy_link(self) -> None:
        bed = Reported()
        for end in (("r1", "r2"), ("r2", "r1")):
            bed.net.impair(*end, loss=0.2)
        bed.transfer(self, 50_000_000)
        bed.pass_time(1.0)
        self.assertGreater(bed.net.counters("r1", "r2").lost, 1000)
        lines = self.lines(as_json(bed))
        (row,) = [index for index, line in enumerate(lines) if line.startswith("r2 ") and " UP " in line]
        self.assertRegex(lines[row], r"^r2 +UP 1 s +\d+ Mb/s +(7[789]|8[012])\.\d % +(19|20|21)\.\d % +\d")
        self.assertIn("10.1.2.1:7400 to 10.1.2.2:7400, at 500 Mb/s", lines[row + 1])
        self.assertIn("constant: it is configured; RTT at least 10.0 ms, queue", lines[row + 2])
        self.assertRegex(lines[row + 3], r"in all: sent \d.* MB, received .* lost (19|20|21)\.\d %, resent \d{4}")

    def test_a_link_that_is_down_says_why(self) -> None:
        bed = Reported()
        bed.net.crash("r2")
        bed.pass_time(2.0)
        lines = self.lines(as_json(bed), is_verbose=False)
        (row,) = [index for index, line in enumerate(lines) if line.startswith("r2") and "DOWN" in line]
        self.assertEqual(lines[row].split()[-7:], ["-"] * 7)
        self.assertIn("because: no datagram for 3", lines[row + 1])
        self.assertIn("dst   -             -       no path", lines)

    def test_a_rate_that_the_path_does_not_have(self) -> None:
        report = as_json(Reported())
        remark = "is the path slower than the rate of this link?"
        link = report["links"][1]
        link["rates"].update(sent_bps=400e6, arrived_ratio=0.5)
        self.assertIn(remark, text(report))
        for harmless in ({"arrived_ratio": 0.8}, {"sent_bps": 1e6}, {"arrived_ratio": None}):
            with self.subTest(harmless=harmless):
                calm = {**link, "rates": {**link["rates"], **harmless}}
                self.assertNotIn(remark, text({**report, "links": [calm]}))

    def test_a_rate_that_overloads_the_path(self) -> None:
        """The line to write is there, and nothing of it where the controller finds the rate."""
        report = as_json(Reported())
        link = report["links"][1]
        self.assertRegex(
            text(report, is_verbose=True),
            r"constant: it is configured; RTT at least 10\.\d ms, queue 0\.00 ms, lost at any",
        )
        link["rates"].update(sent_bps=400e6, arrived_ratio=0.5)
        link.update(congestion_state="overload", congestion_reason="it is configured, and more than the path carries")
        link.update(bottleneck_bps=199_876_543.0, queue_delay=0.021, loss_floor=0.005, congestion_loss=0.49)
        shown = " ".join(text(report, is_verbose=True).split())
        self.assertIn("overload: it is configured, and more than the path carries; path 200 Mb/s, RTT at least", shown)
        shown = " ".join(text(report).split())
        self.assertIn("(standing queue 21.0 ms, lost by it 49.0 %): `rate 191 mbit;` would pass; seamless", shown)
        self.assertNotIn("much of what is sent does not arrive", shown)
        link["congestion"] = "cubic"
        self.assertNotIn("would pass", text(report))

    def test_sessions_and_interceptors(self) -> None:
        bed = Reported("src")
        bed.transfer(self, 1_000_000)
        bed.pass_time(1.0)
        report = as_json(bed)
        self.assertEqual(self.line(report, "SESSION")[:3], ["SESSION", "STREAMS", "RTT"])
        self.assertIn("payload ingress  3     1        captured 7, gave up 2", self.lines(report))
        self.assertEqual(self.line(report, "dst   1")[2:], ["1444", "B", "src", "-", "r1", "-", "r2", "-", "dst"])

    def test_another_configuration_is_named(self) -> None:
        report = as_json(Reported("src"))
        self.assertEqual(report["configuration"], [])
        self.assertNotIn("CONFIGURATION", text(report))
        report["configuration"] = [{"node": "r1", "differences": ["rate of link r1 src", "node dst (missing there)"]}]
        self.assertIn("CONFIGURATION OF  DIFFERS FROM OURS IN", self.lines(report))
        self.assertIn("r1                rate of link r1 src, node dst (missing there)", self.lines(report))

    def test_trouble_is_named(self) -> None:
        report = as_json(Reported("src"))
        self.assertEqual(self.line(report, "10.1.1.1:7400 ")[-1], "none")
        report["ports"][0]["counters"].update(kernel_drops=12, datagrams_lost=3, send_errors={"EPERM": 3})
        report["ports"][0]["offload"] = False
        report["links"][0].update(dropped_bulk=4, dropped_express=1, replayed=2)
        shown = text(report)
        self.assertIn("dropped by the kernel 12, not sent 3, EPERM 3", shown)
        self.assertIn("refused or dropped: dropped from a full queue 5, replayed 2", shown)
        self.assertIn("10.1.1.1:7400  off ", shown)

    def test_long_names_and_addresses_stay_on_the_screen(self) -> None:
        report = as_json(Reported("src"))
        report["node"] = report["links"][0]["neighbor"] = "n" * 70
        report["links"][0]["local"] = report["links"][0]["remote"] = ["2001:db8:1111:2222:3333:4444:5555:6666", 65535]
        report["routes"][0]["path"] = [f"a-rather-long-name-{number}" for number in range(20)]
        for link in report["links"]:
            link.update(since=0, rtt=0.9995, queued_bytes=999_000_000)
            link["rates"].update(sent_bps=999e9, received_bps=999e9, arrived_ratio=0.999, lost_ratio=0.5)
        lines = self.lines(report)
        self.assertTrue(any("a-rather-long-name-19" in line for line in lines))


class DaemonTests(SynchronousTestCase):
    """Two nodes as processes, of which this test is the operator."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seamless-status-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        os.environ[DIRECTORY_VARIABLE] = str(self.folder)
        self.addCleanup(os.environ.pop, DIRECTORY_VARIABLE)
        # Without interceptors, so that no firewall is touched.
        words = configuration_text(port=free_udp_port()).splitlines()
        (self.folder / "pair.conf").write_text("\n".join(line for line in words if "intercept" not in line))
        for number, name in enumerate(("src", "dst"), 1):
            key = self.folder / f"{name}.key"
            key.write_text(encode_private_key(bytes([number]) * 32))
            key.chmod(0o600)
        self.twistd = Twistd(self.folder, sockets=self.folder)

    def start(self, name: str) -> Any:
        words = (f"--config={self.folder}/pair.conf", f"--node={name}", f"--key={self.folder}/{name}.key")
        daemon = self.twistd.popen("-n", "--pidfile=", "seamless", *words)
        assert daemon.stdout is not None and daemon.stderr is not None
        self.addCleanup(daemon.stderr.close)
        self.addCleanup(daemon.stdout.close)
        self.addCleanup(daemon.wait, START_TIMEOUT)
        self.addCleanup(daemon.kill)
        return daemon

    def wait_until_linked(self) -> Any:
        give_up_at = time.monotonic() + START_TIMEOUT
        while time.monotonic() < give_up_at:
            done = seamless("status", "--node", "src", "--json")
            if done.returncode == 0 and (report := json.loads(done.stdout))["routes"][0]["path"]:
                return report
            time.sleep(0.05)
        raise AssertionError("the two nodes have not found each other")

    def test_two_nodes(self) -> None:
        src, _ = self.start("src"), self.start("dst")
        report = self.wait_until_linked()
        self.assertEqual((report["node"], report["process"], report["firewall"]), ("src", src.pid, None))

        shown = seamless("status", "--node", "src")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertTrue(shown.stdout.startswith("node src of overlay pair: seamless "), shown.stdout)
        self.assertRegex(shown.stdout, r"(?m)^dst +UP ")

        metrics = seamless("status", "--socket", str(self.folder / "src.sock"), "--metrics")
        self.assertIn('seamless_node_reachable{to="dst"} 1.0\n', metrics.stdout)

        several = seamless("status")
        self.assertEqual(several.returncode, EXIT_USAGE)
        self.assertIn("which one is meant (dst, src)", several.stderr)

        ping = seamless("ping", "dst", "-c", "2", "--node", "src")
        self.assertEqual((ping.returncode, ping.stderr), (0, ""))
        self.assertRegex(
            ping.stdout, r"\A(answer from dst after [\d.]+ ms \(src - dst\)\n){2}2 of 2 answered; .* ms\n\Z"
        )

        everything = seamless("status", "--node", "src", "--all")
        self.assertEqual((everything.returncode, everything.stderr), (0, ""))
        self.assertRegex(everything.stdout, r"(?m)^src +\d+ s +1 of 1 +0 ")
        self.assertRegex(everything.stdout, r"(?m)^dst +\d+ s +1 of 1 +0 ")
        traced = seamless("trace", "dst", "--node", "src", "--json")
        self.assertEqual(json.loads(traced.stdout)["hops"][0]["state"], "UP", traced.stderr)

        second = self.start("src")
        self.assertEqual(second.wait(START_TIMEOUT), EXIT_FAILED)
        self.assertIn(f"seamless: node src runs on this host already (process {src.pid}, ", second.stderr.read())
        self.assertEqual(seamless("status", "--node", "src").returncode, 0)

    def test_a_killed_daemon_and_its_next_life(self) -> None:
        self.start("dst")
        first = self.start("src")
        self.wait_until_linked()
        first.kill()
        first.wait(START_TIMEOUT)
        self.assertTrue((self.folder / "src.sock").is_socket())
        gone = seamless("status", "--node", "src")
        self.assertEqual((gone.returncode, gone.stdout), (EXIT_UNREACHABLE, ""))
        self.assertIn(f"no daemon answers at {self.folder}/src.sock: start the node with twistd seamless", gone.stderr)

        again = self.start("src")
        self.assertEqual(self.wait_until_linked()["process"], again.pid)
        again.send_signal(signal.SIGTERM)
        again.wait(START_TIMEOUT)
        self.assertFalse((self.folder / "src.sock").exists())

    def test_a_node_that_does_not_answer(self) -> None:
        self.start("src")
        give_up_at = time.monotonic() + START_TIMEOUT
        while not (self.folder / "src.sock").exists() and time.monotonic() < give_up_at:
            time.sleep(0.05)
        ping = seamless("ping", "dst", "-c", "1")
        self.assertEqual(ping.returncode, EXIT_UNREACHABLE)
        self.assertEqual(
            ping.stdout, "no answer: there is no path to node dst now: look at the links with seamless status\n"
        )
        self.assertEqual(ping.stderr, "seamless: node dst did not answer any of 1 pings\n")
        for words in (["dst", "-c", "0"], ["dst", "-c", "many"], []):
            self.assertEqual(seamless("ping", *words).returncode, EXIT_USAGE)

    def test_nothing_runs(self) -> None:
        for words in (["status"], ["status", "--json"], ["ping", "dst"]):
            done = seamless(*words)
            self.assertEqual((done.returncode, done.stdout), (EXIT_UNREACHABLE, ""))
            self.assertIn(f"no node runs on this host as far as {self.folder} shows", done.stderr)
