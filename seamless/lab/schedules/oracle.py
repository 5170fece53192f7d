"""The oracle: what the application at one end of a stream may see, given what the one at the other end has done.

The rules, each broken by raising a `Violation` that names it:

* **prefix**: what was read is at every instant an exact prefix of what the far end wrote.
* **eof**: a clean end of file comes once, after the far end's FIN and every byte before it.
* **closed**: `StreamClosed` comes only after the own FIN and the far end's end of file. (The far application may still
  have to read the last bytes then: they are acknowledged once its node has them.)
* **reset**: a stream is reset only because the application at the far end reset it or refused it, because the far node
  was restarted, or because there was no path for as long as ``give up``.
* **order**: no event of a stream comes before its opening, after its end, or twice.
* **once**: a stream is opened once at the far end; again only after a restart of that node, if the old one never
  answered.
* **packet**: a whole packet arrives as it was sent, from whom it was sent, and never twice.
"""

from __future__ import annotations

from typing import Final

import attrs

from seamless.interfaces import (
    RESET_NOT_ALLOWED,
    RESET_PEER_LOST,
    RESET_REFUSED,
    StreamKey,
)
from seamless.lab.schedules.plan import APPLICATION_CODES, Conversation, Script

GIVE_UP_SLACK: Final = 1.0
"""Seconds by which a gap may be shorter than ``give up``: what was under way when it began was sent a little before."""


class Violation(Exception):  # noqa: N818
    """A rule was broken."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


@attrs.define(eq=False)
class End:
    """One end of a stream, in one life of its node: what its application did and what it saw."""

    conversation: Conversation
    node: str
    life: int
    script: Script
    content: bytes
    """All that its application would write."""
    opened_at: float
    key: StreamKey = (0, 0)
    far: End | None = None
    written: int = 0
    finished: bool = False
    reset_code: int | None = None
    accepted: bool = False
    received: int = 0
    unread: int = 0
    eof: bool = False
    reads_at: float = 0.0
    """Until when its application does not read."""
    over: str = ""
    """How it ended, in one word; nothing while it lives."""

    def __str__(self) -> str:
        """Name it in a sentence."""
        side = "client" if self.node == self.conversation.client else "server"
        return f"stream {self.conversation.number} at its {side} {self.node}"

    @property
    def is_client(self) -> bool:
        """Return whether its application opened the stream."""
        return self.node == self.conversation.client

    @property
    def undelivered(self) -> int:
        """Return how many bytes it wrote that the far end has not read yet."""
        far = self.far
        return self.written - far.received if far is not None else self.written

    def check_alive(self, event: str) -> None:
        """Check that an event may come at all."""
        if self.over:
            raise Violation("order", f"{self}: {event} after the end ({self.over})")

    def check_data(self, chunks: list[bytes]) -> None:
        """Check bytes that came, and count them."""
        self.check_alive("bytes")
        far = self._writer("bytes")
        if self.eof:
            raise Violation("eof", f"{self}: bytes after the end of file")
        for chunk in chunks:
            end = self.received + len(chunk)
            if end > far.written:
                raise Violation("prefix", f"{self}: {end} bytes came of {far.written} that were written")
            if bytes(chunk) != far.content[self.received : end]:
                raise Violation("prefix", f"{self}: the bytes from {self.received} to {end} are not those written")
            self.received = end
            self.unread += len(chunk)

    def check_eof(self) -> None:
        """Check an end of file."""
        self.check_alive("an end of file")
        far = self._writer("an end of file")
        if self.eof:
            raise Violation("eof", f"{self}: two ends of file")
        if not far.finished:
            raise Violation("eof", f"{self}: an end of file without a FIN")
        if self.received != far.written:
            raise Violation("eof", f"{self}: an end of file after {self.received} of {far.written} bytes")
        self.eof = True

    def check_closed(self) -> None:
        """Check that both directions are complete."""
        self.check_alive("StreamClosed")
        if not self.finished or not self.eof:
            missing = "its own FIN" if not self.finished else "the end of file of the peer"
            raise Violation("closed", f"{self}: closed before {missing}")
        self.over = "closed"

    def _writer(self, event: str) -> End:
        if self.far is None:
            raise Violation("order", f"{self}: {event} before it was opened at the far end")
        return self.far

    def check_reset(self, code: int, reason: str, *, gap: float, give_up: float, far_restarted: bool) -> None:
        """Check that a reset has a cause: ``gap`` is for how long at most there was no path in the stream's life."""
        self.check_alive(f"a reset ({reason})")
        far_code = self.far.reset_code if self.far is not None else None
        if code in APPLICATION_CODES:
            justified = far_code == code
        else:
            justified = code == RESET_PEER_LOST and (far_restarted or gap >= give_up - GIVE_UP_SLACK)
        if not justified:
            what = f"code {code}, {reason!r}; no path for {gap:.1f} s at most"
            raise Violation("reset", f"{self} was reset without cause: {what}")
        if code in (RESET_REFUSED, RESET_NOT_ALLOWED) and self.accepted:
            raise Violation("order", f"{self} was refused after it was accepted")
        self.over = f"reset {code}"


class PacketRules:
    """Which whole packets are on their way, between which nodes."""

    def __init__(self) -> None:
        self.sent = 0
        self.arrived = 0
        self._under_way: dict[bytes, tuple[str, str]] = {}

    def note_sent(self, source: str, destination: str, packet: bytes) -> None:
        """Note a packet; no two are equal."""
        self.sent += 1
        self._under_way[packet] = (source, destination)

    def check_received(self, source: str, destination: str, packet: bytes) -> None:
        """Raise `Violation` unless a packet that arrived was sent to this node, once and unchanged."""
        if self._under_way.pop(packet, None) != (source, destination):
            what = f"a packet of {len(packet)} bytes came from {source} to {destination}"
            raise Violation("packet", f"{what} that was not sent, or came before")
        self.arrived += 1
