"""The cryptographic handshake: Noise_IK_25519_AESGCM_BLAKE2s.

Noise (https://noiseprotocol.org/noise.html, revision 34) gives two nodes that know each other's public keys a pair of
fresh keys in one round trip, with forward secrecy and mutual authentication. This page holds the one pattern that we
use, written down as the specification's tokens::

    IK:  <- s
         ...
         -> e, es, s, ss        Initiator.write_message        Responder.read_message
         <- e, ee, se           Initiator.read_message         Responder.write_message

What surrounds these messages on the wire (indices, padding, macs, timestamps) is `seamless.crypto.messages`; when they
are sent is `seamless.crypto.association`. Rules:

* Pure: ephemeral keys come from the ``random`` that is passed in.
* A message that does not authenticate raises `AuthenticationError` and leaves the state as it was, so that a forged
  answer cannot end a handshake.
* A shared secret of zeroes (a public key of small order) is refused.
* In IK every key of the handshake encrypts exactly one thing, so Noise's counter nonce is always 0 here.

Checked against the published cacophony vectors and against the `noiseprotocol` package.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seamless.errors import AuthenticationError

PROTOCOL_NAME: Final = b"Noise_IK_25519_AESGCM_BLAKE2s"
PUBLIC_KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MESSAGE_1_OVERHEAD_BYTES: Final = PUBLIC_KEY_BYTES + (PUBLIC_KEY_BYTES + TAG_BYTES) + TAG_BYTES
"""Bytes of message 1 around its payload: e, the sealed s, the payload's tag."""
MESSAGE_2_OVERHEAD_BYTES: Final = PUBLIC_KEY_BYTES + TAG_BYTES

_NONCE_ZERO: Final = bytes(12)


def public_key_of(private_key: X25519PrivateKey) -> bytes:
    """Return the 32 raw bytes of the public key."""
    return private_key.public_key().public_bytes_raw()


def shared_secret(private_key: X25519PrivateKey, public_key: bytes) -> bytes:
    """Return the X25519 function of two keys; raise `AuthenticationError` when it is zero (RFC 7748, section 6.1)."""
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        raise AuthenticationError("a public key of small order, or of a wrong length") from None


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Return two outputs of Noise's HKDF (section 4.3)."""
    secret = hmac.new(chaining_key, material, hashlib.blake2s).digest()
    first = hmac.new(secret, b"\x01", hashlib.blake2s).digest()
    return first, hmac.new(secret, first + b"\x02", hashlib.blake2s).digest()


class _Symmetric:
    """Noise's SymmetricState (section 5.2): the transcript's hash, the chaining key, and the key to encrypt with."""

    __slots__ = ("chaining_key", "hash", "key")

    def __init__(self, chaining_key: bytes, transcript_hash: bytes, key: bytes) -> None:
        self.chaining_key = chaining_key
        self.hash = transcript_hash
        self.key = key

    @classmethod
    def start(cls, prologue: bytes, responder_public_key: bytes) -> _Symmetric:
        """Return the state before the first message: name, prologue, and the pre-message ``<- s``."""
        name = PROTOCOL_NAME.ljust(hashlib.blake2s().digest_size, b"\0")
        symmetric = cls(name, name, b"")
        symmetric.mix_hash(prologue)
        symmetric.mix_hash(responder_public_key)
        return symmetric

    def copy(self) -> _Symmetric:
        return _Symmetric(self.chaining_key, self.hash, self.key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2s(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, self.key = _hkdf(self.chaining_key, material)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = AESGCM(self.key).encrypt(_NONCE_ZERO, plaintext, self.hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = AESGCM(self.key).decrypt(_NONCE_ZERO, ciphertext, self.hash)
        except (InvalidTag, ValueError):
            raise AuthenticationError("a handshake message does not authenticate") from None
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the keys (initiator to responder, responder to initiator)."""
        return _hkdf(self.chaining_key, b"")


class Initiator:
    """The side that speaks first, and so must know the other's public key.

    ``static_static`` is the `shared_secret` of the two static keys: it never changes, so its owner computes it once.
    """

    def __init__(
        self, private_key: X25519PrivateKey, remote_public_key: bytes, prologue: bytes, static_static: bytes
    ) -> None:
        self._private_key = private_key
        self._remote_public_key = remote_public_key
        self._static_static = static_static
        self._symmetric = _Symmetric.start(prologue, remote_public_key)
        self._ephemeral: X25519PrivateKey | None = None

    def write_message(self, public_key: bytes, payload: bytes, random: Callable[[int], bytes]) -> bytes:
        """Return message 1, from the owner of ``public_key``; its secrecy rests on the responder's static key only."""
        symmetric = self._symmetric
        self._ephemeral = X25519PrivateKey.from_private_bytes(random(32))
        ephemeral_public = public_key_of(self._ephemeral)
        symmetric.mix_hash(ephemeral_public)
        symmetric.mix_key(shared_secret(self._ephemeral, self._remote_public_key))
        sealed_static = symmetric.encrypt_and_hash(public_key)
        symmetric.mix_key(self._static_static)
        return ephemeral_public + sealed_static + symmetric.encrypt_and_hash(payload)

    def read_message(self, message: bytes) -> tuple[bytes, bytes, bytes]:
        """Decrypt handshake message 2; return (its payload, key to send with, key to receive with)."""
        assert self._ephemeral is not None, "message 1 comes first"
        symmetric = self._symmetric.copy()
        remote_ephemeral = message[:PUBLIC_KEY_BYTES]
        symmetric.mix_hash(remote_ephemeral)
        symmetric.mix_key(shared_secret(self._ephemeral, remote_ephemeral))
        symmetric.mix_key(shared_secret(self._private_key, remote_ephemeral))
        payload = symmetric.decrypt_and_hash(message[PUBLIC_KEY_BYTES:])
        send, receive = symmetric.split()
        return payload, send, receive


class Responder:
    """The responder of one handshake, which learns the initiator's public key from message 1."""

    def __init__(self, private_key: X25519PrivateKey, public_key: bytes, prologue: bytes) -> None:
        self._private_key = private_key
        self._symmetric = _Symmetric.start(prologue, public_key)
        self._remote_public_key = b""
        self._remote_ephemeral = b""

    def read_message(self, message: bytes, static_static_of: Callable[[bytes], bytes]) -> tuple[bytes, bytes]:
        """Take message 1; return (the initiator's public key, the payload).

        ``static_static_of`` gives the `shared_secret` with a public key; it may raise `AuthenticationError` for a key
        that it does not know, before more is computed for a stranger.
        """
        symmetric = self._symmetric.copy()
        remote_ephemeral = message[:PUBLIC_KEY_BYTES]
        static_end = PUBLIC_KEY_BYTES + PUBLIC_KEY_BYTES + TAG_BYTES
        symmetric.mix_hash(remote_ephemeral)
        symmetric.mix_key(shared_secret(self._private_key, remote_ephemeral))
        remote_public_key = symmetric.decrypt_and_hash(message[PUBLIC_KEY_BYTES:static_end])
        symmetric.mix_key(static_static_of(remote_public_key))
        payload = symmetric.decrypt_and_hash(message[static_end:])
        self._symmetric = symmetric
        self._remote_public_key = remote_public_key
        self._remote_ephemeral = remote_ephemeral
        return remote_public_key, payload

    def write_message(self, payload: bytes, random: Callable[[int], bytes]) -> tuple[bytes, bytes, bytes]:
        """Return (message 2, key to send with, key to receive with)."""
        symmetric = self._symmetric
        ephemeral = X25519PrivateKey.from_private_bytes(random(32))
        ephemeral_public = public_key_of(ephemeral)
        symmetric.mix_hash(ephemeral_public)
        symmetric.mix_key(shared_secret(ephemeral, self._remote_ephemeral))
        symmetric.mix_key(shared_secret(ephemeral, self._remote_public_key))
        message = ephemeral_public + symmetric.encrypt_and_hash(payload)
        receive, send = symmetric.split()
        return message, send, receive
