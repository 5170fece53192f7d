"""How routing grows with the overlay: a ring with as many random chords as nodes comes up, loses a link, and rests.

    python bench/scale.py [NODES ...]        # 100, 500 and 1000 when left out; 1000 take about ten minutes

prints a table: the nodes and links; virtual seconds from the first link until all nodes have all paths, and from the
death of a chord until all have paths without it (of which the dead interval is 0.3 s); what routing sends per node in
kB, with the headers and tags of its datagrams, for both, and per hour of quiet; processor seconds per node for both;
and memory per node.

What runs is the routing core of each node (`seamless.routing.routing`) over links of 1 to 20 ms that lose 1 % and
resend (`seamless.test.routing.network`), with neither hellos nor data; links come up at random within a second.
Signatures are really made. They are verified once for the whole process, and each further verification is charged at
what one was measured to cost, since otherwise the table for 1,000 nodes would take an hour. The paths of twenty nodes
are compared with networkx.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from random import Random
from typing import Final

from seamless.crypto.keys import verify
from seamless.routing.origination import REFRESH_INTERVAL, REFRESH_JITTER_RATIO
from seamless.test.routing.network import Network, make_core

DEAD_INTERVAL: Final = 0.3
COMING_UP_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 6.0
"""Virtual: longer than anything that was seen to go on."""
LOSS: Final = 0.01
DATAGRAM_BYTES: Final = 1200
"""Of messages in one datagram, about."""
OVERHEAD_BYTES: Final = 28 + 28
"""IP and UDP; word, number and tag."""
FRAME_BYTES: Final = 3
COMPARED_NODES: Final = 20
DEFAULT_SIZES: Final = (100, 500, 1000)


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

    def _drain(self, node: int) -> None:
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

    def _deliver(self, at: float, serial: int, times_cut: int, node: int, neighbor: int, data: bytes) -> None:
        self.now = at
        if times_cut == self.times_cut[frozenset((node, neighbor))]:
            begin = time.process_time()
            self.cores[neighbor].receive_lsa(data, node, at)
            self.core_seconds += time.process_time() - begin
            self._drain(neighbor)

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


def come_up(network: Network, random: Random) -> None:
    """Join all links, in any order, within a second."""
    links = sorted(network.costs, key=sorted)
    random.shuffle(links)
    for link in links:
        network.join(*sorted(link))
        network.run(COMING_UP_SECONDS / len(links))
    network.run(SETTLE_SECONDS)


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
    import networkx

    graph = network.graph()
    for source in sorted(network.cores)[:: max(1, len(network.cores) // COMPARED_NODES)]:
        expected = networkx.single_source_dijkstra_path_length(graph, source)
        routes = {route.destination: route.distance for route in network.cores[source].status().routes}
        assert {source: 0, **routes} == expected, f"node {source} has other paths than networkx"


def measure(nodes: int) -> str:
    """Return one line of the table."""
    random = Random(nodes)
    verifier = Verifier()
    network = Measured(ring_with_chords(nodes, random), verifier)
    come_up(network, random)
    compare(network)
    up_seconds, up_bytes = network.changed_at, network.sent_bytes
    up_cpu = network.core_seconds + verifier.uncharged
    computations = sum(core.counters.table_computations for core in network.cores.values())
    originated = sum(core.counters.lsas_originated for core in network.cores.values())
    begin = network.now
    chord = next(tuple(sorted(pair)) for pair in network.up if max(pair) - min(pair) > 1)
    network.die(*chord)
    network.run(SETTLE_SECONDS)
    compare(network)
    death_seconds = network.changed_at - begin
    death_bytes, death_cpu = network.sent_bytes - up_bytes, network.core_seconds + verifier.uncharged - up_cpu
    # A refresh is flooded as a change is, by every node instead of two.
    refreshes = 3600 / (REFRESH_INTERVAL * (1 - REFRESH_JITTER_RATIO / 2))
    quiet_bytes = death_bytes / 2 * refreshes
    return (
        f"{nodes:6} {len(network.costs):6} {up_seconds:8.2f} {death_seconds:9.2f} {up_bytes / nodes / 1e3:9.0f}"
        f" {death_bytes / nodes / 1e3:9.2f} {quiet_bytes / 1e3:10.0f} {up_cpu / nodes:9.2f}"
        f" {death_cpu / nodes:10.4f} {memory_per_node(network) / 1e6:8.2f}"
        f"   {originated / nodes:.1f} LSAs and {computations / nodes:.1f} computations per node,"
        f" {verifier.price * 1e6:.0f} us a verification"
    )


def main() -> None:
    os.nice(5)
    sizes = [int(word) for word in sys.argv[1:]] or DEFAULT_SIZES
    print(" nodes  links  up (s)  death (s)  up (kB) death (kB) hour (kB)  up (CPU s) death (CPU s) memory (MB)")
    for nodes in sizes:
        print(measure(nodes), flush=True)


if __name__ == "__main__":
    main()
