"""Nodes of different configurations: what differs is named, once, to both neighbors and peers."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.interfaces import ConfigurationDiffers, StreamOpened
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.node.drift import FRAMES_PER_SECOND, Drift, Section, encoded, shared_items
from seamless.test.node.network import node, overlay
from seamless.wire.digest import MAX_ITEMS, ConfigurationDigest

NODES = {name: node(name, f"10.0.0.{number}:7400") for number, name in enumerate(("src", "r1", "r2", "dst"), 1)}
LINKS = ("link src r1 { rate 100 mbit; }", "link r1 r2 { }", "link r2 dst { }")
RIGHT = overlay(*NODES.values(), *LINKS)


def with_text(*changes: tuple[str, str]) -> Configuration:
    """Return the configuration with these texts replaced."""
    text = "\n".join(("overlay test { }", *NODES.values(), *LINKS))
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return load_text(text, "other.conf")


class NeighborTests(SynchronousTestCase):
    """A chain of four nodes on virtual time, some of which have another file."""

    def start(self, **others: Configuration) -> Simulation:
        self.net = Simulation(RIGHT, private_key, Random(1), others=others)
        self.net.run(5.0)
        return self.net

    def reported(self, name: str) -> list[ConfigurationDiffers]:
        return [event for event in self.net.nodes[name].events if isinstance(event, ConfigurationDiffers)]

    def differences(self, name: str) -> Mapping[str, tuple[str, ...]]:
        return self.net.node(name).status(self.net.now).differences

    def test_one_file_everywhere(self) -> None:
        self.start()
        self.net.command("src", lambda each, now: each.open_stream("dst", b"target", now))
        self.net.run(self.net.now + 5)
        self.assertTrue(any(isinstance(event, StreamOpened) for event in self.net.nodes["dst"].events))
        for name in NODES:
            self.assertEqual((self.differences(name), self.reported(name)), ({}, []))

    def test_another_rate(self) -> None:
        self.start(r1=with_text(("rate 100 mbit", "rate 10 mbit")))
        said = ("rate of link r1 src",)
        self.assertEqual(self.differences("src"), {"r1": said})
        self.assertEqual(self.reported("src"), [ConfigurationDiffers("r1", said)])
        self.assertEqual(self.reported("r1"), [ConfigurationDiffers("src", said)])
        self.assertEqual(self.reported("r2"), [])

    def test_another_key_of_a_third_node(self) -> None:
        key = NODES["dst"].split('"')[1]
        other = node("elsewhere", "10.0.0.9").split('"')[1]
        self.start(src=with_text((key, other)))
        self.assertEqual(self.reported("src"), [ConfigurationDiffers("r1", ("node dst (another key, or leaf)",))])
        self.assertEqual(self.reported("r1"), [ConfigurationDiffers("src", ("node dst (another key, or leaf)",))])

    def test_a_node_that_one_file_lacks(self) -> None:
        self.start(src=with_text((NODES["dst"], ""), (LINKS[2], "")))
        self.assertEqual(
            self.reported("r1"),
            [ConfigurationDiffers("src", ("node dst (missing there)", "link dst r2 (missing there)"))],
        )
        self.assertEqual(
            self.reported("src"),
            [ConfigurationDiffers("r1", ("nodes that are missing here: 1", "links that are missing here: 1"))],
        )

    def test_timers(self) -> None:
        changed = "overlay test { hello 50 ms; give up 20 s; operators src; }"
        self.start(r1=with_text(("overlay test { }", changed)))
        self.assertEqual(self.reported("r2"), [ConfigurationDiffers("r1", ("hello", "give up", "operators"))])

    def test_a_mended_file_is_reported_too(self) -> None:
        self.start(r1=with_text(("rate 100 mbit", "rate 10 mbit")))
        self.net.configurations["r1"] = RIGHT
        self.net.crash("r1")
        self.net.run(self.net.now + 1)
        self.net.start("r1")
        self.net.run(self.net.now + 10)
        self.assertEqual(self.differences("src"), {})
        self.assertEqual([event.differences for event in self.reported("src")], [("rate of link r1 src",), ()])

    def test_peers_that_are_no_neighbors(self) -> None:
        """The relays between them have the right file."""
        dst = with_text(("10.0.0.4:7400;", "10.0.0.4:7400; serves 10.9.0.4;"))
        self.start(dst=dst)
        self.assertEqual(self.reported("src"), [])
        self.net.command("src", lambda each, now: each.open_stream("dst", b"target", now))
        self.net.run(self.net.now + 5)
        self.assertEqual(
            self.reported("src"),
            [ConfigurationDiffers("dst", ("nodes that serve something that are missing here: 1",))],
        )
        said = ConfigurationDiffers("src", ("serves of node dst (missing there)",))
        self.assertIn(said, self.reported("dst"))

    def test_digests_survive_loss(self) -> None:
        """At 40 % loss, on wires that lose in both directions."""
        hosts = "host src { } host r1 { } wire src r1 { between 10.0.0.1/24 10.0.0.2/24; loss 40 %; }"
        lossy = attrs.evolve(RIGHT, wires=load_text(f"overlay x {{ }} {hosts}", "wires.conf").wires)
        others = {"r1": with_text(("rate 100 mbit", "rate 10 mbit"))}
        for seed in range(10):
            self.net = Simulation(lossy, private_key, Random(seed), others=others)
            self.net.run(15.0)
            self.assertEqual(self.differences("src"), {"r1": ("rate of link r1 src",)}, seed)
            self.assertGreater(self.net.counters("src", "r1").lost, 0)


class DriftTests(SynchronousTestCase):
    """The core by itself."""

    def many(self, *missing: int) -> Configuration:
        names = [f"n{number}" for number in range(200) if number not in missing]
        blocks = [node(name, f"10.1.0.{name[1:]}:7400") for name in names]
        return overlay(*blocks)

    def test_a_large_overlay_is_folded(self) -> None:
        drift = Drift(self.many(), "n0")
        (nodes,) = [digest for digest in drift.for_peer() if digest.section == Section.NODES]
        self.assertEqual((nodes.is_folded, len(nodes.items) <= MAX_ITEMS), (True, True))
        self.assertLessEqual(len(nodes.encode_body()), 3 + 8 * MAX_ITEMS)
        for digest in Drift(self.many(17), "n1").for_peer():
            drift.receive("n1", digest, 0.0)
        (change,) = drift.take_changes(1.0)
        (said,) = change.differences
        self.assertIn("node n17", said)

    def test_a_large_overlay_and_a_small_file(self) -> None:
        small = overlay(node("n0", "10.1.0.0:7400"), node("n1", "10.1.0.1:7400"))
        drift = Drift(self.many(), "n0")
        for digest in Drift(small, "n1").for_peer():
            drift.receive("n1", digest, 0.0)
        (change,) = drift.take_changes(1.0)
        self.assertEqual((len(change.differences), change.differences[-1]), (9, "190 more"))

    def test_hostile_digests(self) -> None:
        """Whatever comes, few are looked at, and nothing of theirs is shown."""
        drift = Drift(RIGHT, "src")
        random = Random(1)
        for number in range(2000):
            items = tuple((random.getrandbits(32), random.getrandbits(32)) for _ in range(random.randrange(MAX_ITEMS)))
            drift.receive("r1", ConfigurationDigest(random.randrange(256), random.random() < 0.5, items), number / 1000)
        (change,) = drift.take_changes(3.0)
        self.assertLess(len(", ".join(change.differences)), 2000)
        names = ("node", "link", "hello", "dead", "give up", "rate", "mtu", "cost", "congestion", "passive", "between",
                 "operators")  # fmt: skip
        for words in change.differences:
            self.assertTrue(any(name in words for name in (*names, "more", "statements", "intercept")), words)
        self.assertEqual(drift.take_changes(1000.0), [])

    def test_a_flood_is_not_compared(self) -> None:
        drift = Drift(RIGHT, "src")
        wrong = [encoded(Section.OVERLAY, []), encoded(Section.OVERLAY, shared_items(RIGHT)[Section.OVERLAY])]
        for number in range(10_000):
            drift.receive("r1", wrong[number % 2], 0.0)
        self.assertEqual(drift.compared, 2 * FRAMES_PER_SECOND)
