"""Tables for a terminal: columns as wide as they must be, and nothing beyond the hundredth column."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, TypeAlias

WIDTH: Final = 100
FIRST_WIDTH_MAX: Final = 24
"""Characters of the first column, which has names: a longer name is cut here, and whole in the JSON."""
GAP: Final = "  "

Row: TypeAlias = Sequence[str] | str
"""The cells of a row, or a text (a remark) about the row before it."""


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the lines of a table. The last column, and remarks, continue on further lines where they are long."""
    all_rows: list[Row] = [header, *rows]
    cells = [row for row in all_rows if not isinstance(row, str)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    widths[0] = min(widths[0], FIRST_WIDTH_MAX)
    lines: list[str] = []
    for row in all_rows:
        if isinstance(row, str):
            lines += _wrapped(row, " " * (widths[0] + len(GAP)))
        else:
            lines += _row(row, widths)
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """Return a sentence on as many lines as it needs, all but the first indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent=GAP, break_on_hyphens=False)


def _row(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
    left = "".join(f"{cell:<{width}}{GAP}" for cell, width in zip([first, *row[1:-1]], widths))
    wrapped = _wrapped(row[-1], " " * len(left)) or [left]
    return [(left + wrapped[0][len(left) :]).rstrip(), *wrapped[1:]]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
