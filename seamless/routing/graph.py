"""The graph of the links that paths may use, kept up to date with the LSAs that count.

A link counts only when both ends announce it, so that the LSA of a dead node leads no packet into it. Work is in
proportion to what the LSAs say anew: with 1,000 nodes a graph that is made anew costs as much as the paths in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seamless.routing.lsa import Lsa, LsaLink
from seamless.routing.spf import Graph


class LiveGraph:
    """The graph of the LSAs that `update` was given last."""

    def __init__(self) -> None:
        self.graph = Graph({}, frozenset())
        self._lsas: dict[int, Lsa] = {}
        self._announced: dict[int, dict[int, LsaLink]] = {}
        """Links by origin and neighbor, whether the other end announces them or not."""

    def update(self, lsas: Iterable[Lsa]) -> Graph:
        """Return the graph of ``lsas``, one for each origin: the same object as before when it has not changed."""
        former, self._lsas = self._lsas, {lsa.origin: lsa for lsa in lsas}
        changed = former.keys() - self._lsas.keys()
        for origin, lsa in self._lsas.items():
            known = former.get(origin)
            if lsa is not known and (known is None or not lsa.says_the_same_as(known)):
                changed.add(origin)
        if changed:
            self._change(changed, former)
        return self.graph

    def _change(self, origins: set[int], former: Mapping[int, Lsa]) -> None:
        touched = set(origins)
        for origin in origins:
            touched.update(self._announced.pop(origin, ()))
            if origin in self._lsas:
                announced = self._announced[origin] = {link.neighbor: link for link in self._lsas[origin].links}
                touched.update(announced)
        links = self._links_of(touched)
        leaves, unknown = self.graph.leaves, self.graph.unknown
        said_before = [former[origin] for origin in origins if origin in former]
        said_now = [self._lsas[origin] for origin in origins if origin in self._lsas]
        if any(lsa.leaf for lsa in (*said_before, *said_now)):
            leaves = frozenset(origin for origin, lsa in self._lsas.items() if lsa.leaf)
        if any(lsa.unknown for lsa in (*said_before, *said_now)):
            unknown = _unknown(self._lsas.values())
        if links is not self.graph.links or leaves != self.graph.leaves or unknown != self.graph.unknown:
            self.graph = Graph(links, leaves, unknown)

    def _links_of(self, touched: set[int]) -> Mapping[int, Mapping[int, LsaLink]]:
        """Return the links of all nodes, those of the ``touched`` ones made anew; the same object if none differs."""
        now = {origin: self._two_way_links(origin) for origin in touched if origin in self._announced}
        before = self.graph.links
        if all(now.get(origin) == before.get(origin) for origin in touched):
            return before
        links = {**before, **now}
        for origin in touched - now.keys():
            links.pop(origin, None)
        return links

    def _two_way_links(self, origin: int) -> dict[int, LsaLink]:
        announced = self._announced[origin]
        both = {neighbor: link for neighbor, link in announced.items() if origin in self._announced.get(neighbor, ())}
        return announced if len(both) == len(announced) else both


def _unknown(lsas: Iterable[Lsa]) -> dict[int, frozenset[int]]:
    """Return, by destination, the nodes that announce that they do not know it."""
    unknown: dict[int, set[int]] = {}
    for lsa in lsas:
        for destination in lsa.unknown:
            unknown.setdefault(destination, set()).add(lsa.origin)
    return {destination: frozenset(origins) for destination, origins in unknown.items()}
