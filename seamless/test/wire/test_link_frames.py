"""Frames of CONTROL datagrams: what is written can be read, and nothing else can hurt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.test.wire.digests import digests
from seamless.wire.ack import Ack, encode_ack
from seamless.wire.digest import MAX_ITEMS, ConfigurationDigest
from seamless.wire.link_frames import (
    Close,
    DigestFrame,
    Hello,
    LsaFrame,
    Measure,
    MeasureAct,
    OwnFrame,
    Pause,
    Ping,
    encode_ack_frame,
    parse_link_frames,
)
from seamless.wire.ranges import RangeSet
from seamless.wire.traffic_class import CLASS_EXPRESS, CLASS_HANDSHAKE

_u16 = st.integers(1, (1 << 16) - 1)
_u32 = st.integers(0, (1 << 32) - 1)
_u64 = st.integers(0, (1 << 64) - 1)
FRAMES: st.SearchStrategy[OwnFrame] = st.one_of(
    st.just(Ping()),
    st.builds(Hello, st.integers(0, 2), _u16, _u16, st.integers(0, (1 << 62) - 1)),
    st.builds(LsaFrame, st.binary(max_size=300)),
    st.builds(Pause, _u32, _u32, _u32),
    st.builds(DigestFrame, digests),
    st.builds(
        Measure, _u32, st.sampled_from(MeasureAct), st.integers(0, 255), _u64, _u64, _u32, _u32, st.integers(0, 65535)
    ),
    st.builds(Close, st.text(st.characters(exclude_categories=("C", "Z")), max_size=60)),
)


class LinkFrameTests(SynchronousTestCase):
    """Round trips and hostile bytes."""

    @given(st.lists(FRAMES, max_size=8), st.integers(0, 5))
    def test_round_trip(self, frames: list[OwnFrame], padding: int) -> None:
        data = b"".join(frame.encode() + bytes(padding) for frame in frames)
        self.assertEqual(parse_link_frames(data), frames)

    @given(st.binary(max_size=200))
    def test_any_bytes_raise_only_remote_protocol_error(self, data: bytes) -> None:
        try:
            parse_link_frames(data)
        except RemoteProtocolError:
            pass

    @given(st.lists(FRAMES, min_size=1, max_size=4))
    def test_truncated_anywhere(self, frames: list[OwnFrame]) -> None:
        data = b"".join(frame.encode() for frame in frames)
        for length in range(len(data)):
            try:
                self.assertEqual(parse_link_frames(data[:length]), frames[: len(parse_link_frames(data[:length]))])
            except RemoteProtocolError:
                pass

    def test_an_ack_says_when_its_largest_number_came(self) -> None:
        numbers = RangeSet()
        numbers.add(3, 7)
        for received_at, said in ((12.5, 12.5), (0.0, 0.0), (-3.0, 0.0), (1e14, (1 << 62) / 1e6)):
            (frame,) = parse_link_frames(encode_ack_frame(received_at, encode_ack(numbers, 0.002)))
            assert isinstance(frame, Ack)
            self.assertEqual((frame.largest, frame.delay, frame.ranges), (7, 0.002, [(3, 7)]))
            self.assertAlmostEqual(frame.received_at, said, delta=1e-6 + said * 1e-9)

    def test_a_measure_that_says_nothing_known(self) -> None:
        data = bytearray(Measure(1, MeasureAct.STOP).encode())
        data[5] = MeasureAct.STOP + 1
        with self.assertRaisesRegex(RemoteProtocolError, "MEASURE"):
            parse_link_frames(bytes(data))

    def test_a_pause_is_at_most_what_fits(self) -> None:
        (frame,) = parse_link_frames(Pause(1, 2, 1 << 40).encode())
        self.assertEqual(frame, Pause(1, 2, (1 << 32) - 1))

    def test_a_pause_of_handshakes_is_refused(self) -> None:
        """Nor of any other class than bulk and express."""
        (frame,) = parse_link_frames(Pause(1, 2, 3, CLASS_EXPRESS).encode())
        self.assertEqual(frame, Pause(1, 2, 3, CLASS_EXPRESS))
        with self.assertRaisesRegex(RemoteProtocolError, "PAUSE"):
            parse_link_frames(Pause(1, 2, 3, CLASS_HANDSHAKE).encode())

    def test_a_digest_of_too_many_items(self) -> None:
        items = tuple((number, 0) for number in range(MAX_ITEMS + 1))
        with self.assertRaisesRegex(RemoteProtocolError, "a DIGEST that claims 65 items"):
            parse_link_frames(DigestFrame(ConfigurationDigest(3, False, items)).encode())
        (frame,) = parse_link_frames(DigestFrame(ConfigurationDigest(3, False, items[1:])).encode())
        self.assertEqual(frame, DigestFrame(ConfigurationDigest(3, False, items[1:])))

    def test_a_hello_without_intervals_is_refused(self) -> None:
        self.assertRaises(RemoteProtocolError, parse_link_frames, Hello(1, 0, 300, 0).encode())
