"""What a person reads when a program that seamless needs is missing, or refuses."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_FAILED, EXIT_PRIVILEGE, PrivilegeError, SeamlessError
from seamless.linux import iptables, system


class MissingProgramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.patch(system, "_ADMINISTRATION_PATHS", str(self.folder))
        self.patch(os, "environ", {"PATH": str(self.folder)})

    def install(self, name: str, script: str) -> None:
        """Put a shell script where programs are looked for."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def test_the_package_of_the_firewalls_programs(self) -> None:
        for name in ("iptables", "ip6tables", "iptables-save", "ip6tables-restore"):
            error = self.assertRaises(PrivilegeError, system.program, name)
            self.assertEqual(str(error), f"{name} is not installed: apt-get install iptables")
            self.assertEqual(error.exit_code, EXIT_PRIVILEGE)

    def test_any_other_program(self) -> None:
        error = self.assertRaises(SeamlessError, system.program, "sshd")
        self.assertEqual(str(error), "sshd is not installed: apt-get install openssh-server")
        self.assertEqual(error.exit_code, EXIT_FAILED)

    def test_only_one_program_of_the_package_is_there(self) -> None:
        self.install("iptables", "exit 0")
        error = self.assertRaises(PrivilegeError, iptables.save, 4)
        self.assertEqual(str(error), "iptables-save is not installed: apt-get install iptables")

    def test_without_root_the_ways_without_root_are_named(self) -> None:
        self.install("iptables", "exit 0")
        self.install("iptables-save", "echo 'iptables-save: Permission denied (you must be root)' >&2; exit 4")
        error = self.assertRaises(PrivilegeError, iptables.save, 4)
        self.assertIn("Permission denied (you must be root)", str(error))
        for way in ("start as root", "--uid USER", "seamless-rules@NODE", "--privileged SOCKET", "seamless lab"):
            self.assertIn(way, str(error))

    def test_another_failure_says_nothing_of_root(self) -> None:
        self.install("iptables", "exit 0")
        self.install("iptables-save", "echo 'no such table' >&2; exit 1")
        error = self.assertRaises(SeamlessError, iptables.save, 4)
        self.assertNotIsInstance(error, PrivilegeError)
        self.assertNotIn("root", str(error))
