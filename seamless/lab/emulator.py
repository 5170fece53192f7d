"""The emulator: one process that carries all wires of a lab, between TUN devices.

Each end of a wire is a TUN device inside a host. What a host sends into its end is read here, offered to the
`ImpairedDirection` of that wire, and what survives is written into the other end when its time has come. Packets stay
the 64 kB super-packets that the kernel made of them unless something happens to one of their wire packets.

The process has one loop without threads: packets that are due go first, then every device that has something is read,
then it sleeps until the next packet is due. `select` sleeps with microseconds; `epoll`, in Python, only with
milliseconds. It ends when its standard input does, that is with its owner.

The emulator must not be the thing that is measured. It shares its processors with what it carries, so it takes turns
of `_TURN_SECONDS` instead of a wake-up per packet. And it may be late: a packet that it finds in a device has been
there since some moment after the device was last seen empty, and a wire would have been sending it meanwhile; so that
is when it counts as sent (but no longer ago than `_LATENESS_SECONDS`).
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import sys
import time
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final

import attrs

from seamless.errors import SeamlessError
from seamless.lab.emulator_control import EmulatorControl, EmulatorPlan
from seamless.lab.impair import ImpairedDirection, Piece
from seamless.lab.superpacket import VNET_BYTES, Shape, corrupt, cut, shape
from seamless.linux.tun import enter_network, open_tun

_READ_BYTES: Final = VNET_BYTES + 65_536
"""Bytes of the longest packet that a TUN device hands over."""
_READS_A_TURN: Final = 16
"""Super-packets (a megabyte) taken from one device before the others and the due packets get their turn."""
_PR_SET_TIMERSLACK: Final = 29
"""include/uapi/linux/prctl.h"""
_TIMER_SLACK_NANOSECONDS: Final = 1000
"""The kernel's default of 50 us would be seen in the delays."""


_TURN_SECONDS: Final = 0.0002
"""While there is something to do: what a packet may be early or late by."""
_LATENESS_SECONDS: Final = 0.004
"""The longest that a packet may have waited unseen: a time slice of the scheduler."""


@attrs.define
class Traffic:
    """What one direction of a wire did beyond the impairments: the emulator's own counters, in super-packets."""

    split: int = 0
    refused: int = 0


class Direction:
    """One direction of a wire: from the device it is read from to the device it is written to."""

    def __init__(self, source: int, target: int, impaired: ImpairedDirection) -> None:
        self.source = source
        self.target = target
        self.impaired = impaired
        self.traffic = Traffic()

    def counters(self) -> dict[str, int]:
        """Return every counter by name."""
        return {**attrs.asdict(self.impaired.counters), **attrs.asdict(self.traffic)}


class Emulator:
    """The event loop of the emulator. ``wires``: pairs of directions (from the first end, from the second end)."""

    def __init__(self, wires: list[tuple[Direction, Direction]], seed: int, control: EmulatorControl) -> None:
        self._wires = wires
        self._seed = seed
        self._control = control
        self._randomness = random.Random(f"{seed} corruption")
        self._by_source = {direction.source: direction for wire in wires for direction in wire}
        self._due: list[tuple[float, int, Direction, bytes]] = []
        self._sequence = 0

    def run(self) -> None:
        """Carry packets until standard input ends."""
        stdin = sys.stdin.fileno()
        devices = list(self._by_source)
        turn_at = time.monotonic()
        while True:
            timeout = self._deliver()
            readable, _, _ = select.select([*devices, stdin, *self._control.descriptors()], [], [], 0)
            if not readable:
                # Nothing came since the last look: what comes now wakes us, and comes now.
                readable, _, _ = select.select([*devices, stdin, *self._control.descriptors()], [], [], timeout)
                turn_at = time.monotonic()
            seen_at = max(turn_at, time.monotonic() - _LATENESS_SECONDS)
            turn_at = time.monotonic()
            for descriptor in readable:
                direction = self._by_source.get(descriptor)
                if direction is not None:
                    self._take(direction, seen_at)
                elif descriptor == stdin:
                    return
                else:
                    self._control.answer(descriptor, self._obey)
            if readable:
                time.sleep(_TURN_SECONDS)

    def _deliver(self) -> float | None:
        """Write what is due in this turn; return the seconds until the next packet is, or None."""
        due = self._due
        now = time.monotonic()
        while due:
            wait = due[0][0] - now
            if wait > _TURN_SECONDS / 2:
                return wait
            _, _, direction, packet = heappop(due)
            try:
                os.write(direction.target, packet)
            except OSError:
                # The device is down, or the kernel does not believe the packet: a real wire would not know either.
                direction.traffic.refused += 1
        return None

    def _take(self, direction: Direction, seen_at: float) -> None:
        """Read what a device has to send, and schedule what survives; it counts as sent at ``seen_at``."""
        source = direction.source
        offer = direction.impaired.offer
        due = self._due
        for _ in range(_READS_A_TURN):
            try:
                packet = os.read(source, _READ_BYTES)
            except BlockingIOError:
                return
            form = shape(packet)
            pieces = offer(seen_at, *form)
            if len(pieces) == 1 and pieces[0].packets * form.segment_bytes >= form.payload_bytes:
                if pieces[0].corrupt:
                    packet = corrupt(packet, self._randomness.random())
                self._sequence += 1
                heappush(due, (pieces[0].at, self._sequence, direction, packet))
            elif pieces:
                self._schedule(direction, packet, form, pieces)

    def _schedule(self, direction: Direction, packet: bytes, form: Shape, pieces: list[Piece]) -> None:
        """Cut the pieces out of the packet, and schedule each."""
        whole = packet[1] == 0
        direction.traffic.split += not whole
        for piece in pieces:
            part = packet if whole else cut(packet, form, piece.first, piece.packets)
            if piece.corrupt:
                part = corrupt(part, self._randomness.random())
            self._sequence += 1
            heappush(self._due, (piece.at, self._sequence, direction, part))

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request of the control port."""
        match request:
            case {"do": "counters"}:
                return {"seed": self._seed, "wires": [[direction.counters() for direction in w] for w in self._wires]}
            case {"do": "impairments"}:
                return {
                    "wires": [[attrs.asdict(direction.impaired.impairment) for direction in w] for w in self._wires]
                }
            case {"do": "set", "wire": int(wire), "end": int(end), "change": dict(change)}:
                impaired = self._wires[wire][end].impaired
                impaired.change(attrs.evolve(impaired.impairment, **change), time.monotonic())
                return {}
        raise SeamlessError("The emulator knows the requests counters, impairments and set.")


def open_wires(plan: EmulatorPlan) -> tuple[list[tuple[Direction, Direction]], bool]:
    """Make the devices of every wire in their hosts; return whether all of them take UDP super-packets."""
    wires = []
    takes_udp = True
    for index, wire in enumerate(plan.wires):
        descriptors = []
        for end in wire.ends:
            enter_network(end.holder_pid)
            descriptor, udp = open_tun(end.device)
            descriptors.append(descriptor)
            takes_udp = takes_udp and udp
        # Each direction has randomness of its own: what one wire carries does not change another's losses.
        forward = ImpairedDirection(wire.forward, random.Random(f"{plan.seed} {index} forward"))
        backward = ImpairedDirection(wire.backward, random.Random(f"{plan.seed} {index} backward"))
        one, other = descriptors
        wires.append((Direction(one, other, forward), Direction(other, one, backward)))
    return wires, takes_udp


def main() -> int:
    """Run the plan that the one argument names: ``python -m seamless.lab.emulator PLAN CONTROL_SOCKET``."""
    plan_path, control_path = map(Path, sys.argv[1:])
    try:
        plan = EmulatorPlan.from_json(plan_path.read_text(encoding="utf-8"))
        wires, takes_udp = open_wires(plan)
        control = EmulatorControl(control_path)
    except (SeamlessError, OSError) as error:
        print(error, flush=True)
        return 1
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NANOSECONDS, 0, 0, 0)
    print("ready with UDP offload" if takes_udp else "ready", flush=True)
    Emulator(wires, plan.seed, control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
