"""On the bed of etc/lab.conf, in the kernel: what wires carry, what the egress dials, what a flood costs."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from seamless.intercept.payload.flow import Flow
from seamless.interfaces import RESET_NOT_ALLOWED
from seamless.lab.daemons import environment
from seamless.test.lab.bedtest import (
    BED_FILE,
    DST,
    LONG,
    BedSuite,
    BedTestCase,
    Writer,
    bed_suite,
    read_exactly,
    wait_until,
)
from seamless.test.lab.impostor import replace, tell
from seamless.test.trust.counting import CountingTestCase

SRC = "10.1.9.1"
FLOOD_RATE = 20_000
FLOOD_SECONDS = 10.0 if LONG else 4.0
FLOOD_ROUNDS = 3
KEPT_SHARE = 0.8

REFUSED = (
    ("127.0.0.1", 22),
    ("127.8.8.8", 80),
    ("0.0.0.0", 22),
    ("::1", 22),
    ("::", 22),
    ("::ffff:127.0.0.1", 22),
    ("::ffff:10.1.9.1", 22),
    ("fe80::1", 22),
    ("169.254.169.254", 80),
    ("224.0.0.1", 22),
    ("255.255.255.255", 22),
    ("10.1.9.1", 22),  # the asker's own
    ("10.1.4.2", 22),  # dst's address on the native wire, which it does not serve
    ("10.1.3.2", 7400),  # the egress's own ports
    ("10.1.9.2", 7400),
    ("10.1.9.2", 7401),
    ("10.1.9.2", 23),  # an allowed address, a wrong port
    ("10.1.9.2", 5210),
)


class EgressTests(CountingTestCase):
    """A peer with good keys asks for what it may not have: no SYN leaves, and the log says so once for each."""

    def rogue(self, node: str) -> subprocess.Popen[bytes]:
        """Put a rogue in the place of a node."""
        if self.bed.is_running(node):
            self.lab.stop_node(node)
        return replace(self, self.lab, BED_FILE, node, "seamless.test.trust.rogue")

    def count_syns(self) -> None:
        """Count connections that any program on dst opens from now on, to itself too."""
        self.count("dst", "OUTPUT", "-p", "tcp", "--syn")

    def syns(self) -> int:
        """Return how many there were."""
        return self.counted("dst", "OUTPUT")

    def test_what_is_not_allowed(self) -> None:
        rogue = self.rogue("src")
        self.count_syns()
        refusals = self.bed.log("dst").count("refused node src a connection")
        for host, port in REFUSED:
            client = "fd00::1" if ip_address(host).version == 6 else SRC
            answer = tell(rogue, Flow((host, port), (client, 40000)).encode())
            self.assertTrue(answer.startswith(f"{RESET_NOT_ALLOWED} "), f"{host} port {port}: {answer}")
        self.assertEqual(self.syns(), 0)
        count = self.bed.log("dst").count("refused node src a connection") - refusals
        self.assertEqual(count, len(REFUSED), "one line each")
        # That a SYN which leaves is counted, the allowed one shows.
        self.assertEqual(tell(rogue, Flow((DST, 22), (SRC, 40000)).encode()), "accepted")
        self.assertEqual(self.syns(), 1)

    def test_targets_that_are_none(self) -> None:
        rogue = self.rogue("src")
        self.count_syns()
        good = Flow((DST, 22), (SRC, 40000)).encode()
        for target in (b"\1", b"\1\4", good[:-1], good + b"\0", b"\1\5" + good[2:], good[:6] + b"\0\0" + good[8:]):
            self.assertTrue(tell(rogue, target).startswith(f"{RESET_NOT_ALLOWED} "), target.hex())
        self.assertEqual(self.syns(), 0)

    def test_a_node_on_which_nothing_is_captured(self) -> None:
        """What src may have, r2 may not: its ``on`` does not name it."""
        rogue = self.rogue("r2")
        self.count_syns()
        answer = tell(rogue, Flow((DST, 22), (SRC, 40000)).encode())
        self.assertIn("no interceptor lets node r2 connect to 10.1.9.2 port 22", answer)
        self.assertEqual(self.syns(), 0)


class WireTests(BedTestCase):
    """A capture of each hop during a transfer, taken by tcpdump, as an observer on the path could."""

    def test_a_transfer_is_nowhere_to_be_read(self) -> None:
        folder = self.temporary()
        captures = []
        for host, peer in (("src", "r1"), ("r1", "r2"), ("r2", "dst")):
            device = self.device(host, peer)
            file = folder / f"{host}.pcap"
            words = ["tcpdump", "-i", device, "-w", str(file), "-U", "--immediate-mode", "-B", "32768", "-Z", "root"]
            running = self.lab.popen(host, words, stderr=subprocess.PIPE)
            assert running.stderr is not None
            self.assertIn(b"listening on", running.stderr.readline())
            captures.append((file, running))
        client, server = self.pair()
        secret = b"nobody else shall read this " * 40_000
        upload = Writer(client, secret)
        self.assertEqual(read_exactly(server, len(secret)), secret)
        self.assertIsNone(upload.outcome())
        for file, running in captures:
            self.wait_for_size(file, len(secret))
            running.send_signal(signal.SIGINT)
            running.communicate()
            wire = file.read_bytes()
            for hidden in (secret[:16], SRC.encode(), DST.encode(), ip_address(DST).packed + (5202).to_bytes(2, "big")):
                self.assertNotIn(hidden, wire, file.name)

    def wait_for_size(self, file: Path, least: int) -> None:
        """tcpdump forgets what waits in its buffer when it is told to end: wait until it has written the transfer."""
        wait_until(lambda: file.stat().st_size > least, f"{file.name} holds the transfer")

    def device(self, host: str, peer: str) -> str:
        """Return the name of a host's device towards another."""
        index, is_first = self.lab.wires_between(host, peer)[0]
        return self.lab.wires[index].devices[0 if is_first else 1]


class FloodTests(BedTestCase):
    """A stranger sends 20,000 forged initiations a second during a transfer."""

    def rate_mbit(self, seconds: float) -> float:
        """Return what iperf3 carries from src to dst."""
        done = self.lab.run("src", ["iperf3", "-c", DST, "-t", str(int(seconds)), "-O", "1", "-J"])
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e6

    def test_a_transfer_keeps_its_rate(self) -> None:
        """Rates without and with a flood are taken in turn, up to three times, and the best ratio counts.

        Other work on the machine slows down either at random, and a flood that harms does so every time.
        """
        begun_at = time.time()
        kept = 0.0
        for _ in range(FLOOD_ROUNDS):
            without = self.rate_mbit(FLOOD_SECONDS)
            kept = max(kept, self.flooded_rate_mbit() / without)
            if kept > KEPT_SHARE:
                break
        self.assertGreater(kept, KEPT_SHARE)
        for node in ("r2", "dst"):
            self.assertEqual(self.bed.links_down_since(node, begun_at), [], node)

    def flooded_rate_mbit(self) -> float:
        """Return the rate during a flood, which was all that it should be."""
        key = base64.b64encode(self.lab.configuration.nodes["dst"].x25519_public_key).decode()
        address, port = self.lab.configuration.nodes["dst"].addresses[0]
        words = [address, str(port), key, str(FLOOD_RATE), str(FLOOD_SECONDS + 2)]
        flood = self.lab.popen("dst", [sys.executable, "-m", "seamless.test.trust.flood", *words],
                               stdout=subprocess.PIPE, stderr=None, environment=environment())  # fmt: skip
        rate = self.rate_mbit(FLOOD_SECONDS)
        figures = json.loads(flood.communicate()[0])
        self.assertGreater(figures["sent"], 0.9 * FLOOD_RATE * (FLOOD_SECONDS + 2))
        self.assertGreater(figures["answered_bytes"], 0)
        self.assertLess(figures["answered_bytes"], figures["sent_bytes"])
        return rate


def testSuite() -> BedSuite:
    return bed_suite(EgressTests, WireTests, FloodTests)
