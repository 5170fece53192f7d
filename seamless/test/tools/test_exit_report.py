"""Daemons that cannot go on, as real twistd processes: the sentence, the exit code, and that nothing is left behind."""

from __future__ import annotations

import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_FAILED, EXIT_PRIVILEGE, EXIT_UNREACHABLE
from seamless.test.tools.twistd import Twistd

PLUGIN = """
from twisted.application.service import ServiceMaker
obstinate = ServiceMaker("obstinate", "obstinate", "A service that may not start.", "obstinate")
"""

LONG_SENTENCE = "there is no /dev/net/tun; load the module tun " + "x" * 200
"""Longer than the 98 bytes that twistd's own pipe carries."""

MISTAKE = "seamless: a mistake in seamless (ZeroDivisionError: ours); report it with the log\n"

SERVICE = """
from twisted.application.service import Service
from twisted.application.internet import TCPServer
from twisted.internet import protocol, reactor
from twisted.python import usage
from seamless.errors import PrivilegeError, UnreachableError
from seamless.tools.exit_report import Supervised, ExitReport

class Options(usage.Options):
    optParameters = [["fail", None, "never", "When to fail"], ["port", None, 0, "Port to listen on", int]]

class Obstinate(Service):
    def __init__(self, fail):
        self.fail = fail
    def privilegedStartService(self):
        if self.fail == "privileged":
            raise PrivilegeError("rules need root; run it as root")
    def startService(self):
        super().startService()
        print("obstinate starts")
        if self.fail == "start":
            raise PrivilegeError("there is no /dev/net/tun; load the module tun " + "x" * 200)
        if self.fail == "bug":
            raise ZeroDivisionError("ours")
        if self.fail == "later":
            reactor.callLater(0.05, self.parent.give_up, UnreachableError("the privileged part has gone; start again"))
    def stopService(self):
        print("obstinate stops")

def makeService(options):
    parent = options.parent
    service = Supervised(ExitReport(daemonizes=not parent["nodaemon"]), reactor)
    Obstinate(options["fail"]).setServiceParent(service)
    TCPServer(options["port"], protocol.Factory(), interface="127.0.0.1").setServiceParent(service)
    return service
"""


class _Processes(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        (folder / "twisted" / "plugins").mkdir(parents=True)
        (folder / "twisted" / "plugins" / "obstinate_plugin.py").write_text(PLUGIN)
        (folder / "obstinate.py").write_text(SERVICE)
        self.twistd = Twistd(folder)


class ForegroundTests(_Processes):
    """``twistd -n``."""

    def test_error_at_start(self) -> None:
        done = self.twistd.run("-n", "obstinate", "--fail=start")
        self.assertEqual(done.returncode, EXIT_PRIVILEGE)
        self.assertEqual(done.stderr, f"seamless: {LONG_SENTENCE}\n")
        self.assertIn("there is no /dev/net/tun", done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        self.assertLess(done.stdout.index("obstinate starts"), done.stdout.index("obstinate stops"))
        self.assertFalse(self.twistd.pid_file.exists())

    def test_error_while_privileged(self) -> None:
        done = self.twistd.run("-n", "obstinate", "--fail=privileged")
        self.assertEqual(done.returncode, EXIT_PRIVILEGE)
        self.assertEqual(done.stderr, "seamless: rules need root; run it as root\n")
        self.assertNotIn("obstinate starts", done.stdout)
        self.assertIn("obstinate stops", done.stdout)

    def test_error_while_running(self) -> None:
        done = self.twistd.run("-n", "obstinate", "--fail=later")
        self.assertEqual(done.returncode, EXIT_UNREACHABLE)
        self.assertEqual(done.stderr, "seamless: the privileged part has gone; start again\n")
        self.assertIn("obstinate stops", done.stdout)

    def test_mistake_of_ours_keeps_its_traceback(self) -> None:
        done = self.twistd.run("-n", "obstinate", "--fail=bug")
        self.assertEqual(done.returncode, EXIT_FAILED)
        self.assertEqual(done.stderr, MISTAKE)
        self.assertIn("Traceback", done.stdout)
        self.assertIn("obstinate stops", done.stdout)

    def test_sigterm_is_no_failure_of_ours(self) -> None:
        process = self.twistd.popen("-n", "obstinate")
        assert process.stdout is not None
        for line in process.stdout:
            if "obstinate starts" in line:
                break
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
        self.assertEqual((process.returncode, stderr), (-signal.SIGTERM, ""))
        self.assertIn("obstinate stops", stdout)


class DaemonTests(_Processes):
    """``twistd`` without ``-n``: the first process answers for the daemon."""

    def test_good_start_and_port_in_use(self) -> None:
        done = self.twistd.run("obstinate")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        port = self._port_in_log()
        second = Twistd(self.twistd.folder)
        refused = second.run("--pidfile=second.pid", "--logfile=second.log", "obstinate", f"--port={port}")
        log = self.twistd.stop_daemon()
        self.assertEqual(refused.returncode, EXIT_FAILED)
        self.assertIn(f"seamless: cannot listen on 127.0.0.1 port {port}: ", refused.stderr)
        self.assertEqual(len(refused.stderr.splitlines()), 1, refused.stderr)
        self.assertFalse((self.twistd.folder / "second.pid").exists())
        self.assertIn("obstinate stops", log)

    def test_error_at_start(self) -> None:
        done = self.twistd.run("obstinate", "--fail=start")
        self.assertEqual(done.returncode, EXIT_PRIVILEGE)
        self.assertEqual(done.stderr, f"seamless: {LONG_SENTENCE}\n")
        self.assertFalse(self.twistd.pid_file.exists())
        log = self.twistd.log_file.read_text()
        self.assertIn("there is no /dev/net/tun", log)
        self.assertIn("obstinate stops", log)

    def test_mistake_of_ours_keeps_its_traceback(self) -> None:
        done = self.twistd.run("obstinate", "--fail=bug")
        self.assertEqual((done.returncode, done.stderr), (EXIT_FAILED, MISTAKE))
        self.assertIn("Traceback", self.twistd.log_file.read_text())
        self.assertFalse(self.twistd.pid_file.exists())

    def _port_in_log(self) -> int:
        for line in self.twistd.log_file.read_text().splitlines():
            if "starting on" in line:
                return int(line.rpartition(" ")[2])
        raise AssertionError("nobody listens")
