"""``seamless rules FILE --node NAME``: the firewall rules that a node installs, without installing them.

For an administrator to review before the daemon first runs on a host. It needs no privilege, and what it
prints is what the daemon gives to the kernel where none of its rules are yet.

With ``--remove`` it takes away what is there of a node's rules: for when the daemon and its privileged part were both
killed, and for ``when unreachable refuse``, whose rules stay when a daemon ends. ``--sweep`` leaves these and takes the
others away. Neither reads the file if it is told the node, so that a broken configuration never keeps rules in place.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterable

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE
from seamless.intercept.node_rules import kept_rulesets, routes, rulesets
from seamless.linux import installation
from seamless.linux.ruleset import KEPT_PREFIXES, PREFIXES, RUNNING_PREFIXES, text
from seamless.linux.system import user_id
from seamless.tools.node_choice import choose_node
from seamless.tools.subcommands import VerbParsers, add_verb

DESCRIPTION = """\
Print the firewall rules that a node would install, as iptables-restore reads them. Nothing is changed, and no
privilege is needed. A daemon installs them when it is up and removes them when it ends, however it ends. But the
rules of "when unreachable refuse" stay (chains SEAMGUARD-NODE and SEAMQUEUE-NODE): while the daemon is down, what may
not go natively is refused.

    seamless rules /etc/seamless/seamless.conf --node src

This, as root and once the daemon is stopped, takes away all rules of a node, these among them, and so ends refusing:

    seamless rules /etc/seamless/seamless.conf --node src --remove

Were the daemon and its privileged part both killed, the other rules are left as well, until the next start or until
--remove; --sweep takes these away and goes on refusing.
"""

RESTORE_COMMANDS = {4: "iptables-restore", 6: "ip6tables-restore"}


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand rules to the parser."""
    parser = add_verb(subparsers, "rules", run, "print the firewall rules of a node, changing nothing", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration")
    parser.add_argument("--node", metavar="NAME", help="the node; left out, the one with the name of this host")
    parser.add_argument("--user", metavar="USER", help="whom the daemon runs as, if not as root")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--remove", action="store_true", help="take away all rules of the node, and refuse nothing any more"
    )
    way.add_argument("--sweep", action="store_true", help="take away what a crash left, and go on refusing")


def run(arguments: argparse.Namespace) -> int:
    """Print the rules of one node, for IPv4 and IPv6, or with ``--remove`` remove those that are installed."""
    removes = PREFIXES if arguments.remove else RUNNING_PREFIXES if arguments.sweep else ()
    if removes and arguments.node is not None:
        return _remove(arguments.node, removes)
    configuration = load_file(arguments.file)
    node = choose_node(configuration, arguments.file, arguments.node, socket.gethostname())
    if removes:
        return _remove(node.name, removes)
    user = None if arguments.user is None else user_id(arguments.user)
    found = (*kept_rulesets(configuration, node.name, user), *rulesets(configuration, node.name, user))
    for route in routes(configuration, node.name):
        print(f"# node {node.name}: where what its rules mark is delivered")
        print("".join(" ".join(command) + "\n" for command in route.commands()), end="")
    with_rules = [ruleset for ruleset in found if ruleset.rules]
    for ruleset in with_rules:
        stays = ", stays when the node is down" if ruleset.prefix in KEPT_PREFIXES else ""
        print(f"# node {node.name}: {RESTORE_COMMANDS[ruleset.version]} --noflush{stays}")
        print(text(ruleset), end="")
    if not with_rules:
        print(f"# node {node.name} captures nothing and installs no rules")
    return EXIT_DONE


def _remove(node_name: str, prefixes: Iterable[str]) -> int:
    found = installation.sweep(node_name, prefixes)
    print(f"the firewall rules of node {node_name} are removed" if found else f"node {node_name} had left no rules")
    return EXIT_DONE
