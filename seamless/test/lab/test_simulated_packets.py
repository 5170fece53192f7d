"""Whole packets over whole nodes on virtual time: how late they are when links lose, and what is not sent again."""

from __future__ import annotations

import struct
from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.interfaces import Event, PacketReceived
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.sender import BATCH_INTERVAL
from seamless.test.lab.test_simulated import ETC, settle
from seamless.test.session.test_packets import ipv4

INTERVAL = 0.020
EXCHANGES = 1500
HOP_RTT = 0.010
PATH_RTT = 0.030
MARGIN = 0.005
LAYOUT = struct.Struct(">d56x")
IPV4_AND_PORTS = 24


def bed(loss: float, rate_bps: int = 500_000_000) -> Simulation:
    """Return the bed of etc/lab.conf, settled, with this loss on its middle hop and links of this rate."""
    configuration = load_file(ETC / "lab.conf")
    links = tuple(attrs.evolve(link, rate_bps=rate_bps) for link in configuration.links)
    wires = tuple(
        attrs.evolve(
            wire, forward=attrs.evolve(wire.forward, loss=loss), backward=attrs.evolve(wire.backward, loss=loss)
        )
        if wire.ends == ("r1", "r2")
        else wire
        for wire in configuration.wires
    )
    net = Simulation(attrs.evolve(configuration, wires=wires, links=links), private_key, Random(1))
    settle(net)
    return net


class RecoveryTests(SynchronousTestCase):
    """What links send again, and what they do not."""

    def arrived(self, is_recovered: bool) -> int:
        """Return how many of 2000 packets arrive."""
        net = bed(0.05)
        packets = [number.to_bytes(2, "big") * 500 for number in range(2000)]

        def send(packet: bytes) -> None:
            net.command("src", lambda node, now: node.send_packet("dst", packet, now, is_recovered=is_recovered))

        begin = net.now + 0.1
        send(b"to have keys")
        for number, packet in enumerate(packets):
            net.at(begin + number * 0.0005, send, packet)
        net.run(begin + 2.0)
        got = [event.packet for event in net.nodes["dst"].events if isinstance(event, PacketReceived)]
        self.assertGreater(net.counters("r1", "r2").lost, 50)
        self.assertEqual(len(set(got)), len(got))
        return len(set(got) & set(packets))

    def test_reliable(self) -> None:
        self.assertEqual(self.arrived(is_recovered=True), 2000)

    def test_none(self) -> None:
        arrived = self.arrived(is_recovered=False)
        self.assertGreater(arrived, 1850)
        self.assertLess(arrived, 1950)


class SparseTests(SynchronousTestCase):
    """A request and an answer of 64 bytes every 20 ms for half a minute, at 5 % loss both ways on the middle hop."""

    def exchange(self, loss: float) -> tuple[Simulation, list[float]]:
        net = bed(loss)
        took: list[float] = []

        def send(near: str, far: str, packet: bytes) -> None:
            net.command(near, lambda node, now: node.send_packet(far, packet, now))

        def answer(event: Event) -> None:
            if isinstance(event, PacketReceived):
                net.at(net.now, send, "dst", "src", event.packet)

        def receive(event: Event) -> None:
            if isinstance(event, PacketReceived):
                took.append(net.now - LAYOUT.unpack(event.packet)[0])

        def ask() -> None:
            send("src", "dst", LAYOUT.pack(net.now))

        net.nodes["dst"].on_event = answer
        net.nodes["src"].on_event = receive
        # Keys, round trip times, and how lossy the hop is.
        for number in range(200):
            net.at(net.now + number * INTERVAL, ask)
        net.run(net.now + 200 * INTERVAL + 1)
        took.clear()
        for number in range(EXCHANGES):
            net.at(net.now + number * INTERVAL, ask)
        net.run(net.now + EXCHANGES * INTERVAL + 1)
        return net, sorted(took)

    def test_lossy(self) -> None:
        net, took = self.exchange(0.05)
        self.assertEqual(len(took), EXCHANGES)
        self.assertGreater(net.counters("r1", "r2").lost, EXCHANGES * 0.05)
        self.assertLess(took[int(EXCHANGES * 0.5)], PATH_RTT + MARGIN)
        self.assertLess(took[-1], PATH_RTT + 2 * HOP_RTT + MARGIN)

    def test_clean(self) -> None:
        _, took = self.exchange(0.0)
        self.assertEqual(len(took), EXCHANGES)
        self.assertLess(took[-1], PATH_RTT + MARGIN)


class TrainTests(SynchronousTestCase):
    """TCP's super-packets, 5 kB every millisecond, with nothing else on the way."""

    def test_nothing_is_gathered_where_there_is_room(self) -> None:
        net = bed(0.0)
        late: list[float] = []

        def receive(event: Event) -> None:
            if isinstance(event, PacketReceived):
                late.append(net.now - LAYOUT.unpack(event.packet[: LAYOUT.size])[0] - PATH_RTT / 2)

        def send() -> None:
            packet = LAYOUT.pack(net.now) + bytes(5000 - LAYOUT.size)
            net.command("src", lambda node, now: node.send_packet("dst", packet, now))

        send()
        net.run(net.now + 1.0)
        net.nodes["dst"].on_event = receive
        begin = net.now
        for number in range(1000):
            net.at(begin + number * 0.001, send)
        net.run(begin + 2.0)
        self.assertEqual(len(late), 1000)
        self.assertLess(max(late), BATCH_INTERVAL, "three hops could have taken as much each")


class ConversationTests(SynchronousTestCase):
    """A keystroke every 50 ms beside another conversation that sends twice what the links take."""

    def test_a_keystroke_does_not_wait_for_bulk(self) -> None:
        net = bed(0.0, rate_bps=20_000_000)
        late: list[float] = []
        bulk = ipv4(1, 1400)

        def receive(event: Event) -> None:
            if isinstance(event, PacketReceived) and len(event.packet) < 1400:
                late.append(net.now - LAYOUT.unpack_from(event.packet, IPV4_AND_PORTS)[0] - PATH_RTT / 2)

        def send(packet: bytes) -> None:
            net.command("src", lambda node, now: node.send_packet("dst", packet, now))

        def press() -> None:
            send(ipv4(2, IPV4_AND_PORTS)[:IPV4_AND_PORTS] + LAYOUT.pack(net.now))

        press()
        net.run(net.now + 1.0)
        net.nodes["dst"].on_event = receive
        begin = net.now
        for number in range(5000):
            net.at(begin + number * 0.000_28, send, bulk)
        for number in range(28):
            net.at(begin + number * 0.050, press)
        net.run(begin + 3.0)
        self.assertGreater(net.node("src").status(net.now).sessions["dst"].packets_dropped, 100, "it was too much")
        self.assertEqual(len(late), 28)
        self.assertLess(max(late), 0.1, "a queue of 2 MiB at 20 Mb/s takes 0.8 s")
