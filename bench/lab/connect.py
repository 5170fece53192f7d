"""What `connect` and `source` cost: the time of connect(), the time to a first answer, and connections per second.

Two hosts with a wire of 20 ms between them, natively and with each pair of `connect` and `source`, one after the other
in one run. Each connection is made, asks one byte, gets one back and is closed; for the rate 64 clients do so at once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import attrs

from bench.experiment import Conditions
from seamless.config.load import load_file
from seamless.lab.lab import Lab

ROUND_TRIP: Final = 0.02
MOST_OVER: Final = 0.005
"""Seconds beyond the round trip that `connect confirmed` may take."""
WAYS: Final = {
    "native": "",
    "early": "connect early;",
    "confirmed": "connect confirmed;",
    "learned": "connect learned;",
    "confirmed, client": "connect confirmed; source client;",
    "learned, client": "connect learned; source client;",
}
CONFIGURATION: Final = """
overlay connect { }
node src {
    address 10.1.4.1:7400;
    serves 10.1.9.1;
    key "7QEzXKA80eEaimxwwo3ikbFUJ4nNqsKfQ9shXCsLCOGGhw==";
}
node dst {
    address 10.1.4.2:7400;
    serves 10.1.9.2;
    key "7QGKUtMFb24mofm1tfdhNaOosfKrUdAPCkTJCqIfI6hCFA==";
}
link src dst { rate 500 mbit; congestion off; }
intercept payload { tcp port 5001; on src; %s }
host src { address 10.1.9.1; }
host dst { address 10.1.9.2; }
wire src dst { between 10.1.4.1/30 10.1.4.2/30; delay 10 ms; carries 10.1.9.1 10.1.9.2; }
"""

_SERVER: Final = """
import asyncio
async def answer(reader, writer):
    try:
        writer.write(await reader.read(1))
        await reader.read()
    except ConnectionResetError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "10.1.9.2", 5001, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
_CLIENT: Final = """
import json, socket, sys, threading, time
def once():
    with socket.socket() as sock:
        sock.bind(("10.1.9.1", 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic()
        sock.connect(("10.1.9.2", 5001))
        connected = time.monotonic()
        sock.sendall(b"?")
        assert sock.recv(1) == b"?"
        return connected - begun, time.monotonic() - begun
once()
alone = [once() for _ in range(30)]
counts = []
def many(until):
    count = 0
    while time.monotonic() < until:
        once()
        count += 1
    counts.append(count)
seconds = float(sys.argv[1])
begun = time.monotonic()
threads = [threading.Thread(target=many, args=(begun + seconds,)) for _ in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"alone": alone, "rate": sum(counts) / (time.monotonic() - begun)}))
"""


@attrs.frozen
class Costs:
    """What one way costs: median seconds of connect() and to the first answer, and connections per second."""

    connect: float
    answer: float
    rate: float


def run(conditions: Conditions) -> None:
    """Measure every way, each in a lab of its own."""
    print(f"{'':<20}{'connect(), ms':>16}{'answer, ms':>14}{'connections/s':>16}", flush=True)
    for way in conditions.cases(tuple(WAYS)):
        costs = _measure(way, conditions.seconds)
        print(f"{way:<20}{costs.connect * 1e3:>16.2f}{costs.answer * 1e3:>14.2f}{costs.rate:>16.0f}", flush=True)
        if way.startswith("confirmed"):
            over = costs.connect - ROUND_TRIP
            sentence = f"{over * 1e3:.1f} ms beyond the round trip, at most {MOST_OVER * 1e3:.0f}"
            conditions.verdicts.judge(over <= MOST_OVER, sentence)


def _measure(way: str, seconds: float) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "connect.conf"
        file.write_text(CONFIGURATION % WAYS[way], encoding="utf-8")
        with Lab(load_file(file), configuration_file=file) as lab:
            server = lab.popen("dst", [sys.executable, "-c", _SERVER], stdout=-1, stderr=None)
            assert server.stdout is not None
            server.stdout.readline()
            if way != "native":
                lab.start_nodes()
                lab.node("src").wait_until_reaches("dst")
                lab.node("dst").wait_until_reaches("src")
                lab.node("src").wait_until_has_rules()
                if "source client" in WAYS[way]:
                    lab.node("dst").wait_until_has_rules()
            done = lab.run("src", [sys.executable, "-c", _CLIENT, str(seconds)], timeout=seconds + 60)
    found = json.loads(done.stdout)
    connects, answers = (sorted(one[which] for one in found["alone"]) for which in (0, 1))
    return Costs(connects[len(connects) // 2], answers[len(answers) // 2], found["rate"])
