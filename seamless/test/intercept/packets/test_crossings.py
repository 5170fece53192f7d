"""Both ends agree: what one captures for another, the other releases, and the rules say the same."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.node_rules import capture_addresses, rulesets
from seamless.intercept.packets.crossings import FIRST_QUEUE, crossings, packet_queues
from seamless.test.intercept.packets.in_namespaces import configuration


def lines(text: str, node: str, version: int = 4) -> list[str]:
    """Return the rules that send packets aside, without where to."""
    ruleset = rulesets(configuration(text), node)[0 if version == 4 else 1]
    return [str(rule).partition(" -j NFQUEUE ")[0] for rule in ruleset.rules if "NFQUEUE" in rule.arguments]


class RuleTests(SynchronousTestCase):
    def test_local(self) -> None:
        ipv4, ipv6 = rulesets(configuration(), "a")
        self.assertEqual(
            [(rule.table, str(rule)) for rule in ipv4.rules],
            [
                ("filter", "OUTPUT -m comment --comment seamless:a -j SEAMLESS-a"),
                ("filter", "SEAMLESS-a -m mark --mark 0x1000/0x1000 -j RETURN"),
                ("filter", "SEAMLESS-a -s 10.1.1.1/32 -p udp -m udp --sport 7400 -j RETURN"),
                (
                    "filter",
                    "SEAMLESS-a -s 10.1.9.1/32 -d 10.1.9.2/32 -p tcp -m multiport --dports 22,8000:8099"
                    " -j NFQUEUE --queue-num 7400 --queue-bypass",
                ),
                (
                    "filter",
                    "SEAMLESS-a -s 10.1.9.1/32 -d 10.1.9.2/32 -p udp -m multiport --dports 53"
                    " -j NFQUEUE --queue-num 7401 --queue-bypass",
                ),
            ],
        )
        self.assertEqual(len(ipv6.rules), 3)

    def test_answers(self) -> None:
        """The serving side needs no word of its own."""
        text = "intercept local { tcp to 10.1.9.2 port 22; on a; }"
        self.assertEqual(lines(text, "b"), ["SEAMLESS-b -s 10.1.9.2/32 -d 10.1.9.1/32 -p tcp -m multiport --sports 22"])
        self.assertEqual(lines(text, "c"), [])

    def test_router(self) -> None:
        ipv4, _ = rulesets(configuration("intercept router { udp to 10.1.9.2 port 53; on a; }"), "a")
        self.assertEqual(
            {(rule.table, rule.chain) for rule in ipv4.rules}, {("mangle", "POSTROUTING"), ("mangle", "SEAMLESS-a")}
        )
        self.assertIn("SEAMLESS-a -m conntrack --ctstate UNTRACKED -j RETURN", [str(rule) for rule in ipv4.rules])

    def test_any_protocol_has_tcp_first(self) -> None:
        text = "intercept router { ip to 10.1.9.2; on a; }"
        self.assertEqual(
            lines(text, "a"),
            ["SEAMLESS-a -s 10.1.9.1/32 -d 10.1.9.2/32 -p tcp", "SEAMLESS-a -s 10.1.9.1/32 -d 10.1.9.2/32"],
        )

    def test_they_always_bypass(self) -> None:
        for node in ("a", "b"):
            for ruleset in rulesets(configuration(), node):
                for rule in ruleset.rules:
                    self.assertEqual("NFQUEUE" in rule.arguments, "--queue-bypass" in rule.arguments)

    def test_payload_beside_it(self) -> None:
        text = "intercept local { tcp to 10.1.9.2 port 22; } intercept payload { tcp to 10.1.9.2 port 80; }"
        ipv4, *_ = rulesets(configuration(text), "a")
        self.assertEqual({rule.table for rule in ipv4.rules}, {"nat", "filter"})
        self.assertEqual(len(capture_addresses(configuration(text), "a")), 1)
        self.assertEqual(capture_addresses(configuration(), "a"), ())


class QueueTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        queues = packet_queues(configuration(), "a")
        self.assertEqual(
            [(queue.number, queue.peer, queue.is_tcp, queue.super_packets) for queue in queues],
            [(FIRST_QUEUE, "b", True, True), (FIRST_QUEUE + 1, "b", False, False)],
        )

    def test_each_peer_has_its_own(self) -> None:
        queues = packet_queues(configuration("intercept local { tcp port 22; on a; }"), "a")
        self.assertEqual([queue.peer for queue in queues], ["b", "c"])

    def test_what_is_not_recovered_is_not_super(self) -> None:
        text = "intercept local { tcp to 10.1.9.2 port 22; on a; recovery none; }"
        (queue,) = packet_queues(configuration(text), "a")
        self.assertFalse(queue.super_packets or queue.is_recovered)

    def test_nothing_without_interceptors(self) -> None:
        self.assertEqual(packet_queues(configuration("intercept payload { tcp; }"), "a"), ())


class CrossingTests(SynchronousTestCase):
    def test_both_ends_name_the_same_addresses(self) -> None:
        """A rule is for a part of what the peer serves, never for more."""
        text = "intercept local { tcp to 2001:db8:2:0:1::/80, 10.1.9.2; on a; }"
        there = crossings(configuration(text), "a", "b")
        back = crossings(configuration(text), "b", "a")
        self.assertEqual(
            [[str(network) for network in one.destination] for one in there], [["2001:db8:2:0:1::/80", "10.1.9.2/32"]]
        )
        self.assertEqual([one.source for one in back], [one.destination for one in there])
        self.assertEqual([one.destination for one in back], [one.source for one in there])

    def test_a_node_that_serves_nothing_exchanges_nothing(self) -> None:
        text = "intercept local { tcp; }"
        for one, other in (("a", "r"), ("r", "a")):
            with_relay = configuration(
                text
                + 'node r { address 10.1.1.9; key "7QFA7CxEj4NLphv7kBBoR8C48hAdET0jTA2Ffw8aA3Gq1w=="; } link a r { }'
            )
            self.assertEqual(crossings(with_relay, one, other), ())
