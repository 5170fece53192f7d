"""The daemon's end of what holds SYNs (`seamless.linux.syn_holder`): reads which are held, and sends the decisions."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.linux.held_syns import (
    COUNTERS,
    MAX_MESSAGE_SYNS,
    Flow,
    HoldCounters,
    Outcome,
    decode_counters,
    decode_message,
    encode_decisions,
)
from seamless.linux.syn_holder import FAILED, MESSAGE_BYTES

OnHeld: TypeAlias = Callable[[int, "Flow | None"], None]
"""Called with (number, flow) of a SYN that is held now, and (number, None) when its client has given up."""

READS: Final = 16
"""Messages that one turn of the reactor takes."""


@implementer(IReadDescriptor, IWriteDescriptor)
class HeldSynReader:
    """One socket pair to what holds SYNs, for as long as the other end is there; ``lost`` is called when it is not."""

    def __init__(
        self,
        reactor: Any,
        channel: socket.socket,
        on_held: OnHeld,
        on_counters: Callable[[HoldCounters], None],
        on_failure: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._on_held = on_held
        self._on_counters = on_counters
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._unsent: list[tuple[int, Outcome]] = []
        self._is_open = True
        reactor.addReader(self)

    def close(self) -> None:
        """Let go: the other end drops what is held."""
        if self._is_open:
            self._is_open = False
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._channel.close()

    def decide(self, number: int, outcome: Outcome) -> None:
        """Let a held SYN go."""
        self._unsent.append((number, outcome))
        if len(self._unsent) == 1:
            self.doWrite()

    def doWrite(self) -> None:
        """Send the decisions that wait."""
        while self._unsent and self._is_open:
            try:
                self._channel.send(encode_decisions(self._unsent[:MAX_MESSAGE_SYNS]))
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError:
                break  # the other end is gone, and what it held with it: reading says so
            del self._unsent[:MAX_MESSAGE_SYNS]
        self._unsent.clear()
        if self._is_open:
            self._reactor.removeWriter(self)

    def doRead(self) -> None:
        """Take what waits, up to `READS` messages."""
        for _ in range(READS):
            if not self._is_open:
                return
            try:
                message = self._channel.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self.close()
                self._on_lost()
            elif message[:1] == FAILED:
                self._on_failure(message[1:].decode(errors="replace"))
            elif message[:1] == COUNTERS:
                self._on_counters(decode_counters(message))
            else:
                for number, flow in decode_message(message):
                    self._on_held(number, flow)

    # What the reactor asks.

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """Return the name of this descriptor for the reactor's log."""
        return "held SYNs"

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the end of the socket pair is read, not reported."""
