"""Two sessions and a wire in virtual time: slow, lossy, reordering, doubling, corrupting, cut; all of it seeded.

Each end has an application that keeps score: what it wrote, what it read, and after every step what it read must be a
prefix of what the other wrote.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.crypto.association import Association
from seamless.crypto.messages import SESSION_PROLOGUE
from seamless.crypto.noise import public_key_of
from seamless.interfaces import (
    DataReceived,
    PacketReceived,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.lab.agenda import Agenda
from seamless.session.events import PeerLost, SessionEvent, SessionUp
from seamless.session.limits import Limits
from seamless.session.session import Session
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    PACKET_HEADER_BYTES,
)
from seamless.wire.traffic_class import CLASS_HANDSHAKE

PACKET_BYTES = 1444
"""What an underlay of 1500 bytes leaves to an overlay packet."""


@attrs.define
class Wire:
    """What happens to packets of one direction. Counters say that it really did."""

    random: random.Random
    delay: float = 0.015
    loss: float = 0.0
    late: float = 0.0
    """Share of packets that a hop has to resend."""
    lateness: float = 0.030
    duplication: float = 0.0
    corruption: float = 0.0
    down: bool = False
    rate_pps: float = 0.0
    """Packets a second of class bulk; 0: no limit."""
    lost: int = 0
    made_late: int = 0
    doubled: int = 0
    corrupted: int = 0
    carried: int = 0
    carried_bytes: int = 0
    busy_until: float = 0.0
    recorded: list[bytes] | None = None
    """All packets that were sent, for tests that send them again; None: they are not kept."""

    def carry(self, packet: bytes, now: float) -> list[tuple[float, bytes]]:
        """Return when what arrives of ``packet``."""
        draw = self.random.random
        if self.recorded is not None:
            self.recorded.append(packet)
        if self.down or draw() < self.loss:
            self.lost += 1
            return []
        at = now
        if self.rate_pps and packet[0] == 0:
            self.busy_until = at = max(now, self.busy_until) + 1 / self.rate_pps
        at += self.delay
        if draw() < self.late:
            self.made_late += 1
            at += self.lateness * (1 + draw())
        if draw() < self.corruption:
            self.corrupted += 1
            position = self.random.randrange(PACKET_HEADER_BYTES, len(packet))
            packet = packet[:position] + bytes((packet[position] ^ 0x55,)) + packet[position + 1 :]
        self.carried += 1
        self.carried_bytes += len(packet)
        arrivals = [(at, packet)]
        if draw() < self.duplication:
            self.doubled += 1
            arrivals.append((at + self.lateness * draw(), packet))
        return arrivals


class End:
    """One node, as far as a session can tell."""

    def __init__(self, name: int, private_key: bytes, remote_public_key: bytes, seed: random.Random) -> None:
        self.name = name
        self.private_key = private_key
        self.remote_public_key = remote_public_key
        self.random = seed
        self.incarnation = 0
        self.received: dict[StreamKey, bytearray] = {}
        self.written: dict[StreamKey, bytearray] = {}
        self.waiting: dict[StreamKey, bytearray] = {}
        """What the application wants to write and has no room for."""
        self.finishing: set[StreamKey] = set()
        self.blocked: set[StreamKey] = set()
        """Streams that the session has no room for."""
        self.known: set[StreamKey] = set()
        """Streams that this application opened or was asked for."""
        self.unconsumed: dict[StreamKey, int] = {}
        self.stopped: set[StreamKey] = set()
        """Streams whose reader does not read."""
        self.events: list[SessionEvent] = []
        self.packets: list[bytes] = []
        self.on_open: Callable[[StreamOpened], None] = lambda event: None
        self.most_unread = 0

    def start(self, peer: int, now: float, limits: Limits) -> None:
        """Start, or start again, the process of this node."""
        self.incarnation += 1
        public_key = public_key_of(X25519PrivateKey.from_private_bytes(self.private_key))
        association = Association(
            private_key=self.private_key,
            public_key=public_key,
            remote_public_key=self.remote_public_key,
            prologue=SESSION_PROLOGUE,
            incarnation=self.incarnation << 32,
            allocate_index=itertools.count(self.incarnation * 1000 + self.name).__next__,
            release_index=lambda index: None,
            random=self.random.randbytes,
            next_counter=itertools.count(self.incarnation << 32).__next__,
        )
        self.session = Session(
            local=self.name, peer=peer, association=association, private_key=self.private_key, now=now, limits=limits
        )

    def write(self, stream: StreamKey, data: bytes, now: float) -> None:
        """Write as the application: as much as there is room for, the rest later."""
        self.waiting.setdefault(stream, bytearray()).extend(data)
        self.written.setdefault(stream, bytearray()).extend(data)
        if stream in self.known and stream not in self.blocked:
            self.push(stream, now)

    def finish(self, stream: StreamKey, now: float) -> None:
        """Finish after what waits."""
        self.finishing.add(stream)
        if stream in self.known and stream not in self.waiting:
            self.session.finish(stream, now)

    def push(self, stream: StreamKey, now: float) -> None:
        """Give the session what it has room for."""
        self.blocked.discard(stream)
        waiting = self.waiting.get(stream)
        while waiting:
            chunk = bytes(waiting[:65536])
            del waiting[:65536]
            if self.session.send(stream, chunk, now) <= 0:
                self.blocked.add(stream)
                return
        self.waiting.pop(stream, None)
        if stream in self.finishing:
            self.session.finish(stream, now)

    def drain(self, now: float) -> None:
        """Act on events as an application that reads at once."""
        while (event := self.session.next_event()) is not None:
            if isinstance(event, DataReceived):
                self._receive(event, now)
            elif isinstance(event, PacketReceived):
                self.packets.append(event.packet)
            else:
                self.events.append(event)
            if isinstance(event, StreamOpened):
                self.known.add(event.stream)
                self.on_open(event)
                self.push(event.stream, now)
            elif isinstance(event, StreamWritable):
                self.push(event.stream, now)

    def _receive(self, event: DataReceived, now: float) -> None:
        nbytes = sum(map(len, event.chunks))
        assert nbytes, "an event without bytes"
        self.received.setdefault(event.stream, bytearray()).extend(b"".join(event.chunks))
        if event.stream in self.stopped:
            self.unconsumed[event.stream] = self.unconsumed.get(event.stream, 0) + nbytes
        else:
            self.session.consumed(event.stream, nbytes, now)

    def resume(self, stream: StreamKey, now: float) -> None:
        """The reader reads again."""
        self.stopped.discard(stream)
        self.session.consumed(stream, self.unconsumed.pop(stream, 0), now)

    def kinds(self, stream: StreamKey) -> list[type]:
        """Return the types of the events of one stream, in order."""
        kinds = [type(event) for event in self.events if getattr(event, "stream", None) == stream]
        return [kind for kind in kinds if kind is not StreamWritable]

    def reset_of(self, stream: StreamKey) -> StreamReset | None:
        """Return how a stream was reset."""
        for event in self.events:
            if isinstance(event, StreamReset) and event.stream == stream:
                return event
        return None

    def lost(self) -> list[str]:
        """Return the reasons for which the peer was lost."""
        return [event.reason for event in self.events if isinstance(event, PeerLost)]

    def ups(self) -> int:
        """Return how often a session came up."""
        return sum(isinstance(event, SessionUp) for event in self.events)


class Pair:
    """Node 1 and node 2, a wire each way, and a clock."""

    def __init__(self, seed: int = 0, limits: Limits | None = None, room: int = 48) -> None:
        self.random = random.Random(seed)
        self.limits = limits or Limits()
        self._agenda = Agenda(1000.0)
        self.room = room
        self.steps = 0
        private = [self.random.randbytes(32) for _ in range(2)]
        public = [public_key_of(X25519PrivateKey.from_private_bytes(key)) for key in private]
        self.a = End(1, private[0], public[1], self.random)
        self.b = End(2, private[1], public[0], self.random)
        self.ends = {1: self.a, 2: self.b}
        self.wires = {1: Wire(self.random), 2: Wire(self.random)}
        """By the node that sends."""
        self.calls_left = 0
        """How many calls planned with `at` are still to come."""
        self._arrived: dict[int, list[bytes]] = {1: [], 2: []}
        """Fragments of this instant, by the node that they reach."""
        self._sealed: set[tuple[int, bytes]] = set()
        for name in (1, 2):
            self.start(name)

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._agenda.now

    @now.setter
    def now(self, now: float) -> None:
        self._agenda.now = now

    def start(self, name: int) -> None:
        """Start a node, or start it again."""
        self.ends[name].start(3 - name, self.now, self.limits)
        self.ends[name].session.path_changed(PACKET_BYTES, self.now)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a time from the start of the pair (1000)."""
        self.calls_left += 1
        self._agenda.at(1000.0 + when, self._call, call)

    def _call(self, call: Callable[[], None]) -> None:
        self.calls_left -= 1
        call()

    def accept_all(self) -> None:
        """Both applications accept whatever is opened."""
        for end in self.ends.values():
            end.on_open = partial(self._accept, end)

    def _accept(self, end: End, event: StreamOpened) -> None:
        end.session.accept_stream(event.stream, self.now)

    def inject(self, to: int, packet: bytes) -> None:
        """Deliver a packet that the other end did not send."""
        self._agenda.at(self.now, self._arrive, to, packet)

    def send(self) -> None:
        """Let both ends send what they have and the wires take."""
        for name, end in self.ends.items():
            wire = self.wires[name]
            room = self.room
            if wire.rate_pps:
                room = min(room, int((self.now + 0.005 - wire.busy_until) * wire.rate_pps))
            while end.session.wants_to_send:
                express, bulk = end.session.packets_to_send(max(0, room), self.now)
                for packet in express + bulk:
                    self._check_nonce(name, packet)
                    for at, arriving in wire.carry(packet, self.now):
                        self._agenda.at(at, self._arrive, 3 - name, arriving)
                room -= len(bulk)
                if room <= 0 or not (express or bulk):
                    break
            end.drain(self.now)

    def _check_nonce(self, name: int, packet: bytes) -> None:
        """No nonce seals two records: word and number, and the fragment, are never seen twice from one node."""
        if packet[0] != CLASS_HANDSHAKE:
            fragment = (name, packet[PACKET_HEADER_BYTES : PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES])
            assert fragment not in self._sealed, "a nonce was used twice"
            self._sealed.add(fragment)

    def _deadlines(self) -> Iterator[float | None]:
        """Yield when the sessions want to be called, and when a wire takes what waits."""
        for name, end in self.ends.items():
            yield end.session.next_timeout()
            if end.session.wants_to_send and self.wires[name].rate_pps:
                yield max(self.now + 0.001, self.wires[name].busy_until - 0.004)
            elif end.session.wants_to_send:
                yield self.now + 0.0005

    def step(self, until: float) -> bool:
        """Let the next thing happen; False when nothing does before ``until``."""
        self.send()
        if not self._agenda.step(until, self._deadlines()):
            return False
        self.steps += 1
        self._deliver()
        for end in self.ends.values():
            timeout = end.session.next_timeout()
            if timeout is not None and timeout <= self.now:
                end.session.handle_timeout(self.now)
            end.drain(self.now)
            end.most_unread = max(end.most_unread, end.session.status(self.now).unread_bytes)
        return True

    def _arrive(self, to: int, packet: bytes) -> None:
        payload = packet[PACKET_HEADER_BYTES:]
        if packet[0] == CLASS_HANDSHAKE:
            self.ends[to].session.receive_handshake(payload, self.now)
        else:
            self._arrived[to].append(payload)

    def _deliver(self) -> None:
        for to, payloads in self._arrived.items():
            if payloads:
                self._arrived[to] = []
                self.ends[to].session.receive_fragments(payloads, self.now)
            self.ends[to].drain(self.now)

    def run(self, seconds: float) -> None:
        """Let time go by."""
        until = self.now + seconds
        while self.step(until):
            pass

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Let time go by until something is so; fail when it does not come to be."""
        until = self.now + seconds
        while not condition():
            if not self.step(until):
                raise AssertionError(f"it was not so within {seconds} s")

    def open(self, target: bytes = b"10.1.9.2:22") -> tuple[StreamKey, StreamKey]:
        """Open a stream from node 1; return its names there and at node 2."""
        key = self.a.session.open_stream(target, self.now)
        self.a.known.add(key)
        return key, (1, key[1])

    def describe(self) -> str:
        """Say where both ends are, for a failed test."""
        return " | ".join(str(end.session.status(self.now)) for end in self.ends.values())

    def check_prefix(self) -> None:
        """What was read is a prefix of what was written, on every stream, both ways."""
        for name, end in self.ends.items():
            other = self.ends[3 - name]
            for (_, stream), data in end.received.items():
                written = other.written.get((name, stream), bytearray())
                assert written.startswith(data), f"stream {stream} at node {name} is no prefix"
