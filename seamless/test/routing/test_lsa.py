"""LSAs on the wire: there and back, one kind of error for everything else, and tags that only the origin can make."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.routing.lsa import (
    MAX_COST,
    MAX_LSA_BYTES,
    MAX_MTU_BYTES,
    TAG_BYTES,
    Lsa,
    LsaLink,
    LsaRefusedError,
    Refusal,
    decode_lsa,
    encode_lsa,
    is_authentic,
)

KEYS = [bytes([number]) * 32 for number in range(3)]
IDENTIFIERS = st.integers(0, (1 << 32) - 1)
LINKS = st.lists(
    st.builds(LsaLink, IDENTIFIERS, st.integers(1, MAX_COST), st.integers(1, MAX_MTU_BYTES)),
    max_size=8,
    unique_by=lambda link: link.neighbor,
).map(lambda links: tuple(sorted(links, key=lambda link: link.neighbor)))
LSAS = st.builds(Lsa, IDENTIFIERS, st.integers(0, (1 << 64) - 1), st.booleans(), LINKS)

SAMPLE = Lsa(7, 1 << 40, False, (LsaLink(3, 10, 1400), LsaLink(9, 20, 1300)))


class EncodingTests(SynchronousTestCase):
    def test_bytes_are_as_documented(self) -> None:
        encoded = encode_lsa(SAMPLE, KEYS)
        body = (
            "00000007 0000010000000000 00 0002"
            "00000003 0000000a 0578"
            "00000009 00000014 0514"
        )  # fmt: skip
        self.assertEqual(encoded[:35], bytes.fromhex(body))
        self.assertEqual(len(encoded), 35 + 3 * TAG_BYTES)

    @settings(derandomize=True, deadline=None)
    @given(LSAS)
    def test_there_and_back(self, lsa: Lsa) -> None:
        self.assertEqual(decode_lsa(encode_lsa(lsa, KEYS)), lsa)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=200))
    def test_any_bytes_raise_one_kind_of_error(self, data: bytes) -> None:
        try:
            lsa = decode_lsa(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_lsa(lsa, []), data[: len(encode_lsa(lsa, []))])

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(LSAS, st.data())
    def test_a_spoiled_byte_raises_one_kind_of_error(self, lsa: Lsa, data: st.DataObject) -> None:
        spoiled = bytearray(encode_lsa(lsa, KEYS))
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            decoded = decode_lsa(bytes(spoiled))
        except RemoteProtocolError:
            return
        believers = sum(is_authentic(bytes(spoiled), decoded, key) for key in KEYS)
        # Either one tag is spoiled and the other nodes still believe what was said, or nobody does.
        self.assertEqual(believers, 2 if decoded == lsa else 0)

    def test_every_truncation_is_refused_or_has_fewer_tags(self) -> None:
        encoded = encode_lsa(SAMPLE, KEYS)
        decodable = []
        for length in range(len(encoded)):
            try:
                decode_lsa(encoded[:length])
            except LsaRefusedError as refused:
                self.assertIs(refused.refusal, Refusal.MALFORMED)
            else:
                decodable.append(length)
        self.assertEqual(decodable, [35, 51, 67])

    def test_other_forms_of_the_same_are_refused(self) -> None:
        first, second = SAMPLE.links
        spoiled = {
            "descending": attrs.evolve(SAMPLE, links=(second, first)),
            "twice": attrs.evolve(SAMPLE, links=(first, first)),
            "free": attrs.evolve(SAMPLE, links=(attrs.evolve(first, cost=0),)),
            "no MTU": attrs.evolve(SAMPLE, links=(attrs.evolve(first, mtu_bytes=0),)),
        }
        for lsa in spoiled.values():
            self.assertRaises(LsaRefusedError, decode_lsa, encode_lsa(lsa, KEYS))
        unknown_flag = bytearray(encode_lsa(SAMPLE, KEYS))
        unknown_flag[12] = 0x02
        self.assertRaises(LsaRefusedError, decode_lsa, bytes(unknown_flag))

    def test_size_is_bounded(self) -> None:
        tags = (MAX_LSA_BYTES - 15) // TAG_BYTES
        bare = Lsa(7, 1, False, ())
        self.assertEqual(decode_lsa(encode_lsa(bare, KEYS[:1] * tags)), bare)
        self.assertRaises(LsaRefusedError, decode_lsa, encode_lsa(bare, KEYS[:1] * (tags + 1)))


class AuthenticationTests(SynchronousTestCase):
    def test_each_addressee_finds_its_tag_and_nobody_else_does(self) -> None:
        encoded = encode_lsa(SAMPLE, KEYS)
        self.assertEqual([is_authentic(encoded, SAMPLE, key) for key in KEYS], [True] * 3)
        self.assertFalse(is_authentic(encoded, SAMPLE, b"stranger"))

    def test_a_spoiled_tag_harms_its_addressee_only(self) -> None:
        encoded = bytearray(encode_lsa(SAMPLE, KEYS))
        encoded[35 + TAG_BYTES] ^= 1
        self.assertEqual([is_authentic(bytes(encoded), SAMPLE, key) for key in KEYS], [True, False, True])

    def test_links_cannot_be_passed_off_as_tags(self) -> None:
        """The number of links is under the tag, so the border between what is said and the tags cannot be moved."""
        encoded = bytearray(encode_lsa(attrs.evolve(SAMPLE, links=()), KEYS))
        fake_links = LsaLink(1, 1, 1400), LsaLink(2, 1, 1400)
        with_links = encode_lsa(attrs.evolve(SAMPLE, links=fake_links), [])
        forged = with_links + encoded[15:]
        self.assertEqual([is_authentic(forged, decode_lsa(forged), key) for key in KEYS], [False] * 3)
