"""The layout of the three handshake messages, and the macs and cookies that guard them (docs/protocol.rst).

Bytes in, fields out: no state, no time. The Noise messages inside are `seamless.crypto.noise`'s; who sends which
message when is `seamless.crypto.association`'s; who is let in is `seamless.crypto.gate`'s. ::

    INITIATION  word(1, sender's index) | Noise message 1 | zero padding | mac1 (16) | mac2 (16)     1184 bytes
    RESPONSE    word(2, receiver's index) | Noise message 2 | mac1 (16) | mac2 (16)                    96 bytes
    COOKIE      word(3, receiver's index) | nonce (24) | sealed cookie (32)                            60 bytes

The payload of Noise message 1 is timestamp (counter 64, zero 32) and incarnation (64); that of message 2 is incarnation
(64) and the responder's index (32). The index stands inside, since an index changed on the way would leave both sides
with keys that they believe in and that never meet.

WireGuard's mac1 and mac2 (whitepaper, section 5.4.4). mac1 shows that the sender knows the receiver's public key, so a
node is silent towards those who do not. mac2 shows that it receives at the address it sends from. A cookie is sealed
with AES-256-GCM under a key made from the responder's public key and a random nonce of 192 bits, where WireGuard takes
XChaCha20-Poly1305 with the same inputs; it is bound to the mac1 of the initiation that it answers.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seamless.crypto.noise import MESSAGE_1_OVERHEAD_BYTES, MESSAGE_2_OVERHEAD_BYTES
from seamless.errors import AuthenticationError, RemoteProtocolError
from seamless.wire.header import COOKIE, INDEX_BITS, INDEX_MASK, INITIATION, RESPONSE

LINK_PROLOGUE: Final = b"seamless 1 link"
SESSION_PROLOGUE: Final = b"seamless 1 session"
"""Mixed into the transcript, so that a handshake of a link is invalid for a session, and the reverse."""


MAC_BYTES: Final = 16
COOKIE_BYTES: Final = 16
COOKIE_NONCE_BYTES: Final = 24

_WORD: Final = struct.Struct(">I")
_INITIATION_PAYLOAD: Final = struct.Struct(">Q4xQ")
_RESPONSE_PAYLOAD: Final = struct.Struct(">QI")

NOISE_1_BYTES: Final = MESSAGE_1_OVERHEAD_BYTES + _INITIATION_PAYLOAD.size
NOISE_2_BYTES: Final = MESSAGE_2_OVERHEAD_BYTES + _RESPONSE_PAYLOAD.size
INITIATION_BYTES: Final = 1184
"""So long that no answer is longer: a node cannot be used to amplify a flood. RFC 9000, section 8.1, has
1200. In an overlay packet over IPv6 it still fits an MTU of 1280, which is what every link carries."""
RESPONSE_BYTES: Final = _WORD.size + NOISE_2_BYTES + 2 * MAC_BYTES
COOKIE_MESSAGE_BYTES: Final = _WORD.size + COOKIE_NONCE_BYTES + COOKIE_BYTES + 16

MAC1_SPAN: Final = slice(-2 * MAC_BYTES, -MAC_BYTES)
MAC2_SPAN: Final = slice(-MAC_BYTES, None)
MAC2_AT: Final = INITIATION_BYTES - MAC_BYTES
"""Where the mac2 of an INITIATION begins."""
NO_MAC2: Final = bytes(MAC_BYTES)


def mac1_key(public_key: bytes) -> bytes:
    """Return the key of mac1 in messages to the owner of ``public_key``."""
    return hashlib.blake2s(b"seamless mac1" + public_key).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=MAC_BYTES).digest()


def has_valid_mac1(message: bytes, key: bytes) -> bool:
    """Return whether an INITIATION or RESPONSE was made for us; ``key`` is our own `mac1_key`."""
    return hmac.compare_digest(message[MAC1_SPAN], _mac(key, message[: -2 * MAC_BYTES]))


def has_valid_mac2(message: bytes, cookie: bytes) -> bool:
    """Return whether an INITIATION's sender has our cookie."""
    return hmac.compare_digest(message[MAC2_SPAN], _mac(cookie, message[:-MAC_BYTES]))


def with_mac2(message: bytes, cookie: bytes) -> bytes:
    """Return an INITIATION with its mac2 made from ``cookie``."""
    guarded = message[:-MAC_BYTES]
    return guarded + _mac(cookie, guarded)


def _first_word(message: bytes, message_type: int, length: int) -> int:
    """Return the index in the first word; raise `RemoteProtocolError` for another type or length."""
    if len(message) != length or message[0] != message_type:
        raise RemoteProtocolError("a handshake message of a wrong type or length")
    word: int = _WORD.unpack_from(message)[0]
    return word & INDEX_MASK


def build_initiation(sender_index: int, noise_message: bytes, key: bytes) -> bytes:
    """Return an INITIATION without mac2; ``key`` is the responder's `mac1_key`."""
    head = _WORD.pack(INITIATION << INDEX_BITS | sender_index) + noise_message
    head = head.ljust(INITIATION_BYTES - 2 * MAC_BYTES, b"\0")
    return head + _mac(key, head) + NO_MAC2


def parse_initiation(message: bytes, key: bytes) -> tuple[int, bytes]:
    """Return (sender's index, Noise message 1); raise `RemoteProtocolError` unless its mac1 was made with ``key``."""
    sender_index = _first_word(message, INITIATION, INITIATION_BYTES)
    if not has_valid_mac1(message, key):
        raise AuthenticationError("an initiation whose mac1 is wrong")
    return sender_index, message[_WORD.size : _WORD.size + NOISE_1_BYTES]


def build_response(receiver_index: int, noise_message: bytes, key: bytes) -> bytes:
    """Return a RESPONSE; ``key`` is the initiator's `mac1_key`."""
    head = _WORD.pack(RESPONSE << INDEX_BITS | receiver_index) + noise_message
    return head + _mac(key, head) + NO_MAC2


def parse_response(message: bytes, key: bytes) -> tuple[int, bytes]:
    """Return (receiver's index, Noise message 2); raise `RemoteProtocolError` unless its mac1 was made with ``key``."""
    receiver_index = _first_word(message, RESPONSE, RESPONSE_BYTES)
    if not has_valid_mac1(message, key) or message[MAC2_SPAN] != NO_MAC2:
        raise AuthenticationError("a response whose macs are wrong")
    return receiver_index, message[_WORD.size : _WORD.size + NOISE_2_BYTES]


@attrs.frozen
class InitiationPayload:
    """What message 1 carries. ``counter`` grows with every initiation of its sender, over restarts too."""

    counter: int
    incarnation: int

    def encode(self) -> bytes:
        """Return the bytes."""
        return _INITIATION_PAYLOAD.pack(self.counter, self.incarnation)

    @classmethod
    def decode(cls, data: bytes) -> InitiationPayload:
        """Return the payload of an authenticated Noise message 1, whose length is fixed."""
        return cls(*_INITIATION_PAYLOAD.unpack(data))


@attrs.frozen
class ResponsePayload:
    """What message 2 carries."""

    incarnation: int
    sender_index: int

    def encode(self) -> bytes:
        """Return the bytes."""
        return _RESPONSE_PAYLOAD.pack(self.incarnation, self.sender_index)

    @classmethod
    def decode(cls, data: bytes) -> ResponsePayload:
        """Return the payload of an authenticated Noise message 2; raise `RemoteProtocolError` if it is malformed."""
        payload = cls(*_RESPONSE_PAYLOAD.unpack(data))
        if payload.sender_index > INDEX_MASK:
            raise RemoteProtocolError("a response with a receiver index of more than 24 bits")
        return payload


def _cookie_seal(responder_public_key: bytes, nonce: bytes) -> AESGCM:
    return AESGCM(hashlib.blake2s(b"seamless cookie" + responder_public_key + nonce).digest())


def build_cookie(initiation: bytes, cookie: bytes, responder_public_key: bytes, nonce: bytes) -> bytes:
    """Return the COOKIE that answers ``initiation``; ``nonce`` is 24 random bytes, never used before."""
    index = _first_word(initiation, INITIATION, INITIATION_BYTES)
    sealed = _cookie_seal(responder_public_key, nonce).encrypt(bytes(12), cookie, initiation[MAC1_SPAN])
    return _WORD.pack(COOKIE << INDEX_BITS | index) + nonce + sealed


def open_cookie(message: bytes, initiation: bytes, responder_public_key: bytes) -> bytes:
    """Decrypt the cookie that answers our ``initiation``; raise `RemoteProtocolError` if it is not authentic."""
    index = _first_word(message, COOKIE, COOKIE_MESSAGE_BYTES)
    if index != _first_word(initiation, INITIATION, INITIATION_BYTES):
        raise RemoteProtocolError("a cookie for another initiation")
    nonce = message[_WORD.size : _WORD.size + COOKIE_NONCE_BYTES]
    sealed = message[_WORD.size + COOKIE_NONCE_BYTES :]
    try:
        return _cookie_seal(responder_public_key, nonce).decrypt(bytes(12), sealed, initiation[MAC1_SPAN])
    except InvalidTag:
        raise AuthenticationError("a cookie that does not open") from None
