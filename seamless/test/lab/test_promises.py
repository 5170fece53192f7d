"""What an application may rely on (payload interceptor), shown in the kernel: applications here, nodes between them.

Every row of the table of endings, with a client on src and a server on dst, three lossy hops apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import select
import signal
import socket
import struct
import termios
import time
from pathlib import Path

from seamless.config.load import load_file
from seamless.lab.lab import Lab
from seamless.session.scheduler import UNSENT_MAX_BYTES
from seamless.test.lab.bedtest import (
    ANSWER,
    BED_FILE,
    DEAD_PORT,
    DST,
    EOF,
    LONG,
    MEMORY_LIMIT_BYTES,
    NODES,
    PATIENCE,
    PORTS,
    RESET,
    BedSuite,
    BedTestCase,
    TestBed,
    Writer,
    bed_suite,
    pattern,
    read_exactly,
    read_to_end,
    reset,
    wait_until,
)
from seamless.transport.dial import KEPT_BYTES
from seamless.transport.splice import READ_BYTES

STOPPED_SECONDS = 60.0 if LONG else 10.0
"""How long the reader that stops does."""
PAUSE_SECONDS = 1.0
"""Longer than any timer that might take silence for an end."""
CAPTURE_PORT = 7401
WINDOW_BYTES = 1 << 20
"""So much, and more, the nodes take before the application reads any of it."""
DELAY_PRODUCT_BYTES = int(500e6 / 8 * 0.030)
"""What the path has under way, by the bed's rates and delays."""
FIRST_BYTES = 100_000
"""What a reader reads before it stops: with what the kernels take on top, less than two thirds of the window."""
APPLICATION_BUFFER_BYTES = 64 * 1024
"""Of a socket of an application's, as it asks for it; the kernel takes twice as much."""
MOST_HELD_BYTES = KEPT_BYTES + UNSENT_MAX_BYTES + READ_BYTES
"""What the nodes and their sockets hold of one direction of a connection, beside the stream's window."""
FORGETFUL_SECONDS = 25
"""After which connection tracking is to forget a half-closed connection: 60 and 120 s else."""
SILENT_SECONDS = 40.0


class Endings(BedTestCase):
    """FIN, RST and refusals pass as what they are."""

    def test_half_close_by_the_client(self) -> None:
        client, server = self.pair()
        upload = Writer(client, ANSWER[:300_000])
        self.assertEqual(read_exactly(server, 300_000), ANSWER[:300_000])
        self.assertIsNone(upload.outcome())
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(server.recv(1), b"")
        time.sleep(PAUSE_SECONDS)
        answer = Writer(server, ANSWER)
        self.assertEqual(read_exactly(client, len(ANSWER)), ANSWER)
        self.assertIsNone(answer.outcome())
        server.close()
        self.assertEqual(read_to_end(client), (b"", EOF))

    def test_half_close_by_the_server(self) -> None:
        client, server = self.pair()
        server.sendall(b"all I have to say")
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(read_to_end(client), (b"all I have to say", EOF))
        time.sleep(PAUSE_SECONDS)
        upload = Writer(client, ANSWER)
        self.assertEqual(read_exactly(server, len(ANSWER)), ANSWER)
        self.assertIsNone(upload.outcome())
        client.close()
        self.assertEqual(read_to_end(server), (b"", EOF))

    def test_reset_by_the_client_comes_after_its_bytes(self) -> None:
        client, server = self.pair()
        server.sendall(b"?")
        self.assertEqual(client.recv(1), b"?")
        self.reset_after_bytes(client, server)

    def test_reset_by_the_server_comes_after_its_bytes(self) -> None:
        client, server = self.pair()
        self.reset_after_bytes(server, client)

    def reset_after_bytes(self, writer: socket.socket, reader: socket.socket) -> None:
        """Reset once the writer's kernel has handed everything over, while it is still on its way."""
        data = ANSWER[:150_000]
        writer.sendall(data)
        wait_until(lambda: unacknowledged(writer) == 0, "the node takes everything")
        reset(writer)
        self.assertEqual(read_to_end(reader), (data, RESET))

    def test_reset_in_mid_transfer_is_no_end_of_file(self) -> None:
        """The writer is far ahead of its reader when it goes: what arrives is a prefix, and then RST."""
        client, server = self.pair()
        client.setblocking(False)
        data = memoryview(pattern(64_000_000))
        written = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                written += client.send(data[written : written + 65_536])
        reset(client)
        received, end = read_to_end(server)
        self.assertEqual(end, RESET)
        self.assertTrue(received == data[: len(received)], "a prefix")
        self.assertLess(len(received), written)

    def test_refused_port(self) -> None:
        self.assertRaises(ConnectionRefusedError, self.connect, DEAD_PORT)
        for node in ("src", "dst"):
            self.said(node, f"connection refused by {DST} port {DEAD_PORT}")

    def test_unreachable_server(self) -> None:
        """The egress's own kernel says that there is no way to the host."""
        self.firewall("dst", "OUTPUT", "-j", "REJECT", "--reject-with", "icmp-host-unreachable")
        with self.assertRaises(OSError) as caught:
            self.connect(DEAD_PORT)
        self.assertEqual(caught.exception.errno, errno.EHOSTUNREACH)
        self.said("src", f"cannot connect to {DST} port {DEAD_PORT}: No route to host")

    def test_server_that_never_answers(self) -> None:
        """A client gives up in its own time; one more patient than the egress, which waits 10 s, goes on."""
        self.firewall("dst", "INPUT", "-j", "DROP")
        hasty, patient = self.bed.new_socket("src"), self.bed.new_socket("src")
        for sock, retries in ((hasty, 1), (patient, 6)):
            self.addCleanup(sock.close)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, retries)
            sock.setblocking(False)
            sock.connect_ex((DST, DEAD_PORT))
        begun = time.monotonic()
        select.select((), (hasty,), (), PATIENCE)
        self.assertEqual(hasty.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ETIMEDOUT)
        self.assertLess(time.monotonic() - begun, 8)
        self.said("src", f"{DST} port {DEAD_PORT} did not answer within 10 s")
        self.assertEqual(select.select((), (patient,), (), 0), ([], [], []))

    def firewall(self, host: str, chain: str, *target: str) -> None:
        """Have a host's own firewall do something to packets for the port where no server listens."""
        rule = [chain, "-p", "tcp", "--dport", str(DEAD_PORT), *target]
        self.lab.run(host, ["iptables", "-I", *rule])
        self.addCleanup(self.lab.run, host, ["iptables", "-D", *rule])

    def test_early_answer_while_uploading(self) -> None:
        """The server answers, says FIN, and a little later closes with the upload unread: its kernel sends RST."""
        client, server = self.pair()
        upload = Writer(client)
        read_exactly(server, 100_000)
        data = ANSWER[:WINDOW_BYTES]
        answer = Writer(server, data)
        self.assertIsNone(answer.outcome())
        server.shutdown(socket.SHUT_WR)
        wait_until(lambda: unacknowledged(server) == 0, "the nodes take the answer")
        self.assertEqual(read_to_end(client), (data, EOF))
        server.close()
        self.assertIsInstance(upload.outcome(), (BrokenPipeError, ConnectionResetError))

    def test_early_answer_of_a_server_that_hangs_up(self) -> None:
        """The same at once, and the client has not begun to read when the RST is there: not a byte is missing."""
        self.answer_and_hang_up(says_fin=True)
        self.answer_and_hang_up(says_fin=False)

    def answer_and_hang_up(self, *, says_fin: bool) -> None:
        client, server = self.pair()
        upload = Writer(client)
        read_exactly(server, 100_000)
        server.sendall(ANSWER[:150_000])
        wait_until(lambda: unacknowledged(server) == 0, "the node takes the answer")
        if says_fin:
            server.shutdown(socket.SHUT_WR)
        server.close()
        time.sleep(PAUSE_SECONDS)
        self.assertEqual(read_exactly(client, 150_000), ANSWER[:150_000])
        if says_fin:
            self.assertEqual(read_to_end(client), (b"", EOF))
        # As with TCP alone: the kernel names the reset by whether a FIN had come before it.
        self.assertIsInstance(upload.outcome(), BrokenPipeError if says_fin else ConnectionResetError)

    def test_a_connection_to_the_capture_port_is_refused(self) -> None:
        for address in ("127.0.0.1", "10.1.1.1"):
            with self.assertRaises(ConnectionRefusedError):
                self.bed.connect_and_read("src", address, CAPTURE_PORT)


class Silence(BedTestCase):
    """Half-closed connections outlive the memory of connection tracking, which is made short here."""

    def setUp(self) -> None:
        super().setUp()
        for host in ("src", "dst"):
            for state in ("close_wait", "fin_wait"):
                setting = f"net.netfilter.nf_conntrack_tcp_timeout_{state}"
                before = self.lab.run(host, ["sysctl", "-n", setting]).stdout.strip()
                self.lab.run(host, ["sysctl", "-qw", f"{setting}={FORGETFUL_SECONDS}"])
                self.addCleanup(self.lab.run, host, ["sysctl", "-qw", f"{setting}={before}"])

    def test_a_long_silence_after_half_a_close(self) -> None:
        """By the client, and by the server."""
        by_client, by_server = (self.pair(port) for port in PORTS[:2])
        by_client[0].shutdown(socket.SHUT_WR)
        self.assertEqual(by_client[1].recv(1), b"")
        by_server[1].shutdown(socket.SHUT_WR)
        self.assertEqual(by_server[0].recv(1), b"")
        time.sleep(SILENT_SECONDS)
        for writer, reader in (by_client[::-1], by_server):
            answer = Writer(writer, ANSWER)
            self.assertEqual(read_exactly(reader, len(ANSWER)), ANSWER)
            self.assertIsNone(answer.outcome())
            writer.close()
            self.assertEqual(read_to_end(reader), (b"", EOF))


class Backpressure(BedTestCase):
    """A reader that stops holds up its own writer, and no other."""

    def test_a_stopped_reader(self) -> None:
        """The writer is let ahead by twice what the path has under way, and by what sockets hold; no more."""
        client, server = self.pair(receive_buffer=APPLICATION_BUFFER_BYTES)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, APPLICATION_BUFFER_BYTES)
        most_ahead = 2 * DELAY_PRODUCT_BYTES + MOST_HELD_BYTES + 2 * 2 * APPLICATION_BUFFER_BYTES
        data = pattern(64_000_000)
        client.settimeout(STOPPED_SECONDS + PATIENCE)
        upload = Writer(client, data)
        self.assertEqual(read_exactly(server, FIRST_BYTES), data[:FIRST_BYTES])
        stopped_until = time.monotonic() + STOPPED_SECONDS
        rounds = 0
        while time.monotonic() < stopped_until:
            self.one_exchange(PORTS[1])
            rounds += 1
            time.sleep(0.2)
        self.assertGreater(rounds, 5)
        wait_until(lambda: self.stands_still(upload), "the writer waits")
        self.assertLessEqual(upload.written - FIRST_BYTES, most_ahead)
        for node in NODES:
            self.assertLess(self.bed.highest_resident_bytes(node), MEMORY_LIMIT_BYTES, node)
        self.assertTrue(read_exactly(server, len(data) - FIRST_BYTES) == data[FIRST_BYTES:], "the rest is whole")
        self.assertIsNone(upload.outcome())

    def stands_still(self, upload: Writer) -> bool:
        written = upload.written
        time.sleep(PAUSE_SECONDS)
        return upload.written == written


class Deaths(BedTestCase):
    """Nodes that end, or are ended, while connections are open."""

    def test_sigterm_of_the_ingress(self) -> None:
        self.death("src", signal.SIGTERM)

    def test_sigterm_of_the_egress(self) -> None:
        self.death("dst", signal.SIGTERM)

    def test_kill_of_the_ingress(self) -> None:
        self.death("src", signal.SIGKILL)

    def test_kill_of_the_egress(self) -> None:
        self.death("dst", signal.SIGKILL)

    def death(self, node: str, how: signal.Signals) -> None:
        """Both ends of an upload, a download and an idle connection see RST; the rules go with the node."""
        ends = [self.pair(port) for port in PORTS[:3]]
        writers = [Writer(ends[0][0]), Writer(ends[1][1])]
        readers = [ends[0][1], ends[1][0]]
        for reader in readers:
            self.assertEqual(len(read_exactly(reader, 300_000)), 300_000)
        self.assertTrue(self.bed.has_rules(node))
        self.lab.stop_node(node, how)
        wait_until(lambda: not self.bed.has_rules(node), f"the rules on {node} go")
        if how == signal.SIGKILL:
            # It could not say goodbye: its peer learns from its next life, or after `give up`.
            self.bed.restore()
        for reader in (*readers, *ends[2]):
            self.assertEqual(read_to_end(reader)[1], RESET)
        for writer in writers:
            self.assertIsInstance(writer.outcome(), ConnectionResetError)

    def test_the_first_connection_after_a_restart_of_the_egress(self) -> None:
        """The ingress still has the keys of the egress's former life; no application notices."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.one_exchange(PORTS[0])
            native = self.bed.native_packets()
            self.lab.stop_node("dst", how)
            self.bed.restore()
            self.one_exchange(PORTS[0])
            self.assertEqual(self.bed.native_packets(), native)

    def test_a_relay_is_killed_and_comes_back(self) -> None:
        data = pattern(120_000_000)  # more than all buffers on the way hold
        ends = [self.pair(port) for port in PORTS[:2]]
        readers = [ends[0][1], ends[1][0]]
        writers = [Writer(ends[0][0], data), Writer(ends[1][1], data)]
        begun = [read_exactly(reader, 2_000_000) for reader in readers]
        self.lab.stop_node("r1", signal.SIGKILL)
        self.assertTrue(all(writer.written < len(data) for writer in writers), "it was killed in mid-transfer")
        time.sleep(PAUSE_SECONDS)
        self.assertFalse(self.bed.reaches("src", "dst"))
        self.bed.restore()
        for reader, first in zip(readers, begun, strict=True):
            self.assertTrue(first + read_exactly(reader, len(data) - len(first)) == data, "every byte, in order")
        self.assertEqual([writer.outcome() for writer in writers], [None, None])

    def test_unreachable_egress_and_direct(self) -> None:
        self.lab.stop_node("dst")
        wait_until(lambda: not self.bed.reaches("src", "dst"), "src notices")
        native = self.bed.native_packets()
        client, server = self.pair()
        upload = Writer(client, ANSWER)
        self.assertEqual(read_exactly(server, len(ANSWER)), ANSWER)
        self.assertIsNone(upload.outcome())
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(read_to_end(server), (b"", EOF))
        reset(server)
        self.assertEqual(read_to_end(client)[1], RESET)
        self.said("src", f"to {DST} port {PORTS[0]} goes direct: node dst cannot be reached now")
        self.assertGreater(self.bed.native_packets() - native, len(ANSWER) // 1500)

    def test_unreachable_egress_and_refuse(self) -> None:
        """A lab of its own, in which src is the only node that runs."""
        configuration = Path(self.mktemp()).absolute()
        configuration.write_text(BED_FILE.read_text().replace("when unreachable direct", "when unreachable refuse"))
        with Lab(load_file(configuration), configuration_file=configuration) as lab:
            lab.start_nodes(["src"])
            refusing = TestBed(lab)
            self.addCleanup(refusing.close)
            wait_until(lambda: refusing.has_rules("src"), "src has its rules")
            self.assertRaises(ConnectionRefusedError, refusing.connect, "src", DST, PORTS[0])
            self.assertEqual(refusing.native_packets(), 0)
            self.assertIn("node dst cannot be reached now", refusing.log("src"))


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes a socket's kernel still holds because the other side has not acknowledged them."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def testSuite() -> BedSuite:
    return bed_suite(Endings, Silence, Backpressure, Deaths)
