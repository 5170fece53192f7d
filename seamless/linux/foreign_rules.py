"""Finds rules of others that take traffic before our own rules see it.

Our rules are inserted at the top of the kernel's chains, but a program that inserts its own later stands above them: an
ACCEPT there means that nothing of what it matches is captured, and nothing says so. Pure: from what ``iptables-save``
prints to the lines that are in the way.

A rule is in the way when it stands above the rule that leads to our chain, in the same table and chain, ends the search
there (or leads to a chain in which a rule does), and may match what ours match: protocol, destination and port are
compared; whatever else a rule asks for is taken to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import Final, TypeAlias

import attrs

from seamless.linux.ruleset import split_rule

Network: TypeAlias = IPv4Network | IPv6Network

_ENDING: Final = frozenset(
    ("ACCEPT", "DROP", "REJECT", "RETURN", "DNAT", "REDIRECT", "NETMAP", "MASQUERADE", "SNAT", "QUEUE", "NFQUEUE")
)
"""Targets after which no further rule of the chain sees the packet."""
_BUILT_IN: Final = frozenset(("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"))
"""The kernel's chains: RETURN there is the end, and the chain's policy decides."""
_EVERY_PORT: Final = ((0, 65535),)


@attrs.frozen
class _Match:
    """What a rule matches, as far as it is compared; None: everything."""

    protocol: str | None
    destination: Network | None
    ports: tuple[tuple[int, int], ...]

    def may_share(self, other: _Match) -> bool:
        """Return whether a packet may match both."""
        if None not in (self.protocol, other.protocol) and self.protocol != other.protocol:
            return False
        one, two = self.destination, other.destination
        if one is not None and two is not None and (one.version != two.version or not one.overlaps(two)):
            return False
        return any(first <= last2 and first2 <= last for first, last in self.ports for first2, last2 in other.ports)


def rules_ahead(save_text: str, chain: str) -> list[str]:
    """Return the lines that are in the way of our chain, with the name of their table: ``nat: -A OUTPUT ...``."""
    return [
        f"{table}: {' '.join(words)}"
        for table, rules in _tables(save_text).items()
        for words in _ahead_in(rules, chain)
    ]


def _tables(save_text: str) -> dict[str, list[list[str]]]:
    tables: dict[str, list[list[str]]] = {}
    rules: list[list[str]] = []
    for line in save_text.splitlines():
        if line.startswith("*"):
            rules = tables.setdefault(line[1:].strip(), [])
        elif line.startswith("-A "):
            rules.append(split_rule(line))
    return tables


def _ahead_in(rules: list[list[str]], chain: str) -> Iterator[list[str]]:
    own = [_match(words) for words in rules if words[1] == chain and _target(words) not in ("RETURN", None)]
    for number, words in enumerate(rules):
        if _target(words) != chain:
            continue
        ours = _match(words)
        wanted = [match for match in own if match.may_share(ours)]
        for earlier in rules[:number]:
            if earlier[1] == words[1] and _ends(earlier, rules, wanted, set()):
                yield earlier


def _ends(words: list[str], rules: list[list[str]], wanted: Iterable[_Match], seen: set[str]) -> bool:
    """Return whether this rule may take a packet that one of ``wanted`` matches."""
    match = _match(words)
    left = [each for each in wanted if each.may_share(match)]
    target = _target(words)
    if not left or target is None or target in seen or target.startswith("SEAM"):
        return False
    if target in _ENDING:
        return target != "RETURN" or words[1] in _BUILT_IN
    inside = [each for each in rules if each[1] == target]
    return any(_target(each) != "RETURN" and _ends(each, rules, left, {*seen, target}) for each in inside)


def _target(words: list[str]) -> str | None:
    return next((value for option, value in pairwise(words) if option in ("-j", "-g")), None)


def _match(words: list[str]) -> _Match:
    """Return what a rule matches; a match that is negated, or not understood, counts as everything."""
    protocol: str | None = None
    destination: Network | None = None
    ports: tuple[tuple[int, int], ...] = _EVERY_PORT
    for before, option, value in zip(["", *words], words, words[1:]):
        if before == "!":
            continue
        if option == "-p":
            protocol = value
        try:
            if option == "-d":
                destination = ip_network(value, strict=False)
            elif option in ("--dport", "--dports"):
                ports = tuple(_range(each) for each in value.split(","))
        except ValueError:
            pass  # a word that happens to look like an option, in a comment
    return _Match(protocol, destination, ports)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first or 0), int(last or first or 65535)
