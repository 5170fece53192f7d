"""The sessions of a node: one for each peer, made when it is first needed, with what the node knows of their paths.

A session is a core of its own (`seamless.session.session`); the node feeds it packets, sends what it gives, and takes
its events. Here it gets its keys, its limits from the configuration, and from routing the MTU and the rate of its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from seamless.config.model import Configuration
from seamless.crypto.gate import BURST_SECONDS
from seamless.crypto.messages import SESSION_PROLOGUE
from seamless.delivery.token_bucket import TokenBuckets
from seamless.interfaces import StreamKey
from seamless.node.forwarding import flow_key
from seamless.node.identity import Identity
from seamless.routing.routing import Routing
from seamless.session.limits import Limits
from seamless.session.session import Session
from seamless.wire.header import PACKET_ENDS

LINK_OPENINGS_PER_SECOND: Final = 200.0
"""Session INITIATIONs opened of all that come from one neighbor: two percent of a core."""


class Sessions:
    """All sessions of the node ``local`` of a configuration; iteration is in the order in which they were made."""

    def __init__(self, configuration: Configuration, local: str, identity: Identity, routing: Routing) -> None:
        self._configuration = configuration
        self._local = configuration.nodes[local]
        self._identity = identity
        self._routing = routing
        self._by_peer: dict[int, Session] = {}
        self._openings: TokenBuckets[int] = TokenBuckets(
            LINK_OPENINGS_PER_SECOND * BURST_SECONDS, LINK_OPENINGS_PER_SECOND
        )
        self._sized_at_computation = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_peer)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over all of them."""
        return iter(self._by_peer.values())

    def find(self, peer: int) -> Session | None:
        """Return the session with ``peer``; None when there is none yet."""
        return self._by_peer.get(peer)

    def of_stream(self, stream: StreamKey) -> Session | None:
        """Return the session that a stream belongs, or belonged, to; None when that is over."""
        return self._by_peer.get(stream[0])

    def reach(self, peer: int, now: float) -> Session:
        """Return the session with ``peer``, a node of the configuration, made now if there is none."""
        session = self._by_peer.get(peer)
        if session is None:
            session = self._by_peer[peer] = self._make(peer, now)
            session.path_changed(self._routing.path_mtu_bytes(peer), now)
            self._size_windows(session)
        return session

    def _make(self, peer: int, now: float) -> Session:
        association = self._identity.associate(
            self._configuration.node_by_identifier[peer].x25519_public_key,
            SESSION_PROLOGUE,
            lambda: int.from_bytes(self._identity.random(3), "big"),
            lambda index: None,
        )
        return Session(
            local=self._local.identifier,
            peer=peer,
            private_key=self._identity.private_key,
            association=association,
            now=now,
            limits=self._limits(),
            may_open=self._openings.take,
        )

    def _limits(self) -> Limits:
        return Limits.within(self._local.memory_bytes, give_up=self._configuration.overlay.give_up)

    # Another configuration.

    def configure(self, configuration: Configuration) -> None:
        """Go on with another configuration, which has all peers; those that it lacks are ended before."""
        self._configuration = configuration
        self._local = configuration.nodes[self._local.name]
        for session in self:
            session.set_limits(self._limits())

    def end(self, peer: int, reason: str) -> Session | None:
        """End the session with ``peer``, if there is one, and forget it; return it, with its last events."""
        session = self._by_peer.pop(peer, None)
        if session is not None:
            session.end(reason)
            self._identity.retire(session.association)
        return session

    # Paths.

    @property
    def have_other_paths(self) -> bool:
        """Return whether routing has computed a table since `size_windows` was called last."""
        return self._routing.counters.table_computations != self._sized_at_computation

    def size_windows(self) -> None:
        """Have windows begin at what paths carry by the newest LSAs."""
        self._sized_at_computation = self._routing.counters.table_computations
        for session in self:
            self._size_windows(session)

    def _size_windows(self, session: Session) -> None:
        capacity = self._routing.path_capacity(session.peer)
        if capacity is None:
            session.path_carries(None)
        else:
            session.path_carries(capacity.rate_bps, capacity.round_trip, is_estimate=capacity.is_estimate)

    def path_changed(self, peer: int, now: float, *, is_severed: bool) -> None:
        """Report another path to ``peer``; ``is_severed``: what is under way on the former one may be lost."""
        session = self._by_peer.get(peer)
        if session is not None:
            session.path_changed(self._routing.path_mtu_bytes(peer), now, severed=is_severed)

    def returned(self, packets: Sequence[bytes], now: float) -> None:
        """Report to each session which of its packets a link could not deliver; they go another way."""
        by_ends: dict[bytes, list[bytes]] = {}
        for packet in packets:
            by_ends.setdefault(packet[PACKET_ENDS], []).append(packet)
        for session in self:
            own = by_ends.get(flow_key(self._local.identifier, session.peer))
            if own:
                session.returned(own, now)

    # Time.

    def next_timeout(self) -> float | None:
        """Return the earliest deadline of any session."""
        return min((at for session in self if (at := session.next_timeout()) is not None), default=None)

    def resumed(self, gap: float) -> None:
        """Leave ``gap`` seconds, in which the process was not served, out of all deadlines."""
        for session in self:
            session.resumed(gap)
