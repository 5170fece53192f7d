"""``source client``: the server sees the client. Real nodes, programs, firewalls and routes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from twisted.trial.runner import TestSuite

from seamless.intercept.payload.source_rules import DIAL_MARK
from seamless.linux.policy_routes import table_number
from seamless.linux.sockopt import set_mark
from seamless.linux.transparent import IP_TRANSPARENT
from seamless.test.lab.bedtest import PATIENCE, read_exactly, read_to_end, wait_until
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.connectbed import CLOSED, EGRESS, OPEN, SERVER, Attempt, ConnectCase, cells

CLIENT = ("10.2.1.1", "2001:db8:1::1")
CONTAINER = "10.2.2.34"


class SourceTests(ConnectCase):
    """Servers on the egress's host and behind it, clients on the ingress's host and behind it."""

    statements = "connect confirmed; source client;"

    def test_the_server_sees_the_client(self) -> None:
        """Its address and its port."""
        self.start()
        for host, source, server_host, server in (
            ("a", CLIENT[0], "b", SERVER[0]),
            ("a", CLIENT[1], "b", SERVER[1]),
            ("a", CLIENT[0], "dst", EGRESS[0]),
            ("a", CLIENT[1], "dst", EGRESS[1]),
            ("src", "10.1.4.1", "b", SERVER[0]),
            ("src", "10.1.4.1", "dst", EGRESS[0]),
        ):
            client, accepted = self.connected(host, source, server_host, server)
            self.assertEqual(accepted.getpeername()[:2], client.getsockname()[:2])
            self.both_ways(client, accepted)
        self.assertEqual(self.counters("dst", "payload egress")["other_port"], 0)

    def both_ways(self, client: socket.socket, server: socket.socket) -> None:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(read_to_end(server), (b"question", "EOF"))
        server.sendall(b"answer")
        server.close()
        self.assertEqual(read_to_end(client), (b"answer", "EOF"))

    def test_every_errno_is_that_of_the_native_network(self) -> None:
        """ICMP errors come to the client's address, and must come to the egress's socket."""
        for host, addresses in (("dst", EGRESS), ("b", SERVER)):
            for address in addresses:
                self.listener(host, address)
        wanted = cells(("a",), CLIENT)
        self.stop()
        native = self.attempts(wanted)
        self.start()
        captured = self.attempts(wanted)
        for attempt in wanted:
            self.assertEqual(captured[attempt][:2], native[attempt][:2], attempt)
        self.assertGreaterEqual(self.counters("dst", "payload egress")["as_client"], len(wanted))

    def test_a_container_behind_a_bridge(self) -> None:
        """Its default route leads to the bridge."""
        self.start()
        container = self.lab.popen("dst", ["unshare", "--net", "sleep", "60"])
        self.addCleanup(container.kill)
        wait_until(lambda: self.in_container(container, "true") == 0, "the container is there")
        for line in (
            "ip link add bridge0 type bridge",
            "ip address add 10.2.2.33/28 dev bridge0",
            "ip link set bridge0 up",
            f"ip link add inside0 type veth peer name eth0 netns {pid_inside(container)}",
            "ip link set inside0 master bridge0 up",
        ):
            self.lab.run("dst", line.split())
        for line in (
            f"ip address add {CONTAINER}/28 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 10.2.2.33",
        ):
            self.assertEqual(self.in_container(container, *line.split()), 0)
        program = (
            f"import socket; listening = socket.create_server(('{CONTAINER}', {OPEN})); print('ready', flush=True)\n"
            "accepted, peer = listening.accept(); accepted.sendall(repr(peer).encode()); accepted.close()"
        )
        argv = [*self.enter(container), sys.executable, "-c", program]
        server = self.lab.popen("dst", argv, stdout=subprocess.PIPE, stderr=None)
        assert server.stdout is not None
        self.assertEqual(server.stdout.readline(), b"ready\n")
        client = self.new_socket("a", CONTAINER)
        client.bind((CLIENT[0], 0))
        client.connect((CONTAINER, OPEN))
        self.assertEqual(read_to_end(client), (repr(client.getsockname()).encode(), "EOF"))

    def enter(self, container: subprocess.Popen[bytes]) -> list[str]:
        return ["nsenter", "--net", f"--target={pid_inside(container)}"]

    def in_container(self, container: subprocess.Popen[bytes], *argv: str) -> int:
        return self.lab.run("dst", [*self.enter(container), *argv], check=False).returncode

    def test_a_firewall_rule_for_the_client(self) -> None:
        """An INPUT rule of the server's host sees the client, and not the egress."""
        self.start()
        rule = [
            "INPUT",
            "-p",
            "tcp",
            "-s",
            CLIENT[0],
            "--dport",
            str(OPEN),
            "-j",
            "REJECT",
            "--reject-with",
            "tcp-reset",
        ]
        for server_host, server in (("b", SERVER[0]), ("dst", EGRESS[0])):
            self.lab.run(server_host, ["iptables", "-I", *rule])
            self.addCleanup(self.lab.run, server_host, ["iptables", "-D", *rule])
            with self.listener(server_host, server):
                client = self.new_socket("a", server)
                client.bind((CLIENT[0], 0))
                self.assertRaises(ConnectionRefusedError, client.connect, (server, OPEN))
                other = self.new_socket("src", server)
                other.connect((server, OPEN))

    def test_an_address_that_the_ingress_does_not_serve(self) -> None:
        """The address of a wire: the connection is refused, and the log says why."""
        self.start()
        self.listener("b", SERVER[0])
        before = self.counters("dst", "payload egress")["not_allowed"]
        attempt = Attempt("a", SERVER[0], OPEN, "10.1.11.5")
        self.assertEqual(self.attempts([attempt])[attempt].error, "ECONNREFUSED")
        self.assertEqual(self.counters("dst", "payload egress")["not_allowed"], before + 1)
        for node in ("src", "dst"):
            self.assertIn("does not serve the client's address 10.1.11.5", self.bed.log(node))

    def test_a_port_that_is_taken(self) -> None:
        """A connection with the same addresses and ports is there already: another port is chosen."""
        self.start()
        client = self.new_socket("a", SERVER[0])
        client.bind((CLIENT[0], 0))
        with self.listener("b", SERVER[0]) as listening, self.bed.new_socket("dst") as first:
            first.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            set_mark(first, DIAL_MARK)
            first.bind(client.getsockname())
            first.connect((SERVER[0], OPEN))
            listening.accept()[0].close()
            client.connect((SERVER[0], OPEN))
            accepted, peer = listening.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(PATIENCE)
        self.assertEqual(peer[0], CLIENT[0])
        self.assertNotEqual(peer[1], client.getsockname()[1])
        self.assertEqual(self.counters("dst", "payload egress")["other_port"], 1)
        self.both_ways(client, accepted)

    def test_rules_and_routes_are_put_back_and_go(self) -> None:
        """What another program removed; and whatever ends the node, nothing of it stays, and all that was foreign."""
        table = str(table_number("dst"))
        self.lab.run("dst", ["ip", "rule", "add", "pref", "7400", "fwmark", "0x77", "lookup", "main"])
        self.addCleanup(self.lab.run, "dst", ["ip", "rule", "del", "fwmark", "0x77"])
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            self.start()
            wait_until(lambda: table in self.shown(), "the rule is there")
            self.lab.run("dst", ["ip", "rule", "del", "fwmark", "0x2000"])
            wait_until(lambda: table in self.shown(), "the rule is back")
            self.lab.stop_node("dst", signal_number)
            wait_until(lambda: table not in self.shown() and "SEAM" not in self.shown(), "nothing is left")
            self.assertIn("0x77", self.shown())

    def shown(self) -> str:
        """Return the rules and routes of the egress's host."""
        table = ["route", "show", "table", "all"]
        commands = (
            ["iptables-save"],
            ["ip6tables-save"],
            *(["ip", *words] for words in (["rule"], ["-6", "rule"], table)),
        )
        return "".join(self.lab.run("dst", command).stdout for command in commands)

    def test_a_connection_that_stands_ends_with_its_egress(self) -> None:
        """Killed: both applications see a reset."""
        self.start()
        client, accepted = self.connected("a", CLIENT[0], "b", SERVER[0])
        client.sendall(b"x")
        self.assertEqual(read_exactly(accepted, 1), b"x")
        self.lab.stop_node("dst", signal.SIGKILL)
        self.assertEqual(read_to_end(accepted), (b"", "RST"))
        self.start()
        self.assertEqual(read_to_end(client), (b"", "RST"))
        self.assertEqual(self.attempt("a", SERVER[0], CLOSED).error, "ECONNREFUSED")

    def test_a_setting_of_the_kernel_that_drops_the_answers(self) -> None:
        """The log says which, and what to do."""
        self.stop()
        setting = "net.ipv4.conf.all.src_valid_mark"
        self.lab.run("dst", ["sysctl", "-qw", f"{setting}=1", "net.ipv4.conf.all.rp_filter=1"])
        self.addCleanup(self.lab.run, "dst", ["sysctl", "-qw", f"{setting}=0", "net.ipv4.conf.all.rp_filter=0"])
        self.start()
        self.assertIn(f"sysctl -w {setting}=0", self.bed.log("dst"))
        self.listener("b", SERVER[0])
        attempt = Attempt("a", SERVER[0], OPEN, CLIENT[0])
        self.assertEqual(self.attempts([attempt])[attempt].error, "ETIMEDOUT")


def pid_inside(child: subprocess.Popen[bytes]) -> int:
    """Return the process that a lab's command has become: its innermost child."""
    pid = child.pid
    while True:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        if not children:
            return pid
        pid = int(children[0])


def testSuite() -> TestSuite:
    """Return the tests of this module."""
    return TestSuite(map(ClassSuite, (SourceTests,)))
