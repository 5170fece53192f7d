"""Batches of DATA and CONTROL datagrams to and from their contents: the innermost loops of a link.

One turn of these loops per datagram is most of what a relay does. A turn is one AEAD call and what it takes to make its
arguments; everything else happens once per batch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag

from seamless.crypto.sealing import ReceiveKey, SendKey
from seamless.interfaces import Address, Transmit
from seamless.wire.header import DATA, SEALED_HEADER, SEALED_HEADER_BYTES, TAG_BYTES, WORD_BYTES, word

SEALING_BYTES: Final = SEALED_HEADER_BYTES + TAG_BYTES
"""What sealing adds to a packet."""
BATCH_BYTES: Final = 64_000
"""The most that one system call takes: a UDP payload before segmentation is at most 65,507 bytes."""
BATCH_DATAGRAMS: Final = 64
"""The most segments that every kernel with UDP_SEGMENT takes (UDP_MAX_SEGMENTS; newer ones allow 128)."""

_DOES_NOT_OPEN: Final = (InvalidTag, ValueError)
"""What `cryptography` raises for a wrong tag, and for a datagram shorter than a nonce."""


@lru_cache(maxsize=256)
def _nonces(segment_size: int) -> struct.Struct:
    """Return what reads the nonces of datagrams of one size."""
    return struct.Struct(f"{SEALED_HEADER_BYTES}s{segment_size - SEALED_HEADER_BYTES}x")


def open_batch(key: ReceiveKey, buffer: memoryview, segment_size: int) -> tuple[list[int], list[bytes], int]:
    """Return (packet numbers, contents, how many did not open) of datagrams of ``segment_size`` bytes, the last perhaps
    shorter. Whether a number is new is not looked at here."""
    decrypt, total = key.decrypt, len(buffer)
    last_bytes = total % segment_size
    if segment_size > SEALED_HEADER_BYTES:
        nonces = [nonce for (nonce,) in _nonces(segment_size).iter_unpack(buffer[: total - last_bytes])]
        if last_bytes:
            nonces.append(bytes(buffer[total - last_bytes :][:SEALED_HEADER_BYTES]))
    else:
        nonces = [bytes(buffer[offset : offset + segment_size]) for offset in range(0, total, segment_size)]
    # Slices and not copies of what is sealed: it is most of what a node moves through the caches.
    sealed = [buffer[offset + SEALED_HEADER_BYTES : offset + segment_size] for offset in range(0, total, segment_size)]
    try:
        contents = [decrypt(nonce, each, None) for nonce, each in zip(nonces, sealed)]
    except _DOES_NOT_OPEN:
        opened = list(_that_open(key, nonces, sealed))
        return [number for number, _ in opened], [content for _, content in opened], len(nonces) - len(opened)
    return [int.from_bytes(nonce[WORD_BYTES:], "big") for nonce in nonces], contents, 0


def _that_open(key: ReceiveKey, nonces: list[bytes], sealed: list[memoryview]) -> Iterator[tuple[int, bytes]]:
    """Yield (packet number, contents) of the datagrams that open, of some that do not."""
    for nonce, each in zip(nonces, sealed):
        with suppress(*_DOES_NOT_OPEN):
            yield int.from_bytes(nonce[WORD_BYTES:], "big"), key.decrypt(nonce, each, None)


def seal_batches(
    key: SendKey, number: int, packets: list[bytes], local: Address, remote: Address, datagram_type: int = DATA
) -> list[Transmit]:
    """Seal ``packets`` as DATA, or another type, under the numbers from ``number`` on, in batches of one length.

    A longer packet than the batch's begins another; a shorter one ends the batch that it is in, since only the last
    segment of a batch may be short.
    """
    sizes = list(map(len, packets))
    pack, encrypt, first_word = SEALED_HEADER.pack, key.encrypt, word(datagram_type, key.remote_index)
    headers = [pack(first_word, each) for each in range(number, number + len(packets))]
    sealed: list[bytes] = [b""] * (2 * len(packets))
    sealed[::2] = headers
    sealed[1::2] = [encrypt(header, packet, None) for header, packet in zip(headers, packets)]
    return [
        Transmit(local, remote, sealed[2 * begin : 2 * end], sizes[begin] + SEALING_BYTES, end - begin)
        for begin, end in _runs(sizes)
    ]


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the batches that packets of ``sizes`` make, in order."""
    begin, total = 0, len(sizes)
    while begin < total:
        length = sizes[begin]
        limit = max(1, min(BATCH_DATAGRAMS, BATCH_BYTES // (length + SEALING_BYTES)))
        end = min(begin + limit, total)
        # Usually all are of one length, but perhaps the last.
        if sizes.count(length) != total:
            for index in range(begin + 1, end):
                if sizes[index] != length:
                    end = index + (sizes[index] < length)
                    break
        yield begin, end
        begin = end
