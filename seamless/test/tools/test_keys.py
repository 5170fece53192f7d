"""Keys: the same as wg's, and every way in which a key file can be unusable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import EXIT_USAGE, ConfigurationError
from seamless.test.tools.command import seamless
from seamless.test.tools.twistd import ROOT
from seamless.tools.keys import decode_key, encode_key, generate_private_key, public_key_of, read_private_key

# RFC 7748, section 6.1: Alice's and Bob's keys.
ALICE_PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PRIVATE = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")


class KeyTests(SynchronousTestCase):
    """Keys as values."""

    def test_public_keys_of_rfc_7748(self) -> None:
        self.assertEqual(public_key_of(ALICE_PRIVATE), ALICE_PUBLIC)
        self.assertEqual(public_key_of(BOB_PRIVATE), BOB_PUBLIC)

    def test_new_keys_differ_and_are_clamped(self) -> None:
        keys = [generate_private_key() for _ in range(200)]
        self.assertEqual(len(set(keys)), 200)
        for key in keys:
            self.assertEqual((len(key), key[0] & 7, key[31] & 0xC0), (32, 0, 0x40))

    def test_text_and_back(self) -> None:
        self.assertEqual(decode_key(encode_key(BOB_PUBLIC) + "\n"), BOB_PUBLIC)

    def test_what_is_no_key(self) -> None:
        for text, reason in (
            ("", "it holds 0 bytes and not 32"),
            ("AAAA", "it holds 3 bytes and not 32"),
            (encode_key(bytes(33)), "it holds 33 bytes and not 32"),
            ("not base64!", "it is not base64"),
            ("schlüssel", "it is not base64"),
            (encode_key(bytes(32))[:-1], "it is not base64"),
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ValueError, decode_key, text)
                self.assertEqual(str(error), reason)


class KeyFileTests(SynchronousTestCase):
    """`read_private_key`."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text(encode_key(ALICE_PRIVATE) + "\n")
        self.path.chmod(0o600)

    def refusal(self) -> str:
        error = self.assertRaises(ConfigurationError, read_private_key, str(self.path))
        sentence = str(error)
        self.assertTrue(sentence.startswith(f"{self.path}: "), sentence)
        return sentence.removeprefix(f"{self.path}: ")

    def test_good_file(self) -> None:
        self.assertEqual(read_private_key(str(self.path)), ALICE_PRIVATE)
        self.path.chmod(0o400)
        self.assertEqual(read_private_key(str(self.path)), ALICE_PRIVATE)

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

    def test_pipe_as_from_a_password_store(self) -> None:
        self.path.unlink()
        reader, writer = os.pipe()
        os.write(writer, encode_key(ALICE_PRIVATE).encode())
        os.close(writer)
        try:
            self.assertEqual(read_private_key(f"/dev/fd/{reader}"), ALICE_PRIVATE)
        finally:
            os.close(reader)


class VerbTests(SynchronousTestCase):
    """``seamless genkey`` and ``seamless pubkey``."""

    def test_both(self) -> None:
        made = seamless("genkey")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        shown = seamless("pubkey", stdin=made.stdout)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertEqual(decode_key(shown.stdout), public_key_of(decode_key(made.stdout)))

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
            decode_key(path.read_text())
