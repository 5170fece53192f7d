"""Installs rules in the kernel's firewall, removes them, and checks whether they are still there.

Each of these reads the whole firewall as text, has `seamless.linux.ruleset` work out what is to be done, and gives the
kernel one text in return. Works with both of Debian's kinds of iptables, nf_tables and legacy, whichever the host uses.
Counters of foreign rules stay; only those of the chains' policies start from zero with the legacy kind, as they do
there after any change by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from seamless.errors import PrivilegeError
from seamless.linux.ruleset import IP_VERSIONS, RUNNING_PREFIXES, IpVersion, Rule, Ruleset, install, missing, remove
from seamless.linux.system import program, run

LOCK_WAIT_SECONDS: Final = 10
"""How long to wait for another program that is changing the firewall (the legacy kind has one lock)."""

WITHOUT_ROOT: Final = (
    "start as root, where twistd's --uid USER gives it up again; or, without root, have systemd's seamless-rules@NODE "
    "keep the rules and start with --privileged SOCKET; a node that captures nothing needs no root, and neither does "
    "seamless lab"
)


def _tool(version: IpVersion, verb: str) -> str:
    return program("iptables" if version == 4 else "ip6tables") + verb


def save(version: IpVersion) -> str:
    """Return the whole firewall as text. Changes nothing; takes privilege all the same (`PrivilegeError`)."""
    return _run([_tool(version, "-save")])


def _restore(version: IpVersion, text: str) -> None:
    if text:
        _run([_tool(version, "-restore"), "--noflush", "-w", str(LOCK_WAIT_SECONDS)], input=text)


def _run(argv: list[str], input: str | None = None) -> str:
    """Run a program of the firewall's; a `PrivilegeError` says the ways without root."""
    argv[0] = program(argv[0])
    try:
        return run(argv, input)
    except PrivilegeError as error:
        raise PrivilegeError(f"{error}; {WITHOUT_ROOT}") from None


def apply(rulesets: Iterable[Ruleset]) -> None:
    """Install each ruleset; it replaces all rules that its owner has in the same chain.

    They go to the kernel in their order, a table at a time. No two may have one chain: what each replaces is looked up
    once, before any of them is installed.
    """
    wanted = tuple(rulesets)
    for version in dict.fromkeys(ruleset.version for ruleset in wanted):
        found = save(version)
        _restore(version, "".join(install(found, ruleset) for ruleset in wanted if ruleset.version == version))


def sweep(owner: str, prefixes: Iterable[str] = RUNNING_PREFIXES) -> bool:
    """Remove the chains of ``owner`` with these prefixes, of this life or an earlier one; return whether any was there.

    Without ``prefixes`` the rules stay that are meant to outlive the owner's process
    (`seamless.linux.ruleset.KEPT_PREFIXES`).
    """
    found = {version: save(version) for version in IP_VERSIONS}
    texts = [(version, remove(found[version], owner, prefix)) for version in IP_VERSIONS for prefix in prefixes]
    for version, text in texts:
        _restore(version, text)
    return any(text for _, text in texts)


def lost(rulesets: Iterable[Ruleset]) -> tuple[Rule, ...]:
    """Return the rules that ought to be there and are not."""
    wanted = tuple(rulesets)
    found = {version: save(version) for version in dict.fromkeys(ruleset.version for ruleset in wanted)}
    return tuple(rule for ruleset in wanted for rule in missing(found[ruleset.version], ruleset))


def is_installed(rulesets: Iterable[Ruleset]) -> bool:
    """Return whether the kernel has all of these rules."""
    return not lost(rulesets)
