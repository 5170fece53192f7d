"""Sealing: what one side seals opens at the other, and nothing else does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.sealing import ReceiveKey, SendKey
from seamless.errors import AuthenticationError
from seamless.wire import header

KEY = bytes(range(32))
INDEX = 0x123456


class SealingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.send = SendKey(KEY, INDEX)
        self.receive = ReceiveKey(KEY, INDEX)

    def test_layout(self) -> None:
        datagram = self.send.seal(header.DATA, 77, b"packet")
        self.assertEqual(header.SEALED_HEADER.unpack_from(datagram), (header.word(header.DATA, INDEX), 77))
        self.assertEqual(len(datagram), header.SEALED_HEADER_BYTES + len(b"packet") + header.TAG_BYTES)
        self.assertNotIn(b"packet", datagram)
        self.assertEqual(self.receive.open(datagram), b"packet")
        self.assertEqual(self.receive.open(memoryview(datagram)), b"packet")

    def test_the_bound_methods_say_the_same(self) -> None:
        datagram = self.send.seal(header.CONTROL, 1 << 40, b"frames")
        nonce, sealed = datagram[:12], datagram[12:]
        self.assertEqual(self.send.encrypt(nonce, b"frames", None), sealed)
        self.assertEqual(self.receive.decrypt(nonce, sealed, None), b"frames")

    def test_every_bent_byte_and_every_length(self) -> None:
        datagram = self.send.seal(header.DATA, 5, bytes(100))
        for position in range(len(datagram)):
            bent = bytearray(datagram)
            bent[position] ^= 1
            self.assertRaises(AuthenticationError, self.receive.open, bytes(bent))
            self.assertRaises(AuthenticationError, self.receive.open, datagram[:position])
        self.assertEqual(self.receive.open(datagram), bytes(100))
        self.assertEqual(self.receive.window.greatest, -1)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        self.assertRaises(AuthenticationError, self.receive.open, data)
