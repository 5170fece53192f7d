"""Two links with keys of their own handshake and a wire between them, in virtual time; all of it seeded.

The counterpart of the session's `Pair`: what a link sends, keeps, sends again and gives back is seen at the far end and
in its status. Ends hand over batches as nodes do: what one `Transmit` carries arrives as one batch, except for what the
wire loses, delays, doubles or finds too long.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.crypto.association import Association
from seamless.crypto.initiation import InitiationReader
from seamless.crypto.messages import LINK_PROLOGUE
from seamless.crypto.noise import public_key_of
from seamless.errors import RemoteProtocolError
from seamless.interfaces import Address, Transmit
from seamless.link.congestion import make_controller
from seamless.link.events import Accepted, LinkEvent, PacketsReceived
from seamless.link.link import Link
from seamless.link.status import LinkSettings, LinkStatus
from seamless.wire.fragment import encode_place
from seamless.wire.header import (
    DATA,
    FRAGMENT_HEADER_BYTES,
    INDEX_BITS,
    INDEX_MASK,
    INITIATION,
    IPV4_UDP_BYTES,
    PACKET_ENDS,
    PACKET_HEADER,
    PACKET_HEADER_BYTES,
    RESPONSE,
    SEALED_HEADER,
)
from seamless.wire.traffic_class import CLASS_BULK

ADDRESSES: tuple[Address, Address] = (("192.0.2.1", 7400), ("192.0.2.2", 7400))
HELLO_INTERVAL = 0.1
DEAD_INTERVAL = 0.3
MAX_STEPS = 200_000
BODY_AT = PACKET_HEADER_BYTES + FRAGMENT_HEADER_BYTES


def packet(number: int, size: int = 1400, packet_class: int = CLASS_BULK, source: int = 1) -> bytes:
    """Return an overlay packet that is the whole record ``number`` of one session."""
    head = PACKET_HEADER.pack(packet_class, 32, source, 2) + SEALED_HEADER.pack(source, number) + encode_place(0, True)
    return head + random.Random(number).randbytes(size - len(head))


def record_number(packet: bytes) -> int:
    """Return the number that `packet` was made with."""
    number: int = SEALED_HEADER.unpack_from(packet, PACKET_HEADER_BYTES)[1]
    return number


@attrs.define
class Wire:
    """What one direction does to datagrams: seconds, shares of all datagrams, bytes of an IP packet.

    The counters say what it really did.
    """

    delay: float = 0.005
    jitter: float = 0.0
    """Seconds, up to which each datagram is later than ``delay`` by itself: they overtake one another."""
    loss: float = 0.0
    duplication: float = 0.0
    mtu_bytes: int = 1500
    loses: Callable[[bytes], bool] = lambda datagram: False
    """Loses more, as the test likes."""
    carried: int = 0
    lost: int = 0
    too_long: int = 0
    overtaken: int = 0
    doubled: int = 0
    types: Counter[int] = attrs.Factory(Counter)
    """Datagrams that were put onto the wire, by their type."""

    def carry(self, datagram: bytes, source: random.Random) -> list[float]:
        """Return the delays with which a datagram arrives: none, one or two."""
        self.types[datagram[0]] += 1
        if len(datagram) + IPV4_UDP_BYTES > self.mtu_bytes:
            self.too_long += 1
            return []
        if source.random() < self.loss or self.loses(datagram):
            self.lost += 1
            return []
        self.carried += 1
        delays = [self.delay + self.jitter * source.random()]
        if source.random() < self.duplication:
            self.doubled += 1
            delays.append(delays[0] + self.delay * source.random())
        return delays


class LinkEnd:
    """One end: a link, and what a node would do with what comes out of it."""

    def __init__(
        self,
        which: int,
        keys: tuple[bytes, bytes],
        remote_key: bytes,
        seed: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self.which = which
        self._clock = clock
        self.keys = keys
        self.remote_key = remote_key
        self.packets: list[bytes] = []
        """Overlay packets that came, in their order."""
        self.frames: list[LinkEvent] = []
        """Frames that came for the node."""
        self.refused = 0
        """Datagrams that no key was known for, and handshakes that were refused."""
        self.waits = 0.0
        """Seconds for which this end's process lets a batch wait in its socket."""
        self.reader = InitiationReader(keys[0], keys[1], [remote_key], LINK_PROLOGUE)
        self._random = seed
        self._indices = itertools.count(1000 * which + 1)
        self._incarnation = 0

    def start(self, now: float, *, congestion: str, rate_bps: float, mtu_bytes: int) -> None:
        """Start, or start again, the process of this end."""
        self._incarnation += 1
        local, remote = ADDRESSES if self.which == 0 else ADDRESSES[::-1]
        self.association = Association(
            private_key=self.keys[0],
            public_key=self.keys[1],
            remote_public_key=self.remote_key,
            prologue=LINK_PROLOGUE,
            incarnation=self._incarnation << 40,
            allocate_index=self._indices.__next__,
            release_index=lambda index: None,
            random=self._random.randbytes,
            next_counter=itertools.count(self._incarnation << 40).__next__,
        )
        settings = LinkSettings(
            neighbor=f"end {1 - self.which}",
            neighbor_id=1 - self.which,
            local=local,
            remote=remote,
            mtu_bytes=mtu_bytes,
            hello_interval=HELLO_INTERVAL,
            dead_interval=DEAD_INTERVAL,
            dials=True,
            neighbor_dials=True,
        )
        self.link = Link(settings, self.association, make_controller(congestion, rate_bps, mtu_bytes, now), now)

    @property
    def status(self) -> LinkStatus:
        """Return what the link says of itself."""
        return self.link.status()

    @property
    def numbers(self) -> list[int]:
        """Return the record numbers of the packets that came."""
        return [record_number(each) for each in self.packets]

    def put(self, *packets: bytes) -> Accepted:
        """Queue packets of one flow and class."""
        return self.link.enqueue(list(packets), packets[0][0], packets[0][PACKET_ENDS], self._clock())

    def receive(self, batch: bytes, segment_size: int, received_at: float, now: float) -> None:
        """Take in datagrams of one first word, as a node does; they came at ``received_at``."""
        remote = ADDRESSES[1 - self.which]
        word = int.from_bytes(batch[:4], "big")
        try:
            if word >> INDEX_BITS == INITIATION:
                self.link.receive_initiation(self.reader.open(batch), remote, now)
            elif word >> INDEX_BITS == RESPONSE:
                self.link.receive_response(batch, now)
            elif not self.link.has_key(word & INDEX_MASK):
                self.refused += 1
            else:
                self.link.receive_datagrams(batch, segment_size, ADDRESSES[self.which], remote, now, received_at)
        except RemoteProtocolError:
            self.refused += 1
        while (event := self.link.next_event()) is not None:
            if isinstance(event, PacketsReceived):
                self.packets += event.packets
            else:
                self.frames.append(event)


class LinkPair:
    """Ends 0 and 1, the wires out of each, and the time. Both are UP at the start, unless ``settle`` is False."""

    def __init__(
        self,
        seed: int = 0,
        *,
        congestion: str = "off",
        rate_bps: float = 100e6,
        mtu_bytes: int = 1500,
        settle: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self._start = {"congestion": congestion, "rate_bps": rate_bps, "mtu_bytes": mtu_bytes}
        private = [self.random.randbytes(32) for _ in range(2)]
        keys = [(each, public_key_of(X25519PrivateKey.from_private_bytes(each))) for each in private]
        self.ends = [
            LinkEnd(which, keys[which], keys[1 - which][1], self.random, lambda: self.now) for which in range(2)
        ]
        self.wires = [Wire(), Wire()]
        self._flying: list[tuple[float, int, int, bytes, int, float]] = []
        self._order = itertools.count()
        self._newest_at = [0.0, 0.0]
        for end in self.ends:
            self.start(end.which)
        if settle:
            self.run_until(lambda: all(end.link.is_up and end.link.mtu_is_found for end in self.ends), 5.0)

    def start(self, which: int, **options: float | str) -> None:
        """Start, or start again, the process of one end."""
        self.ends[which].start(self.now, **{**self._start, **options})  # type: ignore[arg-type]

    # Time.

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._run(self.now + seconds, lambda: False)

    def run_until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Let time pass until ``reached``; fail when that takes longer than ``seconds``."""
        if not self._run(self.now + seconds, reached):
            raise AssertionError(f"not reached within {seconds} s: {[end.status for end in self.ends]}")

    def _run(self, until: float, reached: Callable[[], bool]) -> bool:
        for _ in range(MAX_STEPS):
            self._transmit()
            if reached():
                return True
            at = min(end.link.next_timeout() for end in self.ends)
            if self._flying:
                at = min(at, self._flying[0][0])
            if at > until:
                self.now = until
                return False
            self.now = max(self.now, at)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, which, batch, segment_size, received_at = heapq.heappop(self._flying)
                self.ends[which].receive(batch, segment_size, received_at, self.now)
            for end in self.ends:
                end.link.handle_timeout(self.now)
        raise AssertionError("time stands still")

    def _transmit(self) -> None:
        for end in self.ends:
            for transmit in end.link.datagrams_to_send(self.now):
                self._carry(end.which, transmit)

    def _carry(self, which: int, transmit: Transmit) -> None:
        """Put the datagrams of one batch onto the wire; those that arrive together arrive as one batch."""
        joined, size = b"".join(transmit.buffers), transmit.segment_size
        wire = self.wires[which]
        together: deque[tuple[float, bytes]] = deque()
        for offset in range(0, len(joined), size):
            datagram = joined[offset : offset + size]
            for delay in wire.carry(datagram, self.random):
                at = self.now + delay
                wire.overtaken += at < self._newest_at[which]
                self._newest_at[which] = max(at, self._newest_at[which])
                together.append((at, datagram))
        while together:
            at, batch = together.popleft()
            while together and together[0][0] == at:
                batch += together.popleft()[1]
            read_at = at + self.ends[1 - which].waits
            heapq.heappush(self._flying, (read_at, next(self._order), 1 - which, batch, size, at))


def is_data(datagram: bytes) -> bool:
    """Return whether a datagram carries overlay packets."""
    return datagram[0] == DATA
