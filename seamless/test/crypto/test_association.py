"""Two associations and a wire: keys come, are renewed without loss, expire, and survive whatever else arrives."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.association import (
    ANSWER_INTERVAL,
    MAX_RESPONSES_TRIED,
    REJECT_AFTER_DATAGRAMS,
    REKEY_AFTER_DATAGRAMS,
    REKEY_AFTER_SECONDS,
    STEP_IN_AFTER_SECONDS,
    KeysEstablished,
    KeysExpired,
)
from seamless.crypto.keyring import MAX_NEXT, REJECT_AFTER_SECONDS
from seamless.crypto.messages import (
    build_response,
    mac1_key,
    parse_response,
)
from seamless.errors import LocalProtocolError, RemoteProtocolError
from seamless.test.crypto.pair import CONTROL, End, Pair, Wire
from seamless.wire.header import INITIATION, RESPONSE


def swallow_handshakes(datagram: bytes) -> bool:
    return datagram[0] != CONTROL


def swallow_all(datagram: bytes) -> bool:
    return True


def established_pair(seed: int = 0, initiator: int = 0) -> Pair:
    """Return a pair in which one end opened the association and both have spoken."""
    pair = Pair(seed)
    pair.ends[initiator].association.initiate(pair.now)
    pair.run(1.0)
    return pair


class EstablishTests(SynchronousTestCase):
    def test_one_round_trip(self) -> None:
        pair = Pair()
        start = pair.now
        pair.alice.association.initiate(start)
        pair.run(0.0201)
        self.assertEqual(pair.alice.events, [KeysEstablished(pair.bob.incarnation, True)])
        self.assertEqual(pair.bob.events, [])
        pair.run(1.0)
        self.assertEqual(pair.bob.events, [KeysEstablished(pair.alice.incarnation, False)])
        self.assertEqual((pair.alice.received, pair.bob.received), ([b"hello"], [b"hello"]))
        self.assertEqual([len(end.indices.lent) for end in pair.ends], [1, 1])
        self.assertEqual([datagram[0] for datagram in pair.sent], [INITIATION, RESPONSE, CONTROL, CONTROL])

    def test_the_responder_sends_nothing_before_the_initiator_has(self) -> None:
        pair = Pair()
        pair.alice.association.initiate(pair.now)
        pair.wires[0].swallows = lambda datagram: datagram[0] == CONTROL
        pair.run(60.0)
        self.assertEqual(pair.wires[0].lost, 1)
        self.assertIsNotNone(pair.alice.association.send_key)
        self.assertIsNone(pair.bob.send(b"too soon", pair.now))
        pair.wires[0].swallows = lambda datagram: False
        pair.alice.send(b"now", pair.now)
        pair.run(0.1)
        self.assertIsNotNone(pair.bob.send(b"in time", pair.now))

    def test_initiating_is_idle_while_under_way_and_while_keys_are_fresh(self) -> None:
        pair = Pair()
        for _ in range(3):
            pair.alice.association.initiate(pair.now)
        pair.run(1.0)
        for end in pair.ends:
            end.association.initiate(pair.now)
        pair.run(3.0)
        self.assertEqual(pair.alice.association.counters.initiations_sent, 1)
        self.assertEqual(pair.bob.association.counters.initiations_sent, 0)
        pair.run(2.0)
        pair.bob.association.initiate(pair.now)
        pair.run(1.0)
        self.assertEqual([end.association.counters.established for end in pair.ends], [2, 2])

    def test_retries_grow_rare_and_never_end(self) -> None:
        pair = Pair()
        pair.wires[0].swallows = swallow_all
        sent_at: list[float] = []

        def note() -> None:
            if pair.alice.association.counters.initiations_sent > len(sent_at):
                sent_at.append(pair.now)

        pair.alice.association.initiate(pair.now)
        note()
        pair.run(300.0, note)
        gaps = [after - before for before, after in itertools.pairwise(sent_at)]
        for gap, least in zip(gaps, [0.25, 0.5] + [0.75] * 7 + [1.5, 3] + [5] * 60):
            self.assertTrue(least <= gap <= least * 1.25, (gap, least))
        self.assertGreater(len(gaps), 50)
        self.assertEqual(pair.wires[0].lost, len(sent_at))
        self.assertEqual(len(pair.alice.indices.lent), 1)
        pair.wires[0].swallows = lambda datagram: False
        pair.run(6.3)
        self.assertEqual(len(pair.alice.established), 1)

    def test_a_long_path(self) -> None:
        """The first answers come after their attempts were given up; the interval soon exceeds the round trip."""
        pair = Pair(wire=lambda: Wire(latency=1.5))
        pair.alice.association.initiate(pair.now)
        pair.run(20.0)
        self.assertEqual([len(end.established) for end in pair.ends], [1, 1])
        self.assertGreater(pair.alice.association.counters.unexpected, 0)

    def test_close_gives_all_indices_back(self) -> None:
        pair = established_pair()
        pair.run(5.0)
        pair.alice.association.initiate(pair.now)
        self.assertEqual(len(pair.alice.indices.lent), 2)
        pair.alice.association.close()
        self.assertEqual(pair.alice.indices.lent, set())
        self.assertEqual(pair.alice.association.messages_to_send(pair.now), [])
        self.assertIsNone(pair.alice.association.send_key)
        self.assertIsNone(pair.alice.association.next_timeout())


class RenewalTests(SynchronousTestCase):
    def exchange(self, pair: Pair, seconds: float, interval: float = 0.05) -> int:
        """Let both send something every ``interval``; return how many each sent."""
        rounds = int(seconds / interval)
        for number in range(rounds):
            for end in pair.ends:
                self.assertIsNotNone(end.send(b"%d" % number, pair.now))
            pair.run(interval)
            self.assertTrue(pair.everybody_can_be_understood())
        return rounds

    def test_by_age_without_a_loss(self) -> None:
        for initiator in (0, 1):
            pair = established_pair(initiator, initiator)
            for wire in pair.wires:
                wire.jitter = 0.2
            before = [len(end.received) for end in pair.ends]
            count = self.exchange(pair, 4.5 * REKEY_AFTER_SECONDS)
            for wire in pair.wires:
                wire.jitter = 0.0
            pair.run(1.0)
            for end, had in zip(pair.ends, before):
                hellos = len(end.established) - 1
                self.assertEqual(len(end.received) - had, count + hellos)
                self.assertEqual(len(end.established), 5)
                self.assertEqual({event.initiator for event in end.established}, {end is pair.ends[initiator]})
                self.assertLessEqual(len(end.indices.lent), 2)

    def test_by_volume_from_either_side(self) -> None:
        for which in (0, 1):
            pair = established_pair(which)
            end = pair.ends[which]
            end.association.sent(REKEY_AFTER_DATAGRAMS - 2, pair.now)
            pair.run(1.0)
            self.assertEqual(len(end.established), 1)
            end.send(b"one more", pair.now)
            pair.run(1.0)
            self.assertEqual([len(each.established) for each in pair.ends], [2, 2])
            self.assertTrue(end.established[-1].initiator)
            self.assertIsNotNone(end.association.send_key)

    def test_a_key_is_never_used_up(self) -> None:
        pair = established_pair()
        pair.wires[0].swallows = swallow_handshakes
        pair.alice.association.sent(REJECT_AFTER_DATAGRAMS, pair.now)
        pair.run(10.0)
        self.assertIsNone(pair.alice.association.send_key)
        self.assertEqual(pair.alice.events[1:], [KeysExpired()])
        self.assertGreater(pair.wires[0].lost, 3)
        pair.wires[0].swallows = lambda datagram: False
        pair.run(7.0)
        self.assertEqual(len(pair.alice.established), 2)
        self.assertIsNotNone(pair.alice.association.send_key)

    def test_the_responder_steps_in(self) -> None:
        pair = established_pair()
        pair.wires[0].swallows = lambda datagram: datagram[0] == INITIATION
        self.exchange(pair, REKEY_AFTER_SECONDS + 2.0)
        self.assertGreater(pair.wires[0].lost, 2)
        self.assertEqual(len(pair.bob.established), 1)
        self.exchange(pair, STEP_IN_AFTER_SECONDS - REKEY_AFTER_SECONDS)
        self.assertEqual([event.initiator for event in pair.bob.established], [False, True])

    def test_a_failing_handshake_leaves_the_keys_alone(self) -> None:
        pair = established_pair()
        self.exchange(pair, REKEY_AFTER_SECONDS - 5.0)
        for wire in pair.wires:
            wire.swallows = swallow_handshakes
        self.exchange(pair, 55.0)
        self.assertGreater(pair.wires[0].lost + pair.wires[1].lost, 10)
        self.assertEqual([len(end.established) for end in pair.ends], [1, 1])
        for wire in pair.wires:
            wire.swallows = lambda datagram: False
        self.exchange(pair, 7.0)
        self.assertEqual([len(end.established) for end in pair.ends], [2, 2])

    def test_a_black_hole_of_a_minute_costs_no_handshake(self) -> None:
        pair = established_pair()
        for wire in pair.wires:
            wire.swallows = swallow_all
        for _ in range(600):
            for end in pair.ends:
                end.send(b"lost", pair.now)
            pair.run(0.1)
        self.assertGreater(pair.wires[0].lost, 500)
        self.assertEqual(sum(end.association.counters.initiations_sent for end in pair.ends), 1)
        pair.converse()
        self.assertEqual((pair.alice.received[-1], pair.bob.received[-1]), (b"from bob", b"from alice"))
        self.assertEqual(sum(end.association.counters.initiations_sent for end in pair.ends), 1)

    def test_expiry_and_return(self) -> None:
        pair = established_pair()
        old = pair.alice.association.send_key
        assert old is not None
        for wire in pair.wires:
            wire.swallows = swallow_all
        pair.run(REJECT_AFTER_SECONDS)
        for end in pair.ends:
            self.assertEqual(end.events[1:], [KeysExpired()])
            self.assertIsNone(end.association.send_key)
            self.assertLessEqual(len(end.indices.lent), 1)
        self.assertIsNone(pair.bob.association.receive_key(old.remote_index))
        for wire in pair.wires:
            wire.swallows = lambda datagram: False
        pair.run(7.0)
        self.assertEqual([len(end.established) for end in pair.ends], [2, 2])


class RestartTests(SynchronousTestCase):
    def test_either_end_calls(self) -> None:
        for caller in (0, 1):
            pair = established_pair()
            survivor = pair.alice
            pair.run(6.0)
            newcomer = pair.restart(1)
            old_indices = set(survivor.indices.lent)
            pair.ends[caller].association.initiate(pair.now)
            pair.run(1.0)
            self.assertEqual(survivor.established[-1].remote_incarnation, newcomer.incarnation)
            self.assertEqual(newcomer.established[-1].remote_incarnation, survivor.incarnation)
            for index in old_indices:
                self.assertIsNone(survivor.association.receive_key(index))
            self.assertEqual(old_indices & survivor.indices.lent, set())
            pair.converse()
            self.assertEqual((survivor.received[-1], newcomer.received[-1]), (b"from bob", b"from alice"))

    def test_a_recording_replayed_to_a_new_process(self) -> None:
        """It answers what it cannot know to be old, and that is all: no keys, no events, nothing delivered."""
        pair = established_pair()
        pair.run(2 * REKEY_AFTER_SECONDS)
        recording = list(pair.sent)
        newcomer = pair.restart(1)
        for datagram in recording:
            pair.now += ANSWER_INTERVAL
            newcomer.receive(datagram, pair.now)
        self.assertEqual((newcomer.events, newcomer.received), ([], []))
        self.assertIsNone(newcomer.association.send_key)
        self.assertEqual(newcomer.association.counters.responses_sent, 3)
        self.assertEqual(len(newcomer.indices.lent), MAX_NEXT)


class ReplayAndForgeryTests(SynchronousTestCase):
    def state(self, end: End) -> tuple[object, ...]:
        return (end.association.send_key, frozenset(end.indices.lent), len(end.events), list(end.received), end.outbox)

    def test_a_recording_replayed_to_those_who_made_it(self) -> None:
        pair = established_pair()
        pair.run(2.5 * REKEY_AFTER_SECONDS)
        before = [self.state(end) for end in pair.ends]
        for datagram in list(pair.sent):
            for end in pair.ends:
                end.receive(datagram, pair.now)
        self.assertEqual([self.state(end) for end in pair.ends], before)
        self.assertEqual([end.association.messages_to_send(pair.now) for end in pair.ends], [[], []])
        self.assertGreater(pair.bob.association.counters.replayed_initiations, 1)
        self.assertGreater(pair.alice.association.counters.unexpected, 1)

    def test_an_initiation_comes_too_soon_after_another(self) -> None:
        pair = established_pair()
        pair.run(6.0)
        pair.wires[0].swallows = pair.wires[1].swallows = swallow_all
        pair.alice.association.initiate(pair.now)
        first = pair.alice.association.messages_to_send(pair.now)[0]
        pair.run(0.4)
        second = pair.sent[-1]
        pair.bob.receive(first, pair.now)
        pair.bob.receive(second, pair.now + ANSWER_INTERVAL / 2)
        self.assertEqual(pair.bob.association.counters.responses_sent, 2)
        self.assertEqual(pair.bob.association.counters.too_frequent_initiations, 1)

    def test_an_initiation_given_to_the_wrong_association(self) -> None:
        pair, other = Pair(1), Pair(2)
        pair.alice.association.initiate(pair.now)
        opened = pair.bob.reader.open(pair.alice.association.messages_to_send(pair.now)[0])
        self.assertRaises(LocalProtocolError, other.bob.association.receive_initiation, opened, pair.now)

    def test_every_bent_byte_and_every_length_of_an_initiation(self) -> None:
        pair = Pair()
        pair.alice.association.initiate(pair.now)
        (message,) = pair.alice.association.messages_to_send(pair.now)
        before = self.state(pair.bob)
        self.bend_and_cut(message[:-16], pair.bob, pair.now, message[-16:])
        self.assertEqual(self.state(pair.bob), before)
        self.assertEqual(pair.bob.association.counters.responses_sent, 0)
        pair.bob.receive(message, pair.now)
        self.assertEqual(pair.bob.association.counters.responses_sent, 1)

    def test_every_bent_byte_and_every_length_of_a_response(self) -> None:
        pair = Pair()
        pair.alice.association.initiate(pair.now)
        pair.bob.receive(pair.alice.association.messages_to_send(pair.now)[0], pair.now)
        (message,) = pair.bob.association.messages_to_send(pair.now)
        before = self.state(pair.alice)
        self.bend_and_cut(message, pair.alice, pair.now)
        self.assertEqual(self.state(pair.alice), before)
        pair.alice.receive(message, pair.now)
        self.assertEqual(len(pair.alice.established), 1)

    def bend_and_cut(self, message: bytes, end: End, now: float, rest: bytes = b"") -> None:
        refused = end.undeliverable
        for position in range(len(message)):
            bent = bytearray(message)
            bent[position] ^= 1
            end.receive(bytes(bent) + rest, now)
            end.receive(message[:position], now)
        self.assertEqual(end.undeliverable - refused, 2 * len(message))

    def test_responses_that_know_all_but_the_secret(self) -> None:
        """An observer can make the macs right. That costs us few public-key operations, and no keys."""
        pair = established_pair()
        pair.run(6.0)
        pair.alice.association.initiate(pair.now)
        pair.bob.receive(pair.alice.association.messages_to_send(pair.now)[0], pair.now)
        (message,) = pair.bob.association.messages_to_send(pair.now)
        index, noise_message = parse_response(message, mac1_key(pair.alice.keys[1]))
        forged = build_response(index, noise_message[:-1] + b"\0", mac1_key(pair.alice.keys[1]))
        working = pair.alice.association.send_key
        for _ in range(100):
            self.assertRaises(RemoteProtocolError, pair.alice.association.receive_response, forged, pair.now)
        self.assertEqual(pair.alice.association.counters.failed_authentication, MAX_RESPONSES_TRIED)
        self.assertIs(pair.alice.association.send_key, working)
        pair.run(1.0)
        self.assertEqual(len(pair.alice.established), 2)
