"""Small programs that the lab's tests run on its hosts: ping, and a UDP source and sink that use GSO and GRO.

``python -m seamless.test.lab.traffic VERB ARGUMENTS``; each prints one JSON value.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from typing import Final

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
PING_TIMEOUT: Final = 1.0
START_SECONDS: Final = 3
"""How long the sink waits for its first datagram."""
IDLE_SECONDS: Final = 0.3
"""The sink is done when nothing came for so long after that."""
BATCH: Final = 40


def ping(address: str, count: int, interval: float) -> list[float | None]:
    """Return the round trip of each echo request, None for those without an answer."""
    times: list[float | None] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as connection:
        connection.settimeout(PING_TIMEOUT)
        for sequence in range(count):
            sent_at = time.monotonic()
            connection.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, sequence) + bytes(56), (address, 0))
            times.append(_echo(connection, sequence, sent_at))
            time.sleep(interval)
    return times


def _echo(connection: socket.socket, sequence: int, sent_at: float) -> float | None:
    while time.monotonic() < sent_at + PING_TIMEOUT:
        try:
            answer = connection.recv(2048)
        except TimeoutError:
            return None
        if struct.unpack_from("!H", answer, 6)[0] == sequence:
            return time.monotonic() - sent_at
    return None


def datagram(number: int, size: int) -> bytes:
    """Return a datagram that can be told from any other and from a damaged one."""
    return number.to_bytes(8, "big") + bytes((number * 7 + index) & 0xFF for index in range(size - 8))


def source(address: str, port: int, count: int, size: int, gso: bool, pause: float) -> int:
    """Send datagrams, in batches of 40 with UDP_SEGMENT if ``gso``; return the number of system calls."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    calls = 0
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        if gso:
            connection.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        step = BATCH if gso else 1
        for start in range(0, count, step):
            batch = b"".join(datagram(number, size) for number in range(start, min(count, start + step)))
            connection.sendto(batch, (address, port))
            calls += 1
            time.sleep(pause)
    return calls


def sink(port: int, size: int) -> dict[str, object]:
    """Receive until nothing comes any more; return what came: numbers in order of arrival, and how many are damaged."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as connection:
        connection.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        connection.bind(("::", port))
        print("ready", flush=True)
        numbers: list[int] = []
        damaged = calls = 0
        connection.settimeout(START_SECONDS)
        while True:
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                return {"numbers": numbers, "damaged": damaged, "calls": calls}
            connection.settimeout(IDLE_SECONDS)
            calls += 1
            for start in range(0, len(received), size):
                one = received[start : start + size]
                number = int.from_bytes(one[:8], "big")
                if number < 1 << 32 and one == datagram(number, size):
                    numbers.append(number)
                else:
                    damaged += 1


def main() -> None:
    """Run the verb with its arguments."""
    verb, *words = sys.argv[1:]
    if verb == "ping":
        print(json.dumps(ping(words[0], int(words[1]), float(words[2]))))
    elif verb == "source":
        address, port, count, size, gso, pause = words
        print(json.dumps(source(address, int(port), int(count), int(size), gso == "gso", float(pause))))
    else:
        print(json.dumps(sink(int(words[0]), int(words[1]))))


if __name__ == "__main__":
    main()
