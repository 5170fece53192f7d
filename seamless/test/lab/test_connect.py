"""``connect confirmed`` and ``learned``: an application's connect() ends as natively. Real nodes and firewalls."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from twisted.trial.runner import TestSuite

from seamless.test.lab.bedtest import PATIENCE, read_exactly, read_to_end, wait_until
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.connectbed import (
    CLOSED,
    EGRESS,
    FILTERED,
    OPEN,
    ROUND_TRIP,
    SERVER,
    ConnectCase,
    cells,
)

FLOOD: Final = 10_000
MSG_FASTOPEN: Final = 0x2000_0000


class ConfirmedTests(ConnectCase):
    """Every connection waits for the egress."""

    statements = "connect confirmed;"

    def test_every_errno_is_that_of_the_native_network(self) -> None:
        """And every ICMP message: to programs on the ingress's host, and on a host behind it; IPv4 and IPv6."""
        for host, addresses in (("dst", EGRESS), ("b", SERVER)):
            for address in addresses:
                self.listener(host, address)
        wanted = cells(("src", "a"))
        self.stop()
        native = self.attempts(wanted)
        self.start()
        captured = self.attempts(wanted)
        for attempt in wanted:
            self.assertEqual(captured[attempt][:2], native[attempt][:2], attempt)
        errors = {result.error for result in native.values()}
        self.assertEqual(errors, {"0", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "ETIMEDOUT"})
        refused = sum(result.error not in ("0", "ETIMEDOUT") for result in native.values())
        counters = self.counters()
        self.assertEqual((counters["refused"], counters["confirmed"]), (refused, 8))

    def test_time_of_an_open_and_of_a_closed_port(self) -> None:
        """One round trip of the overlay, not two. (``bench`` says how much more: this machine may be busy.)"""
        self.start()
        self.listener("b", SERVER[0])
        for port in (OPEN, CLOSED):
            times = sorted(self.attempt("a", SERVER[0], port).seconds for _ in range(9))
            self.assertLess(times[0], 2 * ROUND_TRIP, times)
            self.assertGreater(times[0], ROUND_TRIP)

    def test_the_connection_carries(self) -> None:
        """The server speaks first, both directions half-close, and what was accepted is reset with its egress."""
        self.start()
        for host, address in (("src", EGRESS[0]), ("a", SERVER[1])):
            listening = self.listener("dst" if address in EGRESS else "b", address)
            client = self.new_socket(host, address)
            client.connect((address, OPEN))
            server, _ = listening.accept()
            self.addCleanup(server.close)
            server.settimeout(PATIENCE)
            server.sendall(b"welcome")
            self.assertEqual(read_exactly(client, 7), b"welcome")
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read_to_end(server), (b"question", "EOF"))
            server.sendall(b"answer")
            server.close()
            self.assertEqual(read_to_end(client), (b"answer", "EOF"))

    def test_data_in_the_syn(self) -> None:
        """TCP Fast Open, without a cookie: the data comes, once."""
        self.start()
        for host in ("src", "a"):
            self.lab.run(host, ["sysctl", "-qw", "net.ipv4.tcp_fastopen=5"])
            for server_host, address in (("dst", EGRESS[0]), ("b", SERVER[1])):
                listening = self.listener(server_host, address)
                client = self.new_socket(host, address)
                client.sendto(b"early data", MSG_FASTOPEN, (address, OPEN))
                client.sendall(b", and more")
                server, _ = listening.accept()
                client.shutdown(socket.SHUT_WR)
                server.settimeout(PATIENCE)
                self.assertEqual(read_to_end(server), (b"early data, and more", "EOF"))
                server.close()
                listening.close()

    def test_a_client_that_gives_up(self) -> None:
        """One here by its socket, one behind the gateway because it does not send its SYN again."""
        self.start()
        before = self.counters()["gave_up"]
        given_up = self.counters("dst", "payload egress")["given_up"]
        for host in ("src", "a"):
            client = self.new_socket(host, SERVER[0])
            client.setblocking(False)
            client.connect_ex((SERVER[0], FILTERED))
            wait_until(lambda: self.waiting() == 1, "the SYN waits")
            client.close()
            wait_until(lambda: self.waiting() == 0, "it goes with its client")
        self.assertEqual(self.counters()["gave_up"], before + 2)
        wait_until(
            lambda: self.counters("dst", "payload egress")["given_up"] == given_up + 2, "nobody dials for it any more"
        )

    def waiting(self) -> int:
        report = self.bed.report("src")
        return sum(one["waiting"] for one in report["interceptors"] if one["name"] == "payload connect")

    def test_a_flood_to_filtered_ports_leaves_room_for_others(self) -> None:
        """Programs on the ingress's host flood; a host behind it connects meanwhile, every time."""
        self.start()
        self.listener("b", SERVER[0])
        before = self.counters()
        script = (
            "import resource, socket, sys\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))\n"
            "kept = []\n"
            f"for _ in range({FLOOD}):\n"
            "    sock = socket.socket(); sock.setblocking(False); kept.append(sock)\n"
            f"    sock.connect_ex(('{EGRESS[0]}', {FILTERED}))\n"
            "print('done', flush=True); sys.stdin.read()\n"
        )
        flood = self.lab.popen("src", [sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=None)
        assert flood.stdin is not None and flood.stdout is not None
        self.addCleanup(flood.wait, PATIENCE)
        self.addCleanup(flood.stdin.close)
        during = []
        done = threading.Thread(target=flood.stdout.readline)
        done.start()
        while done.is_alive():
            during.append(self.attempt("a", SERVER[0], retries=5))
        during += [self.attempt("a", SERVER[0], retries=5) for _ in range(5)]
        flood.stdin.close()
        flood.wait(PATIENCE)
        self.assertEqual({result.error for result in during}, {"0"})
        wait_until(lambda: self.waiting() == 0, "nothing waits for the flood's clients")
        self.assertGreater(self.counters()["overloaded"] - before["overloaded"], 1000)

    def test_who_holds_the_syns_stops_for_five_seconds(self) -> None:
        """They wait in the kernel, and nothing hangs for good."""
        self.start()
        self.listener("b", SERVER[0])
        with self.privileged_part_stopped():
            timer = threading.Timer(5.0, self.resume)
            timer.start()
            result = self.attempt("a", SERVER[0], retries=5)
            timer.join()
        self.assertEqual(result.error, "0")
        self.assertGreater(result.seconds, 4)
        self.assertLess(self.attempt("a", SERVER[0]).seconds, 1)

    @contextmanager
    def privileged_part_stopped(self) -> Iterator[None]:
        (self._stopped,) = children(self.lab.node("src").process.pid)
        os.kill(self._stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        os.kill(self._stopped, signal.SIGCONT)

    def test_nothing_is_left(self) -> None:
        """Stopped or killed, and whatever waited; foreign rules are as before."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            self.start()
            client = self.new_socket("src", EGRESS[0])
            client.setblocking(False)
            client.connect_ex((EGRESS[0], FILTERED))
            wait_until(lambda: self.waiting() == 1, "the SYN waits")
            self.lab.stop_node("src", signal_number)
            for tool in ("iptables-save", "ip6tables-save"):
                wait_until(partial(self.has_no_rules, tool), "no rule is left")

    def has_no_rules(self, tool: str) -> bool:
        return "SEAM" not in self.lab.run("src", [tool]).stdout


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


class LearnedTests(ConnectCase):
    """The second connection to a server saves the round trip."""

    statements = ""

    def test_the_second_connection_and_the_death_of_the_server(self) -> None:
        self.start()
        listening = self.listener("b", SERVER[0])
        first, *others = (self.attempt("a", SERVER[0]) for _ in range(6))
        self.assertEqual({one.error for one in (first, *others)}, {"0"})
        self.assertGreater(first.seconds, ROUND_TRIP)
        self.assertLess(min(one.seconds for one in others), ROUND_TRIP)
        self.assertEqual(self.counters()["learned"], 5)
        listening.close()
        told = self.new_socket("a", SERVER[0])
        told.connect((SERVER[0], OPEN))
        self.assertEqual(read_to_end(told), (b"", "RST"))
        self.assertEqual([self.attempt("a", SERVER[0]).error for _ in range(3)], ["ECONNREFUSED"] * 3)


class DirectTests(ConnectCase):
    """While the egress cannot be reached, a SYN goes on natively; no host but src has a node."""

    statements = "connect confirmed; when unreachable direct;"

    def test_native_errno_and_a_native_connection(self) -> None:
        self.start()
        self.lab.stop_node("dst")
        wait_until(lambda: not self.bed.reaches("src", "dst"), "src has no path to dst")
        listening = self.listener("b", SERVER[0])
        self.assertEqual(self.attempt("a", SERVER[0], CLOSED).error, "ECONNREFUSED")
        client = self.new_socket("a", SERVER[0])
        client.connect((SERVER[0], OPEN))
        server, (address, _) = listening.accept()
        self.assertIn(address, ("10.1.11.5", "10.2.1.1"))
        self.lab.stop_node("src")
        client.sendall(b"goes on without the node")
        server.settimeout(PATIENCE)
        self.assertEqual(read_exactly(server, 24), b"goes on without the node")
        server.close()


def testSuite() -> TestSuite:
    """Return the tests of this module, each class with a bed of its own."""
    return TestSuite(map(ClassSuite, (ConfirmedTests, LearnedTests, DirectTests)))
