"""``seamless rules``: what it prints is what the kernel takes, and printing changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_CONFIGURATION, EXIT_USAGE
from seamless.test.tools.command import seamless
from seamless.test.tools.test_main import configuration_text


class RulesTests(SynchronousTestCase):
    """The verb as a process."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text(configuration_text())

    def test_capturing_node(self) -> None:
        done = seamless("rules", str(self.path), "--node", "src")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual(lines[:2], ["# node src: iptables-restore --noflush", "*nat"])
        self.assertEqual(lines[-1], "COMMIT")
        (diversion,) = [line for line in lines if "REDIRECT" in line]
        self.assertIn("-d 10.1.9.2/32 ", diversion)
        self.assertIn("--dports 22 ", diversion)
        self.assertNotIn("ip6tables", done.stdout)

    def test_node_that_connects_with_clients_addresses(self) -> None:
        """The routing is printed in front of the rules, as commands."""
        self.path.write_text(configuration_text().replace("on src; }", "on src; source client; }"))
        done = seamless("rules", str(self.path), "--node", "dst")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        first, *lines = done.stdout.splitlines()
        self.assertEqual(first, "# node dst: where what its rules mark is delivered")
        self.assertTrue(lines[0].startswith("ip -4 rule add pref 7400 fwmark 0x2000 lookup "), lines[0])
        self.assertTrue(lines[1].startswith("ip -4 route add local default dev lo table "), lines[1])
        self.assertIn(":SEAMBACK-dst - [0:0]", lines)

    def test_node_that_captures_nothing(self) -> None:
        done = seamless("rules", str(self.path), "--node", "dst")
        self.assertEqual(
            (done.returncode, done.stdout, done.stderr), (0, "# node dst captures nothing and installs no rules\n", "")
        )

    def test_unknown_node(self) -> None:
        done = seamless("rules", str(self.path), "--node", "nobody")
        self.assertEqual((done.returncode, done.stdout), (EXIT_USAGE, ""))
        self.assertEqual(
            done.stderr, f"seamless: {self.path} has no node nobody: give --node one that it has (src, dst)\n"
        )

    def test_host_that_is_no_node(self) -> None:
        done = seamless("rules", str(self.path))
        self.assertEqual((done.returncode, done.stdout), (EXIT_USAGE, ""))
        self.assertIn("say with --node which one it is (src, dst)", done.stderr)

    def test_bad_configuration(self) -> None:
        self.path.write_text("overlay {")
        done = seamless("rules", str(self.path), "--node", "src")
        self.assertEqual((done.returncode, done.stdout), (EXIT_CONFIGURATION, ""))
        self.assertTrue(done.stderr.startswith(f"{self.path}:1:"), done.stderr)


class KernelTests(SynchronousTestCase):
    """The printed text, in a network namespace made for the test."""

    def test_the_kernel_takes_it_whole(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text(configuration_text())
        printed = seamless("rules", str(path), "--node", "src").stdout
        script = "iptables-restore --noflush && iptables-save"
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        done = subprocess.run(
            ["unshare", "--net", *user, "sh", "-c", f"PATH=/usr/sbin:/sbin:$PATH; {script}"],
            input=printed,
            capture_output=True,
            text=True,
            check=True,
        )
        installed = [line for line in done.stdout.splitlines() if line.startswith("-A ")]
        wanted = [line for line in printed.splitlines() if line.startswith(("-A ", "-I "))]
        self.assertGreater(len(wanted), 2)
        self.assertEqual(len(installed), len(wanted))
        self.assertTrue(any("10.1.9.2" in line and "22" in line for line in installed), done.stdout)
