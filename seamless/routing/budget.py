"""A token bucket: how often something may be done, at once and in the long run."""

from __future__ import annotations


class TokenBucket:
    """At most ``burst`` times at once, and ``per_second`` in the long run."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, burst: int, per_second: float, now: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        """Return whether it may be done now, and count that it is."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def spend(self, now: float) -> None:
        """Count that it is done, whether it may be or not."""
        self._refill(now)
        self._tokens -= 1

    def ready_at(self, now: float, times: int = 1) -> float:
        """Return from when on it may be done so many times at once."""
        self._refill(now)
        # A little more than needed, so that rounding does not leave the token short at that time.
        return now if self._tokens >= times else now + (times + 1e-6 - self._tokens) / self._per_second

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)
