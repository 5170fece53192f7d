"""The other end of a link: its keys, its address, this life of its process, and whether it is heard.

It stands beside the way of a byte: the link tells it of everything that the neighbor's keys have opened, and sends what
it wants sent. Nothing in here knows of packets.

The rules:

* Keys and liveness are separate. Keys come from the `Association` and outlive silence; the `Adjacency` says whether
  the neighbor is heard.
* A neighbor that breaks the protocol again and again, or comes and goes all the time, is blocked for a while
  (`seamless.link.misbehavior`).
* A restart is a new incarnation: the link is told, since nothing that the former one has said holds any more.
* A neighbor's goodbye ends all that was learned of its process, keys and address. Somebody may have started it a second
  time by mistake, and then the right one is still where it should be: it is dialled at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from seamless.crypto.association import Association, KeysEstablished
from seamless.crypto.initiation import OpenedInitiation
from seamless.crypto.sealing import ReceiveKey
from seamless.interfaces import Address
from seamless.link.hello import Adjacency, AdjacencyState
from seamless.link.misbehavior import BLOCKED_SECONDS, MisbehaviorLimiter
from seamless.link.status import LinkSettings
from seamless.wire.link_frames import Hello

REDIAL_INTERVAL: Final = 5.0
"""Seconds between handshakes towards a silent neighbor that itself never dials: it may have restarted."""


class Neighbor:
    """One neighbor, as one end of a link knows it; ``restarted`` is called when another process speaks for it."""

    def __init__(
        self, settings: LinkSettings, association: Association, restarted: Callable[[], None], now: float
    ) -> None:
        self.association = association
        self.adjacency = Adjacency(settings.hello_interval, settings.dead_interval, now)
        self.misbehavior = MisbehaviorLimiter(now)
        self.remote = settings.remote
        self.dials = settings.dials
        """Whether this end opens the link."""
        self._settings = settings
        self._restarted = restarted
        self._incarnation: int | None = None
        self._redial_at = now

    def configure(self, settings: LinkSettings) -> None:
        """Go on with other settings; keys, and whether the neighbor is heard, stay."""
        self._settings = settings
        self.dials = settings.dials
        self.adjacency.set_intervals(settings.hello_interval, settings.dead_interval)

    # Keys.

    def receive_initiation(self, opened: OpenedInitiation, remote: Address, now: float) -> None:
        """Take in an INITIATION; raise `RemoteProtocolError`."""
        self.association.receive_initiation(opened, now)
        self.remote = remote
        self._take_events(now)

    def receive_response(self, datagram: bytes, now: float) -> None:
        """Take in a RESPONSE; raise `RemoteProtocolError`."""
        self.association.receive_response(datagram, now)
        self._take_events(now)

    def authenticated(self, key: ReceiveKey, now: float) -> bool:
        """Take note, once per batch, that something opened under ``key``; return whether that gave new keys to send
        under."""
        is_news = self.association.authenticated(key, now)
        if is_news:
            self._take_events(now)
        self.adjacency.heard(now)
        return is_news

    def _take_events(self, now: float) -> None:
        event = self.association.next_event()
        while event is not None:
            if isinstance(event, KeysEstablished):
                self._keys_established(event.remote_incarnation, now)
            event = self.association.next_event()

    def _keys_established(self, incarnation: int, now: float) -> None:
        self.adjacency.hello_soon(now)
        if incarnation == self._incarnation:
            return
        if self._incarnation is not None:
            self.adjacency.closed(f"{self._settings.neighbor} restarted", now)
            self.violated("it restarts all the time", now)
            self._restarted()
        self._incarnation = incarnation

    # Liveness.

    def hello(self, received: int, now: float) -> Hello:
        """Return the HELLO that is due; ``received`` datagrams have come so far."""
        self.adjacency.sent_hello(now)
        return Hello(
            state=self.adjacency.state.value,
            hello_ms=max(1, int(self._settings.hello_interval * 1000)),
            dead_ms=max(1, int(self._settings.dead_interval * 1000)),
            received=received,
        )

    def received_hello(self, frame: Hello, now: float) -> None:
        """Take in a HELLO."""
        was_up = self.adjacency.state is AdjacencyState.UP
        self.adjacency.received_hello(frame.state, frame.hello_ms / 1000, frame.dead_ms / 1000, now)
        if was_up and self.adjacency.state is not AdjacencyState.UP:
            self.violated("it comes and goes", now)

    def said_goodbye(self, reason: str, now: float) -> None:
        """Forget the neighbor's process, which has ended, and look for another one where it should be."""
        self.adjacency.closed(f"{self._settings.neighbor} says: {reason}", now)
        self.association.remote_closed()
        self.remote = self._settings.remote
        self._redial_at = now
        self.violated("it says goodbye all the time", now)

    def violated(self, how: str, now: float) -> None:
        """Take note of what a neighbor should not do, or not often."""
        if self.misbehavior.violated(now):
            reason = f"{how}, again and again; blocked for {BLOCKED_SECONDS:g} s"
            self.adjacency.closed(reason, now, unread_until=now + BLOCKED_SECONDS)

    # Time.

    @property
    def redial_at(self) -> float | None:
        """Return when to dial a neighbor that is not heard; None when that is not for us to do."""
        if self.adjacency.state is AdjacencyState.UP or not self.dials:
            return None
        if self.association.send_key is not None and self._settings.neighbor_dials:
            return None
        return self._redial_at

    def handle_timeout(self, now: float) -> None:
        """Act on whatever deadline has passed."""
        self.association.handle_timeout(now)
        self._take_events(now)
        self.adjacency.handle_timeout(now)
        redial_at = self.redial_at
        if redial_at is not None and now >= redial_at:
            self._redial_at = now + REDIAL_INTERVAL
            self.association.initiate(now)
