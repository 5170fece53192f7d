"""Notifies systemd of the state of the daemon: ready, alive, stopping.

Add it last. Services start in the order in which they were added, so it says "ready" when all others run; and they stop
in the opposite order, so it says "stopping" before anything else does. "Alive" comes from the reactor: a daemon that
hangs falls silent, and systemd starts it anew when its unit says ``WatchdogSec=``.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from seamless.linux import notify


class SystemdNotification(Service):
    """Notifies systemd, if it started the daemon, of the state of the parent service."""

    def __init__(self, reactor: Any) -> None:
        self._signs_of_life = LoopingCall(notify.notify, notify.WATCHDOG)
        self._signs_of_life.clock = reactor

    def startService(self) -> None:
        """Notify that all services have started."""
        super().startService()
        notify.notify(notify.READY)
        interval = notify.watchdog_interval()
        if interval is not None:
            self._signs_of_life.start(interval)

    def stopService(self) -> None:
        """Say that it is about to end; what follows has the time that the unit's ``TimeoutStopSec=`` gives."""
        super().stopService()
        notify.notify(notify.STOPPING)
        if self._signs_of_life.running:
            self._signs_of_life.stop()
