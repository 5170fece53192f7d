"""Hosts exist while they are held, have a network of their own, and take everything in them along when let go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import PrivilegeError, SeamlessError
from seamless.linux.netns import Holders, Host, needs_user_namespace
from seamless.linux.system import program, run


def why_not() -> str | None:
    """Return why no host can be made here, as a reason to skip."""
    try:
        Holders(needs_user_namespace()).close()
    except SeamlessError as error:
        return str(error)
    return None


def wait_until_gone(pid: int) -> bool:
    """Return whether a process ends within some seconds (a zombie counts as gone)."""
    give_up_at = time.monotonic() + 5
    while time.monotonic() < give_up_at:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


class Hosts(SynchronousTestCase):
    skip = why_not()

    def setUp(self) -> None:
        self.holders = Holders(needs_user_namespace())
        self.addCleanup(self.holders.close)

    def out(self, host: Host, *argv: str) -> str:
        return subprocess.run(host.enter([program(argv[0]), *argv[1:]]), capture_output=True, text=True).stdout

    def test_a_host_has_its_own_loopback_name_and_files(self) -> None:
        cover = Path(self.mktemp()).resolve()
        cover.write_text("10.0.0.1 elsewhere\n")
        host = self.holders.add("one", {"/etc/hosts": str(cover)})
        self.assertEqual(self.out(host, "hostname"), "one\n")
        self.assertEqual(self.out(host, "cat", "/etc/hosts"), cover.read_text())
        self.assertNotEqual(Path("/etc/hosts").read_text(), cover.read_text())
        links = self.out(host, "ip", "-o", "link").splitlines()
        self.assertEqual(len(links), 1)
        self.assertIn("LOOPBACK,UP", links[0])

    def test_commands_run_where_they_were_started_from(self) -> None:
        self.assertEqual(self.out(self.holders.add("one", {}), "pwd"), os.getcwd() + "\n")

    def test_settings_and_addresses_are_this_hosts_only(self) -> None:
        one, other = self.holders.add("one", {}), self.holders.add("other", {})
        one.set_sysctl({"net.ipv4.ip_forward": "1"})
        one.set_up(["address add 10.77.0.1/32 dev lo"])
        self.assertEqual(self.out(one, "cat", "/proc/sys/net/ipv4/ip_forward"), "1\n")
        self.assertEqual(self.out(other, "cat", "/proc/sys/net/ipv4/ip_forward"), "0\n")
        self.assertNotIn("10.77.0.1", self.out(other, "ip", "address"))

    def test_listening_ports_are_seen_from_outside(self) -> None:
        host = self.holders.add("one", {})
        self.assertEqual(host.listening_ports(), set())
        code = "import socket; s = socket.create_server(('', 7123)); print(flush=True); input()"
        child = subprocess.Popen(
            host.enter([sys.executable, "-c", code]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        self.assertEqual(host.listening_ports(), {7123})
        child.communicate("\n")

    def test_what_runs_on_a_host_dies_with_it_even_what_no_longer_has_a_parent(self) -> None:
        host = self.holders.add("one", {})
        orphan = int(self.out(host, "sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"))
        os.kill(orphan, 0)
        self.holders.close()
        self.assertTrue(wait_until_gone(orphan))
        self.assertTrue(wait_until_gone(host.pid))

    def test_hosts_do_not_outlive_an_owner_that_is_killed(self) -> None:
        code = (
            "from seamless.linux.netns import *; h = Holders(needs_user_namespace()).add('one', {});"
            "import subprocess; c = subprocess.Popen(h.enter(['/bin/sleep', '1000']));"
            "print(h.pid, c.pid, flush=True); input()"
        )
        owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        holder, orphan = map(int, owner.stdout.readline().split())
        os.kill(orphan, 0)
        owner.kill()
        owner.communicate()
        self.assertTrue(wait_until_gone(holder))
        self.assertTrue(wait_until_gone(orphan))

    def test_what_cannot_be_covered_is_said(self) -> None:
        with self.assertRaisesRegex(PrivilegeError, "Cannot make the host one .*no-such-file"):
            self.holders.add("one", {"/etc/hosts": "/no-such-file"})


class Commands(SynchronousTestCase):
    def test_a_missing_program_names_its_package(self) -> None:
        with self.assertRaisesRegex(SeamlessError, "no-such-program is not installed: apt-get install no-such-program"):
            run(["no-such-program"])

    def test_a_failure_has_the_programs_own_words(self) -> None:
        with self.assertRaisesRegex(SeamlessError, "cat /no-such-file failed: .*No such file"):
            run(["cat", "/no-such-file"])

    def test_input_and_output(self) -> None:
        self.assertEqual(run(["cat"], input=socket.gethostname()), socket.gethostname())
