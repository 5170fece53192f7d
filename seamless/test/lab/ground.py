"""What the lab's kernel tests share: a lab of two hosts, and why it may be impossible on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from seamless.config.model import Configuration, HostConfig, Impairment, Overlay, WireConfig
from seamless.errors import SeamlessError
from seamless.lab.lab import Lab
from seamless.linux.netns import Holders, needs_user_namespace

NEAR = "10.90.1.1"
FAR = "10.90.1.2"
FAR_IPV6 = "fd00:90::2"
SINK_PORT = 7000
PERFECT = Impairment()


def why_not() -> str | None:
    """Return why no lab can be had here, as a reason to skip."""
    try:
        open("/dev/net/tun", "rb").close()
        holders = Holders(needs_user_namespace())
        try:
            holders.add("probe", {})
        finally:
            holders.close()
    except (SeamlessError, OSError) as error:
        return str(error)
    return None


def two_hosts(impairment: Impairment = PERFECT, servers: tuple[str, ...] = (), mtu_bytes: int = 1500) -> Configuration:
    """Return ``near`` and ``far``, joined by an IPv4 and an IPv6 wire of the same kind."""
    near_own, far_own = ip_address("10.90.9.1"), ip_address("10.90.9.2")
    hosts = {"near": HostConfig("near", (near_own,)), "far": HostConfig("far", (far_own,), servers)}
    ends = ("near", "far")
    first = WireConfig(
        ends,
        (ip_interface(f"{NEAR}/24"), ip_interface(f"{FAR}/24")),
        carries=(((ip_network(near_own),), (ip_network(far_own),)),),
        forward=impairment,
        backward=impairment,
        mtu_bytes=mtu_bytes,
    )
    second = WireConfig(
        ends,
        (ip_interface("fd00:90::1/64"), ip_interface(f"{FAR_IPV6}/64")),
        forward=impairment,
        backward=impairment,
        mtu_bytes=mtu_bytes,
    )
    return Configuration(Overlay("two"), {}, hosts=hosts, wires=(first, second))


def traffic(lab: Lab, host: str, *words: object) -> Any:
    """Run one of the programs of `seamless.test.lab.traffic` on a host and return its answer."""
    done = lab.run(host, [sys.executable, "-m", "seamless.test.lab.traffic", *map(str, words)])
    return json.loads(done.stdout)


class Sink:
    """A UDP sink on ``far``."""

    def __init__(self, lab: Lab, size: int) -> None:
        argv = [sys.executable, "-m", "seamless.test.lab.traffic", "sink", str(SINK_PORT), str(size)]
        self._child = lab.popen("far", argv, stdout=subprocess.PIPE, stderr=None)
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"ready\n"

    def result(self) -> dict[str, Any]:
        """Return what came, once nothing comes any more."""
        output, _ = self._child.communicate(timeout=30)
        answer = json.loads(output)
        assert isinstance(answer, dict)
        return answer
