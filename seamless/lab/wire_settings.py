"""Parses the settings after ``seamless lab wire A B``, which change a running wire, in the configuration's words.

``loss 5 % burst 4 packets`` sets, ``no loss`` makes the wire perfect again in that respect, ``down`` and ``up`` cut and
mend it. A shell would take semicolons for its own, so a statement ends where the next one's keyword begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from seamless.config.load import load_text
from seamless.config.model import Impairment
from seamless.errors import ConfigurationError, UsageError

_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "delay": ("delay",),
    "rate": ("rate_bps",),
    "queue": ("queue_bytes",),
    "loss": ("loss",),
    "burst": ("burst_packets",),
    "duplicate": ("duplicate",),
    "reorder": ("reorder", "reorder_delay"),
    "corrupt": ("corrupt",),
    "black": ("black_hole_bytes",),
    "down": ("down",),
}
"""By the first word of each statement: the fields of `Impairment` that it sets."""

_KNOWN: Final = (
    "delay, rate, queue, loss, burst, duplicate, reorder, corrupt, black hole, down, up, and no loss and so on"
)

_COMPANIONS: Final = {"queue": ("rate", "1 gbit"), "burst": ("loss", "1 %")}
"""Statements that the language requires beside another; a running wire has them already, or may get them later."""

_WIRE: Final = "overlay words {{ }} host A {{ }} host B {{ }} wire A B {{ between 10.0.0.1/30 10.0.0.2/30; {} }}"


def changes(words: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Impairment` that these words change; raise `UsageError` if they mean nothing."""
    perfect = Impairment()
    changed: dict[str, Any] = {}
    told: dict[str, str] = {}
    for statement in _statements(words):
        keyword, *rest = statement
        if keyword == "up" and not rest:
            changed["down"] = False
        elif keyword == "no" and rest and rest[0] in _FIELDS and rest[1:] == (["hole"] if rest[0] == "black" else []):
            changed.update({field: getattr(perfect, field) for field in _FIELDS[rest[0]]})
        else:
            told[keyword] = " ".join(rest)
    if told:
        impairment = _read(told)
        changed.update({field: getattr(impairment, field) for keyword in told for field in _FIELDS[keyword]})
    if not changed:
        raise UsageError("Say what shall change: seamless lab wire A B loss 5 %")
    return changed


def _statements(words: Sequence[str]) -> list[list[str]]:
    """Cut words where a keyword begins a statement; ``no`` takes the keyword after it along."""
    statements: list[list[str]] = []
    for word in " ".join(words).replace("%", " % ").replace(";", " ").split():
        after_no = bool(statements) and statements[-1] == ["no"]
        if word in ("no", "up") or (word in _FIELDS and not after_no):
            statements.append([word])
        elif statements:
            statements[-1].append(word)
        else:
            raise UsageError(f"A wire has no {word!r}; it has {_KNOWN}.")
    return statements


def _read(told: dict[str, str]) -> Impairment:
    """Have the language itself read the statements."""
    wanted = dict(told)
    for keyword, (companion, value) in _COMPANIONS.items():
        if keyword in wanted:
            wanted.setdefault(companion, value)
    text = " ".join(f"{keyword} {rest};" for keyword, rest in wanted.items())
    try:
        return load_text(_WIRE.format(text), "wire").wires[0].forward
    except ConfigurationError as error:
        sentences = [str(line).split(": ", 1)[-1] for line in str(error).splitlines()]
        raise UsageError("; ".join(sentences)) from None


def described(impairment: Impairment) -> str:
    """Return what a wire is like in the words of the language; ``perfect`` for one that does nothing."""
    statements = [
        ("delay", impairment.delay, f"{impairment.delay * 1000:g} ms"),
        ("rate", impairment.rate_bps, f"{(impairment.rate_bps or 0) / 1e6:g} mbit"),
        ("queue", impairment.queue_bytes, f"{impairment.queue_bytes} bytes"),
        ("loss", impairment.loss, f"{impairment.loss * 100:g} %"),
        ("burst", impairment.burst_packets > 1, f"{impairment.burst_packets:g} packets"),
        ("duplicate", impairment.duplicate, f"{impairment.duplicate * 100:g} %"),
        ("reorder", impairment.reorder, f"{impairment.reorder * 100:g} % by {impairment.reorder_delay * 1000:g} ms"),
        ("corrupt", impairment.corrupt, f"{impairment.corrupt * 100:g} %"),
        ("black hole", impairment.black_hole_bytes is not None, f"{impairment.black_hole_bytes} bytes"),
    ]
    told = [f"{keyword} {value};" for keyword, is_set, value in statements if is_set]
    return " ".join([*told, *(["down;"] if impairment.down else [])]) or "perfect"
