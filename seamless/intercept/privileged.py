"""The program that keeps root for the interceptors: ``python -m seamless.intercept.privileged``.

It reads the configuration file itself and works out the rules of its node from that; from the daemon it takes words
only (`seamless.linux.privileged`). It imports no Twisted: it shall be small.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE, ConfigurationError, SeamlessError
from seamless.intercept.rules import rulesets
from seamless.linux.privileged import keep_rules, report_failure


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the rules of a node until the daemon is gone; return the exit code."""
    parser = argparse.ArgumentParser(prog="seamless.intercept.privileged", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, as the daemon has it")
    parser.add_argument("--node", required=True, metavar="NAME", help="the node whose rules to keep")
    parser.add_argument("--channel", required=True, type=int, metavar="DESCRIPTOR", help="a socket to the daemon")
    arguments = parser.parse_args(argv)
    with socket.socket(fileno=arguments.channel) as channel:
        try:
            configuration = load_file(arguments.config)
            if arguments.node not in configuration.nodes:
                raise ConfigurationError(f"{arguments.config}: there is no node {arguments.node}")
            keep_rules(channel, arguments.node, rulesets(configuration, arguments.node))
        except SeamlessError as error:
            report_failure(channel, error)
            return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
