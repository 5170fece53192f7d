"""The ``seamless`` command: parses the command line, runs a subcommand, and turns errors into exit codes.

Subcommands are modules beside this one. A `SeamlessError` is an error that a user can cause: its sentence goes to
standard error. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import seamless
from seamless.errors import EXIT_FAILED, ConfigurationError, SeamlessError
from seamless.tools import (
    check_command,
    connections_command,
    doctor_command,
    keys,
    lab_commands,
    measure_command,
    ping_command,
    reload_command,
    rules_command,
    status,
    trace_command,
)
from seamless.tools.subcommands import EXIT_CODES

DESCRIPTION = """\
seamless is an overlay network that carries unmodified TCP applications. The daemon of a node is a twistd command,
"twistd seamless"; this command makes keys, checks configurations, shows the firewall rules, has running nodes read
their configuration again, asks them what they do, and runs the lab.
"""

VERB_MODULES = (
    keys,
    check_command,
    rules_command,
    reload_command,
    status,
    connections_command,
    ping_command,
    trace_command,
    doctor_command,
    measure_command,
    lab_commands,
)

EXIT_INTERRUPTED = 130
"""What a shell expects of a program that ended by Ctrl-C: 128 and the number of SIGINT."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="seamless",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in VERB_MODULES:
        module.add_arguments(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the words ``argv`` (without the program's name) and return its exit code."""
    arguments = make_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        # These sentences begin with the file, and often the line: what an editor jumps to.
        print(error, file=sys.stderr)
        return error.exit_code
    except SeamlessError as error:
        print(f"seamless: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as head does. Python flushes once more at the end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def _version() -> str:
    return f"seamless {seamless.__version__}"


if __name__ == "__main__":
    sys.exit(main())
