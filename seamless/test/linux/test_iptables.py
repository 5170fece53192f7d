"""Rules in the kernel: in namespaces of our own, with both kinds of iptables, and with real connections."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from seamless.errors import SeamlessError
from seamless.linux import iptables
from seamless.linux.ruleset import IP_VERSIONS, PREFIXES, IpVersion, Rule, Ruleset, chain_name
from seamless.linux.sockopt import original_destination, set_mark
from seamless.linux.system import program, run
from seamless.test.linux.namespaces import Namespace, NamespaceTestCase

PORT = 7401
MARK = 0x1000
CHAIN = "SEAMLESS-src"
COMMENT = ("-m", "comment", "--comment", "seamless:src")

FOREIGN = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [3:180]
:OUTPUT ACCEPT [0:0]
:THEIRS - [0:0]
[17:1020] -A INPUT -s 192.0.2.0/24 -m comment --comment "theirs, \\"quoted\\"" -j THEIRS
-A THEIRS -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [5:300]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:SEAMLESS-src2 - [0:0]
[4:240] -A OUTPUT -d 198.51.100.7/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.7:8080
-A OUTPUT -j SEAMLESS-src2
COMMIT
"""


def ruleset(version: IpVersion, *networks: str) -> Ruleset:
    """Return rules with every kind of match that the interceptors use."""
    diverts = [
        Rule("nat", CHAIN, ("-d", network, "-p", "tcp", *ports, "-j", "REDIRECT", "--to-ports", str(PORT)))
        for network in networks
        for ports in (("-m", "multiport", "--dports", "22,8000:8099"), ("-m", "multiport", "--dports", "5201"))
    ]
    return Ruleset(
        "src",
        version,
        (
            Rule("nat", "PREROUTING", ("-p", "tcp", *COMMENT, "-j", CHAIN)),
            Rule("nat", "OUTPUT", ("-p", "tcp", *COMMENT, "-j", CHAIN)),
            Rule("nat", CHAIN, ("-m", "mark", "--mark", f"{MARK:#x}/{MARK:#x}", "-j", "RETURN")),
            Rule(
                "nat", CHAIN, ("-p", "tcp", "-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN", "-j", "RETURN")
            ),
            *diverts,
        ),
    )


RULESETS = (ruleset(4, "10.1.9.2/32", "10.2.0.0/16"), ruleset(6, "2001:db8:2::/64"))


class KindTestCase(NamespaceTestCase):
    """One of Debian's two kinds of iptables, and another program's rules."""

    kind = "nft"
    foreign_rules: ClassVar[dict[str, str]] = {
        "iptables": FOREIGN,
        "ip6tables": "*nat\n:OUTPUT ACCEPT [2:160]\nCOMMIT\n",
    }

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        for tool in ("iptables", "ip6tables"):
            for verb in ("", "-save", "-restore"):
                (folder / f"{tool}{verb}").symlink_to(program(f"{tool}-{self.kind}{verb}"))
        self.patch(os, "environ", {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
        try:
            for tool, rules in self.foreign_rules.items():
                run([program(f"{tool}-restore"), "--counters"], input=rules)
        except SeamlessError as error:
            raise SkipTest(f"this kernel has no {self.kind} iptables: {error}") from None

    def saved(self) -> list[str]:
        """Return the whole firewall, with counters, without the lines that name program and time."""
        return [
            self.comparable(line)
            for tool in ("iptables", "ip6tables")
            for line in run([program(f"{tool}-{self.kind}-save"), "-c"]).splitlines()
            if not line.startswith("#")
        ]

    def comparable(self, line: str) -> str:
        """Return what a change of ours must not change.

        The older kind counts a chain's policy from zero after any change of its table by anyone.
        """
        return line.split(" [")[0] if self.kind == "legacy" and line.startswith(":") else line

    def foreign(self, chain: str = CHAIN) -> list[str]:
        """Return what is not ours."""
        return [line for line in self.saved() if chain + " " not in line + " "]


class NftTests(KindTestCase):
    """What is in the kernel after we installed and removed."""

    def test_foreign_rules_stay_identical(self) -> None:
        before = self.saved()
        self.assertIn("[17:1020]", "\n".join(before))
        self.assertFalse(iptables.is_installed(RULESETS))
        for _ in range(3):
            iptables.apply(RULESETS)
            self.assertTrue(iptables.is_installed(RULESETS))
            self.assertEqual(self.foreign(), before)
        ours = [line for line in self.saved() if CHAIN + " " in line + " "]
        # Per version two jumps and the chain, two rules that let pass, two for each network.
        self.assertEqual(len(ours), (3 + 2 + 4) + (3 + 2 + 2))
        self.assertTrue(iptables.sweep("src"))
        self.assertEqual(self.saved(), before)
        self.assertFalse(iptables.sweep("src"))
        self.assertEqual(self.saved(), before)

    def test_other_rulesets_of_the_same_owner_are_replaced(self) -> None:
        iptables.apply(RULESETS)
        smaller = (ruleset(4, "10.1.9.2/32"), Ruleset("src", 6))
        iptables.apply(smaller)
        self.assertEqual(iptables.lost(smaller), ())
        self.assertEqual(len(iptables.lost(RULESETS)), 6 + 6)

    def test_copies_made_by_others_are_swept(self) -> None:
        iptables.apply(RULESETS)
        run([program("iptables-restore"), "--noflush"], input=iptables.save(4))
        self.assertEqual(iptables.save(4).count(f'-A OUTPUT -p tcp -m comment --comment "seamless:src" -j {CHAIN}'), 2)
        iptables.sweep("src")
        self.assertEqual([line for line in self.saved() if CHAIN + " " in line + " "], [])

    def test_lost_rules_are_noticed(self) -> None:
        iptables.apply(RULESETS)
        run([program("iptables"), "-t", "nat", "-F", "OUTPUT"])
        (lost,) = iptables.lost(RULESETS)
        self.assertEqual((lost.table, lost.chain), ("nat", "OUTPUT"))
        run([program("iptables-restore")], input=FOREIGN)
        self.assertEqual(iptables.lost(RULESETS), RULESETS[0].rules)
        iptables.apply(RULESETS)
        self.assertTrue(iptables.is_installed(RULESETS))


class LegacyTests(NftTests):
    """The same with the older kind."""

    kind = "legacy"


class DivertTests(NamespaceTestCase):
    """Connections that the rules divert: from this host, and from one behind it."""

    addresses: ClassVar[dict[int, tuple[str, str, str, str]]] = {
        4: ("10.99.1.1", "10.99.1.2", "24", "10.2.3.4"),
        6: ("fd99::1", "fd99::2", "64", "2001:db8:2::4"),
    }

    def setUp(self) -> None:
        super().setUp()
        self.behind = Namespace()
        self.addCleanup(self.behind.remove)
        for own, others, prefix, _ in self.addresses.values():
            if ":" in own:
                for namespace, address in ((self.namespace, own), (self.behind, others)):
                    namespace.run("ip", "address", "add", f"{address}/{prefix}", "dev", "veth0", "nodad")
            else:
                self.namespace.join(self.behind, f"{own}/{prefix}", f"{others}/{prefix}")
        self.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for namespace, way in ((self.namespace, 1), (self.behind, 0)):
            for version, ends in self.addresses.items():
                namespace.run("ip", f"-{version}", "route", "add", "default", "via", ends[way])
        iptables.apply(RULESETS)

    def listener(self, version: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        listener = socket.create_server(("", PORT), family=family)
        self.addCleanup(listener.close)
        listener.settimeout(5)
        return listener

    def connect(self, address: tuple[str, int]) -> socket.socket:
        client = socket.create_connection(address, timeout=5)
        self.addCleanup(client.close)
        return client

    def accept(self, listener: socket.socket) -> socket.socket:
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        return accepted

    def check_output(self, version: int) -> None:
        far = self.addresses[version][3]
        listener = self.listener(version)
        client = self.connect((far, 8042))
        accepted = self.accept(listener)
        self.assertEqual(original_destination(accepted), (far, 8042))
        self.assertEqual(accepted.getsockname()[0], "127.0.0.1" if version == 4 else "::1")
        client.sendall(b"through")
        self.assertEqual(accepted.recv(100), b"through")

    def test_connections_of_this_host_over_ipv4(self) -> None:
        self.check_output(4)
        self.assertEqual(self.namespace.run("sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip(), "0")

    def test_connections_of_this_host_over_ipv6(self) -> None:
        self.check_output(6)

    def check_prerouting(self, version: int) -> None:
        own, others, _, far = self.addresses[version]
        listener = self.listener(version)
        with self.behind.entered():
            self.connect((far, 22))
        accepted = self.accept(listener)
        self.assertEqual(original_destination(accepted), (far, 22))
        self.assertEqual(accepted.getsockname()[0], own)
        self.assertEqual(accepted.getpeername()[0], others)

    def test_connections_of_hosts_behind_over_ipv4(self) -> None:
        self.check_prerouting(4)

    def test_connections_of_hosts_behind_over_ipv6(self) -> None:
        self.check_prerouting(6)

    def test_a_listener_for_both_versions(self) -> None:
        listener = socket.create_server(("", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        self.addCleanup(listener.close)
        listener.settimeout(5)
        self.connect(("10.2.3.4", 22))
        self.assertEqual(original_destination(self.accept(listener)), ("10.2.3.4", 22))

    def test_a_straight_connection_has_its_own_address(self) -> None:
        for version, own in ((4, "127.0.0.1"), (6, "::1")):
            listener = self.listener(version)
            self.connect((own, PORT))
            self.assertEqual(original_destination(self.accept(listener)), (own, PORT))

    def test_other_ports_and_our_own_connections_are_left_alone(self) -> None:
        far = self.addresses[4][3]
        self.behind.run("ip", "address", "add", f"{far}/32", "dev", "lo")
        with self.behind.entered():
            servers = {port: socket.create_server(("", port)) for port in (22, 23)}
        for server in servers.values():
            self.addCleanup(server.close)
            server.settimeout(5)
        self.connect((far, 23))
        self.assertEqual(self.accept(servers[23]).getsockname()[0], far)
        own = socket.socket()
        self.addCleanup(own.close)
        set_mark(own, MARK)
        own.settimeout(5)
        own.connect((far, 22))
        self.assertEqual(self.accept(servers[22]).getsockname()[0], far)

    def test_connections_from_before_go_on(self) -> None:
        far = self.addresses[4][3]
        iptables.sweep("src")
        self.behind.run("ip", "address", "add", f"{far}/32", "dev", "lo")
        with self.behind.entered():
            server = socket.create_server(("", 22))
        self.addCleanup(server.close)
        server.settimeout(5)
        client = self.connect((far, 22))
        accepted = self.accept(server)
        iptables.apply(RULESETS)
        self.namespace.run("conntrack", "-F")
        for end, other in ((client, accepted), (accepted, client)):
            end.sendall(b"still here")
            other.settimeout(5)
            self.assertEqual(other.recv(100), b"still here")


class ProgramsTests(SynchronousTestCase):
    """How many programs are run: each takes a processor from the links for some milliseconds."""

    def test_two_for_each_ip_version(self) -> None:
        calls: list[tuple[str, str]] = []

        def run(argv: list[str], input: str | None = None) -> str:
            calls.append((argv[0].rpartition("/")[2], input or ""))
            return ""

        self.patch(iptables, "_run", run)
        iptables.apply(
            Ruleset(
                "test",
                version,
                (Rule("filter", "OUTPUT", ("-j", chain_name("test", prefix))),
                 Rule("filter", chain_name("test", prefix), ("-j", "RETURN"))),
                prefix,
            )
            for prefix in PREFIXES
            for version in IP_VERSIONS
        )  # fmt: skip
        self.assertEqual(
            [name for name, _ in calls], ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"]
        )
        for _, text in calls[1::2]:
            places = [text.index(f":{chain_name('test', prefix)} ") for prefix in PREFIXES]
            self.assertEqual(places, sorted(places), "in the order in which they were given")
