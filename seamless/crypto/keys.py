"""The key of a node: one Ed25519 key, its text, and the X25519 key for the handshake that is derived from it.

A node signs its LSAs (Ed25519, RFC 8032) and agrees on keys with others (X25519, RFC 7748) with one key. The private
X25519 key is the clamped first half of the SHA-512 of the Ed25519 seed, which is the scalar that Ed25519 itself signs
with; the public one follows from the Ed25519 point by the birational map u = (1 + y) / (1 - y) of RFC 7748, section
4.1. libsodium (``crypto_sign_ed25519_pk_to_curve25519``), age and ssh-to-age do the same.

As text a key is base64 of a multicodec prefix and 32 bytes: ``ed25519-pub`` is 0xed01, ``ed25519-priv`` 0x8026. So a
public key begins with ``7Q``, a private one with ``gC``, neither is taken for the other, and the 32 bare bytes of an
X25519 key, as earlier versions and WireGuard write them, are taken for neither.

Rules for a public key that comes from outside (`public_key_fault`): the canonical encoding of a point of the curve, in
the subgroup of prime order, and not its neutral element. All other bytes are no node's key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES: Final = 32
"""A seed or a public key (RFC 8032, section 5.1.5), and an X25519 key (RFC 7748, section 5)."""
SIGNATURE_BYTES: Final = 64
PUBLIC_PREFIX: Final = b"\xed\x01"
"""Multicodec 0xed, ed25519-pub, as an unsigned varint."""
PRIVATE_PREFIX: Final = b"\x80\x26"
"""Multicodec 0x1300, ed25519-priv, as an unsigned varint."""
ENCODED_BYTES: Final = len(PUBLIC_PREFIX) + KEY_BYTES
ENCODED_CHARACTERS: Final = 48
"""Base64 of `ENCODED_BYTES`, with padding."""

# edwards25519 (RFC 8032, section 5.1): -x^2 + y^2 = 1 + d x^2 y^2 modulo P; its points of prime order number ORDER.
P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, P) % P
_SQRT_OF_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)
_Y_MASK: Final = (1 << 255) - 1

_Point: TypeAlias = tuple[int, int, int, int]
"""Extended homogeneous coordinates X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z."""


class PrivateKeyFoundError(ValueError):
    """A private key stands where a public one is expected: a message about it must not repeat it."""


def public_key_of(private_key: bytes) -> bytes:
    """Return the raw Ed25519 public key that belongs to a raw private key (a seed of 32 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether ``signature`` of ``message`` was made with the private key that belongs to ``public_key``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# The X25519 key that is derived.


def x25519_private_key(private_key: bytes) -> bytes:
    """Return the raw X25519 private key of the node with this Ed25519 seed, clamped (RFC 7748, section 5)."""
    scalar = bytearray(hashlib.sha512(private_key).digest()[:KEY_BYTES])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return bytes(scalar)


def x25519_public_key(public_key: bytes) -> bytes:
    """Return the raw X25519 public key of the node with this raw Ed25519 public key."""
    y = int.from_bytes(public_key, "little") & _Y_MASK
    # Modulo P and by Fermat, so that y = 1, which no checked key has, gives 0 and no error.
    return ((1 + y) * pow(1 - y, P - 2, P) % P).to_bytes(KEY_BYTES, "little")


# What is no public key.


@lru_cache(maxsize=4096)
def public_key_fault(public_key: bytes) -> str | None:
    """Return what is wrong with a raw Ed25519 public key, as the end of a sentence about it; None when it is good."""
    encoded = int.from_bytes(public_key, "little")
    y = encoded & _Y_MASK
    if y >= P:
        return "is not the canonical encoding of a point (RFC 8032, section 5.1.3)"
    x = _x_of(y, encoded >> 255)
    if x is None:
        return "is not a point of the curve edwards25519"
    point = (x, y, 1, x * y % P)
    if _is_neutral(_times(point, 8)):
        return "is a point of small order, whose private key is known to all"
    if not _is_neutral(_times(point, ORDER)):
        return "is not a point of the subgroup of prime order"
    return None


def _x_of(y: int, sign: int) -> int | None:
    """Return the x of the point with this y and this lowest bit of x; None when there is none (section 5.1.3)."""
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _SQRT_OF_MINUS_ONE % P
    if (x * x - square) % P:
        return None
    return x if x & 1 == sign else P - x


def _add(one: _Point, other: _Point) -> _Point:
    """Return the sum of two points (RFC 8032, section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0])
    b = (one[1] + one[0]) * (other[1] + other[0])
    c = 2 * one[3] * other[3] * _D
    d = 2 * one[2] * other[2]
    e, f, g, h = (b - a) % P, (d - c) % P, (d + c) % P, (b + a) % P
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(point: _Point, scalar: int) -> _Point:
    """Return ``scalar`` times a public point; not constant in time."""
    total = point
    for bit in bin(scalar)[3:]:
        total = _add(total, total)
        if bit == "1":
            total = _add(total, point)
    return total


def _is_neutral(point: _Point) -> bool:
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


# Text.


def encode_public_key(public_key: bytes) -> str:
    """Return a raw public key as people read and write it."""
    return base64.b64encode(PUBLIC_PREFIX + public_key).decode("ascii")


def encode_private_key(private_key: bytes) -> str:
    """Return a raw private key as people read and write it."""
    return base64.b64encode(PRIVATE_PREFIX + private_key).decode("ascii")


def decode_public_key(text: str) -> bytes:
    """Return the raw public key; raise `ValueError` saying what is wrong with ``text``, as a sentence about it."""
    data = _decoded(text)
    if data.startswith(PRIVATE_PREFIX) and len(data) == ENCODED_BYTES:
        raise PrivateKeyFoundError(
            "it is a private key, which belongs nowhere but into its node's key file:"
            " write what `seamless pubkey` prints for it, and make a new one if others have seen it"
        )
    key = _unprefixed(data, PUBLIC_PREFIX)
    fault = public_key_fault(key)
    if fault is not None:
        raise ValueError(f"it is no node's key, since it {fault}: write what `seamless pubkey` prints")
    return key


def decode_private_key(text: str) -> bytes:
    """Return the raw private key; raise `ValueError` saying what is wrong with ``text``, as a sentence about it."""
    data = _decoded(text)
    if data.startswith(PUBLIC_PREFIX) and len(data) == ENCODED_BYTES:
        raise ValueError("it is a public key")
    return _unprefixed(data, PRIVATE_PREFIX)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None


def _unprefixed(data: bytes, prefix: bytes) -> bytes:
    if len(data) == KEY_BYTES:
        raise ValueError(
            "it is an X25519 key of an earlier version or of WireGuard: make a new Ed25519 key with `seamless genkey`"
        )
    if len(data) != ENCODED_BYTES:
        raise ValueError(f"it holds {len(data)} bytes and not {ENCODED_BYTES}")
    if not data.startswith(prefix):
        raise ValueError(f"it begins with {data[:2].hex()} and not with {prefix.hex()}")
    return data[len(prefix) :]
