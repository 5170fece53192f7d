"""Another configuration for nodes that run, on virtual time, with a transfer under way on what stays.

::

    src ── r1 ── dst          the transfer's path
      └─── r2 ───┘            a dearer one; and what a test adds: r3, or another link
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.errors import ConfigurationError
from seamless.interfaces import (
    RESET_PEER_LOST,
    ConfigurationDiffers,
    Event,
    LinkDown,
    LinkUp,
    PeerReachable,
    PeerUnreachable,
    StreamKey,
    StreamOpened,
    StreamReset,
    Transmit,
)
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.status import LinkStatus
from seamless.node import Node
from seamless.test.lab.test_simulated import Applications
from seamless.test.node.network import node

DELAY = 0.005
"""Seconds, one way, of every wire."""
GAP_MAX = 0.05
"""Seconds for which a transfer may stand still at most."""
RATE = "rate 10 mbit; congestion off;"
NODES = {name: node(name, f"10.0.0.{number}:7400") for number, name in enumerate(("src", "r1", "r2", "dst", "r3"), 1)}
LINKS = {
    "src r1": f"{RATE} cost 10;",
    "r1 dst": f"{RATE} cost 10;",
    "src r2": f"{RATE} cost 40;",
    "r2 dst": f"{RATE} cost 40;",
}
OLD_NODES = ("src", "r1", "r2", "dst")


def file(overlay: str = "", links: dict[str, str] | None = None, nodes: tuple[str, ...] = OLD_NODES) -> Configuration:
    """Return a configuration; ``links`` replaces or adds, and an empty one removes."""
    merged = {**LINKS, **(links or {})}
    return load_text(
        "\n".join(
            (
                f"overlay test {{ {overlay} }}",
                *(NODES[name] for name in nodes),
                *(f"link {ends} {{ {text} }}" for ends, text in merged.items() if text),
            )
        ),
        "test.conf",
    )


class Network(Simulation):
    """Wires of `DELAY` between all addresses, and what a transfer from src to dst has received when."""

    def _transmit(self, transmit: Transmit) -> None:
        self.datagrams += transmit.count
        self.at(self.now + DELAY, self._arrive, transmit, b"".join(transmit.buffers))


class ApplyTestCase(SynchronousTestCase):
    def start(self, configuration: Configuration | None = None) -> None:
        self.old = configuration or file()
        self.net = Network(self.old, private_key, Random(1))
        self.net.run(1.0)
        for each in self.net.nodes.values():
            assert each.node is not None
            self.assertEqual({link.state for link in each.node.status(self.net.now).links}, {"UP"})

    def status(self, name: str, neighbor: str) -> LinkStatus:
        (link,) = [each for each in self.net.node(name).status(self.net.now).links if each.neighbor == neighbor]
        return link

    def events(self, name: str, kind: type[Event]) -> list[Event]:
        return [event for event in self.net.nodes[name].events if isinstance(event, kind)]

    def transfer(self, seconds: float = 1.1) -> None:
        """Begin a transfer from src to dst that takes so long."""
        self.applications = Applications(self, self.net, "src", "dst")
        size = int(seconds * 10e6 / 8)
        self.stream = self.applications.open(b"bulk", Random(1).randbytes(size), b"answer")
        self.net.run(self.net.now + 0.2)

    def watch(self, until: float) -> float:
        """Let time pass; return the longest time for which the transfer brought nothing, as long as it lasted."""
        sent = self.applications.up[self.stream]
        longest, received, since = 0.0, len(sent.received), self.net.now
        while self.net.now < until and len(sent.received) < len(sent.data):
            self.net.run(self.net.now + 0.002)
            if len(sent.received) != received:
                received, since = len(sent.received), self.net.now
            longest = max(longest, self.net.now - since)
        return longest

    def apply_in_turn(self, new: Configuration, order: tuple[str, ...], pause: float = 0.1) -> float:
        """Apply a configuration to these nodes one after the other, beside a transfer; return its longest gap."""
        longest = 0.0
        for name in order:
            self.net.apply(name, new)
            longest = max(longest, self.watch(self.net.now + pause))
        return max(longest, self.watch(self.net.now + 0.4))

    def finish(self) -> None:
        """Check that the transfer comes to its end with every byte."""
        self.net.run(self.net.now + 20, self.applications.done)
        self.applications.check()


class TransferTests(ApplyTestCase):
    """A transfer over r1, in all orders in which the nodes may get the new configuration."""

    def check(self, new: Configuration, orders: Iterator[tuple[str, ...]] | None = None) -> None:
        for order in orders or permutations(OLD_NODES):
            self.start()
            self.transfer()
            before = {name: self.net.node(name).status(self.net.now) for name in OLD_NODES}
            self.assertLess(self.apply_in_turn(new, order), GAP_MAX, order)
            self.finish()
            for name in OLD_NODES:
                self.assertIs(self.net.node(name).configuration, new)
                self.check_undisturbed(name, before[name].links)
            self.net.run(self.net.now + 2)
            for name in OLD_NODES:
                self.assertEqual(self.net.node(name).status(self.net.now).differences, {}, (name, order))

    def check_undisturbed(self, name: str, before: tuple[LinkStatus, ...]) -> None:
        """Check that links that are still there are the same ones: never down, their keys and counts kept."""
        links = {(link.neighbor, link.local): link for link in self.net.node(name).status(self.net.now).links}
        for link in before:
            now = links.get((link.neighbor, link.local))
            if now is not None:
                self.assertEqual((now.state, now.since, now.restarts), ("UP", link.since, link.restarts))
                self.assertGreaterEqual(now.data_sent, link.data_sent)

    def few(self) -> Iterator[tuple[str, ...]]:
        """Return an order, its reverse and one that begins in the middle."""
        yield from (OLD_NODES, OLD_NODES[::-1], ("r1", "dst", "r2", "src"))

    def test_a_changed_rate(self) -> None:
        self.check(file(links={"src r1": "rate 30 mbit; congestion off; cost 10;"}), self.few())
        self.assertEqual(self.status("src", "r1").rate_bps, 30e6)

    def test_another_congestion(self) -> None:
        self.check(file(links={"src r1": "congestion cubic; cost 10;"}), self.few())
        self.assertEqual(self.status("src", "r1").congestion, "cubic")

    def test_a_changed_cost_moves_the_path(self) -> None:
        self.check(file(links={"src r1": f"{RATE} cost 100;", "r1 dst": f"{RATE} cost 100;"}), self.few())
        routes = self.net.node("src").status(self.net.now).routing.routes
        names = {self.net.node("src").peer_name(route.next_hop) for route in routes}
        self.assertEqual(names, {"r1", "r2"})

    def test_a_cost_that_differs_little_is_announced(self) -> None:
        self.check(file(links={"src r1": f"{RATE} cost 11;"}), self.few())
        (link, _) = self.net.node("src").status(self.net.now).routing.links
        self.assertIn(11, [each.cost for each in self.net.node("src").status(self.net.now).routing.links], link)

    def test_longer_hello_and_dead_intervals(self) -> None:
        self.check(file("hello 1 s; dead 3 s;"), self.few())

    def test_shorter_hello_and_dead_intervals(self) -> None:
        self.check(file("hello 20 ms; dead 60 ms;"), self.few())

    def test_a_smaller_and_a_larger_mtu(self) -> None:
        small = file(links={"src r1": f"{RATE} cost 10; mtu 1400 bytes;"})
        self.check(small, self.few())
        self.assertEqual(self.status("src", "r1").mtu_bytes, 1400)
        self.transfer()
        self.assertLess(self.apply_in_turn(file(), ("src", "r1", "dst", "r2")), GAP_MAX)
        self.finish()
        self.net.run(self.net.now + 61)
        self.assertEqual([self.status(*ends).mtu_bytes for ends in (("src", "r1"), ("r1", "src"))], [1500, 1500])

    def test_an_end_is_passive(self) -> None:
        self.check(file(links={"src r1": f"{RATE} cost 10; passive r1;"}), self.few())

    def test_a_removed_link(self) -> None:
        """That of the transfer: it goes another way at once."""
        self.check(file(links={"src r1": ""}))
        self.assertEqual({link.neighbor for link in self.net.node("src").status(self.net.now).links}, {"r2"})

    def test_a_link_that_the_others_still_use(self) -> None:
        """dst has it removed long before its ends do: what comes over it meanwhile is taken."""
        self.start()
        self.transfer(5.0)
        self.assertLess(self.apply_in_turn(file(links={"src r1": ""}), ("dst", "r2", "r1", "src"), 1.2), GAP_MAX)
        self.finish()
        self.assertEqual(self.net.node("dst").counters.source_refused, 0)

    def test_intervals_that_the_others_do_not_have_yet(self) -> None:
        """Idle links of a node whose hellos become rare stay UP, since it says so at once."""
        self.start()
        before = [self.status(*ends).since for ends in (("r2", "src"), ("src", "r2"))]
        self.net.apply("src", file("hello 2 s; dead 6 s;"))
        self.net.run(self.net.now + 15)
        self.assertEqual([self.status(*ends).since for ends in (("r2", "src"), ("src", "r2"))], before)
        self.assertEqual(self.status("r2", "src").state, "UP")

    def test_an_added_link(self) -> None:
        self.check(file(links={"r1 r2": f"{RATE} cost 50;"}), self.few())
        self.assertEqual(self.status("r1", "r2").state, "UP")


class NodesTests(ApplyTestCase):
    def test_an_added_node(self) -> None:
        """In whatever order it and the others get the file; a stream from it works, and the transfer goes on."""
        new = file(links={"r1 r3": f"{RATE} cost 40;"}, nodes=(*OLD_NODES, "r3"))
        for order in (("r3", *OLD_NODES), (*OLD_NODES, "r3"), ("dst", "r3", "r1", "src", "r2")):
            self.start()
            self.transfer()
            longest = 0.0
            self.net.add(new)
            for name in order:
                if name == "r3":
                    self.net.start("r3")
                else:
                    self.net.apply(name, new)
                longest = max(longest, self.watch(self.net.now + 0.1))
            self.assertLess(max(longest, self.watch(self.net.now + 0.4)), GAP_MAX)
            self.finish()
            self.net.run(self.net.now + 7)
            for name in OLD_NODES:
                self.assertTrue(self.net.node(name).is_reachable("r3"), (name, order))
                self.assertTrue(self.net.node("r3").is_reachable(name), (name, order))
            self.net.nodes["dst"].on_event = None
            self.net.command("r3", lambda each, now: each.open_stream("dst", b"target", now))
            self.net.run(self.net.now + 1)
            self.assertTrue(self.events("dst", StreamOpened))
            self.assertIn(LinkUp("r3", ("10.0.0.2", 7400), ("10.0.0.5", 7400)), self.net.nodes["r1"].events)

    def test_a_removed_node(self) -> None:
        """Its streams are reset with the reason, its links are gone, and the transfer over r1 goes on."""
        new = file(links={"src r2": "", "r2 dst": ""}, nodes=("src", "r1", "dst"))
        for order in permutations(("src", "r1", "dst")):
            self.start()
            self.transfer()
            stream: StreamKey = self.net.command("r1", lambda each, now: each.open_stream("r2", b"target", now))
            self.net.run(self.net.now + 0.2)
            self.assertTrue(self.events("r2", StreamOpened))
            self.assertLess(self.apply_in_turn(new, order), GAP_MAX)
            self.finish()
            reason = "node r2 is not in the configuration any more"
            self.assertEqual(self.events("r1", StreamReset), [StreamReset(stream, RESET_PEER_LOST, reason)])
            self.assertIn(PeerUnreachable("r2", reason), self.net.nodes["r1"].events)
            said = self.net.nodes["r2"].events
            down = {event.neighbor: event.reason for event in said if isinstance(event, LinkDown)}
            self.assertEqual(down["src"], "src says: the link is not in the configuration any more")
            for name in ("src", "r1", "dst"):
                status = self.net.node(name).status(self.net.now)
                self.assertNotIn("r2", {*status.sessions, *(link.neighbor for link in status.links)})
                self.assertEqual(len(status.routing.lsas), 3)
            self.check_that_late_commands_do_nothing(stream)

    def check_that_late_commands_do_nothing(self, stream: StreamKey) -> None:
        """An owner may not have read yet that its stream was reset."""
        r1 = self.net.node("r1")
        self.assertEqual(r1.send(stream, b"late", self.net.now), 0)
        r1.consumed(stream, 1, self.net.now)
        r1.finish(stream, self.net.now)
        r1.accept_stream(stream, self.net.now)
        r1.reset(stream, 0, "", self.net.now)

    def test_a_node_that_comes_back(self) -> None:
        """Links and sessions with it begin anew, though it never stopped and did not notice."""
        without = file(links={"src r2": "", "r2 dst": ""}, nodes=("src", "r1", "dst"))
        self.start()
        for round_number in range(3):
            self.net.command("src", lambda each, now: each.open_stream("r2", b"target", now))
            self.net.run(self.net.now + 1)
            self.assertEqual(len(self.events("r2", StreamOpened)), round_number + 1)
            for new in (without, self.old):
                for name in ("src", "r1", "dst"):
                    self.net.apply(name, new)
                self.net.run(self.net.now + 1)
            self.net.run(self.net.now + 6, lambda: self.status("src", "r2").state == "UP")
            self.net.run(self.net.now + 1)
            self.assertTrue(self.net.node("r1").is_reachable("r2"))
        self.assertEqual(len(self.events("src", StreamReset)), 3)
        self.assertEqual(self.net.node("src").counters.refused_lsas, 0)


class RefusalTests(ApplyTestCase):
    def test_what_needs_a_restart_changes_nothing(self) -> None:
        self.start()
        other = NODES["r3"].split('"')[1]
        text = str(NODES["src"])
        for name, changed in (("key", text.replace(text.split('"')[1], other)), ("addr", text.replace(".1:", ".9:"))):
            NODES["changed"] = changed
            new = file(links={"src r1": f"{RATE} cost 90;"}, nodes=("changed", "r1", "r2", "dst"))
            before = self.net.node("src").status(self.net.now)
            refused = self.assertRaises(ConfigurationError, self.net.apply, "src", new)
            self.assertIn("restart the daemon", str(refused), name)
            self.assertIs(self.net.node("src").configuration, self.old)
            self.assertEqual(self.net.node("src").status(self.net.now), before)
        del NODES["changed"]

    def test_the_same_configuration_does_nothing(self) -> None:
        self.start()
        before = self.net.node("src").status(self.net.now)
        self.assertEqual(str(self.net.apply("src", file())), "nothing differs")
        after = self.net.node("src").status(self.net.now)
        self.assertEqual(after.routing, before.routing)

    def test_what_interceptors_act_on_is_replaced(self) -> None:
        self.start()
        NODES["serving"] = NODES["dst"].replace("7400;", "7400; serves 10.9.0.0/16;")
        new = file(nodes=("src", "r1", "r2", "serving"))
        del NODES["serving"]
        before = self.net.node("src").status(self.net.now)
        change = self.net.apply("src", new)
        self.assertEqual(str(change), "serves of node dst: not set -> 10.9.0.0/16")
        self.assertIs(self.net.node("src").configuration, new)
        after = self.net.node("src").status(self.net.now)
        self.assertEqual((after.routing.lsas, after.counters), (before.routing.lsas, before.counters))


class DriftTests(ApplyTestCase):
    def test_differences_are_named_while_they_last(self) -> None:
        self.start()
        new = file(links={"src r1": f"{RATE} cost 12;"})
        self.net.apply("src", new)
        self.net.run(self.net.now + 3)
        self.assertEqual(self.net.node("r1").status(self.net.now).differences["src"], ("cost of link r1 src",))
        self.assertEqual(self.net.node("src").status(self.net.now).differences["r1"], ("cost of link r1 src",))
        self.net.apply("r1", new)
        self.net.run(self.net.now + 3)
        for one, other in (("src", "r1"), ("r1", "src")):
            self.assertEqual(self.net.node(one).status(self.net.now).differences, {})
            self.assertEqual(self.events(one, ConfigurationDiffers)[-1], ConfigurationDiffers(other, ()))


class LeakTests(ApplyTestCase):
    def tables(self, each: Node) -> dict[str, int]:
        """Return the size of everything that a node keeps by node, link or key."""
        links, forwarding, flooding = each._links, each._forwarding, each._routing._flooding
        return {
            "links": len(list(links)),
            "indices": len(links._by_index),
            "keys": len(links._by_key),
            "gate": len(links._gate._reader._static_static),
            "neighbors": len(links._to),
            "up": len(links._up),
            "packet bytes": len(links._packet_bytes),
            "reported": len(links._reported_mtu),
            "sessions": len(each._sessions),
            "reachable": len(each._reachable),
            "lsas": len(list(flooding.lsdb)),
            "expired": len(flooding.lsdb._expired),
            "exchanges": len(flooding._exchanges),
            "routes": len(each.status(0.0).routing.routes),
            "to flood": len(flooding._to_flood),
            "sources": len(forwarding._sources),
            "drift": len(each._drift._others),
        }

    def test_a_hundred_times(self) -> None:
        """r3 comes and goes a hundred times, rates and intervals change, and a transfer goes on."""
        with_r3 = file(
            "hello 50 ms;",
            {"r1 r3": f"{RATE} cost 40;", "src r2": "rate 20 mbit; congestion off; cost 40;"},
            (*OLD_NODES, "r3"),
        )
        self.start()
        self.net.add(with_r3)
        self.net.start("r3")
        self.transfer(15.0)
        before = {name: self.tables(self.net.node(name)) for name in OLD_NODES}
        longest = 0.0
        for turn in range(50):
            for new in (with_r3, self.old):
                for name in OLD_NODES:
                    self.net.apply(name, new)
                longest = max(longest, self.watch(self.net.now + 0.2 + 0.01 * (turn % 7)))
        self.assertLess(longest, GAP_MAX)
        self.assertGreater(len(self.net.nodes["r1"].events), 50, "the link to r3 was up in between")
        self.finish()
        self.net.run(self.net.now + 10)
        self.assertTrue(any(isinstance(event, PeerReachable) and event.peer == "r3"
                            for event in self.net.nodes["r2"].events))  # fmt: skip
        for name in OLD_NODES:
            self.assertEqual(self.tables(self.net.node(name)), before[name])
