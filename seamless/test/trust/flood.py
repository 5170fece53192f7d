"""Forged initiations by the thousand: ``python -m seamless.test.trust.flood ADDRESS PORT PUBLIC_KEY RATE SECONDS``.

They have a good mac1, which takes no more than the public key; that is the dearest that a stranger can be. Prints, as
JSON, how many bytes it sent and how many were answered.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import time

from seamless.crypto.messages import INITIATION_BYTES, build_initiation, mac1_key

UDP_SEGMENT = 103
BATCH = 54
"""What fits one send."""
SOURCES = 16
DRAIN_TURNS = 50
NOISE_MESSAGE_BYTES = 116


def main(address: str, port: str, public_key: str, rate: str, seconds: str) -> None:
    key = mac1_key(base64.b64decode(public_key))
    batches = [
        b"".join(build_initiation(index, os.urandom(NOISE_MESSAGE_BYTES), key) for index in range(BATCH))
        for _ in range(20)
    ]
    sources = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOURCES)]
    for source in sources:
        source.connect((address, int(port)))
        source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, INITIATION_BYTES)
        source.setblocking(False)
    sent = answered = turns = 0
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < float(seconds):
        if sent < elapsed * float(rate):
            try:
                sources[turns % SOURCES].send(batches[turns % len(batches)])
                sent += BATCH
            except OSError:
                pass
            turns += 1
        else:
            time.sleep(0.002)
        if turns % DRAIN_TURNS == 0:
            answered += drain(sources)
    time.sleep(0.2)
    answered += drain(sources)
    print(json.dumps({"sent": sent, "sent_bytes": sent * INITIATION_BYTES, "answered_bytes": answered}))


def drain(sources: list[socket.socket]) -> int:
    """Return how many bytes have come."""
    size = 0
    for ready in select.select(sources, [], [], 0)[0]:
        try:
            while data := ready.recv(65536):
                size += len(data)
        except OSError:
            pass
    return size


if __name__ == "__main__":
    main(*sys.argv[1:])
