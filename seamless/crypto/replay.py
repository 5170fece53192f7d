"""The replay window of one key: the packet numbers seen, so that a replayed datagram is refused.

It stands right behind decryption on the receiving side and before anything that acts on what was received. Rules:

* Only numbers of datagrams that authenticated come here; a forger cannot move the window.
* A number is accepted once. A number `WINDOW_NUMBERS` or more below the greatest seen is refused unseen: whether it
  came before is forgotten (RFC 6479 has the same window as blocks of bits; here it is one Python integer).
* A batch costs a few operations on that integer, not one per datagram, as long as all its numbers are new, which is
  what a network mostly delivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WINDOW_NUMBERS: Final = 8192
"""Width of the window: 100 ms at 80,000 datagrams a second, as wide as WireGuard's."""
NUMBER_LIMIT: Final = 1 << 62
"""RFC 9000, section 12.3: packet numbers are below this, since an ACK must be able to encode them."""

_WINDOW_MASK: Final = (1 << WINDOW_NUMBERS) - 1


class ReplayWindow:
    """The numbers accepted so far: the greatest, and a bit for each of the `WINDOW_NUMBERS` from it downwards.

    Bit k of ``_seen`` stands for the number ``greatest - k``. ``greatest`` is -1 before the first.
    """

    __slots__ = ("_seen", "greatest")

    def __init__(self) -> None:
        self.greatest = -1
        self._seen = 0

    def is_new(self, number: int) -> bool:
        """Return whether `accept` would accept a number, without accepting it."""
        behind = self.greatest - number
        if behind < 0:
            return number < NUMBER_LIMIT
        return behind < WINDOW_NUMBERS and not self._seen >> behind & 1

    def accept(self, number: int) -> bool:
        """Accept a number, and return True, when it is new and not too old."""
        ahead = number - self.greatest
        if ahead > 0:
            if number >= NUMBER_LIMIT:
                return False
            # A shift by a number from the wire would take memory at the sender's will: forget all beyond the window.
            self._seen = (self._seen << ahead | 1) & _WINDOW_MASK if ahead < WINDOW_NUMBERS else 1
            self.greatest = number
            return True
        if ahead <= -WINDOW_NUMBERS:
            return False
        bit = 1 << -ahead
        if self._seen & bit:
            return False
        self._seen |= bit
        return True

    def accept_batch(self, numbers: Sequence[int]) -> list[bool] | None:
        """Accept what is new of ``numbers``; return None when all of them were, else a flag for each."""
        if not numbers:
            return None
        count = len(numbers)
        first = min(numbers)
        last = max(numbers)
        span = last - first + 1
        # New for certain: all of them above all that was seen, none of them twice.
        if first <= self.greatest or last >= NUMBER_LIMIT or span >= WINDOW_NUMBERS or len(set(numbers)) != count:
            accepted = [self.accept(number) for number in numbers]
            return None if all(accepted) else accepted
        if span == count:
            bits = (1 << span) - 1
        else:
            bits = 0
            for number in numbers:
                bits |= 1 << (last - number)
        ahead = last - self.greatest
        self._seen = (self._seen << ahead | bits) & _WINDOW_MASK if ahead < WINDOW_NUMBERS else bits
        self.greatest = last
        return None
