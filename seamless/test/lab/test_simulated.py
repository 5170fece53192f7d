"""Whole networks on virtual time: whatever the wires do, every byte arrives once and in order.

Each schedule is one seed: it picks the losses, bursts, reordering, duplication, corruption and outages of three hops,
sends both ways over several streams at once, and checks at every step that what has arrived is a prefix of what was
sent, and at the end that all of it has, with its FIN.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.interfaces import (
    DataReceived,
    Event,
    LinkDown,
    StreamClosed,
    StreamFinished,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.node import Node
from seamless.node.node import COST_INTERVAL

ETC = Path(__file__).parents[3] / "etc"
SCHEDULES = 30
HOPS = (("src", "r1"), ("r1", "r2"), ("r2", "dst"))
WRITE_BYTES = 40_000
WARM_UP_BYTES = 10_000_000
MEASURED_BYTES = 30_000_000


def simulation(seed: int, configuration: Configuration | None = None) -> Simulation:
    """Return the bed of etc/lab.conf, simulated."""
    return Simulation(configuration or load_file(ETC / "lab.conf"), private_key, Random(seed))


def settle(net: Simulation) -> None:
    """Let time pass until every node can reach every other, and a little more."""
    names = list(net.nodes)

    def settled() -> bool:
        return all(net.node(one).is_reachable(other) for one in names for other in names if one != other)

    net.run(net.now + 20.0, settled)
    net.run(net.now + 0.5)


@attrs.define
class Sent:
    """One direction of one stream: what goes in at one node, and what has come out at the other."""

    data: bytes
    written: int = 0
    received: bytearray = attrs.Factory(bytearray)
    finished: bool = False


class Applications:
    """Plays the applications at two nodes: writes all it is given, reads everything, checks every byte."""

    def __init__(self, test: SynchronousTestCase, net: Simulation, client: str, server: str) -> None:
        self.test = test
        self.net = net
        self.client = client
        self.server = server
        self.up: dict[StreamKey, Sent] = {}
        self.down: dict[StreamKey, Sent] = {}
        self.key_at_server: dict[int, StreamKey] = {}
        self.answers: dict[bytes, bytes] = {}
        self.closed = 0
        self.resets: list[StreamReset] = []
        net.nodes[client].on_event = self.at_client
        net.nodes[server].on_event = self.at_server

    def open(self, name: bytes, request: bytes, answer: bytes) -> StreamKey:
        """Open a stream that sends ``request`` and is answered with ``answer``; both ends then finish."""
        self.answers[name] = answer
        stream: StreamKey = self.net.command(self.client, lambda node, now: node.open_stream(self.server, name, now))
        self.up[stream] = Sent(request)
        self.down[stream] = Sent(answer)
        self.net.at(self.net.now, self.pump, self.client, stream, self.up[stream])
        return stream

    def pump(self, name: str, stream: StreamKey, sent: Sent) -> None:
        """Write while there is room, then finish."""

        def write(node: Node, now: float) -> None:
            room = 1
            while room > 0 and sent.written < len(sent.data):
                piece = sent.data[sent.written : sent.written + WRITE_BYTES]
                sent.written += len(piece)
                room = node.send(stream, piece, now)
            if sent.written == len(sent.data):
                sent.written += 1
                node.finish(stream, now)

        if sent.written <= len(sent.data):
            self.net.command(name, write)

    def at_client(self, event: Event) -> None:
        """Hear what happens at the client."""
        if isinstance(event, (StreamOpened, DataReceived, StreamFinished, StreamWritable, StreamReset, StreamClosed)):
            self._stream_event(self.client, event, self.down, self.up)

    def at_server(self, event: Event) -> None:
        """Hear what happens at the server."""
        if isinstance(event, StreamOpened):
            stream = event.stream
            key = (self.net.node(self.server).identifier, stream[1])
            self.key_at_server[stream[1]] = stream
            self.net.at(self.net.now, self._accept, stream, self.down[key])
        elif isinstance(event, (DataReceived, StreamFinished, StreamWritable, StreamReset, StreamClosed)):
            peer = self.net.node(self.server).identifier
            own = {(self.net.node(self.client).identifier, key[1]): sent for key, sent in self.up.items()}
            answers = {(self.net.node(self.client).identifier, key[1]): sent for key, sent in self.down.items()}
            self.test.assertNotEqual(event.stream[0], peer)
            self._stream_event(self.server, event, own, answers)

    def _accept(self, stream: StreamKey, sent: Sent) -> None:
        self.net.command(self.server, lambda node, now: node.accept_stream(stream, now))
        self.pump(self.server, stream, sent)

    def _stream_event(
        self, name: str, event: Event, incoming: dict[StreamKey, Sent], outgoing: dict[StreamKey, Sent]
    ) -> None:
        if isinstance(event, DataReceived):
            sent = incoming[event.stream]
            for chunk in event.chunks:
                start = len(sent.received)
                self.test.assertEqual(chunk, sent.data[start : start + len(chunk)], "not a prefix of what was sent")
                sent.received += chunk
            size = sum(map(len, event.chunks))
            stream = event.stream
            self.net.at(self.net.now, self.net.command, name, lambda node, now: node.consumed(stream, size, now))
        elif isinstance(event, StreamFinished):
            sent = incoming[event.stream]
            self.test.assertEqual(len(sent.received), len(sent.data), "a clean EOF of a short stream")
            sent.finished = True
        elif isinstance(event, StreamWritable):
            self.net.at(self.net.now, self.pump, name, event.stream, outgoing[event.stream])
        elif isinstance(event, StreamReset):
            self.resets.append(event)
        elif isinstance(event, StreamClosed):
            self.closed += 1

    def done(self) -> bool:
        """Return whether every stream ended at both ends."""
        return self.closed == 2 * len(self.up)

    def check(self) -> None:
        """Assert that every byte arrived, and every FIN."""
        self.test.assertEqual(self.resets, [])
        for sent in [*self.up.values(), *self.down.values()]:
            self.test.assertEqual(sha256(sent.received).digest(), sha256(sent.data).digest())
            self.test.assertTrue(sent.finished)


def spoil(net: Simulation, randomness: Random) -> float:
    """Make every direction of every hop bad in its own way; return the sum of what can be lost."""
    total = 0.0
    for one, other in HOPS:
        for first, second in ((one, other), (other, one)):
            loss = randomness.choice((0.0, 0.005, 0.05, 0.2))
            total += loss
            net.impair(
                first,
                second,
                loss=loss,
                burst_packets=randomness.choice((1.0, 1.0, 4.0)),
                duplicate=randomness.choice((0.0, 0.0, 0.02)),
                reorder=randomness.choice((0.0, 0.0, 0.02)),
                reorder_delay=randomness.choice((0.001, 0.004, 0.02)),
                corrupt=randomness.choice((0.0, 0.0, 0.002)),
                queue_bytes=randomness.choice((64_000, 2 << 20)),
            )
    return total


class ScheduleTests(SynchronousTestCase):
    """Thirty seeds over the three hops of the bed; `seamless.lab.schedules` draws networks and faults of more kinds."""

    def run_schedule(self, seed: int) -> Simulation:
        randomness = Random(seed)
        net = simulation(seed)
        spoil(net, randomness)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        for index in range(randomness.randint(1, 4)):
            request = randomness.randbytes(randomness.choice((0, 1, 3_000, 300_000)))
            answer = randomness.randbytes(randomness.choice((0, 1, 3_000, 300_000)))
            applications.open(b"stream %d" % index, request, answer)
        for _ in range(randomness.randint(0, 2)):
            one, other = randomness.choice(HOPS)
            begin = net.now + randomness.uniform(0, 0.2)
            net.at(begin, lambda one=one, other=other: net.impair(one, other, down=True))
            length = randomness.choice((0.05, 0.25, 1.0))
            net.at(begin + length, lambda one=one, other=other: net.impair(one, other, down=False))
        net.run(net.now + 60.0, applications.done)
        self.assertTrue(applications.done(), f"schedule {seed} did not end")
        applications.check()
        return net

    def test_schedules(self) -> None:
        happened = dict.fromkeys(("lost", "reordered", "duplicated", "corrupted", "outage"), 0)
        for seed in range(SCHEDULES):
            net = self.run_schedule(seed)
            for one, other in HOPS:
                for counters in (net.counters(one, other), net.counters(other, one)):
                    for name in happened:
                        happened[name] += getattr(counters, name)
        self.assertGreater(min(happened.values()), 0, f"some fault never happened: {happened}")

    def test_same_seed_same_run(self) -> None:
        first, second = self.run_schedule(7), self.run_schedule(7)
        self.assertEqual((first.now, first.datagrams), (second.now, second.datagrams))


class ThroughputTests(SynchronousTestCase):
    """What recovery costs, in virtual time: no machine's speed is in these numbers."""

    def transfer(self, loss: float) -> float:
        net = simulation(1)
        net.impair("r1", "r2", loss=loss)
        net.impair("r2", "r1", loss=loss)
        settle(net)
        applications = Applications(self, net, "src", "dst")
        stream = applications.open(b"bulk", Random(1).randbytes(WARM_UP_BYTES + MEASURED_BYTES), b"")
        sent = applications.up[stream]
        net.run(net.now + 20.0, lambda: len(sent.received) >= WARM_UP_BYTES)
        begin, warm = net.now, len(sent.received)
        net.run(begin + 20.0, applications.done)
        applications.check()
        self.assertGreater(net.counters("r1", "r2").lost, 0)
        self.check_waste(net)
        return (len(sent.received) - warm) * 8 / (net.now - begin)

    def test_half_a_percent(self) -> None:
        """Half a second of a transfer; how it ends is chance. With four seeds it was 430 to 453 Mb/s."""
        self.assertGreater(self.transfer(0.005), 425e6)

    def test_five_percent(self) -> None:
        self.assertGreater(self.transfer(0.05), 415e6)

    def test_twenty_percent(self) -> None:
        self.assertGreater(self.transfer(0.2), 320e6)

    def check_waste(self, net: Simulation) -> None:
        """Wasted resends are under one percent of what was sent."""
        for name in ("src", "r1", "r2", "dst"):
            for link in net.node(name).status(net.now).links:
                if link.data_sent > 1000:
                    self.assertLess(link.spurious / link.data_sent, 0.01, link)


class FailureTests(SynchronousTestCase):
    """Links and nodes that die."""

    def test_outage_is_noticed_within_the_dead_interval(self) -> None:
        net = simulation(3)
        net.run(1.0)
        net.impair("r1", "r2", down=True)
        net.impair("r2", "r1", down=True)
        downs: list[tuple[float, str]] = []
        net.nodes["r1"].on_event = lambda event: (
            downs.append((net.now, event.neighbor)) if isinstance(event, LinkDown) else None
        )
        net.run(2.0)
        self.assertEqual([neighbor for _, neighbor in downs], ["r2"])
        self.assertLessEqual(downs[0][0], 1.0 + 0.3 + 0.1 + 0.01)

    def test_restarted_relay_loses_nothing(self) -> None:
        net = simulation(4)
        net.run(1.0)
        applications = Applications(self, net, "src", "dst")
        applications.open(b"bulk", Random(2).randbytes(8_000_000), b"thanks")
        net.run(1.05)
        net.crash("r1")
        net.run(3.0)
        self.assertFalse(applications.done())
        net.start("r1")
        net.run(30.0, applications.done)
        applications.check()

    def test_a_relay_beside_another_dies(self) -> None:
        """The receiver waits for the dead interval, and little more: what the dead link gives back goes the other way,
        the oldest first, and is not sent again end to end besides."""
        net = simulation(6, load_file(ETC.parent / "bench" / "lab" / "two-ways.conf"))
        settle(net)
        net.run(net.now + COST_INTERVAL)  # until both ways' costs are measured: by then all goes by r1
        applications = Applications(self, net, "src", "dst")
        stream = applications.open(b"bulk", Random(2).randbytes(20_000_000), b"thanks")
        received = applications.up[stream].received
        begin = net.now
        net.run(begin + 0.3)
        self.assertGreater(net.counters("src", "r1").packets_out, 100)
        net.crash("r1")
        longest, grew_at, so_far = 0.0, net.now, len(received)
        while not applications.done() and net.now < begin + 10:
            net.run(net.now + 0.001)
            if len(received) > so_far:
                longest = max(longest, net.now - grew_at)
                so_far, grew_at = len(received), net.now
        applications.check()
        self.assertGreater(longest, 0.3)
        self.assertLess(longest, 0.3 + 0.04)
        self.assertLess(net.node("src").status(net.now).sessions["dst"].records_lost, 50)

    def test_restarted_egress_resets_what_it_forgot(self) -> None:
        net = simulation(5)
        net.run(1.0)
        applications = Applications(self, net, "src", "dst")
        stream = applications.open(b"bulk", Random(2).randbytes(8_000_000), b"thanks")
        net.run(1.05)
        net.crash("dst")
        net.start("dst")
        net.run(40.0, lambda: bool(applications.resets))
        self.assertEqual([event.stream for event in applications.resets], [stream])
