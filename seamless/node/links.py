"""The links of one node: made from the configuration, found by the first word of a datagram, chosen by cost.

Whatever comes in on a socket comes here first. Of a batch, each run of datagrams with the same word goes to the link
whose keys the word names; handshakes go through the gate to the link of the neighbor whose key they prove. Nothing here
raises for what came off the network: it is counted.

Several underlay paths between two neighbors are several links here; routing sees the best one that is UP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache
from typing import Final, TypeVar

from seamless.crypto.association import Association
from seamless.crypto.gate import Admitted, Answer, HandshakeGate
from seamless.crypto.messages import LINK_PROLOGUE
from seamless.errors import RemoteProtocolError
from seamless.interfaces import Address, CongestionController, Transmit
from seamless.link.congestion import CONTROLLERS, make_controller
from seamless.link.link import Link
from seamless.node.identity import Identity
from seamless.node.plan import LinkPlan
from seamless.node.status import NodeCounters
from seamless.routing.capacity import LinkCapacity
from seamless.wire.header import (
    COOKIE,
    INDEX_BITS,
    INDEX_MASK,
    INITIATION,
    RESPONSE,
    SEALED_TYPES,
    TAG_BYTES,
    WORD_BYTES,
)

COST_UNIT: Final = 1e-4
"""Seconds of one-way latency that cost one unit."""
UNKNOWN_COST: Final = 500
"""Cost of a link without an RTT sample: 50 ms one way."""
SHORTEST_DATAGRAM: Final = 4 + 8 + TAG_BYTES

_Key = TypeVar("_Key")


class Links:
    """All links of one node, opened as ``plans`` say."""

    def __init__(self, plans: Iterable[LinkPlan], identity: Identity, counters: NodeCounters, now: float) -> None:
        self._identity = identity
        self._counters = counters
        self._links: list[Link] = []
        self._associations: dict[Link, Association] = {}
        self._by_index: dict[int, Link] = {}
        self._by_key: dict[bytes, list[Link]] = {}
        self._to: dict[int, list[Link]] = {}
        self._up: set[Link] = set()
        self._estimated: set[Link] = set()
        """Links whose rate is not the configured one, but what congestion control finds."""
        self._packet_bytes: dict[Link, int] = {}
        self._reported_mtu: dict[Link, int] = {}
        self._never_up: set[Link] = set()
        self._answers: list[Transmit] = []
        for plan in plans:
            self._open(plan, now)
        self._gate = HandshakeGate(
            private_key=identity.private_key,
            public_key=identity.public_key,
            known_keys=self._by_key,
            random=identity.random,
            now=now,
        )

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    # Links that come and go.

    def _open(self, plan: LinkPlan, now: float) -> None:
        def allocate_index() -> int:
            index = self._free_index()
            self._by_index[index] = link
            return index

        association = self._identity.associate(plan.public_key, LINK_PROLOGUE, allocate_index, self._release_index)
        link = Link(plan.settings, association, _controller(plan, now), now)
        self._links.append(link)
        self._note_estimated(link, plan)
        self._associations[link] = association
        self._by_key.setdefault(plan.public_key, []).append(link)
        self._to.setdefault(plan.settings.neighbor_id, []).append(link)

    def open(self, plans: Iterable[LinkPlan], now: float) -> None:
        """Open further links."""
        for plan in plans:
            self._open(plan, now)
        self._gate.set_known_keys(self._by_key)

    def close(self, plan: LinkPlan, reason: str, now: float) -> tuple[Link, list[bytes]]:
        """Close a link with CLOSE to its neighbor; return it, and the packets that it had not delivered."""
        link = self._planned(plan)
        link.close(reason)
        self._answers += link.datagrams_to_send(now)
        link.abandon()
        self._identity.retire(self._associations.pop(link))
        self._forget(link, plan)
        self._gate.set_known_keys(self._by_key)
        return link, link.take_orphans()

    def is_known_up(self, plan: LinkPlan) -> bool:
        """Return whether `changed` has last returned this link because it was UP."""
        return self._planned(plan) in self._up

    def _forget(self, link: Link, plan: LinkPlan) -> None:
        self._links.remove(link)
        _remove(self._by_key, plan.public_key, link)
        _remove(self._to, plan.settings.neighbor_id, link)
        self._up.discard(link)
        self._estimated.discard(link)
        self._packet_bytes.pop(link, None)
        self._reported_mtu.pop(link, None)
        self._never_up.discard(link)

    def adjust(self, old: LinkPlan, new: LinkPlan, now: float) -> Link:
        """Have a link go on with other settings; only another rate or congestion gives it another controller."""
        link = self._planned(old)
        same_controller = old.congestion_control == new.congestion_control
        link.configure(new.settings, None if same_controller else _controller(new, now), now)
        self._note_estimated(link, new)
        return link

    def _note_estimated(self, link: Link, plan: LinkPlan) -> None:
        (self._estimated.discard if CONTROLLERS[plan.congestion].requires_rate else self._estimated.add)(link)

    def _planned(self, plan: LinkPlan) -> Link:
        return next(link for link in self._to[plan.settings.neighbor_id] if link.settings == plan.settings)

    def _free_index(self) -> int:
        while True:
            index = int.from_bytes(self._identity.random(4), "big") & INDEX_MASK
            if index and index not in self._by_index:
                return index

    def _release_index(self, index: int) -> None:
        self._by_index.pop(index, None)

    # Datagrams in.

    def receive_datagrams(
        self,
        buffer: bytes | memoryview,
        segment_size: int,
        local: Address,
        remote: Address,
        now: float,
        received_at: float | None,
    ) -> list[Link]:
        """Take in one batch: datagrams of ``segment_size`` bytes each, the last perhaps shorter.

        Return the links that may have events now.
        """
        received: list[Link] = []
        view = memoryview(buffer)
        total = len(view)
        if not 0 < segment_size <= total:
            segment_size = max(total, 1)
        offset = 0
        while offset < total:
            end = _run_end(view, offset, segment_size)
            run = view[offset:end]
            offset = end
            if len(run) < SHORTEST_DATAGRAM:
                self._counters.short_datagrams += 1
            else:
                self._receive_run(run, segment_size, local, remote, now, received_at, received)
        return received

    def _receive_run(
        self,
        run: memoryview,
        segment_size: int,
        local: Address,
        remote: Address,
        now: float,
        received_at: float | None,
        received: list[Link],
    ) -> None:
        """Take in datagrams that all begin with the same word, or are handshake messages of one type."""
        word = int.from_bytes(run[:4], "big")
        datagram_type = word >> INDEX_BITS
        if datagram_type in SEALED_TYPES:
            link = self._by_index.get(word & INDEX_MASK)
            if link is None or not link.has_key(word & INDEX_MASK):
                self._counters.unknown_index += 1
            else:
                link.receive_datagrams(run, segment_size, local, remote, now, received_at)
                received.append(link)
            return
        for datagram in self._handshakes(datagram_type, run, segment_size, now):
            try:
                self._receive_handshake(datagram_type, datagram, local, remote, now, received)
            except RemoteProtocolError:
                self._counters.refused_handshakes += 1

    def _handshakes(self, datagram_type: int, run: memoryview, segment_size: int, now: float) -> Iterator[bytes]:
        """Return the datagrams of a run that are worth a look."""
        if datagram_type == INITIATION:
            return self._gate.prefilter(run, segment_size, now)
        return (bytes(run[offset : offset + segment_size]) for offset in range(0, len(run), segment_size))

    def _receive_handshake(
        self,
        datagram_type: int,
        datagram: bytes,
        local: Address,
        remote: Address,
        now: float,
        received: list[Link],
    ) -> None:
        if datagram_type == INITIATION:
            self._receive_initiation(datagram, local, remote, now, received)
        elif datagram_type in (RESPONSE, COOKIE):
            link = self._by_index.get(int.from_bytes(datagram[1:4], "big"))
            if link is None:
                self._counters.unknown_index += 1
            elif datagram_type == RESPONSE:
                received.append(link)
                link.receive_response(datagram, now)
            else:
                link.receive_cookie(datagram, now)
        else:
            self._counters.unknown_type += 1

    def _receive_initiation(
        self, datagram: bytes, local: Address, remote: Address, now: float, received: list[Link]
    ) -> None:
        verdict = self._gate.admit(datagram, remote, now)
        if isinstance(verdict, Answer):
            self._answers.append(Transmit(local, remote, [verdict.datagram], len(verdict.datagram), 1))
        if not isinstance(verdict, Admitted):
            return
        opened = self._gate.open_initiation(datagram)
        link = self._link_for(opened.remote_public_key, local, remote)
        if link is None:
            # A neighbor of ours, but it knocks where no link with it is configured.
            self._counters.misplaced_handshakes += 1
            return
        received.append(link)
        link.receive_initiation(opened, remote, now)

    def _link_for(self, public_key: bytes, local: Address, remote: Address) -> Link | None:
        """Return the link that a proven INITIATION is for: of several to one neighbor, that of its address."""
        links = [link for link in self._by_key.get(public_key, ()) if link.local == local]
        for link in links:
            if link.remote == remote:
                return link
        return links[0] if links else None

    def take_answers(self, blocked: Set[Address]) -> list[Transmit]:
        """Return the cookies that are due, but for those from addresses in ``blocked``: they would come too late."""
        answers, self._answers = self._answers, []
        return [answer for answer in answers if answer.local not in blocked] if blocked else answers

    # Which link.

    @property
    def neighbors(self) -> Iterator[int]:
        """Return the identifiers of all neighbors."""
        return iter(self._to)

    def best(self, neighbor: int, besides: Link | None = None) -> Link | None:
        """Return the cheapest link to ``neighbor`` that is UP; with ``besides``, of the others."""
        up = [link for link in self._to.get(neighbor, ()) if link.is_up and link is not besides]
        return min(up, key=self.cost) if len(up) > 1 else (up[0] if up else None)

    def packet_bytes(self, neighbor: int) -> int:
        """Return the longest packet that all links to ``neighbor`` that are UP take: the best may change any time."""
        return min(link.packet_bytes for link in self._to[neighbor] if link.is_up)

    @staticmethod
    def cost(link: Link) -> int:
        """Return what routing counts for this link: what is configured, or latency and loss in units of 0.1 ms."""
        state = link.state()
        if state.cost is not None:
            return state.cost
        if state.minimum_rtt is None:
            return UNKNOWN_COST
        # A lost packet is late by a round trip: what loss costs is latency.
        one_way = state.minimum_rtt * (0.5 + state.loss_rate)
        return 1 + int(one_way / COST_UNIT)

    def capacity(self, link: Link) -> LinkCapacity:
        """Return what routing announces of this link's rate, configured or estimated, and of its latency."""
        state = link.state()
        latency = None if state.minimum_rtt is None else state.minimum_rtt / 2
        return LinkCapacity.of(state.rate_bps, latency, is_estimate=link in self._estimated)

    def changed(self) -> list[Link]:
        """Return the links that went UP, or ceased to be, since the last call."""
        changed = [link for link in self._links if link.is_up != (link in self._up)]
        for link in changed:
            (self._up.add if link.is_up else self._up.discard)(link)
        return changed

    def never_up(self) -> list[Link]:
        """Return the links that have never been UP although they should be by now, each once."""
        found = [link for link in self._links if link.never_came_up and link not in self._never_up]
        self._never_up.update(found)
        return found

    def resized(self) -> list[Link]:
        """Return the links that are UP and carry longer or shorter packets than at the last call."""
        resized = [link for link in self._up if link.packet_bytes != self._packet_bytes.get(link)]
        self._packet_bytes.update((link, link.packet_bytes) for link in resized)
        return resized

    def found_mtus(self) -> list[Link]:
        """Return the links whose path MTU was found to differ from the one last reported, at first from `mtu`."""
        found = [
            link
            for link in self._up
            if link.mtu_is_found and link.mtu_bytes != self._reported_mtu.get(link, link.settings.mtu_bytes)
        ]
        self._reported_mtu.update((link, link.mtu_bytes) for link in found)
        return found

    def gate_counters(self) -> dict[str, int]:
        """Return what the gate did with initiations."""
        return {
            "admitted": self._gate.admitted,
            "answered": self._gate.answered,
            **{reason.name.lower(): count for reason, count in self._gate.dropped.items()},
        }


def _controller(plan: LinkPlan, now: float) -> CongestionController:
    return make_controller(plan.congestion, plan.rate_bps, plan.settings.mtu_bytes, now, plan.floor_bps)


def _remove(links: dict[_Key, list[Link]], key: _Key, link: Link) -> None:
    links[key].remove(link)
    if not links[key]:
        del links[key]


@lru_cache(maxsize=256)
def _words(segment_size: int) -> struct.Struct:
    """Return what reads the first words of datagrams of one size."""
    return struct.Struct(f"{WORD_BYTES}s{segment_size - WORD_BYTES}x")


def _run_end(view: memoryview, offset: int, segment_size: int) -> int:
    """Return the end of the run of datagrams that are for the same key as the one at ``offset``.

    Handshake messages of one type make a run whomever they are for.
    """
    total = len(view)
    if offset + segment_size >= total:
        return total
    same_bytes = WORD_BYTES if view[offset] in SEALED_TYPES else 1
    first = bytes(view[offset : offset + same_bytes])
    last_at = total - (total - offset) % segment_size
    if same_bytes == WORD_BYTES <= segment_size and view[last_at : last_at + WORD_BYTES] in (b"", first):
        # Usually a batch has one word: that is seen in fewer steps than where another one begins.
        words = list(_words(segment_size).iter_unpack(view[offset:last_at]))
        if words.count(words[0]) == len(words):
            return total
    offset += segment_size
    while offset < total and view[offset : offset + same_bytes] == first:
        offset += segment_size
    return min(offset, total)
