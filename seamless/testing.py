"""An overlay in memory, for tests of code that uses streams, here and in programs that embed seamless.

`MemoryOverlay` joins drivers in one process: no node, no wire, no keys, only what a stream's owner can see. Every
message takes ``latency`` seconds on the given clock and none overtakes another. It is strict where a node is lenient:
an owner that gives back more than it was handed, or sends after its FIN, fails the test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from seamless.errors import UnreachableError
from seamless.interfaces import RESET_PEER_LOST, StreamKey
from seamless.transport.streams import Acceptors, OnOpen, StreamOwner

WINDOW_BYTES: Final = 256 * 1024
"""Bytes of a stream that may be sent and unread; equal to a session's initial window."""


class MemoryOverlay:
    """Nodes by name, each of which reaches every other until `cut`."""

    def __init__(self, clock: Any, latency: float = 0.0, window_bytes: int = WINDOW_BYTES) -> None:
        self.clock = clock
        self.latency = latency
        self.window_bytes = window_bytes
        self.in_flight = 0
        self._drivers: dict[str, MemoryDriver] = {}
        self._cut: set[frozenset[str]] = set()

    def driver(self, name: str) -> MemoryDriver:
        """Return the driver of this node, made when first asked for."""
        if name not in self._drivers:
            self._drivers[name] = MemoryDriver(self, name, len(self._drivers) + 1)
        return self._drivers[name]

    def reachable(self, one: str, other: str) -> bool:
        """Return whether these two nodes reach each other."""
        return one in self._drivers and other in self._drivers and frozenset((one, other)) not in self._cut

    def cut(self, one: str, other: str) -> None:
        """Make two nodes unreachable for each other: their streams are reset on both sides."""
        self._cut.add(frozenset((one, other)))
        for driver, peer in ((self._drivers[one], other), (self._drivers[other], one)):
            driver.lose(peer)

    def mend(self, one: str, other: str) -> None:
        """Join two nodes again."""
        self._cut.discard(frozenset((one, other)))


class MemoryDriver:
    """One node's driver (see `seamless.transport.streams.StreamDriver`), with what it saw for tests to look at."""

    def __init__(self, overlay: MemoryOverlay, name: str, number: int) -> None:
        self.overlay = overlay
        self.name = name
        self.number = number
        self.targets: list[bytes] = []
        self.resets: list[tuple[int, str]] = []
        self.peak_unconsumed_bytes = 0
        self.withheld = False
        self._next_stream = 0
        self._halves: dict[StreamKey, _Half] = {}
        self._on_open: OnOpen | None = None

    @property
    def open_streams(self) -> int:
        """Return how many streams have not ended."""
        return len(self._halves)

    def open_stream(self, peer: str, target: bytes, owner: StreamOwner) -> StreamKey:
        """Open a stream to ``peer``."""
        if not self.overlay.reachable(self.name, peer):
            raise UnreachableError(f"no way to node {peer} now: look at its links")
        far = self.overlay.driver(peer)
        self._next_stream += 1
        number = self.number << 20 | self._next_stream
        here, there = _Half(self, far, number), _Half(far, self, number)
        here.other, there.other = there, here
        here.owner = owner
        self.targets.append(target)
        here.post(lambda: far.opened(there, target))
        return here.key

    def opened(self, half: _Half, target: bytes) -> None:
        """Offer a stream to the acceptor of its target."""
        assert self._on_open is not None, f"node {self.name} accepts no streams"
        self._on_open(half.key, half.far.name, target)

    def listen(self, callback: OnOpen) -> None:
        """Have ``callback`` decide about streams."""
        self._on_open = callback

    def watch_stream(self, stream: StreamKey, given_up: Callable[[], None]) -> None:
        """Call ``given_up`` if the stream is reset before all else."""
        half = self._halves.get(stream)
        if half is not None:
            half.given_up = given_up

    def accept_stream(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Accept a stream."""
        half = self._halves.get(stream)
        if half is not None:
            half.accept(owner)

    def change_owner(self, stream: StreamKey, owner: StreamOwner) -> None:
        """Report to another owner."""
        half = self._halves.get(stream)
        if half is not None:
            half.owner = owner

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        """Reset a stream."""
        half = self._halves.pop(stream, None)
        if half is not None:
            self.resets.append((code, reason))
            other = half.other
            half.post(lambda: other.reset(code, reason))

    def send(self, stream: StreamKey, data: bytes) -> int:
        """Send on a stream."""
        half = self._halves.get(stream)
        return 0 if half is None else half.send(data)

    def finish(self, stream: StreamKey) -> None:
        """Finish our direction of a stream."""
        half = self._halves.get(stream)
        if half is not None:
            half.finish()

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Open the window."""
        half = self._halves.get(stream)
        if half is not None:
            half.consumed(nbytes)

    def reachable(self, peer: str) -> bool:
        """Return whether there is a path to ``peer``."""
        return self.overlay.reachable(self.name, peer)

    def withhold_room(self) -> None:
        """Report to every stream that its window is full, until `give_room`."""
        self.withheld = True

    def give_room(self) -> None:
        """Report room again to streams whose window is not full."""
        self.withheld = False
        for half in list(self._halves.values()):
            half.credit(0)

    def lose(self, peer: str) -> None:
        """Reset every stream with ``peer``."""
        for half in [half for half in self._halves.values() if half.far.name == peer]:
            half.reset(RESET_PEER_LOST, f"node {peer} was silent for too long")

    def join(self, half: _Half) -> None:
        """Add a stream to this driver."""
        self._halves[half.key] = half

    def knows(self, half: _Half) -> bool:
        """Return whether a stream has not ended."""
        return half.key in self._halves

    def forget(self, half: _Half) -> bool:
        """Forget a stream; return whether it was known."""
        return self._halves.pop(half.key, None) is not None


class _Half:
    """One end of a stream: its owner, and the wire to the other end."""

    other: _Half

    def __init__(self, driver: MemoryDriver, far: MemoryDriver, number: int) -> None:
        self.driver = driver
        self.far = far
        self.key: StreamKey = (far.number, number)
        self.owner: StreamOwner | None = None
        self.given_up: Callable[[], None] | None = None
        self._kept: list[Callable[[StreamOwner], None]] = []
        self._wire: deque[Callable[[], None]] = deque()
        self._outstanding_bytes = 0
        self._unconsumed_bytes = 0
        self._wants_room = False
        self._finished = self._peer_finished = self._finish_arrived = False
        driver.join(self)

    def post(self, message: Callable[[], None]) -> None:
        """Schedule a call at the other end, after all that was posted before."""
        overlay = self.driver.overlay
        overlay.in_flight += 1
        self._wire.append(message)
        overlay.clock.callLater(overlay.latency, self._arrive)

    def _arrive(self) -> None:
        self.driver.overlay.in_flight -= 1
        self._wire.popleft()()

    def _tell(self, what: Callable[[StreamOwner], None]) -> None:
        if self.owner is None:
            self._kept.append(what)
        else:
            what(self.owner)

    def accept(self, owner: StreamOwner) -> None:
        self.owner = owner
        self.post(self.other.accepted)
        kept, self._kept = self._kept, []
        for what in kept:
            what(owner)

    def accepted(self) -> None:
        if self.driver.knows(self):
            self._tell(lambda owner: owner.stream_accepted())

    def send(self, data: bytes) -> int:
        assert not self._finished, "sent after FIN"
        self._outstanding_bytes += len(data)
        other = self.other
        self.post(lambda: other.data(data))
        room = self._room()
        self._wants_room = room <= 0
        return room

    def _room(self) -> int:
        return 0 if self.driver.withheld else self.driver.overlay.window_bytes - self._outstanding_bytes

    def data(self, data: bytes) -> None:
        if not self.driver.knows(self):
            return
        self._unconsumed_bytes += len(data)
        self.driver.peak_unconsumed_bytes = max(self.driver.peak_unconsumed_bytes, self._unconsumed_bytes)
        self._tell(lambda owner: owner.stream_data([data]))

    def consumed(self, nbytes: int) -> None:
        assert 0 <= nbytes <= self._unconsumed_bytes, "gave back more than it was handed"
        self._unconsumed_bytes -= nbytes
        self.post(lambda: self.other.credit(nbytes))

    def credit(self, nbytes: int) -> None:
        self._outstanding_bytes -= nbytes
        if self._wants_room and self._room() > 0 and self.driver.knows(self):
            self._wants_room = False
            self._tell(lambda owner: owner.stream_writable())

    def finish(self) -> None:
        assert not self._finished, "finished twice"
        self._finished = True
        self.post(self.other.finished)

    def finished(self) -> None:
        if not self.driver.knows(self):
            return
        self._peer_finished = True
        self._tell(lambda owner: owner.stream_finished())
        self.post(self.other.finish_arrived)
        self._close_if_done()

    def finish_arrived(self) -> None:
        self._finish_arrived = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._finish_arrived and self._peer_finished and self.driver.forget(self):
            self._tell(lambda owner: owner.stream_closed())

    def reset(self, code: int, reason: str) -> None:
        if self.owner is None and self.given_up is not None and not self._kept:
            self.driver.forget(self)
            self.given_up()
            return
        self._tell(lambda owner: owner.stream_reset(code, reason) if self.driver.forget(self) else None)


class MemoryNode:
    """A node for `seamless.transport.endpoints`, over a `MemoryOverlay`."""

    def __init__(self, overlay: MemoryOverlay, name: str) -> None:
        self.driver = overlay.driver(name)
        self.acceptors = Acceptors(self.driver)
