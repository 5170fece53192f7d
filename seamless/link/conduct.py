"""What a neighbor with good keys may do wrong, and what it gets for more: to be shut out for a while.

Whoever has a link's keys is still only a neighbor: its program may have a mistake, or somebody else may sit at it. What
breaks the protocol is without effect in any case. Doing it again and again costs us work, though, a link that comes and
goes costs everybody work, and people should hear of it. So each violation takes a token; a neighbor that has used them
up is taken for gone, with the reason, and nothing of it is read until the time is over.
"""

from __future__ import annotations

from typing import Final

from seamless.delivery.token_bucket import TokenBucket

VIOLATIONS_MAX: Final = 32
"""At once. A link of honest neighbors on the worst of wires goes down and up three times a second at most, since a dead
interval lies between, and not for long."""
VIOLATIONS_PER_SECOND: Final = 2.0
"""And in the long run."""
SHUT_OUT_SECONDS: Final = 10.0
"""Long enough to make it cheap, short enough for a neighbor that was mended to come back by itself."""


class Conduct:
    """How one neighbor has behaved."""

    def __init__(self, now: float) -> None:
        self.shut_out_until = now
        self._bucket = TokenBucket(VIOLATIONS_MAX, VIOLATIONS_PER_SECOND, now)

    def violated(self, now: float) -> bool:
        """Take note of a violation; return True when it is the one that has the neighbor shut out."""
        self._bucket.spend(1, now)
        if self._bucket.tokens > 0 or now < self.shut_out_until:
            return False
        self._bucket.tokens = VIOLATIONS_MAX
        self.shut_out_until = now + SHUT_OUT_SECONDS
        return True
