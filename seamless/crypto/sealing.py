"""The keys that datagrams and records are sealed and opened with, one object per direction and handshake.

Every sealed thing is *word* (type in the top 8 bits, receiver index below), *number* (64 bits), ciphertext, tag. Rules:

* The twelve bytes *word, number* are the AES-256-GCM nonce. They are thus authenticated without associated data, and
  two types can never collide on a nonce: DATA and CONTROL differ in the word.
* A number is used once per key. The owner counts; the numbers belong to it and go on when the key changes.
* The number of a session's record carries a *proof* in its low 24 bits: what the key makes of the rest. A sender
  without the key cannot name a record that it has not seen, so the far end keeps no fragment of such a record.
* The paths of bulk data call the bound methods ``encrypt`` and ``decrypt`` themselves, once per datagram of a batch;
  ``seal`` and ``open`` do the same for all other callers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seamless.crypto.replay import ReplayWindow
from seamless.errors import AuthenticationError
from seamless.interfaces import Buffer
from seamless.wire.header import INDEX_BITS, RECORD, SEALED_HEADER, SEALED_HEADER_BYTES

KEY_BYTES: Final = 32

PROOF_BITS: Final = 24
"""One guess in 17 million is right, and spoils one record, which is sent again. The other 40 bits of a record's number
last for three years at 10,000 records a second."""
PROOF_BYTES: Final = PROOF_BITS // 8
PROOF_MASK: Final = (1 << PROOF_BITS) - 1

_PROOF: Final = 7
"""A type of nonces for proofs; nothing on the wire has it."""


def _proof(encrypt: Callable[[bytes, bytes, None], bytes], index: int, number: int) -> int:
    """Return the proof of a record's number: the begin of GCM's tag of nothing, one block of the cipher."""
    tag = encrypt(SEALED_HEADER.pack(_PROOF << INDEX_BITS | index, number), b"", None)
    return int.from_bytes(tag[:PROOF_BYTES], "big")


class SendKey:
    """The key of one direction, at its sender. ``remote_index`` is how the receiver finds it."""

    __slots__ = ("encrypt", "remote_index")

    def __init__(self, key: bytes, remote_index: int) -> None:
        self.remote_index = remote_index
        self.encrypt = AESGCM(key).encrypt
        """``encrypt(nonce, data, None)`` returns ciphertext and tag; the nonce is the twelve bytes of the header."""

    def record_nonce(self, number: int) -> bytes:
        """Return the first twelve bytes of all fragments of a record: word, number and proof. They are its nonce."""
        proof = _proof(self.encrypt, self.remote_index, number)
        return SEALED_HEADER.pack(RECORD << INDEX_BITS | self.remote_index, number << PROOF_BITS | proof)

    def seal(self, datagram_type: int, number: int, plaintext: Buffer) -> bytes:
        """Return the whole datagram: header, ciphertext, tag. Never call it twice with one number."""
        nonce = SEALED_HEADER.pack(datagram_type << INDEX_BITS | self.remote_index, number)
        return nonce + self.encrypt(nonce, plaintext, None)


class ReceiveKey:
    """The key of one direction, at its receiver, and the numbers that came under it.

    The replay window lives exactly as long as the key: while anything opens under the key, it is accepted once.
    """

    __slots__ = ("_encrypt", "decrypt", "index", "window")

    def __init__(self, key: bytes, index: int) -> None:
        self.index = index
        self.window = ReplayWindow()
        aead = AESGCM(key)
        self._encrypt = aead.encrypt
        self.decrypt = aead.decrypt
        """``decrypt(nonce, data, None)`` returns the plaintext or raises `InvalidTag`, or `ValueError` for what is
        shorter than a tag."""

    @property
    def is_confirmed(self) -> bool:
        """Return whether something was accepted under this key, which shows that the other side has it."""
        return self.window.greatest >= 0

    def proves(self, name: int) -> bool:
        """Return whether the 64 bits that name a record, number and proof, were made by an owner of this key."""
        return name & PROOF_MASK == _proof(self._encrypt, self.index, name >> PROOF_BITS)

    def open(self, datagram: Buffer) -> bytes:
        """Return the plaintext of a whole datagram; raise `AuthenticationError` if it was altered.

        The caller checks the replay window.
        """
        try:
            return self.decrypt(datagram[:SEALED_HEADER_BYTES], datagram[SEALED_HEADER_BYTES:], None)
        except (InvalidTag, ValueError):
            raise AuthenticationError("a datagram does not open under its key") from None
