"""The systemd units of ``etc/systemd``: hardened by systemd's own measure, and saying what the programs understand."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept import privileged
from seamless.tap import Options
from seamless.tools.main import make_parser

UNITS = Path(__file__).parents[3] / "etc" / "systemd"
NODE, RULES = UNITS / "seamless@.service", UNITS / "seamless-rules@.service"
HIGHEST_EXPOSURE = 3.0


class ExposureTests(SynchronousTestCase):
    skip = None if shutil.which("systemd-analyze") else "systemd-analyze is not installed: apt-get install systemd"

    def test_exposure(self) -> None:
        for unit in (NODE, RULES):
            command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
            assert found is not None, shown
            self.assertLess(float(found[1]), HIGHEST_EXPOSURE, unit.name)


class WordsTests(SynchronousTestCase):
    """A unit is a text that nobody runs until it is needed: its words are tried here."""

    def words(self, unit: Path, setting: str) -> list[str]:
        """Return the words of a command in a unit of the node src."""
        (command,) = re.findall(rf"^{setting}=(.*)$", unit.read_text(), re.MULTILINE)
        return shlex.split(command.replace("%i", "src").replace("${CREDENTIALS_DIRECTORY}", "/run/credentials"))

    def test_node(self) -> None:
        words = self.words(NODE, "ExecStart")
        self.assertEqual(words[1:3], ["-n", "--pidfile="])
        options = Options()
        options.parseOptions(words[words.index("seamless") + 1 :])
        self.assertEqual((options["node"], options["key"]), ("src", "/run/credentials/key"))
        self.assertIn(f"--listen={options['privileged']}", self.words(RULES, "ExecStart"))

    def test_privileged_part(self) -> None:
        _, _, module_flag, module, *words = self.words(RULES, "ExecStart")
        self.assertEqual((module_flag, module), ("-m", privileged.__name__))
        arguments = privileged.make_parser().parse_args(words)
        self.assertIn(f"User={arguments.user}", NODE.read_text().splitlines())
        self.assertIn(f"u {arguments.user} ", (UNITS / "seamless.sysusers").read_text())

    def test_clean_up(self) -> None:
        arguments = make_parser().parse_args(self.words(RULES, "ExecStopPost")[1:])
        self.assertTrue(arguments.remove)
        self.assertEqual(arguments.node, "src")
