"""The gate: strangers cost little, get little, and neighbors get in."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto import gate as gates
from seamless.crypto.gate import Admitted, Answer, Dropped, DropReason, HandshakeGate
from seamless.crypto.initiation import InitiationReader, UnknownKeyError
from seamless.crypto.messages import (
    COOKIE_MESSAGE_BYTES,
    INITIATION_BYTES,
    SESSION_PROLOGUE,
    build_initiation,
    has_valid_mac1,
    mac1_key,
    open_cookie,
    with_mac2,
)
from seamless.errors import AuthenticationError
from seamless.interfaces import Address
from seamless.test.crypto.pair import End, Pair, key_pair

SOURCE = ("192.0.2.1", 7400)


class GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.random = random.Random(1)
        self.now = 50.0
        self.ours = key_pair(self.random)
        self.caller = self.new_caller()
        self.gate = HandshakeGate(
            private_key=self.ours[0],
            public_key=self.ours[1],
            known_keys=[self.caller.keys[1]],
            random=self.random.randbytes,
            now=self.now,
        )

    def new_caller(self) -> End:
        return End(self.random, key_pair(self.random), self.ours[1], 10**18)

    def initiation(self, caller: End | None = None) -> bytes:
        """Return an initiation without a cookie."""
        caller = caller or self.caller
        caller.association.initiate(self.now)
        return caller.association.messages_to_send(self.now)[0]

    def cookie_for(self, initiation: bytes, source: Address = SOURCE) -> bytes:
        answer = self.gate.admit(initiation, source, self.now)
        assert isinstance(answer, Answer), answer
        return open_cookie(answer.datagram, initiation, self.ours[1])

    def assert_dropped(self, datagram: bytes, reason: DropReason, source: Address = SOURCE) -> None:
        before = self.gate.dropped[reason]
        self.assertEqual(self.gate.admit(datagram, source, self.now), Dropped(reason))
        self.assertEqual(self.gate.dropped[reason], before + 1)

    def test_the_first_gets_a_cookie_and_the_second_gets_in(self) -> None:
        initiation = self.initiation()
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Admitted)
        opened = self.gate.open_initiation(guarded)
        self.assertEqual(opened.remote_public_key, self.caller.keys[1])
        self.assertEqual((self.gate.answered, self.gate.admitted, self.gate.dropped.total()), (1, 1, 0))

    def test_a_cookie_is_for_one_address_and_port_and_for_some_time(self) -> None:
        initiation = self.initiation()
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        for source in (("192.0.2.2", 7400), ("192.0.2.1", 7401), ("2001:db8::1", 7400)):
            self.assertIsInstance(self.gate.admit(guarded, source, self.now), Answer)
        self.now += gates.SECRET_INTERVAL - 0.1
        self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Admitted)
        self.now += 0.1
        self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Answer)

    def test_no_answer_to_those_who_do_not_know_our_key(self) -> None:
        forged = build_initiation(1, bytes(116), mac1_key(bytes(32)))
        self.assert_dropped(forged, DropReason.WRONG_MAC1)
        self.assert_dropped(forged[:-16] + b"x" * 16, DropReason.WRONG_MAC1)

    def test_every_bent_byte_and_every_length(self) -> None:
        """A mac2 that is bent is a mac2 that is not ours, and gets a cookie; anything else gets silence."""
        initiation = self.initiation()
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        for position in range(INITIATION_BYTES):
            bent = bytearray(guarded)
            bent[position] ^= 1
            if position < INITIATION_BYTES - 16:
                reason = DropReason.WRONG_MAC1 if position else DropReason.NOT_AN_INITIATION
                self.assert_dropped(bytes(bent), reason)
            else:
                self.assertIsInstance(self.gate.admit(bytes(bent), SOURCE, self.now), Answer)
            self.assert_dropped(guarded[:position], DropReason.NOT_AN_INITIATION)
        self.assert_dropped(guarded + b"x", DropReason.NOT_AN_INITIATION)
        self.assertEqual(self.gate.admitted, 0)

    def test_unknown_keys_and_forgeries_end_when_opened(self) -> None:
        initiation = self.initiation(self.new_caller())
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Admitted)
        self.assertRaises(UnknownKeyError, self.gate.open_initiation, guarded)
        forged = build_initiation(1, bytes(range(116)), mac1_key(self.ours[1]))
        self.assertRaises(AuthenticationError, self.gate.open_initiation, forged)
        self.assertEqual(self.gate.dropped[DropReason.UNKNOWN_KEY], 1)
        self.assertEqual(self.gate.dropped[DropReason.NOT_AUTHENTIC], 1)

    def test_an_initiation_for_a_session_is_nothing_to_a_link(self) -> None:
        initiation = self.initiation()
        reader = InitiationReader(*self.ours, [self.caller.keys[1]], SESSION_PROLOGUE)
        self.assertRaises(AuthenticationError, reader.open, initiation)
        self.assertEqual(self.gate.open_initiation(initiation).remote_public_key, self.caller.keys[1])

    def test_one_host_gets_no_more_than_its_share(self) -> None:
        initiation = self.initiation()
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        burst = int(gates.SOURCE_OPENINGS_PER_SECOND * gates.BURST_SECONDS)
        for _ in range(burst):
            self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Admitted)
        self.assert_dropped(guarded, DropReason.TOO_MANY_FROM_SOURCE)
        other = ("192.0.2.9", 7400)
        guarded_other = with_mac2(initiation, self.cookie_for(initiation, other))
        self.assertIsInstance(self.gate.admit(guarded_other, other, self.now), Admitted)
        self.now += 1.0
        for _ in range(int(gates.SOURCE_OPENINGS_PER_SECOND)):
            self.assertIsInstance(self.gate.admit(guarded, SOURCE, self.now), Admitted)
        self.assert_dropped(guarded, DropReason.TOO_MANY_FROM_SOURCE)

    def test_many_hosts_get_no_more_than_there_is(self) -> None:
        self.patch(gates, "MAX_SOURCES", 100)
        self.setUp()  # a gate is made with its limit
        initiation = self.initiation()
        for number in range(int(gates.OPENINGS_PER_SECOND * gates.BURST_SECONDS)):
            source = (f"198.51.{number >> 8}.{number & 255}", 7400)
            guarded = with_mac2(initiation, self.cookie_for(initiation, source))
            self.assertIsInstance(self.gate.admit(guarded, source, self.now), Admitted)
        guarded = with_mac2(initiation, self.cookie_for(initiation))
        self.assert_dropped(guarded, DropReason.TOO_MANY)
        self.assertEqual(self.gate.sources, 100)

    def test_a_flood(self) -> None:
        """Twenty thousand a second from made-up addresses: bounded answers, and hardly ever a hash."""
        flood = [self.initiation()] * 4 + [build_initiation(1, bytes(116), mac1_key(bytes(32)))]
        received = answered = checked = 0

        def counting(datagram: bytes, key: bytes) -> bool:
            nonlocal checked
            checked += 1
            return has_valid_mac1(datagram, key)

        self.patch(gates, "has_valid_mac1", counting)
        for number in range(40_000):
            datagram = flood[number % len(flood)]
            admission = self.gate.admit(datagram, (f"10.{number & 255}.0.1", number), self.now + number / 20_000)
            received += len(datagram)
            answered += len(admission.datagram) if isinstance(admission, Answer) else 0
        # One datagram in five has a wrong mac1, and is checked in vain as long as there are answers to give.
        self.assertLess(checked, 2 * self.gate.answered)
        self.assertGreaterEqual(checked, self.gate.answered)
        self.assertLessEqual(self.gate.answered, (2.0 + gates.BURST_SECONDS) * gates.ANSWERS_PER_SECOND)
        self.assertEqual(answered, self.gate.answered * COOKIE_MESSAGE_BYTES)
        self.assertLess(answered * 20, received)
        self.assertGreater(self.gate.dropped[DropReason.TOO_MANY_ANSWERS], 20_000)
        self.assertEqual((self.gate.sources, self.gate.admitted), (0, 0))


class PairBehindGatesTests(SynchronousTestCase):
    def test_a_start_takes_two_round_trips_and_a_renewal_disturbs_nobody(self) -> None:
        pair = Pair(gates=True)
        assert pair.bob.gate is not None
        pair.alice.association.initiate(pair.now)
        pair.run(0.0401)
        self.assertEqual(len(pair.alice.established), 1)
        self.assertEqual((pair.bob.gate.answered, pair.bob.gate.admitted), (1, 1))
        pair.run(0.1)
        for number in range(6000):
            for end in pair.ends:
                end.send(b"%d" % number, pair.now)
            pair.run(0.05)
        self.assertEqual([len(end.established) for end in pair.ends], [3, 3])
        self.assertEqual([len(end.received) for end in pair.ends], [6003, 6003])
        self.assertEqual((pair.bob.gate.answered, pair.bob.gate.admitted), (3, 3))

    def test_a_recording_replayed_to_a_new_process(self) -> None:
        """Its cookies are made under another secret, so the recording gets cookies, and nothing is opened."""
        pair = Pair(gates=True)
        pair.alice.association.initiate(pair.now)
        pair.run(250.0)
        newcomer = pair.restart(1)
        newcomer.stand_behind_gate(pair.now)
        assert newcomer.gate is not None
        for datagram in list(pair.sent):
            newcomer.receive(datagram, pair.now)
        self.assertGreater(newcomer.gate.answered, 2)
        self.assertEqual(newcomer.gate.admitted, 0)
        self.assertEqual((newcomer.events, newcomer.received, newcomer.indices.lent), ([], [], set()))

    def test_cookies_that_come_again_and_again(self) -> None:
        pair = Pair(gates=True)
        pair.alice.association.initiate(pair.now)
        pair.wires[0].swallows = lambda datagram: datagram[-16:] != bytes(16)
        pair.run(0.2)
        cookie = next(datagram for datagram in pair.sent if datagram[0] == 3)
        sent = pair.alice.association.counters.initiations_sent
        self.assertEqual(sent, 2)
        for _ in range(50):
            pair.alice.receive(cookie, pair.now)
        self.assertEqual(pair.alice.association.counters.initiations_sent, sent)
        self.assertEqual(pair.alice.association.counters.cookies_received, 51)
