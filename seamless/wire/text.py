"""Sentences that come off the wire: reasons, which end in a log or on a terminal."""

from __future__ import annotations

from typing import Final

MAX_REASON_BYTES: Final = 512
"""The reason of a RESET or a CLOSE: one sentence."""


def printable(data: bytes) -> str:
    """Return UTF-8 text for people, cut, and with a mark in the place of whatever a log or a terminal would obey."""
    text = data[:MAX_REASON_BYTES].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
