"""Keys as WireGuard has them: base64 of 32 raw X25519 bytes, one line, the private one readable by its owner only.

A node's private key stands in a file of its own, never in the configuration, which is the same on every host and holds
the public keys. ``seamless genkey`` and ``seamless pubkey`` are the verbs of wg and take keys that wg made.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import stat
import sys
from pathlib import Path
from typing import IO, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.errors import EXIT_DONE, ConfigurationError, UsageError
from seamless.tools.verbs import VerbParsers, add_verb

GENKEY_DESCRIPTION = """\
Print a new private key, as wg genkey does: base64 of 32 bytes. It is the identity of one node; keep it on that node,
in a file that only its owner can read:

    (umask 077; seamless genkey > /etc/seamless/seamless.key)
"""

PUBKEY_DESCRIPTION = """\
Read a private key from standard input and print the public key that belongs to it, as wg pubkey does. The public key
is what the configuration holds, on every node:

    seamless pubkey < /etc/seamless/seamless.key
"""

KEY_BYTES: Final = 32
"""An X25519 key (RFC 7748, section 5)."""

LONGEST_TEXT: Final = 1024
"""Characters read of what should be a key of 44 and a line end: enough to tell that it is something else."""

ACCESSIBLE_TO_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH

NOT_A_KEY: Final = "this is no private key, since {}; a key is one line as seamless genkey prints it"


def generate_private_key() -> bytes:
    """Return a new private key, clamped (RFC 7748, section 5) as wg clamps it, so that its text is the same there."""
    key = bytearray(os.urandom(KEY_BYTES))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def public_key_of(private_key: bytes) -> bytes:
    """Return the raw public key that belongs to a raw private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def encode_key(key: bytes) -> str:
    """Return a raw key as people read and write it."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Return the raw key; raise `ValueError` saying what is wrong with ``text``."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"it holds {len(key)} bytes and not {KEY_BYTES}")
    return key


def read_private_key(path: str) -> bytes:
    """Return the raw private key in the file ``path``; raise `ConfigurationError` when it cannot be used.

    A key that others can read or write is refused: whoever has it is this node.
    """
    try:
        with Path(path).open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(LONGEST_TEXT)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: there is no such key file; make one with: (umask 077; seamless genkey > {path})"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: the key cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: {NOT_A_KEY.format('it is not base64')}") from None
    if stat.S_ISREG(mode) and mode & ACCESSIBLE_TO_OTHERS:
        raise ConfigurationError(
            f"{path}: other users have access to this private key (mode {stat.S_IMODE(mode):04o}); "
            f"run: chmod 600 {path}"
        )
    try:
        return decode_key(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {NOT_A_KEY.format(error)}") from None


def add_arguments(subparsers: VerbParsers) -> None:
    """Describe the verbs genkey and pubkey."""
    add_verb(subparsers, "genkey", genkey, "make a private key and print it", GENKEY_DESCRIPTION)
    add_verb(subparsers, "pubkey", pubkey, "print the public key of a private one", PUBKEY_DESCRIPTION)


def genkey(arguments: argparse.Namespace) -> int:
    """Print a new private key."""
    del arguments
    if _others_can_read(sys.stdout):
        print(
            "seamless: warning: other users can read the file that this key goes to; "
            "set umask 077 and make the key again",
            file=sys.stderr,
        )
    print(encode_key(generate_private_key()))
    return EXIT_DONE


def pubkey(arguments: argparse.Namespace) -> int:
    """Print the public key of the private key on standard input."""
    del arguments
    try:
        private_key = decode_key(sys.stdin.read(LONGEST_TEXT))
    except ValueError as error:
        raise UsageError(
            f"standard input is no private key, since {error}; call it as: seamless pubkey < NODE.key"
        ) from None
    print(encode_key(public_key_of(private_key)))
    return EXIT_DONE


def _others_can_read(stream: IO[str]) -> bool:
    """Return whether ``stream`` goes to a file (not a terminal or a pipe) that others may read or write."""
    mode = os.fstat(stream.fileno()).st_mode
    return stat.S_ISREG(mode) and bool(mode & ACCESSIBLE_TO_OTHERS)
