"""The rules that hold SYNs, as values, and in the kernel beside foreign ones."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.node_rules import rulesets
from seamless.intercept.payload.hold_rules import MARKS, hold_queues
from seamless.intercept.rule_matches import OWN_MARK
from seamless.linux.held_syns import Outcome
from seamless.linux.ruleset import HOLD_PREFIX, Ruleset
from seamless.test.intercept.test_node_rules import configuration

SSH = "intercept payload { tcp to 10.1.9.2 port 22; on src; connect %s; }"


def holding(intercepts: str, node: str = "src", user: int | None = None) -> list[Ruleset]:
    """Return the rulesets that hold SYNs on a node."""
    return [one for one in rulesets(configuration(intercepts), node, user) if one.prefix == HOLD_PREFIX]


class ValueTests(SynchronousTestCase):
    def test_confirmed(self) -> None:
        (ruleset,) = holding(SSH % "confirmed")
        queues = hold_queues("src")
        self.assertEqual(
            [(rule.table, str(rule)) for rule in ruleset.rules],
            [
                ("mangle", "PREROUTING -p tcp -m comment --comment seamless:src -j SEAMHOLD-src"),
                ("mangle", "OUTPUT -p tcp -m comment --comment seamless:src -j SEAMHOLD-src"),
                ("mangle", "SEAMHOLD-src -m mark --mark 0x1000/0x1000 -j RETURN"),
                ("mangle", "SEAMHOLD-src -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"),
                (
                    "mangle",
                    "SEAMHOLD-src -d 10.1.9.2/32 -p tcp -m multiport --dports 22 -m conntrack --ctstate NEW "
                    "-j MARK --set-xmark 0x1000/0x1000",
                ),
                (
                    "mangle",
                    "SEAMHOLD-src -d 10.1.9.2/32 -p tcp -m multiport --dports 22 -m conntrack --ctstate NEW "
                    f"-j NFQUEUE --queue-balance {queues[0]}:{queues[-1]} --queue-bypass",
                ),
                ("filter", "FORWARD -p tcp -m comment --comment seamless:src -j SEAMHOLD-src"),
                ("filter", "OUTPUT -p tcp -m comment --comment seamless:src -j SEAMHOLD-src"),
                *(
                    ("filter", f"SEAMHOLD-src -p tcp -m mark --mark {mark} -j REJECT --reject-with {answer}")
                    for mark, answer in (
                        ("0x2003", "tcp-reset"),
                        ("0x2004", "icmp-port-unreachable"),
                        ("0x2005", "icmp-host-unreachable"),
                        ("0x2006", "icmp-net-unreachable"),
                        ("0x2007", "icmp-admin-prohibited"),
                    )
                ),
            ],
        )

    def test_what_fails_is_not_redirected(self) -> None:
        own4, *_ = rulesets(configuration(SSH % "confirmed"), "src")
        self.assertIn("SEAMLESS-src -m mark --mark 0x2000/0xfffffff0 -j RETURN", [str(rule) for rule in own4.rules])

    def test_both_ip_versions(self) -> None:
        versions = [one.version for one in holding("intercept payload { tcp; on src; }")]
        self.assertEqual(versions, [4, 6], "learned, which is the default, holds too")

    def test_early_holds_nothing(self) -> None:
        self.assertEqual(holding(SSH % "early"), [])
        own4, *_ = rulesets(configuration(SSH % "early"), "src")
        self.assertNotIn("0x2000", "\n".join(map(str, own4.rules)))

    def test_only_what_its_own_interceptor_holds(self) -> None:
        other = "intercept payload { tcp to 10.1.9.2 port 80; on src; connect early; }"
        (ruleset,) = holding(SSH % "learned" + other)
        queued = [str(rule) for rule in ruleset.rules if "NFQUEUE" in str(rule)]
        self.assertEqual(len(queued), 1)
        self.assertIn("--dports 22 ", queued[0])

    def test_the_user_of_the_daemon_is_left_out(self) -> None:
        (ruleset,) = holding(SSH % "confirmed", user=65_534)
        self.assertIn("-m owner ! --uid-owner 65534", str(ruleset.rules[1]))

    def test_what_nobody_decides_about_goes_as_configured(self) -> None:
        for when, mark in (("direct", "0x1000/0x1000"), ("refuse", "0x2003/0xffffffff")):
            (ruleset,) = holding(SSH % f"confirmed; when unreachable {when}")
            marked = [str(rule) for rule in ruleset.rules if "--set-xmark" in str(rule)]
            self.assertEqual([words.split()[-1] for words in marked], [mark])

    def test_the_queues_are_its_own(self) -> None:
        """Those of whole packets count from 7400."""
        queues = [hold_queues(name) for name in ("src", "dst", "r1", "r2")]
        self.assertEqual(len({queue for several in queues for queue in several}), 4 * len(queues[0]))
        self.assertTrue(all(0x8000 <= queue <= 0xFFFF for several in queues for queue in several))

    def test_marks_differ(self) -> None:
        """Each failure has a mark of its own, which no other rule takes for ours."""
        bits = [mark for mark, _ in MARKS.values()]
        self.assertEqual(len(set(bits)), len(bits))
        self.assertEqual(MARKS[Outcome.PASS][0], 0)
        for outcome, (mark, _) in MARKS.items():
            self.assertEqual(bool(mark & OWN_MARK), outcome == Outcome.NATIVE)
