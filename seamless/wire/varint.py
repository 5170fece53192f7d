"""Variable-length integers (RFC 9000, section 16): 1, 2, 4 or 8 bytes, the length in the top two bits."""

from __future__ import annotations

from seamless.errors import RemoteProtocolError

MAX_VARINT = (1 << 62) - 1


def encode_varint(value: int) -> bytes:
    """Return the shortest encoding of ``0 <= value <= MAX_VARINT``."""
    if value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return (value, offset after it); raise `RemoteProtocolError` when ``data`` ends before it."""
    try:
        first = data[offset]
    except IndexError:
        raise RemoteProtocolError("a varint is missing at the end of the data") from None
    if first < 0x40:
        return first, offset + 1
    length = 1 << (first >> 6)
    end = offset + length
    if end > len(data):
        raise RemoteProtocolError("a varint runs past the end of the data")
    mask = (1 << (length * 8 - 2)) - 1
    return int.from_bytes(data[offset:end], "big") & mask, end
