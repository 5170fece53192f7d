"""From a configuration to the rules of a node."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.intercept.node_rules import capture_addresses, rulesets
from seamless.linux.ruleset import Ruleset

NODES = """
overlay lab { }
node src { address 10.1.1.1; serves 10.1.9.1, 2001:db8:1::/64; key "7QF4GWn94NXtQcWsLDWIg7WfmWYCV6jslXfYjrwAiLA10Q=="; }
node dst { address 10.1.1.2; serves 10.1.9.2, 2001:db8:2::/64; key "7QGSN9xvXk+7c72Uz+7fxELAE3iMR/ChZQMgkuaqnRhSoQ=="; }
link src dst { }
"""


COMMENT = "-m comment --comment seamless:src"


def configuration(intercepts: str) -> Configuration:
    return load_text(NODES + intercepts, "test.conf")


def lines(ruleset: Ruleset) -> list[str]:
    """Return the rules in the owner's chain that divert."""
    return [" ".join(rule.arguments) for rule in ruleset.rules if "REDIRECT" in rule.arguments]


class PayloadTests(SynchronousTestCase):
    """The payload interceptor's rules."""

    def test_one_destination(self) -> None:
        ipv4, ipv6, *_ = rulesets(
            configuration("intercept payload { tcp to 10.1.9.2 port 22, 8000-8099; connect early; }"), "src"
        )
        self.assertEqual(
            [(rule.table, str(rule)) for rule in ipv4.rules],
            [
                ("nat", "PREROUTING -p tcp -m comment --comment seamless:src -j SEAMLESS-src"),
                ("nat", "OUTPUT -p tcp -m comment --comment seamless:src -j SEAMLESS-src"),
                ("nat", "SEAMLESS-src -m mark --mark 0x1000/0x1000 -j RETURN"),
                ("nat", "SEAMLESS-src -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"),
                (
                    "nat",
                    "SEAMLESS-src -d 10.1.9.2/32 -p tcp -m multiport --dports 22,8000:8099 -j REDIRECT --to-ports 7401",
                ),
                ("filter", f"INPUT -p tcp -m tcp --dport 7401 {COMMENT} -j SEAMLESS-src"),
                (
                    "filter",
                    "SEAMLESS-src -p tcp -m tcp --dport 7401 -m addrtype --dst-type LOCAL "
                    "-m conntrack ! --ctstate DNAT -j REJECT --reject-with tcp-reset",
                ),
            ],
        )
        self.assertEqual(ipv6, Ruleset("src", 6))

    def test_everything_that_others_serve(self) -> None:
        for name, own4, own6 in (("src", "10.1.9.2/32", "2001:db8:2::/64"), ("dst", "10.1.9.1/32", "2001:db8:1::/64")):
            ipv4, ipv6, *_ = rulesets(configuration("intercept payload { tcp; }"), name)
            self.assertEqual(lines(ipv4), [f"-d {own4} -p tcp -j REDIRECT --to-ports 7401"])
            self.assertEqual(lines(ipv6), [f"-d {own6} -p tcp -j REDIRECT --to-ports 7401"])

    def test_a_node_does_not_capture_what_it_serves(self) -> None:
        both = configuration("intercept payload { tcp to 10.1.9.1, 10.1.9.2 port 22; }")
        for name, other in (("src", "10.1.9.2/32"), ("dst", "10.1.9.1/32")):
            ipv4, *_ = rulesets(both, name)
            self.assertEqual(lines(ipv4), [f"-d {other} -p tcp -m multiport --dports 22 -j REDIRECT --to-ports 7401"])

    def test_only_where_it_is_on(self) -> None:
        only_src = configuration("intercept payload { tcp; on src; }")
        self.assertEqual(rulesets(only_src, "dst"), (Ruleset("dst", 4), Ruleset("dst", 6)))
        self.assertEqual(capture_addresses(only_src, "dst"), ())

    def test_many_ports_take_many_rules(self) -> None:
        ports = [str(port) for port in range(100, 114)]
        ipv4, *_ = rulesets(
            configuration(f"intercept payload {{ tcp to 10.1.9.2 port {', '.join(ports)}, 200-210, 7; }}"), "src"
        )
        self.assertEqual(
            [line.split("--dports ")[1].split()[0] for line in lines(ipv4)], [",".join(ports), "200:210,7"]
        )

    def test_every_port_in_words(self) -> None:
        ipv4, *_ = rulesets(configuration("intercept payload { tcp to 10.1.9.2 port 1-65535; }"), "src")
        self.assertEqual(
            lines(ipv4), ["-d 10.1.9.2/32 -p tcp -m multiport --dports 1:65535 -j REDIRECT --to-ports 7401"]
        )

    def test_where_to_listen(self) -> None:
        both = configuration("intercept payload { tcp; }")
        self.assertEqual(capture_addresses(both, "src"), (("0.0.0.0", 7401), ("::", 7401)))
        ipv4 = configuration("intercept payload { tcp to 10.1.9.2; }")
        self.assertEqual(capture_addresses(ipv4, "src"), (("0.0.0.0", 7401),))

    def test_where_to_listen_as_configured(self) -> None:
        text = NODES.replace("serves 10.1.9.1", "capture at 127.0.0.1, 10.1.9.1 port 9401; serves 10.1.9.1")
        both = load_text(text + "intercept payload { tcp; }", "test.conf")
        self.assertEqual(capture_addresses(both, "src"), (("127.0.0.1", 9401), ("10.1.9.1", 9401), ("::", 9401)))
        ipv4, ipv6, *_ = rulesets(both, "src")
        self.assertEqual(lines(ipv4), ["-d 10.1.9.2/32 -p tcp -j REDIRECT --to-ports 9401"])
        for ruleset in (ipv4, ipv6):
            (refused,) = [str(rule) for rule in ruleset.rules if "REJECT" in rule.arguments]
            self.assertIn("--dport 9401 -m addrtype --dst-type LOCAL -m conntrack ! --ctstate DNAT", refused)

    def test_the_capture_port_of_another_node(self) -> None:
        text = NODES.replace("serves 10.1.9.1", "capture port 9401; serves 10.1.9.1")
        loaded = load_text(text + "intercept payload { tcp; }", "test.conf")
        self.assertEqual(capture_addresses(loaded, "src"), (("0.0.0.0", 9401), ("::", 9401)))
        self.assertEqual(capture_addresses(loaded, "dst"), (("0.0.0.0", 7401), ("::", 7401)))

    def test_an_unknown_node(self) -> None:
        with self.assertRaises(KeyError):
            rulesets(configuration("intercept payload { tcp; }"), "nobody")
