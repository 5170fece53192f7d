"""Routes by firewall mark: packets that carry a mark are delivered to this host, whatever their destination.

The problem is that of `seamless.linux.ruleset`: a host's routing rules have many owners. So each owner has a routing
table of its own, whose number follows from its name, and what is ours carries our number as its *protocol* (ip-rule(8),
ip-route(8)). `missing` and `removal` are pure functions from what ``ip -json`` prints; the kernel does the rest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from typing import Any, Final

import attrs

from seamless.errors import SeamlessError
from seamless.linux.ruleset import IP_VERSIONS, IpVersion
from seamless.linux.system import run

PRIORITY: Final = 7400
"""Of our rules: behind the table ``local``, ahead of ``main``, and where others rarely are."""
PROTOCOL: Final = 83
"""Who made a rule or route; numbers from 64 to 185 are for anybody (linux/rtnetlink.h, iproute2's rt_protos)."""
_FIRST_TABLE: Final = 0x5EA0_0000
_TABLES: Final = 1 << 20


@attrs.frozen
class LocalRoute:
    """Packets of one IP version that carry exactly ``mark`` are delivered to this host. ``owner``: a node's name."""

    owner: str
    version: IpVersion
    mark: int

    @property
    def table(self) -> int:
        """Return the number of the owner's routing table."""
        return table_number(self.owner)

    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Return the commands that install it."""
        return (self._command("rule", "add"), self._command("route", "add"))

    def _command(self, kind: str, verb: str) -> tuple[str, ...]:
        ip = ("ip", f"-{self.version}", kind, verb)
        if kind == "rule":
            selector = ("pref", str(PRIORITY), "fwmark", f"{self.mark:#x}", "lookup", str(self.table))
            return (*ip, *selector, "protocol", str(PROTOCOL))
        return (*ip, "local", "default", "dev", "lo", "table", str(self.table), "proto", str(PROTOCOL))


def table_number(owner: str) -> int:
    """Return the number of an owner's routing table: of a million that programs leave alone, by its name."""
    return _FIRST_TABLE + int.from_bytes(hashlib.blake2s(owner.encode()).digest()[:4], "big") % _TABLES


def missing(wanted: LocalRoute, rules: list[Any], routes: list[Any]) -> tuple[tuple[str, ...], ...]:
    """Return the commands for what of ``wanted`` is not there. ``rules``, ``routes``: of ``ip -json``, of its table."""
    add_rule, add_route = wanted.commands()
    has_rule = any(_is_ours(rule, wanted.owner) and rule.get("fwmark") == f"{wanted.mark:#x}" for rule in rules)
    has_route = any(route.get("dst") == "default" and route.get("dev") == "lo" for route in routes)
    return tuple(command for command, is_there in ((add_rule, has_rule), (add_route, has_route)) if not is_there)


def removal(owner: str, version: IpVersion, rules: list[Any], routes: list[Any]) -> tuple[tuple[str, ...], ...]:
    """Return the commands that take away what is there of an owner's; arguments as with `missing`."""
    table, ip = str(table_number(owner)), ("ip", f"-{version}")
    commands: list[tuple[str, ...]] = [
        (*ip, "rule", "del", "pref", str(rule["priority"]), "fwmark", rule.get("fwmark", "0"), "lookup", table)
        for rule in rules
        if _is_ours(rule, owner)
    ]
    if routes:
        commands.append((*ip, "route", "flush", "table", table))
    return tuple(commands)


def _is_ours(rule: Any, owner: str) -> bool:
    return (rule.get("table"), rule.get("protocol")) == (str(table_number(owner)), str(PROTOCOL))


# In the kernel.


def apply(wanted: Iterable[LocalRoute]) -> None:
    """Install what is not there."""
    for one in wanted:
        for command in missing(one, *_found(one.owner, one.version)):
            run(command)


def lost(wanted: Iterable[LocalRoute]) -> tuple[str, ...]:
    """Return the commands for what ought to be there and is not."""
    return tuple(" ".join(command) for one in wanted for command in missing(one, *_found(one.owner, one.version)))


def sweep(owner: str) -> bool:
    """Remove what is there of an owner, of this life or an earlier one; return whether there was any."""
    return any([remove(owner, version) for version in IP_VERSIONS])


def remove(owner: str, version: IpVersion) -> bool:
    """Remove what is there of an owner for one IP version; return whether there was any."""
    commands = removal(owner, version, *_found(owner, version))
    for command in commands:
        run(command)
    return bool(commands)


def _found(owner: str, version: IpVersion) -> tuple[list[Any], list[Any]]:
    """Return the rules of an IP version, and the routes of the owner's table; none where there is no ``ip``."""
    return _listed(version, "rule", "show"), _listed(version, "route", "show", "table", str(table_number(owner)))


def _listed(version: IpVersion, *words: str) -> list[Any]:
    if shutil.which("ip") is None and shutil.which("ip", path="/usr/sbin:/sbin") is None:
        return []
    try:
        found = json.loads(run(["ip", f"-{version}", "-json", "-N", *words]) or "[]")
    except (SeamlessError, ValueError):  # a table that does not exist; a kernel without this IP version
        return []
    return [entry for entry in found if isinstance(entry, dict) and entry]
