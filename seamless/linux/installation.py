"""Installs, checks and removes all that a node has in the kernel: firewall rules, and routes by mark.

What is wanted is a sequence of values of both kinds (`Ruleset`, `LocalRoute`); each is handed to the module that knows
its kind. Routes come before the rules that send packets to them, and go after these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, Union

from seamless.linux import iptables, policy_routes
from seamless.linux.policy_routes import LocalRoute
from seamless.linux.ruleset import RUNNING_PREFIXES, Ruleset

Installed: TypeAlias = Union[Ruleset, LocalRoute]


def apply(wanted: Sequence[Installed]) -> None:
    """Install each; it replaces all that its owner has of the same kind."""
    policy_routes.apply(one for one in wanted if isinstance(one, LocalRoute))
    iptables.apply(one for one in wanted if isinstance(one, Ruleset))


def sweep(owner: str, prefixes: Iterable[str] = RUNNING_PREFIXES) -> bool:
    """Remove the rules of ``owner`` in chains with these prefixes, and its routes; return whether any was there."""
    rules = iptables.sweep(owner, prefixes)
    return policy_routes.sweep(owner) or rules


def remove_routes(owner: str, wanted_no_more: Iterable[Installed]) -> None:
    """Remove the owner's routes of the IP versions that are among these."""
    for one in wanted_no_more:
        if isinstance(one, LocalRoute):
            policy_routes.remove(owner, one.version)


def lost(wanted: Sequence[Installed]) -> tuple[str, ...]:
    """Return what ought to be there and is not."""
    rules = iptables.lost([one for one in wanted if isinstance(one, Ruleset)])
    return (*map(str, rules), *policy_routes.lost(one for one in wanted if isinstance(one, LocalRoute)))


def is_installed(wanted: Sequence[Installed]) -> bool:
    """Return whether the kernel has all of this."""
    return not lost(wanted)


def is_any(wanted: Iterable[Installed]) -> bool:
    """Return whether any of these is more than an empty ruleset."""
    return any(not isinstance(one, Ruleset) or one.rules for one in wanted)
