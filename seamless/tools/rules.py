"""``seamless rules FILE --node NAME``: the firewall rules that a node installs, without installing them.

For whoever has to answer for the firewall, before the daemon first runs there. It needs no privilege, and what it
prints is what the daemon gives to the kernel where none of its rules are yet.
"""

from __future__ import annotations

import argparse
import socket

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE
from seamless.intercept.rules import rulesets
from seamless.linux.rules import text
from seamless.tools.choose import choose_node
from seamless.tools.verbs import VerbParsers, add_verb

DESCRIPTION = """\
Print the firewall rules that a node would install, as iptables-restore reads them. Nothing is changed, and no
privilege is needed. A daemon installs them when it is up and removes them when it ends, however it ends.

    seamless rules /etc/seamless/seamless.conf --node src
"""

RESTORE_COMMANDS = {4: "iptables-restore", 6: "ip6tables-restore"}


def add_arguments(subparsers: VerbParsers) -> None:
    """Describe the verb rules."""
    parser = add_verb(subparsers, "rules", run, "print the firewall rules of a node, changing nothing", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration")
    parser.add_argument("--node", metavar="NAME", help="the node; left out, the one with the name of this host")


def run(arguments: argparse.Namespace) -> int:
    """Print the rules of one node, for IPv4 and IPv6, or that it has none."""
    configuration = load_file(arguments.file)
    node = choose_node(configuration, arguments.file, arguments.node, socket.gethostname())
    with_rules = [ruleset for ruleset in rulesets(configuration, node.name) if ruleset.rules]
    for ruleset in with_rules:
        print(f"# node {node.name}: {RESTORE_COMMANDS[ruleset.version]} --noflush")
        print(text(ruleset), end="")
    if not with_rules:
        print(f"# node {node.name} captures nothing and installs no rules")
    return EXIT_DONE
