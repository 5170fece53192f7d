"""``when unreachable refuse`` refuses whatever is killed, stopped or flushed: real daemons, and a server to be reached.

The server has the captured address on the node's own host, so a connection that is neither captured nor refused arrives
there. The other node never runs: what is captured is reset.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from seamless.linux.ruleset import GUARD_PREFIX
from seamless.test.trust.daemons import (
    CAPTURED,
    CONFIGURATION,
    FOREIGN,
    SETPRIV,
    SKIP,
    USER,
    USER_ID,
    DaemonTestCase,
    open_notify_socket,
)

CHAIN = f"{GUARD_PREFIX}src"
REFUSED = str(int(errno.ECONNREFUSED))
RESET = str(int(errno.ECONNRESET))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a privileged part put nothing back for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class RefuseTestCase(DaemonTestCase):
    """A server that native connections reach."""

    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.configuration.write_text(CONFIGURATION.replace("unreachable direct", "unreachable refuse; connect early"))
        self.namespace.run("ip", "address", "add", f"{CAPTURED}/32", "dev", "lo")
        with self.namespace.entered():
            self.server = socket.create_server((CAPTURED, 22))
        self.server.setblocking(False)
        self.addCleanup(self.server.close)
        self.assertReached()

    def attempt(self) -> tuple[str, int]:
        """Connect as an application does; return the error, and how many connections reached the server."""
        program = f"import socket; s = socket.socket(); s.settimeout(1); print(s.connect_ex(('{CAPTURED}', 22)))"
        error = self.namespace.run(sys.executable, "-c", program).strip()
        reached = 0
        while True:
            try:
                self.server.accept()[0].close()
            except BlockingIOError:
                return error, reached
            reached += 1

    def assertReached(self) -> None:
        self.assertEqual(self.attempt(), ("0", 1))

    def assertCaptured(self) -> None:
        """The kernel accepts for the node, which resets it: before connect returns, or after."""
        error, reached = self.attempt()
        self.assertIn(error, ("0", RESET))
        self.assertEqual(reached, 0)

    def assertRefused(self) -> None:
        """The firewall refuses: nothing captured it."""
        self.assertEqual(self.attempt(), (REFUSED, 0))

    def has_guard(self) -> bool:
        return CHAIN in self.namespace.run("iptables-save", "-t", "filter")

    def command(self, *words: str) -> None:
        """Run ``seamless rules`` on the node, with a configuration that cannot be read any more."""
        argv = [sys.executable, "-m", "seamless.tools.main", "rules", "/nonexistent", "--node=src", *words]
        self.assertEqual(self.popen(*argv).wait(), 0)

    def assertOthersAsBefore(self) -> None:
        """Foreign rules are what they were."""
        self.assertOnlyForeignRules()
        self.assertNotIn("SEAM", self.firewall().replace("theirs, not SEAMLESS", ""))


class Child(RefuseTestCase):
    """The privileged part is the daemon's child, or was."""

    def start(self) -> subprocess.Popen[bytes]:
        node = self.start_node()
        self.assertCaptured()
        return node

    def test_flushed_nat_table(self) -> None:
        """At once, until the rules are back, which they are within seconds; and then it is captured again."""
        part = self.privileged_part_of(self.start())
        with stopped(part):
            self.namespace.run("iptables", "-t", "nat", "-F")
            self.assertRefused()
        self.until(lambda: self.firewall_counter("restored") > 0, "lost rules are put back")
        self.assertCaptured()

    def test_flushed_filter_table(self) -> None:
        """The guard is put back as well."""
        part = self.privileged_part_of(self.start())
        with stopped(part):
            self.namespace.run("iptables", "-F")
            self.assertFalse(self.has_guard_jump())
        self.until(lambda: self.firewall_counter("restored") > 0, "lost rules are put back")
        self.assertTrue(self.has_guard_jump())
        with stopped(part):
            self.namespace.run("iptables", "-t", "nat", "-F")
            self.assertRefused()

    def has_guard_jump(self) -> bool:
        return f"-j {CHAIN}" in self.namespace.run("iptables-save", "-t", "filter")

    def test_sigterm(self) -> None:
        """A stop goes on refusing, says so, and says what ends it."""
        node = self.start()
        self.said("refuse what they do not capture and may not go natively")
        self.assertEnds(node)
        self.said("seamless rules FILE --node src --remove takes them away")
        self.assertRefused()
        self.assertEqual(self.own_rules(), [])
        self.command("--sweep")
        self.assertRefused()
        self.command("--remove")
        self.assertReached()
        self.assertOthersAsBefore()

    def test_everything_is_killed(self) -> None:
        """In both orders. What the diverting rules of the dead still do, an operator's sweep ends; not the refusing."""
        for order in ("node first", "part first"):
            node = self.start()
            part = self.privileged_part_of(node)
            for pid in (node.pid, part) if order == "node first" else (part, node.pid):
                os.kill(pid, signal.SIGKILL)
            node.wait()
            self.assertRefused()
            self.command("--sweep")
            self.assertEqual(self.own_rules(), [])
            self.assertRefused()

    def test_the_node_is_killed(self) -> None:
        node = self.start()
        node.kill()
        node.wait()
        self.assertRefused()
        self.until(lambda: not self.own_rules(), "the other rules go")
        self.assertRefused()

    def test_a_configuration_that_says_direct_takes_it_away(self) -> None:
        self.assertEnds(self.start())
        self.assertTrue(self.has_guard())
        self.configuration.write_text(CONFIGURATION)
        self.start_node()
        self.assertFalse(self.has_guard())

    def test_direct_leaves_nothing_behind(self) -> None:
        self.configuration.write_text(CONFIGURATION)
        self.assertEnds(self.start_node())
        self.assertReached()
        self.assertOthersAsBefore()


class Standing(RefuseTestCase):
    """The privileged part is a service of its own, as with systemd."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "rules.sock"
        self.notified = open_notify_socket(self.folder)
        self.addCleanup(self.notified.close)
        os.chown(self.key, USER_ID, -1)
        words = [f"--config={self.configuration}", "--node=src", f"--user={USER}", f"--listen={self.path}"]
        self.part = self.popen(sys.executable, "-P", "-m", "seamless.intercept.privileged", *words,
                               NOTIFY_SOCKET=str(self.folder / "notify"))  # fmt: skip
        self.notified.recv(100)

    def test_refused_before_the_first_node_and_between_nodes(self) -> None:
        """And what another program flushes meanwhile is put back."""
        self.assertRefused()
        for _ in range(2):
            node = self.start_node(prefix=SETPRIV, more=(f"--privileged={self.path}",))
            self.assertCaptured()
            node.kill()
            node.wait()
            self.assertRefused()
        with stopped(self.part.pid):
            self.namespace.run("iptables-restore", stdin=FOREIGN)
            self.assertReached()
        self.said("another program removed 6 of our firewall rules: put back")
        self.assertRefused()

    def test_sigterm_to_the_privileged_part(self) -> None:
        self.assertEqual(self.end(self.part), 0)
        self.assertRefused()
        self.command("--remove")
        self.assertReached()
        self.assertOthersAsBefore()
