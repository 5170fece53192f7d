"""What the lab's emulator can carry, and what it costs.

``one`` is a single wire between two hosts; ``chain`` is three wires of 500 Mb/s one after the other, so that whatever
crosses it is carried three times. The last column is the emulator's share of one processor.
"""

from __future__ import annotations

import json
import time

from bench.experiment import Conditions
from seamless.config.load import load_text
from seamless.lab.lab import Lab
from seamless.linux.system import cpu_seconds

CHAIN = """
overlay bench { }
host a { address 10.80.9.1; }
host b { }
host c { }
host d { address 10.80.9.2; run iperf3; }
"""
WIRE = "wire {0} {1} {{ between 10.80.{2}.1/24 10.80.{2}.2/24; {3} carries 10.80.9.1 10.80.9.2; }}\n"
ONE_ROW = "{:34} {:>10} {:>10} {:>8} {:>8} {:>8}"

SCENARIOS: tuple[tuple[str, list[str], str, list[str]], ...] = (
    ("one, perfect", ["ad"], "", ["-C", "cubic"]),
    ("one, 10 ms RTT", ["ad"], "delay 5 ms;", ["-C", "cubic"]),
    ("one, 10 ms RTT, 0.5 % loss, BBR", ["ad"], "delay 5 ms; loss 0.5 %;", ["-C", "bbr"]),
    ("chain, 500 Mb/s", ["ab", "bc", "cd"], "delay 5 ms; rate 500 mbit; queue 2 MiB;", ["-C", "bbr"]),
    (
        "chain, 500 Mb/s, 0.5 % loss",
        ["ab", "bc", "cd"],
        "delay 5 ms; rate 500 mbit; queue 2 MiB; loss 0.5 %;",
        ["-C", "bbr"],
    ),
)


def measure(name: str, joins: list[str], impairment: str, options: list[str], seconds: float) -> list[str]:
    """Run one transfer and return its row."""
    wires = "".join(WIRE.format(*pair, index, impairment) for index, pair in enumerate(joins, start=1))
    with Lab(load_text(CHAIN + wires, "bench")) as lab:
        lab.start_servers()
        cpu, began = cpu_seconds(lab.emulator_pid), time.monotonic()
        command = ["iperf3", "-J", "-c", "10.80.9.2", "-t", f"{seconds:g}", *options]
        result = json.loads(lab.run("a", command, timeout=seconds + 30).stdout)
        share = (cpu_seconds(lab.emulator_pid) - cpu) / (time.monotonic() - began)
        counters = lab.counters(*joins[0])["a"]
    rate = result["end"]["sum_received"]["bits_per_second"] / 1e6
    size = counters["packets_in"] / counters["units_in"]
    return [name, f"{rate:.0f}", f"{size:.1f}", str(counters["lost"]), str(counters["split"]), f"{share * 100:.0f} %"]


def run(conditions: Conditions) -> None:
    """Measure everything and print the table."""
    print(ONE_ROW.format("iperf3, one connection", "Mb/s", "pkts/unit", "lost", "split", "CPU"))
    for scenario in conditions.cases(SCENARIOS):
        print(ONE_ROW.format(*measure(*scenario, conditions.seconds)), flush=True)
