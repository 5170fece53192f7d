"""Computes each host's network setup from the ``host`` and ``wire`` blocks of a configuration. Pure.

Every wire is a device at each of its ends, named after the neighbor. Routes come from ``carries`` (what a wire carries
for whom; the first wire in the file that carries a network is preferred) and from ``gateway``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

import attrs

from seamless.config.model import Configuration, HostConfig, Network, WireConfig
from seamless.errors import ConfigurationError

_DEVICE_NAME_CHARACTERS: Final = 15
"""IFNAMSIZ less its end (include/uapi/linux/if.h)."""
_TRANSMIT_QUEUE_PACKETS: Final = 1000
"""What the device holds until the emulator reads it: some 60 ms of super-packets at 10 Gb/s."""

_EVERYWHERE: Final = {4: "0.0.0.0/0", 6: "::/0"}

_SYSCTLS: Final = {
    "net.ipv4.conf.all.rp_filter": "0",  # Routes of a lab are asymmetric on purpose.
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 0",  # All programs on a host run as root there, and may ping.
    "net.ipv4.tcp_rmem": "4096 131072 33554432",  # 1 Gb/s over 200 ms: the window is not what a lab measures.
    "net.ipv4.tcp_wmem": "4096 65536 33554432",
    "net.ipv4.tcp_no_metrics_save": "1",  # One measurement must not begin where another ended.
    "net.ipv6.conf.default.addr_gen_mode": "1",  # No link-local addresses, hence no chatter on silent wires.
    "net.ipv6.conf.default.router_solicitations": "0",
}


@attrs.frozen
class WireEnds:
    """Which hosts a wire joins, and the device at each."""

    hosts: tuple[str, str]
    devices: tuple[str, str]


@attrs.frozen
class HostSetup:
    """The network setup of one host, once its devices exist. ``commands`` are those of ip(8), without ``ip``."""

    commands: tuple[str, ...]
    sysctls: dict[str, str]


def wire_ends(configuration: Configuration) -> tuple[WireEnds, ...]:
    """Name the devices of every wire, in the order of the configuration."""
    taken: dict[str, set[str]] = {name: {"lo"} for name in configuration.hosts}
    named = []
    for wire in configuration.wires:
        one, other = wire.ends
        named.append(WireEnds((one, other), (_free_name(other, taken[one]), _free_name(one, taken[other]))))
    return tuple(named)


def _free_name(wanted: str, taken: set[str]) -> str:
    name = wanted[:_DEVICE_NAME_CHARACTERS]
    number = 1
    while name in taken:
        number += 1
        suffix = f".{number}"
        name = wanted[: _DEVICE_NAME_CHARACTERS - len(suffix)] + suffix
    taken.add(name)
    return name


def host_setup(configuration: Configuration, host: HostConfig) -> HostSetup:
    """Return addresses, devices, routes and settings of one host."""
    commands = [f"address add {address} dev lo{_no_dad(address)}" for address in host.addresses]
    for metric, (wire, ends) in enumerate(zip(configuration.wires, wire_ends(configuration), strict=True), start=1):
        for end in (0, 1):
            if wire.ends[end] == host.name:
                commands += _end_commands(wire, end, ends.devices[end], host, metric)
    commands += _gateway_commands(configuration, host)
    forwards = "1" if is_router(configuration, host) else "0"
    forwarding = {"net.ipv4.ip_forward": forwards, "net.ipv6.conf.all.forwarding": forwards}
    return HostSetup(tuple(commands), {**_SYSCTLS, **forwarding})


def _end_commands(wire: WireConfig, end: int, device: str, host: HostConfig, metric: int) -> list[str]:
    interface = wire.addresses[end]
    commands = [
        f"link set dev {device} mtu {wire.mtu_bytes} txqueuelen {_TRANSMIT_QUEUE_PACKETS} up",
        f"address add {interface} dev {device}{_no_dad(interface.ip)}",
    ]
    for pair in wire.carries:
        near, far = pair[end], pair[1 - end]
        for network in far:
            source = _source(host, near, network.version)
            commands.append(f"route add {network} dev {device} metric {metric}{source}")
    return commands


def _no_dad(address: IPv4Address | IPv6Address) -> str:
    """Skip IPv6's duplicate address detection: no other host can have the address, and it takes a second."""
    return " nodad" if address.version == 6 else ""


def _source(host: HostConfig, near: Iterable[Network], version: int) -> str:
    """Name the address that this host itself speaks from, if it is one of those the wire carries."""
    for address in host.addresses:
        if address.version == version and any(address in network for network in near):
            return f" src {address}"
    return ""


def _gateway_commands(configuration: Configuration, host: HostConfig) -> list[str]:
    """Route everything else to the host's own gateway, and as a gateway, its clients' addresses to them."""
    commands = []
    if host.gateway is not None:
        for device, version in _wires_to(configuration, host.name, host.gateway):
            # Not "-4 route add default": where iproute2 reads commands from a file it takes no options before them.
            commands.append(f"route add {_EVERYWHERE[version]} dev {device}{_own_source(host, version)}")
    for client in configuration.hosts.values():
        if client.gateway == host.name:
            for device, version in _wires_to(configuration, host.name, client.name):
                own = (address for address in client.addresses if address.version == version)
                commands += [f"route add {ip_network(address)} dev {device}" for address in own]
    return commands


def _own_source(host: HostConfig, version: int) -> str:
    return next((f" src {address}" for address in host.addresses if address.version == version), "")


def _wires_to(configuration: Configuration, name: str, neighbor: str) -> list[tuple[str, int]]:
    """Return (device, IP version) of the wires from one host to another, one for each version."""
    found: dict[int, str] = {}
    for wire, ends in zip(configuration.wires, wire_ends(configuration), strict=True):
        for end in (0, 1):
            if wire.ends[end] == name and wire.ends[1 - end] == neighbor:
                found.setdefault(wire.addresses[end].version, ends.devices[end])
    if not found:
        raise ConfigurationError(f"No wire joins {name} and {neighbor}, of which one is the other's gateway.")
    return [(device, version) for version, device in found.items()]


def is_router(configuration: Configuration, host: HostConfig) -> bool:
    """Return whether a host forwards: it is a gateway, or an end of a wire that carries for hosts behind it."""
    if any(other.gateway == host.name for other in configuration.hosts.values()):
        return True
    own = [*host.addresses, *_wire_addresses(configuration, host.name)]
    return any(
        not any(address in network for address in own for network in pair[wire.ends.index(host.name)])
        for wire in configuration.wires
        if host.name in wire.ends
        for pair in wire.carries
    )


def _wire_addresses(configuration: Configuration, name: str) -> list[IPv4Address | IPv6Address]:
    return [wire.addresses[end].ip for wire in configuration.wires for end in (0, 1) if wire.ends[end] == name]


def host_addresses(configuration: Configuration) -> dict[str, str]:
    """Return one address for each host by which the others may call it: its own, or that of its first wire."""
    addresses = {}
    for host in configuration.hosts.values():
        known = [*host.addresses, *_wire_addresses(configuration, host.name)]
        if known:
            addresses[host.name] = str(known[0])
    return addresses
