"""Handshake messages of a session: which of the peer's are opened, and which of ours wait for a path.

They travel in class 2 packets, which any relay can make up and none can read. So INITIATIONs have a budget for each
neighbor that they come by, before the public-key operation. The `Association` does the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.crypto.association import Association
from seamless.crypto.gate import BURST_SECONDS
from seamless.crypto.initiation import InitiationReader
from seamless.crypto.messages import SESSION_PROLOGUE
from seamless.crypto.noise import public_key_of
from seamless.delivery.token_bucket import TokenBuckets
from seamless.errors import RemoteProtocolError
from seamless.wire.header import INITIATION, RESPONSE

OPENINGS_PER_SECOND: Final = 10.0
"""INITIATIONs opened in the name of one peer, of those that one neighbor sends. Each costs a public-key operation, and
any relay that the peer's path may lead over can make them up; but not spoil what comes by other links."""

HANDSHAKES_KEPT: Final = 4
"""Handshake messages that wait for a path; older ones are of no use by then."""

ANSWERS_IN_VAIN: Final = 3
ANSWERS_IN_VAIN_SECONDS: Final = 1.0
"""So many answers to handshakes of the peer without a record under any of their keys, over so long, mean that the peer
does not get them: another path is tried for them."""


class Handshakes:
    """The handshake messages of one session.

    ``private_key`` is the node's, raw X25519. ``may_open(came_by, now)`` says whether the node has time for one more
    INITIATION from this neighbor.
    """

    def __init__(
        self, association: Association, private_key: bytes, may_open: Callable[[int, float], bool], now: float
    ) -> None:
        self.waiting: deque[bytes] = deque(maxlen=HANDSHAKES_KEPT)
        """Messages that wait to be sent."""
        self.refused = 0
        """Messages received that had no effect."""
        self._association = association
        public_key = public_key_of(X25519PrivateKey.from_private_bytes(private_key))
        self._reader = InitiationReader(private_key, public_key, [association.remote_public_key], SESSION_PROLOGUE)
        self._openings: TokenBuckets[int] = TokenBuckets(OPENINGS_PER_SECOND * BURST_SECONDS, OPENINGS_PER_SECOND)
        self._may_open = may_open
        self._answers = 0
        self._answers_since = now

    def receive(self, message: bytes, now: float, came_by: int) -> bool:
        """Take in a message from the neighbor ``came_by``; a bad one is counted and dropped.

        Return True when the peer does not seem to get our answers, and another path should be tried.
        """
        try:
            if message[:1] == bytes((INITIATION,)):
                return self._receive_initiation(message, now, came_by)
            if message[:1] != bytes((RESPONSE,)):
                raise RemoteProtocolError("neither an initiation nor a response")
            self._association.receive_response(message, now)
        except RemoteProtocolError:
            self.refused += 1
        return False

    def _receive_initiation(self, message: bytes, now: float, came_by: int) -> bool:
        if not self._reader.is_addressed(message):
            raise RemoteProtocolError("an initiation that is not to us")
        if not (self._openings.take(came_by, now) and self._may_open(came_by, now)):
            raise RemoteProtocolError("too many initiations")
        answered = self._association.counters.responses_sent
        self._association.receive_initiation(self._reader.open(message), now)
        return self._association.counters.responses_sent != answered and self._answered(now)

    def _answered(self, now: float) -> bool:
        """Count an answer; return True when there were too many without a record under their keys."""
        if self._answers == 0:
            self._answers_since = now
        self._answers += 1
        if self._answers < ANSWERS_IN_VAIN or now < self._answers_since + ANSWERS_IN_VAIN_SECONDS:
            return False
        self._answers = 0
        return True

    def established(self) -> None:
        """Take note of new keys: an answer has arrived."""
        self._answers = 0

    def take_messages(self, now: float) -> None:
        """Take the association's messages; the oldest that wait give way to them."""
        self.waiting.extend(self._association.messages_to_send(now))
