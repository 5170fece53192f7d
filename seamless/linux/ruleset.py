"""Firewall rules as values, and as the text that ``iptables-save`` prints and ``iptables-restore`` reads.

The problem: a host's firewall has many owners (people, docker, a VPN), and a daemon that adds rules one command at a
time leaves copies and remains of them behind. So nothing here changes anything. `install` and `remove` are pure
functions from the text of what is there to the text of what is to be done, which the kernel then does for a table at
once or not at all (`seamless.linux.iptables`).

The rules of this file:

* In each table an owner has one chain, named after it, and that chain is its alone. Every rule that jumps there is
  ours too, wherever it is. Nothing else is ever mentioned in what we print, so nothing else can change.
* Rules that outlive their owner's process are a ruleset of their own, in chains with another prefix (`KEPT_PREFIXES`).
* Installing begins by taking away what is there of the same owner: thrice is once, and a crash's remains go.
* A rule is written as ``iptables-save`` would print it, up to the order of its words, so that `missing` can compare.
  (Networks with their prefix length, ports as in ``--dports 22,8000:8099``, a ``-m`` before each match.)
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import attrs

IpVersion: TypeAlias = Literal[4, 6]
IP_VERSIONS: Final[tuple[IpVersion, ...]] = (4, 6)

CHAIN_PREFIX: Final = "SEAMLESS-"
"""Name prefix of chains that exist only while their owner runs."""
HOLD_PREFIX: Final = "SEAMHOLD-"
"""Name prefix of chains that exist only while their owner runs, and hold what opens a connection."""
BACK_PREFIX: Final = "SEAMBACK-"
ANSWER_PREFIX: Final = "SEAMANSWER-"
"""Name prefixes of chains that exist only while their owner runs, and bring back what answers a client's address."""
GUARD_PREFIX: Final = "SEAMGUARD-"
"""Name prefix of chains that stay when their owner is gone: what they reject must never go natively."""
QUEUE_PREFIX: Final = "SEAMQUEUE-"
"""Name prefix of chains that stay and divert packets: the kernel drops them while no process reads the queue."""
KEPT_PREFIXES: Final = (GUARD_PREFIX, QUEUE_PREFIX)
RUNNING_PREFIXES: Final = (CHAIN_PREFIX, HOLD_PREFIX, BACK_PREFIX, ANSWER_PREFIX)
PREFIXES: Final = (*RUNNING_PREFIXES, *KEPT_PREFIXES)
MAX_CHAIN_CHARACTERS: Final = 28
"""XT_EXTENSION_MAXNAMELEN less its end: the longest name of a chain."""
_DIGEST_CHARACTERS: Final = 6
"""Of the digest that tells long names with one beginning apart."""


@attrs.frozen
class Rule:
    """One rule: ``arguments`` are the words after ``-A CHAIN``.

    A rule in a chain of the kernel's (``OUTPUT``) must jump to the owner's chain; all others are in the owner's chain.
    """

    table: str
    chain: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.chain, *self.arguments))


@attrs.frozen
class Ruleset:
    """All rules of one owner (the name of a node) for one IP version; in a chain they keep this order."""

    owner: str
    version: IpVersion
    rules: tuple[Rule, ...] = ()
    prefix: str = CHAIN_PREFIX

    @property
    def chain(self) -> str:
        """Return the name of the owner's chain."""
        return chain_name(self.owner, self.prefix)


def chain_name(owner: str, prefix: str = CHAIN_PREFIX) -> str:
    """Return the name of an owner's chain; a name too long for a chain is cut, and a digest keeps it apart."""
    room = MAX_CHAIN_CHARACTERS - len(prefix)
    if len(owner) > room:
        digest = hashlib.blake2s(owner.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        owner = f"{owner[: room - _DIGEST_CHARACTERS - 1]}-{digest}"
    return prefix + owner


def install(save_text: str, ruleset: Ruleset) -> str:
    """Return what to give to ``iptables-restore --noflush`` so that its owner has exactly ``ruleset``."""
    found = _read(save_text, ruleset.chain)
    tables = dict.fromkeys([*(rule.table for rule in ruleset.rules), *found])
    return "".join(
        _install_table(table, found.get(table, _Found()), ruleset.chain, [r for r in ruleset.rules if r.table == table])
        for table in tables
    )


def remove(save_text: str, owner: str, prefix: str = CHAIN_PREFIX) -> str:
    """Return what to give to ``iptables-restore --noflush`` so that ``owner`` has no chain with this prefix.

    That is "" if there is none.
    """
    chain = chain_name(owner, prefix)
    return "".join(_remove_table(table, found, chain) for table, found in _read(save_text, chain).items())


def missing(save_text: str, ruleset: Ruleset) -> tuple[Rule, ...]:
    """Return the rules that ought to be there and are not; all of the owner's chain if it is not exactly as installed.

    Somebody who reloads a firewall from a file takes our rules away without a word.
    """
    found = _read(save_text, ruleset.chain)
    there = {table: {_shape(words) for words in own.jumps} for table, own in found.items()}
    lost = [
        rule
        for rule in ruleset.rules
        if rule.chain != ruleset.chain and _shape(_words(rule)) not in there.get(rule.table, ())
    ]
    for table in dict.fromkeys(rule.table for rule in ruleset.rules):
        own = [rule for rule in ruleset.rules if rule.table == table and rule.chain == ruleset.chain]
        in_chain = found[table].in_chain if table in found else []
        if [_shape(_words(rule)) for rule in own] != [_shape(words) for words in in_chain]:
            lost.extend(own)
    return tuple(lost)


def text(ruleset: Ruleset) -> str:
    """Return the rules as ``iptables-restore`` input, for a person to read."""
    return install("", ruleset)


# What is there.


@attrs.define
class _Found:
    """The rules and chain of one owner in one table."""

    chain: bool = False
    jumps: list[list[str]] = attrs.field(factory=list)
    """Rules elsewhere that lead to the owner's chain, as words from ``-A`` on..."""
    jump_lines: list[str] = attrs.field(factory=list)
    """...and as printed."""
    in_chain: list[list[str]] = attrs.field(factory=list)


def _read(save_text: str, chain: str) -> dict[str, _Found]:
    """Return by table what the output of ``iptables-save`` has of this chain; only tables that have something."""
    tables: dict[str, _Found] = {}
    current = _Found()
    for line in save_text.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:].strip(), _Found())
        elif line.startswith(f":{chain} "):
            current.chain = True
        elif line.startswith(f"-A {chain} "):
            current.in_chain.append(split_rule(line))
        elif line.startswith("-A ") and chain in line:
            words = split_rule(line)
            if _leads_to(words, chain):
                current.jumps.append(words)
                current.jump_lines.append(line)
    return {table: found for table, found in tables.items() if found.chain or found.jumps}


def split_rule(line: str) -> list[str]:
    """Return the words of a line that iptables-save printed."""
    try:
        return shlex.split(line)
    except ValueError:  # a foreign comment with a quote that is not one
        return line.split()


def _leads_to(words: list[str], chain: str) -> bool:
    return any(option in ("-j", "-g") and target == chain for option, target in pairwise(words))


def _words(rule: Rule) -> list[str]:
    return ["-A", rule.chain, *rule.arguments]


def _shape(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words in an order that does not depend on who wrote them."""
    return tuple(sorted(words))


# What is to be done.


def _install_table(table: str, found: _Found, chain: str, rules: list[Rule]) -> str:
    if not rules:
        return _remove_table(table, found, chain)
    hooks = [rule for rule in rules if rule.chain != chain]
    return _transaction(
        table,
        # Naming a chain makes it, or empties it.
        f":{chain} - [0:0]",
        *_deletions(found),
        *(f"-A {rule}" for rule in rules if rule.chain == chain),
        # At the top, so that no foreign rule decides before us; the last that is put there comes first.
        *(f"-I {rule}" for rule in reversed(hooks)),
    )


def _remove_table(table: str, found: _Found, chain: str) -> str:
    chain_lines = [f"-F {chain}", f"-X {chain}"] if found.chain else []
    return _transaction(table, *_deletions(found), *chain_lines)


def _deletions(found: _Found) -> Iterator[str]:
    return (f"-D {line.removeprefix('-A ')}" for line in found.jump_lines)


def _transaction(table: str, *lines: str) -> str:
    return "\n".join((f"*{table}", *lines, "COMMIT", ""))
