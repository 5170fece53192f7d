"""A whole lab: real servers on its hosts, two labs side by side, without root, and nothing left afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs as attrs_package
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.config.load import load_file
from seamless.crypto.keys import decode_private_key, public_key_of
from seamless.errors import SeamlessError, UnreachableError, UsageError
from seamless.lab import servers
from seamless.lab.bed import Bed
from seamless.lab.daemons import private_key
from seamless.lab.lab import Lab
from seamless.test.lab.ground import FAR, traffic, two_hosts, why_not

NOBODY = 65534
SOURCE = Path(seamless.__file__).parents[1]
BED_OF_THE_DESIGN = SOURCE / "etc" / "lab.conf"

ROOTLESS = """
from seamless.lab.lab import Lab
from seamless.test.lab.ground import FAR, traffic, two_hosts
with Lab(two_hosts(servers=("sshd", "nginx", "iperf3"))) as lab:
    lab.start_servers()
    assert None not in traffic(lab, "near", "ping", FAR, 2, 0)
    print(lab.run("near", ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download} bytes", f"http://{FAR}/1M"]).stdout)
    lab.run("near", ["scp", "/etc/passwd", f"{FAR}:{lab.directory}/copy"])
    print("copied", (lab.directory / "copy").read_text() == open("/etc/passwd").read())
    lab.set_wire("near", "far", loss=1.0)
    print("lost", traffic(lab, "near", "ping", FAR, 1, 0), lab.counters("near", "far")["near"]["lost"])
"""


def processes_mentioning(words: str) -> list[str]:
    """Return the command lines of running processes that contain these words, without ours."""
    lines = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if words in line and int(line.split()[0]) != os.getpid()]


class Servers(SynchronousTestCase):
    skip = why_not()

    def test_unmodified_clients_reach_real_servers(self) -> None:
        with Lab(two_hosts(servers=("sshd", "nginx", "iperf3"))) as lab:
            lab.start_servers()
            target = lab.host_directory("far") / "copy"
            lab.run("near", ["scp", str(BED_OF_THE_DESIGN), f"far:{target}"])
            self.assertEqual(target.read_bytes(), BED_OF_THE_DESIGN.read_bytes())
            self.assertEqual(lab.run("near", ["ssh", "far", "hostname"]).stdout, "far\n")
            servers.web_file(lab.host_directory("far"), "5M", 5_000_000)
            size = lab.run("near", ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "http://far:8000/5M"])
            self.assertEqual(size.stdout, "5000000")
            self.assertIn("receiver", lab.run("near", ["iperf3", "-c", "far", "-n", "1M"]).stdout)
            self.assertGreater(lab.counters("near", "far")["near"]["bytes_in"], 500_000)

    def test_a_failing_command_is_an_error_with_its_words(self) -> None:
        with Lab(two_hosts()) as lab:
            with self.assertRaisesRegex(SeamlessError, "cat /none on near failed with exit code 1: .*No such file"):
                lab.run("near", ["cat", "/none"])
            self.assertEqual(lab.run("near", ["false"], check=False).returncode, 1)
            self.assertRaises(UsageError, lab.run, "nowhere", ["true"])
            self.assertRaises(UsageError, lab.set_wire, "near", "far", delight=1)
            with self.assertRaisesRegex(SeamlessError, "was not done after 0.1 s"):
                lab.run("near", ["sleep", "5"], timeout=0.1)

    def test_the_bed_of_the_design_comes_up_and_its_native_path_is_silent_until_used(self) -> None:
        with Lab(load_file(BED_OF_THE_DESIGN), configuration_file=BED_OF_THE_DESIGN) as lab:
            self.assertEqual(lab.counters("src", "dst")["src"]["units_in"], 0)
            (time,) = traffic(lab, "src", "ping", "10.1.9.2", 1, 0)
            self.assertGreaterEqual(time, 0.030)
            self.assertEqual(lab.counters("src", "dst")["src"]["units_in"], 1)
            self.assertEqual(lab.counters("src", "r1")["src"]["units_in"], 0)


class Ending(SynchronousTestCase):
    skip = why_not()

    def test_two_labs_of_the_same_configuration_do_not_meet(self) -> None:
        with Lab(two_hosts()) as one, Lab(two_hosts()) as other:
            one.set_wire("near", "far", down=True)
            self.assertEqual(traffic(one, "near", "ping", FAR, 1, 0), [None])
            self.assertNotIn(None, traffic(other, "near", "ping", FAR, 1, 0))

    def test_nothing_is_left_when_a_test_fails(self) -> None:
        class BodyError(Exception):
            pass

        try:
            with Lab(two_hosts(servers=("nginx", "sshd"))) as lab:
                lab.start_servers()
                lab.popen("near", ["sleep", "1000"])
                directory = str(lab.directory)
                self.assertTrue(processes_mentioning(directory))
                raise BodyError
        except BodyError:
            pass
        self.assertEqual(processes_mentioning(directory), [])
        self.assertFalse(Path(directory).exists())

    def test_another_process_attaches_while_the_lab_is_up_and_only_then(self) -> None:
        directory = Path(self.mktemp())
        with Lab(two_hosts(), directory=directory):
            bed = Bed.attach(directory.resolve())
            bed.set_wire("near", "far", delay=0.01)
            self.assertEqual(bed.impairments("near", "far")["far"].delay, 0.01)
            self.assertEqual(bed.run("far", ["hostname"]).stdout, "far\n")
        self.assertRaises(UnreachableError, bed.counters, "near", "far")

    def test_a_killed_owner_takes_its_lab_along(self) -> None:
        directory = Path(self.mktemp()).resolve()
        code = (
            "import sys, pathlib; from seamless.lab.lab import Lab; from seamless.test.lab.ground import two_hosts;"
            "lab = Lab(two_hosts(servers=('nginx',)), directory=pathlib.Path(sys.argv[1])).__enter__();"
            "lab.start_servers(); print('up', flush=True); input()"
        )
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        owner = subprocess.Popen(
            [sys.executable, "-c", code, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert owner.stdout is not None
        self.assertEqual(owner.stdout.readline(), b"up\n")
        self.assertTrue(processes_mentioning(f"{directory}/hosts"))
        self.assertTrue(processes_mentioning("seamless.lab.emulator"))
        owner.kill()
        owner.communicate()
        for _ in range(100):
            left = processes_mentioning(str(directory))
            if not left:
                break
            subprocess.run(["sleep", "0.05"])
        self.assertEqual(left, [])
        self.assertRaises(UnreachableError, Bed.attach, directory)


class Keys(SynchronousTestCase):
    def test_keys_of_the_lab_are_those_of_its_configuration(self) -> None:
        for node in load_file(BED_OF_THE_DESIGN).nodes.values():
            self.assertEqual(public_key_of(private_key(node.name)), node.public_key)

    def test_key_files_are_for_their_owner_only(self) -> None:
        lab = Lab(two_hosts(), directory=Path(self.mktemp()))
        lab.directory.mkdir()
        path = lab.key_file("src")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(decode_private_key(path.read_text()), private_key("src"))


def python_for_everybody() -> str | None:
    """Return a Python that an unprivileged user may run: this one, or Debian's."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        check = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", candidate, "-c", "1"]
        if shutil.which("setpriv") and subprocess.run(check, capture_output=True).returncode == 0:
            return candidate
    return None


class WithoutRoot(SynchronousTestCase):
    """The same as nobody, with a /dev/net/tun that any user may open, as Debian has it."""

    skip = why_not() or (None if os.geteuid() == 0 else "every other test of the lab runs without root already")

    def test_an_unprivileged_user_has_a_lab_with_servers(self) -> None:
        python = python_for_everybody()
        if python is None:
            raise self.skipTest("no Python here may be run by nobody")
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o777)
        packages = Path(attrs_package.__file__).parents[1]
        script = (
            f"mknod {folder}/tun c 10 200 && chmod 666 {folder}/tun && mount --bind {folder}/tun /dev/net/tun && "
            f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
            f"env -i PATH=$PATH TMPDIR={folder} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={SOURCE}:{packages} "
            f"{python} -c '{ROOTLESS}'"
        ).replace("'" + ROOTLESS + "'", '"$0"')
        done = subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", script, ROOTLESS],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, "1000000 bytes\ncopied True\nlost .None. [1-9]")
