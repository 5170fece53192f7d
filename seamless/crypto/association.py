"""All keys shared with one remote node, and the handshakes that renew them; a sans-I/O core.

It stands beside the data path: a link (or the session with a far node) asks it which key to send under and which key an
index means, and tells it what authenticated and how much was sent. Used twice, between neighbors and end to end.

The rules:

* Keys are *previous*, *current* or *next* (`seamless.crypto.keyring`): new ones count at the responder only after the
  first datagram that authenticates under them.
* Keys are renewed by age and by volume, never by traffic or its absence: a silent path costs no handshake while the
  keys are good. Whoever initiated renews; the other side steps in later when that fails.
* A handshake that fails, or never ends, changes nothing about the keys that work.
* Each attempt has its own ephemeral key, index and counter. An initiation whose counter is not above all that were seen
  from its key is refused.
* Both may begin at once. Answering ends one's own attempt, so at most one of two crossing handshakes completes; the
  side with the greater public key does not answer while its own attempt is young, so that one of them does. It is young
  for a second only, since its initiations may never arrive (a neighbor behind a firewall that dials out).
* Indices come from the owner and go back to it when their keys or their attempt are gone.

Packet numbers belong to the owner. They go on over a rekey; those of a new remote incarnation start anew; the keys
of an older incarnation are dropped at once, so that no late datagram brings back its numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, TypeAlias, Union

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from seamless.crypto.initiation import OpenedInitiation
from seamless.crypto.keyring import KeyRing, Keys
from seamless.crypto.messages import (
    InitiationPayload,
    ResponsePayload,
    build_initiation,
    build_response,
    mac1_key,
    open_cookie,
    parse_response,
    with_mac2,
)
from seamless.crypto.noise import Initiator, shared_secret
from seamless.crypto.sealing import ReceiveKey, SendKey
from seamless.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError

# Fixed by specifications.

REKEY_AFTER_SECONDS: Final = 120.0
"""Age at which the initiator renews the keys (WireGuard's REKEY_AFTER_TIME)."""
REJECT_AFTER_DATAGRAMS: Final = 1 << 23
"""The most that one key seals (RFC 9001, section 6.6, for AES-GCM and packets of any size)."""

# Chosen by us.

REKEY_AFTER_DATAGRAMS: Final = REJECT_AFTER_DATAGRAMS // 2
"""Volume at which either side renews its keys; the other half lasts for 10 s at 5 Gb/s."""
STEP_IN_AFTER_SECONDS: Final = 150.0
"""Age at which the responder renews the keys itself: 30 s after the initiator should have, 30 s before expiry."""
FRESH_SECONDS: Final = 5.0
"""Keys younger than this are not replaced at the owner's wish."""
FIRST_RETRY_INTERVAL: Final = 0.25
"""Seconds; links come back fast, and on longer paths the interval soon exceeds the round trip, as it doubles."""
EARLY_RETRY_INTERVAL: Final = 0.75
"""Seconds between tries at most while a handshake is young: more than the round trip of nearly all paths. A link takes
up to five messages to come up; on a path that loses 30 % each way a quarter of the first tries get through, and half
once there is a cookie. Of 3000 such links the slowest took 7 s; with intervals that doubled to 5 s from the start, 1 %
took more than 8, and some 20."""
EARLY_SECONDS: Final = 6.0
"""Seconds for which a handshake is young. Where the round trip is longer than that interval, it completes later."""
MAX_RETRY_INTERVAL: Final = 5.0
"""Seconds between tries after that (WireGuard's REKEY_TIMEOUT)."""
RETRY_JITTER: Final = 0.25
"""Share of an interval that is added at random, so that two sides do not go on colliding."""
YIELD_AFTER_SECONDS: Final = 1.0
"""Seconds for which the side with the greater public key keeps to its own attempt; three initiations."""
ANSWER_INTERVAL: Final = 0.02
"""Seconds between answers to initiations (wireguard-go's HandshakeInitationRate): a neighbor costs us one percent of
a core at most."""
GIVE_UPS_MAX: Final = 1 << 20
"""Incarnations that one process may use up, counted on from its own: a millisecond's worth of its clock."""
MAX_RESPONSES_TRIED: Final = 16
"""Answers to one attempt that are worth public-key operations; after that wait for the next attempt."""


@attrs.frozen
class KeysEstablished:
    """Event: a handshake completed, and there are new keys to send under.

    As ``initiator`` the owner must send something that authenticates at once (a link: a HELLO): before it comes, the
    other side sends nothing under these keys. When ``remote_incarnation`` differs from the last one, another process
    of the remote node is there, and packet numbers begin anew.
    """

    remote_incarnation: int
    initiator: bool


@attrs.frozen
class KeysExpired:
    """Event: there is no key to send under any more: too old or used up, and never renewed. Attempts go on."""


AssociationEvent: TypeAlias = Union[KeysEstablished, KeysExpired]


@attrs.define
class AssociationCounters:
    """Counts of handshake messages and completed handshakes."""

    initiations_sent: int = 0
    responses_sent: int = 0
    established: int = 0
    cookies_received: int = 0
    failed_authentication: int = 0
    replayed_initiations: int = 0
    collisions_won: int = 0
    """Initiations not answered because our own attempt goes first."""
    too_frequent_initiations: int = 0
    unexpected: int = 0
    """Responses and cookies to no attempt of ours: late, repeated or forged."""


@attrs.define(eq=False)
class _Attempt:
    """One initiation of ours that is not answered yet."""

    noise: Initiator
    index: int
    message: bytes
    has_used_cookie: bool = False
    responses_tried: int = 0


class Association:
    """All keys shared with the owner of ``remote_public_key``.

    ``incarnation`` names this process. ``next_counter`` gives a greater number at each call, over restarts and over
    all associations of a node: count on from the wall clock's nanoseconds at the start of the process.
    ``allocate_index`` and ``release_index`` lend 24-bit indices that are unique in the owner.
    """

    def __init__(
        self,
        *,
        private_key: bytes,
        public_key: bytes,
        remote_public_key: bytes,
        prologue: bytes,
        incarnation: int,
        allocate_index: Callable[[], int],
        release_index: Callable[[int], None],
        random: Callable[[int], bytes],
        next_counter: Callable[[], int],
    ) -> None:
        self.remote_public_key = remote_public_key
        self.counters = AssociationCounters()
        self._private_key = X25519PrivateKey.from_private_bytes(private_key)
        self._public_key = public_key
        self._static_static: bytes | None = None
        self._prologue = prologue
        self._incarnation = incarnation
        self._allocate_index = allocate_index
        self._release_index = release_index
        self._random = random
        self._next_counter = next_counter
        self._mac1_key = mac1_key(public_key)
        self._remote_mac1_key = mac1_key(remote_public_key)
        self._cookie: bytes | None = None
        self._greatest_counter = -1
        self._ring = KeyRing(release_index)
        self._sent = 0
        self._attempt: _Attempt | None = None
        # A handshake is wanted for as long as there is a time for the next try.
        self._retry_at: float | None = None
        self._retry_interval = FIRST_RETRY_INTERVAL
        self._wanted_since = 0.0
        self._answered_at: float | None = None
        self._messages: list[bytes] = []
        self._events: deque[AssociationEvent] = deque()

    # What the data path asks.

    @property
    def incarnation(self) -> int:
        """Return which incarnation this node is towards the remote one; it rises with each `begin_anew`."""
        return self._incarnation

    @property
    def send_key(self) -> SendKey | None:
        """Return the key to send under now; None before the first handshake and after expiry."""
        current = self._ring.current
        return None if current is None else current.send

    def receive_key(self, index: int) -> ReceiveKey | None:
        """Return the key that datagrams with this receiver index are sealed under."""
        return self._ring.receive_key(index)

    def authenticated(self, key: ReceiveKey, now: float) -> bool:
        """Take note, once per batch, that something opened under ``key``.

        Return whether there are events now, to be drained before using it: the key was not confirmed before.
        """
        is_news = self._ring.confirm(key)
        if is_news:
            self._established()
        return is_news

    def sent(self, count: int, now: float) -> None:
        """Take note that ``count`` more datagrams were sealed with `send_key`."""
        self._sent += count
        if self._sent >= REKEY_AFTER_DATAGRAMS and self._retry_at is None:
            self._want(now)
        if self._sent >= REJECT_AFTER_DATAGRAMS and self._ring.current is not None:
            self._ring.drop_current()
            self._events.append(KeysExpired())

    # What the owner does.

    def initiate(self, now: float) -> None:
        """Begin a handshake, and go on until there are keys; not while one is under way or keys are fresh.

        With keys that are not fresh this is for the case that the remote node may have lost them.
        """
        current = self._ring.current
        fresh = current is not None and now < current.made_at + FRESH_SECONDS
        if self._retry_at is None and not fresh:
            self._want(now)
            self._try(now)

    def remote_closed(self) -> None:
        """Forget the keys of the remote process with which they were made: it is gone for good, and said so.

        What another process of the remote node has begun meanwhile goes on.
        """
        if self._ring.current is not None:
            self._ring.drop_incarnation(self._ring.current.remote_incarnation)

    def begin_anew(self) -> None:
        """Forget all keys and attempts, and be another incarnation towards the remote node, as after a restart."""
        self.close()
        self._incarnation += 1

    def close(self) -> None:
        """Forget all keys and attempts and give the indices back."""
        self._end_attempt()
        self._retry_at = None
        self._ring.drop_all()
        self._messages.clear()

    def messages_to_send(self, now: float) -> list[bytes]:
        """Return handshake messages; each goes out as one datagram."""
        messages, self._messages = self._messages, []
        return messages

    def next_event(self) -> AssociationEvent | None:
        """Return what happened, in order; None when there is no more."""
        return self._events.popleft() if self._events else None

    # What comes off the wire.

    def receive_initiation(self, opened: OpenedInitiation, now: float) -> None:
        """Answer an initiation from our remote node; raise `RemoteProtocolError` for a replayed one."""
        if opened.remote_public_key != self.remote_public_key:
            raise LocalProtocolError("this initiation is for the association with another key")
        if opened.counter <= self._greatest_counter:
            self.counters.replayed_initiations += 1
            raise RemoteProtocolError("an initiation that is no newer than one seen before")
        self._greatest_counter = opened.counter
        if self._answered_at is not None and now < self._answered_at + ANSWER_INTERVAL:
            self.counters.too_frequent_initiations += 1
            return
        if self._goes_first(now):
            self.counters.collisions_won += 1
            return
        self._answered_at = now
        self._answer(opened, now)

    def receive_response(self, message: bytes, now: float) -> None:
        """Complete our attempt; raise `RemoteProtocolError` for what is not its answer."""
        attempt = self._attempt
        try:
            index, noise_message = parse_response(message, self._mac1_key)
            if attempt is None or index != attempt.index or attempt.responses_tried >= MAX_RESPONSES_TRIED:
                self.counters.unexpected += 1
                raise RemoteProtocolError("a response to no attempt of ours")
            attempt.responses_tried += 1
            data, send, receive = attempt.noise.read_message(noise_message)
            payload = ResponsePayload.decode(data)
        except AuthenticationError:
            self.counters.failed_authentication += 1
            raise
        self._attempt = None
        send_key, receive_key = SendKey(send, payload.sender_index), ReceiveKey(receive, index)
        self._ring.complete(Keys(send_key, receive_key, True, payload.incarnation, now))
        self._established()

    def receive_cookie(self, message: bytes, now: float) -> None:
        """Take a cookie and send our initiation again with it; raise `RemoteProtocolError` for any other."""
        attempt = self._attempt
        if attempt is None:
            self.counters.unexpected += 1
            raise RemoteProtocolError("a cookie for no attempt of ours")
        try:
            self._cookie = open_cookie(message, attempt.message, self.remote_public_key)
        except AuthenticationError:
            self.counters.failed_authentication += 1
            raise
        self.counters.cookies_received += 1
        if not attempt.has_used_cookie:
            self._send_initiation(attempt)
            attempt.has_used_cookie = True
            self._schedule_retry(now)

    # Time.

    def next_timeout(self) -> float | None:
        """Return the absolute time at which `handle_timeout` is due; None if nothing is."""
        at = self._ring.reject_at
        other_at = self._rekey_at() if self._retry_at is None else self._retry_at
        if other_at is not None and other_at < at:
            return other_at
        return None if at == inf else at

    def handle_timeout(self, now: float) -> None:
        """Drop keys that are too old, renew those that soon will be, repeat what was not answered."""
        if self._ring.expire(now):
            self._events.append(KeysExpired())
        rekey_at = self._rekey_at()
        if rekey_at is not None and now >= rekey_at:
            self._want(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._try(now)

    def _rekey_at(self) -> float | None:
        current = self._ring.current
        if current is None or self._retry_at is not None:
            return None
        return current.made_at + (REKEY_AFTER_SECONDS if current.initiator else STEP_IN_AFTER_SECONDS)

    # Attempts.

    def _want(self, now: float) -> None:
        """Want a handshake from ``now`` on, when the first try is due."""
        self._wanted_since = self._retry_at = now
        self._retry_interval = FIRST_RETRY_INTERVAL

    def _try(self, now: float) -> None:
        self._begin_attempt()
        self._schedule_retry(now)

    def _schedule_retry(self, now: float) -> None:
        self._retry_at = now + self._retry_interval * (1 + RETRY_JITTER * self._random(1)[0] / 256)
        is_early = now < self._wanted_since + EARLY_SECONDS
        self._retry_interval = min(2 * self._retry_interval, EARLY_RETRY_INTERVAL if is_early else MAX_RETRY_INTERVAL)

    def _begin_attempt(self) -> None:
        self._end_attempt()
        if self._static_static is None:
            self._static_static = shared_secret(self._private_key, self.remote_public_key)
        noise = Initiator(self._private_key, self.remote_public_key, self._prologue, self._static_static)
        payload = InitiationPayload(self._next_counter(), self._incarnation).encode()
        index = self._allocate_index()
        noise_message = noise.write_message(self._public_key, payload, self._random)
        attempt = _Attempt(noise, index, build_initiation(index, noise_message, self._remote_mac1_key))
        self._attempt = attempt
        self._send_initiation(attempt)

    def _send_initiation(self, attempt: _Attempt) -> None:
        message = attempt.message if self._cookie is None else with_mac2(attempt.message, self._cookie)
        self._messages.append(message)
        self.counters.initiations_sent += 1

    def _end_attempt(self) -> None:
        if self._attempt is not None:
            self._release_index(self._attempt.index)
            self._attempt = None

    def _goes_first(self, now: float) -> bool:
        """Return whether our own attempt goes before the remote node's."""
        if self._attempt is None or now >= self._wanted_since + YIELD_AFTER_SECONDS:
            return False
        return self._public_key > self.remote_public_key

    def _answer(self, opened: OpenedInitiation, now: float) -> None:
        if self._retry_at is not None:
            # Theirs goes first. Should it come to nothing, ours begins anew.
            self._end_attempt()
            self._want(now + YIELD_AFTER_SECONDS)
        index = self._allocate_index()
        payload = ResponsePayload(self._incarnation, index).encode()
        noise_message, send, receive = opened.responder.write_message(payload, self._random)
        send_key, receive_key = SendKey(send, opened.remote_index), ReceiveKey(receive, index)
        self._ring.offer(Keys(send_key, receive_key, False, opened.remote_incarnation, now))
        self._messages.append(build_response(opened.remote_index, noise_message, self._remote_mac1_key))
        self.counters.responses_sent += 1

    def _established(self) -> None:
        """Take note that there are new current keys: no attempt is wanted any more."""
        current = self._ring.current
        assert current is not None
        self._sent = 0
        self._end_attempt()
        self._retry_at = None
        self.counters.established += 1
        self._events.append(KeysEstablished(current.remote_incarnation, current.initiator))
