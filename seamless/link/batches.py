"""Batches of DATA and CONTROL datagrams to and from their contents: the innermost loops of a link.

One turn of these loops per datagram is most of what a relay does. A turn is one AEAD call, one slice or two, and one
append; everything else happens once per batch.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag

from seamless.crypto.sealing import ReceiveKey, SendKey
from seamless.interfaces import Address, Transmit
from seamless.wire.header import DATA, SEALED_HEADER, SEALED_HEADER_BYTES, TAG_BYTES, word

SEALING_BYTES: Final = SEALED_HEADER_BYTES + TAG_BYTES
"""What sealing adds to a packet."""
BATCH_BYTES: Final = 64_000
"""The most that one system call takes: a UDP payload before segmentation is at most 65,507 bytes."""
BATCH_DATAGRAMS: Final = 64
"""The most segments that every kernel with UDP_SEGMENT takes (UDP_MAX_SEGMENTS; newer ones allow 128)."""

_DOES_NOT_OPEN: Final = (InvalidTag, ValueError)
"""What `cryptography` raises for a wrong tag, and for a datagram shorter than a nonce."""


def open_batch(key: ReceiveKey, buffer: memoryview, segment_size: int) -> tuple[list[int], list[bytes], int]:
    """Return (packet numbers, contents, how many did not open) of datagrams of ``segment_size`` bytes, the last perhaps
    shorter. Whether a number is new is not looked at here."""
    numbers: list[int] = []
    contents: list[bytes] = []
    failed = 0
    decrypt = key.decrypt
    unpack = SEALED_HEADER.unpack_from
    for offset in range(0, len(buffer), segment_size):
        body = offset + SEALED_HEADER_BYTES
        try:
            contents.append(decrypt(buffer[offset:body], buffer[body : offset + segment_size], None))
        except _DOES_NOT_OPEN:
            failed += 1
            continue
        numbers.append(unpack(buffer, offset)[1])
    return numbers, contents, failed


def seal_batches(key: SendKey, number: int, packets: list[bytes], local: Address, remote: Address) -> list[Transmit]:
    """Seal ``packets`` as DATA under the numbers from ``number`` on, in batches of one length.

    A longer packet than the batch's begins another; a shorter one ends the batch that it is in, since only the last
    segment of a batch may be short.
    """
    transmits: list[Transmit] = []
    first_word = word(DATA, key.remote_index)
    pack = SEALED_HEADER.pack
    encrypt = key.encrypt
    buffers: list[bytes] = []
    length = count = limit = 0
    for packet in packets:
        this = len(packet)
        if this > length or count >= limit:
            if count:
                transmits.append(Transmit(local, remote, buffers, length + SEALING_BYTES, count))
            buffers, count, length = [], 0, this
            limit = max(1, min(BATCH_DATAGRAMS, BATCH_BYTES // (this + SEALING_BYTES)))
        header = pack(first_word, number)
        buffers.append(header)
        buffers.append(encrypt(header, packet, None))
        number += 1
        count += 1
        if this < length:
            limit = count
    if count:
        transmits.append(Transmit(local, remote, buffers, length + SEALING_BYTES, count))
    return transmits
