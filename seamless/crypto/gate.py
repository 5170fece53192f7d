"""Guards a node's public-key operations: an unknown sender must not be able to cause many of them.

Any host can send an INITIATION, and opening one costs six to sixty times what refusing it does. The way taken is
WireGuard's (whitepaper, sections 5.3 and 5.4.7), with the cookie always on: every initiation whose mac2 is not made
from our cookie gets a COOKIE in return and nothing else happens. That costs a link one round trip when it starts, and a
rekey one that no traffic waits for; in return there is no load threshold to guess, and no public-key operation is ever
done for an address that was not shown to receive.

The order of the checks is the order of their cost:

1. the length, and the type;
2. without a mac2, whether a COOKIE may be sent: the whole node sends so many a second;
3. mac1: who has it wrong gets no answer at all, so a scan finds nothing;
4. mac2: who has it right proved its address, and is held to a token bucket of its own and to one for all. Who has not
   gets a COOKIE, which is shorter than what it answers.

A cookie is a mac of the source's address and port under a secret that changes every two minutes. Nothing is remembered
for a sender before its address is proven.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, Union

import attrs

from seamless.crypto.initiation import InitiationReader, OpenedInitiation, UnknownKeyError
from seamless.crypto.messages import (
    COOKIE_BYTES,
    COOKIE_NONCE_BYTES,
    INITIATION_BYTES,
    LINK_PROLOGUE,
    MAC2_AT,
    MAC2_SPAN,
    NO_MAC2,
    build_cookie,
    has_valid_mac1,
    has_valid_mac2,
    mac1_key,
)
from seamless.delivery.token_bucket import TokenBucket, TokenBuckets
from seamless.errors import RemoteProtocolError
from seamless.interfaces import Address
from seamless.wire.header import INITIATION

SECRET_INTERVAL: Final = 120.0
"""Seconds that a cookie secret is good for (WireGuard's COOKIE_SECRET_MAX_AGE)."""
SECRET_BYTES: Final = 32

ANSWERS_PER_SECOND: Final = 2000.0
"""COOKIE answers of the whole node: three percent of a core (python -m bench crypto)."""
OPENINGS_PER_SECOND: Final = 500.0
"""Initiations opened for the whole node: four percent of a core. Answers, at three times the cost, are given only to
known keys, and each association has a limit of its own."""
SOURCE_OPENINGS_PER_SECOND: Final = 20.0
"""Initiations opened for one host: WireGuard's, times what several nodes behind one address need."""
BURST_SECONDS: Final = 2.0
"""Every bucket holds what flows into it in this time."""
MAX_SOURCES: Final = 4096
"""Hosts with a bucket of their own; only proven addresses get one. The one idle longest is replaced."""


class DropReason(enum.Enum):
    """Why an initiation got no answer."""

    NOT_AN_INITIATION = "not an initiation"
    WRONG_MAC1 = "its mac1 is not made with our public key"
    TOO_MANY_ANSWERS = "too many cookies given out"
    TOO_MANY_FROM_SOURCE = "too many initiations from this host"
    TOO_MANY = "too many initiations"
    UNKNOWN_KEY = "the configuration does not name its key"
    NOT_AUTHENTIC = "it does not authenticate"


@attrs.frozen
class Admitted:
    """Verdict: the initiation may be opened, with `HandshakeGate.open_initiation`."""


@attrs.frozen
class Answer:
    """Verdict: send this datagram (a COOKIE) to the source, and forget the initiation."""

    datagram: bytes


@attrs.frozen
class Dropped:
    """Verdict: drop the initiation without an answer."""

    reason: DropReason


Admission: TypeAlias = Union[Admitted, Answer, Dropped]

_ADMITTED: Final = Admitted()
_DROPPED: Final = {reason: Dropped(reason) for reason in DropReason}


class HandshakeGate:
    """The gate of one node. ``known_keys`` are its neighbors' public keys.

    Counters: ``admitted``, ``answered`` (cookies) and ``dropped`` by reason, in initiations.
    """

    def __init__(
        self,
        *,
        private_key: bytes,
        public_key: bytes,
        known_keys: Iterable[bytes],
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        self.admitted = 0
        self.answered = 0
        self.dropped: Counter[DropReason] = Counter()
        self._public_key = public_key
        self._mac1_key = mac1_key(public_key)
        self._random = random
        self._reader = InitiationReader(private_key, public_key, known_keys, LINK_PROLOGUE)
        self._secret = random(SECRET_BYTES)
        self._new_secret_at = now + SECRET_INTERVAL
        self._answers = TokenBucket(ANSWERS_PER_SECOND * BURST_SECONDS, ANSWERS_PER_SECOND, now)
        self._openings = TokenBucket(OPENINGS_PER_SECOND * BURST_SECONDS, OPENINGS_PER_SECOND, now)
        self._sources: TokenBuckets[str] = TokenBuckets(
            SOURCE_OPENINGS_PER_SECOND * BURST_SECONDS, SOURCE_OPENINGS_PER_SECOND, MAX_SOURCES
        )

    def set_known_keys(self, known_keys: Iterable[bytes]) -> None:
        """Admit the nodes with these public keys from now on, and no others."""
        self._reader.set_known_keys(known_keys)

    @property
    def sources(self) -> int:
        """Return how many hosts have a bucket of their own."""
        return len(self._sources)

    def prefilter(self, run: memoryview, segment_size: int, now: float) -> Iterator[bytes]:
        """Yield those of a batch of INITIATIONs that are to be given to `admit`.

        In a flood of them nearly all end here, at a tenth of what `admit` costs: without mac2 when no cookies are left.
        """
        data = bytes(run)
        turned_away = 0
        for begin in range(0, len(data), segment_size):
            lacks_mac2 = segment_size == INITIATION_BYTES and data.startswith(NO_MAC2, begin + MAC2_AT)
            if lacks_mac2 and (turned_away or self._answers.refill(now) < 1):
                turned_away += 1
            else:
                yield data[begin : begin + segment_size]
        if turned_away:
            self.dropped[DropReason.TOO_MANY_ANSWERS] += turned_away

    def admit(self, datagram: bytes, source: Address, now: float) -> Admission:
        """Return the verdict on a datagram of type INITIATION from ``source``."""
        if len(datagram) != INITIATION_BYTES or datagram[0] != INITIATION:
            return self._drop(DropReason.NOT_AN_INITIATION)
        if datagram[MAC2_SPAN] == NO_MAC2 and self._answers.refill(now) < 1:
            return self._drop(DropReason.TOO_MANY_ANSWERS)
        if not has_valid_mac1(datagram, self._mac1_key):
            return self._drop(DropReason.WRONG_MAC1)
        cookie = self._cookie_of(source, now)
        if has_valid_mac2(datagram, cookie):
            return self._admit_proven(source[0], now)
        if not self._answers.take(now):
            return self._drop(DropReason.TOO_MANY_ANSWERS)
        self.answered += 1
        return Answer(build_cookie(datagram, cookie, self._public_key, self._random(COOKIE_NONCE_BYTES)))

    def open_initiation(self, datagram: bytes) -> OpenedInitiation:
        """Open an admitted INITIATION; raise `RemoteProtocolError`, after which nothing is to be sent."""
        try:
            return self._reader.open(datagram)
        except UnknownKeyError:
            self.dropped[DropReason.UNKNOWN_KEY] += 1
            raise
        except RemoteProtocolError:
            self.dropped[DropReason.NOT_AUTHENTIC] += 1
            raise

    def _cookie_of(self, source: Address, now: float) -> bytes:
        if now >= self._new_secret_at:
            self._secret = self._random(SECRET_BYTES)
            self._new_secret_at = now + SECRET_INTERVAL
        name = f"{source[0]} {source[1]}".encode()
        return hashlib.blake2s(name, key=self._secret, digest_size=COOKIE_BYTES).digest()

    def _admit_proven(self, host: str, now: float) -> Admission:
        if not self._sources.take(host, now):
            return self._drop(DropReason.TOO_MANY_FROM_SOURCE)
        if not self._openings.take(now):
            return self._drop(DropReason.TOO_MANY)
        self.admitted += 1
        return _ADMITTED

    def _drop(self, reason: DropReason) -> Dropped:
        self.dropped[reason] += 1
        return _DROPPED[reason]
