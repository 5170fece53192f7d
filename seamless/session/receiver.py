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
from seamless.delivery.acknowledger import Acknowledger, AckPolicy
from seamless.session.record import Reassembly
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

ACK_DELAY_FRAGMENTED: Final = 0.010
"""Seconds for which an acknowledgement of records of several fragments may wait: it only frees the sender's memory."""

ACK_DELAY_WHOLE: Final = 0.025
"""Seconds for the others (max_ack_delay of RFC 9000): the answer of the application often comes along."""

ACK_POLICY: Final = AckPolicy(
    min_interval=0.0,
    at_once_count=64,  # records: 1 MB
    max_ranges=1024,
    kept_count=4096,  # a second of full records at 500 Mb/s; numbers below are not accepted any more
)


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
        self.acknowledger = Acknowledger(ACK_POLICY)
        self.repeated = 0
        self.refused = 0
        self.forged = 0
        self._find_key = find_key

    def restart(self) -> None:
        """Begin anew for another incarnation of the peer, which numbers its records from 0."""
        self.acknowledger.restart()

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
            if reassembly.append(nonce, payload):
                continue
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
        if not key.window.is_new(number) or (number < self.acknowledger.floor and key.is_confirmed):
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
        """Enter a record that `receive` has yielded, for the acknowledgements to come."""
        self.acknowledger.receive((number,), now)

    def ask_ack(self, is_fragmented: bool, now: float) -> None:
        """Take note that the record just noted asks for an acknowledgement."""
        self.acknowledger.ask(ACK_DELAY_FRAGMENTED if is_fragmented else ACK_DELAY_WHOLE, now)
