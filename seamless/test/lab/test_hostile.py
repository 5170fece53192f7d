"""Bad input to real nodes: noise at their ports, strangers, twins, and everything that can be wrong at a start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from seamless.config.load import load_text
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_PRIVILEGE, EXIT_USAGE
from seamless.lab.daemons import command, environment, private_key
from seamless.linux.control_socket import DIRECTORY_VARIABLE
from seamless.node import Node
from seamless.test.lab.bedtest import (
    BED_FILE,
    EOF,
    NODES,
    PATIENCE,
    BedSuite,
    BedTestCase,
    TestBed,
    Writer,
    bed_suite,
    pattern,
    read_exactly,
    read_to_end,
    wait_until,
)
from seamless.test.lab.test_lab import NOBODY, SOURCE, python_for_everybody
from seamless.wire.header import COOKIE, INITIATION

PORT = 7400
CAPTURE_PORT = 7401
STRANGER = ("10.1.2.2", 7999)
"""Where the strangers are: on r2's host, beside its own node."""
R1 = ("10.1.2.1", PORT)
ROUNDS = 40
SIZES = (0, 1, 20, 65_507)
"""Bytes of a datagram: nothing, less than any header, less than a sealed nothing, and the most that UDP can carry."""


BESIDE = (("r1", "10.1.1.1"), ("src", "10.1.1.2"), ("r1", "10.1.2.2"), ("r2", "10.1.3.2"))
"""For every node, a host from which noise comes, and the address to which it goes."""


class Transfer:
    """A file on its way from src to dst while something else happens; it goes on only as fast as the test reads."""

    def __init__(self, client: socket.socket, server: socket.socket, size: int) -> None:
        self._server = server
        self._data = pattern(size)
        self._writer = Writer(client, self._data)
        self._read: list[bytes] = []
        self._left = size

    def read(self, size: int) -> None:
        """Read on."""
        piece = read_exactly(self._server, size)
        self._left -= len(piece)
        self._read.append(piece)

    def is_whole(self) -> bool:
        """Read the rest, and compare all of it."""
        self.read(self._left)
        return self._writer.outcome() is None and b"".join(self._read) == self._data


class Noise(BedTestCase):
    """Random bytes at the links' ports, from hosts beside the nodes, while a transfer runs."""

    def test_datagrams_of_every_size(self) -> None:
        before = {node: self.refused(node) for node in NODES}
        sources = [self.bed.new_socket(host, "u") for host, _ in BESIDE]
        for source in sources:
            self.addCleanup(source.close)
        begun_at = time.time()
        transfer = Transfer(*self.pair(), ROUNDS * 1_000_000)
        for _ in range(ROUNDS - 1):
            transfer.read(1_000_000)
            for source, (_, address) in zip(sources, BESIDE, strict=True):
                for size in SIZES:
                    source.sendto(os.urandom(size), (address, PORT))
        self.assertTrue(transfer.is_whole())
        for node in NODES:
            counted = self.refused(node) - before[node]
            self.assertGreaterEqual(counted["short_datagrams"], ROUNDS, node)
            self.assertGreaterEqual(counted["unknown_type"] + counted["unknown_index"], 1, node)
            self.assertEqual(self.bed.links_down_since(node, begun_at), [], node)
            self.assertNotIn("Traceback", self.bed.log(node))

    def refused(self, node: str) -> Counter[str]:
        """Return the node's counters of what it could not use."""
        return Counter(self.bed.report(node)["packets"])


class Strangers(BedTestCase):
    """Nodes that should not be there."""

    def test_a_neighbor_with_an_unknown_key(self) -> None:
        """It proves its address and its key, and gets no more for it than a cookie."""
        public_key = encode_public_key(public_key_of(private_key("stranger")))
        text = overlay_of(
            f'node stranger {{ address {STRANGER[0]}:{STRANGER[1]}; key "{public_key}"; }}',
            node_block("r1"),
            f"link stranger r1 {{ between {STRANGER[0]}:{STRANGER[1]} {R1[0]}; }}",
        )
        transfer = Transfer(*self.pair(), 30_000_000)
        unknown = self.bed.report("r1")["handshakes"]["unknown_key"]
        sent, received = self.knock(text, transfer)
        self.assertTrue(transfer.is_whole())
        self.assertGreaterEqual(sent.pop(INITIATION), 3)
        self.assertEqual(sent, Counter())
        self.assertEqual(set(received), {COOKIE})
        self.assertGreaterEqual(self.bed.report("r1")["handshakes"]["unknown_key"], unknown + 1)
        self.assertNotIn("stranger", self.bed.log("r1"))

    def knock(self, text: str, transfer: Transfer, seconds: float = 2.0) -> tuple[Counter[int], Counter[int]]:
        """Run the node ``stranger`` by hand; return how many datagrams of each type it sent and received."""
        now = time.monotonic()
        node = Node(
            load_text(text, "stranger.conf"),
            "stranger",
            private_key("stranger"),
            random=os.urandom,
            incarnation=time.time_ns(),
            now=now,
        )
        sent: Counter[int] = Counter()
        received: Counter[int] = Counter()
        with self.bed.new_socket("r2", "u") as sock:
            sock.bind(STRANGER)
            sock.settimeout(0.02)
            stop_at = now + seconds
            while now < stop_at:
                transfer.read(200_000)
                for transmit in node.datagrams_to_send(now):
                    datagram = b"".join(transmit.buffers)
                    sent[datagram[0]] += 1
                    sock.sendto(datagram, transmit.remote)
                try:
                    answer, source = sock.recvfrom(65_535)
                except TimeoutError:
                    answer = b""
                now = time.monotonic()
                if answer:
                    received[answer[0]] += 1
                    node.receive_datagrams(answer, len(answer), STRANGER, source, now)
                node.handle_timeout(now)
        self.assertEqual([link.state for link in node.status(now).links], ["DOWN"])
        return sent, received

    def test_a_twin_on_the_same_host(self) -> None:
        words = refusal(self.bed, command(BED_FILE, "src", self.lab.key_file("src")), EXIT_FAILED)
        self.assertRegex(words, r"^seamless: node src runs on this host already .*: stop that daemon first")
        client, server = self.pair()
        client.sendall(b"the first one lives on")
        client.close()
        self.assertEqual(read_to_end(server), (b"the first one lives on", EOF))
        self.assertTrue(self.bed.has_rules("src"))

    def test_a_twin_on_another_host(self) -> None:
        """It has src's key and reaches r1: one of both speaks to r1 at a time. Nothing crashes, and r1 says so."""
        configuration = self.temporary() / "twin.conf"
        key = encode_public_key(self.lab.configuration.nodes["src"].public_key)
        configuration.write_text(
            overlay_of(
                f'node src {{ address {STRANGER[0]}:{STRANGER[1]}; serves 10.1.9.1; key "{key}"; }}',
                node_block("r1", "10.1.1.2:7400"),
                f"link src r1 {{ between {STRANGER[0]}:{STRANGER[1]} 10.1.1.2:7400; rate 500 mbit; congestion off; }}",
            )
        )
        self.lab.run("r2", ["ip", "route", "add", "10.1.1.2/32", "via", R1[0]])
        self.addCleanup(self.lab.run, "r2", ["ip", "route", "del", "10.1.1.2/32"])
        log = self.temporary() / "log"
        with open(log, "wb") as output:
            twin = self.lab.popen(
                "r2",
                ["env", f"{DIRECTORY_VARIABLE}={log.parent}", *command(configuration, "src", self.lab.key_file("src"))],
                stdout=output,
                stderr=output,
                environment=environment(),
            )
        self.addCleanup(twin.kill)
        wait_until(lambda: "link to r1 is up" in log.read_text(), "the twin's link comes up")
        time.sleep(3.0)
        twin.terminate()
        self.assertEqual(twin.wait(PATIENCE), -signal.SIGTERM)
        self.said("r1", "link to src is down: src says: the daemon is stopping")
        where = f"10.1.1.2 port {PORT} to {STRANGER[0]} port {STRANGER[1]}"
        self.assertIn(f"link to src is up, {where}", self.bed.log("r1"))
        is_back = f"link to src is up, 10.1.1.2 port {PORT} to 10.1.1.1 port {PORT}"
        wait_until(lambda: self.bed.log("r1").rfind(is_back) > self.bed.log("r1").rfind(where), "src is back")
        self.assertNotIn("Traceback", log.read_text())
        for node in NODES:
            self.assertTrue(self.bed.is_running(node), node)
            self.assertNotIn("Traceback", self.bed.log(node))


class WrongStarts(BedTestCase):
    """A daemon that cannot be says why in one sentence, and ends with the code for it. Nothing of it is left."""

    def setUp(self) -> None:
        super().setUp()
        self.lab.stop_node("src")
        self.key = self.lab.key_file("src")

    def assert_refused(self, code: int, words: str, argv: Sequence[str]) -> None:
        said = refusal(self.bed, argv, code)
        self.assertRegex(said, words)
        self.assertEqual(said.count("\n"), 1, said)
        self.assertFalse(self.bed.has_rules("src"))

    def test_unknown_node(self) -> None:
        words = r"lab\.conf has no node nobody: give --node one that it has \(src, r1, r2, dst\)"
        self.assert_refused(EXIT_USAGE, words, command(BED_FILE, "nobody", self.key))

    def test_key_that_others_can_read(self) -> None:
        self.key.chmod(0o640)
        self.addCleanup(self.key.chmod, 0o600)
        self.assert_refused(EXIT_CONFIGURATION, "run: chmod 600", command(BED_FILE, "src", self.key))

    def test_key_of_another_node(self) -> None:
        words = "this is not the key of node src"
        self.assert_refused(EXIT_CONFIGURATION, words, command(BED_FILE, "src", self.lab.key_file("dst")))

    def test_wrong_host(self) -> None:
        self.lab.stop_node("dst")  # or it would be found to run already
        words = "UDP port 7400 on 10.1.3.2: this host does not have that address; is this the right node"
        self.assert_refused(EXIT_FAILED, words, command(BED_FILE, "dst", self.lab.key_file("dst")))

    def test_link_port_in_use(self) -> None:
        with self.bed.new_socket("src", "u") as other:
            other.bind(("10.1.1.1", PORT))
            words = "UDP port 7400 on 10.1.1.1: another program has it; stop that program"
            self.assert_refused(EXIT_FAILED, words, command(BED_FILE, "src", self.key))

    def test_capture_port_in_use(self) -> None:
        with self.bed.listen("src", CAPTURE_PORT):
            words = "TCP 0.0.0.0 port 7401 is in use by another program"
            self.assert_refused(EXIT_CONFIGURATION, words, command(BED_FILE, "src", self.key))

    def test_missing_privilege(self) -> None:
        python = python_for_everybody()
        if os.geteuid() or python is None:
            python = sys.executable
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        for file in (BED_FILE, self.key):
            shutil.copy(file, folder)
        key = folder / self.key.name
        key.chmod(0o600)
        shutil.chown(key, NOBODY, NOBODY)
        packages = Path(attrs.__file__).parents[1]
        words = [
            "env",
            f"{DIRECTORY_VARIABLE}={folder}",
            f"PYTHONPATH={SOURCE}:{packages}",
            "PYTHONDONTWRITEBYTECODE=1",
        ]
        setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        twistd = [python, "-S", "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]
        options = [f"--config={folder / BED_FILE.name}", "--node=src", f"--key={key}"]
        self.assert_refused(EXIT_PRIVILEGE, "root|CAP_NET_ADMIN", [*setpriv, *words, *twistd, "seamless", *options])


def refusal(bed: TestBed, argv: Sequence[str], code: int) -> str:
    """Start a daemon on src that cannot be; return what it says, if it ends with this code."""
    daemon = bed.lab.popen("src", argv, stderr=subprocess.PIPE, directory=Path("/"), environment=environment())
    _, words = daemon.communicate(timeout=PATIENCE)
    if daemon.returncode != code:
        raise AssertionError(f"exit code {daemon.returncode} instead of {code}: {words.decode()}")
    return words.decode()


def overlay_of(*blocks: str) -> str:
    return "\n".join(("overlay lab { hello 100 ms; dead 300 ms; }", *blocks))


def node_block(name: str, address: str = "10.1.2.1:7400") -> str:
    public_key = encode_public_key(public_key_of(private_key(name)))
    return f'node {name} {{ address {address}; key "{public_key}"; }}'


def testSuite() -> BedSuite:
    return bed_suite(Noise, Strangers, WrongStarts)
