"""``seamless rules FILE --node NAME``: the firewall rules that a node installs, without installing them.

For whoever has to answer for the firewall, before the daemon first runs there. It needs no privilege, and what it
prints is what the daemon gives to the kernel where none of its rules are yet.

With ``--remove`` it takes away what is there of a node's rules: for when the daemon and its privileged part were both
killed. It does not read the file if it is told the node, so that a broken configuration never keeps rules in place.
"""

from __future__ import annotations

import argparse
import socket

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE
from seamless.intercept.rules import rulesets
from seamless.linux import iptables
from seamless.linux.rules import text
from seamless.linux.system import user_id
from seamless.tools.choose import choose_node
from seamless.tools.verbs import VerbParsers, add_verb

DESCRIPTION = """\
Print the firewall rules that a node would install, as iptables-restore reads them. Nothing is changed, and no
privilege is needed. A daemon installs them when it is up and removes them when it ends, however it ends.

    seamless rules /etc/seamless/seamless.conf --node src

Were the daemon and its privileged part both killed, rules are left until the next start, or until this, as root:

    seamless rules /etc/seamless/seamless.conf --node src --remove
"""

RESTORE_COMMANDS = {4: "iptables-restore", 6: "ip6tables-restore"}


def add_arguments(subparsers: VerbParsers) -> None:
    """Describe the verb rules."""
    parser = add_verb(subparsers, "rules", run, "print the firewall rules of a node, changing nothing", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration")
    parser.add_argument("--node", metavar="NAME", help="the node; left out, the one with the name of this host")
    parser.add_argument("--user", metavar="USER", help="whom the daemon runs as, if not as root")
    parser.add_argument("--remove", action="store_true", help="take away the node's rules that a crash left")


def run(arguments: argparse.Namespace) -> int:
    """Print the rules of one node, for IPv4 and IPv6, or that it has none; or take away what is left of them."""
    if arguments.remove and arguments.node is not None:
        return _remove(arguments.node)
    configuration = load_file(arguments.file)
    node = choose_node(configuration, arguments.file, arguments.node, socket.gethostname())
    if arguments.remove:
        return _remove(node.name)
    user = None if arguments.user is None else user_id(arguments.user)
    with_rules = [ruleset for ruleset in rulesets(configuration, node.name, user) if ruleset.rules]
    for ruleset in with_rules:
        print(f"# node {node.name}: {RESTORE_COMMANDS[ruleset.version]} --noflush")
        print(text(ruleset), end="")
    if not with_rules:
        print(f"# node {node.name} captures nothing and installs no rules")
    return EXIT_DONE


def _remove(node_name: str) -> int:
    found = iptables.sweep(node_name)
    print(f"the firewall rules of node {node_name} are removed" if found else f"node {node_name} had left no rules")
    return EXIT_DONE
