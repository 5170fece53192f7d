"""Calls a function upon SIGHUP, by which a daemon is asked to read its configuration again (daemon(7)).

Without it the signal would end the daemon without a word, and all connections with it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service


class HangupService(Service):
    """Calls ``called`` in the reactor's turn after each SIGHUP, from the time at which the daemon has forked.

    Signals that come before the reactor runs are answered as soon as it does.
    """

    def __init__(self, reactor: Any, called: Callable[[], object]) -> None:
        self._reactor = reactor
        self._called = called
        self._former: Any = None

    def privilegedStartService(self) -> None:
        """Take the signal."""
        super().privilegedStartService()
        if self._former is None:
            self._former = signal.signal(signal.SIGHUP, self._received)

    def stopService(self) -> None:
        """Leave the signal to whatever had it before."""
        super().stopService()
        if self._former is not None:
            signal.signal(signal.SIGHUP, self._former)
            self._former = None

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._called)
