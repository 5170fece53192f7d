"""Two associations and a wire that is slow, lossy, doubling, reordering and corrupting; all of it seeded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.crypto.association import Association, AssociationEvent, KeysEstablished
from seamless.crypto.gate import Admitted, Answer, HandshakeGate
from seamless.crypto.initiation import InitiationReader
from seamless.crypto.messages import (
    LINK_PROLOGUE,
)
from seamless.crypto.noise import public_key_of
from seamless.crypto.sealing import (
    SendKey,
)
from seamless.errors import RemoteProtocolError
from seamless.lab.agenda import Agenda
from seamless.wire.header import COOKIE, INDEX_MASK, INITIATION, RESPONSE

CONTROL = 5
MAX_STEPS = 100_000


def key_pair(source: random.Random) -> tuple[bytes, bytes]:
    """Return (private key, public key)."""
    private_key = source.randbytes(32)
    return private_key, public_key_of(X25519PrivateKey.from_private_bytes(private_key))


def index_of(datagram: bytes) -> int:
    """Return the index in the first word."""
    return int.from_bytes(datagram[:4], "big") & INDEX_MASK


class Indices:
    """Lends indices and knows which are out."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.lent: set[int] = set()

    def allocate(self) -> int:
        """Lend one that is not out."""
        while (index := self.random.randrange(1 << 24)) in self.lent:
            pass
        self.lent.add(index)
        return index

    def release(self, index: int) -> None:
        """Take one back; fail for one that is not out."""
        self.lent.remove(index)


class End:
    """What a link makes of an association: it answers new keys with something sealed, and numbers all it sends."""

    def __init__(self, source: random.Random, keys: tuple[bytes, bytes], remote: bytes, incarnation: int) -> None:
        self.random = source
        self.keys = keys
        self.indices = Indices(source)
        self.incarnation = incarnation
        self.association = Association(
            private_key=keys[0],
            public_key=keys[1],
            remote_public_key=remote,
            prologue=LINK_PROLOGUE,
            incarnation=incarnation,
            allocate_index=self.indices.allocate,
            release_index=self.indices.release,
            random=source.randbytes,
            next_counter=itertools.count(incarnation).__next__,
        )
        self.reader = InitiationReader(keys[0], keys[1], [remote], LINK_PROLOGUE)
        self.gate: HandshakeGate | None = None
        self.events: list[AssociationEvent] = []
        self.outbox: list[bytes] = []
        self.received: list[bytes] = []
        self.undeliverable = 0
        self.next_number = 0

    def stand_behind_gate(self, now: float) -> None:
        """Let initiations come through a `HandshakeGate`."""
        private_key, public_key = self.keys
        self.gate = HandshakeGate(
            private_key=private_key,
            public_key=public_key,
            known_keys=[self.association.remote_public_key],
            random=self.random.randbytes,
            now=now,
        )

    def send(self, plaintext: bytes, now: float) -> SendKey | None:
        """Seal under the key of the moment; return it, or None when there is none."""
        key = self.association.send_key
        if key is not None:
            self.outbox.append(key.seal(CONTROL, self.next_number, plaintext))
            self.next_number += 1
            self.association.sent(1, now)
        return key

    def receive(self, datagram: bytes, now: float) -> None:
        """Take one datagram; what is wrong with it is counted, and changes nothing."""
        try:
            self._receive(datagram, now)
        except RemoteProtocolError:
            self.undeliverable += 1
        self._drain(now)

    def _receive(self, datagram: bytes, now: float) -> None:
        if not datagram:
            raise RemoteProtocolError("nothing")
        if datagram[0] == INITIATION:
            self._receive_initiation(datagram, now)
        elif datagram[0] == RESPONSE:
            self.association.receive_response(datagram, now)
        elif datagram[0] == COOKIE:
            self.association.receive_cookie(datagram, now)
        else:
            self._receive_sealed(datagram, now)

    def _receive_initiation(self, datagram: bytes, now: float) -> None:
        if self.gate is None:
            self.association.receive_initiation(self.reader.open(datagram), now)
            return
        admission = self.gate.admit(datagram, ("192.0.2.1", 7400), now)
        if isinstance(admission, Answer):
            self.outbox.append(admission.datagram)
        elif isinstance(admission, Admitted):
            self.association.receive_initiation(self.gate.open_initiation(datagram), now)

    def _receive_sealed(self, datagram: bytes, now: float) -> None:
        key = self.association.receive_key(index_of(datagram)) if len(datagram) >= 4 else None
        if key is None:
            raise RemoteProtocolError("no such key")
        plaintext = key.open(datagram)
        if key.window.accept(int.from_bytes(datagram[4:12], "big")):
            self.association.authenticated(key, now)
            self._drain(now)
            self.received.append(plaintext)

    def handle_timeout(self, now: float) -> None:
        """Pass the time on."""
        self.association.handle_timeout(now)
        self._drain(now)

    def _drain(self, now: float) -> None:
        while (event := self.association.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, KeysEstablished):
                self.send(b"hello", now)

    def take_outbox(self, now: float) -> list[bytes]:
        """Return what is to be sent."""
        outbox = self.association.messages_to_send(now) + self.outbox
        self.outbox = []
        return outbox

    @property
    def established(self) -> list[KeysEstablished]:
        """Return the events that there are new keys."""
        return [event for event in self.events if isinstance(event, KeysEstablished)]


@attrs.define
class Wire:
    """One direction: latency and jitter in seconds, and the shares of datagrams to which something happens."""

    latency: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    swallows: Callable[[bytes], bool] = lambda datagram: False
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0

    def carry(self, datagram: bytes, source: random.Random) -> list[tuple[float, bytes]]:
        """Return the (delay, datagram)s that arrive."""
        if self.swallows(datagram) or source.random() < self.loss:
            self.lost += 1
            return []
        copies = 1
        if source.random() < self.duplication:
            self.duplicated += 1
            copies = 2
        if source.random() < self.corruption:
            self.corrupted += 1
            bent = bytearray(datagram)
            bent[source.randrange(len(bent))] ^= 1 << source.randrange(8)
            datagram = bytes(bent)
        return [(self.latency + source.random() * self.jitter, datagram) for _ in range(copies)]


class Pair:
    """Two ends and the wires between them, in virtual time. Alice has the greater public key."""

    def __init__(self, seed: int = 0, *, gates: bool = False, wire: Callable[[], Wire] = Wire) -> None:
        self.random = random.Random(seed)
        self._agenda = Agenda(1000.0)
        keys = sorted((key_pair(self.random) for _ in range(2)), key=lambda pair: pair[1], reverse=True)
        self.keys = keys
        self.alice = End(self.random, keys[0], keys[1][1], 10**18)
        self.bob = End(self.random, keys[1], keys[0][1], 10**18 + 1)
        self.wires = [wire(), wire()]
        self.sent: list[bytes] = []
        if gates:
            for end in self.ends:
                end.stand_behind_gate(self.now)

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._agenda.now

    @now.setter
    def now(self, now: float) -> None:
        self._agenda.now = now

    @property
    def ends(self) -> tuple[End, End]:
        """Return both ends; end 0 sends into wire 0."""
        return self.alice, self.bob

    def restart(self, which: int) -> End:
        """Put a new process in the place of one end."""
        old, other = self.ends[which], self.ends[1 - which]
        end = End(self.random, old.keys, other.keys[1], old.incarnation + 10**9)
        if which == 0:
            self.alice = end
        else:
            self.bob = end
        return end

    def transmit(self) -> None:
        """Put onto the wires what the ends have to send."""
        for which, end in enumerate(self.ends):
            for datagram in end.take_outbox(self.now):
                self.sent.append(datagram)
                for delay, arriving in self.wires[which].carry(datagram, self.random):
                    self._agenda.at(self.now + delay, self._arrive, 1 - which, arriving)

    def _arrive(self, which: int, datagram: bytes) -> None:
        self.ends[which].receive(datagram, self.now)
        self._handle_timeouts()
        self.transmit()

    def _handle_timeouts(self) -> None:
        for end in self.ends:
            end.handle_timeout(self.now)

    def step(self, until: float) -> bool:
        """Go on to the next thing that happens, at the latest to ``until``; return False when that is reached."""
        self.transmit()
        if not self._agenda.step(until, [end.association.next_timeout() for end in self.ends]):
            return False
        self._handle_timeouts()
        return True

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Run for so long; call ``each`` after each step."""
        until = self.now + seconds
        for _ in range(MAX_STEPS):
            if not self.step(until):
                break
            if each is not None:
                each()
        else:
            raise AssertionError("time stands still")
        self.transmit()

    def everybody_can_be_understood(self) -> bool:
        """Return whether each end that sends is sending under a key that the other has."""
        for sender, receiver in (self.ends, self.ends[::-1]):
            key = sender.association.send_key
            if key is not None and receiver.association.receive_key(key.remote_index) is None:
                return False
        return True

    def converse(self) -> tuple[SendKey | None, SendKey | None]:
        """Send something in each direction over wires that do nothing to it; return the keys of both senders."""
        self.wires = [Wire(), Wire()]
        used = self.alice.send(b"from alice", self.now), self.bob.send(b"from bob", self.now)
        self.run(0.1)
        return used
