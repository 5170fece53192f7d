"""The privileged part, run as the process that it is, in a namespace of our own.

This module is also that process: ``python -m seamless.test.linux.test_rule_keeper --channel N`` keeps the test's rules.
With ``--daemon`` it is a daemon that has them installed, says so, and waits to be killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_PRIVILEGE, ConfigurationError, PrivilegeError, SeamlessError
from seamless.linux import iptables
from seamless.linux.privileged_channel import INSTALL, INSTALLED, READ, READY, REMOVE, REMOVED, PrivilegedPart, failure
from seamless.linux.rule_keeper import Assignment, keep_rules, report_failure
from seamless.linux.ruleset import Rule, Ruleset
from seamless.test.linux.namespaces import NamespaceTestCase

OWNER = "test"
JUMP = Rule("nat", "OUTPUT", ("-p", "tcp", "-j", "SEAMLESS-test"))
RULESETS = (
    Ruleset(OWNER, 4, (JUMP, Rule("nat", "SEAMLESS-test", ("-d", "192.0.2.1/32", "-j", "RETURN")))),
    Ruleset(OWNER, 6, (JUMP, Rule("nat", "SEAMLESS-test", ("-d", "2001:db8::1/128", "-j", "RETURN")))),
)
READ_AGAIN = (Ruleset(OWNER, 4, (JUMP, Rule("nat", "SEAMLESS-test", ("-d", "192.0.2.9/32", "-j", "RETURN")))),)
"""What the configuration says when it is read once more; when it is read again after that, it cannot be used."""
CHECK_INTERVAL = 0.2
TIMEOUT = 10.0


def main() -> None:
    """Be the privileged part, or the daemon."""
    if sys.argv[1] == "--daemon":
        part = start()
        part.wait_for(READY, TIMEOUT)
        part.send(INSTALL)
        part.wait_for(INSTALLED, TIMEOUT)
        print(part.pid, flush=True)
        signal.pause()
    else:
        with socket.socket(fileno=int(sys.argv[2])) as channel:
            try:
                keep_rules(channel, OWNER, Assignment(RULESETS), CHECK_INTERVAL, read_again)
            except SeamlessError as error:
                report_failure(channel, error)


def read_again(readings: Iterator[Assignment] = iter((Assignment(READ_AGAIN, digest="abc"),))) -> Assignment:  # noqa: B008
    for assignment in readings:
        return assignment
    raise ConfigurationError("test.conf:1:1: it is broken")


def start() -> PrivilegedPart:
    return PrivilegedPart("seamless.test.linux.test_rule_keeper", ())


class PrivilegedPartTests(NamespaceTestCase):
    def start(self) -> PrivilegedPart:
        part = start()
        self.addCleanup(part.close)
        part.wait_for(READY, TIMEOUT)
        return part

    def install(self) -> PrivilegedPart:
        part = self.start()
        part.send(INSTALL)
        part.wait_for(INSTALLED, TIMEOUT)
        self.assertTrue(iptables.is_installed(RULESETS))
        return part

    def wait_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), until, "this did not come")
            time.sleep(0.02)

    def nothing_left(self) -> bool:
        return not any("SEAMLESS" in iptables.save(ruleset.version) for ruleset in RULESETS)

    def test_install_and_remove_as_often_as_you_like(self) -> None:
        part = self.start()
        self.assertTrue(self.nothing_left())
        for word, answer in [(INSTALL, INSTALLED)] * 3 + [(REMOVE, REMOVED)] * 2 + [(INSTALL, INSTALLED)]:
            part.send(word)
            part.wait_for(answer, TIMEOUT)
            self.assertEqual(iptables.is_installed(RULESETS), word == INSTALL)
        part.close()
        self.assertTrue(self.nothing_left())

    def test_another_configuration(self) -> None:
        """Reading changes nothing; the next word does. A reading that fails leaves everything as it was."""
        part = self.install()
        part.send(READ)
        part.wait_for(f"{READ} abc", TIMEOUT)
        self.assertTrue(iptables.is_installed(RULESETS))
        part.send(INSTALL)
        part.wait_for(INSTALLED, TIMEOUT)
        self.assertTrue(iptables.is_installed(READ_AGAIN))
        self.assertNotIn("192.0.2.1", iptables.save(4))
        part.send(READ)
        error = self.assertRaises(ConfigurationError, part.wait_for, READ, TIMEOUT)
        self.assertEqual(str(error), "test.conf:1:1: it is broken")
        part.send(INSTALL)
        part.wait_for(INSTALLED, TIMEOUT)
        self.assertTrue(iptables.is_installed(READ_AGAIN))
        part.close()
        self.assertNotIn("SEAMLESS", iptables.save(4))

    def test_it_does_not_know_other_words(self) -> None:
        part = self.start()
        part.send("install -A OUTPUT -j DROP")
        part.send(INSTALL)
        part.wait_for(INSTALLED, TIMEOUT)
        self.assertNotIn("DROP", iptables.save(4))

    def daemon(self) -> tuple[subprocess.Popen[str], int]:
        """Start a daemon in a process group of its own; return it and the process id of its privileged part."""
        daemon = subprocess.Popen(
            [sys.executable, "-m", "seamless.test.linux.test_rule_keeper", "--daemon"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        assert daemon.stdout is not None
        self.addCleanup(daemon.stdout.close)
        return daemon, int(daemon.stdout.readline())

    def test_the_daemon_is_killed(self) -> None:
        daemon, part = self.daemon()
        self.assertTrue(iptables.is_installed(RULESETS))
        daemon.kill()
        self.wait_until(self.nothing_left)
        self.wait_until(lambda: not os.path.exists(f"/proc/{part}"))

    def test_signals_to_all_leave_it_to_the_daemon(self) -> None:
        daemon, part = self.daemon()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(part, number)
        time.sleep(2 * CHECK_INTERVAL)
        self.assertTrue(iptables.is_installed(RULESETS))
        os.killpg(daemon.pid, signal.SIGTERM)
        self.wait_until(self.nothing_left)

    def test_its_own_death_is_noticed_and_the_next_start_sweeps(self) -> None:
        part = self.install()
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
        select.select([part], [], [], TIMEOUT)
        self.assertRaises(EOFError, part.receive)
        self.assertRegex(str(part.death()), "was killed by signal 9")
        part.send(INSTALL)
        self.assertTrue(iptables.is_installed(RULESETS))
        self.start()
        self.assertTrue(self.nothing_left())

    def test_lost_rules_are_put_back(self) -> None:
        part = self.install()
        self.namespace.run("iptables", "-t", "nat", "-F")
        self.assertFalse(iptables.is_installed(RULESETS))
        part.wait_for("restored 2", TIMEOUT)
        self.assertTrue(iptables.is_installed(RULESETS))
        self.namespace.run("ip6tables", "-t", "nat", "-F", "OUTPUT")
        part.wait_for("restored 1", TIMEOUT)
        time.sleep(3 * CHECK_INTERVAL)
        self.assertIsNone(part.receive())

    def test_a_daemon_killed_and_started_at_once(self) -> None:
        daemon, _ = self.daemon()
        daemon.kill()
        self.install()

    def test_one_at_a_time(self) -> None:
        self.install()
        second = start()
        self.addCleanup(second.close)
        with self.assertRaisesRegex(SeamlessError, "node test already runs on this host"):
            second.wait_for(READY, TIMEOUT)
        self.assertTrue(iptables.is_installed(RULESETS))


class FailureTests(SynchronousTestCase):
    def test_sentences_and_codes(self) -> None:
        self.assertIsInstance(failure(f"failed {EXIT_PRIVILEGE} start as root"), PrivilegeError)
        self.assertEqual(str(failure(f"failed {EXIT_PRIVILEGE} start as root")), "start as root")
        self.assertIs(type(failure("failed 1 no")), SeamlessError)
        self.assertIn("'nonsense'", str(failure("nonsense")))


if __name__ == "__main__":
    main()
