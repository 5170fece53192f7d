"""Blocks that can be read but not used: what is missing, given twice, or makes no sense by itself."""

from __future__ import annotations

from seamless.config.load import ConfigurationProblems, load_text
from seamless.test.config.small import HOSTS, WIRE, A, B, ComplaintCase, key


class Overlays(ComplaintCase):
    def said(self, text: str) -> str:
        return str(self.assertRaises(ConfigurationProblems, load_text, text, "t.conf"))

    def test_no_overlay(self) -> None:
        self.assertEqual(
            self.said("# nothing but a comment\n"),
            "t.conf:1:1: there is no overlay block: add `overlay NAME { }`",
        )

    def test_a_broken_overlay_is_not_called_missing(self) -> None:
        self.assertEqual(self.said("overlay x { hello; }"), "t.conf:1:18: expected a time such as 100 ms, found ';'")

    def test_second_overlay(self) -> None:
        self.assert_complaints(
            ["overlay x { }"], "2:1: there is an overlay block already: one file describes one overlay"
        )

    def test_dead_interval_under_two_hellos(self) -> None:
        self.assertEqual(
            self.said("overlay x { dead 199 ms; }"),
            "t.conf:1:13: dead must be at least twice hello: write `dead 300 ms;` for three hellos",
        )
        self.assertEqual(
            self.said("overlay x { hello 200 ms; }"),
            "t.conf:1:13: dead must be at least twice hello: write `dead 600 ms;` for three hellos",
        )
        self.assertEqual(load_text("overlay x { hello 200 ms; dead 400 ms; }", "t.conf").overlay.dead_interval, 0.4)

    def test_intervals_that_a_hello_cannot_carry(self) -> None:
        self.assertEqual(
            self.said("overlay x { hello 100 us; dead 66 s; give up 70 s; }"),
            "t.conf:1:13: hello must be from 1 ms to 65.535 s\nt.conf:1:27: dead must be from 1 ms to 65.535 s",
        )

    def test_memory_that_makes_no_window(self) -> None:
        for size in ("8191 KiB", "65 GiB"):
            said = self.said(f"overlay x {{ }} node a {{ address 10.0.0.1; memory {size}; key {key('a')}; }}")
            self.assertIn("bytes cannot be used: write one from 8 MiB to 64 GiB", said)
            self.assertTrue(said.startswith("t.conf:1:42: a memory of "), said)

    def test_operators(self) -> None:
        names = "overlay x { operators a, c, a; } " + " ".join((A, B))
        self.assertEqual(
            self.said(names).splitlines(),
            [
                "t.conf:1:26: node c is not declared: add a node block for it or correct the name",
                "t.conf:1:29: a is in the list twice: leave one out",
            ],
        )
        good = load_text("overlay x { operators b, a; } " + " ".join((A, B)), "t.conf")
        self.assertEqual(good.overlay.operators, ("b", "a"))
        self.assertIsNone(load_text("overlay x { } " + A, "t.conf").overlay.operators)

    def test_giving_up_before_a_link_is_dead(self) -> None:
        self.assertEqual(
            self.said("overlay x { give up 299 ms; }"),
            "t.conf:1:13: give up must be at least dead (300 ms): no path can be replaced in less",
        )


class Statements(ComplaintCase):
    def test_missing(self) -> None:
        self.assert_complaints(
            ["node a { leaf; }", HOSTS, "wire a b { }"],
            "2:1: node a has no address: add `address 10.1.1.1:7400;`",
            '2:1: node a has no key: add `key "...";`',
            "4:1: wire a b has no between: add `between 10.1.1.1/30 10.1.1.2/30;`",
        )

    def test_given_twice(self) -> None:
        self.assert_complaints(
            [
                "node a { address 10.0.0.1;",
                "leaf;",
                f"address 10.0.0.2; leaf; key {key('a')}; }}",
                "host h { run sshd; run sshd; }",
                WIRE + "from a { loss 1 %; loss 2 %; } }",
            ],
            "4:1: address is given in line 2 already: keep one of them",
            "4:19: leaf is given in line 3 already: keep one of them",
            "5:20: run is given in line 5 already: keep one of them",
            "6:64: loss is given in line 6 already: keep one of them",
        )

    def test_repeatable_ones_may_be_repeated(self) -> None:
        loaded = load_text(
            "\n".join(
                [
                    "overlay x { }",
                    f"node a {{ address 10.0.0.1, 10.0.1.1; key {key('a')}; }}",
                    f"node b {{ address 10.0.0.2, 10.0.1.2; serves 10.9.0.2; key {key('b')}; }}",
                    "link a b { between 10.0.0.1 10.0.0.2; between 10.0.1.1 10.0.1.2; }",
                    "intercept local { tcp port 1; tcp port 2; udp; on a; }",
                ]
            ),
            "t.conf",
        )
        self.assertEqual(len(loaded.links[0].paths), 2)
        self.assertEqual(len(loaded.intercepts[0].rules), 3)


class Links(ComplaintCase):
    def test_unknown_node(self) -> None:
        self.assert_complaints(
            [A, "link a x { }"], "3:8: node x is not declared: add a node block for it or correct the name"
        )

    def test_to_itself(self) -> None:
        self.assert_complaints([A, "link a a { }"], "3:1: link a a joins a node to itself: name two nodes")

    def test_congestion_off_needs_a_rate(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { congestion off; }"],
            "4:12: link a b has congestion off but no rate: add `rate 500 mbit;` or say congestion auto",
        )

    def test_one_rate_where_the_rate_is_not_searched(self) -> None:
        for congestion in ("off", "cubic"):
            self.assert_complaints(
                [A, B, f"link a b {{ congestion {congestion}; rate 50 mbit to 1.5 gbit; }}"],
                f"4:{25 + len(congestion)}: link a b has congestion {congestion}, which takes one rate:"
                " write `rate 1.5 gbit;`, or say congestion auto",
            )

    def test_rates_the_wrong_way_round(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { rate 500 mbit to 50 kbit; }"],
            "4:12: the least rate comes first and is not above the other: write `rate 50 kbit to 500 mbit;`",
        )

    def test_mtu(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { mtu 1279 bytes; }", "link b a { mtu 64 KiB; }"],
            "4:12: an mtu of 1279 bytes cannot be used: write one from 1280 to 65535",
            "5:12: an mtu of 65536 bytes cannot be used: write one from 1280 to 65535",
        )

    def test_passive_node_is_no_end(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { passive c; }"], "4:20: c is no end of link a b: passive must name a or b"
        )

    def test_addresses_of_others(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { between 10.0.0.2 10.0.0.2:7401; }"],
            "4:20: 10.0.0.2 is not an address of node a: use one of its own (10.0.0.1:7400)",
            "4:29: 10.0.0.2:7401 is not an address of node b: use one of its own (10.0.0.2:7400)",
        )

    def test_the_port_must_be_written_when_there_are_two(self) -> None:
        several = f"node b {{ address 10.0.0.2:1, 10.0.0.2:2, [2001:db8::2]:3; key {key('b')}; }}"
        self.assert_complaints(
            [A, several, "link a b { between 10.0.0.1 10.0.0.2; }", "link b a { between 2001:db8::3 10.0.0.1; }"],
            "4:29: node b has several ports at 10.0.0.2: write which one, as 10.0.0.2:1",
            "5:20: 2001:db8::3 is not an address of node b: use one of its own "
            "(10.0.0.2:1, 10.0.0.2:2, [2001:db8::2]:3)",
        )

    def test_one_ip_version(self) -> None:
        six = f"node b {{ address [2001:db8::2]:7400; key {key('b')}; }}"
        self.assert_complaints(
            [A, six, "link a b { }", "link b a { between 2001:db8::2 10.0.0.1; }"],
            "4:1: 10.0.0.1 and 2001:db8::2 differ in IP version: choose two of one version with `between`",
            "5:12: 2001:db8::2 and 10.0.0.1 differ in IP version: choose two of one version with `between`",
        )

    def test_one_path_twice(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { between 10.0.0.1 10.0.0.2; between 10.0.0.1:7400 10.0.0.2; }"],
            "4:39: this pair of addresses is given already: leave one out",
        )


class Interceptors(ComplaintCase):
    def test_no_rule(self) -> None:
        self.assert_complaints(
            ["intercept payload { }"],
            "2:1: intercept payload captures nothing: add a rule such as `tcp to 10.1.9.2 port 22;`",
        )

    def test_whole_packets_in_payload(self) -> None:
        why = "is for whole packets, and intercept payload carries TCP streams: leave it out, or use intercept local"
        self.assert_complaints(
            [A, B, "intercept payload { udp; ip; recovery none; release ordered; clamp mss; }"],
            *(
                f"4:{column}: {keyword} {why} or intercept router"
                for column, keyword in ((21, "udp"), (26, "ip"), (30, "recovery"), (45, "release"), (62, "clamp mss"))
            ),
        )

    def test_unknown_and_repeated_nodes(self) -> None:
        self.assert_complaints(
            [A, B, "intercept payload { tcp; on a, x, a; }"],
            "4:32: node x is not declared: add a node block for it or correct the name",
            "4:35: a is in the list twice: leave one out",
        )

    def test_overlaps_inside_a_rule(self) -> None:
        self.assert_complaints(
            [A, B, "intercept payload { tcp to 10.9.0.2, 10.9.0.0/24 port 80, 22, 20-30; }"],
            "4:38: 10.9.0.0/24 overlaps 10.9.0.2 in the same rule: leave one of them out",
            "4:63: port 20-30 overlaps port 22 in the same rule: leave one of them out",
        )


class Lab(ComplaintCase):
    def test_unknown_host(self) -> None:
        self.assert_complaints(
            ["host a { }", WIRE + "}"], "3:8: host b is not declared: add a host block for it or correct the name"
        )

    def test_wire_to_itself(self) -> None:
        self.assert_complaints(
            [HOSTS, "wire a a { between 10.1.1.1/30 10.1.1.2/30; }"],
            "3:1: wire a a joins a host to itself: name two hosts",
        )

    def test_addresses_of_a_wire(self) -> None:
        self.assert_complaints(
            [
                HOSTS,
                "wire a b { between 10.1.1.1/30 10.1.1.5/30; }",
                "wire b c { between 10.1.2.1/30 10.1.2.2/29; }",
                "wire a c { between 10.1.3.1/30 10.1.3.1/30; }",
            ],
            "3:12: 10.1.1.1/30 and 10.1.1.5/30 are not in one subnet: give both ends the same prefix",
            "4:12: 10.1.2.1/30 and 10.1.2.2/29 are not in one subnet: give both ends the same prefix",
            "5:12: both ends have the address 10.1.3.1: give each its own",
        )

    def test_from_a_stranger_and_twice(self) -> None:
        self.assert_complaints(
            [HOSTS, WIRE + "from c { down; } from a { down; } from a { } }"],
            "3:50: c is no end of wire a b: from must name a or b",
            "3:84: a is in the list twice: leave one out",
        )

    def test_statements_without_effect(self) -> None:
        self.assert_complaints(
            [
                HOSTS,
                WIRE + "burst 3 packets; from b { loss 1 %; } }",
                "wire b c { between 10.1.2.1/30 10.1.2.2/30;",
                "from b { queue 2 MiB; } }",
            ],
            "3:45: burst says how losses cluster, but there is no loss: add `loss 0.5 %;`",
            "4:1: queue never fills without a rate: add `rate 500 mbit;`",
        )

    def test_mtu_of_a_wire(self) -> None:
        self.assert_complaints(
            [HOSTS, WIRE + "mtu 575 bytes; }"], "3:45: an mtu of 575 bytes cannot be used: write one from 576 to 65535"
        )

    def test_servers_and_gateways(self) -> None:
        self.assert_complaints(
            ["host a { run sshd, nginx, sshd; }", "host b { gateway b; }", "host c { gateway d; }"],
            "2:26: sshd is in the list twice: leave one out",
            "3:18: host b is its own gateway: name a host at the other end of one of its wires",
            "4:18: host d is not declared: add a host block for it or correct the name",
        )
