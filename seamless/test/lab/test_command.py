"""``seamless lab`` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.lab.background import find
from seamless.test.lab.ground import why_not
from seamless.test.tools.command import seamless

TEXT = """
overlay {name} {{ }}
host one {{ run nginx; }}
host two {{ }}
wire one two {{ between 10.70.1.1/30 10.70.1.2/30; delay 1 ms; loss 0.5 %; }}
"""
NAME = "test-of-the-command"


class Command(SynchronousTestCase):
    skip = why_not()

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).with_suffix(".conf").resolve()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(TEXT.format(name=NAME))

    def lab(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return seamless("lab", "--lab", NAME, *words, stdin=stdin)

    def test_a_lab_from_up_to_down(self) -> None:
        up = seamless("lab", "up", str(self.file))
        self.addCleanup(self.lab, "down")
        self.assertEqual(up.returncode, 0, up.stderr)
        self.assertIn("lab test-of-the-command is up: one, two", up.stdout)
        self.assertIn("is up already", seamless("lab", "up", str(self.file)).stderr)

        fetched = self.lab(
            "run", "two", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "http://one/1M"
        )
        self.assertEqual(fetched.stdout, "1000000", fetched.stderr)
        self.assertEqual(self.lab("run", "two", "--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.lab("shell", "two", stdin="hostname\n").stdout, "two\n")

        changed = self.lab("wire", "one", "two", "from", "two", "no", "loss", "burst", "3", "packets")
        self.assertEqual(changed.stdout, "from one: delay 1 ms; loss 0.5 %;\nfrom two: delay 1 ms; burst 3 packets;\n")
        self.assertIn("one -> two: delay 1 ms; loss 0.5 %;", self.lab("status").stdout)
        status = json.loads(self.lab("status", "--json").stdout)
        self.assertGreater(status["wires"][0]["counters"]["one"]["bytes_out"], 1_000_000)

        owner_pid = find(NAME).owner_pid
        self.assertEqual(self.lab("down").returncode, 0)
        self.assertFalse(Path(f"/proc/{owner_pid}/root").exists())
        self.assertEqual(self.lab("status").returncode, 5)

    def test_wrong_words_are_answered_with_sentences_and_exit_codes(self) -> None:
        self.assertEqual(seamless("lab", "up", str(self.file)).returncode, 0)
        self.addCleanup(self.lab, "down")
        for words, sentence in (
            (("run", "three", "--", "true"), "There is no host three; there are one, two."),
            (("run", "one"), "Say what to run: seamless lab run one -- COMMAND"),
            (("run", "one", "--", "no-such-program"), "no-such-program is not installed"),
            (("wire", "one", "two", "loss", "101", "%"), "expected a percentage from 0 to 100"),
            (("wire", "one", "two", "from", "three", "down"), "nothing on it comes from three"),
        ):
            answer = self.lab(*words)
            self.assertIn(sentence, answer.stderr)
            self.assertIn(answer.returncode, (1, 2))
            self.assertEqual(len(answer.stderr.splitlines()), 1, answer.stderr)

    def test_a_configuration_without_hosts_is_refused(self) -> None:
        self.file.write_text(f"overlay {NAME} {{ }}\n")
        answer = seamless("lab", "up", str(self.file))
        self.assertIn("describes no host", answer.stderr)
        self.assertEqual(answer.returncode, 3)

    def test_a_server_that_cannot_start_takes_the_lab_down_and_says_why(self) -> None:
        blocker = (
            "import sys; from seamless.lab import servers; from seamless.lab import background;"
            "servers.WEB_PORTS = (80, 80); sys.argv = ['owner', *sys.argv[1:]]; sys.exit(background.main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", blocker, str(self.file), "1"], capture_output=True, text=True, timeout=30
        )
        self.assertIn("nginx on one does not listen", done.stdout)
        self.assertIn("duplicate listen", done.stdout)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.lab("status").returncode, 5)
