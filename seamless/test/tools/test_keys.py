"""Key files, every way in which one can be unusable, and the verbs."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keys import decode_private_key, decode_public_key, encode_private_key, public_key_of
from seamless.errors import EXIT_USAGE, ConfigurationError
from seamless.test.tools.command import seamless
from seamless.test.tools.twistd import ROOT
from seamless.tools.keys import generate_private_key, read_private_key

PRIVATE = bytes(range(32))


class KeyTests(SynchronousTestCase):
    def test_new_keys_differ(self) -> None:
        keys = [generate_private_key() for _ in range(200)]
        self.assertEqual(len(set(keys)), 200)
        self.assertEqual({len(key) for key in keys}, {32})


class KeyFileTests(SynchronousTestCase):
    """`read_private_key`."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text(encode_private_key(PRIVATE) + "\n")
        self.path.chmod(0o600)

    def refusal(self) -> str:
        error = self.assertRaises(ConfigurationError, read_private_key, str(self.path))
        sentence = str(error)
        self.assertTrue(sentence.startswith(f"{self.path}: "), sentence)
        return sentence.removeprefix(f"{self.path}: ")

    def test_good_file(self) -> None:
        self.assertEqual(read_private_key(str(self.path)), PRIVATE)
        self.path.chmod(0o400)
        self.assertEqual(read_private_key(str(self.path)), PRIVATE)

    def test_every_access_of_others_is_refused(self) -> None:
        for mode in (0o640, 0o604, 0o620, 0o602, 0o644, 0o666):
            self.path.chmod(mode)
            self.assertEqual(
                self.refusal(),
                f"other users have access to this private key (mode {mode:04o}); run: chmod 600 {self.path}",
            )

    def test_missing_file(self) -> None:
        self.path.unlink()
        self.assertEqual(
            self.refusal(), f"there is no such key file; make one with: (umask 077; seamless genkey > {self.path})"
        )

    def test_folder(self) -> None:
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.refusal(), "the key cannot be read: Is a directory")

    def test_public_parts_of_other_things(self) -> None:
        for content in (b"", b"\xff\xfe\x00", b"AAAA\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"A" * 100_000):
            self.path.write_bytes(content)
            self.assertIn("a key is one line as seamless genkey prints it", self.refusal())

    def test_key_of_an_earlier_version(self) -> None:
        self.path.write_text(b64encode(PRIVATE).decode() + "\n")
        self.assertEqual(
            self.refusal(),
            "this is no private key, since it is an X25519 key of an earlier version or of WireGuard: make a new"
            " Ed25519 key with `seamless genkey`; a key is one line as seamless genkey prints it",
        )

    def test_pipe_as_from_a_password_store(self) -> None:
        self.path.unlink()
        reader, writer = os.pipe()
        os.write(writer, encode_private_key(PRIVATE).encode())
        os.close(writer)
        try:
            self.assertEqual(read_private_key(f"/dev/fd/{reader}"), PRIVATE)
        finally:
            os.close(reader)


class VerbTests(SynchronousTestCase):
    """``seamless genkey`` and ``seamless pubkey``."""

    def test_both(self) -> None:
        made = seamless("genkey")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        shown = seamless("pubkey", stdin=made.stdout)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertEqual(decode_public_key(shown.stdout), public_key_of(decode_private_key(made.stdout)))

    def test_no_key_on_standard_input(self) -> None:
        done = seamless("pubkey", stdin="hello\n")
        self.assertEqual((done.returncode, done.stdout), (EXIT_USAGE, ""))
        self.assertEqual(
            done.stderr,
            "seamless: standard input is no private key, since it is not base64; "
            "call it as: seamless pubkey < NODE.key\n",
        )

    def test_warning_about_a_file_that_others_can_read(self) -> None:
        for umask, warns in ((0o022, True), (0o077, False)):
            path = Path(self.mktemp())
            done = subprocess.run(
                [
                    "sh",
                    "-c",
                    f'umask {umask:03o}; "$0" -m seamless.tools.main genkey > {path.absolute()}',
                    sys.executable,
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            self.assertEqual("other users can read the file" in done.stderr, warns, done.stderr)
            decode_private_key(path.read_text())
