"""Key files, and the subcommands genkey and pubkey: a key is one line of text, a private one mode 0600.

A node's private key stands in a file of its own, never in the configuration, which is the same on every host and holds
the public keys. `seamless.crypto.keys` says what is in a key; ``seamless genkey`` and ``seamless pubkey`` are used as
those of wg are, for keys of another kind.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path
from typing import IO, Final

from seamless.crypto.keys import (
    KEY_BYTES,
    decode_private_key,
    encode_private_key,
    encode_public_key,
    public_key_of,
)
from seamless.errors import EXIT_DONE, ConfigurationError, UsageError
from seamless.tools.subcommands import VerbParsers, add_verb

GENKEY_DESCRIPTION = """\
Print a new private key (Ed25519), as wg genkey does. It is the identity of one node; keep it on that node, in a file
that only its owner can read:

    (umask 077; seamless genkey > /etc/seamless/seamless.key)
"""

PUBKEY_DESCRIPTION = """\
Read a private key from standard input and print the public key that belongs to it, as wg pubkey does. The public key
is what the configuration holds, on every node:

    seamless pubkey < /etc/seamless/seamless.key
"""

LONGEST_TEXT: Final = 1024
"""Characters read of a key file; a key has 48 and a line end, so more shows that it is no key."""

ACCESSIBLE_TO_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH

NOT_A_KEY: Final = "this is no private key, since {}; a key is one line as seamless genkey prints it"


def generate_private_key() -> bytes:
    """Return a new private key: an Ed25519 seed (RFC 8032, section 5.1.5)."""
    return os.urandom(KEY_BYTES)


def read_private_key(path: str) -> bytes:
    """Return the raw private key in the file ``path``; raise `ConfigurationError` when it cannot be used.

    A key that others can read or write is refused: its holder can act as this node.
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
        return decode_private_key(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {NOT_A_KEY.format(error)}") from None


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommands genkey and pubkey to the parser."""
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
    print(encode_private_key(generate_private_key()))
    return EXIT_DONE


def pubkey(arguments: argparse.Namespace) -> int:
    """Print the public key of the private key on standard input."""
    del arguments
    try:
        private_key = decode_private_key(sys.stdin.read(LONGEST_TEXT))
    except ValueError as error:
        raise UsageError(
            f"standard input is no private key, since {error}; call it as: seamless pubkey < NODE.key"
        ) from None
    print(encode_public_key(public_key_of(private_key)))
    return EXIT_DONE


def _others_can_read(stream: IO[str]) -> bool:
    """Return whether ``stream`` goes to a file (not a terminal or a pipe) that others may read or write."""
    mode = os.fstat(stream.fileno()).st_mode
    return stat.S_ISREG(mode) and bool(mode & ACCESSIBLE_TO_OTHERS)
