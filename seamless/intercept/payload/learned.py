"""Which servers were seen to accept a short while ago: ``connect learned``.

Pure. The first connection to an address and port waits for the server's answer; those of the next seconds are accepted
at once, and one that fails ends that.
"""

from __future__ import annotations

from typing import Final

from seamless.interfaces import Address

LEARNED_FOR: Final = 10.0
"""Seconds for which a server that accepted is taken to accept."""
MAX_LEARNED: Final = 4096
"""Servers; the one that was confirmed first is forgotten for another."""


class LearnedServers:
    """The servers that accepted a connection within the last `LEARNED_FOR` seconds."""

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}

    def accepts(self, server: Address, now: float) -> bool:
        """Return whether ``server`` accepted a connection a short while ago, and none failed since."""
        return self._until.get(server, now) > now

    def accepted(self, server: Address, now: float) -> None:
        """Take note that a server accepted a connection."""
        self._until.pop(server, None)
        if len(self._until) >= MAX_LEARNED:
            del self._until[next(iter(self._until))]
        self._until[server] = now + LEARNED_FOR

    def failed(self, server: Address) -> None:
        """Take note that a connection to a server failed."""
        self._until.pop(server, None)
