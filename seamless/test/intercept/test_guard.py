"""What ``when unreachable refuse`` leaves in the firewall when the daemon is gone: as values, and with real packets."""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.node_rules import kept_rulesets, rulesets
from seamless.intercept.rule_matches import OWN_MARK
from seamless.linux import iptables
from seamless.linux.ruleset import KEPT_PREFIXES, IpVersion, Ruleset
from seamless.linux.sockopt import set_mark
from seamless.test.intercept.test_node_rules import configuration
from seamless.test.linux import test_iptables
from seamless.test.linux.namespaces import SKIP_WITHOUT_ROOT, Namespace

REFUSE = "intercept payload { tcp to 10.1.9.2 port 22, 8000-8099; on src; when unreachable refuse; }"
SSH = "intercept payload { tcp to 10.1.9.2 port 22; on src; when unreachable %s; }"
WHOLE = "intercept %s { tcp to 10.1.9.2 port 80; on src; when unreachable %s; }"
PORT = 22
USER = 65_534
GATEWAY, CLIENT, SERVER, EGRESS = "10.1.9.254", "10.1.9.1", "10.1.9.2", "10.1.1.2"


def kept(intercepts: str, node: str = "src", version: int = 4, user: int | None = None) -> list[tuple[str, str]]:
    """Return table and words of all rules that stay on a node."""
    found = kept_rulesets(configuration(intercepts), node, user)
    return [(rule.table, str(rule)) for one in found if one.version == version for rule in one.rules]


def decisions(intercepts: str, table: str = "filter") -> list[str]:
    """Return the rules that stay and name what is served, without those for the egress's own connections."""
    return [words for there, words in kept(intercepts) if there == table and " -d " in words and EGRESS not in words]


class ValueTests(SynchronousTestCase):
    """From a configuration to the rules that stay."""

    def test_payload(self) -> None:
        to = "-d 10.1.9.2/32 -p tcp"
        self.assertEqual(
            kept(REFUSE),
            [
                ("filter", "FORWARD -p tcp -m comment --comment seamless:src -j SEAMGUARD-src"),
                ("filter", "OUTPUT -p tcp -m comment --comment seamless:src -j SEAMGUARD-src"),
                ("filter", "SEAMGUARD-src -m mark --mark 0x1000/0x1000 -j RETURN"),
                ("filter", "SEAMGUARD-src -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"),
                ("filter", f"SEAMGUARD-src -s 10.1.1.2/32 {to} -j RETURN"),
                (
                    "filter",
                    f"SEAMGUARD-src {to} -m multiport --dports 22,8000:8099 -j REJECT --reject-with tcp-reset",
                ),
            ],
        )

    def test_the_user_of_the_daemon_is_left_out(self) -> None:
        _, output, *_ = kept(REFUSE, user=USER)
        self.assertIn(f"OUTPUT -p tcp -m owner ! --uid-owner {USER} ", output[1])

    def test_nothing_stays_of_what_may_go_direct(self) -> None:
        for intercepts in (SSH % "direct", WHOLE % ("local", "direct")):
            self.assertEqual(kept(intercepts), [])
        self.assertEqual(kept(REFUSE, "dst"), [], "only where it captures")
        self.assertEqual(kept(REFUSE, version=6), [])

    def test_a_node_does_not_refuse_what_it_serves(self) -> None:
        """Its egress dials there."""
        both = "intercept payload { tcp; when unreachable refuse; }"
        for node, own, other in (("src", "10.1.9.1/32", "10.1.9.2/32"), ("dst", "10.1.9.2/32", "10.1.9.1/32")):
            text = "\n".join(words for _, words in kept(both, node))
            self.assertIn(f"-d {other} -p tcp -j REJECT", text)
            self.assertNotIn(own, text)

    def test_only_what_its_own_interceptor_refuses(self) -> None:
        other = "intercept payload { tcp to 10.1.9.2 port 80; on src; when unreachable direct; }"
        self.assertEqual(
            decisions(SSH % "refuse" + other),
            ["SEAMGUARD-src -d 10.1.9.2/32 -p tcp -m multiport --dports 22 -j REJECT --reject-with tcp-reset"],
        )

    def test_whole_packets_stay_diverted_without_bypass(self) -> None:
        for mode, table in (("local", "filter"), ("router", "mangle")):
            queued = decisions(WHOLE % (mode, "refuse"), table)
            self.assertEqual(len(queued), 1)
            self.assertTrue(queued[0].startswith("SEAMQUEUE-src -s 10.1.9.1/32 -d 10.1.9.2/32"), queued)
            self.assertTrue(queued[0].endswith("-j NFQUEUE --queue-num 7400"), queued)
            own4, _ = rulesets(configuration(WHOLE % (mode, "refuse")), "src")
            self.assertEqual(own4.rules, ())

    def test_whole_packets_of_both_kinds(self) -> None:
        """What both name is diverted by the one that stands first: the other's chain lets it pass."""
        there = "intercept local { tcp to 10.1.9.2; on src; when unreachable direct; }"
        back = "intercept local { tcp to 10.1.9.1 port 80; on dst; when unreachable refuse; }"
        own4, _ = rulesets(configuration(there + back), "src")
        self.assertIn("--queue-num 7400 --queue-bypass", str(own4.rules[-1]))
        first, second = decisions(there + back)
        self.assertTrue(first.endswith("-j RETURN"), first)
        self.assertTrue(second.endswith("--sports 80 -j NFQUEUE --queue-num 7401"), second)


class NftTests(test_iptables.KindTestCase):
    """The rules that stay, in the kernel beside foreign ones."""

    intercepts = "intercept payload { tcp port 22; when unreachable refuse; }" + WHOLE % ("router", "refuse")

    def test_they_come_go_and_stay_by_themselves(self) -> None:
        known = configuration(self.intercepts)
        ours, staying = rulesets(known, "src"), kept_rulesets(known, "src")
        self.assertEqual({one.prefix for one in staying if one.rules}, set(KEPT_PREFIXES))
        before = self.saved()
        for _ in range(3):
            iptables.apply((*staying, *ours))
            self.assertTrue(iptables.is_installed((*staying, *ours)))
        foreign = [line for line in self.rules(self.saved()) if "SEAM" not in line or "-src2" in line]
        self.assertEqual(foreign, self.rules(before))
        self.assertTrue(iptables.sweep("src"))
        self.assertTrue(iptables.is_installed(staying))
        self.assertFalse(iptables.sweep("src"))
        self.assertTrue(iptables.sweep("src", KEPT_PREFIXES))
        self.assertEqual(self.rules(self.saved()), self.rules(before))
        self.assertFalse(iptables.sweep("src", KEPT_PREFIXES))

    def rules(self, lines: list[str]) -> list[str]:
        """Return the rules; a table that ours were in may stay, empty."""
        return [line for line in lines if line.startswith("[")]

    def test_an_empty_ruleset_takes_away_what_an_earlier_configuration_left(self) -> None:
        iptables.apply(kept_rulesets(configuration(self.intercepts), "src"))
        iptables.apply(kept_rulesets(configuration(SSH % "direct"), "src"))
        self.assertFalse(iptables.sweep("src", KEPT_PREFIXES))


class LegacyTests(NftTests):
    """The older kind."""

    kind = "legacy"


class GatewayTests(SynchronousTestCase):
    """A client and a server on either side of a gateway that has only the rules that stay."""

    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        self.client, self.gateway, self.server = (self.namespace() for _ in range(3))
        self.wire(self.client, "10.0.1.2/24", "10.0.1.1/24", "c0")
        self.wire(self.server, "10.0.2.2/24", "10.0.2.1/24", "s0")
        for address in (CLIENT, EGRESS):
            self.client.run("ip", "address", "add", f"{address}/32", "dev", "lo")
            self.gateway.run("ip", "route", "add", f"{address}/32", "via", "10.0.1.2")
        self.server.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        self.gateway.run("ip", "route", "add", f"{SERVER}/32", "via", "10.0.2.2")
        self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        with self.server.entered():
            self.listening = socket.create_server((SERVER, PORT))
        self.listening.settimeout(5)
        self.addCleanup(self.listening.close)

    def namespace(self) -> Namespace:
        made = Namespace()
        self.addCleanup(made.remove)
        return made

    def wire(self, host: Namespace, own: str, gateways: str, name: str) -> None:
        """Join a host to the gateway, by its default route."""
        self.gateway.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        for namespace, device, address in ((self.gateway, name, gateways), (host, "eth0", own)):
            namespace.run("ip", "address", "add", address, "dev", device)
            namespace.run("ip", "link", "set", device, "up")
        host.run("ip", "route", "add", "default", "via", gateways.partition("/")[0])

    def install(self, *rules: Ruleset) -> None:
        with self.gateway.entered():
            iptables.apply(rules)
            self.addCleanup(self.remove)

    def remove(self) -> None:
        with self.gateway.entered():
            iptables.sweep("src", KEPT_PREFIXES)

    def staying(self, user: int | None = None, intercepts: str = REFUSE) -> tuple[Ruleset, ...]:
        return kept_rulesets(configuration(intercepts), "src", user)

    def outcome(self, where: Namespace, *, source: str | None = None, mark: int | None = None) -> int:
        """Connect to the server; return the error, after 0 the server has the connection."""
        with where.entered():
            sock = socket.socket()
        return self.connected(sock, source, mark)

    def connected(self, sock: socket.socket, source: str | None = None, mark: int | None = None) -> int:
        """Connect a socket to the server; return as `outcome` does."""
        with sock:
            sock.settimeout(5)
            if source is not None:
                sock.bind((source, 0))
            if mark is not None:
                set_mark(sock, mark)
            error = sock.connect_ex((SERVER, PORT))
            if error == 0:
                self.listening.accept()[0].close()
            return error

    def test_openings_are_reset_from_this_host_and_from_those_behind_it(self) -> None:
        self.assertEqual(self.outcome(self.client), 0)
        self.assertEqual(self.outcome(self.gateway), 0)
        self.install(*self.staying())
        self.assertEqual(self.outcome(self.client), errno.ECONNREFUSED)
        self.assertEqual(self.outcome(self.gateway), errno.ECONNREFUSED)
        self.remove()
        self.assertEqual(self.outcome(self.client), 0)

    def test_the_daemons_own_connections_pass(self) -> None:
        self.install(*self.staying())
        self.assertEqual(self.outcome(self.gateway, mark=OWN_MARK), 0)

    def test_connections_of_the_daemons_user_pass(self) -> None:
        self.install(*self.staying(user=USER))
        self.assertEqual(self.outcome(self.gateway), errno.ECONNREFUSED)
        with self.gateway.entered():
            os.seteuid(USER)
            try:
                sock = socket.socket()
            finally:
                os.seteuid(0)
        self.assertEqual(self.connected(sock), 0)

    def test_what_the_egress_behind_this_gateway_dials_passes(self) -> None:
        self.install(*self.staying())
        self.assertEqual(self.outcome(self.client, source=EGRESS), 0)
        self.assertEqual(self.outcome(self.client, source=CLIENT), errno.ECONNREFUSED)

    def test_connections_that_stand_and_answers_go_on(self) -> None:
        """And so do those that the other side opens, whatever port it has."""
        with self.client.entered(), socket.create_connection((SERVER, PORT)) as before:
            accepted, _ = self.listening.accept()
            with accepted, socket.create_server((CLIENT, 2222)) as ours, self.server.entered():
                every = "intercept payload { tcp to 10.1.9.2; on src; when unreachable refuse; }"
                self.install(*self.staying(intercepts=every))
                before.sendall(b"still here")
                self.assertEqual(accepted.recv(100), b"still here")
                with socket.create_connection((CLIENT, 2222), timeout=5) as theirs, ours.accept()[0] as answering:
                    theirs.sendall(b"?")
                    self.assertEqual(answering.recv(1), b"?")
                    answering.sendall(b"!")
                    self.assertEqual(theirs.recv(1), b"!")

    def test_whole_packets_that_nobody_takes_are_dropped(self) -> None:
        """The queue's rule stays, and its packets do not go on when no daemon reads it."""
        self.gateway.run("ip", "address", "add", f"{CLIENT}/32", "dev", "lo")
        self.gateway.run("ip", "route", "del", f"{CLIENT}/32", "via", "10.0.1.2")
        for when, wanted in (("direct", 0), ("refuse", errno.EAGAIN)):
            text = f"intercept local {{ tcp to {SERVER} port {PORT}; on src; when unreachable {when}; }}"
            known = configuration(text)
            self.install(*kept_rulesets(known, "src"), *rulesets(known, "src"))
            with self.gateway.entered(), socket.socket() as sock:
                sock.settimeout(1)
                sock.bind((CLIENT, 0))
                self.assertEqual(sock.connect_ex((SERVER, PORT)), wanted, when)


class Versions(SynchronousTestCase):
    """IPv6 has the same rules."""

    def test_ipv6(self) -> None:
        every = "intercept payload { tcp; on src; when unreachable refuse; }"
        words = [words for _, words in kept(every, version=6)]
        self.assertIn("SEAMGUARD-src -d 2001:db8:2::/64 -p tcp -j REJECT --reject-with tcp-reset", words)
        versions: set[IpVersion] = {one.version for one in kept_rulesets(configuration(every), "src") if one.rules}
        self.assertEqual(versions, {4, 6})
