"""``seamless check FILE``: print all problems of a configuration, before it is copied to every host."""

from __future__ import annotations

import argparse

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE
from seamless.tools.subcommands import VerbParsers, add_verb

DESCRIPTION = """\
Read a configuration and say everything that is wrong with it: words that the language does not have, with what was
expected in their place, and what does not fit together, like a link to an unknown node or two nodes that serve the
same address. Nothing is started or changed.

Problems go to standard error as FILE:LINE:COLUMN: SENTENCE, one a line. The exit code is 0 for a good file and 3
for one with problems.
"""


def add_arguments(subparsers: VerbParsers) -> None:
    """Add the subcommand check to the parser."""
    parser = add_verb(subparsers, "check", run, "say what is wrong with a configuration", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="the configuration")


def run(arguments: argparse.Namespace) -> int:
    """Print one line if the configuration is valid; else raise `ConfigurationError` with all its problems."""
    configuration = load_file(arguments.file)
    parts = [
        _count(len(configuration.nodes), "node"),
        _count(len(configuration.links), "link"),
        _count(len(configuration.intercepts), "interceptor"),
    ]
    print(f"{arguments.file}: {', '.join(parts)}: good")
    return EXIT_DONE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
