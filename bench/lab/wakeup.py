"""What a wake-up of a node costs: 64 bytes there and back over three hops whose wires take no time, and idle nodes.

The bed of ``etc/lab.conf`` with a fifth node, so that r1 has three links, and with wires that neither delay nor lose.
First an application over the native wire and over the overlay, 64 bytes every 20 ms, and ``seamless ping`` between the
same two nodes. Then nobody speaks, and the daemons' processor time is that of hellos and timers. Last, on virtual time,
the calls of functions that one wake-up makes: each ends when the node is asked for its next deadline.
"""

from __future__ import annotations

import time
from random import Random
from typing import Final

from bench.experiment import Conditions
from bench.lab.asking import answers, percentile, start_asking
from bench.lab.packets import NATIVE_PORT, clear
from bench.lab.watched import Watched, bed, changed, start_watched
from seamless.config.load import load_file
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.lab import measure
from seamless.lab.daemons import private_key
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, SERVER
from seamless.lab.simulated import Simulation
from seamless.linux import control_socket
from seamless.test.lab.test_simulated import settle
from seamless.test.node.counted import count_wakeups
from seamless.test.node.echoes import Echoes

CAPTURED_PORT: Final = 5202
PERCENTILES: Final = (10.0, 50.0, 90.0, 99.0)
PINGS_PER_SECOND: Final = 20
THERE_AND_BACK: Final = 0.0015
"""Seconds at the median, of an application."""
APART: Final = 0.0003
"""Seconds between an application and ``seamless ping``."""
IDLE_SHARE: Final = 0.005
"""Of a processor, for a node with three links."""
IDLE_NODE: Final = "r1"
FIFTH: Final = f"""
node x {{ address 10.1.5.1:7400; key "{encode_public_key(public_key_of(private_key("x")))}"; }}
host x {{ }}
wire x r1 {{ between 10.1.5.1/30 10.1.5.2/30; }}
link x r1 {{ between 10.1.5.1 10.1.5.2;  rate 500 mbit;  congestion off; }}
"""
CHANGES: Final = (
    ("node src {", FIFTH + "node src {"),
    ("address 10.1.1.2:7400, 10.1.2.1:7400;", "address 10.1.1.2:7400, 10.1.2.1:7400, 10.1.5.2:7400;"),
)


def run(conditions: Conditions) -> None:
    """Measure there and back, then idle nodes, then count calls."""
    with changed(*CHANGES) as file, bed(file) as lab:
        clear(lab)
        print(f"{'ms':<18}" + "".join(f"{f'{percent:g} %':>9}" for percent in PERCENTILES))
        _row("native TCP", answers(start_asking(lab, NATIVE_PORT, conditions.seconds)))
        watched = start_watched(lab)
        verdicts = conditions.verdicts
        took = _row("over three hops", answers(start_asking(lab, CAPTURED_PORT, conditions.seconds)))
        pinged = _row("seamless ping", _pings(lab, conditions.seconds))
        verdicts.judge(took <= THERE_AND_BACK, f"at most {THERE_AND_BACK * 1e3:g} ms at the median")
        verdicts.judge(abs(took - pinged) <= APART, f"application and ping within {APART * 1e3:g} ms of each other")
        idle = _idle(watched, conditions.seconds)
        print("idle: " + ", ".join(f"{name} {share:.2%} of a processor" for name, share in idle.items()))
        verdicts.judge(idle[IDLE_NODE] < IDLE_SHARE, f"{IDLE_NODE}, with three links, less than {IDLE_SHARE:.1%}")
    _count_calls(conditions.seconds)


def _row(name: str, samples: list[float]) -> float:
    """Print one row; return the median."""
    print(f"{name:<18}" + "".join(f"{percentile(samples, each) * 1e3:9.2f}" for each in PERCENTILES), flush=True)
    return percentile(samples, 50.0)


def _pings(lab: Lab, seconds: float) -> list[float]:
    """Return how long pings took, in seconds: each a stream of its own, as a new connection is."""
    path, took = lab.node(CLIENT).socket, []
    for _ in range(max(1, int(seconds * PINGS_PER_SECOND))):
        answer = control_socket.ask(path, {"ask": "ping", "node": SERVER})
        if answer["round_trip"] is not None:
            took.append(float(answer["round_trip"]))
        time.sleep(1 / PINGS_PER_SECOND)
    return took


def _idle(watched: Watched, seconds: float) -> dict[str, float]:
    """Return the processors that daemons take while nobody speaks."""
    time.sleep(1.0)  # the last acknowledgements
    before, begun_at = watched.cpu(), time.monotonic()
    time.sleep(2 * seconds)
    interval = time.monotonic() - begun_at
    return {name: (cpu - before[name]) / interval for name, cpu in watched.cpu().items() if name != "wires"}


def _count_calls(seconds: float) -> None:
    """Print the calls that wake-ups of an ingress, two relays and an egress make while 64 bytes go there and back."""
    print(f"{'virtual time':<18}{'wake-ups':>9}{'Python calls':>14}{'C calls':>9}   each time, each wake-up")
    net = Simulation(load_file(measure.BED_FILE), private_key, Random(1))
    settle(net)
    echoes = Echoes(net, CLIENT, SERVER)
    echoes.strike()
    counts = {name: count_wakeups(net, name) for name in net.nodes}
    strikes = max(1, int(seconds / echoes.interval))
    for _ in range(strikes):
        echoes.strike()
    for name, counted in counts.items():
        print(f"{name:<18}{counted.wakeups / strikes:9.1f}{counted.each:14.0f}{counted.each_c:9.0f}", flush=True)
