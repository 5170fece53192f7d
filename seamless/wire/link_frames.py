"""The frames of a CONTROL datagram, which two neighbors exchange (docs/protocol.rst).

A frame knows its own bytes, and what becomes of it when the datagram that carried it is lost:

=========  ====================================================================================
PING       forgotten; its sender asks again
ACK        forgotten; the next ACK says all of it
HELLO      forgotten; the next one comes within the hello interval
LSA        sent again until acknowledged: this is what makes flooding reliable
PAUSE      forgotten; the queue that asked for it is looked at again within a round trip
DIGEST     sent again until acknowledged, as an LSA
MEASURE    sent again until acknowledged, as an LSA
CLOSE      forgotten; the dead interval says the same a little later
=========  ====================================================================================
"""

from __future__ import annotations

import enum
import struct
from typing import Final, TypeAlias, Union

import attrs

from seamless.errors import RemoteProtocolError
from seamless.wire.ack import MICROSECONDS, Ack, decode_ack
from seamless.wire.digest import ConfigurationDigest, decode_digest
from seamless.wire.text import MAX_REASON_BYTES, printable
from seamless.wire.traffic_class import CLASS_BULK, QUEUE_CLASSES
from seamless.wire.varint import MAX_VARINT, decode_varint, encode_varint

PADDING: Final = 0x00
PING: Final = 0x01
ACK: Final = 0x02
HELLO: Final = 0x03
LSA: Final = 0x04
LSA_HEADER_BYTES: Final = 5
"""Type and length of an LSA frame, at the most."""
PAUSE: Final = 0x05
CLOSE: Final = 0x06
DIGEST: Final = 0x07
MEASURE: Final = 0x08

DOWN: Final = 0
INIT: Final = 1
UP: Final = 2

_HELLO_FIXED: Final = struct.Struct(">BHH")
_MEASURE_FIXED: Final = struct.Struct(">IBBQQIIH")
_PAUSE_FIXED: Final = struct.Struct(">IIIB")
PAUSE_MAX_MICROSECONDS: Final = (1 << 32) - 1


@attrs.frozen
class Ping:
    """Requests an acknowledgement; carries nothing."""

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return bytes([PING])


@attrs.frozen
class Hello:
    """The sender's view of the adjacency, and its intervals in milliseconds."""

    state: int
    hello_ms: int
    dead_ms: int
    received: int

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return (
            bytes([HELLO]) + _HELLO_FIXED.pack(self.state, self.hello_ms, self.dead_ms) + encode_varint(self.received)
        )


@attrs.frozen
class LsaFrame:
    """One encoded LSA."""

    data: bytes

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return bytes([LSA]) + encode_varint(len(self.data)) + self.data


@attrs.frozen
class Pause:
    """Asks the neighbor to send nothing of one class (bulk or express) of a session for ``microseconds``."""

    source: int
    destination: int
    microseconds: int
    packet_class: int = CLASS_BULK

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return bytes([PAUSE]) + _PAUSE_FIXED.pack(
            self.source, self.destination, min(self.microseconds, PAUSE_MAX_MICROSECONDS), self.packet_class
        )


@attrs.frozen
class Close:
    """The sender is about to stop."""

    reason: str

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        text = self.reason.encode()[:MAX_REASON_BYTES]
        return bytes([CLOSE]) + encode_varint(len(text)) + text


@attrs.frozen
class DigestFrame:
    """What the sender's configuration says of one of its sections, as hashes."""

    digest: ConfigurationDigest

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return bytes([DIGEST]) + self.digest.encode_body()


class MeasureAct(enum.IntEnum):
    """What a MEASURE says."""

    START = 0
    FOUND = 1
    REFUSED = 2
    STOP = 3


@attrs.frozen
class Measure:
    """A word of a measurement: its ``token``, what is said, and with FOUND what the sender's direction is like.

    Rates in bits per second, the loss floor in millionths. ``detail`` says more of FOUND (0: nothing could be found, 1:
    a capacity, 2: at least this capacity) and of REFUSED (0: another measurement runs, 1: too soon after the last).
    """

    token: int
    act: MeasureAct
    detail: int = 0
    capacity_bps: int = 0
    rate_bps: int = 0
    loss_floor: int = 0
    queue_microseconds: int = 0
    mtu_bytes: int = 0

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return bytes([MEASURE]) + _MEASURE_FIXED.pack(*attrs.astuple(self))


ReliableFrame: TypeAlias = Union[LsaFrame, DigestFrame, Measure]
"""Frames that are retransmitted until acknowledged, and not sent before the neighbor is UP."""
OwnFrame: TypeAlias = Union[Ping, Hello, ReliableFrame, Pause, Close]
"""What a link keeps as frames; an ACK is made from the ranges at the last moment."""
LinkFrame: TypeAlias = Union[OwnFrame, Ack]


def encode_ack_frame(received_at: float, body: bytes) -> bytes:
    """Return an ACK frame; ``received_at``: when the largest number of ``body`` was received, by any clock of ours."""
    return bytes((ACK,)) + encode_varint(min(max(0, int(received_at * MICROSECONDS)), MAX_VARINT)) + body


def _fixed(layout: struct.Struct, data: bytes, offset: int) -> tuple[tuple[int, ...], int]:
    end = offset + layout.size
    if end > len(data):
        raise RemoteProtocolError("a link frame runs past the end of its datagram")
    return layout.unpack_from(data, offset), end


def _counted(data: bytes, offset: int) -> tuple[bytes, int]:
    length, offset = decode_varint(data, offset)
    end = offset + length
    if end > len(data):
        raise RemoteProtocolError("a link frame runs past the end of its datagram")
    return data[offset:end], end


def _decode_frame(kind: int, data: bytes, offset: int) -> tuple[LinkFrame, int]:
    if kind == ACK:
        microseconds, offset = decode_varint(data, offset)
        return decode_ack(data, offset, microseconds / MICROSECONDS)
    if kind == PING:
        return Ping(), offset
    if kind == HELLO:
        (state, hello_ms, dead_ms), offset = _fixed(_HELLO_FIXED, data, offset)
        received, offset = decode_varint(data, offset)
        if state > UP or not hello_ms or not dead_ms:
            raise RemoteProtocolError("a HELLO with an unknown state or an interval of zero")
        return Hello(state, hello_ms, dead_ms, received), offset
    if kind == LSA:
        body, offset = _counted(data, offset)
        return LsaFrame(body), offset
    if kind == PAUSE:
        (source, destination, microseconds, packet_class), offset = _fixed(_PAUSE_FIXED, data, offset)
        if packet_class not in QUEUE_CLASSES:
            raise RemoteProtocolError("a PAUSE of a class that is neither bulk nor express")
        return Pause(source, destination, microseconds, packet_class), offset
    if kind == CLOSE:
        body, offset = _counted(data, offset)
        return Close(printable(body)), offset
    if kind == DIGEST:
        digest, offset = decode_digest(data, offset)
        return DigestFrame(digest), offset
    if kind == MEASURE:
        (token, act, *numbers), offset = _fixed(_MEASURE_FIXED, data, offset)
        if act > MeasureAct.STOP:
            raise RemoteProtocolError("a MEASURE that says nothing known")
        return Measure(token, MeasureAct(act), *numbers), offset
    raise RemoteProtocolError(f"an unknown link frame of type {kind:#04x}")


def parse_link_frames(data: bytes) -> list[LinkFrame]:
    """Return the frames of a CONTROL payload, without padding; raise `RemoteProtocolError` for anything else."""
    frames: list[LinkFrame] = []
    offset = 0
    end = len(data)
    while offset < end:
        kind = data[offset]
        offset += 1
        if kind == PADDING:
            offset = end - len(data[offset:].lstrip(b"\0"))
        else:
            frame, offset = _decode_frame(kind, data, offset)
            frames.append(frame)
    if sum(type(frame) is Ack for frame in frames) > 1:
        # One says all; hundreds of them would make us look for lost packets hundreds of times.
        raise RemoteProtocolError("two ACKs in one datagram")
    return frames
