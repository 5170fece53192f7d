"""Firewall rules on hosts of the bed that let everything pass, and count it."""

from __future__ import annotations

import re

from seamless.test.lab.bedtest import BedTestCase

TOOLS = ("iptables", "ip6tables")


class CountingTestCase(BedTestCase):
    """Counts packets: one rule for a host and a chain."""

    def count(self, host: str, chain: str, *match: str, tools: tuple[str, ...] = TOOLS) -> None:
        """Count what matches from now on."""
        for tool in tools:
            rule = [chain, *match, "-m", "comment", "--comment", "counted"]
            self.lab.run(host, [tool, "-I", *rule])
            self.addCleanup(self.lab.run, host, [tool, "-D", *rule])

    def counted(self, host: str, chain: str) -> int:
        """Return how many there were."""
        shown = "".join(self.lab.run(host, [f"{tool}-save", "-c"]).stdout for tool in TOOLS)
        counts = re.findall(rf"^\[(\d+):\d+\] -A {chain} .*counted", shown, re.MULTILINE)
        self.assertEqual(len(counts), len(TOOLS))
        return sum(map(int, counts))
