"""All that the nodes of a bed ever sent, sent again from the right hosts after every node has started anew.

`test_observer` asks the same of simulated nodes; here it is the kernel's sockets, at 1 and 100 times the speed (or as
fast as a program gets it out), beside a transfer that must not notice.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from seamless.lab.daemons import environment
from seamless.test.lab.bedtest import (
    NODES,
    PATIENCE,
    PORTS,
    BedSuite,
    Writer,
    bed_suite,
    pattern,
    read_exactly,
    wait_until,
)
from seamless.test.trust import recording
from seamless.test.trust.counting import CountingTestCase

MODULE = "seamless.test.trust.recording"
RECORDED_BYTES = 300_000
ROUND = pattern(1_000_000)


class ReplayTests(CountingTestCase):
    """Recorded from the first handshake on, so that it holds every type of datagram."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.temporary()
        self.stop_all()
        recorders = {node: self.run_module(node, "record", self.file(node), "7400") for node in NODES}
        for recorder in recorders.values():
            assert recorder.stdout is not None
            self.assertEqual(recorder.stdout.readline(), b"ready\n")
        self.bed.restore()
        client, server = self.pair()
        for one, other in ((client, server), (server, client)):
            writer = Writer(one, ROUND[:RECORDED_BYTES])
            self.assertEqual(read_exactly(other, RECORDED_BYTES), ROUND[:RECORDED_BYTES])
            self.assertIsNone(writer.outcome())
        for recorder in recorders.values():
            recorder.communicate(timeout=PATIENCE)
        self.recorded = {node: recording.read(str(self.file(node))) for node in NODES}
        self.stop_all()
        self.bed.restore()

    def stop_all(self) -> None:
        for node in NODES:
            self.lab.stop_node(node)

    def file(self, node: str) -> Path:
        return self.folder / f"{node}.recording"

    def run_module(self, node: str, *words: object) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", MODULE, *map(str, words)]
        running = self.lab.popen(node, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None,
                                 environment=environment())  # fmt: skip
        self.addCleanup(running.wait)
        self.addCleanup(running.kill)
        return running

    def test_the_recording_is_whole(self) -> None:
        """All types of datagram, and the transfer both ways on every hop."""
        kinds = {sent.data[0] for one in self.recorded.values() for sent in one}
        self.assertEqual(kinds, {1, 2, 3, 4, 5})
        for node in NODES:
            size = sum(len(sent.data) for sent in self.recorded[node])
            self.assertGreater(size, RECORDED_BYTES * (1 if node in ("src", "dst") else 2), node)

    def test_at_its_own_speed(self) -> None:
        self.replay(1)

    def test_a_hundred_times_as_fast(self) -> None:
        self.replay(100)

    def replay(self, speed: int) -> None:
        client, server = self.pair(PORTS[1])
        before = {node: self.bed.report(node) for node in NODES}
        logged = {node: len(self.bed.log(node)) for node in NODES}
        self.count("src", "OUTPUT", "-p", "tcp", "--syn")
        self.count("dst", "OUTPUT", "-p", "tcp", "--syn")
        for node in NODES:
            self.count(node, "INPUT", "-p", "udp", "-m", "tos", "--tos", f"{recording.REPLAYED_TOS:#x}")
        replaying = {node: self.run_module(node, "replay", self.file(node), speed) for node in NODES}
        self.exchange(client, server)
        while any(one.poll() is None for one in replaying.values()):
            self.exchange(client, server)
        sent = sum(int(one.communicate()[0]) for one in replaying.values())
        self.assertGreater(sent, sum(map(len, self.recorded.values())) // 2)
        self.exchange(client, server)
        self.assertEqual((self.counted("src", "OUTPUT"), self.counted("dst", "OUTPUT")), (0, 0), "connections dialled")
        arrived = {node: self.counted(node, "INPUT") for node in NODES}
        self.assertGreater(sum(arrived.values()), sent // 4, arrived)
        for node in NODES:
            self.assertGreater(arrived[node], 0, node)
            self.wait_for_refused(node, before, arrived[node])
            log = self.bed.log(node)[logged[node] :]
            self.assertEqual(re.findall(r".* is (?:up|down|reachable|not reachable).*", log), [])
        for node in ("src", "dst"):
            self.assertEqual(sessions(self.bed.report(node)), sessions(before[node]))

    def exchange(self, client: Any, server: Any) -> None:
        """Carry something both ways on a connection that was there before."""
        for one, other in ((client, server), (server, client)):
            writer = Writer(one, ROUND)
            self.assertTrue(read_exactly(other, len(ROUND)) == ROUND)
            self.assertIsNone(writer.outcome())

    def wait_for_refused(self, node: str, before: dict[str, Any], least: int) -> None:
        wait_until(lambda: self.refused(node, before) >= least, f"{node} counts")

    def refused(self, node: str, before: dict[str, Any]) -> int:
        """Return how many datagrams a node has refused since, for whatever reason, or its socket has lost."""
        return refusals(self.bed.report(node)) - refusals(before[node])


def refusals(report: Any) -> int:
    """Return how many datagrams a node has refused, or not read in time."""
    links = sum(link[name] for link in report["links"] for name in ("replayed", "failed_authentication", "malformed"))
    packets = sum(report["packets"][name] for name in ("unknown_index", "refused_handshakes", "misplaced_handshakes"))
    dropped = sum(port["counters"]["kernel_drops"] for port in report["ports"])
    return int(links + packets + sum(report["handshakes"].values()) + dropped)


def sessions(report: Any) -> dict[str, tuple[bool, int]]:
    """Return what a node's peers could have changed."""
    return {session["peer"]: (session["established"], session["streams"]) for session in report["sessions"]}


def testSuite() -> BedSuite:
    return bed_suite(ReplayTests)
