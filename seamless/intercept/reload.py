"""Reads a node's configuration again while it runs, and applies the difference.

In this order, so that what cannot be taken is refused while nothing has changed:

1. the file is read and checked, in a thread, since the links must be served meanwhile;
2. whatever a running node cannot change is refused: its own key, name and addresses (`seamless.node.change`);
3. listening sockets are opened for connections that new rules divert (`seamless.intercept.interceptors`);
4. where rules change, the privileged part reads the file itself; the digests show whether both have read the same;
5. the node and its interceptors go on with the new configuration, in one turn of the reactor;
6. the privileged part installs the rules, one transaction a table; then sockets without rules are closed.

One reload at a time. Those that are asked for meanwhile are answered by one more that begins after it, and so reads
what was written before it was asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from seamless.config.load import load_file
from seamless.config.model import Configuration
from seamless.errors import ConfigurationError, SeamlessError
from seamless.intercept.firewall import FirewallService
from seamless.intercept.interceptors import Interceptors
from seamless.intercept.rule_changes import changes_rules, reasons_to_restart
from seamless.node.change import Change, changes
from seamless.transport.driver import Driver

READING_SWITCH_INTERVAL: Final = 0.0005
"""Seconds for which the thread that reads may keep the links waiting; Python's default is ten times as long."""
LOGGED_MAX: Final = 20
"""Differences that are logged one by one; the answer to ``seamless reload`` has them all."""


class Reloader:
    """Reloads the file ``config_file`` of a running node; ``driver`` returns its driver once it runs."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config_file: Path,
        driver: Callable[[], Driver],
        interceptors: Interceptors,
        firewall: FirewallService,
    ) -> None:
        self._reactor = reactor
        self._config_file = config_file
        self._driver = driver
        self._interceptors = interceptors
        self._firewall = firewall
        self._asked: list[Deferred[tuple[str, ...]]] = []
        self._is_busy = False

    def reload(self) -> Deferred[tuple[str, ...]]:
        """Read the file again and apply it; fire with what has changed, in words.

        The Deferred fails with a `SeamlessError`. Its sentences are in the log as well, whether it succeeds or not.
        """
        asked: Deferred[tuple[str, ...]] = Deferred()
        self._asked.append(asked)
        if not self._is_busy:
            self._is_busy = True
            Deferred.fromCoroutine(self._work())
        return asked

    async def _work(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            outcome: Any
            try:
                outcome = await self._reload_once()
            except SeamlessError as error:
                self._log.error("the configuration was not taken: {error}", error=error)
                outcome = error
            except Exception as error:
                self._log.failure("a mistake in seamless while reading the configuration again")
                outcome = SeamlessError(f"a mistake in seamless ({type(error).__name__}: {error}); the log has more")
            for each in asked:
                each.errback(outcome) if isinstance(outcome, SeamlessError) else each.callback(outcome)
        self._is_busy = False

    async def _reload_once(self) -> tuple[str, ...]:
        new = await self._read()
        node = self._driver().node
        old, name = node.configuration, node.name
        change = changes(old, new, name)
        self._refuse([*change.needs_restart, *(() if change.needs_restart else reasons_to_restart(old, new, name))])
        is_for_firewall = changes_rules(old, new, name)
        self._interceptors.prepare(new)
        try:
            if is_for_firewall:
                await self._check_that_both_read(new)
        except SeamlessError:
            self._interceptors.withdraw()
            raise
        change = self._driver().apply(new)
        reset = self._interceptors.configure(new)
        remarks = self._report(change, reset)
        if is_for_firewall:
            await self._install()
        self._interceptors.finish()
        return remarks

    async def _read(self) -> Configuration:
        pool = getattr(self._reactor, "getThreadPool", None)
        if pool is None:  # a clock of a test, which has no threads
            return await maybeDeferred(load_file, self._config_file)
        # The reactor's thread lets go at every system call, and has to wait so long to go on.
        former = sys.getswitchinterval()
        sys.setswitchinterval(READING_SWITCH_INTERVAL)
        try:
            return await deferToThreadPool(self._reactor, pool(), load_file, self._config_file)
        finally:
            sys.setswitchinterval(former)

    def _refuse(self, reasons: Sequence[str]) -> None:
        """Raise `ConfigurationError` with everything that needs a restart, if anything does."""
        if reasons:
            raise ConfigurationError(
                f"{self._config_file}: nothing was changed, since the running node cannot take this configuration: "
                + "; ".join(reasons)
            )

    async def _check_that_both_read(self, new: Configuration) -> None:
        if await self._firewall.read_again() != new.digest:
            raise ConfigurationError(
                f"{self._config_file}: nothing was changed, since the file changed while it was read: reload once more"
            )

    async def _install(self) -> None:
        try:
            await self._firewall.install_again()
        except SeamlessError as error:
            raise SeamlessError(
                f"the configuration is taken, but its firewall rules could not be installed: {error}; the rules of "
                "before are in place: mend that and reload once more"
            ) from error

    def _report(self, change: Change, reset: int) -> tuple[str, ...]:
        remarks = [*map(str, change.differences)]
        if reset:
            remarks.append(f"{reset} connections were reset, which the configuration does not allow any more")
        count = len(change.differences)
        counted = "1 difference" if count == 1 else f"{count or 'no'} differences"
        self._log.info("the configuration was read again: {counted}", counted=counted)
        for remark in remarks[:LOGGED_MAX]:
            self._log.info("{remark}", remark=remark)
        if len(remarks) > LOGGED_MAX:
            self._log.info("and {more} more", more=len(remarks) - LOGGED_MAX)
        return tuple(remarks)
