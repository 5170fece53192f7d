"""A node's key: the derived X25519 pair as libsodium's, the text, and all that is no public key."""

from __future__ import annotations

from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keys import (
    ENCODED_CHARACTERS,
    P,
    decode_private_key,
    decode_public_key,
    encode_private_key,
    encode_public_key,
    public_key_fault,
    public_key_of,
    verify,
    x25519_private_key,
    x25519_public_key,
)

# libsodium, test/default/ed25519_convert.c and .exp.
LIBSODIUM_SEED = bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
LIBSODIUM_ED25519_PUBLIC = bytes.fromhex("b5076a8474a832daee4dd5b4040983b6623b5f344aca57d4d6ee4baf3f259e6e")
LIBSODIUM_X25519_PUBLIC = bytes.fromhex("f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50")
LIBSODIUM_X25519_PRIVATE = bytes.fromhex("8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166")

# RFC 8032, section 7.1, test 2.
RFC_8032_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_8032_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_8032_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

# The eight points of small order (Cremers and Jackson, "Prime, Order Please!", table 2), in canonical encoding.
SMALL_ORDER = [
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    )
]
SEEDS = st.binary(min_size=32, max_size=32)


class DerivationTests(SynchronousTestCase):
    def test_vector_of_libsodium(self) -> None:
        self.assertEqual(public_key_of(LIBSODIUM_SEED), LIBSODIUM_ED25519_PUBLIC)
        self.assertEqual(x25519_public_key(LIBSODIUM_ED25519_PUBLIC), LIBSODIUM_X25519_PUBLIC)
        self.assertEqual(x25519_private_key(LIBSODIUM_SEED), LIBSODIUM_X25519_PRIVATE)

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(SEEDS)
    def test_both_halves_belong_together(self, seed: bytes) -> None:
        private = X25519PrivateKey.from_private_bytes(x25519_private_key(seed))
        self.assertEqual(private.public_key().public_bytes_raw(), x25519_public_key(public_key_of(seed)))

    def test_vector_of_rfc_8032(self) -> None:
        self.assertEqual(public_key_of(RFC_8032_SEED), RFC_8032_PUBLIC)
        self.assertTrue(verify(RFC_8032_PUBLIC, RFC_8032_SIGNATURE, b"r"))
        self.assertFalse(verify(RFC_8032_PUBLIC, RFC_8032_SIGNATURE, b"s"))
        self.assertFalse(verify(LIBSODIUM_ED25519_PUBLIC, RFC_8032_SIGNATURE, b"r"))


class FaultTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=30)
    @given(SEEDS)
    def test_public_keys_have_none(self, seed: bytes) -> None:
        self.assertIsNone(public_key_fault(public_key_of(seed)))

    def test_small_order(self) -> None:
        for point in SMALL_ORDER[:2] + SMALL_ORDER[3:]:
            self.assertIn("small order", public_key_fault(point) or "", point.hex())

    def test_not_canonical(self) -> None:
        for y in (P, P + 1, P + 18):
            for sign in (0, 1 << 255):
                self.assertIn("canonical", public_key_fault((y | sign).to_bytes(32, "little")) or "")
        # x = 0 has no sign.
        self.assertIn("not a point", public_key_fault((1 | 1 << 255).to_bytes(32, "little")) or "")

    def test_half_of_all_y_are_not_on_the_curve(self) -> None:
        faults = [public_key_fault(y.to_bytes(32, "little")) for y in range(2, 102)]
        off = sum("not a point of the curve" in (fault or "") for fault in faults)
        self.assertTrue(30 < off < 70, off)

    def test_mixed_order(self) -> None:
        """The negative of y, that is the point plus the one of order 2: on the curve, and no multiple of the base."""
        y = int.from_bytes(RFC_8032_PUBLIC, "little") & ~(1 << 255)
        self.assertIn("prime order", public_key_fault((P - y).to_bytes(32, "little")) or "")

    def test_placeholders(self) -> None:
        for placeholder in (bytes(32), b"\xff" * 32, b"\x01" + bytes(31), b"\x02" + bytes(31)):
            self.assertIsNotNone(public_key_fault(placeholder), placeholder.hex())


class TextTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=30)
    @given(SEEDS)
    def test_there_and_back(self, seed: bytes) -> None:
        private, public = encode_private_key(seed), encode_public_key(public_key_of(seed))
        self.assertEqual(decode_private_key(private + "\n"), seed)
        self.assertEqual(decode_public_key(public), public_key_of(seed))
        self.assertEqual((private[:2], len(private)), ("gC", ENCODED_CHARACTERS))
        self.assertEqual((public[:2], len(public)), ("7Q", ENCODED_CHARACTERS))

    def refusals(self, text: str) -> tuple[str, str]:
        """Return what is said of this text as a public key and as a private one."""
        public = self.assertRaises(ValueError, decode_public_key, text)
        private = self.assertRaises(ValueError, decode_private_key, text)
        return str(public), str(private)

    def test_x25519_keys_of_earlier_versions(self) -> None:
        for key in (bytes(32), RFC_8032_PUBLIC, b"\xed\x01" + bytes(30), b"\x80\x26" + bytes(30)):
            for said in self.refusals(b64encode(key).decode()):
                self.assertIn("it is an X25519 key of an earlier version", said)
                self.assertIn("make a new Ed25519 key with `seamless genkey`", said)

    def test_one_kind_in_place_of_the_other(self) -> None:
        error = self.assertRaises(ValueError, decode_public_key, encode_private_key(RFC_8032_SEED))
        self.assertIn("it is a private key", str(error))
        self.assertNotIn(encode_private_key(RFC_8032_SEED), str(error))
        error = self.assertRaises(ValueError, decode_private_key, encode_public_key(RFC_8032_PUBLIC))
        self.assertEqual(str(error), "it is a public key")

    def test_neither(self) -> None:
        for text, reason in (
            ("", "it holds 0 bytes and not 34"),
            ("AAAA", "it holds 3 bytes and not 34"),
            (b64encode(bytes(33)).decode(), "it holds 33 bytes and not 34"),
            (encode_public_key(RFC_8032_PUBLIC)[:-1], "it is not base64"),
            ("not base64!", "it is not base64"),
            ("schlüssel", "it is not base64"),
        ):
            self.assertEqual(self.refusals(text), (reason, reason))
        self.assertEqual(
            self.refusals(b64encode(bytes(34)).decode()),
            ("it begins with 0000 and not with ed01", "it begins with 0000 and not with 8026"),
        )

    def test_public_key_with_a_fault(self) -> None:
        error = self.assertRaises(ValueError, decode_public_key, encode_public_key(SMALL_ORDER[0]))
        self.assertEqual(
            str(error),
            "it is no node's key, since it is a point of small order, whose private key is known to all: write what"
            " `seamless pubkey` prints",
        )
