"""What is promised in figures beyond the main job, as tables: ``python bench/beyond.py WHAT ...``; nothing is all.

    paper        the conditions of the paper that had the idea, and its ratios over TCP
    gigabit      one connection over links of 1.2 Gb/s, and what limits it
    keystroke    how much a bulk transfer delays a keystroke
    relay        how long a receiver waits when the relay on the way dies
    compared     sshuttle, WireGuard and kcptun on the same wires

    --seconds N  of each iperf3 (default 10)
    --check      end with exit code 1 if a target is missed

Each builds a lab of its own. Every figure stands beside what it is compared with, measured in the same run. The
machine should do nothing else: a bed of four nodes needs two processors for itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Final

import compared
import gigabit
import keystroke
import paper
import relay
from watched import Verdicts

from seamless.errors import SeamlessError

WHAT: Final[dict[str, Callable[[float, Verdicts], None]]] = {
    "paper": paper.run,
    "gigabit": gigabit.run,
    "keystroke": keystroke.run,
    "relay": relay.run,
    "compared": compared.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--check", action="store_true")
    words = parser.parse_args()
    if unknown := set(words.what) - set(WHAT):
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(WHAT)}")
    verdicts = Verdicts()
    try:
        for name in words.what or WHAT:
            print(f"{name}:", flush=True)
            WHAT[name](words.seconds, verdicts)
    except SeamlessError as error:
        print(f"beyond: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if words.check and verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
