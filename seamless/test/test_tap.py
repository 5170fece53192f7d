"""``twistd seamless`` as a real process: what is wrong is said before anything starts, with and without ``-n``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keys import encode_private_key, encode_public_key, public_key_of
from seamless.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_PRIVILEGE, EXIT_USAGE
from seamless.linux.system import program
from seamless.test.tools.test_main import configuration_text
from seamless.test.tools.twistd import START_TIMEOUT, Twistd


class _Node(SynchronousTestCase):
    """A folder with what the node src needs."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.port = free_udp_port()
        self.configuration = folder / "pair.conf"
        self.configuration.write_text(configuration_text(port=self.port))
        self.key = folder / "src.key"
        self.write_key(bytes([1]) * 32)
        self.twistd = Twistd(folder)

    def write_key(self, private_key: bytes) -> None:
        self.key.write_text(encode_private_key(private_key) + "\n")
        self.key.chmod(0o600)

    def words(self, node: str = "src") -> tuple[str, str, str]:
        return f"--config={self.configuration}", f"--node={node}", f"--key={self.key}"


class RefusalTests(_Node):
    """Everything that can be known before twistd forks."""

    def refused(self, exit_code: int, sentence: str, *words: str) -> None:
        """Start it both ways: the same code, one line, and nothing left behind."""
        for way in (["-n"], []):
            done = self.twistd.run(*way, "seamless", *words)
            self.assertEqual((done.returncode, done.stdout), (exit_code, ""), done.stderr)
            self.assertEqual(done.stderr, sentence + "\n")
            self.assertFalse(self.twistd.pid_file.exists())
            self.assertFalse(self.twistd.log_file.exists())

    def test_unknown_option(self) -> None:
        self.refused(EXIT_USAGE, "seamless: option --fly not recognized; see twistd seamless --help", "--fly")

    def test_unknown_log_level(self) -> None:
        sentence = "seamless: --log-level 'loud' is none: say one of debug, info, warn, error, critical"
        self.refused(EXIT_USAGE, sentence, "--log-level=loud")

    def test_word_too_many(self) -> None:
        self.refused(EXIT_USAGE, "seamless: Wrong number of arguments; see twistd seamless --help", "src")

    def test_missing_configuration(self) -> None:
        self.configuration.unlink()
        sentence = f"{self.configuration} does not exist: check the name of the configuration file"
        self.refused(EXIT_CONFIGURATION, sentence, *self.words())

    def test_unknown_node(self) -> None:
        sentence = f"seamless: {self.configuration} has no node nobody: give --node one that it has (src, dst)"
        self.refused(EXIT_USAGE, sentence, *self.words("nobody"))

    def test_key_that_others_can_read(self) -> None:
        self.key.chmod(0o644)
        sentence = f"{self.key}: other users have access to this private key (mode 0644); run: chmod 600 {self.key}"
        self.refused(EXIT_CONFIGURATION, sentence, *self.words())

    def test_key_of_another_node(self) -> None:
        self.write_key(bytes([2]) * 32)
        src, dst = (encode_public_key(public_key_of(bytes([digit]) * 32)) for digit in (1, 2))
        sentence = (
            f"{self.key}: this is not the key of node src: its public key is {dst}, but {self.configuration} "
            f"says {src}; start with the key of src, or put this public key into the configuration on every host"
        )
        self.refused(EXIT_CONFIGURATION, sentence, *self.words())

    def test_every_problem_of_a_configuration(self) -> None:
        self.configuration.write_text(configuration_text(second_node="other").replace("port 22", "port 99999"))
        done = self.twistd.run("-n", "seamless", *self.words())
        self.assertEqual(done.returncode, EXIT_CONFIGURATION)
        self.assertGreater(len(done.stderr.splitlines()), 1)
        self.assertTrue(all(line.startswith(f"{self.configuration}:") for line in done.stderr.splitlines()))


class RunningTests(_Node):
    """A node that captures nothing: one that starts, and one that finds its port taken."""

    def setUp(self) -> None:
        super().setUp()
        blocks = self.configuration.read_text().splitlines()
        self.configuration.write_text("\n".join(block for block in blocks if not block.startswith("intercept")))

    def test_foreground_until_sigterm(self) -> None:
        process = self.twistd.popen("-n", "seamless", *self.words())
        assert process.stdout is not None
        for line in process.stdout:
            if "node src is up" in line:
                break
        else:
            self.fail(process.communicate()[1])
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=START_TIMEOUT)
        self.assertEqual(stderr, "")
        self.assertIn("Main loop terminated", stdout)
        self.assertNotIn("Traceback", stdout)

    def test_background_and_a_second_one_like_it(self) -> None:
        first = self.twistd.run("seamless", *self.words())
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "", ""))
        try:
            second = self.twistd.run("--pidfile=2.pid", "--logfile=2.log", "seamless", *self.words())
            third = self.twistd.run("-n", "--pidfile=3.pid", "seamless", *self.words())
        finally:
            log = self.twistd.stop_daemon()
        self.assertIn("node src is up", log)
        for refused in (second, third):
            self.assertEqual(refused.returncode, EXIT_FAILED)
            self.assertRegex(refused.stderr, r"^seamless: node src runs on this host already .*: stop that daemon.*\n$")
        self.assertFalse((self.twistd.folder / "2.pid").exists())

    def test_port_in_use(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", self.port))
            for way in (["-n"], []):
                refused = self.twistd.run(*way, "seamless", *self.words())
                self.assertEqual(refused.returncode, EXIT_FAILED)
                self.assertRegex(refused.stderr, rf"^seamless: .*{self.port} .*another program has it.*\n$")
                self.assertFalse(self.twistd.pid_file.exists())

    def test_name_of_the_host(self) -> None:
        hostname = socket.gethostname().partition(".")[0]
        self.configuration.write_text(self.configuration.read_text().replace("src", hostname))
        config, _, key = self.words()
        started = self.twistd.run("seamless", config, key, "--log-format=json", "--log-level=info")
        self.assertEqual((started.returncode, started.stderr), (0, ""))
        lines = [json.loads(line) for line in self.twistd.stop_daemon().splitlines()]
        (up,) = [line for line in lines if line["message"] == f"node {hostname} is up"]
        self.assertEqual((up["level"], up["logger"]), ("info", "seamless.service.NodeService"))


class RulesTests(_Node):
    """A node that captures, in a network of its own, where its rules change nothing of this machine's."""

    OWN_NETWORK = ("sh", "-c", 'PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && exec "$0" "$@"')

    def setUp(self) -> None:
        super().setUp()
        user = () if os.getuid() == 0 else ("--user", "--map-root-user")
        self.twistd = Twistd(self.twistd.folder, ("unshare", "--net", *user, *self.OWN_NETWORK))

    def enter(self, pid: int) -> list[str]:
        user = () if os.getuid() == 0 else ("--user", "--preserve-credentials")
        return ["nsenter", "--target", str(pid), "--net", *user]

    def rules(self, pid: int) -> list[str]:
        shown = subprocess.run([*self.enter(pid), program("iptables-save")], capture_output=True, text=True, check=True)
        return [line for line in shown.stdout.splitlines() if "SEAMLESS-src" in line]

    def test_rules_live_as_long_as_the_daemon(self) -> None:
        started = self.twistd.run("seamless", *self.words())
        self.assertEqual((started.returncode, started.stdout, started.stderr), (0, "", ""))
        pid = int(self.twistd.pid_file.read_text())
        with subprocess.Popen([*self.enter(pid), "sleep", "60"]) as witness:
            try:
                self.assertTrue(any("10.1.9.2" in rule for rule in self.wait_for_rules(pid)))
                log = self.twistd.stop_daemon()
                self.assertEqual(self.rules(witness.pid), [])
            finally:
                witness.kill()
        self.assertNotIn("Traceback", log)

    def wait_for_rules(self, pid: int) -> list[str]:
        deadline = time.monotonic() + START_TIMEOUT
        while not (found := self.rules(pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def test_without_privilege(self) -> None:
        if os.getuid() == 0:
            self.twistd.prefix = (*self.twistd.prefix, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
        else:
            self.twistd.prefix = ()
        for way in (["-n"], []):
            done = self.twistd.run(*way, "seamless", *self.words())
            self.assertEqual(done.returncode, EXIT_PRIVILEGE, done.stderr + done.stdout)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("seamless: "), done.stderr)
            self.assertFalse(self.twistd.pid_file.exists())


def free_udp_port() -> int:
    """Return a UDP port that is free on 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
