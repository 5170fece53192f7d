"""``seamless reload`` has a running node read its configuration again; ``seamless diff`` says what that would change.

The comparison is made in this process, of the file and of the text that the daemon runs with, by the same functions
that the daemon uses.
"""

from __future__ import annotations

import argparse
from typing import Final

from seamless.config.load import load_file, load_text
from seamless.config.model import Configuration
from seamless.errors import EXIT_DONE, ConfigurationError, UsageError
from seamless.intercept.rule_changes import changes_rules, reasons_to_restart
from seamless.linux import control_socket
from seamless.node.change import Change, changes
from seamless.tools.status import add_socket_arguments
from seamless.tools.subcommands import VerbParsers, add_verb

RELOAD_DESCRIPTION = """\
Have the daemon of a node on this host read its configuration file again and apply what differs, as SIGHUP does. What
does not differ goes on: links, sessions, connections. What is taken away is reset.

Nothing is changed when the file cannot be used, or says something that a running node cannot change (its own key, name
or addresses): the problems are printed, and are in the log. The exit code is 0 when the file is in force, 3 when it
cannot be used, and 5 when no daemon answers.
"""

DIFF_DESCRIPTION = """\
Say what `seamless reload` would change on this node if its configuration were NEW, one difference a line. Nothing is
changed. The exit code is 0 when a reload would take the file, and 3 when it would not.

    seamless check new.conf && seamless diff new.conf
"""

RELOAD_TIMEOUT: Final = 90.0
"""Seconds to wait: the daemon waits for its privileged part for 30 s, twice at most, and reads large files."""


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommands reload and diff to the parser."""
    parser = add_verb(subparsers, "reload", reload, "have a node read its configuration again", RELOAD_DESCRIPTION)
    add_socket_arguments(parser)
    parser = add_verb(subparsers, "diff", diff, "say what a reload with another file would change", DIFF_DESCRIPTION)
    parser.add_argument("file", metavar="NEW", help="the other configuration")
    add_socket_arguments(parser)


def reload(arguments: argparse.Namespace) -> int:
    """Have the daemon reload; print what has changed, or raise the error that it answers with."""
    path = control_socket.find(arguments.node, arguments.socket)
    differences = control_socket.ask(path, {"ask": "reload"}, RELOAD_TIMEOUT)
    print("\n".join(differences) or "nothing differs")
    return EXIT_DONE


def diff(arguments: argparse.Namespace) -> int:
    """Print what differs; raise `ConfigurationError` when a reload would refuse the file."""
    new = load_file(arguments.file)
    answer = control_socket.ask(control_socket.find(arguments.node, arguments.socket), {"ask": "configuration"})
    if not answer["text"]:
        raise UsageError(f"node {answer['node']} was not started with a configuration file")
    old = load_text(answer["text"], f"the configuration of node {answer['node']}")
    change = changes(old, new, answer["node"])
    print(change)
    print(_summary(change, old, new, answer["node"]))
    reasons = [*change.needs_restart, *(() if change.needs_restart else reasons_to_restart(old, new, answer["node"]))]
    if reasons:
        raise ConfigurationError(f"{arguments.file}: a reload would refuse this: {'; '.join(reasons)}")
    return EXIT_DONE


def _summary(change: Change, old: Configuration, new: Configuration, node: str) -> str:
    """Return in one line what a reload does on this node."""
    if change.needs_restart:
        return f"on {node}: it needs a restart"
    parts = [
        f"{len(plans)} {'link' if len(plans) == 1 else 'links'} {verb}"
        for plans, verb in ((change.opened, "opened"), (change.closed, "closed"), (change.adjusted, "adjusted"))
        if plans
    ]
    if changes_rules(old, new, node):
        parts.append("its firewall rules change")
    return f"on {node}: {', '.join(parts) or 'no link and no firewall rule changes'}"
