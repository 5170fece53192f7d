"""A connection whose SYN is held, and the owner of its stream until it comes: it keeps what happens meanwhile.

Pure but for the timer that it holds for `seamless.intercept.payload.confirming`.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from seamless.intercept.payload.flow import Flow, Route
from seamless.interfaces import StreamKey
from seamless.linux import held_syns
from seamless.transport.streams import StreamOwner


class Answered(Protocol):
    """What is told the egress's answer."""

    def accepted(self, held: HeldConnection) -> None:
        """Called when the egress has connected."""
        ...

    def failed(self, held: HeldConnection, code: int, reason: str) -> None:
        """Called when it could not."""
        ...


class HeldConnection:
    """A SYN that waits, by its ``number``, and what came on its ``stream`` once there is one."""

    def __init__(self, answered: Answered, number: int, flow: Flow, route: Route) -> None:
        self.number = number
        self.flow = flow
        self.route = route
        self.stream: StreamKey | None = None
        self.expiry: IDelayedCall | None = None
        self._answered = answered
        self._is_accepted = False
        self._kept: list[Callable[[StreamOwner], None]] = []

    def replay(self, owner: StreamOwner) -> None:
        """Report to ``owner`` all that happened to the stream since it was accepted."""
        for happened in self._kept:
            happened(owner)

    def stream_accepted(self) -> None:
        """Let the client connect."""
        self._is_accepted = True
        self._answered.accepted(self)

    def stream_data(self, chunks: list[bytes]) -> None:
        """Keep what the server says first; the stream's window bounds it."""
        self._kept.append(lambda owner: owner.stream_data(chunks))

    def stream_writable(self) -> None:
        """Do nothing: nothing was sent."""

    def stream_finished(self) -> None:
        """Keep the server's FIN."""
        self._kept.append(lambda owner: owner.stream_finished())

    def stream_reset(self, code: int, reason: str) -> None:
        """Have the client's connect() fail; of a connection that was accepted, keep that it was reset."""
        if self._is_accepted:
            self._kept.append(lambda owner: owner.stream_reset(code, reason))
        else:
            self._answered.failed(self, code, reason)

    def stream_closed(self) -> None:
        """Keep the end; it cannot come before both FINs."""
        self._kept.append(lambda owner: owner.stream_closed())


def unpacked(packed: held_syns.Flow) -> Flow:
    """Return the flow that a held SYN opens."""
    size = (len(packed) - 4) // 2
    client, destination = (str(ip_address(packed[at : at + size])) for at in (0, size))
    ports = packed[2 * size :]
    return Flow(
        (destination, int.from_bytes(ports[2:], "big")),
        (client, int.from_bytes(ports[:2], "big")),
    )
