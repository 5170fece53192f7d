"""Paths that carry less than `mtu` says, from the start or from some moment on, on whole nodes in virtual time."""

from __future__ import annotations

from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.interfaces import DataReceived, Event, LinkDown, LinkMtuChanged, PacketReceived, StreamOpened, Transmit
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.mtu import RAISE_INTERVAL
from seamless.link.sender import MAX_RESENDS
from seamless.link.status import LinkStatus
from seamless.node import Node
from seamless.node.node import COST_INTERVAL
from seamless.test.lab.test_simulated import ETC, HOPS, Applications, settle, simulation
from seamless.wire.header import DATA

TWO_WAYS = ETC.parent / "bench" / "lab" / "two-ways.conf"
BULK_BYTES = 30_000_000


def with_mtus(link_bytes: int, wire_bytes: int) -> Configuration:
    """Return etc/lab.conf with this `mtu` of all links and of all wires."""
    configuration = load_file(ETC / "lab.conf")
    return attrs.evolve(
        configuration,
        links=tuple(attrs.evolve(link, mtu_bytes=link_bytes) for link in configuration.links),
        wires=tuple(attrs.evolve(wire, mtu_bytes=wire_bytes) for wire in configuration.wires),
    )


def narrow(net: Simulation, one: str, other: str, mtu_bytes: int | None, *, both: bool = True) -> None:
    """Let a wire carry IP packets of ``mtu_bytes`` at most."""
    net.impair(one, other, black_hole_bytes=mtu_bytes)
    if both:
        net.impair(other, one, black_hole_bytes=mtu_bytes)


def link(net: Simulation, name: str, neighbor: str) -> LinkStatus:
    """Return what a node says of one link."""
    return next(each for each in net.node(name).status(net.now).links if each.neighbor == neighbor)


class MtuTestCase(SynchronousTestCase):
    """Transfers that are watched."""

    def transfer(self, net: Simulation, size: int = BULK_BYTES) -> float:
        """Move so many bytes from src to dst; return the rate in bits per second."""
        applications = Applications(self, net, "src", "dst")
        begin = net.now
        applications.open(b"bulk", Random(1).randbytes(size), b"thanks")
        net.run(begin + 30.0, applications.done)
        applications.check()
        return size * 8 / (net.now - begin)

    def longest_gap(self, net: Simulation, size: int, *changes: tuple[str, str, int]) -> float:
        """Move ``size`` bytes, narrow wires after 0.2 s, and return the longest time without a new byte after that."""
        applications = Applications(self, net, "src", "dst")
        received = applications.up[applications.open(b"bulk", Random(1).randbytes(size), b"thanks")].received
        net.run(net.now + 0.2)
        for change in changes:
            narrow(net, *change)
        self.assertFalse(applications.done())
        longest, grew_at, so_far, begin = 0.0, net.now, len(received), net.now
        while not applications.done() and net.now < begin + 30:
            net.run(net.now + 0.001)
            if len(received) > so_far:
                longest = max(longest, net.now - grew_at)
                so_far, grew_at = len(received), net.now
        applications.check()
        for one, other, _ in changes:
            self.assertGreater(net.counters(one, other).black_holed, 10)
        return longest


class FromTheStartTests(MtuTestCase):
    """The wires carry 1400, the links may use 1500."""

    def until_reachable(self, net: Simulation) -> None:
        """Let time pass until there is a path, and no longer."""
        net.run(20.0, lambda: net.node("src").is_reachable("dst"))

    def test_works_at_once(self) -> None:
        """A stream that is opened as soon as there is a path has its answer as soon as on wider wires."""
        took = []
        for wire_bytes in (1500, 1400):
            net = simulation(1, with_mtus(1500, wire_bytes))
            self.until_reachable(net)
            applications = Applications(self, net, "src", "dst")
            begin = net.now
            applications.open(b"first", bytes(100_000), bytes(100_000))
            net.run(begin + 20.0, applications.done)
            applications.check()
            took.append(net.now - begin)
        self.assertLess(took[1], took[0] + 0.050)

    def test_throughput(self) -> None:
        wide = simulation(1, with_mtus(1500, 1500))
        settle(wide)
        net = simulation(1, with_mtus(1500, 1400))
        settle(net)
        self.assertGreater(self.transfer(net), 0.95 * self.transfer(wide))
        for one, other in HOPS:
            self.assertGreater(net.counters(one, other).black_holed, 0)
            for name, neighbor in ((one, other), (other, one)):
                found = link(net, name, neighbor)
                self.assertEqual((found.mtu_bytes, found.mtu_state, found.cut), (1400, "search complete", 0))

    def test_found_within_some_round_trips(self) -> None:
        net = simulation(1, with_mtus(1500, 1400))
        net.run(20.0, lambda: link(net, "src", "r1").state == "UP")
        up_at = net.now
        net.run(20.0, lambda: link(net, "src", "r1").mtu_bytes == 1400)
        self.assertLess(net.now - up_at, 8 * 0.010)
        net = simulation(1, with_mtus(1500, 1500))
        net.run(20.0, lambda: link(net, "src", "r1").state == "UP")
        up_at = net.now
        net.run(20.0, lambda: link(net, "src", "r1").mtu_bytes == 1500)
        self.assertLess(net.now - up_at, 2 * 0.010)

    def test_people_hear_of_it(self) -> None:
        """Of what differs from the configuration, once; and nothing where all is as it should be."""
        for wire_bytes, expected in ((1500, []), (1400, [("r1", 1400, 1500)])):
            net = simulation(1, with_mtus(1500, wire_bytes))
            net.run(5.0)
            said = [
                (event.neighbor, event.mtu_bytes, event.configured_bytes)
                for event in net.nodes["src"].events
                if isinstance(event, LinkMtuChanged)
            ]
            self.assertEqual(said, expected)

    def test_each_direction_by_itself(self) -> None:
        net = simulation(1)
        narrow(net, "r1", "r2", 1400, both=False)
        settle(net)
        self.transfer(net, 1_000_000)
        self.assertEqual((link(net, "r1", "r2").mtu_bytes, link(net, "r2", "r1").mtu_bytes), (1400, 1500))

    def test_jumbo(self) -> None:
        rates = {}
        for wire_bytes in (1500, 9000):
            net = simulation(1, with_mtus(9000, wire_bytes))
            settle(net)
            rates[wire_bytes] = self.transfer(net)
            self.assertEqual(link(net, "r1", "r2").mtu_bytes, wire_bytes)
            self.assertEqual(link(net, "dst", "r2").mtu_bytes, wire_bytes)
        net = simulation(1, with_mtus(1500, 1500))
        settle(net)
        self.assertGreater(rates[1500], 0.95 * self.transfer(net))
        self.assertGreater(rates[9000], rates[1500])

    def test_lossy_wires(self) -> None:
        net = simulation(1, with_mtus(1500, 1400))
        for one, other in HOPS:
            net.impair(one, other, loss=0.2)
            net.impair(other, one, loss=0.2)
        settle(net)
        self.transfer(net, 3_000_000)
        self.assertGreater(net.counters("r1", "r2").lost, 100)


class ShrinkingTests(MtuTestCase):
    """The wires carry less in the middle of a transfer."""

    def test_one_hop(self) -> None:
        net = simulation(1)
        settle(net)
        gap = self.longest_gap(net, BULK_BYTES, ("r1", "r2", 1400))
        self.assertLess(gap, 0.3)
        found = link(net, "r1", "r2")
        self.assertEqual((found.mtu_bytes, found.black_holes), (1400, 1))
        self.assertGreater(found.cut, 100)
        self.assertEqual(found.undelivered, 0)

    def test_all_hops(self) -> None:
        net = simulation(2)
        settle(net)
        self.assertLess(self.longest_gap(net, BULK_BYTES, *((*hop, 1400) for hop in HOPS)), 0.5)

    def test_to_the_base(self) -> None:
        net = simulation(3)
        settle(net)
        self.assertLess(self.longest_gap(net, BULK_BYTES, ("src", "r1", 1280), ("r2", "dst", 1300)), 0.5)

    def test_jumbo_to_ethernet(self) -> None:
        net = simulation(4, with_mtus(9000, 9000))
        settle(net)
        self.assertLess(self.longest_gap(net, BULK_BYTES, ("r1", "r2", 1500)), 0.5)
        self.assertEqual(link(net, "r1", "r2").mtu_bytes, 1500)

    def test_below_the_base_the_second_path_is_used(self) -> None:
        net = simulation(6, load_file(TWO_WAYS))
        settle(net)
        net.run(net.now + COST_INTERVAL)  # until both ways' costs are measured: by then all goes by r1
        downs: list[LinkDown] = []
        self.patch(Applications, "at_client", _noting(downs, Applications.at_client))
        gap = self.longest_gap(net, 20_000_000, ("src", "r1", 1200))
        self.assertLess(gap, 0.5)
        (down,) = downs
        self.assertEqual(down.neighbor, "r1")
        self.assertIn("does not carry 1280 bytes", down.reason)
        self.assertEqual((link(net, "src", "r1").state, link(net, "src", "r1").mtu_state), ("DOWN", "error"))
        self.assertEqual(net.node("src").status(net.now).counters.undeliverable, 0)
        narrow(net, "src", "r1", None)
        net.run(net.now + 3.0)
        self.assertEqual((link(net, "src", "r1").state, link(net, "src", "r1").mtu_bytes), ("UP", 1500))

    def test_rises_again(self) -> None:
        net = simulation(1)
        settle(net)
        self.longest_gap(net, BULK_BYTES, ("r1", "r2", 1400))
        narrow(net, "r1", "r2", None)
        net.run(net.now + RAISE_INTERVAL + 1)
        self.assertEqual(link(net, "r1", "r2").mtu_bytes, 1500)
        said = [event.mtu_bytes for event in net.nodes["r1"].events if isinstance(event, LinkMtuChanged)]
        self.assertEqual(said, [1400, 1500])

    def test_one_write(self) -> None:
        """2 kB over a path that shrank: sent again a few times, and there."""
        net = simulation(1)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"keys", b"first", b"")
        net.run(net.now + 1.0, applications.done)
        narrow(net, "r1", "r2", 1400)
        before = link(net, "r1", "r2").resent
        begin = net.now
        applications.open(b"write", bytes(2000), b"")
        net.run(begin + 40.0, applications.done)
        applications.check()
        self.assertLess(net.now - begin, 0.5)
        self.assertGreater(net.counters("r1", "r2").black_holed, 0)
        net.run(begin + 40.0)
        self.assertLess(link(net, "r1", "r2").resent - before, 20)


def _noting(downs: list[LinkDown], then):  # type: ignore[no-untyped-def]
    def at_client(self: Applications, event: Event) -> None:
        if isinstance(event, LinkDown):
            downs.append(event)
        then(self, event)

    return at_client


class NeighborsTests(MtuTestCase):
    """Others on the same link."""

    def test_keystrokes_of_other_nodes_go_on(self) -> None:
        net = simulation(1)
        settle(net)
        late = self.type(net)
        net.run(net.now + 1.0)
        before = len(late)
        self.longest_gap(net, BULK_BYTES, ("r1", "r2", 1400))
        self.assertGreater(len(late), before + 20)
        self.assertLess(max(late[before:]), 0.040)

    def type(self, net: Simulation) -> list[float]:
        """Have r1 send r2 a byte every 20 ms from now on; return how late each is, as they come."""
        late: list[float] = []
        sent: list[float] = []
        stream = net.command("r1", lambda node, now: node.open_stream("r2", b"keys", now))

        def press() -> None:
            sent.append(net.now)
            net.command("r1", lambda node, now: node.send(stream, b"k", now))
            net.at(net.now + 0.020, press)

        def at_r2(event: Event) -> None:
            if isinstance(event, StreamOpened):
                net.at(net.now, accept, event)
            elif isinstance(event, DataReceived):
                count = sum(map(len, event.chunks))
                late.extend(net.now - at for at in sent[len(late) : len(late) + count])
                net.at(net.now, net.command, "r2", lambda node, now: node.consumed(event.stream, count, now))

        def accept(event: StreamOpened) -> None:
            net.command("r2", lambda node, now: node.accept_stream(event.stream, now))

        net.nodes["r2"].on_event = at_r2
        press()
        return late


class WholePacketTests(MtuTestCase):
    """Packets of any length arrive, whatever the wires carry."""

    SIZES = (20, 1300, 1400, 1500, 9000, 65_535)

    def arrived(self, net: Simulation, *, is_recovered: bool = True) -> set[bytes]:
        packets = {bytes((index,)) * size for index, size in enumerate(self.SIZES * 5)}

        def send(node: Node, now: float) -> None:
            for packet in packets:
                node.send_packet("dst", packet, now, is_recovered=is_recovered)

        net.command("src", send)
        net.run(net.now + 2.0)
        events = net.nodes["dst"].events
        got = {event.packet for event in events if isinstance(event, PacketReceived)}
        events.clear()
        return packets - got

    def test_narrow_from_the_start(self) -> None:
        for is_recovered in (True, False):
            net = simulation(1, with_mtus(1500, 1400))
            settle(net)
            net.impair("r1", "r2", loss=0.0)
            self.assertEqual(self.arrived(net, is_recovered=is_recovered), set())

    def test_narrow_in_the_middle(self) -> None:
        net = simulation(1)
        settle(net)
        self.assertEqual(self.arrived(net), set())
        narrow(net, "r1", "r2", 1350)
        self.assertEqual(self.arrived(net), set())
        self.assertEqual(link(net, "r1", "r2").mtu_bytes, 1348)
        self.assertGreater(link(net, "r1", "r2").cut, 0)


class Deaf(Simulation):
    """A network in which r1 gets nothing but CONTROL from src, of any size."""

    dropped = 0
    is_deaf = False

    def _transmit(self, transmit: Transmit) -> None:
        if self.is_deaf and transmit.remote[0] == "10.1.1.2" and transmit.buffers[0][0] == DATA:
            self.dropped += transmit.count
        else:
            super()._transmit(transmit)


class GivenBackTests(MtuTestCase):
    """What a link loses again and again, though its neighbor is heard."""

    def deaf(self, configuration: Configuration) -> Deaf:
        net = Deaf(configuration, private_key, Random(1))
        settle(net)
        net.run(net.now + COST_INTERVAL)
        self.transfer(net, 1000)
        net.is_deaf = True
        return net

    def test_another_way(self) -> None:
        net = self.deaf(load_file(TWO_WAYS))
        self.transfer(net, 1000)
        self.assertGreater(net.dropped, MAX_RESENDS)
        self.assertEqual(link(net, "src", "r1").state, "UP")
        self.assertGreater(net.node("src").status(net.now).counters.rerouted, 0)

    def test_no_other_way(self) -> None:
        """It ends: each packet goes a bounded number of times."""
        net = self.deaf(load_file(ETC / "lab.conf"))
        packets = [bytes((index,)) * 1000 for index in range(20)]

        def send(node: Node, now: float) -> None:
            for packet in packets:
                node.send_packet("dst", packet, now)

        net.command("src", send)
        net.run(net.now + 30.0)
        status = link(net, "src", "r1")
        # One record carries them, in fifteen packets or so; the session's own probes and acknowledgements come besides.
        self.assertGreaterEqual(status.undelivered, 14)
        self.assertEqual(net.node("src").status(net.now).counters.undeliverable, status.undelivered)
        self.assertLess(net.dropped, (MAX_RESENDS + 1) * (status.undelivered + 10) * 3)
        before = net.dropped
        net.run(net.now + 30.0)
        self.assertLess(net.dropped - before, 1000)
