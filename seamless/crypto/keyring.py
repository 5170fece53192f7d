"""The pairs of keys that one association has at a time: which to send under, and which to open with.

* *current*: what we send under.
* *next*: made by answering an initiation, and not confirmed yet. An initiation may be anybody's recording, so these
  count only after the first datagram that authenticates under them.
* *previous*: what we sent under before; kept so that what is under way when keys change still opens.

No rekey loses a datagram, even when handshakes from both sides overlap and most of what confirms them gets lost. That
takes a few of *next* and of *previous*, where one would do for a rekey in peace (seamless.test.crypto.test_collisions
loses datagrams with fewer). Every pair expires by age. Keys of an older incarnation of
the remote node are gone as soon as a newer one is confirmed: packet numbers started anew, and a late datagram must not
bring the old ones back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import attrs

from seamless.crypto.sealing import ReceiveKey, SendKey

REJECT_AFTER_SECONDS: Final = 180.0
"""Age at which keys are gone, renewed or not (WireGuard's REJECT_AFTER_TIME)."""
MAX_NEXT: Final = 3
MAX_PREVIOUS: Final = 4


@attrs.frozen(eq=False)
class Keys:
    """The pair of keys (to send and to receive) that one handshake made."""

    send: SendKey
    receive: ReceiveKey
    initiator: bool
    remote_incarnation: int
    made_at: float

    @property
    def reject_at(self) -> float:
        """Return when these keys are too old for anything."""
        return self.made_at + REJECT_AFTER_SECONDS


class KeyRing:
    """All pairs of keys shared with one remote node. ``release_index`` is called with each index that is free again."""

    def __init__(self, release_index: Callable[[int], None]) -> None:
        self.current: Keys | None = None
        self.reject_at = inf
        """When the first keys become too old; infinity while there are none."""
        self._release_index = release_index
        self._previous: list[Keys] = []
        self._next: list[Keys] = []
        self._receive_keys: dict[int, ReceiveKey] = {}

    def receive_key(self, index: int) -> ReceiveKey | None:
        """Return the key that belongs to a receiver index."""
        return self._receive_keys.get(index)

    def offer(self, keys: Keys) -> None:
        """Keep keys from a handshake that we answered, unused until a datagram authenticates under them."""
        self._next.append(keys)
        self._receive_keys[keys.receive.index] = keys.receive
        if len(self._next) > MAX_NEXT:
            self._drop(self._next.pop(0))
        self._note_age()

    def confirm(self, key: ReceiveKey) -> bool:
        """Send under the keys of ``key`` from now on if they are among the next; return whether they were."""
        for position, keys in enumerate(self._next):
            if keys.receive is key:
                older, self._next = self._next[:position], self._next[position + 1 :]
                self._send_under(keys, older)
                return True
        return False

    def complete(self, keys: Keys) -> None:
        """Begin to send under the keys of a handshake that we initiated; offered ones are kept for opening only."""
        self._receive_keys[keys.receive.index] = keys.receive
        older, self._next = self._next, []
        self._send_under(keys, older)

    def _send_under(self, keys: Keys, older: list[Keys]) -> None:
        replaced = self._previous + older
        if self.current is not None:
            replaced.append(self.current)
        self.current = keys
        kept = [other for other in replaced if other.remote_incarnation == keys.remote_incarnation][-MAX_PREVIOUS:]
        self._previous = kept
        for other in replaced:
            if other not in kept:
                self._drop(other)
        self._note_age()

    def expire(self, now: float) -> bool:
        """Drop keys that are too old; return whether the current ones were among them."""
        if now < self.reject_at:
            return False
        self._previous = self._kept(self._previous, now)
        self._next = self._kept(self._next, now)
        is_current_old = self.current is not None and now >= self.current.reject_at
        if is_current_old:
            self.drop_current()
        self._note_age()
        return is_current_old

    def _kept(self, keys: list[Keys], now: float) -> list[Keys]:
        for pair in keys:
            if now >= pair.reject_at:
                self._drop(pair)
        return [pair for pair in keys if now < pair.reject_at]

    def _note_age(self) -> None:
        current = () if self.current is None else (self.current,)
        self.reject_at = min((pair.reject_at for pair in (*self._previous, *self._next, *current)), default=inf)

    def drop_current(self) -> None:
        """Forget the keys to send under."""
        if self.current is not None:
            self._drop(self.current)
            self.current = None
            self._note_age()

    def drop_incarnation(self, incarnation: int) -> None:
        """Forget all keys of one incarnation of the remote node."""
        if self.current is not None and self.current.remote_incarnation == incarnation:
            self.drop_current()
        for keys in [keys for keys in self._previous + self._next if keys.remote_incarnation == incarnation]:
            self._drop(keys)
        self._previous = [keys for keys in self._previous if keys.remote_incarnation != incarnation]
        self._next = [keys for keys in self._next if keys.remote_incarnation != incarnation]
        self._note_age()

    def drop_all(self) -> None:
        """Forget all keys."""
        self.drop_current()
        for keys in self._previous + self._next:
            self._drop(keys)
        self._previous, self._next = [], []
        self._note_age()

    def _drop(self, keys: Keys) -> None:
        del self._receive_keys[keys.receive.index]
        self._release_index(keys.receive.index)
