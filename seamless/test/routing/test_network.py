"""Networks of routing cores in virtual time: all agree with one another and with networkx, whatever befell links."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.lsdb import MAX_AGE_SECONDS
from seamless.routing.origination import REFRESH_INTERVAL
from seamless.test.routing.network import INCARNATION, Network


def random_costs(nodes: int, extra_links: int, random: Random) -> dict[tuple[int, int], int]:
    """Return a connected network: a random tree and some links more. Few different costs, so that paths often tie."""
    links = {(random.randrange(node), node) for node in range(1, nodes)}
    while len(links) < nodes - 1 + extra_links:
        one, other = sorted(random.sample(range(nodes), 2))
        links.add((one, other))
    return {link: random.randint(1, 5) for link in sorted(links)}


class ConvergenceTests(SynchronousTestCase):
    def assertAgree(self, network: Network) -> None:
        self.assertEqual(network.disagreements(), [])

    def test_fifty_nodes(self) -> None:
        network = Network(random_costs(50, 40, Random(1)), leaves=[7, 11, 13], seed=1, loss=0.1)
        network.join_all()
        network.run(2.0)
        self.assertAgree(network)
        self.assertGreater(network.resent, 100)

    def test_seeded_cuts_joins_and_costs_under_loss(self) -> None:
        for seed in range(12):
            random = Random(seed)
            network = Network(random_costs(12, 10, random), leaves=[3, 5], seed=seed, loss=0.2, max_delay=0.05)
            network.join_all()
            for _ in range(40):
                network.run(random.uniform(0.0, 0.1))
                one, other = sorted(random.choice(sorted(network.costs, key=sorted)))
                if frozenset((one, other)) in network.up:
                    network.cut(one, other)
                else:
                    network.join(one, other)
            network.run(3.0)
            self.assertAgree(network)
            self.assertGreater(network.resent, 20)
            self.assertGreater(network.lost_in_flight, 0)

    def test_partition_heals(self) -> None:
        """Two halves live apart for longer than an LSA lives, change meanwhile, and find together again."""
        costs = {(0, 1): 1, (1, 2): 1, (2, 0): 1, (2, 3): 1, (0, 5): 1, (3, 4): 1, (4, 5): 1, (3, 5): 3}
        network = Network(costs, seed=3, loss=0.1)
        network.join_all()
        network.run(1.0)
        self.assertEqual(network.cores[1].path(4), (1, 0, 5, 4))
        for bridge in ((2, 3), (0, 5)):
            network.cut(*bridge)
        network.run(1.0)
        self.assertAgree(network)
        self.assertIsNone(network.cores[1].next_hop(4))
        network.cut(4, 5)
        network.run(MAX_AGE_SECONDS + REFRESH_INTERVAL)
        self.assertEqual(network.cores[1].counters.lsas_expired, 3)
        network.join(0, 5)
        network.run(1.0)
        self.assertAgree(network)
        self.assertEqual(network.cores[1].path(4), (1, 0, 5, 3, 4))

    def test_one_end_that_does_not_notice_leads_nobody_into_a_dead_link(self) -> None:
        network = Network({(0, 1): 1, (1, 2): 1, (0, 2): 9})
        network.join_all()
        network.run(1.0)
        network.cut_at_one_end(1, 2)
        network.run(1.0)
        self.assertEqual(network.cores[2].path(1), (2, 0, 1))
        self.assertEqual(network.cores[0].path(2), (0, 2))

    def test_quiet_network_only_refreshes(self) -> None:
        network = Network(random_costs(10, 5, Random(2)), seed=2)
        network.join_all()
        network.run(1.0)
        computed = {node: core.counters.table_computations for node, core in network.cores.items()}
        delivered = network.delivered
        network.run(4 * MAX_AGE_SECONDS)
        self.assertAgree(network)
        self.assertEqual(computed, {node: core.counters.table_computations for node, core in network.cores.items()})
        refreshes = 4 * MAX_AGE_SECONDS / REFRESH_INTERVAL * 10 / 0.75
        self.assertLess(network.delivered - delivered, refreshes * 2 * len(network.costs))
        self.assertEqual(sum(core.counters.lsas_expired for core in network.cores.values()), 0)


class ScaleTests(SynchronousTestCase):
    """A ring with as many random chords as nodes; `bench/micro/scale.py` has more of them, and what it costs."""

    DEAD_INTERVAL = 0.3

    def setUp(self) -> None:
        random = Random(60)
        links = {(node, node + 1) for node in range(59)} | {(0, 59)}
        while len(links) < 120:
            one, other = sorted(random.sample(range(60), 2))
            links.add((one, other))
        self.network = Network({link: random.randint(50, 200) for link in sorted(links)}, seed=60, loss=0.05)
        for link in sorted(links, key=lambda link: random.random()):
            self.network.join(*link)
            self.network.run(1 / len(links))
        self.network.run(2.0)

    def test_all_agree_soon_after_a_link_died(self) -> None:
        """Within the dead interval and a few link latencies (10 ms at most, and as much again for each loss)."""
        network = self.network
        self.assertEqual(network.disagreements(), [])
        self.assertLess(network.changed_at, 1.0 + 0.2)
        died_at = network.now
        chord = next(tuple(sorted(pair)) for pair in network.up if max(pair) - min(pair) > 1)
        network.times_cut[frozenset(chord)] += 1  # nothing arrives from now on
        network.run(self.DEAD_INTERVAL)
        network.cut(*chord)
        network.run(2.0)
        self.assertEqual(network.disagreements(), [])
        self.assertGreater(network.changed_at, died_at)
        self.assertLess(network.changed_at - died_at, self.DEAD_INTERVAL + 0.15)

    def test_table_is_computed_once_for_a_burst(self) -> None:
        """A hundred costs change at once, wherever; no core computes for each of them."""
        network = self.network
        before = {node: core.counters.table_computations for node, core in network.cores.items()}
        changed = {node: core.counters.lsas_changed for node, core in network.cores.items()}
        for node, neighbor in sorted(map(sorted, network.up))[:100]:
            network.set_cost(node, neighbor, 1000)
        network.run(2.0)
        for node, core in network.cores.items():
            self.assertGreater(core.counters.lsas_changed - changed[node], 30)
            self.assertLess(core.counters.table_computations - before[node], 30)

    def test_a_link_that_comes_back_costs_summaries_and_not_the_database(self) -> None:
        network = self.network
        one, other = sorted(next(iter(network.up)))
        network.cut(one, other)
        network.run(1.0)
        sent: list[bytes] = []
        send = network.send

        def counted(node: int, neighbor: int, data: bytes) -> None:
            if {node, neighbor} == {one, other}:
                sent.append(data)
            send(node, neighbor, data)

        network.send = counted  # type: ignore[method-assign]
        network.join(one, other)
        network.run(1.0)
        self.assertEqual(network.disagreements(), [])
        whole = 2 * sum(len(entry.data) for entry in network.cores[one].status().lsas)
        self.assertLess(sum(map(len, sent)), whole / 2)
        self.assertGreaterEqual(len(sent), 4, "two summaries each way at least")


class RestartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network({(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, seed=4, loss=0.1)
        self.network.join_all()
        self.network.run(1.0)

    def test_restarted_node_is_believed_at_once(self) -> None:
        self.network.restart(1, INCARNATION + 1)
        self.network.run(1.0)
        self.assertEqual(self.network.disagreements(), [])

    def test_restarted_node_whose_clock_was_set_back_is_believed_too(self) -> None:
        for seconds_down in (0.0, MAX_AGE_SECONDS + REFRESH_INTERVAL):
            with self.subTest(seconds_down=seconds_down):
                self.network.cut(0, 1)
                self.network.cut(1, 2)
                self.network.run(seconds_down)
                self.network.restart(1, INCARNATION - 1_000_000_000)
                self.network.join(0, 1)
                self.network.join(1, 2)
                self.network.run(3.0)
                self.assertGreater(self.network.cores[1].counters.jumps, 0)
                self.assertEqual(self.network.disagreements(), [])
