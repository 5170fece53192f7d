"""Plays a schedule from its beginning to quiet, and checks what applications see against the oracle.

All faults begin and end as the schedule says. Then wires are as good as their description, and every stream has to end
as its applications let it. At last a stream is opened between every pair that talked: it must carry bytes both ways.
When that is over too, nothing may be left over.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from traceback import format_exc
from typing import Any, Final

import attrs

from seamless.lab.daemons import private_key
from seamless.lab.schedules.applications import Applications
from seamless.lab.schedules.conditions import Conditions
from seamless.lab.schedules.faults import Fault
from seamless.lab.schedules.liveness import NODE_MEMORY_MAX_BYTES, Progress, leftovers, memory_bytes
from seamless.lab.schedules.node_faults import Restart
from seamless.lab.schedules.oracle import Violation
from seamless.lab.schedules.plan import Conversation, Packets, Schedule, Script
from seamless.lab.simulated import Simulation

LOOK_INTERVAL: Final = 0.5
"""Seconds between two checks of progress."""
QUIET_MAX: Final = 60.0
"""Seconds after the last fault within which every stream has ended: ``give up`` and as much again."""
LEFTOVER_MAX: Final = 15.0
"""Seconds after the last stream within which nothing is left over."""
PROBE_BYTES: Final = 5_000
PROBE_SECONDS: Final = 2.0
"""Within so many seconds a packet passes any idle path that a schedule may have."""
NEW_KEYS_SECONDS: Final = 4.0
"""By then two probes without an answer have shown that a peer has lost its keys, and there are new ones."""
PROBE_NUMBER: Final = 1_000_000
"""The number of the first stream that is opened after quiet; those of the schedule are smaller."""


@attrs.frozen
class Result:
    """The result of a schedule: the rule that was broken, if any, and counts."""

    schedule: Schedule
    violation: Violation | None
    at: float
    """Virtual time at its end."""
    streams: int
    read_bytes: int
    packets: int
    endings: Counter[str]
    """How the ends of streams ended."""
    hits: Counter[str]
    """By kind of fault, how many of them took effect."""
    memory_bytes: int = 0
    """What the largest node kept after quiet."""


class ScheduleRun:
    """A schedule that is being played."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.net = Simulation(schedule.configuration(), private_key, Random(schedule.seed))
        self.conditions = Conditions([wire.ends for wire in schedule.wires], schedule.leaves, schedule.pairs)
        self.applications = Applications(schedule, self.net, self.conditions)
        self.noted: dict[Fault, Any] = {}
        self.memory_bytes = 0
        self._progress = Progress(self.net, self.applications)
        for fault in schedule.faults:
            self.net.at(fault.at, fault.begin, self)
            self.net.at(fault.at + fault.length, fault.end, self)

    # What faults do to nodes.

    def crash(self, name: str) -> None:
        """Crash a node and its applications."""
        self.net.crash(name)
        self.applications.die(name)

    def start(self, name: str) -> None:
        """Start a node again."""
        self.net.start(name)

    def stop(self, name: str) -> None:
        """Stop a node's process, and that of its applications."""
        self.net.stop_process(name)

    def go_on(self, name: str, *, timers_first: bool) -> None:
        """Continue a node's process, and that of its applications."""
        self.net.continue_process(name, timers_first=timers_first)
        self.applications.go_on(name)

    # The run.

    def run(self) -> None:
        """Play it all; raise the first `Violation`."""
        self._run_until(max(LOOK_INTERVAL, self.schedule.faults_over_at))
        self._check_faults()
        last_at = max((each.at for each in self.schedule.conversations), default=0.0)
        self._run_until(max(self.net.now, last_at) + QUIET_MAX, whole=False)
        self._check_ended()
        self._probe()
        self._check_left_over()

    def _run_until(self, until: float, *, whole: bool = True) -> None:
        """Let time pass up to ``until``, or, unless the ``whole`` of it must, up to when all streams have ended."""
        while self.net.now < until and (whole or not self._all_over()):
            self.net.run(min(until, self.net.now + LOOK_INTERVAL))
            self._progress.look(excused=self.conditions.excuse_stalls(self.net.now))

    def _all_over(self) -> bool:
        begun = all(each.at <= self.net.now for each in self.schedule.conversations)
        return begun and all(end.over for end in self.applications.ends)

    def _check_ended(self) -> None:
        for end in self.applications.ends:
            if not end.over:
                state = f"wrote {end.written}, read {end.received}, far {end.far.over if end.far else 'never opened'}"
                raise Violation("ends", f"{end} does not end: {state}")

    def _check_faults(self) -> None:
        for fault in self.schedule.faults:
            if fault.must_hit(self) and not fault.hits(self):
                raise Violation("fault", f"took no effect: {fault}")

    def _probe(self) -> None:
        """Open a stream between each pair that talked: all is as it was before the faults.

        A whole packet follows, after some seconds if a node was restarted: what is sealed for the former life of a peer
        that was not heard since is lost, as nothing sends whole packets again end to end.
        """
        restarted = any(isinstance(each, Restart) for each in self.schedule.faults)
        packet_at = self.net.now + (NEW_KEYS_SECONDS if restarted else 0.0)
        script = Script(((0.0, PROBE_BYTES),))
        packets = self.applications.packets
        arrived = packets.arrived + len(self.schedule.pairs)
        for number, pair in enumerate(sorted(map(sorted, self.schedule.pairs))):
            client, server = pair
            conversation = Conversation(PROBE_NUMBER + number, client, server, self.net.now, script, script)
            train = Packets(PROBE_NUMBER + number, client, server, packet_at, 1, 0.0, PROBE_BYTES, True)
            self.applications.add(conversation, train)
        self.net.run(packet_at + PROBE_SECONDS)
        self._run_until(self.net.now + QUIET_MAX, whole=False)
        self._check_ended()
        for end in self.applications.ends:
            if end.conversation.number >= PROBE_NUMBER and end.over != "closed":
                raise Violation("ends", f"after quiet {end} was not closed: {end.over}")
        if packets.arrived < arrived:
            raise Violation("packet", f"after quiet {arrived - packets.arrived} whole packets did not arrive")

    def _check_left_over(self) -> None:
        until = self.net.now + LEFTOVER_MAX
        left = list(leftovers(self.net))
        while left and self.net.now < until:
            self.net.run(self.net.now + LOOK_INTERVAL)
            left = list(leftovers(self.net))
        if left:
            raise Violation("leftover", "; ".join(left))
        for name in self.net.nodes:
            size = memory_bytes(self.net.node(name))
            self.memory_bytes = max(self.memory_bytes, size)
            if size > NODE_MEMORY_MAX_BYTES:
                raise Violation("leftover", f"{name} keeps {size} bytes of memory")

    def result(self, violation: Violation | None) -> Result:
        """Return the result of the run."""
        hits: Counter[str] = Counter()
        for fault in self.schedule.faults:
            if self.net.now >= fault.at + fault.length:
                hits[fault.kind] += fault.hits(self) > 0
        ends = self.applications.ends
        return Result(
            schedule=self.schedule,
            violation=violation,
            at=self.net.now,
            streams=sum(end.is_client for end in ends),
            read_bytes=sum(end.received for end in ends),
            packets=self.applications.packets.arrived,
            endings=Counter(end.over or "none" for end in ends),
            hits=hits,
            memory_bytes=self.memory_bytes,
        )


def play(schedule: Schedule) -> Result:
    """Play a schedule; the result holds the first rule that was broken, if any was."""
    bed = ScheduleRun(schedule)
    try:
        bed.run()
    except Violation as violation:
        return bed.result(violation)
    except Exception:
        return bed.result(Violation("error", format_exc()))
    return bed.result(None)
