"""How well ``seamless measure`` finds what a wire carries: beside the wire's own rate and loss, three times each.

Two nodes and one wire of 10 ms there and back, whose rate and loss change between the rows. Capacities are of IP
packets, as the wire's rate is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.experiment import Conditions
from bench.lab.watched import bed
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.lab.daemons import environment, private_key
from seamless.lab.demo_report import percent, rate
from seamless.lab.lab import Lab
from seamless.node.measurement import REQUEST_INTERVAL

RATES_BPS: Final = (20_000_000, 100_000_000, 500_000_000)
LOSSES: Final = (0.0, 0.05)
TIMES: Final = 3
QUEUE_SECONDS: Final = 0.04
MOST_WRONG: Final = 0.05
OVERLAY: Final = """
overlay measured {{ }}
node near {{ address 10.91.1.1:7400;  key "{near}"; }}
node far  {{ address 10.91.1.2:7400;  key "{far}"; }}
link near far {{ }}
host near {{ }}
host far {{ }}
wire near far {{ between 10.91.1.1/30 10.91.1.2/30;  delay 5 ms;  rate {rate_bps} bit;  queue {queue_bytes} bytes; }}
"""


@contextmanager
def two_nodes(rate_bps: int) -> Iterator[Lab]:
    """Bring up nodes near and far, joined by a wire of this rate."""
    keys = {name: encode_public_key(public_key_of(private_key(name))) for name in ("near", "far")}
    text = OVERLAY.format(rate_bps=rate_bps, queue_bytes=queue_bytes(rate_bps), **keys)
    with tempfile.TemporaryDirectory(prefix="seamless-bench-") as folder:
        path = Path(folder) / "measured.conf"
        path.write_text(text, encoding="utf-8")
        with bed(path) as lab:
            lab.start_nodes()
            lab.node("near").wait_until_link_is_up("far")
            yield lab


def queue_bytes(rate_bps: int) -> int:
    """Return the bytes of the wire's queue."""
    return int(rate_bps / 8 * QUEUE_SECONDS)


def measured(lab: Lab) -> Any:
    """Run the command, and return what it prints for programs."""
    argv = [sys.executable, "-m", "seamless.tools.main", "measure", "far", "--json"]
    argv += ["--socket", str(lab.node_socket("near"))]
    done = subprocess.run(argv, env=environment(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def run(conditions: Conditions) -> None:
    """Measure wires of each rate and loss."""
    print(f"{'wire':>9} {'loss':>5}   {'there':>9} {'back':>9} {'loss floor':>16} {'waits':>14}   rate line")
    with two_nodes(RATES_BPS[0]) as lab:
        for rate_bps in conditions.cases(RATES_BPS):
            for loss in conditions.cases(LOSSES):
                lab.set_wire("near", "far", rate_bps=rate_bps, queue_bytes=queue_bytes(rate_bps), loss=loss)
                for _ in range(1 if conditions.is_smoke else TIMES):
                    _row(lab, rate_bps, loss, conditions)


def _row(lab: Lab, rate_bps: int, loss: float, conditions: Conditions) -> None:
    began_at = time.monotonic()
    found = measured(lab)
    seconds = time.monotonic() - began_at
    ways = found["out"], found["back"]
    capacities = "".join(f" {rate(way['capacity_bps']):>9}" for way in ways)
    floors = " and ".join(percent(way["loss_floor"]) for way in ways)
    waits = " and ".join(f"{way['queue_delay'] * 1e3:.1f}" for way in ways)
    line = rate(found["rate_bps"])
    print(f"{rate(rate_bps):>9} {percent(loss):>5}  {capacities} {floors:>16} {waits:>11} ms   {line}, {seconds:.1f} s")
    wrong = max(abs(way["capacity_bps"] / rate_bps - 1) for way in ways)
    if not conditions.is_smoke:
        conditions.verdicts.judge(wrong <= MOST_WRONG, f"within {percent(MOST_WRONG)}")
    time.sleep(max(0.0, REQUEST_INTERVAL - seconds))
