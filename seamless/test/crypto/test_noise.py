"""Noise IK against the published vectors, against a second implementation, and against every bent byte."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from noise.connection import Keypair, NoiseConnection
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.noise import PROTOCOL_NAME, Initiator, Responder, public_key_of, shared_secret
from seamless.errors import AuthenticationError

VECTOR = json.loads(Path(__file__).with_name("cacophony_ik_25519_aesgcm_blake2s.json").read_text())

SMALL_ORDER_KEYS = [
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]
"""https://cr.yp.to/ecdh.html#validate: the points of small order, as bytes below 2**255."""


class Side:
    """A static key pair."""

    def __init__(self, private_key: bytes) -> None:
        self.private_key = private_key
        self.key = X25519PrivateKey.from_private_bytes(private_key)
        self.public_key = public_key_of(self.key)


def initiator_for(side: Side, remote: Side, prologue: bytes = b"p") -> Initiator:
    return Initiator(side.key, remote.public_key, prologue, shared_secret(side.key, remote.public_key))


def transport_message(key: bytes, number: int, payload: bytes) -> bytes:
    """Noise's own way to seal transport messages, which the vectors go on with."""
    return AESGCM(key).encrypt(bytes(4) + number.to_bytes(8, "big"), payload, b"")


class VectorTests(SynchronousTestCase):
    def test_cacophony(self) -> None:
        self.assertEqual(VECTOR["name"].encode(), PROTOCOL_NAME)
        fields = {name: bytes.fromhex(value) for name, value in VECTOR.items() if name.startswith(("init_", "resp_"))}
        messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in VECTOR["messages"]]
        alice, bob = Side(fields["init_static"]), Side(fields["resp_static"])
        self.assertEqual(bob.public_key, fields["init_remote_static"])

        initiator = initiator_for(alice, bob, fields["init_prologue"])
        responder = Responder(bob.key, bob.public_key, fields["resp_prologue"])
        first = initiator.write_message(alice.public_key, messages[0][0], lambda count: fields["init_ephemeral"])
        self.assertEqual(first, messages[0][1])
        self.assertEqual(
            responder.read_message(first, lambda public_key: shared_secret(bob.key, public_key)),
            (alice.public_key, messages[0][0]),
        )
        second, bob_sends, bob_receives = responder.write_message(
            messages[1][0], lambda count: fields["resp_ephemeral"]
        )
        self.assertEqual(second, messages[1][1])
        payload, alice_sends, alice_receives = initiator.read_message(second)
        self.assertEqual(payload, messages[1][0])

        self.assertEqual((alice_sends, alice_receives), (bob_receives, bob_sends))
        self.assertEqual(len(messages[2:]), 4)
        for position, (payload, ciphertext) in enumerate(messages[2:]):
            key = alice_sends if position % 2 == 0 else bob_sends
            self.assertEqual(transport_message(key, position // 2, payload), ciphertext)


class SecondImplementationTests(SynchronousTestCase):
    """Fifty seeded handshakes with the `noiseprotocol` package on either side."""

    def setUp(self) -> None:
        self.random = random.Random(7)

    def connection(self, side: Side, prologue: bytes) -> NoiseConnection:
        connection = NoiseConnection.from_name(PROTOCOL_NAME)
        connection.set_prologue(prologue)
        connection.set_keypair_from_private_bytes(Keypair.STATIC, side.private_key)
        return connection

    def test_we_initiate(self) -> None:
        for _ in range(25):
            alice, bob = Side(self.random.randbytes(32)), Side(self.random.randbytes(32))
            prologue, payloads = self.random.randbytes(9), [self.random.randbytes(n) for n in (0, 20, 100)]
            theirs = self.connection(bob, prologue)
            theirs.set_as_responder()
            theirs.start_handshake()
            ours = initiator_for(alice, bob, prologue)

            message = ours.write_message(alice.public_key, payloads[1], self.random.randbytes)
            self.assertEqual(theirs.read_message(message), payloads[1])
            payload, send, receive = ours.read_message(bytes(theirs.write_message(payloads[0])))
            self.assertEqual(payload, payloads[0])
            self.assertEqual(theirs.decrypt(transport_message(send, 0, payloads[2])), payloads[2])
            self.assertEqual(theirs.encrypt(payloads[2]), transport_message(receive, 0, payloads[2]))

    def test_they_initiate(self) -> None:
        for _ in range(25):
            alice, bob = Side(self.random.randbytes(32)), Side(self.random.randbytes(32))
            prologue, payloads = self.random.randbytes(9), [self.random.randbytes(n) for n in (0, 20, 100)]
            theirs = self.connection(alice, prologue)
            theirs.set_as_initiator()
            theirs.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, bob.public_key)
            theirs.start_handshake()
            ours = Responder(bob.key, bob.public_key, prologue)

            message = bytes(theirs.write_message(payloads[1]))
            self.assertEqual(
                ours.read_message(message, functools.partial(shared_secret, bob.key)), (alice.public_key, payloads[1])
            )
            message, send, receive = ours.write_message(payloads[0], self.random.randbytes)
            self.assertEqual(theirs.read_message(message), payloads[0])
            self.assertEqual(theirs.decrypt(transport_message(send, 0, payloads[2])), payloads[2])
            self.assertEqual(theirs.encrypt(payloads[2]), transport_message(receive, 0, payloads[2]))


class ForgeryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.random = random.Random(11)
        self.alice, self.bob, self.eve = (Side(self.random.randbytes(32)) for _ in range(3))
        self.initiator = initiator_for(self.alice, self.bob)
        self.responder = Responder(self.bob.key, self.bob.public_key, b"p")
        self.first = self.initiator.write_message(self.alice.public_key, b"hello", self.random.randbytes)

    def read_first(self, message: bytes, responder: Responder | None = None) -> tuple[bytes, bytes]:
        return (responder or self.responder).read_message(message, lambda key: shared_secret(self.bob.key, key))

    def test_every_bent_byte_and_every_length_of_message_1(self) -> None:
        for position in range(len(self.first)):
            bent = bytearray(self.first)
            bent[position] ^= 0x40
            self.assertRaises(AuthenticationError, self.read_first, bytes(bent))
            self.assertRaises(AuthenticationError, self.read_first, self.first[:position])
        self.assertEqual(self.read_first(self.first), (self.alice.public_key, b"hello"))

    def test_every_bent_byte_and_every_length_of_message_2(self) -> None:
        self.read_first(self.first)
        second, send, receive = self.responder.write_message(b"welcome", self.random.randbytes)
        for position in range(len(second)):
            bent = bytearray(second)
            bent[position] ^= 0x40
            self.assertRaises(AuthenticationError, self.initiator.read_message, bytes(bent))
            self.assertRaises(AuthenticationError, self.initiator.read_message, second[:position])
        self.assertEqual(self.initiator.read_message(second), (b"welcome", receive, send))

    def test_another_prologue_or_another_responder(self) -> None:
        for responder in (
            Responder(self.bob.key, self.bob.public_key, b"q"),
            Responder(self.eve.key, self.eve.public_key, b"p"),
        ):
            self.assertRaises(AuthenticationError, self.read_first, self.first, responder)

    def test_an_initiator_who_only_claims_a_public_key(self) -> None:
        forger = Initiator(self.eve.key, self.bob.public_key, b"p", shared_secret(self.eve.key, self.bob.public_key))
        message = forger.write_message(self.alice.public_key, b"hello", self.random.randbytes)
        self.assertRaises(AuthenticationError, self.read_first, message)

    def test_points_of_small_order_are_refused(self) -> None:
        for key in SMALL_ORDER_KEYS:
            self.assertRaises(AuthenticationError, shared_secret, self.alice.key, key)
            self.assertRaises(AuthenticationError, self.read_first, key + self.first[32:])
