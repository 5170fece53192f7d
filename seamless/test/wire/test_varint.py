"""Variable-length integers: the examples of RFC 9000, every length, and no bytes that raise anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.wire.varint import MAX_VARINT, decode_varint, encode_varint


class VarintTests(SynchronousTestCase):
    """Encoding and decoding."""

    def test_examples_of_the_specification(self) -> None:
        """RFC 9000, appendix A.1."""
        for data, value in [
            ("c2197c5eff14e88c", 151288809941952652),
            ("9d7f3e7d", 494878333),
            ("7bbd", 15293),
            ("25", 37),
        ]:
            self.assertEqual(decode_varint(bytes.fromhex(data), 0), (value, len(data) // 2))
            self.assertEqual(encode_varint(value).hex(), data)

    def test_longer_than_necessary(self) -> None:
        """Two bytes for 37 are allowed."""
        self.assertEqual(decode_varint(bytes.fromhex("4025"), 0), (37, 2))

    @settings(derandomize=True)
    @given(st.one_of(st.integers(0, MAX_VARINT), st.sampled_from([63, 64, 16383, 16384, 2**30 - 1, 2**30, MAX_VARINT])))
    def test_round_trip(self, value: int) -> None:
        data = encode_varint(value)
        self.assertEqual(decode_varint(b"?" + data + b"rest", 1), (value, 1 + len(data)))
        for length in range(len(data)):
            self.assertRaises(RemoteProtocolError, decode_varint, data[:length], 0)
