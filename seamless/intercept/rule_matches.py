"""Matches that several of a node's firewall rules share: as ``iptables`` words, ready for `Rule`.

Pure: from addresses, ports and names to tuples of words, each as ``iptables-save`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from seamless.config.model import Network, PortRange

OWN_MARK: Final = 0x1000
"""Firewall mark of the daemon's own connections: a bit that kubernetes, docker, cilium and tailscale leave alone."""
OWN_PASS: Final = ("-m", "mark", "--mark", f"{OWN_MARK:#x}/{OWN_MARK:#x}", "-j", "RETURN")
"""RETURN for packets that carry `OWN_MARK`."""
OTHERS_PASS: Final = ("-p", "tcp", "-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN", "-j", "RETURN")
"""RETURN for TCP packets that do not open a connection."""
MAX_MULTIPORT_ENTRIES: Final = 15
"""Of one multiport match (iptables-extensions(8)); a range counts as two."""


def not_the_daemon(user: int | None) -> tuple[str, ...]:
    """Return the match on the connections of all processes but those of the daemon's user, if it has one."""
    return () if user is None else ("-m", "owner", "!", "--uid-owner", str(user))


def comment_match(node_name: str) -> tuple[str, ...]:
    """Return the match that marks a rule as one of this node's."""
    return ("-m", "comment", "--comment", f"seamless:{node_name}")


def network_match(option: str, network: Network) -> tuple[str, ...]:
    """Return the match on an address; all addresses need none, and iptables-save prints none."""
    return (option, str(network)) if network.prefixlen else ()


def port_matches(option: str, ranges: tuple[PortRange, ...] | None) -> Iterator[tuple[str, ...]]:
    """Yield the matches that cover these ports, each within what one multiport match can hold."""
    if ranges is None:
        yield ()
        return
    entries: list[str] = []
    used = 0
    for first, last in ranges:
        size = 1 if first == last else 2
        if used + size > MAX_MULTIPORT_ENTRIES:
            yield _multiport_match(option, entries)
            entries, used = [], 0
        entries.append(str(first) if first == last else f"{first}:{last}")
        used += size
    yield _multiport_match(option, entries)


def _multiport_match(option: str, entries: list[str]) -> tuple[str, ...]:
    return ("-m", "multiport", option, ",".join(entries))
