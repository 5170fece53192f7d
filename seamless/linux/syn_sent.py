"""Which sockets of this host wait for the answer to their SYN, as /proc/net/tcp and /proc/net/tcp6 list them (proc(5)).

The kernel could be asked for one socket at a time (sock_diag(7)), but only where the module for that is there. The
text costs a microsecond for each socket of the network namespace.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from seamless.linux.held_syns import Flow

_FILES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_SYN_SENT: Final = re.compile(rb": ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) 02 ")
_MAPPED: Final = bytes(10) + b"\xff\xff"
"""First bytes of an IPv4 address that is mapped into IPv6: a socket of IPv6 may connect to one."""


def flows_in_syn_sent() -> set[Flow]:
    """Return the flows of this network namespace's sockets in the state SYN_SENT."""
    return {flow for file in _FILES if file.exists() for flow in _flows(file.read_bytes())}


def _flows(text: bytes) -> list[Flow]:
    return [
        _address(near) + _address(far) + bytes.fromhex((near_port + far_port).decode())
        for near, near_port, far, far_port in _SYN_SENT.findall(text)
    ]


def _address(words: bytes) -> bytes:
    """Return an address from the text: 32 bits at a time, in the order of this machine."""
    parts = [int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)]
    return b"".join(parts).removeprefix(_MAPPED)
