"""Since when each class of records waits for the peer in vain, and when to try another path, or to give up.

What stops these clocks is progress: an acknowledgement of records that carried something that was wanted. Signs of life
do not: a relay may pass handshakes and probes and nothing else. A receiver that stops reading is no lack of progress,
since nothing waits then but windows, and probes, which are answered.

The two classes wait apart, for what is small may pass where bulk does not.
"""

from __future__ import annotations

from typing import Final

STALL_MIN: Final = 1.0
STALL_MAX: Final = 2.0
"""Seconds without progress after which another path is tried: three probe timeouts, within these bounds. A link that
dies is replaced within a dead interval, and hops resend what they lose, so that what takes longer than the lower one is
no matter of links; and people wait."""
STALL_PROBES: Final = 3
MAX_DOUBLINGS: Final = 3
"""When other paths do no better, the next tries come later: what fails is perhaps the peer."""


class Progress:
    """The clocks of one session, by class of records."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._path_at = float("-inf")
        self._tries = 0

    @property
    def waiting_since(self) -> float | None:
        """Return since when the class that has waited longest waits; None when nothing does."""
        return min(self._since.values(), default=None)

    def note(self, packet_class: int, waits: bool, now: float) -> None:
        """Start the clock of a class if something of it waits to be sent or acknowledged; stop it if not."""
        if not waits:
            self._since.pop(packet_class, None)
        elif packet_class not in self._since:
            self._since[packet_class] = now

    def made(self, packet_class: int) -> None:
        """Stop the clock of a class: something new of it has arrived at the peer."""
        self._since.pop(packet_class, None)
        self._tries = 0

    def forget(self) -> None:
        """Stop all clocks."""
        self._since.clear()

    def resumed(self, gap: float) -> None:
        """Leave the last ``gap`` seconds, in which this process was not served, out of all clocks."""
        self._since = {packet_class: since + gap for packet_class, since in self._since.items()}
        self._path_at += gap

    def path_changed(self, now: float) -> None:
        """Take note of another path: the time until the next attempt begins anew."""
        self._path_at = now

    def stalled_at(self, probe_timeout: float) -> float | None:
        """Return when another path is to be tried; None while nothing waits."""
        if not self._since:
            return None
        stall_timeout = min(STALL_MAX, max(STALL_MIN, STALL_PROBES * probe_timeout))
        return max(min(self._since.values()), self._path_at) + stall_timeout * (1 << min(self._tries, MAX_DOUBLINGS))

    def tried(self, now: float) -> None:
        """Take note that another path was asked for."""
        self._path_at = now
        self._tries += 1
