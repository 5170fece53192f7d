"""What a wake-up of a node costs, in calls of Python functions: what has nothing to do costs next to nothing."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.interfaces import DataReceived, Event, StreamOpened
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.node import Node
from seamless.test.lab.test_simulated import settle
from seamless.test.node.counted import Wakeups, count_wakeups
from seamless.test.node.network import public_key

KEYSTROKES = 40
KEYSTROKE_BYTES = 64
INTERVAL = 0.020


def star(leaves: int) -> Simulation:
    """Return a hub with so many leaves, of which leaf1 and leaf2 talk."""
    numbers = range(1, leaves + 1)
    addresses = ", ".join(f"10.0.{number}.1:7400" for number in numbers)
    blocks = ["overlay star { }", f'node hub {{ address {addresses}; key "{public_key("hub")}"; }} host hub {{ }}']
    for number in numbers:
        name, ends = f"leaf{number}", f"10.0.{number}.1 10.0.{number}.2"
        blocks += [
            f'node {name} {{ address 10.0.{number}.2:7400; key "{public_key(name)}"; }} host {name} {{ }}',
            f"link hub {name} {{ between {ends}; rate 100 mbit; congestion off; }}",
            f"wire hub {name} {{ between 10.0.{number}.1/30 10.0.{number}.2/30; delay 2 ms; }}",
        ]
    return Simulation(load_text("\n".join(blocks), "star.conf"), private_key, Random(1))


class Echoes:
    """Keystrokes of leaf1, and leaf2's echoes of them."""

    def __init__(self, net: Simulation) -> None:
        self.net = net
        self.back = 0
        net.nodes["leaf1"].on_event = self._at_client
        net.nodes["leaf2"].on_event = self._at_server
        self.stream = net.command("leaf1", lambda node, now: node.open_stream("leaf2", b"echo", now))

    def _at_client(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.back += sum(map(len, event.chunks))

    def _at_server(self, event: Event) -> None:
        if isinstance(event, (StreamOpened, DataReceived)):
            self.net.at(self.net.now, self.net.command, "leaf2", lambda node, now: self._answer(node, event, now))

    def _answer(self, node: Node, event: StreamOpened | DataReceived, now: float) -> None:
        if isinstance(event, StreamOpened):
            node.accept_stream(event.stream, now)
            return
        data = b"".join(event.chunks)
        node.consumed(event.stream, len(data), now)
        node.send(event.stream, data, now)

    def strike(self) -> None:
        """Send one keystroke, and let time pass until the next."""
        self.net.command("leaf1", lambda node, now: node.send(self.stream, bytes(KEYSTROKE_BYTES), now))
        self.net.run(self.net.now + INTERVAL)


def wakeups_of_hub(test: SynchronousTestCase, leaves: int) -> Wakeups:
    """Return what the hub's wake-ups cost while two of its leaves exchange keystrokes and echoes."""
    net = star(leaves)
    settle(net)
    echoes = Echoes(net)
    echoes.strike()
    counted = count_wakeups(net, "hub")
    for _ in range(KEYSTROKES):
        echoes.strike()
    test.assertEqual(echoes.back, (1 + KEYSTROKES) * KEYSTROKE_BYTES)
    test.assertGreaterEqual(counted.wakeups, 2 * KEYSTROKES)
    return counted


class RelayTests(SynchronousTestCase):
    """The wake-ups of a relay that forwards keystrokes."""

    def test_links_that_are_idle(self) -> None:
        """Thirty more links, on which nothing but hellos happens, cost a wake-up less than three calls each."""
        few, many = wakeups_of_hub(self, 3), wakeups_of_hub(self, 33)
        self.assertGreater(many.wakeups, few.wakeups)
        self.assertLess(many.each - few.each, 3 * 30)
