"""Benchmarks on an emulated lab: hosts as network namespaces, wires that lose, real TCP beside the overlay."""

from __future__ import annotations

from typing import Final

from bench.experiment import Experiment
from bench.lab import (
    bed,
    compared,
    connect,
    emulator,
    gigabit,
    keystroke,
    measuring,
    packets,
    paper,
    relay,
    short,
    unknown_rate,
    wakeup,
)

EXPERIMENTS: Final = (
    Experiment("bed", "all that is promised in figures, on the bed of etc/lab.conf", bed.run, 10.0),
    Experiment("paper", "the conditions of the seed paper, and its ratios over TCP", paper.run, 10.0),
    Experiment("gigabit", "one connection over links of 1.2 Gb/s, and what limits it", gigabit.run, 10.0),
    Experiment("keystroke", "how much a bulk transfer delays a keystroke", keystroke.run, 10.0),
    Experiment("short", "objects of 10 kB to 100 MB over new connections, against native TCP", short.run, 20.0),
    Experiment("measure", "seamless measure on wires of 20, 100 and 500 Mb/s", measuring.run, 5.0),
    Experiment("wakeup", "64 bytes there and back without delay, idle nodes, calls of a wake-up", wakeup.run, 10.0),
    Experiment("connect", "what each `connect` and `source` costs a new connection", connect.run, 5.0),
    Experiment("auto", "what links carry that were told no rate, beside BBR and CUBIC", unknown_rate.run, 5.0),
    Experiment("relay", "how long a receiver waits when the relay on the way dies", relay.run, 10.0),
    Experiment("compared", "sshuttle, WireGuard and kcptun on the same wires", compared.run, 10.0),
    Experiment("reorder", "CUBIC over whole packets, with and without the reorder buffer", packets.throughput, 10.0),
    Experiment("jitter", "64 bytes there and back every 20 ms at 5 % loss, captured and native", packets.jitter, 60.0),
    Experiment("local", "local beside payload, without loss and delay, and where the time goes", packets.ratio, 10.0),
    Experiment("router", "two sites, without loss and delay", packets.router, 10.0),
    Experiment("emulator", "what the lab's emulator carries, and what it costs", emulator.run, 5.0),
)
