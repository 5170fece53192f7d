"""The main job: unmodified programs and real servers, three lossy hops apart, through four real nodes.

There is a native wire between the two hosts that would carry all of it. After every test its counters must be where
they were: not one packet of what was captured took it.
"""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from threading import Thread
from typing import Any

from seamless.lab.servers import web_file
from seamless.test.lab.bedtest import (
    DST,
    LONG,
    MEMORY_LIMIT_BYTES,
    NODES,
    PATIENCE,
    PORTS,
    BedSuite,
    BedTestCase,
    bed_suite,
    digest,
    ended,
    pattern,
    read_exactly,
)
from seamless.test.lab.ground import traffic

LARGE_BYTES = 500_000_000 if LONG else 100_000_000
IDLE_CONNECTIONS = 10_000
IDLE_CONNECTION_BYTES = 10_000
"""What an idle connection may cost a node: four times what was measured. The seed paper's session takes 1.8 MB."""
TRANSFER_TIMEOUT = 120.0

HOLDER = """
import socket, sys
with socket.create_server(("", int(sys.argv[1])), backlog=4096) as listening:
    print("ready", flush=True)
    held = []
    while True:
        connection, _ = listening.accept()
        connection.send(b"!")
        held.append(connection)
"""
"""A server that sends a greeting and then nothing more."""


class Captured(BedTestCase):
    """A test in which every connection is captured."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.check_wires, self.bed.native_packets(), self.bed.overlay_bytes())

    def check_wires(self, native_packets: int, overlay_bytes: int) -> None:
        self.assertEqual(self.bed.native_packets(), native_packets, "packets on the native wire")
        self.assertGreater(self.bed.overlay_bytes(), overlay_bytes)
        for node in NODES:
            self.assertTrue(self.bed.is_running(node), node)
            self.assertLess(self.bed.highest_resident_bytes(node), MEMORY_LIMIT_BYTES, node)


class NativeWire(BedTestCase):
    """The counters that the other tests look at do move."""

    def test_what_is_not_captured_takes_it(self) -> None:
        before = self.bed.native_packets()
        answers = traffic(self.lab, "src", "ping", DST, 3, 0)
        self.assertEqual(len(answers), 3)
        self.assertGreaterEqual(self.bed.native_packets(), before + 4)


class FileTransfers(Captured):
    """scp and curl, with checksums."""

    def test_scp_there_and_back(self) -> None:
        folder = self.temporary()
        original = web_file(folder, "original", 20_000_000)
        self.lab.run("src", ["scp", str(original), f"dst:{folder}/there"])
        self.lab.run("src", ["scp", f"dst:{folder}/there", str(folder / "back")])
        self.assertEqual(digest(folder / "there"), digest(original))
        self.assertEqual(digest(folder / "back"), digest(original))

    def test_an_upload_from_the_other_side(self) -> None:
        """Every node captures and releases: dst's applications reach what src serves."""
        original = pattern(3_000_000)
        listening = self.listen(PORTS[0], host="src")
        client = self.bed.connect("dst", "10.1.9.1", PORTS[0])
        self.addCleanup(client.close)
        server, _ = listening.accept()
        self.addCleanup(server.close)
        sender = Thread(target=client.sendall, args=(original,), daemon=True)
        sender.start()
        self.assertTrue(read_exactly(server, len(original)) == original)
        sender.join(PATIENCE)

    def test_curl_one_megabyte(self) -> None:
        self.fetch("1M")

    def test_curl_a_large_body(self) -> None:
        path = web_file(self.lab.host_directory("dst"), "large", LARGE_BYTES)
        self.addCleanup(path.unlink)
        self.fetch("large")

    def fetch(self, name: str) -> None:
        copy = self.temporary() / "copy"
        self.lab.run("src", ["curl", "-sS", "-f", "-o", str(copy), f"http://dst/{name}"], timeout=TRANSFER_TIMEOUT)
        self.assertEqual(digest(copy), digest(self.lab.host_directory("dst") / "www" / name))
        copy.unlink()

    def test_curl_keeps_a_connection_alive(self) -> None:
        urls = ["http://dst/1M", "http://dst/1M"]
        argv = ["curl", "-sS", "-f", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} %{size_download}\n"]
        done = self.lab.run("src", [*argv, *urls])
        self.assertEqual(done.stdout, "1 1000000\n0 1000000\n")

    def test_curl_a_hundred_in_parallel(self) -> None:
        folder = self.temporary()
        argv = ["curl", "-sS", "-f", "--parallel", "--parallel-immediate", "--parallel-max", "100"]
        words = [*argv, "-w", "%{num_connects} %{http_code}\n", "-o", f"{folder}/#1", "http://dst/1M?[1-100]"]
        done = self.lab.run("src", words, timeout=TRANSFER_TIMEOUT)
        self.assertEqual(sorted(done.stdout.splitlines()), ["1 200"] * 100)
        original = digest(self.lab.host_directory("dst") / "www" / "1M")
        self.assertEqual({digest(path) for path in folder.iterdir()}, {original})
        self.assertEqual(len(list(folder.iterdir())), 100)


class Iperf3(Captured):
    """iperf3 in every direction, with more bytes than its own messages have; how fast is for `script/demo` to say."""

    BYTES = 100_000

    def iperf3(self, *words: str) -> Any:
        done = self.lab.run("src", ["iperf3", "-c", DST, "-J", "-t", "3", *words], check=False)
        result = json.loads(done.stdout)
        self.assertNotIn("error", result)
        self.assertEqual(done.returncode, 0)
        return result["end"]

    def assert_received(self, end: Any, way: str = "sum_received") -> None:
        self.assertGreater(end[way]["bytes"], self.BYTES)

    def test_forward(self) -> None:
        self.assert_received(self.iperf3())

    def test_reverse(self) -> None:
        self.assert_received(self.iperf3("-R"))

    def test_both_directions_at_once(self) -> None:
        end = self.iperf3("--bidir")
        self.assert_received(end)
        self.assert_received(end, "sum_received_bidir_reverse")

    def test_eight_connections_share_fairly(self) -> None:
        received = [stream["receiver"]["bytes"] for stream in self.iperf3("-P", "8")["streams"]]
        self.assertEqual(len(received), 8)
        share = sum(received) / 8
        self.assertTrue(all(abs(each - share) < 0.2 * share for each in received), received)


class Interactive(Captured):
    """ssh: the server speaks first, and every keystroke is a small write."""

    def test_a_command(self) -> None:
        self.assertEqual(self.lab.run("src", ["ssh", "dst", "hostname; exit 0"]).stdout, "dst\n")
        self.assertEqual(self.lab.run("src", ["ssh", "dst", "exit 7"], check=False).returncode, 7)

    def test_a_session_on_a_terminal(self) -> None:
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        child = self.lab.popen("src", ["ssh", "-tt", "dst"], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        for key in b"echo $((6 * 7))-is-typed\r":
            os.write(ours, bytes((key,)))
            time.sleep(0.01)
        self.assertIn(b"42-is-typed", read_terminal(ours, b"42-is-typed"))
        os.write(ours, b"exit 5\r")
        self.assertEqual(ended(child), 5)


def read_terminal(descriptor: int, until: bytes) -> bytes:
    """Return what a terminal shows up to some words."""
    shown = b""
    give_up_at = time.monotonic() + PATIENCE
    while until not in shown and time.monotonic() < give_up_at:
        if select.select([descriptor], [], [], 1.0)[0]:
            shown += os.read(descriptor, 4096)
    return shown


class ManyConnections(Captured):
    """A storm of connections, and a great many that do nothing."""

    def test_a_thousand_at_once(self) -> None:
        listening = self.listen(port=PORTS[-1])
        servers: list[socket.socket] = []
        echo = Thread(target=self.echo, args=(listening, servers, 1000), daemon=True)
        echo.start()
        clients = self.connect_at_once(PORTS[-1], 1000)
        for number, client in enumerate(clients):
            client.sendall(number.to_bytes(4, "big"))
        answers = [int.from_bytes(read_exactly(client, 4), "big") for client in clients]
        echo.join(PATIENCE)
        self.assertEqual(answers, list(range(1000)))
        self.assertEqual(len(servers), 1000)

    def connect_at_once(self, port: int, count: int) -> list[socket.socket]:
        """Begin so many connections before the first of them can be made."""
        clients = [self.bed.new_socket("src") for _ in range(count)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex((DST, port))
            client.settimeout(PATIENCE)
        return clients

    def echo(self, listening: socket.socket, servers: list[socket.socket], count: int) -> None:
        """Accept them all, and only then answer each."""
        for _ in range(count):
            server, _ = listening.accept()
            self.addCleanup(server.close)
            server.settimeout(PATIENCE)
            servers.append(server)
        for server in servers:
            server.sendall(read_exactly(server, 4))

    def test_idle_connections_cost_little(self) -> None:
        argv = [sys.executable, "-S", "-c", HOLDER, str(PORTS[1])]
        holder = self.lab.popen("dst", argv, stdout=subprocess.PIPE)
        self.addCleanup(ended, holder)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        self.addCleanup(holder.stdout.close)
        self.assertEqual(holder.stdout.readline(), b"ready\n")
        for node in ("src", "dst"):
            self.lab.stop_node(node)  # memory that an earlier test took would hide what this one takes
        self.bed.restore()
        before = {node: self.bed.resident_bytes(node) for node in NODES}
        clients: list[socket.socket] = []
        while len(clients) < IDLE_CONNECTIONS:
            storm = self.connect_at_once(PORTS[1], 500)
            self.assertEqual([client.recv(1) for client in storm], [b"!"] * len(storm))
            clients += storm
        after = {node: self.bed.resident_bytes(node) for node in NODES}
        each = {node: (after[node] - before[node]) // IDLE_CONNECTIONS for node in NODES}
        self.assertTrue(all(cost < IDLE_CONNECTION_BYTES for cost in each.values()), each)
        for client in clients:
            client.setblocking(False)
            self.assertRaises(BlockingIOError, client.recv, 1)


def testSuite() -> BedSuite:
    return bed_suite(NativeWire, FileTransfers, Iperf3, Interactive, ManyConnections)
