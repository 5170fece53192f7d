"""Blocks that are good by themselves but do not fit together."""

from __future__ import annotations

from seamless.config.load import load_text
from seamless.config.model import MINIMUM_MTU_BYTES
from seamless.crypto.keys import encode_public_key
from seamless.routing.lsa import MAX_LINKS, MAX_UNKNOWN, Lsa, LsaLink, encode_lsa
from seamless.test.config.small import HOSTS, WIRE, A, B, C, ComplaintCase, key, node, raw_key
from seamless.wire.header import IPV6_UDP_BYTES, SEALED_HEADER_BYTES, TAG_BYTES, node_identifier
from seamless.wire.link_frames import LsaFrame

COLLIDING_KEYS = raw_key("n9545"), raw_key("n50742")
"""Two keys with one identifier, found by trying fifty thousand."""

LINKS = "link a b { } link b c { }"


class Nodes(ComplaintCase):
    def test_declared_twice(self) -> None:
        self.assert_complaints(
            [A, B, A, "host d { }", "host d { }"],
            "4:1: node a is declared in line 2 already: rename or remove one of them",
            "6:1: host d is declared in line 5 already: rename or remove one of them",
        )

    def test_same_key(self) -> None:
        self.assert_complaints(
            [A, f"node b {{ address 10.0.0.2; key {key('a')}; }}"],
            "3:28: node b has the key of node a: make a new one with `seamless genkey`",
        )

    def test_colliding_identifiers(self) -> None:
        one, other = map(encode_public_key, COLLIDING_KEYS)
        self.assertEqual(*map(node_identifier, COLLIDING_KEYS))
        self.assert_complaints(
            [f'node a {{ address 10.0.0.1; key "{one}"; }}', f'node b {{ address 10.0.0.2; key "{other}"; }}'],
            "3:28: the keys of nodes a and b have the same identifier 0x6acbaa1d: "
            "make a new one with `seamless genkey`",
        )

    def test_same_address(self) -> None:
        self.assert_complaints(
            [A, f"node b {{ address 10.0.0.2, 10.0.0.1:7400, 10.0.0.2; key {key('b')}; }}"],
            "3:28: 10.0.0.1:7400 belongs to node a already: choose another address, or another port",
            "3:43: 10.0.0.2 belongs to node b already: choose another address, or another port",
        )

    def test_same_host_with_another_port(self) -> None:
        text = f"overlay x {{ }} {A} node b {{ address 10.0.0.1:7401; key {key('b')}; }}"
        self.assertEqual(load_text(text, "t.conf").nodes["b"].addresses, (("10.0.0.1", 7401),))

    def test_overlapping_serves(self) -> None:
        self.assert_complaints(
            [A, f"node b {{ address 10.0.0.2; serves 10.8.0.1, 10.9.0.0/16; key {key('b')}; }}"],
            "3:45: 10.9.0.0/16 overlaps 10.9.0.1, which node a serves: an address can have one egress only",
        )

    def test_second_link(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { }", "link b a { }"],
            "5:1: link b a joins the same nodes as link a b in line 4: write one link with several `between` lines",
        )


class Captures(ComplaintCase):
    def test_destination_that_nobody_serves(self) -> None:
        self.assert_complaints(
            [A, B, C, LINKS, "intercept payload { tcp to 10.9.0.3, 10.9.1.0/24; tcp to 10.9.0.0/30 port 1; }"],
            "6:38: no node serves 10.9.1.0/24: add it to the `serves` of its node, or leave it out here",
            "6:58: no node serves 10.9.0.0, a part of 10.9.0.0/30: "
            "add it to the `serves` of its node, or leave it out here",
        )

    def test_destination_that_several_serve_together(self) -> None:
        text = "\n".join(["overlay x { }", A, B, C, LINKS, "intercept payload { tcp to 10.9.0.2/31; on a; }"])
        self.assertEqual([str(to) for to in load_text(text, "t.conf").captures("a")[0].to], ["10.9.0.2/31"])

    def test_capturing_only_what_it_serves(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { }", "intercept payload { tcp to 10.9.0.2; on a, b; }"],
            "5:44: node b captures nothing here, since no other node serves any of it: leave it out of `on`",
        )

    def test_nobody_serves_anything(self) -> None:
        self.assert_complaints(
            [f"node a {{ address 10.0.0.1; key {key('a')}; }}", "intercept payload { tcp; }"],
            "3:1: intercept payload captures nothing: no node serves anything for another one to capture",
        )

    def test_one_packet_two_interceptors(self) -> None:
        twice = "captures some of this on node {} already: let their ports, addresses or `on` differ"
        self.assert_complaints(
            [
                *(A, B, "link a b { }"),
                "intercept payload { tcp port 22, 80; }",
                "intercept local { tcp to 10.9.0.2 port 20-30; udp port 22; on a; }",
                "intercept router { ip; on b; }",
            ],
            f"6:19: the rule in line 5 {twice.format('a')}",
            f"7:20: the rule in line 5 {twice.format('b')}",
        )

    def test_one_packet_two_rules_of_one_interceptor(self) -> None:
        lines = ["overlay x { }", A, B, "link a b { }", "intercept local { tcp port 22; ip to 10.9.0.2; on a; }"]
        self.assertEqual(len(load_text("\n".join(lines), "t.conf").captures("a")), 2)

    def test_what_differs_does_not_collide(self) -> None:
        lines = [
            *("overlay x { }", A, B, C, LINKS),
            "intercept payload { tcp to 10.9.0.2 port 22; on a; }",
            "intercept payload { tcp to 10.9.0.3 port 22; on a; }",  # another address
            "intercept payload { tcp to 10.9.0.2 port 23; on a; }",  # another port
            "intercept payload { tcp to 10.9.0.2 port 22; on c; }",  # another node
            "intercept local { udp to 10.9.0.2 port 22; on a; }",  # another protocol
        ]
        loaded = load_text("\n".join(lines), "t.conf")
        self.assertEqual(len(loaded.captures("a")), 4)


class Sources(ComplaintCase):
    """``source client`` where no client could have an address."""

    def test_a_node_without_addresses_of_this_version(self) -> None:
        served = node("b", 2).replace("serves 10.9.0.2", "serves 10.9.0.2, 2001:db8::2")
        rule = "intercept payload { tcp; on a; source client; }"
        self.assert_complaints(
            [A, served, "link a b { }", rule],
            "5:32: node a serves no IPv6 address, so no client of its may be seen by a server: "
            "add its clients to the `serves` of a, or say source egress",
        )

    def test_a_node_that_has_some(self) -> None:
        text = f"overlay x {{ }} {A} {B} link a b {{ }} intercept payload {{ tcp; on a; source client; }}"
        (intercept,) = load_text(text, "t.conf").intercepts
        self.assertEqual((intercept.source, intercept.connect), ("client", "learned"))

    def test_whole_packets_have_neither_statement(self) -> None:
        self.assert_complaints(
            [A, B, "link a b { }", "intercept local { tcp; on a; connect early; source client; }"],
            "5:30: connect is for TCP streams, and whole packets carry the SYN itself: "
            "leave it out, or use intercept payload",
            "5:45: source is for TCP streams, and whole packets carry the client's own address: "
            "leave it out, or use intercept payload",
        )


class Ways(ComplaintCase):
    def test_no_links_between_capturing_and_serving_node(self) -> None:
        advice = "but no links lead there: add a link, or name in `on` only the nodes that are to capture"
        self.assert_complaints(
            [A, B, C, "link a b { }", "intercept payload { tcp to 10.9.0.3; }", "intercept local { udp; on a; }"],
            f"6:1: node a captures what node c serves, {advice}",
            f"6:1: node b captures what node c serves, {advice}",
            f"7:27: node a captures what node c serves, {advice}",
        )

    def test_a_leaf_is_no_way(self) -> None:
        self.assert_complaints(
            [A, node("b", 2, "leaf; "), C, LINKS, "intercept payload { tcp to 10.9.0.2, 10.9.0.3; on a; }"],
            "6:51: node a captures what node c serves, but no links lead there: "
            "the only way is through a leaf, so let that node carry transit or add a link around it",
        )

    def test_a_leaf_is_an_end(self) -> None:
        lines = [
            "overlay x { }",
            node("a", 1, "leaf; "),
            B,
            node("c", 3, "leaf; "),
            LINKS,
            "intercept payload { tcp; }",
        ]
        loaded = load_text("\n".join(lines), "t.conf")
        self.assertEqual([str(to) for to in loaded.captures("a")[0].to], ["10.9.0.2/32", "10.9.0.3/32"])


class ManyNeighbors(ComplaintCase):
    """What a node announces must fit a datagram on every path, however many nodes there are."""

    def star(self, neighbors: int) -> list[str]:
        """Return a node n1 with so many neighbors."""
        nodes = [
            f"node n{number} {{ address 10.0.{number >> 8}.{number & 255}; key {key(f'n{number}')}; }}"
            for number in range(1, neighbors + 2)
        ]
        return [*nodes, *(f"link n1 n{number} {{ mtu 1280 bytes; }}" for number in range(2, neighbors + 2))]

    def test_as_many_as_fit(self) -> None:
        """The longest LSA fits the smallest datagram with IPv6 headers, sealed."""
        room = MINIMUM_MTU_BYTES - IPV6_UDP_BYTES - SEALED_HEADER_BYTES - TAG_BYTES
        links = tuple(LsaLink(number, 1, 1444) for number in range(MAX_LINKS))
        longest = encode_lsa(Lsa(1, 1, False, links, tuple(range(MAX_UNKNOWN))), lambda message: bytes(64))
        self.assertLessEqual(len(LsaFrame(longest).encode()), room)
        self.assertEqual(len(load_text("\n".join(["overlay x { }", *self.star(64)]), "t.conf").links), 64)

    def test_many_nodes(self) -> None:
        """Two hundred, which is more than an LSA with a MAC for each of them could serve."""
        nodes = [
            f"node n{number} {{ address 10.0.{number >> 8}.{number & 255}; key {key(f'n{number}')}; }}"
            for number in range(1, 201)
        ]
        links = [f"link n{number} n{number % 200 + 1} {{ }}" for number in range(1, 201)]
        self.assertEqual(len(load_text("\n".join(["overlay x { }", *nodes, *links]), "t.conf").links), 200)

    def test_one_more(self) -> None:
        self.assert_complaints(
            self.star(65),
            "2:1: node n1 has 65 neighbors, and what it announces has room for 64: give some of its links to another"
            " node",
        )


class Lab(ComplaintCase):
    def test_wires_in_one_subnet(self) -> None:
        self.assert_complaints(
            [HOSTS, WIRE + "}", "wire b c { between 10.1.1.9/24 10.1.1.10/24; }"],
            "4:12: the subnet 10.1.1.0/24 overlaps that of wire a b in line 3: give each wire its own",
        )

    def test_one_address_twice(self) -> None:
        self.assert_complaints(
            [HOSTS, WIRE + "}", "host d { address 10.1.9.1, 10.1.1.2; }", "host e { address 10.1.9.1; }"],
            "4:28: 10.1.1.2 is given in line 3 already: every interface needs its own address",
            "5:18: 10.1.9.1 is given in line 4 already: every interface needs its own address",
        )

    def test_gateway_that_is_no_neighbor(self) -> None:
        self.assert_complaints(
            ["host a { gateway c; }", "host b { gateway a; } host c { }", WIRE + "}"],
            "2:18: no wire joins a to its gateway c: add `wire a c` or name a neighbor",
        )

    def test_node_at_an_address_that_its_host_does_not_have(self) -> None:
        self.assert_complaints(
            [HOSTS, WIRE + "}", f"node a {{ address 10.1.1.1, 10.1.1.2; key {key('a')}; }}"],
            "4:28: host a has no address 10.1.1.2: give it to the host, or to its end of a wire",
        )
