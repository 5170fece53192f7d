"""Measurements on the test bed of ``etc/lab.conf``: unmodified programs between two of its hosts.

The bed has two ways from ``src`` to ``dst``: the native wire, and the wires under the overlay, of which the middle one
is lossy. Without nodes everything takes the native wire and TCP is on its own, with the congestion control that the
wire's routes ask for. With nodes the captured connections take the overlay. So one lab serves both, one after the
other, and the counters of the native wire tell that nothing went astray.

Rates are in bits per second of what the application moved: iperf3 as its receiver counted them, without the first
second; scp as the size of the file over the time of the whole command, connection set-up included.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import attrs

import seamless
from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.errors import ConfigurationError, SeamlessError
from seamless.lab.bed import Bed
from seamless.lab.daemons import RunningNode

BED_FILE: Final = Path(seamless.__file__).parents[1] / "etc" / "lab.conf"
CLIENT: Final = "src"
SERVER: Final = "dst"
NATIVE_WIRE: Final = (CLIENT, SERVER)
OVERLAY_WIRE: Final = ("r1", "r2")
"""The middle hop: what crosses the overlay crosses this."""

RAMP_SECONDS: Final = 1
"""What iperf3 leaves out at the start: every way needs some round trips to find its rate."""
_PATIENCE_SECONDS: Final = 60.0
"""Beyond the time that a transfer was planned for: connections open and close slowly over a lossy wire."""
_SLOWEST_BPS: Final = 100_000
"""No transfer of the bed is slower; it bounds the wait for one that hangs."""
_SILENCE_SECONDS: Final = 2.0
"""More than the last segments of a connection wait for their resend, though two in a row were lost."""
_BUSY_SECONDS: Final = 0.5
"""Between two tries to reach an iperf3 server that has not noticed yet that its last client is gone."""
_BUSY: Final = ("the server is busy", "unable to receive control message: Connection reset")
"""iperf3's messages for it; the second is the same, overtaken by the reset of its connection."""
_BLOCK_BYTES: Final = 1 << 20


@attrs.frozen
class Throughput:
    """What iperf3 says of one run: all connections together, each, and what came the other way with ``--bidir``."""

    bps: float
    each_bps: tuple[float, ...]
    backward_bps: float
    congestion: str
    """The congestion control that the sending kernel used."""


@attrs.frozen
class Copied:
    """A file that scp copied, and its SHA-256 as seen by the host that sent it and by the one that has it now."""

    size_bytes: int
    seconds: float
    sent_sha256: str
    received_sha256: str

    @property
    def bps(self) -> float:
        """Return the rate of the whole command."""
        return self.size_bytes * 8 / self.seconds

    @property
    def equal(self) -> bool:
        """Return whether both checksums are equal."""
        return self.sent_sha256 == self.received_sha256


def load_bed() -> Configuration:
    """Read the bed's configuration, which is part of a checkout and not of an installation."""
    if not BED_FILE.exists():
        raise ConfigurationError(f"{BED_FILE} is not there: run this from a checkout of seamless")
    return load_file(BED_FILE)


def set_loss(bed: Bed, loss: float) -> None:
    """Have the native wire and the overlay's middle one lose this share of packets, in both directions."""
    for one, other in (NATIVE_WIRE, OVERLAY_WIRE):
        bed.set_wire(one, other, loss=loss)


def set_congestion_control(bed: Bed, name: str) -> None:
    """Have TCP over the native wire use a congestion control, both ways; a `SeamlessError` if the kernel lacks it.

    It becomes an attribute of the routes (ip-route(8), ``congctl``): ssh has no option for it, and the sysctl of a
    network namespace takes only what the machine allows to every user.
    """
    wire = next(wire for wire in bed.wires if set(wire.hosts) == set(NATIVE_WIRE))
    for host, device in zip(wire.hosts, wire.devices, strict=True):
        for route in bed.run(host, ["ip", "route", "show", "dev", device]).stdout.splitlines():
            words = route.partition(" congctl ")[0].split()
            try:
                bed.run(host, ["ip", "route", "change", *words, "dev", device, "congctl", name])
            except SeamlessError as error:
                raise SeamlessError(f"TCP {name} cannot be had here (modprobe tcp_{name}): {error}") from None


def iperf3(bed: Bed, seconds: float, *words: str, to: str = SERVER) -> Throughput:
    """Run iperf3 from the client to the server, or to the address ``to``; ``words`` are more of its options."""
    argv = ["iperf3", "-c", to, "-J", "-t", f"{seconds:g}", "-O", str(RAMP_SECONDS), *words]
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        done = bed.run(CLIENT, argv, timeout=seconds + RAMP_SECONDS + _PATIENCE_SECONDS, check=False)
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise SeamlessError(f"iperf3 gave no result: {done.stderr.strip() or done.stdout.strip()}") from None
        if "error" not in result:
            return read_throughput(result["end"])
        if not any(words in result["error"] for words in _BUSY) or time.monotonic() > give_up_at:
            raise SeamlessError(f"iperf3 failed: {result['error']}")
        time.sleep(_BUSY_SECONDS)


def read_throughput(end: dict[str, Any]) -> Throughput:
    """Read the part ``end`` of iperf3's JSON. With ``--bidir`` streams of both directions stand in one list."""
    forward = end["sum_sent"]["sender"]
    streams = [stream["receiver"] for stream in end["streams"]]
    return Throughput(
        bps=end["sum_received"]["bits_per_second"],
        each_bps=tuple(stream["bits_per_second"] for stream in streams if stream["sender"] == forward),
        backward_bps=end.get("sum_received_bidir_reverse", {}).get("bits_per_second", 0.0),
        congestion=end.get("sender_tcp_congestion", ""),
    )


def copy(bed: Bed, size_bytes: int, *words: str, to: str = SERVER) -> Copied:
    """Copy a file of random bytes from the client to the server with scp, and compare what arrived.

    ``words`` are more of scp's options, and ``to`` is how the client calls the server.
    """
    source = bed.directory / "hosts" / CLIENT / "random"
    target = bed.directory / "hosts" / SERVER / "copy"
    _write_random(source, size_bytes)
    try:
        begun_at = time.monotonic()
        patience = _PATIENCE_SECONDS + size_bytes * 8 / _SLOWEST_BPS
        bed.run(CLIENT, ["scp", "-q", *words, str(source), f"{to}:{target}"], timeout=patience)
        seconds = time.monotonic() - begun_at
        return Copied(size_bytes, seconds, _sha256(bed, CLIENT, source), _sha256(bed, SERVER, target))
    finally:
        source.unlink()
        target.unlink(missing_ok=True)


def _write_random(path: Path, size_bytes: int) -> None:
    with open(path, "wb") as file:
        for position in range(0, size_bytes, _BLOCK_BYTES):
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - position)))


def _sha256(bed: Bed, host: str, path: Path) -> str:
    return bed.run(host, ["sha256sum", str(path)]).stdout.split()[0]


def wire_bytes(bed: Bed, one: str, other: str) -> int:
    """Return how many bytes of IP the wires between two hosts were given, both directions together."""
    return sum(sender["bytes_in"] for sender in bed.counters(one, other).values())


def wait_for_overlay(one: RunningNode, other: RunningNode) -> None:
    """Return once two nodes reach each other and have their rules; from then on connections are captured."""
    for node, peer in ((one, other), (other, one)):
        node.wait_until_reaches(peer.name)
        node.wait_until_has_rules()


def wait_for_silence(bed: Bed) -> None:
    """Return once the native wire carries nothing more: the last segments of connections that ended are through."""
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    before, now = -1, wire_bytes(bed, *NATIVE_WIRE)
    while now != before:
        if time.monotonic() > give_up_at:
            raise SeamlessError("Something goes on talking over the native wire; nothing can be measured beside it.")
        time.sleep(_SILENCE_SECONDS)
        before, now = now, wire_bytes(bed, *NATIVE_WIRE)
