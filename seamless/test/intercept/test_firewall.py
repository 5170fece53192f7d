"""The rules' service on the real reactor, with the real privileged part, in a namespace of our own."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from seamless.config.load import load_file
from seamless.errors import ConfigurationError, SeamlessError
from seamless.intercept import firewall
from seamless.intercept.firewall import FirewallService
from seamless.intercept.node_rules import rulesets
from seamless.intercept.privileged import main
from seamless.linux import iptables
from seamless.test.intercept.test_node_rules import NODES
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace
from seamless.test.transport.running import RunningTestCase


class FirewallServiceTests(RunningTestCase):
    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        namespace = Namespace()
        self.addCleanup(namespace.remove)
        inside = namespace.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)
        self.namespace = namespace
        self.file = Path(self.mktemp())
        self.file.write_text(NODES + "intercept payload { tcp port 22; }")
        self.rulesets = rulesets(load_file(self.file), "src")
        self.failures: list[SeamlessError] = []
        self.service = FirewallService(reactor, self.file, "src", self.failures.append)

    async def start(self) -> None:
        self.addCleanup(self.service.stopService)
        self.service.privilegedStartService()
        self.service.startService()
        await self.until(lambda: self.service.counters.installed == 1)

    def kill_privileged_part(self) -> int:
        pid = self.service.privileged_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    async def test_rules_are_there_while_it_runs(self) -> None:
        self.assertFalse(iptables.is_installed(self.rulesets))
        await self.start()
        self.assertTrue(iptables.is_installed(self.rulesets))
        await self.service.stopService()
        self.assertNotIn("SEAMLESS", iptables.save(4) + iptables.save(6))
        self.assertIsNone(self.service.privileged_pid)
        await self.service.stopService()
        self.assertEqual(self.failures, [])

    async def test_it_can_start_again(self) -> None:
        await self.start()
        await self.service.stopService()
        self.service.startService()
        await self.until(lambda: self.service.counters.installed == 2)
        self.assertTrue(iptables.is_installed(self.rulesets))

    async def test_lost_rules_are_put_back(self) -> None:
        await self.start()
        self.namespace.run("iptables", "-t", "nat", "-F", "OUTPUT")
        self.assertFalse(iptables.is_installed(self.rulesets))
        await self.until(lambda: self.service.counters.restored == 1)
        self.assertTrue(iptables.is_installed(self.rulesets))

    async def test_the_privileged_part_dies_and_comes_back(self) -> None:
        self.patch(firewall, "RESTART_INTERVAL", 0.0)
        await self.start()
        first = self.kill_privileged_part()
        await self.until(lambda: self.service.counters.installed == 2)
        self.assertNotEqual(self.service.privileged_pid, first)
        self.assertEqual((self.service.counters.deaths, self.failures), (1, []))
        self.assertTrue(iptables.is_installed(self.rulesets))

    async def test_a_privileged_part_that_does_not_live(self) -> None:
        await self.start()
        self.kill_privileged_part()
        await self.until(lambda: bool(self.failures))
        self.assertRegex(str(self.failures[0]), "the privileged part of seamless was killed by signal 9")

    def test_a_configuration_that_is_gone(self) -> None:
        self.file.unlink()
        with self.assertRaisesRegex(SeamlessError, "does not exist"):
            self.service.privilegedStartService()
        self.assertIsNone(self.service.privileged_pid)


class StoppedTests(SynchronousTestCase):
    def test_a_reload_of_a_daemon_that_is_stopping_starts_nothing(self) -> None:
        """A privileged part that is started now would keep rules that nobody has removed."""
        service = FirewallService(reactor, "/nonexistent", "src", lambda error: None, is_needed=False)
        failure = self.failureResultOf(service.read_again(), SeamlessError)
        self.assertEqual(str(failure.value), "the daemon is stopping")
        self.assertIsNone(service.privileged_pid)


class ProgramTests(TestCase):
    def test_an_unknown_node(self) -> None:
        file = Path(self.mktemp())
        file.write_text(NODES)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        code = main(["--config", str(file), "--node", "nobody", "--channel", str(theirs.detach())])
        self.assertEqual(code, ConfigurationError.exit_code)
        self.assertEqual(ours.recv(1000).decode(), f"failed {code} {file}: there is no node nobody")
