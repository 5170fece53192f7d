"""Explains syntax errors: recognizes common typing mistakes by what was expected and what was found.

The parser reports the first place that does not fit, which for a forgotten ``;`` or ``}`` is a line or a block too
late. `explained` moves the message to where the slip is, and adds the word that was probably meant. It guesses only
where one reading is by far the likeliest; everything else keeps the parser's own "expected ..., found ...".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final

import attrs

from seamless.config.syntax import found, shown, skip_blank, token_at
from seamless.config.values import A_KEY

BYTE_ORDER_MARK: Final = "\ufeff"
"""What some editors write in front of UTF-8 text."""
RESEMBLANCE: Final = 0.6
"""The least ratio of `difflib` at which one word is taken for another: its own default."""

_ELSEWHERE: Final = {
    "bps": "bit",
    "b/s": "bit",
    "kbps": "kbit",
    "kb/s": "kbit",
    "mbps": "mbit",
    "mb/s": "mbit",
    "gbps": "gbit",
    "gb/s": "gbit",
    "sec": "s",
    "seconds": "s",
}
"""How units are called elsewhere, in lower case."""


def meant(word: str, words: Iterable[str]) -> str | None:
    """Return which of ``words`` (or phrases, by their first word) was probably meant; None if it is like none."""
    known = {phrase.split()[0].casefold(): phrase for phrase in words}
    spelt = _ELSEWHERE.get(word.casefold(), word.casefold())
    if spelt in known:
        return known[spelt]
    begun = [each for each in known if each.startswith(spelt)]
    return known[begun[0]] if len(begun) == 1 else similar(spelt, known.values())


def similar(word: str, words: Iterable[str]) -> str | None:
    """Return which of ``words`` differs from ``word`` by a typing mistake; None if none does."""
    known = {phrase.split()[0].casefold(): phrase for phrase in words}
    close = get_close_matches(word.casefold(), known, n=1, cutoff=RESEMBLANCE)
    return known[close[0]] if close else None


@attrs.frozen
class SyntaxSlip:
    """A place at which the parser gave up, in the block that begins at ``block_start``.

    ``expected`` is the parser's name for what fits there, ``words`` are the words of the language among that;
    ``statements`` may stand in the block, ``blocks`` begin a new one.
    """

    text: str
    block_start: int
    at: int
    expected: str
    words: Collection[str]
    statements: Collection[str]
    blocks: Collection[str]

    def explained(self) -> tuple[int, str]:
        """Return the offset of the mistake and a sentence about it."""
        token = token_at(self.text, self.at)
        if "';'" in self.expected and self._ends_statement(token):
            start, end = self._token_before()
            return end, f"';' is missing after {shown(self.text[start:end])}"
        if self.expected.endswith("'}'") and (not token or token in self.blocks):
            return self.block_start, f"{self._title()} is not closed: add '}}' {self._where(token)}"
        if self.at == self.block_start and token == "}":
            return self.at, "this '}' closes no block: remove it, or open the block that it is to close"
        return self.at, f"expected {self.expected}, found {found(self.text, self.at)}{self._hint(token)}"

    def _ends_statement(self, token: str) -> bool:
        """Return whether the statement before ``token`` is over, and only lacks its semicolon."""
        if not token or token == "}" or token in {phrase.split()[0] for phrase in self.statements}:
            return True
        _, end = self._token_before()
        if "\n" not in self.text[end : self.at]:
            return False
        return token in self.blocks or "','" not in self.expected or similar(token, self.statements) is not None

    def _token_before(self) -> tuple[int, int]:
        """Return begin and end of the last token before the place."""
        start = end = self.block_start
        following = skip_blank(self.text, start)
        while following < self.at:
            start, end = following, following + len(token_at(self.text, following))
            following = skip_blank(self.text, end)
        return start, end

    def _title(self) -> str:
        return " ".join(self.text[self.block_start : self.at].partition("{")[0].split())

    def _where(self, token: str) -> str:
        line = self.text.count("\n", 0, self.at) + 1
        return f"before {token} in line {line}" if token else "at the end of the file"

    def _hint(self, token: str) -> str:
        if self.expected == A_KEY and token.startswith('"'):
            return ": the quote that ends it is missing"
        if self.expected == A_KEY and len(token) > 1:
            return ": put it in quotes"
        word = meant(token, self.words) if token else None
        return "" if word is None else f": did you mean {word}?"
