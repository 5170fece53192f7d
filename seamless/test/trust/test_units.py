"""The systemd units of ``etc/systemd``: hardened by systemd's own measure, and saying what the programs understand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept import privileged
from seamless.tap import Options
from seamless.test.trust.daemons import CONFIGURATION, SKIP, USER, USER_ID, DaemonTestCase, status_of
from seamless.tools import reload_command
from seamless.tools.main import make_parser

UNITS = Path(__file__).parents[3] / "etc" / "systemd"
NODE, RULES, OPEN = (UNITS / f"{name}@.service" for name in ("seamless", "seamless-rules", "seamless-open"))
HIGHEST_EXPOSURE = 3.0
QUEUES = "intercept local { tcp to 10.1.9.2 port 80; on src; when unreachable refuse; }"


def setting_of(unit: Path, setting: str) -> str:
    """Return what a unit says of a setting that it names once."""
    (value,) = re.findall(rf"^{setting}=(.*)$", unit.read_text(), re.MULTILINE)
    return str(value)


def words_of(unit: Path, setting: str) -> list[str]:
    """Return the words of a command in a unit of the node src."""
    command = setting_of(unit, setting)
    return shlex.split(command.replace("%i", "src").replace("${CREDENTIALS_DIRECTORY}", "/run/credentials"))


class ExposureTests(SynchronousTestCase):
    skip = None if shutil.which("systemd-analyze") else "systemd-analyze is not installed: apt-get install systemd"

    def test_exposure(self) -> None:
        for unit in (NODE, RULES, OPEN):
            command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
            assert found is not None, shown
            self.assertLess(float(found[1]), HIGHEST_EXPOSURE, unit.name)


class WordsTests(SynchronousTestCase):
    """The commands of the systemd units, run with the privileges that the units give."""

    def test_node(self) -> None:
        words = words_of(NODE, "ExecStart")
        self.assertEqual(words[1:3], ["-n", "--pidfile="])
        options = Options()
        options.parseOptions(words[words.index("seamless") + 1 :])
        self.assertEqual((options["node"], options["key"]), ("src", "/run/credentials/key"))
        self.assertIn(f"--listen={options['privileged']}", words_of(RULES, "ExecStart"))

    def test_privileged_part(self) -> None:
        _, _, module_flag, module, *words = words_of(RULES, "ExecStart")
        self.assertEqual((module_flag, module), ("-m", privileged.__name__))
        arguments = privileged.make_parser().parse_args(words)
        self.assertIn(f"User={arguments.user}", NODE.read_text().splitlines())
        self.assertIn(f"u {arguments.user} ", (UNITS / "seamless.sysusers").read_text())

    def test_reload(self) -> None:
        arguments = make_parser().parse_args(words_of(NODE, "ExecReload")[1:])
        self.assertEqual((arguments.run, arguments.node, arguments.socket), (reload_command.reload, "src", None))

    def test_clean_up(self) -> None:
        """A stop leaves the rules that refuse; they go when that is asked for."""
        for unit, setting, is_all in ((RULES, "ExecStopPost", False), (OPEN, "ExecStart", True)):
            arguments = make_parser().parse_args(words_of(unit, setting)[1:])
            self.assertEqual((arguments.remove, arguments.sweep), (is_all, not is_all))
            self.assertEqual(arguments.node, "src")


class RunTests(DaemonTestCase):
    """The commands of both units, run with the user and the capabilities that the units give them, and no others.

    Programs and files are where this test has them. The rest of the hardening takes systemd, which is not there.
    """

    skip = SKIP

    def setUp(self) -> None:
        super().setUp()
        self.configuration.write_text(CONFIGURATION + QUEUES)
        os.chown(self.key, USER_ID, -1)
        os.chown(self.sockets, USER_ID, -1)
        self.sockets.chmod(0o755)

    def run_unit(self, unit: Path, *prefix: str) -> subprocess.Popen[bytes]:
        """Run a unit's `ExecStart`."""
        capabilities = setting_of(unit, "CapabilityBoundingSet").lower().replace("cap_", "+").split()
        confined = ["setpriv", f"--bounding-set={','.join(['-all', *capabilities])}", "--inh-caps=-all", *prefix]
        twistd = f"{shlex.quote(sys.executable)} -c 'from twisted.scripts.twistd import run; run()'"
        command = shlex.join(words_of(unit, "ExecStart"))
        for there, here in (
            ("/opt/seamless/bin/python", shlex.quote(sys.executable)),
            ("/opt/seamless/bin/twistd", twistd),
            ("/opt/seamless/bin/seamless", f"{shlex.quote(sys.executable)} -m seamless.tools.main"),
            ("/etc/seamless/seamless.conf", str(self.configuration)),
            ("/run/credentials/key", str(self.key)),
            ("/run/seamless-rules", str(self.folder)),
            ("--user=seamless", f"--user={USER}"),
        ):
            command = command.replace(there, here)
        return self.popen(*confined, "--no-new-privs", *shlex.split(command))

    def test_both_together(self) -> None:
        part = self.run_unit(RULES)
        self.until((self.folder / "src.sock").exists, "the privileged part listens")
        node = self.run_unit(NODE, f"--reuid={USER}", "--regid=nogroup", "--clear-groups")
        self.until(lambda: self.rules_installed() == 1, "the rules are installed")
        self.assertEqual(int(status_of(part.pid)["CapEff"], 16), 1 << 12 | 1 << 13, "CAP_NET_ADMIN, CAP_NET_RAW")
        self.assertEqual({int(status_of(node.pid)[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")}, {0})
        queues = Path(f"/proc/{node.pid}/net/netfilter/nfnetlink_queue")
        self.until(lambda: bool(queues.read_text()), "the packet queue is bound")
        self.assertRulesInstalled()
        self.assertEnds(node)
        self.until(lambda: not self.own_rules(), "the rules are gone")
        self.assertEqual(self.end(part), 0)
        self.assertIn("SEAMQUEUE-src", self.firewall(), "refused all the same")
        self.assertEqual(self.run_unit(OPEN).wait(), 0)
        self.assertOnlyForeignRules()
