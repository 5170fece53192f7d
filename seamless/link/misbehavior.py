"""Blocks a neighbor that breaks the protocol too often.

A node with a link's keys may still have a faulty or hostile program. What breaks the protocol is without effect in any
case, but it costs work, and a link that goes down and up costs all nodes work. So each violation takes a token from a
bucket; when it is empty the link goes DOWN with the reason, and nothing from the neighbor is read for a while.
"""

from __future__ import annotations

from typing import Final

from seamless.delivery.token_bucket import TokenBucket

VIOLATIONS_MAX: Final = 32
"""At once. A link of honest neighbors on the worst of wires goes down and up three times a second at most, since a dead
interval lies between, and not for long."""
VIOLATIONS_PER_SECOND: Final = 2.0
"""And in the long run."""
BLOCKED_SECONDS: Final = 10.0
"""Long enough to make it cheap, short enough for a neighbor that was mended to come back by itself."""


class MisbehaviorLimiter:
    """The violations of one neighbor, and until when it is blocked."""

    def __init__(self, now: float) -> None:
        self.blocked_until = now
        self._bucket = TokenBucket(VIOLATIONS_MAX, VIOLATIONS_PER_SECOND, now)

    def violated(self, now: float) -> bool:
        """Count a violation; return True when it is the one that blocks the neighbor."""
        self._bucket.spend(1, now)
        if self._bucket.tokens > 0 or now < self.blocked_until:
            return False
        self._bucket.tokens = VIOLATIONS_MAX
        self.blocked_until = now + BLOCKED_SECONDS
        return True
