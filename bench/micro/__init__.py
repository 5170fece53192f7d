"""Benchmarks of one part by itself: one processor, no privilege, no lab."""

from __future__ import annotations

from typing import Final

from bench.experiment import Experiment
from bench.micro import crypto, path, scale, session, splice, udp

EXPERIMENTS: Final = (
    Experiment("crypto", "sealing, opening, the replay window, handshakes, and refusing them", crypto.run, 6.0),
    Experiment("path", "what `congestion auto` makes of a path, on virtual time", path.run, 4.0),
    Experiment("scale", "routing in rings of 50 to 1,000 nodes with random chords, on virtual time", scale.run, 6.0),
    Experiment("session", "two session cores back to back, and what a record costs at each end", session.run, 5.0),
    Experiment("splice", "processor time for each 64 kB of a splice, and idle ones", splice.run, 5.0),
    Experiment("udp", "UDP ports with one datagram a system call, and in batches", udp.run, 2.0),
)
