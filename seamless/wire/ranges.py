"""Sets of packet numbers kept as ranges, as an ACK carries them (RFC 9000, section 19.3)."""

from __future__ import annotations

from collections.abc import Iterator


class RangeSet:
    """Disjoint, ascending, non-adjacent ranges ``[first, last]`` of integers, both ends included."""

    __slots__ = ("firsts", "lasts")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self.firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.firsts, self.lasts))

    def __contains__(self, number: int) -> bool:
        index = self._first_reaching(number)
        return index < len(self.firsts) and self.firsts[index] <= number

    def _first_reaching(self, number: int) -> int:
        """Return the index of the first range whose last is at least ``number``."""
        lasts = self.lasts
        low = len(lasts)
        # Almost all look-ups are at the top: walk down a little before bisecting.
        for _ in range(4):
            if low == 0 or lasts[low - 1] < number:
                return low
            low -= 1
        high, low = low, 0
        while low < high:
            middle = (low + high) // 2
            if lasts[middle] < number:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, first: int, last: int) -> None:
        """Add all of ``first..last``, joining ranges that touch it."""
        firsts, lasts = self.firsts, self.lasts
        if not lasts or first > lasts[-1] + 1:
            firsts.append(first)
            lasts.append(last)
            return
        if first == lasts[-1] + 1:
            lasts[-1] = last
            return
        low = self._first_reaching(first - 1)
        high = low
        while high < len(firsts) and firsts[high] <= last + 1:
            high += 1
        if low < high:
            first = min(first, firsts[low])
            last = max(last, lasts[high - 1])
        firsts[low:high] = [first]
        lasts[low:high] = [last]

    def forget_below(self, number: int) -> None:
        """Remove all numbers below ``number``."""
        index = self._first_reaching(number)
        del self.firsts[:index]
        del self.lasts[:index]
        if self.firsts and self.firsts[0] < number:
            self.firsts[0] = number

    def keep_newest(self, count: int) -> None:
        """Remove all but the ``count`` highest ranges."""
        excess = len(self.firsts) - count
        if excess > 0:
            del self.firsts[:excess]
            del self.lasts[:excess]
