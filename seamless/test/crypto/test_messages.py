"""The handshake messages: their layout, and that whatever bytes arrive raise one kind of error."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.messages import (
    COOKIE_BYTES,
    COOKIE_MESSAGE_BYTES,
    INITIATION_BYTES,
    RESPONSE_BYTES,
    InitiationPayload,
    ResponsePayload,
    build_cookie,
    build_initiation,
    build_response,
    has_valid_mac1,
    has_valid_mac2,
    mac1_key,
    open_cookie,
    parse_initiation,
    parse_response,
    with_mac2,
)
from seamless.errors import AuthenticationError, RemoteProtocolError
from seamless.test.crypto.pair import Pair
from seamless.wire.header import COOKIE, INITIATION, RESPONSE

OURS = bytes(range(32))
KEY = mac1_key(OURS)
NOISE_1 = bytes(range(116))
NOISE_2 = bytes(range(60))
NONCE = bytes(range(24))

head = st.sampled_from([INITIATION, RESPONSE, COOKIE]) | st.integers(0, 255)
length = st.sampled_from([INITIATION_BYTES, RESPONSE_BYTES, COOKIE_MESSAGE_BYTES]) | st.integers(0, 1400)


class LayoutTests(SynchronousTestCase):
    def test_initiation(self) -> None:
        message = build_initiation(0xABCDEF, NOISE_1, KEY)
        self.assertEqual(message[:4].hex(), "01abcdef")
        self.assertEqual(len(message), 1184)
        self.assertEqual(message[120:-32], bytes(1184 - 120 - 32))
        self.assertEqual(parse_initiation(message, KEY), (0xABCDEF, NOISE_1))
        self.assertRaises(AuthenticationError, parse_initiation, message, mac1_key(bytes(32)))

    def test_response(self) -> None:
        message = build_response(0x123456, NOISE_2, KEY)
        self.assertEqual(message[:4].hex(), "02123456")
        self.assertEqual(len(message), 96)
        self.assertEqual(parse_response(message, KEY), (0x123456, NOISE_2))
        self.assertRaises(AuthenticationError, parse_response, message, mac1_key(bytes(32)))

    def test_payloads(self) -> None:
        first = InitiationPayload(counter=2**64 - 1, incarnation=7)
        self.assertEqual(first.encode().hex(), "ffffffffffffffff" + "00000000" + "0000000000000007")
        self.assertEqual(InitiationPayload.decode(first.encode()), first)
        second = ResponsePayload(incarnation=7, sender_index=0xABCDEF)
        self.assertEqual(second.encode().hex(), "0000000000000007" + "00abcdef")
        self.assertEqual(ResponsePayload.decode(second.encode()), second)
        self.assertRaises(RemoteProtocolError, ResponsePayload.decode, b"\xff" * 12)

    def test_an_answer_is_shorter_than_what_it_answers(self) -> None:
        self.assertLess(max(RESPONSE_BYTES, COOKIE_MESSAGE_BYTES), INITIATION_BYTES)

    def test_macs(self) -> None:
        message = build_initiation(1, NOISE_1, KEY)
        cookie = b"c" * COOKIE_BYTES
        guarded = with_mac2(message, cookie)
        self.assertEqual(guarded[:-16], message[:-16])
        self.assertTrue(has_valid_mac1(guarded, KEY) and has_valid_mac2(guarded, cookie))
        self.assertFalse(has_valid_mac2(message, cookie))
        self.assertFalse(has_valid_mac2(guarded, bytes(COOKIE_BYTES)))


class CookieTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.initiation = build_initiation(5, NOISE_1, KEY)
        self.cookie = b"c" * COOKIE_BYTES
        self.message = build_cookie(self.initiation, self.cookie, OURS, NONCE)

    def test_it_opens_for_who_sent_the_initiation(self) -> None:
        self.assertEqual(self.message[:4].hex(), "03000005")
        self.assertEqual(len(self.message), COOKIE_MESSAGE_BYTES)
        self.assertNotIn(self.cookie, self.message)
        self.assertEqual(open_cookie(self.message, self.initiation, OURS), self.cookie)

    def test_it_opens_for_no_other_initiation_and_from_no_other_node(self) -> None:
        other = build_initiation(5, NOISE_1[::-1], KEY)
        self.assertRaises(AuthenticationError, open_cookie, self.message, other, OURS)
        other = build_initiation(6, NOISE_1, KEY)
        self.assertRaises(RemoteProtocolError, open_cookie, self.message, other, OURS)
        self.assertRaises(AuthenticationError, open_cookie, self.message, self.initiation, bytes(32))

    def test_every_bent_byte_and_every_length(self) -> None:
        for position in range(len(self.message)):
            bent = bytearray(self.message)
            bent[position] ^= 1
            self.assertRaises(RemoteProtocolError, open_cookie, bytes(bent), self.initiation, OURS)
            self.assertRaises(RemoteProtocolError, open_cookie, self.message[:position], self.initiation, OURS)


class AnyBytesTests(SynchronousTestCase):
    """Every parser of the handshake; the macs are made right for some, so that what is behind them is reached."""

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(head, length, st.randoms(use_true_random=False))
    def test_parsers(self, first: int, size: int, source: random.Random) -> None:
        data = bytes([first]) * (size > 0) + source.randbytes(max(0, size - 1))
        initiation = build_initiation(5, NOISE_1, KEY)
        for parse in (
            lambda: parse_initiation(data, KEY),
            lambda: parse_response(data, KEY),
            lambda: open_cookie(data, initiation, OURS),
        ):
            self.assertRaises(RemoteProtocolError, parse)

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.binary(min_size=116, max_size=116), st.binary(min_size=60, max_size=60), head, length)
    def test_association(self, noise_1: bytes, noise_2: bytes, first: int, size: int) -> None:
        pair = Pair()
        alice, bob = pair.ends
        alice.association.initiate(pair.now)
        (ours,) = alice.association.messages_to_send(pair.now)
        (index,) = alice.indices.lent
        refused = alice.undeliverable + bob.undeliverable
        bob.receive(build_initiation(index, noise_1, mac1_key(bob.keys[1])), pair.now)
        alice.receive(build_response(index, noise_2, mac1_key(alice.keys[1])), pair.now)
        for end in pair.ends:
            end.receive((bytes([first]) + noise_1 * 20)[:size], pair.now)
        self.assertEqual(alice.undeliverable + bob.undeliverable - refused, 4)
        self.assertEqual(alice.events + bob.events, [])
        bob.receive(ours, pair.now)
        pair.run(1.0)
        self.assertEqual([len(end.established) for end in pair.ends], [1, 1])
