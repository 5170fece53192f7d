"""The frames inside a session's sealed records (docs/protocol.rst, "Sessions"): records to bytes and back.

What is fixed here is fixed by the protocol: both ends of a session must agree on it before either has said a word.
A frame that was lost is sent again, but for ACK, PADDING, PING and DATAGRAM; windows are sent with their newest value.
At most one ACK stands in a record, since one says all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias, Union

import attrs

from seamless.errors import RemoteProtocolError
from seamless.wire.ack import Ack, decode_ack
from seamless.wire.digest import ConfigurationDigest, decode_digest
from seamless.wire.header import TAG_BYTES
from seamless.wire.text import MAX_REASON_BYTES, printable
from seamless.wire.varint import MAX_VARINT, decode_varint, encode_varint

PADDING: Final = 0x00
PING: Final = 0x01
ACK: Final = 0x02
STREAM: Final = 0x10
STREAM_FIN: Final = 0x11
OPEN: Final = 0x12
ACCEPT: Final = 0x13
RESET: Final = 0x14
WINDOW: Final = 0x15
SESSION_WINDOW: Final = 0x16
DATAGRAM: Final = 0x17
RESET_FIN: Final = 0x18
DIGEST: Final = 0x19

MAX_SEALED_BYTES: Final = 16_384
"""A sealed record, tag included: large enough that Python's work for one is small beside the AES of its bytes."""

MAX_PACKET_BYTES: Final = 65_535
"""Bytes of the longest packet of a DATAGRAM frame, and of IP: TCP's super-packets are carried whole."""

DATAGRAM_HEADER_BYTES: Final = 5
"""Most bytes before the packet in a DATAGRAM frame: type, and a length of four bytes."""

MAX_SEALED_PACKET_BYTES: Final = MAX_PACKET_BYTES + DATAGRAM_HEADER_BYTES + TAG_BYTES
"""A sealed record with the longest packet. No record is longer."""

EARLY_WINDOW_BYTES: Final = 16_384
"""Bytes that the opener of a stream may send before the ACCEPT arrives: as much as TCP sends in its first flight."""

SESSION_WINDOW_INITIAL_BYTES: Final = 4 << 20
"""What may be sent over all streams before the first SESSION_WINDOW: a round trip of 500 Mb/s over 60 ms."""

MAX_TARGET_BYTES: Final = 512
"""The target of an OPEN: an address, or a name of at most 255 bytes, and what may come to stand beside it."""

STREAM_LENGTH_BYTES: Final = 2
"""STREAM lengths are always written in two bytes, so that a record can be filled to the last byte."""
MAX_STREAM_BYTES: Final = 0x3FFF


@attrs.define(slots=True)
class StreamFrame:
    """Bytes of a stream from ``offset`` on; with ``fin`` the stream ends after them."""

    stream: int
    offset: int
    data: bytes
    fin: bool


@attrs.frozen
class PingFrame:
    """Requests an acknowledgement; carries nothing."""


@attrs.frozen
class OpenFrame:
    """The sender wants a stream to ``target`` and takes ``window`` bytes of answer."""

    stream: int
    window: int
    target: bytes


@attrs.frozen
class AcceptFrame:
    """The stream is accepted; ``window`` bytes in all may be sent to the sender of this frame."""

    stream: int
    window: int


@attrs.frozen
class ResetFrame:
    """Both directions are over; the bytes below ``final_offset`` are delivered first, and with ``fin`` a FIN, too."""

    stream: int
    code: int
    final_offset: int
    reason: str
    fin: bool = False


@attrs.frozen
class WindowFrame:
    """The highest offset that may be sent on a stream."""

    stream: int
    limit: int


@attrs.frozen
class SessionWindowFrame:
    """The number of bytes that may be sent in all, over all streams of the session."""

    limit: int


@attrs.frozen
class DatagramFrame:
    """A whole packet."""

    packet: bytes


Frame: TypeAlias = Union[
    StreamFrame,
    PingFrame,
    Ack,
    OpenFrame,
    AcceptFrame,
    ResetFrame,
    WindowFrame,
    SessionWindowFrame,
    DatagramFrame,
    ConfigurationDigest,
]

_PING_FRAME: Final = PingFrame()
_RUNS: Final = {PADDING: re.compile(rb"\x00*"), PING: re.compile(rb"\x01*")}
_TYPE: Final = [bytes([value]) for value in range(DIGEST + 1)]


def encode_stream_header(stream: int, offset: int, length: int, fin: bool) -> bytes:
    """Return a STREAM frame's bytes up to its data, which must be ``length`` <= ``MAX_STREAM_BYTES`` long."""
    return b"".join(
        (
            _TYPE[STREAM_FIN if fin else STREAM],
            encode_varint(stream),
            encode_varint(offset),
            (length | 0x4000).to_bytes(STREAM_LENGTH_BYTES, "big"),
        )
    )


def encode_open(stream: int, window: int, target: bytes) -> bytes:
    """Return an OPEN frame."""
    return _TYPE[OPEN] + encode_varint(stream) + encode_varint(window) + encode_varint(len(target)) + target


def encode_accept(stream: int, window: int) -> bytes:
    """Return an ACCEPT frame."""
    return _TYPE[ACCEPT] + encode_varint(stream) + encode_varint(window)


def encode_reset(stream: int, code: int, final_offset: int, reason: str, fin: bool = False) -> bytes:
    """Return a RESET frame, or with ``fin`` a RESET_FIN, its reason cut to ``MAX_REASON_BYTES``."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    numbers = b"".join(map(encode_varint, (stream, code, final_offset, len(text))))
    return _TYPE[RESET_FIN if fin else RESET] + numbers + text


def encode_window(stream: int, limit: int) -> bytes:
    """Return a WINDOW frame."""
    return _TYPE[WINDOW] + encode_varint(stream) + encode_varint(limit)


def encode_session_window(limit: int) -> bytes:
    """Return a SESSION_WINDOW frame."""
    return _TYPE[SESSION_WINDOW] + encode_varint(limit)


def encode_digest(digest: ConfigurationDigest) -> bytes:
    """Return a DIGEST frame."""
    return _TYPE[DIGEST] + digest.encode_body()


def encode_datagram(packet: bytes) -> bytes:
    """Return a DATAGRAM frame."""
    return _TYPE[DATAGRAM] + encode_varint(len(packet)) + packet


def decode_frames(data: bytes) -> list[Frame]:
    """Return the frames of a record's plaintext; raise `RemoteProtocolError` for a malformed frame."""
    frames: list[Frame] = []
    offset, end = 0, len(data)
    acknowledges = False
    while offset < end:
        kind = data[offset]
        offset += 1
        if kind in (STREAM, STREAM_FIN):
            stream, offset = decode_varint(data, offset)
            start, offset = decode_varint(data, offset)
            content, offset = _decode_bytes(data, offset, MAX_STREAM_BYTES)
            if start + len(content) > MAX_VARINT:
                raise RemoteProtocolError(f"stream {stream} reaches beyond the highest offset there is")
            frames.append(StreamFrame(stream, start, content, kind == STREAM_FIN))
        elif kind in (PADDING, PING):
            # A run of them is as good as one, and costs as much.
            run = _RUNS[kind].match(data, offset)
            offset = run.end() if run is not None else offset
            if kind == PING:
                frames.append(_PING_FRAME)
        else:
            if kind == ACK:
                if acknowledges:
                    raise RemoteProtocolError("two ACKs in one record")
                acknowledges = True
            decode = _DECODERS.get(kind)
            if decode is None:
                raise RemoteProtocolError(f"a frame of unknown type {kind:#x}")
            frame, offset = decode(data, offset)
            frames.append(frame)
    return frames


def _decode_bytes(data: bytes, offset: int, limit: int) -> tuple[bytes, int]:
    """Return (bytes, offset after them) of a field that begins with its length."""
    length, offset = decode_varint(data, offset)
    end = offset + length
    if length > limit or end > len(data):
        raise RemoteProtocolError(f"a field says that it is {length} bytes long, which cannot be")
    return data[offset:end], end


def _decode_open(data: bytes, offset: int) -> tuple[Frame, int]:
    stream, offset = decode_varint(data, offset)
    window, offset = decode_varint(data, offset)
    target, offset = _decode_bytes(data, offset, MAX_TARGET_BYTES)
    return OpenFrame(stream, window, target), offset


def _decode_accept(data: bytes, offset: int) -> tuple[Frame, int]:
    stream, offset = decode_varint(data, offset)
    window, offset = decode_varint(data, offset)
    return AcceptFrame(stream, window), offset


def _decode_reset(data: bytes, offset: int) -> tuple[ResetFrame, int]:
    stream, offset = decode_varint(data, offset)
    code, offset = decode_varint(data, offset)
    final_offset, offset = decode_varint(data, offset)
    reason, offset = _decode_bytes(data, offset, MAX_REASON_BYTES)
    return ResetFrame(stream, code, final_offset, printable(reason)), offset


def _decode_reset_fin(data: bytes, offset: int) -> tuple[Frame, int]:
    frame, offset = _decode_reset(data, offset)
    return attrs.evolve(frame, fin=True), offset


def _decode_window(data: bytes, offset: int) -> tuple[Frame, int]:
    stream, offset = decode_varint(data, offset)
    limit, offset = decode_varint(data, offset)
    return WindowFrame(stream, limit), offset


def _decode_session_window(data: bytes, offset: int) -> tuple[Frame, int]:
    limit, offset = decode_varint(data, offset)
    return SessionWindowFrame(limit), offset


def _decode_datagram(data: bytes, offset: int) -> tuple[Frame, int]:
    packet, offset = _decode_bytes(data, offset, len(data))
    return DatagramFrame(packet), offset


_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Frame, int]]]] = {
    ACK: decode_ack,
    OPEN: _decode_open,
    ACCEPT: _decode_accept,
    RESET: _decode_reset,
    WINDOW: _decode_window,
    SESSION_WINDOW: _decode_session_window,
    DATAGRAM: _decode_datagram,
    RESET_FIN: _decode_reset_fin,
    DIGEST: decode_digest,
}
