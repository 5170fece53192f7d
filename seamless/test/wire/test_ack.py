"""ACK bodies: what is encoded comes back, and no bytes raise anything but `RemoteProtocolError`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.wire.ack import MAX_ACK_RANGES, decode_ack, encode_ack
from seamless.wire.ranges import RangeSet
from seamless.wire.varint import MAX_VARINT, encode_varint


def range_set(numbers: set[int]) -> RangeSet:
    """Return these numbers as ranges."""
    ranges = RangeSet()
    for number in sorted(numbers):
        ranges.add(number, number)
    return ranges


class AckTests(SynchronousTestCase):
    """Encoding and decoding."""

    def test_bytes_of_the_specification(self) -> None:
        """Largest, delay, count, first range, then gap and length downwards (RFC 9000, 19.3.1)."""
        body = encode_ack(range_set({0, 1, 2, 5, 9, 10}), 0.000_025)
        self.assertEqual(body, bytes([10, 25, 2, 1, 2, 0, 1, 2]))

    @settings(derandomize=True, max_examples=200)
    @given(st.sets(st.integers(0, 2000), min_size=1, max_size=300), st.floats(0, 10))
    def test_round_trip(self, numbers: set[int], delay: float) -> None:
        """The newest ranges come back, from the newest down, and the delay to the microsecond."""
        ranges = range_set(numbers)
        body = encode_ack(ranges, delay)
        ack, end = decode_ack(b"xx" + body + b"rest", 2)
        self.assertEqual(end, 2 + len(body))
        self.assertEqual(ack.ranges, list(reversed(list(ranges)))[:MAX_ACK_RANGES])
        self.assertEqual(ack.largest, max(numbers))
        self.assertLess(abs(ack.delay - delay), 1.1e-6)

    def test_oldest_ranges_are_left_out(self) -> None:
        """A receiver with a thousand gaps tells of the newest 256 ranges."""
        ack, _ = decode_ack(encode_ack(range_set(set(range(0, 2000, 2))), 0), 0)
        self.assertEqual(len(ack.ranges), MAX_ACK_RANGES)
        self.assertEqual(ack.ranges[0], (1998, 1998))
        self.assertEqual(ack.ranges[-1], (2000 - 2 * MAX_ACK_RANGES,) * 2)

    def test_cut_short(self) -> None:
        """Every proper prefix is refused."""
        body = encode_ack(range_set({1, 5, 70_000}), 1.0)
        for length in range(len(body)):
            self.assertRaises(RemoteProtocolError, decode_ack, body[:length], 0)

    def test_nonsense(self) -> None:
        """A range below 0, and more ranges than an ACK may have, are refused."""
        for fields in [(3, 0, 0, 4), (3, 0, 1, 0, 1, 1), (0, 0, 0, MAX_VARINT)]:
            body = b"".join(map(encode_varint, fields))
            self.assertRaises(RemoteProtocolError, decode_ack, body, 0)
        many = b"".join(map(encode_varint, (100_000, 0, MAX_ACK_RANGES, 0))) + bytes(2 * MAX_ACK_RANGES)
        self.assertRaises(RemoteProtocolError, decode_ack, many, 0)

    @settings(derandomize=True, max_examples=500)
    @given(st.binary(max_size=80), st.integers(0, 80))
    def test_one_kind_of_error(self, data: bytes, offset: int) -> None:
        """Whatever the bytes: ranges that descend and do not touch, or `RemoteProtocolError`."""
        try:
            ack, end = decode_ack(data, offset)
        except RemoteProtocolError:
            return
        self.assertLessEqual(end, len(data))
        above = ack.largest + 2
        for first, last in ack.ranges:
            self.assertTrue(0 <= first <= last < above - 1)
            above = first
