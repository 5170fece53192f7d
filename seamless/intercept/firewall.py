"""The firewall rules of a node as a service: installed while the node's interceptors run, and removed before they stop.

The rules that refuse what may not go natively (``when unreachable refuse``) are the exception: they are installed as
soon as the privileged part is ready, and stay when it ends.

It starts the privileged part (`seamless.linux.rule_keeper`) before the daemon gives up its privilege, has the rules
installed when it starts, and removed before it counts as stopped. Start it after what the rules send traffic to, and
stop it before that.

For another configuration the privileged part reads the file again (`read_again`), and installs what follows from it
when all else is ready for that (`install_again`). A node that had no rules so far has no privileged part: it is started
then, if this process still may.

When the privileged part dies, a new one is started, or waited for where it stands by itself. A daemon that has given up
its privilege cannot start one: it goes on with the rules as they are, and logs that they will not be removed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seamless.errors import PrivilegeError, SeamlessError
from seamless.linux import privileged_channel
from seamless.linux.privileged_channel import Channel, PrivilegedPart, StandingPart
from seamless.transport import clock
from seamless.transport.capture_reader import capture_channel

_NO_ANSWER: Final = SeamlessError(
    "the privileged part of seamless does not answer: look at its process and the firewall"
)
Channels: TypeAlias = Mapping[str, Callable[[socket.socket], None]]
"""By word: what is given the daemon's end of a socket pair to the privileged part."""

MODULE: Final = "seamless.intercept.privileged"
START_TIMEOUT: Final = 30.0
"""Seconds until the privileged part is ready: Python's start, and at worst a wait for the firewall's lock."""
STOP_TIMEOUT: Final = 10.0
"""Seconds to wait for the rules to be removed; the privileged part goes on by itself if it takes longer."""
RESTART_INTERVAL: Final = 10.0
"""Seconds that a privileged part must have lived to be started again after its death."""
ANSWER_TIMEOUT: Final = 30.0
"""Seconds to wait for the privileged part to read the configuration, or to install rules, again."""
RETURN_INTERVAL: Final = 0.5
"""Seconds between two tries to connect to a privileged part that runs by itself."""


@attrs.define
class FirewallCounters:
    """How often the rules were installed and restored, and how often the privileged part died."""

    installed: int = 0
    restored: int = 0
    """Rules that another program had removed and that were put back."""
    deaths: int = 0
    """How often the privileged part ended unexpectedly."""


@implementer(IReadDescriptor)
class FirewallService(Service):
    """Keeps the rules of one node; ``failed`` is called once it cannot, with the sentence to end the daemon with.

    ``user``: the user id that the daemon is about to take. ``standing``: the socket of a privileged part that stands by
    itself; without it, one is started. ``channels`` returns, for each word that the privileged part takes with a
    socket, what is given the other end of it, once for every such part. ``is_needed``: whether there are rules
    to begin with.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config_file: str | Path,
        node_name: str,
        failed: Callable[[SeamlessError], None],
        *,
        user: int | None = None,
        standing: str | None = None,
        channels: Callable[[], Channels] = dict,
        is_needed: bool = True,
    ) -> None:
        self.counters = FirewallCounters()
        self._reactor = reactor
        # Absolute: the daemon may change its folder before the privileged part starts again.
        self._arguments = ["--config", str(Path(config_file).resolve()), "--node", node_name]
        if user is not None:
            self._arguments += ["--user", str(user)]
        self._standing = standing
        self._channels = channels
        self._attached: set[str] = set()
        """The words with which this privileged part was given a socket."""
        self._started_as: int | None = None
        self._failed = failed
        self._part: Channel | None = None
        self._return: IDelayedCall | None = None
        self._started_at = 0.0
        self._removed: Deferred[None] | None = None
        self._timeout: IDelayedCall | None = None
        self.is_needed = is_needed
        """Whether the node has rules, or had some: without any it needs no privileged part."""
        self._answer: Deferred[str] | None = None
        """What fires with the rest of the privileged part's answer to `_ask`."""
        self._answer_timeout: IDelayedCall | None = None

    @property
    def privileged_pid(self) -> int | None:
        """Return the process id of the privileged part, if there is one."""
        return None if self._part is None else self._part.pid

    def privilegedStartService(self) -> None:
        """Start the privileged part, and wait until it has removed old rules; raise `SeamlessError` if it cannot."""
        super().privilegedStartService()
        if self._part is not None or not self.is_needed:
            return
        part = self._start_part()
        try:
            part.wait_for(privileged_channel.READY, START_TIMEOUT)
        except SeamlessError:
            self._part = None
            part.close()
            raise

    def startService(self) -> None:
        """Have the privileged part install the rules."""
        self.privilegedStartService()
        super().startService()
        if self._part is not None:
            self._install(self._part)
            self._reactor.addReader(self)

    def stopService(self) -> Deferred[None]:
        """Have the rules removed; the Deferred fires when they are, or after `STOP_TIMEOUT`."""
        super().stopService()
        if self._return is not None and self._return.active():
            self._return.cancel()
        if self._part is None:
            return succeed(None)
        self._part.send(privileged_channel.REMOVE)
        self._reactor.addReader(self)
        removed: Deferred[None] = Deferred()
        self._removed = removed
        self._timeout = self._reactor.callLater(STOP_TIMEOUT, self._end)
        return removed

    # Another configuration.

    def read_again(self) -> Deferred[str]:
        """Have the privileged part read the configuration again; fire with the digest of the file that it read.

        The Deferred fails with a `SeamlessError` if that file cannot be used, or with no answer.
        """
        if not self.running:
            return fail(SeamlessError("the daemon is stopping"))
        if self._part is None:
            try:
                self._start_part()
            except SeamlessError as error:
                return fail(error)
            self._reactor.addReader(self)
            started = self._expect(privileged_channel.READY)
            return started.addCallback(lambda _: self._ask(privileged_channel.READ, privileged_channel.READ))
        return self._ask(privileged_channel.READ, privileged_channel.READ)

    def install_again(self) -> Deferred[str]:
        """Have the rules of the configuration that was read last installed; fire when they are. Errors as above."""
        if self._part is not None:
            self._attached -= privileged_channel.RENEWED
            self._attach(self._part)
        return self._ask(privileged_channel.INSTALL, privileged_channel.INSTALLED)

    def _ask(self, word: str, answer: str) -> Deferred[str]:
        if self._part is None:
            return fail(PrivilegeError("the privileged part of seamless is gone: restart the daemon"))
        expected = self._expect(answer)
        self._part.send(word)
        return expected

    def _expect(self, answer: str) -> Deferred[str]:
        """Return a Deferred that fires when the privileged part gives this answer; one at a time."""
        self._answer = Deferred()
        self._expected = answer
        self._answer_timeout = self._reactor.callLater(ANSWER_TIMEOUT, self._answer_with, _no_answer())
        return self._answer

    def _answer_with(self, outcome: str | SeamlessError) -> bool:
        """Fire what waits for an answer; return whether anything did."""
        answer, self._answer = self._answer, None
        if self._answer_timeout is not None and self._answer_timeout.active():
            self._answer_timeout.cancel()
        if answer is None:
            return False
        if isinstance(outcome, SeamlessError):
            answer.errback(outcome)
        else:
            answer.callback(outcome)
        return True

    def _start_part(self) -> Channel:
        self._started_at = clock.now()
        self._attached.clear()
        if self._standing is not None:
            self._part = StandingPart(self._standing)
        else:
            self._started_as = os.geteuid()
            self._part = PrivilegedPart(MODULE, self._arguments)
        return self._part

    def _install(self, part: Channel) -> None:
        """Have the rules installed, after this daemon has begun to read the packets that they divert."""
        self._attach(part)
        part.send(privileged_channel.INSTALL)

    def _attach(self, part: Channel) -> None:
        """Give the privileged part, and what here belongs to it, the sockets that are needed and not there yet."""
        for word, attach in self._channels().items():
            if word not in self._attached:
                self._attached.add(word)
                ours, theirs = capture_channel()
                part.hand_over(word, theirs)
                attach(ours)

    def _end(self) -> None:
        """Let the privileged part go."""
        part, self._part = self._part, None
        self._answer_with(SeamlessError("the daemon is stopping"))
        self._reactor.removeReader(self)
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        if part is not None:
            part.close()
        removed, self._removed = self._removed, None
        if removed is not None:
            removed.callback(None)

    # What the privileged part says.

    def doRead(self) -> None:
        """Receive one message of the privileged process and act on it."""
        if self._part is None:
            return
        try:
            message = self._part.receive()
        except EOFError:
            self._died(self._part)
            return
        word, _, rest = (message or "").partition(" ")
        if self._answer is not None and word == self._expected and word != privileged_channel.INSTALLED:
            self._answer_with(rest)
        elif word == privileged_channel.READY:
            self._install(self._part)
        elif word == privileged_channel.INSTALLED:
            self.counters.installed += 1
            self.is_needed = True
            self._log.info("the firewall rules are installed{remark}", remark=rest and f", {rest}")
            if self._answer is not None and self._expected == privileged_channel.INSTALLED:
                self._answer_with(rest)
        elif word == privileged_channel.RESTORED:
            self.counters.restored += int(rest)
            self._log.warn("another program removed {count} of our firewall rules: put back", count=rest)
        elif word == privileged_channel.REMOVED:
            self._log.info("the firewall rules are removed{remark}", remark=rest and f", {rest}")
            self._end()
        elif word == privileged_channel.FAILED:
            self._report_failure(privileged_channel.failure(message or ""))

    def _report_failure(self, error: SeamlessError) -> None:
        if self._removed is not None:
            self._log.error("the firewall rules could not be removed: {error}", error=error)
            self._end()
        elif self._answer_with(error):
            return
        elif self.counters.installed:
            self._log.error("cannot look after the firewall rules: {error}", error=error)
        else:
            self._failed(error)

    def _died(self, part: Channel) -> None:
        error = part.death()
        self.counters.deaths += 1
        lived = clock.now() - self._started_at
        stopping = self._removed is not None
        self._reactor.removeReader(self)
        part.close()
        self._part = None
        self._answer_with(error)
        if stopping:
            self._log.error("{error}", error=error)
            self._end()
        elif not self.is_needed:
            self._log.error("{error}", error=error)  # it was started for a configuration that this refuses
        elif self._standing is not None:
            self._log.error("{error}; waiting for it", error=error)
            self._await_return()
        elif self._started_as != os.geteuid():
            self._log.critical(
                "{error}; without privilege this daemon cannot start another: it goes on, and its "
                "rules will not be removed when it ends. Restart it soon",
                error=error,
            )
        elif lived < RESTART_INTERVAL:
            self._failed(error)
        else:
            self._log.error("{error}; starting it again", error=error)
            self._start_part()
            self._reactor.addReader(self)

    def _await_return(self) -> None:
        try:
            self._start_part()
        except SeamlessError:
            self._return = self._reactor.callLater(RETURN_INTERVAL, self._await_return)
        else:
            self._reactor.addReader(self)

    # What the reactor asks (IReadDescriptor).

    def fileno(self) -> int:
        """Return the descriptor of the socket to the privileged part, or -1."""
        return -1 if self._part is None else self._part.fileno()

    def logPrefix(self) -> str:
        """Return the name of this reader for the reactor's log."""
        return "firewall"

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the end of the socket pair is read, not reported."""


def _no_answer() -> SeamlessError:
    return SeamlessError(
        f"the privileged part of seamless has not answered for {ANSWER_TIMEOUT:g} s: look at its process, and at what "
        "else changes the firewall"
    )
