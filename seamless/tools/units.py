"""Formats numbers for people: three significant digits, and the unit."""

from __future__ import annotations

from typing import Final

_PREFIXES: Final = ("", "k", "M", "G", "T", "P")
_SPANS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
NOTHING: Final = "-"
"""Printed where there is no number."""


def _scaled(value: float, unit: str) -> str:
    for prefix in _PREFIXES:
        if value < 999.5 or prefix == _PREFIXES[-1]:
            break
        value /= 1000
    return f"{_three_digits(value) if prefix else f'{value:.0f}'} {prefix}{unit}"


def _three_digits(value: float) -> str:
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def rate(bits_per_second: float) -> str:
    """Return a rate, as in 312 Mb/s."""
    return _scaled(bits_per_second, "b/s")


def size(nbytes: float) -> str:
    """Return a number of bytes, as in 41.2 GB; the prefixes are powers of a thousand."""
    return _scaled(nbytes, "B")


def ratio(part: float | None) -> str:
    """Return a ratio in percent, as in 0.52 %."""
    if part is None:
        return NOTHING
    percent = part * 100
    return (
        f"{percent:.2f} %" if 0 < percent < 9.995 else f"{percent:.1f} %" if 0 < percent < 99.95 else f"{percent:.0f} %"
    )


def quotient(part: float, whole: float) -> str:
    """Return how much of the whole a part is, in percent."""
    return ratio(part / whole if whole else None)


def milliseconds(seconds: float) -> str:
    """Return a short time, as in 30.4 ms."""
    return f"{_three_digits(seconds * 1000)} ms"


def duration(seconds: float) -> str:
    """Return a long time in its two largest units, as in 2 h 13 min."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, span in _SPANS:
        count, left = divmod(left, span)
        if count or (parts and len(parts) < 2):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def address(host_and_port: list[object] | tuple[object, object]) -> str:
    """Return an underlay address, as in 10.1.1.1:7400."""
    host, port = host_and_port
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def counts(counters: dict[str, int]) -> str:
    """Return the counters that are not zero, as in captured 12, gave up 1."""
    parts = [f"{name.replace('_', ' ')} {count}" for name, count in counters.items() if count]
    return ", ".join(parts) or "nothing so far"
