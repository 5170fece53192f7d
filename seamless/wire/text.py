"""Reasons received from other nodes, made safe for a log or a terminal."""

from __future__ import annotations

from typing import Final

MAX_REASON_BYTES: Final = 512
"""The reason of a RESET or a CLOSE: one sentence."""


def printable(data: bytes) -> str:
    """Return received UTF-8 as text of bounded length, with control characters replaced."""
    text = data[:MAX_REASON_BYTES].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
