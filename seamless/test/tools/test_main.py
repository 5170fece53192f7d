"""The ``seamless`` command as a person meets it: real processes, their words and their exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import seamless as package
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_USAGE
from seamless.test.tools.command import seamless
from seamless.test.tools.twistd import ROOT


def configuration_text(*, second_node: str = "dst", port: int = 17400) -> str:
    """Return a configuration of two nodes, src and another, whose private keys are 32 bytes of 1 and of 2.

    src has the UDP port ``port`` of 127.0.0.1, the other one the same port of 127.0.0.2.
    """
    src, other = (encode_public_key(public_key_of(bytes([digit]) * 32)) for digit in (1, 2))
    return f"""\
overlay pair {{ }}
node src {{ address 127.0.0.1:{port}; serves 10.1.9.1; key "{src}"; }}
node {second_node} {{ address 127.0.0.2:{port}; serves 10.1.9.2; key "{other}"; }}
link src dst {{ }}
intercept payload {{ tcp to 10.1.9.2 port 22; on src; }}
"""


class CommandTests(SynchronousTestCase):
    """The words around the verbs."""

    def test_version(self) -> None:
        done = seamless("--version")
        self.assertEqual((done.returncode, done.stdout), (0, f"seamless {package.__version__}\n"))

    def test_wrong_words(self) -> None:
        for words in ([], ["fly"], ["check"], ["check", "a", "b"], ["genkey", "x"], ["--frobnicate"]):
            with self.subTest(words=words):
                done = seamless(*words)
                self.assertEqual((done.returncode, done.stdout), (EXIT_USAGE, ""))
                self.assertIn("usage: seamless", done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_every_verb_has_a_page_with_its_exit_codes(self) -> None:
        verbs = re.findall(r"^    (\w+) ", seamless("--help").stdout, re.MULTILINE)
        self.assertLessEqual({"genkey", "pubkey", "check"}, set(verbs))
        for name in verbs:
            done = seamless(name, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)
            self.assertIn(f"usage: seamless {name}", done.stdout)
            self.assertIn("exit codes:", done.stdout)

    def test_reader_that_goes_away(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "seamless.tools.main", "genkey"],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (EXIT_FAILED, b""))


class CheckTests(SynchronousTestCase):
    """``seamless check``."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def test_good(self) -> None:
        self.path.write_text(configuration_text())
        done = seamless("check", str(self.path))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, f"{self.path}: 2 nodes, 1 link, 1 interceptor: good\n")

    def test_every_problem_is_printed(self) -> None:
        text = configuration_text(second_node="other").replace("port 22", "port 99999")
        self.path.write_text(text)
        done = seamless("check", str(self.path))
        self.assertEqual((done.returncode, done.stdout), (EXIT_CONFIGURATION, ""))
        lines = done.stderr.splitlines()
        self.assertTrue(all(line.startswith(f"{self.path}:") for line in lines), done.stderr)
        places = {line.removeprefix(f"{self.path}:").partition(":")[0] for line in lines}
        self.assertLessEqual({"4", "5"}, places, done.stderr)

    def test_missing_file(self) -> None:
        done = seamless("check", str(self.path))
        self.assertEqual((done.returncode, done.stdout), (EXIT_CONFIGURATION, ""))
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn(str(self.path), done.stderr)
