"""Whole packets that wait to leave, by conversation: a bulk transfer holds up no keystroke.

The problem: all packets to one peer share a session, and TCP fills whatever queue it finds. In one queue a keystroke
would wait behind all of it: 30 ms at 500 Mb/s, 800 ms at 20 Mb/s. So conversations take turns (deficit round robin,
Shreedhar and Varghese 1995), and one that has had nothing waiting goes first, as in RFC 8290 (FQ-CoDel), from which the
two lists and the dropping from the longest queue are taken.

Packets are told apart by what stands where an IP header has addresses, protocol and ports. That only decides about
turns, so what is no IP packet takes turns as one conversation. Everything is bounded: bytes, age, and conversations,
which share a bucket when they are many. Pure: driven with explicit ``now``.

Not taken: CoDel's dropping by delay. TCP's own window, and the bound in bytes, keep the delay of a conversation by
itself to what a router's buffer would give it; others do not feel it here.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Final
from zlib import crc32

import attrs

from seamless.delivery.round_robin import RoundRobin, Turn

FLOW_BUCKETS: Final = 1024
"""Conversations that are told apart, as in RFC 8290."""
QUANTUM_BYTES: Final = 16 << 10
"""A turn: one record. A super-packet of 64 kB takes four."""

_IPV4: Final = 0x45
_IPV6: Final = 6
_FRAGMENT_MASK: Final = 0x3FFF


@attrs.define
class Waiting:
    """A packet, when it came, and whether links send it again when they lose it."""

    packet: bytes
    queued_at: float
    is_recovered: bool


@attrs.define(eq=False)
class _Conversation:
    bucket: int
    packets: deque[Waiting] = attrs.Factory(deque)
    size_bytes: int = 0
    turn: Turn = attrs.Factory(Turn)


class PacketQueue:
    """At most ``max_bytes`` of packets, none older than ``max_age`` seconds."""

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self.size_bytes = 0
        self.dropped = 0
        """Packets that were too old, or that gave way to others."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._conversations: dict[int, _Conversation] = {}
        self._turns: RoundRobin[_Conversation] = RoundRobin(QUANTUM_BYTES, attrgetter("packets"), self._forget)
        self._next: _Conversation | None = None

    @property
    def conversations(self) -> int:
        """Return how many conversations are remembered; none for long after its last packet left."""
        return len(self._conversations)

    def __bool__(self) -> bool:
        return self.size_bytes > 0

    def put(self, packet: bytes, is_recovered: bool, now: float) -> None:
        """Queue a packet; when too much waits, the longest queue loses its oldest."""
        bucket = flow_bucket(packet)
        conversation = self._conversations.get(bucket)
        if conversation is None:
            conversation = self._conversations[bucket] = _Conversation(bucket)
            self._turns.join(conversation)
        conversation.packets.append(Waiting(packet, now, is_recovered))
        conversation.size_bytes += len(packet)
        self.size_bytes += len(packet)
        while self.size_bytes > self._max_bytes:
            self._drop(max(self._conversations.values(), key=lambda each: each.size_bytes))

    def head(self, now: float) -> Waiting | None:
        """Return the packet whose turn it is, for `take` to take away; None when there is none."""
        while (conversation := self._turns.head()) is not None:
            while conversation.packets and now - conversation.packets[0].queued_at > self._max_age:
                self._drop(conversation)
            if conversation.packets:
                self._next = conversation
                return conversation.packets[0]
        return None

    def take(self) -> None:
        """Take away what `head` has just returned."""
        assert self._next is not None
        self._next.turn.deficit_bytes -= self._forget_first(self._next)

    def _forget(self, conversation: _Conversation) -> None:
        del self._conversations[conversation.bucket]

    def _drop(self, conversation: _Conversation) -> None:
        self._forget_first(conversation)
        self.dropped += 1

    def _forget_first(self, conversation: _Conversation) -> int:
        size = len(conversation.packets.popleft().packet)
        conversation.size_bytes -= size
        self.size_bytes -= size
        return size


def flow_bucket(packet: bytes) -> int:
    """Return a number below `FLOW_BUCKETS`, the same for all packets of one direction of a conversation."""
    first = packet[0] if packet else 0
    if first == _IPV4:
        is_fragment = int.from_bytes(packet[6:8], "big") & _FRAGMENT_MASK
        name = packet[9:10] + packet[12 : 20 if is_fragment else 24]
    elif first >> 4 == _IPV6:
        name = packet[6:7] + packet[8:44]
    else:
        name = b""
    return crc32(name) % FLOW_BUCKETS
