"""What seamless is compared with: other programs that carry TCP between the same two hosts, over the native wire.

Each is a context manager that starts a tunnel and yields its `Tunnel`: where iperf3 and scp go to be carried by it.
None of them is part of the set-up; install them before a comparison:

    apt-get install kcptun sshuttle wireguard-go wireguard-tools

The first of a name on the PATH is taken. wireguard-go is WireGuard without its kernel module, and carries the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from seamless.crypto.keys import x25519_private_key
from seamless.errors import SeamlessError
from seamless.lab.daemons import private_key
from seamless.lab.lab import Lab
from seamless.lab.measure import CLIENT, NATIVE_WIRE, SERVER
from seamless.lab.servers import IPERF3_PORT, SSH_PORT
from seamless.linux.system import program

START_SECONDS: Final = 20.0
"""No tunnel takes longer to come up, nor to go."""
POLL_SECONDS: Final = 0.1

KCPTUN_NEAR: Final = {IPERF3_PORT: 12948, SSH_PORT: 12949}
KCPTUN_FAR: Final = {IPERF3_PORT: 29900, SSH_PORT: 29901}
KCPTUN_WORDS: Final = "-mode fast3 -datashard 10 -parityshard 3 -nocomp -sndwnd 4096 -rcvwnd 4096 -sockbuf 16777216"

WIREGUARD_PORT: Final = 51820
WIREGUARD_ADDRESSES: Final = {CLIENT: "10.99.0.1", SERVER: "10.99.0.2"}
WIREGUARD_SOCKETS: Final = Path("/var/run/wireguard")
"""Where wireguard-go is spoken to. All hosts of a lab see it, so the two devices have different names."""


@attrs.frozen
class Tunnel:
    """Where a client connects to be carried: as it calls the server, and the server's ports."""

    address: str
    iperf3_port: int = IPERF3_PORT
    ssh_port: int = SSH_PORT


def is_installed(name: str) -> bool:
    """Return whether a program is there."""
    try:
        program(name)
    except SeamlessError:
        return False
    return True


@contextmanager
def _running(lab: Lab, *programs: tuple[str, list[str]]) -> Iterator[None]:
    """Run programs on hosts of the lab until the end of the block, when they are asked to end and tidy up."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for host, argv in programs:
            with open(lab.host_directory(host) / f"{Path(argv[0]).name}.log", "ab") as log:
                started.append(lab.popen(host, argv, stdout=log, stderr=log))
        yield
    finally:
        for child in started:
            child.terminate()
            try:
                child.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)


def _wait_for_ports(lab: Lab, host: str, *ports: int) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not set(ports) <= lab.host(host).listening_ports():
        if time.monotonic() > give_up_at:
            raise SeamlessError(f"nothing listens on port {ports} of {host} after {START_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _native_address(lab: Lab, host: str) -> str:
    """Return a host's own address on the native wire, which is never captured."""
    wire = next(wire for wire in lab.configuration.wires if set(wire.ends) == set(NATIVE_WIRE))
    return str(wire.addresses[wire.ends.index(host)].ip)


@contextmanager
def kcptun(lab: Lab) -> Iterator[Tunnel]:
    """Carry the two ports by KCP with forward error correction, over UDP."""
    client, server = program("kcptun-client"), program("kcptun-server")
    words = KCPTUN_WORDS.split()
    programs = []
    for port, near in KCPTUN_NEAR.items():
        far = KCPTUN_FAR[port]
        programs.append((SERVER, [server, "-l", f":{far}", "-t", f"127.0.0.1:{port}", *words]))
        programs.append(
            (CLIENT, [client, "-l", f"127.0.0.1:{near}", "-r", f"{_native_address(lab, SERVER)}:{far}", *words])
        )
    with _running(lab, *programs):
        _wait_for_ports(lab, CLIENT, *KCPTUN_NEAR.values())
        yield Tunnel("127.0.0.1", KCPTUN_NEAR[IPERF3_PORT], KCPTUN_NEAR[SSH_PORT])


@contextmanager
def sshuttle(lab: Lab) -> Iterator[Tunnel]:
    """Carry connections to the server's address over one ssh connection, with the wire's congestion control.

    Without ``--no-latency-control`` it keeps 32 kB under way, which is 8.7 Mb/s on 30 ms.
    """
    far = lab.configuration.hosts[SERVER].addresses[0]
    words = ["--method", "nat", "--no-latency-control", "-r", _native_address(lab, SERVER), f"{far}/32"]
    with _running(lab, (CLIENT, [program("sshuttle"), *words])):
        give_up_at = time.monotonic() + START_SECONDS
        # Its last rule: from then on connections are captured.
        while f"-d {far}/32" not in lab.run(CLIENT, ["iptables-save", "-t", "nat"]).stdout:
            if time.monotonic() > give_up_at:
                log = lab.host_directory(CLIENT) / "sshuttle.log"
                raise SeamlessError(f"sshuttle does not connect: {log.read_text(errors='replace').strip()}")
            time.sleep(POLL_SECONDS)
        yield Tunnel(str(far))


@contextmanager
def wireguard(lab: Lab, congestion: str) -> Iterator[Tunnel]:
    """Carry whole packets, sealed, over UDP, under the X25519 keys of the nodes; TCP uses this congestion control."""
    devices = {host: f"wg-{host}" for host in (CLIENT, SERVER)}
    daemon = program("wireguard-go")
    with _running(lab, *((host, [daemon, "--foreground", device]) for host, device in devices.items())):
        for host, peer in ((CLIENT, SERVER), (SERVER, CLIENT)):
            device = devices[host]
            _wait_for_file(WIREGUARD_SOCKETS / f"{device}.sock")
            key = b64encode(lab.configuration.nodes[peer].x25519_public_key).decode()
            key_file = lab.host_directory(host) / "wireguard.key"
            key_file.touch(mode=0o600)
            key_file.write_text(b64encode(x25519_private_key(private_key(host))).decode() + "\n")
            endpoint = f"{_native_address(lab, peer)}:{WIREGUARD_PORT}"
            own = ["listen-port", str(WIREGUARD_PORT), "private-key", str(key_file)]
            theirs = ["peer", key, "endpoint", endpoint, "allowed-ips", f"{WIREGUARD_ADDRESSES[peer]}/32"]
            lab.run(host, ["wg", "set", device, *own, *theirs])
            lab.run(host, ["ip", "address", "add", WIREGUARD_ADDRESSES[host], "dev", device])
            lab.run(host, ["ip", "link", "set", device, "up"])
            route = [f"{WIREGUARD_ADDRESSES[peer]}/32", "dev", device, "congctl", congestion]
            lab.run(host, ["ip", "route", "add", *route])
        yield Tunnel(WIREGUARD_ADDRESSES[SERVER])


def _wait_for_file(path: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > give_up_at:
            raise SeamlessError(f"there is no {path} after {START_SECONDS:g} s: does wireguard-go run here at all?")
        time.sleep(POLL_SECONDS)
