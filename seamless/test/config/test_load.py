"""Whole files: what they mean once loaded, the examples that are shipped, and whatever else may stand in a file."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config import grammar
from seamless.config.grammar import KEYWORDS
from seamless.config.load import ConfigurationProblems, load_file, load_text
from seamless.config.model import (
    HostConfig,
    Impairment,
    InterceptConfig,
    LinkConfig,
    Match,
    NodeConfig,
    Overlay,
    WireConfig,
)
from seamless.errors import EXIT_CONFIGURATION, ConfigurationError
from seamless.test.config.small import key, raw_key
from seamless.wire.header import node_identifier

ROOT = Path(__file__).parents[3]

EVERYTHING = f"""
overlay all {{ hello 50 ms; dead 0.2 s; give up 1 s; }}
node a {{
    address 10.0.0.1, [2001:db8::1]:7401;   # the default port, and another one
    serves 10.9.0.1, 2001:db8:9::/48;
    key {key("a")};
    leaf; memory 512 MiB;
}}
node b {{ address 10.0.0.2:7400, 2001:DB8:0::2; serves 10.8.0.0/16; key {key("b")}; }}
link b a {{
    between 10.0.0.2 10.0.0.1:7400;
    between [2001:db8::2]:7400 2001:db8::1;
    rate 1.5 gbit; congestion off; cost 7; mtu 1400 bytes; passive a;
}}
intercept payload {{ tcp to 10.8.1.0/24, 10.9.0.1 port 22, 8000-8099; on a, b; when unreachable refuse; }}
intercept local {{
    udp port 53;
    ip to 2001:db8:9::9;
    tcp port 80;
    recovery none;
    release unordered;
    clamp mss;
    on b;
}}
host a {{ address 10.9.0.1, 2001:db8:9::1; run sshd, iperf3; gateway b; }}
host b {{ }}
wire a b {{
    between 10.0.0.1/30 10.0.0.2/30;
    delay 5 ms; rate 500mbit; queue 2MiB; loss 0.5%; burst 4 packets;
    duplicate 0.1 %; reorder 1 % by 250 us; corrupt 0.01 %; black hole 1400 bytes;
    mtu 9000 bytes;
    carries 10.9.0.1, 10.7.0.0/16 10.8.0.0/16;
    carries 10.6.0.1 10.6.0.2;
    from b {{ delay 7 ms; loss 0 %; burst 1 packets; down; }}
}}
wire b a {{ between 2001:db8::2/64 2001:db8::1/64; }}
"""


class Meaning(SynchronousTestCase):
    """Every statement, as the model has it."""

    def setUp(self) -> None:
        self.loaded = load_text(EVERYTHING, "all.conf")

    def test_overlay(self) -> None:
        self.assertEqual(self.loaded.overlay, Overlay("all", 0.05, 0.2, 1.0))
        self.assertEqual(self.loaded.name, "all")

    def test_overlay_defaults(self) -> None:
        self.assertEqual(load_text("overlay x { }", "x.conf").overlay, Overlay("x", 0.1, 0.3, 30.0))

    def test_nodes(self) -> None:
        self.assertEqual(
            self.loaded.nodes,
            {
                "a": NodeConfig(
                    name="a",
                    addresses=(("10.0.0.1", 7400), ("2001:db8::1", 7401)),
                    serves=(ip_network("10.9.0.1/32"), ip_network("2001:db8:9::/48")),
                    public_key=raw_key("a"),
                    leaf=True,
                    memory_bytes=512 << 20,
                ),
                "b": NodeConfig(
                    name="b",
                    addresses=(("10.0.0.2", 7400), ("2001:db8::2", 7400)),
                    serves=(ip_network("10.8.0.0/16"),),
                    public_key=raw_key("b"),
                    leaf=False,
                    memory_bytes=64 << 20,
                ),
            },
        )

    def test_identifiers(self) -> None:
        by_identifier = self.loaded.node_by_identifier
        self.assertEqual(
            {identifier: node.name for identifier, node in by_identifier.items()},
            {node_identifier(raw_key("a")): "a", node_identifier(raw_key("b")): "b"},
        )

    def test_links(self) -> None:
        self.assertEqual(
            self.loaded.links,
            (
                LinkConfig(
                    ends=("b", "a"),
                    paths=(
                        (("10.0.0.2", 7400), ("10.0.0.1", 7400)),
                        (("2001:db8::2", 7400), ("2001:db8::1", 7401)),
                    ),
                    rate_bps=1_500_000_000,
                    congestion="off",
                    cost=7,
                    mtu_bytes=1400,
                    passive="a",
                ),
            ),
        )

    def test_link_defaults(self) -> None:
        text = f"""overlay x {{ }} link a b {{ }}
            node a {{ address 10.0.0.1, 10.0.0.9; key {key("a")}; }} node b {{ address 10.0.0.2; key {key("b")}; }}"""
        self.assertEqual(
            load_text(text, "x.conf").links,
            (LinkConfig(("a", "b"), ((("10.0.0.1", 7400), ("10.0.0.2", 7400)),), None, "auto", None, 1500, None),),
        )

    def test_interceptors(self) -> None:
        self.assertEqual(
            self.loaded.intercepts,
            (
                InterceptConfig(
                    mode="payload",
                    rules=(
                        Match(
                            "tcp",
                            (ip_network("10.8.1.0/24"), ip_network("10.9.0.1/32")),
                            ((22, 22), (8000, 8099)),
                        ),
                    ),
                    on=("a", "b"),
                    when_unreachable="refuse",
                ),
                InterceptConfig(
                    mode="local",
                    rules=(
                        Match("udp", None, ((53, 53),)),
                        Match("ip", (ip_network("2001:db8:9::9/128"),), None),
                        Match("tcp", None, ((80, 80),)),
                    ),
                    on=("b",),
                    when_unreachable="direct",
                    recovery="none",
                    release="unordered",
                    clamp_mss=True,
                ),
            ),
        )
        self.assertEqual([(one.line, one.column) for one in self.loaded.intercepts], [(15, 1), (16, 1)])

    def test_hosts(self) -> None:
        self.assertEqual(
            self.loaded.hosts,
            {
                "a": HostConfig("a", (ip_address("10.9.0.1"), ip_address("2001:db8:9::1")), ("sshd", "iperf3"), "b"),
                "b": HostConfig("b"),
            },
        )

    def test_wires(self) -> None:
        forward = Impairment(
            delay=0.005,
            rate_bps=500_000_000,
            queue_bytes=2 << 20,
            loss=0.005,
            burst_packets=4.0,
            duplicate=0.001,
            reorder=0.01,
            reorder_delay=0.00025,
            corrupt=0.0001,
            black_hole_bytes=1400,
            down=False,
        )
        backward = Impairment(
            delay=0.007,
            rate_bps=500_000_000,
            queue_bytes=2 << 20,
            loss=0.0,
            burst_packets=1.0,
            duplicate=0.001,
            reorder=0.01,
            reorder_delay=0.00025,
            corrupt=0.0001,
            black_hole_bytes=1400,
            down=True,
        )
        first, second = self.loaded.wires
        self.assertEqual(
            first,
            WireConfig(
                ends=("a", "b"),
                addresses=(ip_interface("10.0.0.1/30"), ip_interface("10.0.0.2/30")),
                carries=(
                    ((ip_network("10.9.0.1"), ip_network("10.7.0.0/16")), (ip_network("10.8.0.0/16"),)),
                    ((ip_network("10.6.0.1"),), (ip_network("10.6.0.2"),)),
                ),
                forward=forward,
                backward=backward,
                mtu_bytes=9000,
            ),
        )
        self.assertEqual((second.ends, second.forward, second.mtu_bytes), (("b", "a"), Impairment(), 1500))


class Examples(SynchronousTestCase):
    """The files in etc/ are for people to start from."""

    def test_lab(self) -> None:
        lab = load_file(ROOT / "etc" / "lab.conf")
        self.assertEqual(list(lab.nodes), ["src", "r1", "r2", "dst"])
        self.assertEqual({link.rate_bps for link in lab.links}, {500_000_000})
        self.assertEqual([wire.forward.loss for wire in lab.wires], [0.0, 0.005, 0.0, 0.005])
        self.assertEqual([wire.backward for wire in lab.wires], [wire.forward for wire in lab.wires])
        self.assertEqual([str(to) for to in lab.captures("src")[0].to], ["10.1.9.2/32"])
        self.assertEqual([str(to) for to in lab.captures("dst")[0].to], ["10.1.9.1/32"])
        self.assertEqual(lab.captures("r1"), ())

    def test_the_lab_keys_are_as_their_comment_says(self) -> None:
        for node in load_file(ROOT / "etc" / "lab.conf").nodes.values():
            self.assertEqual(raw_key(f"seamless lab {node.name}"), node.public_key, node.name)

    def test_every_example_loads(self) -> None:
        files = sorted((ROOT / "etc").glob("*.conf"))
        self.assertIn("wide-area.conf", [file.name for file in files])
        for file in files:
            load_file(file)


class Files(SynchronousTestCase):
    """What can be wrong with a file before its text is read."""

    def said(self, path: Path) -> str:
        error = self.assertRaises(ConfigurationError, load_file, path)
        self.assertEqual(error.exit_code, EXIT_CONFIGURATION)
        return str(error)

    def test_missing(self) -> None:
        path = Path(self.mktemp())
        self.assertEqual(self.said(path), f"{path} does not exist: check the name of the configuration file")

    def test_folder(self) -> None:
        path = Path(self.mktemp())
        path.mkdir()
        self.assertEqual(self.said(path), f"{path} is a folder: name the configuration file in it")

    def test_not_text(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"overlay \xff")
        self.assertEqual(self.said(path), f"{path} is not UTF-8 text (byte 8): save it as UTF-8")

    def test_not_a_name(self) -> None:
        self.assertIn("cannot be read", self.said(Path("a\0b")))
        self.assertIn("cannot be read", self.said(Path("x" * 5000)))

    def test_may_not_be_read(self) -> None:
        def denied(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        self.patch(Path, "read_bytes", denied)  # root may read everything
        self.assertEqual(self.said(Path("x")), "x may not be read by this user: change its mode, or the user")

    def test_problems_carry_the_name_of_the_file(self) -> None:
        path = Path(self.mktemp())
        path.write_text("overlay x { }\nnode x { leaf; }\n")
        error = self.assertRaises(ConfigurationProblems, load_file, path)
        self.assertEqual([(one.file, one.line, one.column) for one in error.problems], [(str(path), 2, 1)] * 2)
        self.assertEqual(error.exit_code, EXIT_CONFIGURATION)


class AnyText(SynchronousTestCase):
    """A parser given any text raises one kind of error, and every problem has a place in the text."""

    def assert_loads_or_explains(self, text: str) -> None:
        try:
            load_text(text, "any.conf")
        except ConfigurationProblems as error:
            self.assertTrue(error.problems)
            lines = text.split("\n")
            for problem in error.problems:
                self.assertTrue(problem.message)
                self.assertLessEqual(problem.line, len(lines))
                self.assertLessEqual(problem.column, len(lines[problem.line - 1]) + 1)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.text())
    def test_any_characters(self, text: str) -> None:
        self.assert_loads_or_explains(text)

    words = st.sampled_from(
        [*sorted(KEYWORDS), *'{};;;,%-"#\n', "0", "5", "10.1.1.1", "10.1.1.1/24", "[::1]:7400", "a", "b", key("a")]
    )

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.lists(words, max_size=60))
    def test_any_words(self, words: list[str]) -> None:
        self.assert_loads_or_explains(" ".join(words))

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.integers(0, len(EVERYTHING)), st.integers(0, 40), st.one_of(st.just(""), words, st.text(max_size=3)))
    def test_a_good_file_spoilt_in_one_place(self, start: int, length: int, instead: str) -> None:
        self.assert_loads_or_explains(EVERYTHING[:start] + instead + EVERYTHING[start + length :])

    def test_cut_short_anywhere(self) -> None:
        for end in range(0, len(EVERYTHING), 23):
            self.assert_loads_or_explains(EVERYTHING[:end])

    def test_huge_numbers(self) -> None:
        digits = "9" * 5000
        self.assert_loads_or_explains(
            f"overlay x {{ hello {digits} s; dead {digits}.{digits} s; }}"
            f"link a b {{ rate {digits} gbit; cost {digits}; mtu 1.{digits} KiB; between 10.0.0.1:{digits} [::1]:1; }}"
            f"intercept local {{ tcp port {digits}, 1-{digits}; }} node a {{ serves 10.0.0.0/{digits}; }}"
        )


class Documents(SynchronousTestCase):
    """docs/grammar.rst has every word of the grammar, and no word that the grammar lacks."""

    def setUp(self) -> None:
        self.page = (ROOT / "docs" / "grammar.rst").read_text()

    def test_same_words(self) -> None:
        rules = self.page.split("words of the language in quotes. ::\n")[1].split("\nValues\n")[0]
        words = set(re.findall(r'"([A-Za-z][A-Za-z0-9]*)"', rules))
        self.assertEqual(words, KEYWORDS)

    def test_every_statement_is_explained(self) -> None:
        explained = set(re.findall(r"^``([a-z ]+)``", self.page, re.MULTILINE))
        statements = set().union(
            grammar.OVERLAY, grammar.NODE, grammar.LINK, grammar.INTERCEPT, grammar.HOST, grammar.WIRE
        )
        self.assertEqual(explained, statements)
