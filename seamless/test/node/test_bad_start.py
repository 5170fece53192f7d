"""Links that come up over the worst of wires."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.test.node.network import node

LINKS = 400


def pair_of_nodes(wire: str, seed: int) -> Simulation:
    """Return two nodes and a link between them over a wire."""
    text = "\n".join(
        (
            "overlay pair { }",
            node("a", "10.0.1.1"),
            node("b", "10.0.1.2"),
            "host a { } host b { }",
            f"wire a b {{ between 10.0.1.1/24 10.0.1.2/24; {wire} }}",
            "link a b { rate 20 mbit; congestion off; }",
        )
    )
    return Simulation(load_text(text, "pair.conf"), private_key, Random(seed))


def seconds_to_up(net: Simulation) -> float:
    """Return when both ends were UP first; infinity: not within a minute."""

    def is_up() -> bool:
        return all(link.state == "UP" for name in "ab" for link in net.node(name).status(net.now).links)

    net.run(60.0, is_up)
    return net.now if is_up() else float("inf")


class BadStartTests(SynchronousTestCase):
    """A link's first seconds."""

    def test_loss(self) -> None:
        """Four hundred links at 30 % loss both ways: each is up within ten seconds."""
        times, lost = [], 0
        for seed in range(LINKS):
            net = pair_of_nodes("delay 5 ms; loss 30%;", seed)
            times.append(seconds_to_up(net))
            lost += net.counters("a", "b").lost
        self.assertGreater(lost, LINKS)
        self.assertLess(max(times), 10.0)
        self.assertLess(sorted(times)[LINKS // 2], 1.0)

    def test_round_trip(self) -> None:
        """A round trip that is longer than the first retry intervals: the link comes up, if later."""
        for round_trip, bound in ((0.01, 0.1), (0.6, 6.0), (0.9, 12.0)):
            net = pair_of_nodes(f"delay {round_trip * 500:g} ms;", 1)
            self.assertLess(seconds_to_up(net), bound)
