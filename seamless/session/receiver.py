"""The receiving half of a session: fragments in, records out, and the acknowledgement that is due for them.

Fragments are kept only of a record whose number comes with the proof that an owner of the key has made it. A node that
once relayed the session knows which numbers come next, but not their proofs, so it cannot spoil these records by
fragments of its own, nor use up memory. A record of one fragment proves itself by opening.

Each record number is accepted once under its key: the replay window belongs to the `ReceiveKey`, and is asked before
opening, so that a recorded fragment costs next to nothing, and again after it, when the number is known to be true.
The ranges of numbers are what an ACK says, newest first. They are forgotten once the peer knows them, and far enough
below that no record comes so late (RFC 9000, section 13.2.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag

from seamless.crypto.sealing import PROOF_BITS, ReceiveKey
from seamless.session.record import Reassembly
from seamless.wire.ack import encode_ack
from seamless.wire.fragment import WHOLE_PLACE
from seamless.wire.header import (
    FRAGMENT_HEADER_BYTES,
    INDEX_BITS,
    INDEX_MASK,
    RECORD,
    SEALED_HEADER,
    SEALED_HEADER_BYTES,
    TAG_BYTES,
)
from seamless.wire.ranges import RangeSet

ACK_DELAY_FLOWING: Final = 0.010
"""Seconds for which an acknowledgement of records of several fragments may wait: it only frees the sender's memory."""

ACK_DELAY_SPARSE: Final = 0.025
"""Seconds for the others (max_ack_delay of RFC 9000): the answer of the application often comes along."""

ACK_RECORDS: Final = 64
"""Records after which an acknowledgement is due at once: 1 MB."""

LATE_RECORDS: Final = 4096
"""Numbers below the last acknowledged ACK that are still accepted: a second of full records at 500 Mb/s."""

MAX_RANGES: Final = 1024
"""Ranges kept; a gap that is 1024 gaps old counts as lost."""


@attrs.define
class ReceivedRecord:
    """A record that opened, and came for the first time."""

    number: int
    plaintext: bytes
    is_fragmented: bool
    """Whether it came in several fragments."""
    confirmed_key: ReceiveKey | None
    """The key that opened it, if this is the first record under it: the peer has it, so the handshake was no replay."""


class Receiver:
    """The record numbers that have arrived, and the fragments of records that are not complete.

    ``find_key`` finds the key that belongs to a receiver index. Every record that `receive` yields is then to be handed
    to `note`; before that, `restart` is due if its key shows that the peer was restarted.
    """

    def __init__(self, find_key: Callable[[int], ReceiveKey | None], max_bytes: int) -> None:
        self.reassembly = Reassembly(max_bytes)
        self.received = RangeSet()
        self.records = 0
        self.repeated = 0
        self.refused = 0
        self.forged = 0
        self.ack_at: float | None = None
        self._floor = 0
        self._unacked = 0
        self._newest_at = 0.0
        self._find_key = find_key

    def restart(self) -> None:
        """Begin anew for another incarnation of the peer, which numbers its records from 0."""
        self.received = RangeSet()
        self.ack_at = None
        self._floor = 0
        self._unacked = 0

    def receive(self, payloads: list[bytes], now: float) -> Iterator[ReceivedRecord]:
        """Yield the records that a batch of fragments completes.

        Never raises: what does not open is counted and dropped.
        """
        reassembly = self.reassembly
        for payload in payloads:
            if len(payload) <= FRAGMENT_HEADER_BYTES:
                self.refused += 1
                continue
            nonce = payload[:SEALED_HEADER_BYTES]
            is_whole = payload[SEALED_HEADER_BYTES:FRAGMENT_HEADER_BYTES] == WHOLE_PLACE
            if nonce not in reassembly and not self._is_new(nonce, is_whole):
                continue
            if is_whole:
                sealed: bytes | None = payload[FRAGMENT_HEADER_BYTES:]
            else:
                sealed = reassembly.add(nonce, payload, now)
            if sealed is not None:
                record = self._open(nonce, sealed, len(sealed) > len(payload))
                if record is not None:
                    reassembly.forget(nonce)  # pieces of the same, which a relay has cut
                    yield record

    def _is_new(self, nonce: bytes, is_whole: bool) -> bool:
        """Return whether a record may be one that has not come yet: right type, known key, number not seen, and, unless
        the fragment ``is_whole``, proven."""
        word, name = SEALED_HEADER.unpack(nonce)
        number = name >> PROOF_BITS
        key = self._find_key(word & INDEX_MASK)
        if word >> INDEX_BITS != RECORD or key is None:
            self.refused += 1
            return False
        if not key.window.is_new(number) or (number < self._floor and key.is_confirmed):
            self.repeated += 1
            return False
        if not is_whole and not key.proves(name):
            self.refused += 1
            return False
        return True

    def _open(self, nonce: bytes, sealed: bytes, is_fragmented: bool) -> ReceivedRecord | None:
        word, name = SEALED_HEADER.unpack(nonce)
        number = name >> PROOF_BITS
        key = self._find_key(word & INDEX_MASK)
        if key is None or len(sealed) < TAG_BYTES:
            self.refused += 1
            return None
        try:
            plaintext = key.decrypt(nonce, sealed, None)
        except InvalidTag:
            self.forged += 1
            return None
        is_first = not key.is_confirmed
        if not key.window.accept(number):
            self.repeated += 1
            return None
        return ReceivedRecord(number, plaintext, is_fragmented, key if is_first else None)

    def note(self, number: int, now: float) -> None:
        """Count a record that `receive` has yielded, for the acknowledgements to come."""
        received = self.received
        received.add(number, number)
        self.records += 1
        if number == received.lasts[-1]:
            self._newest_at = now
        if len(received) > MAX_RANGES:
            received.keep_newest(MAX_RANGES)
            self._floor = received.firsts[0]

    def owe_ack(self, flowing: bool, now: float) -> None:
        """Take note of a record that asks for an acknowledgement."""
        self._unacked += 1
        due = now + (ACK_DELAY_FLOWING if flowing else ACK_DELAY_SPARSE)
        if self._unacked >= ACK_RECORDS:
            due = now
        if self.ack_at is None or due < self.ack_at:
            self.ack_at = due

    def take_ack(self, now: float) -> bytes:
        """Return the body of the ACK that is due; it counts as sent."""
        self.ack_at = None
        self._unacked = 0
        return encode_ack(self.received, now - self._newest_at)

    def ack_arrived(self, largest: int) -> None:
        """Take note that the peer has an acknowledgement of numbers up to ``largest``: older ranges are forgotten."""
        floor = largest - LATE_RECORDS
        if floor > self._floor:
            self._floor = floor
            self.received.forget_below(floor)
