"""What a wake-up of a node costs, in calls of Python functions: what has nothing to do costs next to nothing."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.test.lab.test_simulated import settle
from seamless.test.node.counted import Wakeups, count_wakeups
from seamless.test.node.echoes import KEYSTROKE_BYTES, Echoes
from seamless.test.node.network import public_key

KEYSTROKES = 40


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


def wakeups_of_hub(test: SynchronousTestCase, leaves: int) -> Wakeups:
    """Return what the hub's wake-ups cost while two of its leaves exchange keystrokes and echoes."""
    net = star(leaves)
    settle(net)
    echoes = Echoes(net, "leaf1", "leaf2")
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
