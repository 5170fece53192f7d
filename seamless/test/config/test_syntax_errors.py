"""What a person reads after a slip of the pen: the exact place, what was expected there, and what was found."""

from __future__ import annotations

import base64

from seamless.config.load import ConfigurationProblems, load_text
from seamless.crypto.keys import encode_private_key, encode_public_key
from seamless.test.config.small import ComplaintCase, key, node


class Blocks(ComplaintCase):
    def test_unknown_block(self) -> None:
        self.assert_complaints(
            ["nodes a { }"],
            "2:1: expected a block (overlay, node, link, intercept, host or wire), found 'nodes': did you mean node?",
        )

    def test_missing_name(self) -> None:
        self.assert_complaints(
            ["link a { }"], "2:8: expected a name (letters, digits, - and _, a letter first), found '{'"
        )

    def test_missing_brace(self) -> None:
        self.assert_complaints(["overlay x"], "2:10: expected '{', found the end of the file")

    def test_end_of_file_inside_a_block(self) -> None:
        self.assert_complaints(
            ["host x { gateway y;  # and no more"],
            "2:1: host x is not closed: add '}' at the end of the file",
        )

    def test_a_word_that_begins_like_a_keyword(self) -> None:
        self.assert_complaints(
            ["node a { leafy; }"],
            "2:10: expected address, serves, key, leaf, memory, capture or '}', found 'leafy': did you mean leaf?",
        )

    def test_mode_of_an_interceptor(self) -> None:
        self.assert_complaints(["intercept all { tcp; }"], "2:11: expected payload, local or router, found 'all'")


class Recovery(ComplaintCase):
    def test_reading_goes_on_at_the_next_line_with_a_block(self) -> None:
        self.assert_complaints(
            [
                "node a { address 10.0.0.1 }",
                "what is this { }",
                "  link a b { cost cheap; }",
                "wire a b {",
                "    between 10.1.1.1/30 10.1.1.2/30",
                "host a { run telnetd; }",
                "overlay again { }",
            ],
            "2:26: ';' is missing after '10.0.0.1'",
            "4:19: expected a cost from 1 to 65535, found 'cheap'",
            "6:36: ';' is missing after '10.1.1.2/30'",
            "7:14: expected sshd, nginx or iperf3, found 'telnetd'",
            "8:1: there is an overlay block already: one file describes one overlay",
        )

    def test_a_broken_node_is_not_called_undeclared(self) -> None:
        self.assert_complaints(
            ["node a { address; }", f"node b {{ address 10.0.0.x; key {key('b')}; }}", "link a b { }", "link b c { }"],
            "2:17: expected an address such as 10.1.1.1:7400 or [2001:db8::1]:7400, found ';'",
            "3:18: expected an address such as 10.1.1.1:7400 or [2001:db8::1]:7400, found '10.0.0.x'",
            "5:8: node c is not declared: add a node block for it or correct the name",
        )

    def test_tabs_and_line_ends_count_as_one_column(self) -> None:
        self.assert_complaints(["\r", "\t\tnode a {\tleaf }"], "3:16: ';' is missing after 'leaf'")


class Units(ComplaintCase):
    def test_missing_unit_names_the_units(self) -> None:
        self.assert_complaints(
            ["link a b { rate 500; }", "wire a b { delay 5; }", "wire a b { queue 2; }"],
            "2:20: expected a unit (bit, kbit, mbit or gbit), found ';'",
            "3:19: expected a unit (us, ms or s), found ';'",
            "4:19: expected a unit (bytes, KiB, MiB or GiB), found ';'",
        )

    def test_wrong_unit(self) -> None:
        self.assert_complaints(
            ["link a b { rate 500 mbits; }", "link a b { mtu 1400 B; }"],
            "2:21: expected a unit (bit, kbit, mbit or gbit), found 'mbits': did you mean mbit?",
            "3:21: expected a unit (bytes, KiB, MiB or GiB), found 'B': did you mean bytes?",
        )

    def test_no_number(self) -> None:
        self.assert_complaints(
            ["link a b { rate fast; }", "overlay x { dead -1 s; }", "wire a b { loss some; }"],
            "2:17: expected a rate such as 500 mbit, found 'fast'",
            "3:18: expected a time such as 100 ms, found '-1'",
            "4:17: expected a percentage from 0 to 100 such as 0.5 %, found 'some'",
        )

    def test_percentage_without_its_sign(self) -> None:
        self.assert_complaints(["wire a b { loss 5; }"], "2:18: expected %, found ';'")

    def test_burst_without_packets(self) -> None:
        self.assert_complaints(["wire a b { burst 5; }"], "2:19: expected packets, found ';'")

    def test_numbers_that_mean_nothing(self) -> None:
        self.assert_complaints(
            [
                "link a b { rate 0 gbit; cost 65536; mtu 1400.5 bytes; }",
                "wire a b { loss 101 %; burst 0.5 packets; queue 9007199254740993 bytes; }",
                "wire a b { from a { reorder 1000 % by 5 ms; } }",
            ],
            "2:17: expected a rate such as 500 mbit, found '0 gbit'",
            "2:30: expected a cost from 1 to 65535, found '65536'",
            "2:41: expected a size such as 16 MiB, found '1400.5 bytes'",
            "3:17: expected a percentage from 0 to 100 such as 0.5 %, found '101 %'",
            "3:30: expected a number of packets from 1 on such as 4 packets, found '0.5 packets'",
            "3:49: expected a size such as 16 MiB, found '9007199254740993 bytes'",
            "4:29: expected a percentage from 0 to 100 such as 0.5 %, found '1000 %'",
        )


class Addresses(ComplaintCase):
    def test_endpoints_that_mean_nothing(self) -> None:
        expected = "expected an address such as 10.1.1.1:7400 or [2001:db8::1]:7400, found"
        self.assert_complaints(
            [
                "node a { address 10.1.1.300, host.example:7400, 10.1.1.1:65536, 10.1.1.1:0,",
                "2001:db8::1:7400:1:1:1:1, [2001:db8::g]:7400, [], [10.0.0.1]; }",
                "node b { address [10.1.1.1; }",
                "node c { address [2001:db8::1%eth0]:7400; }",
            ],
            f"2:18: {expected} '10.1.1.300'",
            f"2:30: {expected} 'host.example:7400'",
            f"2:49: {expected} '10.1.1.1:65536'",
            f"2:65: {expected} '10.1.1.1:0'",
            f"3:1: {expected} '2001:db8::1:7400:1:1:1:1'",
            f"3:27: {expected} '[2001:db8::g]:7400'",
            f"3:47: {expected} '[]'",
            f"3:51: {expected} '[10.0.0.1]'",
            f"4:18: {expected} '[10.1.1.1'",
            f"5:18: {expected} '[2001:db8::1'",
        )

    def test_addresses_that_no_host_has(self) -> None:
        self.assert_complaints(
            ["node a { address 0.0.0.0:7400, [ff02::1]:7400, fe80::1, ::ffff:10.0.0.1; }"],
            "2:18: 0.0.0.0:7400 is no host's address: write one that a host really has",
            "2:32: [ff02::1]:7400 is no host's address: write one that a host really has",
            "2:48: fe80::1 means another host on every interface: write an address that is routed",
            "2:57: ::ffff:10.0.0.1 is an IPv4 address mapped into IPv6: write it as IPv4",
        )

    def test_networks_that_mean_nothing(self) -> None:
        self.assert_complaints(
            ["node a { serves 10.1.9.1/24, 10.1.9.0/33, 127.0.0.0/8, 224.0.0.0/4, ::ffff:10.0.0.0/104, all; }"],
            "2:17: 10.1.9.1/24 is neither an address nor a prefix: write 10.1.9.1 or 10.1.9.0/24",
            "2:30: expected an address or prefix such as 10.1.9.1 or 10.1.9.0/24, found '10.1.9.0/33'",
            "2:43: 127.0.0.0/8 is every host's own loopback: write an address that is routed",
            "2:56: 224.0.0.0/4 is no host's address: write one that a host really has",
            "2:69: ::ffff:10.0.0.0/104 is an IPv4 address mapped into IPv6: write it as IPv4",
            "2:90: expected an address or prefix such as 10.1.9.1 or 10.1.9.0/24, found 'all'",
        )

    def test_ends_of_a_wire(self) -> None:
        self.assert_complaints(
            ["wire a b { between 10.1.1.1 10.1.1.256/24; carries 10.1.9.1, 10.1.9.x 10.1.9.2; }"],
            "2:20: expected an address with its prefix length such as 10.1.1.1/30, found '10.1.1.1'",
            "2:29: expected an address with its prefix length such as 10.1.1.1/30, found '10.1.1.256/24'",
            "2:62: expected an address or prefix such as 10.1.9.1 or 10.1.9.0/24, found '10.1.9.x'",
        )

    def test_address_of_a_host(self) -> None:
        self.assert_complaints(
            ["host a { address 10.1.9.0/24; }", "host b { address nowhere; }"],
            "2:26: expected ',' or ';', found '/24'",
            "3:18: expected an IP address such as 10.1.1.1 or 2001:db8::1, found 'nowhere'",
        )

    def test_where_to_capture(self) -> None:
        self.assert_complaints(
            [
                "node a { capture; }",
                "node b { capture port 0; }",
                "node c { capture at 127.0.0.1 7401; }",
                "node d { capture at here; }",
            ],
            "2:17: expected at or port, found ';'",
            "3:23: expected a port from 1 to 65535, found '0'",
            "4:31: expected ',', port or ';', found '7401'",
            "5:21: expected an IP address such as 10.1.1.1 or 2001:db8::1, found 'here'",
        )

    def test_ports(self) -> None:
        self.assert_complaints(
            ["intercept payload { tcp port 0, 65536, 90-80, 1-99999; }", "intercept payload { tcp port ssh; }"],
            "2:30: expected a port from 1 to 65535 or a range such as 8000-8099, found '0'",
            "2:33: expected a port from 1 to 65535 or a range such as 8000-8099, found '65536'",
            "2:40: the range 90-80 is empty: write the lower port first",
            "2:47: expected a port from 1 to 65535 or a range such as 8000-8099, found '1-99999'",
            "3:30: expected a port from 1 to 65535 or a range such as 8000-8099, found 'ssh'",
        )


class Rules(ComplaintCase):
    def test_what_may_follow_a_protocol(self) -> None:
        self.assert_complaints(
            [
                "intercept local { tcp from 10.0.0.1; }",
                "intercept local { tcp to 10.0.0.1 10.0.0.2; }",
                "intercept local { udp port 53 54; }",
                "intercept local { ip port 53; }",
                "intercept local { ip to 10.0.0.1 port 53; }",
            ],
            "2:23: expected to, port or ';', found 'from'",
            "3:35: expected ',', port or ';', found '10.0.0.2'",
            "4:31: expected ',' or ';', found '54'",
            "5:22: expected to or ';', found 'port'",
            "6:34: expected ',' or ';', found 'port'",
        )

    def test_second_words(self) -> None:
        self.assert_complaints(
            ["overlay x { give 30 s; }", "intercept local { clamp; }", "wire a b { black 3; }"],
            "2:18: expected up, found '30'",
            "3:24: expected mss, found ';'",
            "4:18: expected hole, found '3'",
        )


class Keys(ComplaintCase):
    def test_a_key_that_is_none(self) -> None:
        wanted = 'expected a key as `seamless pubkey` prints it, 48 characters in quotes ("7Q...=="), found'
        self.assert_complaints(
            [
                'node a { address 10.0.0.1; key "AAAA"; }',
                f"node b {{ address 10.0.0.2; key {key('b')[:-3]}; }}",
                'node c { address 10.0.0.3; key "no base64 at all, and a very long one besides it"; }',
                f"node d {{ address 10.0.0.4; key {key('d')[1:-1]}; }}",
            ],
            f"2:32: {wanted} '\"AAAA\"': it has 4 characters, 44 too few",
            f"3:32: {wanted} '{key('b')[:-3]};...': the quote that ends it is missing",
            f"4:32: {wanted} '\"no base64 at all, and a very long one besides i...': ' ' is no character of a key",
            f"5:32: {wanted} '{key('d')[1:-3]}': put it in quotes",
        )

    def test_a_key_that_was_copied_badly(self) -> None:
        for spoilt, why in (
            (key("a")[:5] + key("a")[6:], "it has 47 characters, 1 too few"),
            ('"A' + key("a")[1:], "it has 49 characters, 1 too many"),
        ):
            (said,) = self.complaints(f"node a {{ address 10.0.0.1; key {spoilt}; }}")
            self.assertTrue(said.startswith("2:32: expected a key") and said.endswith(f": {why}"), said)

    def test_a_key_that_no_node_has(self) -> None:
        wanted = 'expected a key as `seamless pubkey` prints it, 48 characters in quotes ("7Q...=="), found'
        for point, fault in (
            (b"\x01" + bytes(31), "is a point of small order, whose private key is known to all"),
            (bytes(32), "is a point of small order, whose private key is known to all"),
            (b"\xff" * 32, "is not the canonical encoding of a point (RFC 8032, section 5.1.3)"),
            (b"\x02" + bytes(31), "is not a point of the curve edwards25519"),
        ):
            text = encode_public_key(point)
            self.assert_complaints(
                [f'node a {{ address 10.0.0.1; key "{text}"; }}'],
                f"2:32: {wanted} '\"{text[:-1]}...': it is no node's key, since it {fault}:"
                " write what `seamless pubkey` prints",
            )

    def test_a_key_of_an_earlier_version(self) -> None:
        (said,) = self.complaints(f'node a {{ address 10.0.0.1; key "{base64.b64encode(bytes(32)).decode()}"; }}')
        self.assertIn("it is an X25519 key of an earlier version or of WireGuard: make a new Ed25519 key with", said)

    def test_a_private_key_is_not_repeated(self) -> None:
        text = encode_private_key(bytes(range(32)))
        (said,) = self.complaints(f'node a {{ address 10.0.0.1; key "{text}"; }}')
        self.assertIn("2:32: expected a key as `seamless pubkey` prints it", said)
        self.assertIn("it is a private key, which belongs nowhere but into its node's key file", said)
        self.assertNotIn(text[:10], said)


class Slips(ComplaintCase):
    """The usual slips of the pen: one sentence each, where the slip is, with what was probably meant."""

    def test_missing_semicolon_at_the_end_of_a_line(self) -> None:
        self.assert_complaints(
            ["node a {", "    address 10.0.0.1  # the first one", f"    key {key('a')}", "}", "host a { leef; }"],
            "3:21: ';' is missing after '10.0.0.1'",
            "6:10: expected address, run, gateway or '}', found 'leef'",
        )

    def test_missing_semicolon_before_a_statement_on_the_same_line(self) -> None:
        self.assert_complaints(["link a b { rate 10 mbit cost 3; }"], "2:24: ';' is missing after 'mbit'")

    def test_missing_semicolon_before_a_misspelt_statement(self) -> None:
        self.assert_complaints(["host a {", "run sshd", "gatway b;", "}"], "3:9: ';' is missing after 'sshd'")

    def test_a_list_that_goes_on_in_the_next_line_lacks_its_comma(self) -> None:
        self.assert_complaints(
            ["host a { address 10.0.0.1", "10.0.0.2; }"], "3:1: expected ',' or ';', found '10.0.0.2'"
        )

    def test_unclosed_block(self) -> None:
        self.assert_complaints(
            ["host a {", "    run sshd;", "", "  host b { leef; }", "host c { }"],
            "2:1: host a is not closed: add '}' before host in line 5",
            "5:12: expected address, run, gateway or '}', found 'leef'",
        )

    def test_a_brace_too_many(self) -> None:
        self.assert_complaints(
            ["host a { }", "}"], "3:1: this '}' closes no block: remove it, or open the block that it is to close"
        )

    def test_byte_order_mark(self) -> None:
        error = self.assertRaises(ConfigurationProblems, load_text, "\ufeffoverlay x { }\n", "t.conf")
        self.assertEqual(
            str(error), "t.conf:1:1: the file begins with a byte order mark (U+FEFF): save it as UTF-8 without BOM"
        )

    def test_units_as_they_are_written_elsewhere(self) -> None:
        for written, unit in (
            ("rate 1 Gbit", "gbit"),
            ("rate 1 Mbps", "mbit"),
            ("rate 1 Mb/s", "mbit"),
            ("rate 1 M", "mbit"),
            ("mtu 1 kib", "KiB"),
            ("mtu 1 MB", "MiB"),
        ):
            (said,) = self.complaints(f"link a b {{ {written}; }}")
            self.assertTrue(said.endswith(f"found '{written.split()[-1]}': did you mean {unit}?"), said)

    def test_misspelt_words(self) -> None:
        for block, word in (
            ("lnik a b { }", "link"),
            ("link a b { congestion cubik; }", "cubic"),
            ("link a b { rate 1 mbit too 2 mbit; }", "to"),
            ("intercept paylod { tcp; }", "payload"),
            ("intercept payload { tcp prot 22; }", "port"),
            ("intercept payload { when unreachabel direct; }", "unreachable"),
            ("intercept payload { wen unreachable direct; }", "when unreachable"),
        ):
            (said,) = self.complaints(block)
            self.assertTrue(said.endswith(f": did you mean {word}?"), said)

    def test_misspelt_name(self) -> None:
        self.assert_complaints(
            [node("berlin", 1), node("bonn", 2), "link berlin bon { }"],
            "4:13: node bon is not declared: add a node block for it or correct the name (did you mean bonn?)",
        )


class Quotes(ComplaintCase):
    def test_unprintable_characters_are_shown_as_escapes(self) -> None:
        self.assert_complaints(
            ["\x00"], "2:1: expected a block (overlay, node, link, intercept, host or wire), found '\\x00'"
        )
