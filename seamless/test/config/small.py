"""A configuration of a few lines for tests to spoil, and an assertion on exactly what is said about it."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import ConfigurationProblems, load_text
from seamless.crypto.keys import encode_public_key, public_key_of

OVERLAY = "overlay small { }"


def key(label: str) -> str:
    """Return a public key that differs for each label, in quotes."""
    return f'"{encode_public_key(raw_key(label))}"'


def raw_key(label: str) -> bytes:
    """Return the bytes of the public key with this label."""
    return public_key_of(hashlib.blake2s(label.encode()).digest())


def node(name: str, number: int, more: str = "") -> str:
    """Return a node on one line, at 10.0.0.NUMBER, which serves 10.9.0.NUMBER."""
    return f"node {name} {{ address 10.0.0.{number}; serves 10.9.0.{number}; key {key(name)}; {more}}}"


A, B, C = node("a", 1), node("b", 2), node("c", 3)
HOSTS = "host a { } host b { } host c { }"
WIRE = "wire a b { between 10.1.1.1/30 10.1.1.2/30; "


class ComplaintCase(SynchronousTestCase):
    """A test about what is wrong with a configuration."""

    maxDiff = None

    def complaints(self, *lines: str) -> list[str]:
        """Return the problems of a configuration, without the name of the file; `OVERLAY` is its line 1."""
        error = self.assertRaises(ConfigurationProblems, load_text, "\n".join([OVERLAY, *lines]), "t.conf")
        return [problem.removeprefix("t.conf:") for problem in str(error).split("\n")]

    def assert_complaints(self, lines: list[str], *expected: str) -> None:
        """Check that these lines have these problems and no others."""
        self.assertEqual(self.complaints(*lines), list(expected))
