"""What tests on the real reactor share: they let it run until something is so, and call what blocks in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet import defer, reactor, task, threads
from twisted.trial.unittest import TestCase

from seamless.test.transport.sockets import PATIENCE

T = TypeVar("T")

POLL_INTERVAL: Final = 0.005
"""Seconds between two looks."""


class RunningTestCase(TestCase):
    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor run until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            await task.deferLater(reactor, POLL_INTERVAL)

    def run_in_thread(self, call: Callable[..., T], *args: Any) -> defer.Deferred[T]:
        return threads.deferToThread(call, *args)
