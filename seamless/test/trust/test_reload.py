"""A real daemon reads its configuration again: upon SIGHUP, upon ``seamless reload``, with its rules in the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from seamless.config.model import DEFAULT_CAPTURE_PORT
from seamless.errors import EXIT_CONFIGURATION, EXIT_DONE, EXIT_FAILED
from seamless.linux import control_socket
from seamless.test.trust.daemons import (
    CONFIGURATION,
    SETPRIV,
    SKIP,
    USER,
    USER_ID,
    DaemonTestCase,
    open_notify_socket,
    status_of,
)

MORE = CONFIGURATION.replace("port 22;", "port 22, 5201;")
"""One more port is captured."""
NONE = CONFIGURATION.replace("intercept payload", "# intercept payload")
"""Nothing is captured."""
REFUSING = CONFIGURATION.replace("unreachable direct", "unreachable refuse")
BROKEN = CONFIGURATION.replace("between 127.0.0.1", "between 127.0.0.9").replace("port 22", "port 99999")


class ReloadTestCase(DaemonTestCase):
    skip = SKIP

    def seamless(self, *words: str) -> tuple[int, str, str]:
        """Run a ``seamless`` command on the node; return its exit code and what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace.name, sys.executable, "-m", "seamless.tools.main", *words],
            env={**os.environ, control_socket.DIRECTORY_VARIABLE: str(self.sockets)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def reload(self, text: str) -> tuple[int, str, str]:
        self.configuration.write_text(text)
        return self.seamless("reload", "--node=src")

    def has_port(self, port: str) -> bool:
        return any(port in rule and "REDIRECT" in rule for rule in self.own_rules())


class ChildTests(ReloadTestCase):
    """The privileged part is the daemon's child."""

    def test_a_signal(self) -> None:
        node = self.start_node()
        self.assertFalse(self.has_port("5201"))
        self.configuration.write_text(MORE)
        node.send_signal(signal.SIGHUP)
        self.until(lambda: self.has_port("5201"), "the new port is captured")
        self.said("the configuration was read again: 1 difference")
        self.said("rules of intercept block 1")
        self.configuration.write_text(BROKEN)
        node.send_signal(signal.SIGHUP)
        self.said("the configuration was not taken")
        self.assertTrue(self.has_port("5201"))
        self.assertIsNone(node.poll())
        self.assertEnds(node)
        self.assertOnlyForeignRules()

    def test_the_command(self) -> None:
        """What it prints, what a bad file changes (nothing), and what the node does in the end: as at first."""
        node = self.start_node()
        part = self.privileged_part_of(node)
        before = self.own_rules()
        self.assertEqual(self.reload(CONFIGURATION), (EXIT_DONE, "nothing differs\n", ""))
        self.configuration.write_text(MORE)
        code, said, _ = self.seamless("diff", str(self.configuration), "--node=src")
        self.assertEqual(code, EXIT_DONE)
        self.assertIn("5201", said)
        self.assertIn("on src: its firewall rules change", said)
        self.assertEqual(self.own_rules(), before)

        code, said, _ = self.reload(MORE)
        self.assertEqual((code, said.splitlines()), (EXIT_DONE, said.splitlines()[:1]))
        self.assertTrue(self.has_port("5201"))
        rules = self.own_rules()
        code, _, problems = self.reload(BROKEN)
        self.assertEqual((code, len(problems.splitlines())), (EXIT_CONFIGURATION, 2), problems)
        self.assertTrue(all(line.startswith(f"{self.configuration}:") for line in problems.splitlines()), problems)
        self.said(problems.splitlines()[0])
        self.assertEqual(self.own_rules(), rules)
        self.assertEqual(self.seamless("diff", str(self.configuration), "--node=src")[0], EXIT_CONFIGURATION)
        moved = CONFIGURATION.replace("127.0.0.1", "127.0.0.3")
        code, _, problems = self.reload(moved)
        self.assertEqual(code, EXIT_CONFIGURATION)
        self.assertIn("other addresses: restart the daemon, which binds them anew", problems)
        self.assertEqual(self.own_rules(), rules)

        self.assertEqual(self.reload(CONFIGURATION)[0], EXIT_DONE)
        self.assertEqual(self.own_rules(), before)
        self.assertEqual(self.privileged_part_of(node), part)

    def test_the_last_rule_and_the_first(self) -> None:
        """A node that captures nothing has no privileged part until it does."""
        self.configuration.write_text(NONE)
        words = [f"--config={self.configuration}", "--node=src", f"--key={self.key}"]
        twistd = [sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.exit(run())"]
        node = self.popen(*twistd, "-n", "--pidfile=", "seamless", *words)
        self.said("node src is up")
        self.assertIsNone(self.status()["firewall"])
        self.assertEqual(self.reload(REFUSING)[0], EXIT_DONE)
        self.assertTrue(self.has_port("22"))
        self.assertIn("SEAMGUARD-src", self.firewall())
        self.assertEqual(self.reload(NONE)[0], EXIT_DONE)
        self.assertEqual(self.own_rules(), [])
        self.assertNotIn("SEAMGUARD-src", self.firewall())
        listening = self.namespace.run("ss", "-Htln", f"sport = {DEFAULT_CAPTURE_PORT}")
        self.assertEqual(listening, "")
        self.assertEnds(node)

    def test_a_hundred_times(self) -> None:
        """Descriptors, memory and rules are what they were after the first few; ten of them change rules."""
        node = self.start_node()
        part = self.privileged_part_of(node)
        texts = [CONFIGURATION.replace("127.0.0.2;", f"127.0.0.2; cost {cost};") for cost in range(1, 10)]
        path = self.sockets / f"src{control_socket.SUFFIX}"
        memory: list[int] = []
        rules: list[list[str]] = []

        def descriptors() -> list[int]:
            return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (node.pid, part)]

        first: list[list[int]] = []

        def settled() -> bool:
            """Return whether nothing was opened or closed for a moment: the last client is gone."""
            before = descriptors()
            time.sleep(0.2)
            return descriptors() == before

        for turn in range(100):
            self.configuration.write_text(MORE if turn % 10 == 5 else texts[turn % 9])
            self.assertTrue(control_socket.ask(path, {"ask": "reload"}, 30.0))
            if turn % 10 == 9:
                self.until(settled, "the last client is gone")
                first.append(descriptors())
                self.until(lambda: descriptors() == first[0], "nothing else is open")
                rules.append(self.own_rules())
                memory.append(int(status_of(node.pid)["VmRSS"].split()[0]))
        self.assertEqual(rules[1:], rules[:1] * 9)
        self.assertLess(memory[-1] - memory[3], 2048, f"kB after each ten: {memory}")
        self.assertEqual(self.rules_installed(), 1 + 2 * 10)


class DoctorTests(ReloadTestCase):
    def test_a_rule_of_another_program(self) -> None:
        """It is above ours, so that nothing is captured, and ``doctor`` names it until it is gone."""
        self.start_node()
        self.assertNotIn("takes our traffic first", self.seamless("doctor", "--node=src")[1])
        rule = ("-p", "tcp", "-d", "10.1.0.0/16", "-j", "ACCEPT")
        self.namespace.run("iptables", "-t", "nat", "-I", "OUTPUT", *rule)
        code, said, _ = self.seamless("doctor", "--node=src")
        self.assertEqual(code, EXIT_FAILED)
        self.assertIn("(iptables nat: -A OUTPUT -d 10.1.0.0/16 -p tcp -j ACCEPT)", " ".join(said.split()))
        self.assertIn("the link to dst (127.0.0.2:7400) is DOWN", " ".join(said.split()))
        self.namespace.run("iptables", "-t", "nat", "-D", "OUTPUT", *rule)
        self.assertNotIn("takes our traffic first", self.seamless("doctor", "--node=src")[1])


class StandingTests(ReloadTestCase):
    """The privileged part is a service of its own, and the daemon has no privilege at all."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "rules.sock"
        notified = open_notify_socket(self.folder)
        self.addCleanup(notified.close)
        os.chown(self.key, USER_ID, -1)
        words = [f"--config={self.configuration}", "--node=src", f"--user={USER}", f"--listen={self.path}"]
        self.popen(sys.executable, "-P", "-m", "seamless.intercept.privileged", *words,
                   NOTIFY_SOCKET=str(self.folder / "notify"))  # fmt: skip
        notified.recv(100)

    def test_a_reload_and_a_restart(self) -> None:
        """What was installed last is what the next daemon gets."""
        node = self.start_node(prefix=SETPRIV, more=(f"--privileged={self.path}",))
        code, _, problems = self.reload(MORE)
        self.assertEqual(code, EXIT_DONE, problems)
        self.assertTrue(self.has_port("5201"))
        self.assertEqual(self.reload(BROKEN)[0], EXIT_CONFIGURATION)
        self.assertTrue(self.has_port("5201"))
        self.assertEnds(node)
        self.configuration.write_text(MORE)
        self.start_node(prefix=SETPRIV, more=(f"--privileged={self.path}",))
        self.assertTrue(self.has_port("5201"))
