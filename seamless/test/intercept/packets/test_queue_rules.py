"""The rules of ``intercept local`` and ``intercept router`` in the kernel, beside foreign ones, by both iptables."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from seamless.intercept.node_rules import rulesets
from seamless.linux import iptables
from seamless.linux.system import program, run
from seamless.test.intercept.packets.in_namespaces import LOCAL, NODES, configuration
from seamless.test.linux import test_iptables
from seamless.test.tools.command import seamless

CHAIN = "SEAMLESS-a"
ROUTER = LOCAL.replace("intercept local", "intercept router")

FOREIGN = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [3:180]
:OUTPUT ACCEPT [0:0]
:SEAMLESS-a2 - [0:0]
[17:1020] -A OUTPUT -s {network} -m comment --comment "theirs, \\"quoted\\"" -j SEAMLESS-a2
-A OUTPUT -p tcp -m tcp --dport 22 -j NFQUEUE --queue-num 7400 --queue-bypass
COMMIT
*mangle
:PREROUTING ACCEPT [5:300]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [7:420]
:THEIRS - [0:0]
[4:240] -A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A POSTROUTING -j THEIRS
-A THEIRS -m mark --mark 0x2000/0x2000 -j RETURN
COMMIT
"""


class NftTests(test_iptables.KindTestCase):
    """The newer kind."""

    foreign_rules: ClassVar[dict[str, str]] = {
        "iptables": FOREIGN.format(network="192.0.2.0/24"),
        "ip6tables": FOREIGN.format(network="2001:db8:9::/48"),
    }

    def thrice_and_twice(self, intercepts: str) -> None:
        """Install three times and remove two times: one copy, then none, and the rest as it was, to the byte."""
        ours = rulesets(configuration(intercepts), "a")
        before = self.saved()
        self.assertIn("[17:1020]", "\n".join(before))
        installed = []
        for _ in range(3):
            iptables.apply(ours)
            self.assertTrue(iptables.is_installed(ours))
            self.assertEqual(self.foreign(CHAIN), before)
            installed.append([line for line in self.saved() if line not in before])
        chains = {(ruleset.version, rule.table) for ruleset in ours for rule in ruleset.rules}
        self.assertEqual(len(installed[0]), sum(len(ruleset.rules) for ruleset in ours) + len(chains))
        self.assertEqual(installed, [installed[0]] * 3)
        self.assertTrue(iptables.sweep("a"))
        self.assertEqual(self.saved(), before)
        self.assertFalse(iptables.sweep("a"))
        self.assertEqual(self.saved(), before)

    def test_local(self) -> None:
        self.thrice_and_twice(LOCAL)

    def test_router(self) -> None:
        self.thrice_and_twice(ROUTER)

    def test_both(self) -> None:
        self.thrice_and_twice(LOCAL + "intercept router { tcp to 10.1.9.2 port 443; on a; }")

    def test_what_is_printed_is_what_is_installed(self) -> None:
        file = Path(self.mktemp()).absolute()
        for text in (LOCAL, ROUTER):
            file.write_text(NODES + text)
            iptables.apply(rulesets(configuration(text), "a"))
            installed = self.saved()
            iptables.sweep("a")
            printed = seamless("rules", str(file), "--node", "a").stdout
            ipv4, title, ipv6 = printed.partition("# node a: ip6tables-restore --noflush\n")
            self.assertTrue(title, printed)
            for tool, rules in (("iptables", ipv4), ("ip6tables", ipv6)):
                run([program(f"{tool}-restore"), "--noflush"], input=rules)
            self.assertEqual(self.saved(), installed)
            iptables.sweep("a")


class LegacyTests(NftTests):
    """The older kind."""

    kind = "legacy"
