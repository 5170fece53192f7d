"""A configuration file as text: blocks of statements of values, each of which knows where it stands.

This tree lies between the grammar, which makes it, and the builders, which turn it into the model. It keeps what the
model forgets (where a name was written, whether a statement was there at all), because messages need it. Places are
offsets into the text; `Problems` turns them into lines and columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeVar

import attrs

from seamless.config.model import Network
from seamless.errors import ConfigurationError

T = TypeVar("T")

LONGEST_QUOTE: Final = 48
"""Characters of a person's text that a message repeats: a whole key with its quotes, and still one line."""

_TOKEN: Final = re.compile(r'"[^"\n]*"?|[\w.:/\[\]-]+|.', re.DOTALL)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
"""Matches what the grammar skips: white space, and comments to the end of their line."""


def shown(text: str) -> str:
    """Return a piece of a person's text, quoted, for a message of one line."""
    return repr(text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "...")


def skip_blank(text: str, start: int) -> int:
    """Return where the next token begins, at ``start`` or after it."""
    blank = _BLANK.match(text, start)
    return start if blank is None else blank.end()


def token_at(text: str, start: int) -> str:
    """Return the token that begins at ``start``: a word, a quoted string or one character; "" at the end."""
    token = _TOKEN.match(text, start)
    return "" if token is None else token.group()


def found(text: str, start: int) -> str:
    """Return what stands at ``start``, for a message."""
    return shown(token_at(text, start)) if start < len(text) else "the end of the file"


@attrs.frozen
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigurationProblems(ConfigurationError):  # noqa: N818 - it is a list of them
    """Everything that is wrong with a configuration; its text has one problem a line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Problems:
    """The problems found so far in one text."""

    def __init__(self, filename: str, text: str) -> None:
        self._filename = filename
        self._text = text
        self._found: set[tuple[int, str]] = set()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, start: int, message: str) -> None:
        """Add a problem at ``start``, a character offset in the text; the same one twice counts once."""
        self._found.add((start, message))

    def place(self, start: int) -> tuple[int, int]:
        """Return (line, column) of a character offset; both count from 1."""
        line_start = self._text.rfind("\n", 0, start) + 1
        return self._text.count("\n", 0, start) + 1, start - line_start + 1

    def in_order(self) -> tuple[Problem, ...]:
        """Return all problems, in the order of the text."""
        return tuple(Problem(self._filename, *self.place(start), message) for start, message in sorted(self._found))


@attrs.frozen
class Bad:
    """In place of a value: it has the right shape but means nothing. The message says what was expected."""

    message: str


@attrs.frozen
class Value:
    """A value as the grammar read it (or `Bad`), and where it begins."""

    value: object
    start: int


@attrs.frozen
class Statement:
    """A keyword and its values; only ``from`` has a body."""

    keyword: str
    values: tuple[Value, ...]
    start: int
    body: tuple[Statement, ...] = ()

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return the values of this statement that are of type ``kind``, in order."""
        return tuple(value.value for value in self.values if isinstance(value.value, kind))

    def networks(self) -> tuple[Network, ...]:
        """Return the values of this statement that are IP networks, in order."""
        return tuple(value.value for value in self.values if isinstance(value.value, (IPv4Network, IPv6Network)))


@attrs.frozen
class Block:
    """A top-level block: its keyword, the names (or the mode) after it, and its statements."""

    keyword: str
    names: tuple[Value, ...]
    statements: tuple[Statement, ...]
    start: int

    @property
    def title(self) -> str:
        """Return how a message names this block."""
        return " ".join([self.keyword, *(str(name.value) for name in self.names)])

    def name(self, index: int = 0) -> str:
        """Return the name at ``index`` after the block's keyword, as text."""
        return str(self.names[index].value)

    def all(self, keyword: str) -> tuple[Statement, ...]:
        """Return the statements with this keyword."""
        return tuple(statement for statement in self.statements if statement.keyword == keyword)

    def has(self, keyword: str) -> bool:
        """Return whether there is a statement with this keyword."""
        return bool(self.all(keyword))

    def where(self, keyword: str) -> int:
        """Return where the first statement with this keyword begins, or the block itself when it has none."""
        return next((statement.start for statement in self.all(keyword)), self.start)

    def values(self, keyword: str) -> tuple[Value, ...]:
        """Return the values of all statements with this keyword."""
        return tuple(value for statement in self.all(keyword) for value in statement.values)

    def of(self, keyword: str, kind: type[T]) -> tuple[T, ...]:
        """Return the values of this kind of all statements with this keyword."""
        return tuple(value for statement in self.all(keyword) for value in statement.of(kind))

    def first(self, keyword: str, kind: type[T]) -> T | None:
        """Return the first value of this kind of a statement with this keyword; None if it is left out."""
        return next(iter(self.of(keyword, kind)), None)

    def walk(self) -> Iterator[Value]:
        """Return every value in the block."""
        yield from self.names
        for statement in self.statements:
            yield from statement.values
            for inner in statement.body:
                yield from inner.values
