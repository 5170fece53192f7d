"""Which held SYNs wait, how many may, and when one is given up: the decisions of `seamless.linux.syn_holder`.

Pure: packets and times in, verdicts and messages for the daemon out. A firewall rule queues the SYN of each connection
that is to be captured; it waits here until the daemon knows whether the server accepts. The rules:

* A SYN that comes again while the first one waits (same addresses, ports and sequence number) is dropped: it is no
  second connection. One with another sequence number is: its client has given up the first.
* At most `MAX_HELD` wait, at most two thirds of them of one client (an IPv6 client is its /64). Beyond that a SYN is
  refused at once, and counted.
* A SYN goes with its client. A client on this host keeps a socket in the state SYN_SENT; the kernel sends no SYN again
  while the first is held, so the socket is what is looked for. A client elsewhere sends its SYN again: it has given up
  when it should have and did not. What is given up is dropped, and the daemon is told.
* What cannot be handed to the daemon goes on as its rule says: natively, or it is refused.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import attrs

MAX_HELD: Final = 4096
"""SYNs that wait at once."""
MAX_HELD_PER_CLIENT: Final = 2 * MAX_HELD // 3
LOCAL_GRACE: Final = 0.5
"""Seconds before a client on this host is looked for."""
REPEAT_SLACK: Final = 4.0
"""Seconds. A SYN sent ``t`` after the first is sent again after at most ``t`` plus the first timeout, which is 1 s
(RFC 6298; Linux, macOS) to 3 s (older systems, Windows); and packets get lost."""
MAX_MESSAGE_SYNS: Final = 256
"""Of one message to the daemon."""

Flow: TypeAlias = bytes
"""Source and destination address, source and destination port, as in the packet: 12 bytes for IPv4, 36 for IPv6."""

_TCP: Final = 6
_FLOW_OF_IPV4: Final = 12
_SEQUENCE: Final = struct.Struct("!I")
_OPENED: Final = struct.Struct("!cQB")
_DECISION: Final = struct.Struct("!QB")
OPENED: Final = b"o"
GONE: Final = b"g"
COUNTERS: Final = b"c"
"""First byte of what a message to the daemon tells: a SYN is held, its client gave up, how often what happened."""


class Outcome(IntEnum):
    """What becomes of a held SYN: how its client's connect() ends."""

    PASS = 0
    """It goes on, to the capture port, which accepts."""
    DROP = 1
    """Nothing answers; the client may send it again."""
    NATIVE = 2
    """It goes on to the server, without the overlay."""
    REFUSED = 3
    PORT_UNREACHABLE = 4
    HOST_UNREACHABLE = 5
    NETWORK_UNREACHABLE = 6
    PROHIBITED = 7
    UNDECIDED = 8
    """It goes on as its rule says of what is not decided here."""


class Syn(NamedTuple):
    """What of a SYN says which connection it opens."""

    flow: Flow
    sequence: int


def parse_syn(packet: bytes | bytearray | memoryview) -> Syn | None:
    """Return the SYN in a packet, None where its TCP header is not found at once (extension headers of IPv6)."""
    if len(packet) < 40:
        return None
    if packet[0] >> 4 == 4:
        addresses, at, protocol = packet[12:20], (packet[0] & 15) * 4, packet[9]
    else:
        addresses, at, protocol = packet[8:40], 40, packet[6]
    if protocol != _TCP or len(packet) < at + 8:
        return None
    return Syn(bytes(addresses) + bytes(packet[at : at + 4]), _SEQUENCE.unpack_from(packet, at + 4)[0])


@attrs.define
class HoldCounters:
    """SYNs by what happened to them."""

    held: int = 0
    repeated: int = 0
    full: int = 0
    """Refused because too many waited, in all or of their client."""
    gave_up: int = 0
    """Dropped because their client had given up."""
    unread: int = 0
    """Not decided because the daemon did not read, or the packet was of an unknown form."""


_COUNTERS: Final = struct.Struct(f"!c{len(attrs.fields(HoldCounters))}Q")


def encode_counters(counters: HoldCounters) -> bytes:
    """Return the message that reports ``counters`` to the daemon."""
    return _COUNTERS.pack(COUNTERS, *attrs.astuple(counters))


def decode_counters(message: bytes) -> HoldCounters:
    """Return the counters in such a message."""
    return HoldCounters(*_COUNTERS.unpack(message)[1:])


@attrs.define(eq=False)
class _Held:
    number: int
    syn: Syn
    client: bytes
    is_local: bool
    first_at: float
    last_at: float


class HeldSyns:
    """The SYNs that wait. Every call may add to ``verdicts``, as (number, outcome), and to ``messages``."""

    def __init__(self, limit: int = MAX_HELD, share: int = MAX_HELD_PER_CLIENT) -> None:
        self.counters = HoldCounters()
        self.verdicts: list[tuple[int, Outcome]] = []
        self.is_crowded = False
        """Whether a SYN was refused for want of room since the last `sweep`."""
        self._limit = limit
        self._share = share
        self._by_flow: dict[Flow, _Held] = {}
        self._by_number: dict[int, _Held] = {}
        self._by_client: Counter[bytes] = Counter()
        self._opened: list[_Held] = []
        self._gone: list[int] = []

    def __len__(self) -> int:
        return len(self._by_number)

    def receive(self, number: int, packet: bytes | bytearray | memoryview, is_local: bool, now: float) -> None:
        """Take a queued SYN, with a ``number`` of its own; ``is_local``: whether a program of this host sent it."""
        syn = parse_syn(packet)
        if syn is None:
            self.counters.unread += 1
            self.verdicts.append((number, Outcome.UNDECIDED))
            return
        held = self._by_flow.get(syn.flow)
        if held is not None and held.syn.sequence == syn.sequence:
            held.last_at = now
            self.counters.repeated += 1
            self.verdicts.append((number, Outcome.DROP))
            return
        if held is not None:
            self._give_up(held)
        client = syn.flow[:4] if len(syn.flow) == _FLOW_OF_IPV4 else syn.flow[:8]
        if len(self._by_number) >= self._limit or self._by_client[client] >= self._share:
            self.is_crowded = True
            self.counters.full += 1
            self.verdicts.append((number, Outcome.REFUSED))
            return
        self._hold(_Held(number, syn, client, is_local, now, now))

    def _hold(self, held: _Held) -> None:
        self.counters.held += 1
        self._by_flow[held.syn.flow] = self._by_number[held.number] = held
        self._by_client[held.client] += 1
        self._opened.append(held)

    def decide(self, number: int, outcome: Outcome) -> None:
        """Let a SYN go as the daemon says; do nothing if it is not held any more."""
        held = self._by_number.get(number)
        if held is not None:
            self._let_go(held, outcome)

    def _let_go(self, held: _Held, outcome: Outcome) -> None:
        del self._by_flow[held.syn.flow], self._by_number[held.number]
        self._by_client[held.client] -= 1
        if not self._by_client[held.client]:
            del self._by_client[held.client]
        self.verdicts.append((held.number, outcome))

    def _give_up(self, held: _Held) -> None:
        self.counters.gave_up += 1
        self._let_go(held, Outcome.DROP)
        self._gone.append(held.number)

    def sweep(self, now: float, opening: Callable[[], set[Flow]]) -> None:
        """Give up the SYNs of clients that have. ``opening`` returns the flows of this host's sockets in SYN_SENT."""
        self.is_crowded = False
        local = [held for held in self._by_number.values() if held.is_local and now - held.first_at >= LOCAL_GRACE]
        if local:
            living = opening()
            for held in local:
                if held.syn.flow not in living:
                    self._give_up(held)
        for held in [held for held in self._by_number.values() if not held.is_local and _is_silent(held, now)]:
            self._give_up(held)

    def messages(self) -> Iterator[tuple[bytes, list[int]]]:
        """Yield what the daemon is to be told: each message, and the numbers of the SYNs that it opens."""
        opened, self._opened = self._opened, []
        gone, self._gone = self._gone, []
        news = [held for held in opened if held.number in self._by_number]
        parts = [_OPENED.pack(OPENED, held.number, len(held.syn.flow)) + held.syn.flow for held in news]
        never_told = {held.number for held in opened}
        ends = [_OPENED.pack(GONE, number, 0) for number in gone if number not in never_told]
        for at in range(0, len(ends), MAX_MESSAGE_SYNS):
            yield b"".join(ends[at : at + MAX_MESSAGE_SYNS]), []
        for at in range(0, len(parts), MAX_MESSAGE_SYNS):
            several = news[at : at + MAX_MESSAGE_SYNS]
            yield b"".join(parts[at : at + MAX_MESSAGE_SYNS]), [held.number for held in several]

    def not_handed_over(self, numbers: list[int]) -> None:
        """Let SYNs go on that the daemon does not read of."""
        for number in numbers:
            if number in self._by_number:
                self.counters.unread += 1
                self.decide(number, Outcome.UNDECIDED)

    def release_all(self) -> None:
        """Drop all, since the daemon is gone: when their clients send them again, no rule holds them any more."""
        for held in list(self._by_number.values()):
            self._let_go(held, Outcome.DROP)


def _is_silent(held: _Held, now: float) -> bool:
    return now - held.last_at > held.last_at - held.first_at + REPEAT_SLACK


def decode_message(message: bytes) -> Iterator[tuple[int, Flow | None]]:
    """Yield (number, flow of a SYN that is held now, or None for one whose client gave up) of a message."""
    at = 0
    while at < len(message):
        kind, number, length = _OPENED.unpack_from(message, at)
        at += _OPENED.size
        yield number, message[at : at + length] if kind == OPENED else None
        at += length


def encode_decisions(decisions: list[tuple[int, Outcome]]) -> bytes:
    """Return the daemon's message: what becomes of which SYN."""
    return b"".join(_DECISION.pack(number, outcome) for number, outcome in decisions)


def decode_decisions(message: bytes) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) of the daemon's message; an outcome that there is not counts as UNDECIDED."""
    usable = len(message) - len(message) % _DECISION.size
    for number, outcome in _DECISION.iter_unpack(message[:usable]):
        yield number, Outcome(outcome) if outcome in _OUTCOMES else Outcome.UNDECIDED


_OUTCOMES: Final = frozenset(Outcome)
