"""Programs of the lab that ask for objects over new connections: a server, and a client that measures.

A request is the size in decimal and a newline; the answer is so many bytes, and the end. The client's time runs from
before ``connect()`` to the last byte.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from seamless.errors import SeamlessError
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

PORT: Final = 5203
"""Captured, as iperf3's own is."""
START_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 30.0

SERVE: Final = """
import socket, sys, threading
block = memoryview(bytes(1 << 20))
def serve(connection):
    with connection:
        left = int(connection.makefile("rb").readline())
        try:
            while left:
                sent = connection.send(block[:left])
                left -= sent
        except OSError:
            pass
with socket.create_server(("", int(sys.argv[1])), backlog=4096) as listening:
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""

FETCH: Final = """
import json, socket, sys, time
address, port, nbytes, times, most_seconds = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
buffer = bytearray(1 << 20)
took = []
for _ in range(times):
    begun_at = time.monotonic()
    left = nbytes
    with socket.create_connection((address, port), most_seconds) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"%d\\n" % nbytes)
        try:
            while left and time.monotonic() - begun_at < most_seconds:
                received = connection.recv_into(buffer)
                if not received:
                    raise SystemExit("the answer was cut short")
                left -= received
        except TimeoutError:
            pass
    took.append(None if left else time.monotonic() - begun_at)
    if left:
        break
print(json.dumps(took))
"""


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """Run the server on dst until the end of the block."""
    server = lab.popen(SERVER, [sys.executable, "-S", "-c", SERVE, str(PORT)])
    try:
        give_up_at = time.monotonic() + START_SECONDS
        while PORT not in lab.host(SERVER).listening_ports():
            if server.poll() is not None or time.monotonic() > give_up_at:
                raise SeamlessError(f"the server of objects on {SERVER} does not listen on port {PORT}")
            time.sleep(0.02)
        yield
    finally:
        server.kill()
        server.wait()


def fetch(lab: Lab, nbytes: int, times: int, most_seconds: float) -> list[float | None]:
    """Return the seconds that each object of so many bytes took, one after the other.

    None stands for one that was not whole after ``most_seconds``; it is the last.
    """
    address = str(lab.configuration.hosts[SERVER].addresses[0])
    words = [address, str(PORT), str(nbytes), str(times), str(most_seconds)]
    argv = [sys.executable, "-S", "-c", FETCH, *words]
    done = lab.run(CLIENT, argv, timeout=times * most_seconds + PATIENCE_SECONDS)
    took: list[float | None] = json.loads(done.stdout)
    return took
