"""A configuration to try things with: two nodes on this machine, with fresh keys, in a folder of your choice."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from seamless.crypto.keys import encode_private_key, encode_public_key, public_key_of
from seamless.tools.keys import generate_private_key

CONFIGURATION = """
overlay example {{ }}
node src {{ address 127.0.0.1:{src_port}; key "{src_key}"; }}
node dst {{ address 127.0.0.1:{dst_port}; key "{dst_key}"; }}
link src dst {{ rate 500 mbit; congestion off; }}
"""


def write_files(folder: str) -> tuple[Path, dict[str, Path]]:
    """Write the configuration and both private keys; return their paths."""
    private = {name: generate_private_key() for name in ("src", "dst")}
    text = CONFIGURATION.format(
        src_port=free_port(),
        src_key=encode_public_key(public_key_of(private["src"])),
        dst_port=free_port(),
        dst_key=encode_public_key(public_key_of(private["dst"])),
    )
    configuration = Path(folder, "example.conf")
    configuration.write_text(text)
    return configuration, {name: write_key(Path(folder, f"{name}.key"), key) for name, key in private.items()}


def write_key(path: Path, key: bytes) -> Path:
    """Write a private key that only we can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(encode_private_key(key) + "\n")
    return path


def free_port() -> int:
    """Return a UDP port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
