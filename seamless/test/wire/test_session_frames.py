"""Session frames: what is encoded comes back, and no bytes raise anything but `RemoteProtocolError`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.test.wire.digests import digests
from seamless.test.work import lines_run
from seamless.wire.ack import Ack, encode_ack
from seamless.wire.digest import ConfigurationDigest
from seamless.wire.ranges import RangeSet
from seamless.wire.session_frames import (
    ACK,
    MAX_STREAM_BYTES,
    MAX_TARGET_BYTES,
    AcceptFrame,
    DatagramFrame,
    Frame,
    OpenFrame,
    PingFrame,
    ResetFrame,
    SessionWindowFrame,
    StreamFrame,
    WindowFrame,
    decode_frames,
    encode_accept,
    encode_datagram,
    encode_digest,
    encode_open,
    encode_reset,
    encode_session_window,
    encode_stream_header,
    encode_window,
)
from seamless.wire.text import MAX_REASON_BYTES
from seamless.wire.varint import MAX_VARINT

numbers = st.integers(0, MAX_VARINT)
printable_text = st.text(st.characters(exclude_categories=("C", "Z")), max_size=MAX_REASON_BYTES // 4)
frames = st.one_of(
    st.builds(PingFrame),
    st.builds(StreamFrame, numbers, st.integers(0, MAX_VARINT - 100), st.binary(max_size=100), st.booleans()),
    st.builds(OpenFrame, numbers, numbers, st.binary(max_size=MAX_TARGET_BYTES)),
    st.builds(AcceptFrame, numbers, numbers),
    st.builds(ResetFrame, numbers, numbers, numbers, printable_text, st.booleans()),
    st.builds(WindowFrame, numbers, numbers),
    st.builds(SessionWindowFrame, numbers),
    st.builds(DatagramFrame, st.binary(max_size=100)),
    digests,
)


def encode(frame: Frame) -> bytes:
    """Return the bytes of any frame."""
    match frame:
        case StreamFrame(stream, offset, data, fin):
            return encode_stream_header(stream, offset, len(data), fin) + data
        case OpenFrame(stream, window, target):
            return encode_open(stream, window, target)
        case AcceptFrame(stream, window):
            return encode_accept(stream, window)
        case ResetFrame(stream, code, final_offset, reason, fin):
            return encode_reset(stream, code, final_offset, reason, fin)
        case WindowFrame(stream, limit):
            return encode_window(stream, limit)
        case SessionWindowFrame(limit):
            return encode_session_window(limit)
        case DatagramFrame(packet):
            return encode_datagram(packet)
        case ConfigurationDigest():
            return encode_digest(frame)
        case Ack():
            raise NotImplementedError
        case PingFrame():
            return b"\x01"


class SessionFrameTests(SynchronousTestCase):
    """Encoding and decoding."""

    @settings(derandomize=True, max_examples=200)
    @given(st.lists(frames, max_size=6), st.integers(0, 5))
    def test_round_trip(self, sequence: list[Frame], padding: int) -> None:
        """Whatever is between frames; only that a run of PINGs is as good as one."""
        data = bytes(padding).join(map(encode, sequence)) + bytes(padding)
        expected = [
            frame
            for before, frame in zip([None, *sequence], sequence)
            if padding or not isinstance(frame, PingFrame) or not isinstance(before, PingFrame)
        ]
        self.assertEqual(decode_frames(data), expected)

    def test_one_ack_in_a_record(self) -> None:
        """One says all; a thousand of them would make us look for lost records a thousand times."""
        ranges = RangeSet()
        ranges.add(0, 100_000)
        frame = bytes((ACK,)) + encode_ack(ranges, 0.0)
        self.assertEqual(len(decode_frames(frame + b"\x01")), 2)
        with self.assertRaisesRegex(RemoteProtocolError, "two ACKs"):
            decode_frames(frame + b"\x01" + frame)

    def test_runs_cost_as_much_as_one(self) -> None:
        """PADDING and PING of a whole record."""
        for frame in (b"\0", b"\1"):
            costs = [lines_run(lambda: decode_frames(frame * length)) for length in (10, 16_000)]  # noqa: B023
            self.assertEqual(costs[0], costs[1])

    @settings(derandomize=True, max_examples=100)
    @given(frames)
    def test_cut_short(self, frame: Frame) -> None:
        """Every proper prefix is refused."""
        data = encode(frame)
        for length in range(1, len(data)):
            self.assertRaises(RemoteProtocolError, decode_frames, data[:length])

    @settings(derandomize=True, max_examples=500)
    @given(st.binary(max_size=60))
    def test_one_kind_of_error(self, data: bytes) -> None:
        try:
            decode_frames(data)
        except RemoteProtocolError:
            pass

    def test_bytes(self) -> None:
        """The bytes on the wire, in full, as a reference for other implementations."""
        self.assertEqual(encode(StreamFrame(4, 100, b"hello", True)).hex(), "1104406440" + "05" + b"hello".hex())
        self.assertEqual(encode(OpenFrame(0, 65536, b"x")).hex(), "12008001000001" + b"x".hex())
        self.assertEqual(encode(ResetFrame(2, 1, 0, "no")).hex(), "1402010002" + b"no".hex())
        self.assertEqual(encode(ResetFrame(2, 1, 0, "no", True)).hex(), "1802010002" + b"no".hex())

    def test_ack_among_others(self) -> None:
        ranges = RangeSet()
        ranges.add(3, 7)
        data = b"\x01" + bytes((ACK,)) + encode_ack(ranges, 0) + b"\x01"
        self.assertEqual(decode_frames(data), [PingFrame(), Ack(7, 0.0, [(3, 7)]), PingFrame()])

    def test_a_record_of_padding(self) -> None:
        """The longest there is, in one step."""
        self.assertEqual(decode_frames(bytes(16_000)), [])

    def test_lengths_beyond_the_bounds(self) -> None:
        for data in [
            encode_stream_header(0, MAX_VARINT, 1, False) + b"x",
            encode_open(0, 0, bytes(MAX_TARGET_BYTES + 1)),
            b"\x14\x00\x00\x00" + (MAX_REASON_BYTES + 1 | 0x4000).to_bytes(2, "big") + bytes(MAX_REASON_BYTES + 1),
            b"\x17\xff\xff\xff\xff\xff\xff\xff\xff",
        ]:
            self.assertRaises(RemoteProtocolError, decode_frames, data)

    def test_long_reasons_are_cut(self) -> None:
        (frame,) = decode_frames(encode_reset(0, 0, 0, "ä" * 1000))
        assert isinstance(frame, ResetFrame)
        self.assertTrue(frame.reason.startswith("ä" * (MAX_REASON_BYTES // 2)))

    def test_longest_stream_frame(self) -> None:
        data = bytes(MAX_STREAM_BYTES)
        (frame,) = decode_frames(encode_stream_header(1, 2, len(data), False) + data)
        self.assertEqual(frame, StreamFrame(1, 2, data, False))
