"""Reasons received from other nodes, made safe for a log or a terminal."""

from __future__ import annotations

from typing import Final

MAX_REASON_BYTES: Final = 512
"""The reason of a RESET or a CLOSE: one sentence."""


def printable(data: bytes) -> str:
    """Return received UTF-8 as text of bounded length, in which what does not print is escaped as Python does it.

    So no terminal obeys it, no log has a line that was not logged, and a person sees what was sent.
    """
    text = data[:MAX_REASON_BYTES].decode("utf-8", "replace")
    if text.isprintable():
        return text
    shown = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return "".join(shown)[:MAX_REASON_BYTES]
