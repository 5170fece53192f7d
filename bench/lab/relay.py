"""How long a receiver waits for its next byte when the relay on the way dies, or a wire goes dark, in mid-transfer.

The bed of ``two-ways.conf``: a transfer as fast as it gets goes by r1, and r2 is the second way. One connection lives
through everything. Each time r1 is killed with -9, or one of its wires goes dark, it is first seen that the bytes go
by r1 and afterwards that they go by r2; then it comes back, and the bytes with it. At the end no byte may be missing.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from bench.experiment import Conditions, Verdicts
from bench.lab.watched import bed
from seamless.errors import SeamlessError
from seamless.lab import measure
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER

FILE: Final = Path(__file__).with_name("two-ways.conf")
RELAY: Final = "r1"
SECOND: Final = "r2"
PORT: Final = 5202
TIMES: Final = 10
MOST_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 0.2
"""Over which it is seen which way the bytes go."""
PATIENCE_SECONDS: Final = 20.0
"""For a killed relay to be back on the way; its start alone takes two."""
DARK_SECONDS: Final = 2.0
MOVED_BYTES: Final = 100_000
"""More than what links say without a transfer, in the time of a watch."""

SEND: Final = """
import hashlib, json, os, select, socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
block, digest, count = os.urandom(1 << 16), hashlib.sha256(), 0
while not select.select([sys.stdin], [], [], 0)[0]:
    data = count.to_bytes(8, "big") + block
    digest.update(data)
    connection.sendall(data)
    count += 1
connection.shutdown(socket.SHUT_WR)
print(json.dumps({"bytes": count * len(data), "sha256": digest.hexdigest()}))
"""

RECEIVE: Final = """
import hashlib, json, socket, sys, time
with socket.create_server(("", int(sys.argv[1]))) as listening:
    connection, _ = listening.accept()
buffer, digest, count, waits = bytearray(1 << 18), hashlib.sha256(), 0, []
before = time.monotonic()
while received := connection.recv_into(buffer):
    now = time.monotonic()
    waits.append((before, now - before))
    digest.update(memoryview(buffer)[:received])
    count += received
    before = time.monotonic()
waits = [(at, wait) for at, wait in waits if wait > 0.005]
print(json.dumps({"bytes": count, "sha256": digest.hexdigest(), "waits": waits}))
"""


@attrs.frozen
class Blow:
    """Something that was done to the first way: when, until it was over, and when it was to come back."""

    name: str
    struck_at: float
    mended_at: float
    over_at: float


@attrs.frozen
class Fault:
    """What is done to the first way, and how it is undone."""

    name: str
    strike: Callable[[Lab], object]
    mend: Callable[[Lab], object]


def _dark(one: str, other: str) -> Fault:
    return Fault(
        f"wire {one} - {other} dark",
        lambda lab: lab.set_wire(one, other, down=True),
        lambda lab: lab.set_wire(one, other, down=False),
    )


FAULTS: Final = (
    Fault(
        f"{RELAY} killed with -9",
        lambda lab: lab.stop_node(RELAY, signal.SIGKILL),
        lambda lab: lab.start_nodes([RELAY]),
    ),
    _dark(CLIENT, RELAY),
    _dark(RELAY, SERVER),
)


def run(conditions: Conditions) -> None:
    """Strike so many times each, during one transfer, and print the longest waits of the receiver."""
    with bed(FILE) as lab:
        lab.start_nodes()
        measure.wait_for_overlay(lab.node(CLIENT), lab.node(SERVER))
        for neighbor in (RELAY, SECOND):
            lab.node(CLIENT).wait_until_link_is_up(neighbor)
        receiver = lab.popen(SERVER, [sys.executable, "-S", "-c", RECEIVE, str(PORT)], stdout=subprocess.PIPE)
        _wait_until(lambda: PORT in lab.host(SERVER).listening_ports())
        address = str(lab.configuration.hosts[SERVER].addresses[0])
        argv = [sys.executable, "-S", "-c", SEND, address, str(PORT)]
        sender = lab.popen(CLIENT, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        blows = [_strike(lab, fault) for fault in conditions.cases(FAULTS) for _ in conditions.cases(range(TIMES))]
        sent = json.loads(sender.communicate()[0])
        received = json.loads(receiver.communicate()[0])
    _report(blows, sent, received, conditions.verdicts)


def _strike(lab: Lab, fault: Fault) -> Blow:
    """Wait until bytes go by the relay, strike, see that they go by the other, mend."""
    _wait_until(lambda: _moves(lab, RELAY))
    struck_at = time.monotonic()
    fault.strike(lab)
    time.sleep(DARK_SECONDS)
    if _moves(lab, RELAY) or not _moves(lab, SECOND):
        raise SeamlessError(f"{fault.name}, but the bytes do not go by {SECOND}")
    mended_at = time.monotonic()
    fault.mend(lab)
    _wait_until(lambda: _moves(lab, RELAY))
    return Blow(fault.name, struck_at, mended_at, time.monotonic())


def _moves(lab: Lab, relay: str) -> bool:
    """Return whether a relay hands on the bytes of a transfer."""
    before = lab.counters(relay, SERVER)[relay]["bytes_in"]
    time.sleep(WATCH_SECONDS)
    return lab.counters(relay, SERVER)[relay]["bytes_in"] - before > MOVED_BYTES


def _wait_until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > give_up_at:
            raise SeamlessError(f"the transfer is not where it should be after {PATIENCE_SECONDS:g} s")
        time.sleep(WATCH_SECONDS / 4)


def _report(blows: list[Blow], sent: dict[str, Any], received: dict[str, Any], verdicts: Verdicts) -> None:
    """Print the longest wait after each blow, after each return, and while nothing was done."""

    def longest(begin: float, end: float) -> float:
        return max((wait for at, wait in received["waits"] if at + wait > begin and at < end), default=0.0)

    print(f"{'longest wait in ms':<26}each")
    for fault in dict.fromkeys(blow.name for blow in blows):
        struck = [longest(blow.struck_at, blow.mended_at) for blow in blows if blow.name == fault]
        back = [longest(blow.mended_at, blow.over_at) for blow in blows if blow.name == fault]
        print(f"{fault:<26}{' '.join(f'{wait * 1e3:5.0f}' for wait in struck)}")
        print(f"{'  mended, back on the way':<26}{' '.join(f'{wait * 1e3:5.0f}' for wait in back)}")
        verdicts.judge(max(struck + back) <= MOST_SECONDS, f"never longer than {MOST_SECONDS * 1e3:.0f} ms")
    quiet = [longest(one.over_at, other.struck_at) for one, other in itertools.pairwise(blows)]
    print(f"{'before the next':<26}{' '.join(f'{wait * 1e3:5.0f}' for wait in quiet)}")
    equal = (sent["bytes"], sent["sha256"]) == (received["bytes"], received["sha256"])
    verdicts.judge(
        equal, f"{sent['bytes'] / 1e6:.0f} MB sent, {received['bytes'] / 1e6:.0f} MB arrived, equal to the byte"
    )
