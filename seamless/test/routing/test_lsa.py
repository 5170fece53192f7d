"""LSAs and summaries on the wire: there and back, one kind of error for all else, signatures of the origin only."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.keys import verify
from seamless.errors import RemoteProtocolError
from seamless.routing.capacity import LinkCapacity
from seamless.routing.lsa import (
    MAX_COST,
    MAX_LINKS,
    MAX_LSA_BYTES,
    MAX_MTU_BYTES,
    MAX_UNKNOWN,
    SIGNATURE_BYTES,
    Lsa,
    LsaLink,
    LsaRefusedError,
    Refusal,
    decode_lsa,
    digest_of,
    encode_lsa,
    signed_part,
)
from seamless.routing.summary import (
    MAX_ENTRIES,
    MAX_IDENTIFIER,
    MAX_SUMMARY_BYTES,
    Summary,
    decode_summary,
    encode_summary,
    summaries_of,
)
from seamless.test.routing.network import public_key, sign_as

IDENTIFIERS = st.integers(0, MAX_IDENTIFIER)
CAPACITIES = st.builds(LinkCapacity, st.integers(0, 255), st.integers(0, 255))
LINKS = st.lists(
    st.builds(LsaLink, IDENTIFIERS, st.integers(1, MAX_COST), st.integers(1, MAX_MTU_BYTES), CAPACITIES),
    max_size=8,
    unique_by=lambda link: link.neighbor,
).map(lambda links: tuple(sorted(links, key=lambda link: link.neighbor)))
UNKNOWN = st.sets(IDENTIFIERS, max_size=MAX_UNKNOWN).map(lambda nodes: tuple(sorted(nodes)))
LSAS = st.builds(Lsa, IDENTIFIERS, st.integers(0, (1 << 64) - 1), st.booleans(), LINKS, UNKNOWN)
RANKS = st.dictionaries(IDENTIFIERS, st.tuples(st.integers(0, (1 << 64) - 1), st.binary(min_size=16, max_size=16)))

SAMPLE = Lsa(7, 1 << 40, False, (LsaLink(3, 10, 1400, LinkCapacity(0x49, 0x70)), LsaLink(9, 20, 1300)), (5, 6))


def unsigned(message: bytes) -> bytes:
    return bytes(SIGNATURE_BYTES)


def encode(lsa: Lsa) -> bytes:
    return encode_lsa(lsa, sign_as(7))


def is_authentic(data: bytes) -> bool:
    return verify(public_key(7), *signed_part(data))


class EncodingTests(SynchronousTestCase):
    def test_bytes_are_as_documented(self) -> None:
        encoded = encode(SAMPLE)
        body = (
            "01 00000007 0000010000000000 00 02 02"
            "00000003 0000000a 0578 49 70"
            "00000009 00000014 0514 00 00"
            "00000005 00000006"
        )  # fmt: skip
        self.assertEqual(encoded[:-SIGNATURE_BYTES], bytes.fromhex(body))
        self.assertEqual(signed_part(encoded)[1], b"seamless 1 lsa\0" + bytes.fromhex(body))

    @settings(derandomize=True, deadline=None)
    @given(LSAS)
    def test_there_and_back(self, lsa: Lsa) -> None:
        self.assertEqual(decode_lsa(encode_lsa(lsa, unsigned)), lsa)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=200) | st.binary(max_size=180).map(lambda data: b"\x01" + data))
    def test_any_bytes_raise_one_kind_of_error(self, data: bytes) -> None:
        try:
            lsa = decode_lsa(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_lsa(lsa, lambda message: data[-SIGNATURE_BYTES:]), data)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(LSAS, st.data())
    def test_a_spoiled_byte_raises_one_kind_of_error_or_is_not_authentic(self, lsa: Lsa, data: st.DataObject) -> None:
        good = encode(lsa)
        self.assertTrue(is_authentic(good))
        spoiled = bytearray(good)
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            decode_lsa(bytes(spoiled))
        except RemoteProtocolError:
            return
        self.assertFalse(is_authentic(bytes(spoiled)))

    def test_every_truncation_is_refused(self) -> None:
        encoded = encode(SAMPLE)
        for length in range(len(encoded)):
            refused: LsaRefusedError = self.assertRaises(LsaRefusedError, decode_lsa, encoded[:length])
            self.assertIs(refused.refusal, Refusal.MALFORMED)
        self.assertRaises(LsaRefusedError, decode_lsa, encoded + b"\0")

    def test_other_forms_of_the_same_are_refused(self) -> None:
        first, second = SAMPLE.links
        spoiled = {
            "descending": attrs.evolve(SAMPLE, links=(second, first)),
            "twice": attrs.evolve(SAMPLE, links=(first, first)),
            "free": attrs.evolve(SAMPLE, links=(attrs.evolve(first, cost=0),)),
            "no MTU": attrs.evolve(SAMPLE, links=(attrs.evolve(first, mtu_bytes=0),)),
            "descending unknown": attrs.evolve(SAMPLE, unknown=(6, 5)),
            "unknown twice": attrs.evolve(SAMPLE, unknown=(5, 5)),
        }
        for lsa in spoiled.values():
            self.assertRaises(LsaRefusedError, decode_lsa, encode(lsa))
        for offset, value in ((0, 2), (13, 2)):
            other = bytearray(encode(SAMPLE))
            other[offset] = value
            self.assertRaises(LsaRefusedError, decode_lsa, bytes(other))

    def test_size_is_bounded(self) -> None:
        links = tuple(LsaLink(number, 1, 1400) for number in range(MAX_LINKS + 1))
        unknown = tuple(range(MAX_UNKNOWN + 1))
        longest = encode(Lsa(7, 1, False, links[1:], unknown[1:]))
        self.assertEqual((len(longest), MAX_LSA_BYTES), (912, 912))
        decode_lsa(longest)
        self.assertRaises(LsaRefusedError, decode_lsa, encode(Lsa(7, 1, False, links)))
        self.assertRaises(LsaRefusedError, decode_lsa, encode(Lsa(7, 1, False, (), unknown)))


class SignatureTests(SynchronousTestCase):
    def test_only_the_origin_signs(self) -> None:
        self.assertTrue(is_authentic(encode(SAMPLE)))
        self.assertFalse(is_authentic(encode_lsa(SAMPLE, sign_as(8))))

    def test_digest_is_of_the_body(self) -> None:
        """An origin can make any number of signatures for one body; all are the same LSA."""
        encoded = encode(SAMPLE)
        self.assertEqual(digest_of(encoded), digest_of(encoded[:-1] + b"\0"))
        self.assertNotEqual(digest_of(encoded), digest_of(encode(attrs.evolve(SAMPLE, leaf=True))))


class SummaryTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None)
    @given(RANKS)
    def test_there_and_back_and_all_is_covered(self, ranks: dict[int, tuple[int, bytes]]) -> None:
        summaries = list(summaries_of(ranks.items()))
        self.assertEqual([decode_summary(encode_summary(summary)) for summary in summaries], summaries)
        together: dict[int, tuple[int, bytes]] = {}
        reached = -1
        for summary in summaries:
            self.assertEqual(summary.first, reached + 1)
            reached = summary.last
            together.update(summary.ranks)
        self.assertEqual((reached, together), (MAX_IDENTIFIER, ranks))

    def test_size_is_bounded(self) -> None:
        ranks = {number: (number, bytes(16)) for number in range(MAX_ENTRIES + 1)}
        lengths = [len(encode_summary(summary)) for summary in summaries_of(ranks.items())]
        self.assertEqual(lengths, [MAX_SUMMARY_BYTES, 9 + 28])
        self.assertEqual(MAX_SUMMARY_BYTES, 1129)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=200) | st.binary(max_size=180).map(lambda data: b"\x02\0\0\0\0" + data))
    def test_any_bytes_raise_one_kind_of_error(self, data: bytes) -> None:
        try:
            summary = decode_summary(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_summary(summary), data)

    def test_other_forms_are_refused(self) -> None:
        rank = (1, bytes(16))
        for summary in (Summary(5, 4, {}), Summary(5, 9, {4: rank}), Summary(5, 9, {10: rank})):
            self.assertRaises(LsaRefusedError, decode_summary, encode_summary(summary))
        good = encode_summary(Summary(0, 9, {4: rank}))
        self.assertRaises(LsaRefusedError, decode_summary, good + good[9:])
