"""Little runs as root, and what does leaves no rule behind: real daemons, killed in every order.

`Shed` is ``twistd --uid``: the daemon starts as root and gives it up. `Standing` is systemd's way: the privileged part
is a service of its own, and the node never had any privilege.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from seamless.linux import notify
from seamless.test.tools.twistd import ROOT
from seamless.test.trust.daemons import SETPRIV, SKIP, USER, USER_ID, DaemonTestCase, open_notify_socket, status_of
from seamless.transport.udp import SOCKET_BUFFER_BYTES

NO_CAPABILITIES = "0" * 16
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


class Shed(DaemonTestCase):
    """``twistd --uid``: started as root, run as another user."""

    skip = SKIP

    def start(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start the node; return it and the process id of its privileged part."""
        node = self.start_node(f"--uid={USER}")
        return node, self.privileged_part_of(node)

    def test_the_node_has_no_capabilities(self) -> None:
        node, part = self.start()
        status = status_of(node.pid)
        self.assertEqual({status[name] for name in CAPABILITY_SETS}, {NO_CAPABILITIES})
        self.assertEqual(set(status["Uid"].split()), {str(USER_ID)})
        self.assertEqual(status["Groups"].split(), [status["Gid"].split()[0]])
        self.assertEqual(status_of(part)["Uid"].split()[0], "0", "the other half does the rest")

    def test_its_sockets_have_large_buffers(self) -> None:
        """They are made before privilege goes: beyond net.core.rmem_max, so that rates stay what they are."""
        self.start()
        shown = self.namespace.run("ss", "-uamnH", "sport", "=", "7400")
        (buffer,) = (int(word[2:]) for word in shown.replace("(", ",").split(",") if word.startswith("rb"))
        self.assertEqual(buffer, 2 * SOCKET_BUFFER_BYTES)
        with open("/proc/sys/net/core/rmem_max") as file:
            self.assertGreater(buffer, int(file.read()), "no test of anything on a host with large buffers for all")

    def test_its_own_connections_pass_and_others_are_captured(self) -> None:
        """``when unreachable direct`` works without CAP_NET_ADMIN: its user's connections are left out."""
        direct = "when unreachable direct;"
        # Else the held SYN goes on natively, and the node has no part in it.
        self.configuration.write_text(self.configuration.read_text().replace(direct, f"{direct} connect early;"))
        with self.namespace.entered():
            self.namespace.run("ip", "address", "add", "10.1.9.2/32", "dev", "lo")
            with socket.create_server(("10.1.9.2", 22)) as server:
                self.start()
                self.assertTrue(self.connects(USER_ID))
                self.assertEqual(server.accept()[1][0], "10.1.9.2")
                self.assertTrue(self.connects(0), "captured, and dialled directly by the node")
                server.settimeout(5)
                server.accept()
        (ingress,) = (each for each in self.status()["interceptors"] if each["name"] == "payload ingress")
        self.assertGreaterEqual(ingress["counters"]["direct"], 1)

    def test_sigterm(self) -> None:
        node, part = self.start()
        self.assertRulesInstalled()
        self.assertEnds(node)
        self.assertOnlyForeignRules()
        self.assertFalse(os.path.exists(f"/proc/{part}"))

    def test_the_node_is_killed(self) -> None:
        node, _ = self.start()
        self.assertRulesInstalled()
        node.kill()
        self.assertOnlyForeignRules()

    def test_the_privileged_part_is_killed(self) -> None:
        """The node notices, says so, and goes on; the next start takes away what was left."""
        node, part = self.start()
        os.kill(part, signal.SIGKILL)
        self.said("killed by signal 9")
        self.said("will not be removed when it ends")
        self.assertIsNone(node.poll())
        self.assertEnds(node)
        self.assertRulesInstalled()
        self.next_start_sweeps()

    def test_both_are_killed_in_both_orders(self) -> None:
        for order in ("node first", "part first"):
            node, part = self.start()
            self.assertRulesInstalled()
            for pid in (node.pid, part) if order == "node first" else (part, node.pid):
                os.kill(pid, signal.SIGKILL)
            node.wait()
            self.next_start_sweeps()

    def next_start_sweeps(self) -> None:
        node, _ = self.start()
        self.assertRulesInstalled()
        self.assertEqual(len([rule for rule in self.own_rules() if "OUTPUT" in rule]), 1, "and not twice")
        self.assertEnds(node)
        self.assertOnlyForeignRules()

    def test_a_user_who_could_not_load_the_rest(self) -> None:
        closed = self.folder / "closed"
        shutil.copytree(
            Path(ROOT) / "seamless", closed / "seamless", ignore=shutil.ignore_patterns("test", "__pycache__")
        )
        closed.chmod(0o700)
        with self.assertRaises(self.failureException):
            self.start_node(f"--uid={USER}", PYTHONPATH=f"{closed}:{ROOT}")
        self.said(f"seamless: user {USER_ID} may not enter {closed}")

    def test_the_command_that_cleans_up(self) -> None:
        """`ExecStopPost`: it works when the configuration is broken, and says when there is nothing to do."""
        node, part = self.start()
        os.kill(part, signal.SIGKILL)
        node.kill()
        node.wait()
        self.assertRulesInstalled()
        self.configuration.write_text("not any more")
        command = [
            sys.executable,
            "-m",
            "seamless.tools.main",
            "rules",
            str(self.configuration),
            "--node=src",
            "--remove",
        ]
        self.assertEqual(self.popen(*command).wait(), 0)
        self.said("the firewall rules of node src are removed")
        self.assertOnlyForeignRules()
        self.assertEqual(self.popen(*command).wait(), 0)
        self.said("node src had left no rules")


class Standing(DaemonTestCase):
    """systemd's way: two services, and the node never had any privilege."""

    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.door = self.folder / "rules.sock"
        self.notified = open_notify_socket(self.folder)
        self.addCleanup(self.notified.close)
        os.chown(self.key, USER_ID, -1)
        self.part = self.start_part()

    def start_part(self) -> subprocess.Popen[bytes]:
        """Start the privileged part; it says when it is ready."""
        words = [f"--config={self.configuration}", "--node=src", f"--user={USER}", f"--listen={self.door}"]
        part = self.popen(sys.executable, "-P", "-m", "seamless.intercept.privileged", *words,
                          NOTIFY_SOCKET=str(self.folder / "notify"))  # fmt: skip
        self.assertEqual(self.notified.recv(100), notify.READY.encode())
        return part

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        return self.start_node(prefix=SETPRIV, more=(f"--privileged={self.door}",), **environment)

    def test_the_node_never_had_a_capability(self) -> None:
        status = status_of(self.start().pid)
        self.assertEqual({status[name] for name in (*CAPABILITY_SETS, "CapBnd")}, {NO_CAPABILITIES})
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertRulesInstalled()

    def test_what_systemd_is_told(self) -> None:
        node = self.start(NOTIFY_SOCKET=str(self.folder / "notify"), WATCHDOG_USEC="200000")
        told = [self.notified.recv(100).decode() for _ in range(3)]
        self.assertEqual(told, [notify.READY, notify.WATCHDOG, notify.WATCHDOG])
        node.send_signal(signal.SIGTERM)
        while (word := self.notified.recv(100).decode()) != notify.STOPPING:
            self.assertEqual(word, notify.WATCHDOG)
        self.assertEqual(node.wait(), -signal.SIGTERM)

    def test_the_node_is_killed_and_started_again(self) -> None:
        for _ in range(2):
            node = self.start()
            self.assertRulesInstalled()
            node.kill()
            node.wait()
            self.assertOnlyForeignRules()

    def test_the_privileged_part_is_killed_and_started_again(self) -> None:
        """The start sweeps, the node comes back by itself, and has its rules installed anew."""
        node = self.start()
        self.part.kill()
        self.until(lambda: self.firewall_counter("deaths") == 1, "the node notices")
        self.part = self.start_part()
        self.until(lambda: self.rules_installed() == 2, "it comes back")
        self.assertRulesInstalled()
        self.assertEnds(node)
        self.assertOnlyForeignRules()

    def test_both_are_killed_in_both_orders(self) -> None:
        for order in ("node first", "part first"):
            node = self.start()
            for process in (node, self.part) if order == "node first" else (self.part, node):
                process.kill()
            node.wait()
            self.part = self.start_part()
            self.assertOnlyForeignRules()

    def test_sigterm_to_the_privileged_part(self) -> None:
        self.start()
        self.assertRulesInstalled()
        self.assertEqual(self.end(self.part), 0)
        self.assertOnlyForeignRules()
        self.assertFalse(self.door.exists())

    def test_nobody_else_has_rules_installed(self) -> None:
        """The kernel knows the user that connects; root itself is refused too."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(self.door))
            self.assertIn(f"only user {USER_ID} may have the rules of src installed", stranger.recv(1000).decode())
            self.assertEqual(stranger.recv(1000), b"")
        self.assertOnlyForeignRules()
        self.start()

    def test_without_it_the_node_says_what_to_start(self) -> None:
        self.end(self.part)
        with self.assertRaises(self.failureException):
            self.start()
        self.said(f"no process keeps the firewall rules at {self.door}")


class NotifyTests(DaemonTestCase):
    """Without systemd nothing is said, and nothing fails."""

    def setUp(self) -> None:
        pass

    def test_no_systemd(self) -> None:
        self.patch(os, "environ", {})
        self.assertFalse(notify.notify(notify.READY))
        self.assertIsNone(notify.watchdog_interval())

    def test_a_socket_that_is_gone(self) -> None:
        self.patch(os, "environ", {"NOTIFY_SOCKET": "/nonexistent/notify"})
        self.assertFalse(notify.notify(notify.READY))

    def test_an_abstract_socket(self) -> None:
        name = f"seamless-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind("\0" + name)
            self.patch(os, "environ", {"NOTIFY_SOCKET": "@" + name})
            self.assertTrue(notify.notify(notify.READY))
            self.assertEqual(listening.recv(100), b"READY=1")

    def test_whose_watchdog(self) -> None:
        self.patch(os, "environ", {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
        self.assertEqual(notify.watchdog_interval(), 15.0)
        os.environ["WATCHDOG_PID"] = "1"
        self.assertIsNone(notify.watchdog_interval())
