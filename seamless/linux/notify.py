"""Reports the state of a service of ``Type=notify`` to systemd (sd_notify(3)): a datagram to a socket that it names.

Without systemd there is no such socket, and all of this does nothing. Messages are one-way: systemd finds out by itself
what it was not told, so nothing here fails.
"""

from __future__ import annotations

import os
import socket
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"

WATCHDOG_DIVISOR: Final = 2
"""Signs of life in the time after which systemd takes the service for dead, as sd_watchdog_enabled(3) advises."""


def notify(state: str) -> bool:
    """Send ``state`` to systemd; return whether a service manager had asked for it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    # A name that begins with @ is an abstract one.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        try:
            out.sendto(state.encode(), address)
        except OSError:
            return False
    return True


def watchdog_interval() -> float | None:
    """Return the seconds between two signs of life that systemd wants of this process; None when it wants none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 / WATCHDOG_DIVISOR
