"""How routing grows with the overlay: a ring with as many random chords as nodes comes up, loses a link, and rests.

The table: nodes and links; virtual seconds from the first link until all nodes have all paths, and from the death of a
chord until all have paths without it (of which the dead interval is 0.3 s); what routing sends per node, with the
headers and tags of its datagrams, for both and per hour of quiet; processor seconds per node for both; memory per node;
how often a node announced itself and computed its table while all came up. 1,000 nodes take about nine minutes.

What runs is the routing core of each node (`seamless.routing.routing`) over links of 1 to 20 ms that lose 1 % and
resend (`seamless.test.routing.network`), with neither hellos nor data; links come up at random within a second.
Signatures are really made. They are verified once for the whole process, and each further verification is charged at
what one was measured to cost, since otherwise the table for 1,000 nodes would take an hour. The paths of twenty nodes
are compared with networkx. Python's search for cyclic garbage is off, as all nodes are in one process: it would walk
over the databases of all of them, again and again, which took a third of the time with 500 nodes.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

import networkx

from bench.experiment import Conditions
from seamless.crypto.keys import verify
from seamless.routing.origination import REFRESH_INTERVAL, REFRESH_JITTER_RATIO
from seamless.test.routing.network import Network, make_core

DEAD_INTERVAL: Final = 0.3
COMING_UP_SECONDS: Final = 1.0
LOSS: Final = 0.01
DATAGRAM_BYTES: Final = 1200
"""Of messages in one datagram, about."""
OVERHEAD_BYTES: Final = 28 + 28
"""IP and UDP; word, number and tag."""
FRAME_BYTES: Final = 3
COMPARED_NODES: Final = 20
SIZES: Final = (50, 100, 200, 500, 1000)


class Verifier:
    """Verifies each signature once, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 0.0
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def __call__(self, public_key: bytes, signature: bytes, message: bytes) -> bool:
        """Return whether the signature is good."""
        self.asked += 1
        known = self._known.get((signature, message))
        if known is None:
            begin = time.process_time()
            known = self._known[signature, message] = verify(public_key, signature, message)
            self.seconds += time.process_time() - begin
        return known

    @property
    def price(self) -> float:
        """Return the seconds that one verification takes."""
        return self.seconds / len(self._known)

    @property
    def uncharged(self) -> float:
        """Return the seconds that all verifications but the real ones would have taken."""
        return (self.asked - len(self._known)) * self.price


class Measured(Network):
    """A network that counts the bytes of datagrams and the time that cores take."""

    def __init__(self, costs: dict[tuple[int, int], int], verifier: Verifier) -> None:
        super().__init__(costs, seed=1, loss=LOSS, max_delay=0.02, verify=verifier)
        self.sent_bytes = 0
        self.core_seconds = 0.0

    def _drain(self, node: int, begin: float | None = None) -> None:
        if begin is None:
            begin = time.process_time()
        core = self.cores[node]
        messages = core.lsas_to_flood()
        changed = core.next_event()
        self._set_timer(node)
        self.core_seconds += time.process_time() - begin
        if changed is not None:
            self.changed_at = self.now
        to: dict[int, int] = {}
        for neighbor, data in messages:
            self.send(node, neighbor, data)
            to[neighbor] = to.get(neighbor, 0) + len(data) + FRAME_BYTES
        for size in to.values():
            self.sent_bytes += size + -(-size // DATAGRAM_BYTES) * OVERHEAD_BYTES

    def _deliver(self, times_cut: int, node: int, neighbor: int, data: bytes) -> None:
        if times_cut == self.times_cut[frozenset((node, neighbor))]:
            begin = time.process_time()
            self.cores[neighbor].receive_lsa(data, node, self.now)
            self._drain(neighbor, begin)

    def die(self, one: int, other: int) -> None:
        """Stop the link between two nodes; they notice after the dead interval."""
        self.times_cut[frozenset((one, other))] += 1
        self.run(DEAD_INTERVAL)
        self.cut(one, other)


def ring_with_chords(nodes: int, random: Random) -> dict[tuple[int, int], int]:
    """Return the costs of the links, of which each node has four on average."""
    links = {(node, node + 1) for node in range(nodes - 1)} | {(0, nodes - 1)}
    while len(links) < 2 * nodes:
        one, other = sorted(random.sample(range(nodes), 2))
        links.add((one, other))
    return {link: random.randint(50, 200) for link in sorted(links)}


def come_up(network: Network, random: Random, seconds: float) -> None:
    """Join all links, in any order, within a second; then let so many virtual seconds pass."""
    links = sorted(network.costs, key=sorted)
    random.shuffle(links)
    for link in links:
        network.join(*sorted(link))
        network.run(COMING_UP_SECONDS / len(links))
    network.run(seconds)


def memory_per_node(network: Network) -> int:
    """Return the bytes that one more core takes, which knows all the others know."""
    local = min(network.cores)
    datas = [bytes(bytearray(entry.data)) for entry in network.cores[local].status().lsas if entry.lsa.origin != local]
    (neighbor, *_) = sorted(next(iter(pair - {local})) for pair in network.up if local in pair)
    tracemalloc.start()
    core = make_core(local, network.topology, verify=lambda *_: True)
    core.link_up(neighbor, 100, 1400, 0.0)
    for data in datas:
        core.receive_lsa(bytes(bytearray(data)), neighbor, 0.0)
    core.handle_timeout(10.0)
    core.next_event()
    core.lsas_to_flood()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used


def compare(network: Network) -> None:
    """Check the paths of some nodes against networkx."""
    graph = network.graph()
    for source in sorted(network.cores)[:: max(1, len(network.cores) // COMPARED_NODES)]:
        expected = networkx.single_source_dijkstra_path_length(graph, source)
        routes = {route.destination: route.distance for route in network.cores[source].status().routes}
        assert {source: 0, **routes} == expected, f"node {source} has other paths than networkx"


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Let no search for cyclic garbage count, and take place, meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(nodes: int, seconds: float) -> str:
    """Return one line of the table."""
    random = Random(nodes)
    verifier = Verifier()
    network = Measured(ring_with_chords(nodes, random), verifier)
    come_up(network, random, seconds)
    compare(network)
    up_seconds, up_bytes = network.changed_at, network.sent_bytes
    up_cpu = network.core_seconds + verifier.uncharged
    computations = sum(core.counters.table_computations for core in network.cores.values())
    originated = sum(core.counters.lsas_originated for core in network.cores.values())
    begin = network.now
    chord = next(tuple(sorted(pair)) for pair in network.up if max(pair) - min(pair) > 1)
    network.die(*chord)
    network.run(seconds)
    compare(network)
    death_seconds = network.changed_at - begin
    death_bytes, death_cpu = network.sent_bytes - up_bytes, network.core_seconds + verifier.uncharged - up_cpu
    # A refresh is flooded as a change is, by every node instead of two.
    refreshes = 3600 / (REFRESH_INTERVAL * (1 - REFRESH_JITTER_RATIO / 2))
    quiet_bytes = death_bytes / 2 * refreshes
    figures = (
        f"{nodes}",
        f"{len(network.costs)}",
        f"{up_seconds:.2f}",
        f"{death_seconds:.2f}",
        f"{up_bytes / nodes / 1e3:.0f}",
        f"{death_bytes / nodes / 1e3:.2f}",
        f"{quiet_bytes / 1e3:.0f}",
        f"{up_cpu / nodes:.2f}",
        f"{death_cpu / nodes * 1e3:.1f}",
        f"{memory_per_node(network) / 1e6:.2f}",
    )
    each = f"{originated / nodes:6.1f} {computations / nodes:7.1f}"
    return " ".join(f"{figure:>8}" for figure in figures) + each


def run(conditions: Conditions) -> None:
    """Print the table, a row for each number of nodes."""
    columns = ("nodes", "links", "up s", "death s", "up kB", "death kB", "hour kB", "up CPU s", "death CPU ms", "MB")
    print(" ".join(f"{column:>8}" for column in columns) + "  LSAs  tables")
    for nodes in conditions.cases(SIZES):
        with without_cycle_search():
            print(measure(nodes, conditions.seconds), flush=True)
