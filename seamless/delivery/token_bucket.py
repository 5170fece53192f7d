"""Token buckets: how much may be done at once and how much in the long run, in events or in bytes.

The rules:

* In any interval of T seconds at most ``per_second * T`` and one ``burst`` are taken.
* `TokenBucket.spend` takes tokens that are not there: a debt, repaid before `TokenBucket.take` succeeds again.
* Time never goes back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

ROUNDING_TOKENS: Final = 1e-6
"""What `TokenBucket.ready_at` waits for beyond the tokens asked for, lest rounding leave them short at that time."""

Key = TypeVar("Key")


class TokenBucket:
    """Up to ``burst`` tokens, refilled with ``per_second``; full at first."""

    __slots__ = ("burst", "per_second", "tokens", "updated_at")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self.burst = burst
        self.per_second = per_second
        self.tokens = float(burst)
        """As of ``updated_at``; below 0 while there is a debt."""
        self.updated_at = now

    def refill(self, now: float) -> float:
        """Add what has accrued until ``now``; return the tokens that there are."""
        self.tokens = min(self.tokens + (now - self.updated_at) * self.per_second, self.burst)
        self.updated_at = now
        return self.tokens

    def take(self, now: float) -> bool:
        """Take one token; return False, and take none, when there is less than one."""
        if self.refill(now) < 1:
            return False
        self.tokens -= 1
        return True

    def spend(self, tokens: float, now: float) -> None:
        """Take ``tokens``, whether they are there or not."""
        self.refill(now)
        self.tokens -= tokens

    def ready_at(self, tokens: float = 1, rounding: float = ROUNDING_TOKENS) -> float:
        """Return the absolute time at which so many tokens are there, if none are taken before; it may be past."""
        return self.updated_at + max(0.0, tokens + rounding - self.tokens) / self.per_second


class TokenBuckets(Generic[Key]):
    """A `TokenBucket` for each key, at most ``max_keys``: the one not used for longest gives way."""

    def __init__(self, burst: float, per_second: float, max_keys: int | None = None) -> None:
        self._burst = burst
        self._per_second = per_second
        self._max_keys = max_keys
        self._buckets: OrderedDict[Key, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of keys with a bucket."""
        return len(self._buckets)

    def bucket(self, key: Key, now: float) -> TokenBucket:
        """Return the bucket of ``key``, a new and full one if it has none."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(self._burst, self._per_second, now)
            if self._max_keys is not None and len(self._buckets) >= self._max_keys:
                self._buckets.popitem(last=False)
        self._buckets[key] = bucket
        return bucket

    def take(self, key: Key, now: float) -> bool:
        """Take one token of ``key``; return False when there is less than one."""
        return self.bucket(key, now).take(now)
