"""A keystroke and its answer: 64 bytes there and back every 20 ms over a TCP connection, from src to dst of a lab.

Questions leave on time, whether or not the ones before them are answered, so a wait is seen in full.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from seamless.errors import SeamlessError
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

INTERVAL: Final = 0.020
START_SECONDS: Final = 10.0
"""Python is up long before."""

ECHO: Final = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listening:
    connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(4096):
        connection.sendall(data)
"""

ASK: Final = """
import json, socket, sys, threading, time
address, port, interval, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
connection = socket.create_connection((address, port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
count = int(seconds / interval)
sent, took = [], []
def receive():
    waiting = b""
    while len(took) < count:
        waiting += connection.recv(4096)
        while len(waiting) >= 64:
            took.append(time.monotonic() - sent[int(waiting[:8])])
            waiting = waiting[64:]
receiver = threading.Thread(target=receive)
receiver.start()
begin = time.monotonic()
for number in range(count):
    time.sleep(max(0, begin + number * interval - time.monotonic()))
    sent.append(time.monotonic())
    connection.sendall(b"%08d" % number + bytes(56))
receiver.join()
print(json.dumps(took))
"""


def start_asking(lab: Lab, port: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start an echo on dst and, once it listens, a program on src that asks it for so long; for `answers`."""
    echo = lab.popen(SERVER, [sys.executable, "-S", "-c", ECHO, str(port)])
    give_up_at = time.monotonic() + START_SECONDS
    while port not in lab.host(SERVER).listening_ports():
        if echo.poll() is not None or time.monotonic() > give_up_at:
            raise SeamlessError(f"the echo on {SERVER} does not listen on port {port}")
        time.sleep(0.02)
    address = str(lab.configuration.hosts[SERVER].addresses[0])
    words = [address, str(port), str(INTERVAL), str(seconds)]
    return lab.popen(CLIENT, [sys.executable, "-S", "-c", ASK, *words], stdout=subprocess.PIPE)


def answers(asking: subprocess.Popen[bytes]) -> list[float]:
    """Wait for the end of the asking; return how many seconds each answer took."""
    words, _ = asking.communicate()
    try:
        return [float(seconds) for seconds in json.loads(words)]
    except ValueError:
        raise SeamlessError("the connection of the keystrokes broke") from None


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
