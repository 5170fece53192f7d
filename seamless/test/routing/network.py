"""A network of routing cores in one process and in virtual time.

Links deliver LSAs reliably, as the real ones do: a lost one is resent, and arrives a round trip later. What was in
flight on a link that is cut is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import blake2s
from random import Random

import networkx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seamless.crypto.keys import verify as verify_ed25519
from seamless.lab.agenda import Agenda
from seamless.routing.flooding import Verify
from seamless.routing.graph import LiveGraph
from seamless.routing.lsa import Lsa
from seamless.routing.lsdb import Topology
from seamless.routing.routing import Routing
from seamless.routing.spf import Graph

INCARNATION = 1_790_000_000_000
MTU_BYTES = 1400

Pair = frozenset[int]


@cache
def _signing_key(node: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(blake2s(b"test" + node.to_bytes(4, "big")).digest())


@cache
def public_key(node: int) -> bytes:
    """Return the Ed25519 public key of a node."""
    return _signing_key(node).public_key().public_bytes_raw()


def sign_as(node: int) -> Callable[[bytes], bytes]:
    """Return the function that signs as this node."""
    return _signing_key(node).sign


def make_topology(links: Iterable[tuple[int, int]], leaves: Iterable[int] = ()) -> Topology:
    pairs = frozenset(frozenset(link) for link in links)
    return Topology(frozenset(node for pair in pairs for node in pair), pairs, frozenset(leaves))


def graph_of(lsas: Iterable[Lsa]) -> Graph:
    """Return the graph of these LSAs, made at once."""
    return LiveGraph().update(lsas)


def make_core(
    local: int,
    topology: Topology,
    now: float = 0.0,
    *,
    incarnation: int = INCARNATION,
    jitter: float = 0.0,
    without_key_of: int | None = None,
    verify: Verify = verify_ed25519,
) -> Routing:
    keys = {node: public_key(node) for node in topology.nodes if node != without_key_of}
    return Routing(
        local=local,
        topology=topology,
        public_keys=keys,
        sign=sign_as(local),
        incarnation=incarnation,
        refresh_jitter=lambda: jitter,
        now=now,
        verify=verify,
    )


class Network:
    """Cores joined by links of given costs, which can be cut and joined again."""

    def __init__(
        self,
        costs: Mapping[tuple[int, int], int],
        *,
        leaves: Iterable[int] = (),
        seed: int = 0,
        loss: float = 0.0,
        max_delay: float = 0.01,
        verify: Verify = verify_ed25519,
    ) -> None:
        self._agenda = Agenda()
        self.costs = {frozenset(link): cost for link, cost in costs.items()}
        self.topology = make_topology(costs, leaves)
        self.random = Random(seed)
        self.loss = loss
        self.delays = {pair: self.random.uniform(0.001, max_delay) for pair in self.costs}
        self.cores = {
            node: make_core(node, self.topology, jitter=self.random.random(), verify=verify)
            for node in self.topology.nodes
        }
        self.changed_at = 0.0
        self.up: set[Pair] = set()
        self.known_paths: dict[tuple[int, int], tuple[int, ...]] = {}
        self.resent = 0
        self.lost_in_flight = 0
        self.delivered = 0
        self.times_cut = dict.fromkeys(self.costs, 0)
        self._timer_at: dict[int, float] = {}

    @property
    def now(self) -> float:
        return self._agenda.now

    def join(self, one: int, other: int) -> None:
        pair = frozenset((one, other))
        self.up.add(pair)
        for node, neighbor in ((one, other), (other, one)):
            self.cores[node].link_up(neighbor, self.costs[pair], MTU_BYTES, self.now)
            self._drain(node)

    def join_all(self) -> None:
        for pair in sorted(self.costs.keys() - self.up, key=sorted):
            one, other = sorted(pair)
            self.join(one, other)

    def cut(self, one: int, other: int) -> None:
        pair = frozenset((one, other))
        self.up.discard(pair)
        self.times_cut[pair] += 1
        for node, neighbor in ((one, other), (other, one)):
            self.cut_at_one_end(node, neighbor)

    def cut_at_one_end(self, node: int, neighbor: int) -> None:
        self.cores[node].link_down(neighbor, self.now)
        self._drain(node)

    def set_cost(self, node: int, neighbor: int, cost: int) -> None:
        self.cores[node].link_cost(neighbor, cost, self.now)
        self._drain(node)

    def restart(self, node: int, incarnation: int) -> None:
        """Replace a core with a new one that knows nothing; its links go down and come up."""
        neighbors = [next(iter(pair - {node})) for pair in self.up if node in pair]
        for neighbor in neighbors:
            self.cut(node, neighbor)
        for other in self.topology.nodes:
            self.known_paths.pop((node, other), None)
        self.cores[node] = make_core(
            node, self.topology, self.now, incarnation=incarnation, jitter=self.random.random()
        )
        for neighbor in neighbors:
            self.join(node, neighbor)

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._agenda.run(self.now + seconds)

    def _set_timer(self, node: int) -> None:
        at = self.cores[node].next_timeout()
        if at is None:
            self._timer_at.pop(node, None)
        elif self._timer_at.get(node) != at:
            self._timer_at[node] = at
            self._agenda.at(at, self._timed_out, node, at)

    def _timed_out(self, node: int, at: float) -> None:
        """Call a core at the time for which it asked, if it has not asked for another since."""
        if self._timer_at.get(node) == at:
            del self._timer_at[node]
            self.cores[node].handle_timeout(self.now)
            self._drain(node)

    def send(self, node: int, neighbor: int, data: bytes) -> None:
        pair = frozenset((node, neighbor))
        delay = self.delays[pair]
        at = self.now + delay
        while self.random.random() < self.loss:
            at += 2 * delay
            self.resent += 1
        self._agenda.at(at, self._deliver, self.times_cut[pair], node, neighbor, data)

    def _deliver(self, times_cut: int, node: int, neighbor: int, data: bytes) -> None:
        if times_cut != self.times_cut[frozenset((node, neighbor))]:
            self.lost_in_flight += 1
            return
        self.delivered += 1
        self.cores[neighbor].receive_lsa(data, node, self.now)
        self._drain(neighbor)

    def _drain(self, node: int) -> None:
        core = self.cores[node]
        for neighbor, data in core.lsas_to_flood():
            self.send(node, neighbor, data)
        while (event := core.next_event()) is not None:
            self.changed_at = self.now
            for destination in event.destinations:
                self.known_paths[node, destination] = core.path(destination)
        self._set_timer(node)

    def graph(self) -> networkx.DiGraph:
        """Return the links that are up, as networkx has it."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.topology.nodes)
        for pair in self.up:
            one, other = pair
            graph.add_edge(one, other, weight=self.costs[pair])
            graph.add_edge(other, one, weight=self.costs[pair])
        return graph

    def disagreements(self) -> list[str]:
        """Compare every node's routes with networkx, with every other node's, and with the events it gave."""
        graph = self.graph()
        wrong = []
        for source, core in self.cores.items():
            usable = graph.copy()
            for leaf in self.topology.leaves - {source}:
                usable.remove_edges_from(list(graph.out_edges(leaf)))
            expected = networkx.single_source_dijkstra_path_length(usable, source)
            routes = {route.destination: route.distance for route in core.status().routes}
            if {source: 0, **routes} != expected:
                wrong.append(f"{source}: distances {routes}, networkx {expected}")
            for destination in self.topology.nodes - {source}:
                path = core.path(destination)
                if self.known_paths.get((source, destination), ()) != path:
                    wrong.append(f"{source} to {destination}: the events do not tell of {path}")
                if path and self.walk(source, destination) != path:
                    wrong.append(f"{source} to {destination}: {path}, but packets go {self.walk(source, destination)}")
        return wrong

    def walk(self, source: int, destination: int) -> tuple[int, ...]:
        """Return the way that a packet takes, each node on it looking up the next hop."""
        way = [source]
        while way[-1] != destination and len(way) <= len(self.cores):
            next_hop = self.cores[way[-1]].next_hop(destination)
            if next_hop is None:
                break
            way.append(next_hop)
        return tuple(way)
