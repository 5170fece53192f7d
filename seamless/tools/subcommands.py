"""Adds a subcommand to the parser of the ``seamless`` command: name, one-line help, description, function."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

VerbParsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What ``ArgumentParser.add_subparsers`` returns; argparse has no public name for it."""

EXIT_CODES = """\
exit codes:
  0  done
  1  failed while running
  2  the command was called with the wrong words
  3  a configuration or key file that cannot be used
  4  missing privilege or kernel feature
  5  a daemon or a peer does not answer
"""


def add_verb(
    subparsers: VerbParsers, name: str, run: Callable[[argparse.Namespace], int], summary: str, description: str
) -> argparse.ArgumentParser:
    """Add a subcommand and return its parser; ``run`` takes the parsed arguments and returns the exit code."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
