"""Where ``seamless status``, ``ping``, ``measure`` and ``reload`` get their answers: the daemon's side of its socket.

Whoever may open the socket is local and permitted, and still bounded in everything: clients, the length of a question,
the time for it, and the time that an answer may wait to be read. What a question can do is look, load a link for some
seconds to measure it, or have the daemon read its own configuration file again; it never says what is in there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from seamless.config.model import Configuration
from seamless.errors import EXIT_FAILED, SeamlessError, UnreachableError, UsageError
from seamless.interfaces import MeasurementEnded
from seamless.linux import control_socket
from seamless.node import Node
from seamless.transport.metrics import exposition
from seamless.transport.ping import PING_BYTES, PING_MAX_BYTES, PingService
from seamless.transport.report import Intercepting, Reporter, RuleKeeping, RunningNode

CLIENTS_MAX: Final = 16
"""At once: people, a scraper, and a few pings that wait."""
PATIENCE: Final = 5.0
"""Seconds for the question to come, and for the answer to be read."""

Question: TypeAlias = Mapping[str, Any]
Answers: TypeAlias = Mapping[str, Callable[[Question], Any]]
"""By what is asked: called with the whole question, returns what JSON can say, or a Deferred of it."""


class Conversation(LineOnlyReceiver, TimeoutMixin):
    """One question and one answer."""

    _log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = control_socket.MAX_REQUEST_BYTES

    def __init__(self, reactor: Any, answers: Answers, ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._answers = answers
        self._ended = ended
        self._answering: Deferred[Any] | None = None
        self._gone = False

    def callLater(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """Return a timer of the right reactor (`TimeoutMixin` asks for it)."""
        timer: IDelayedCall = self._reactor.callLater(seconds, call)
        return timer

    def connectionMade(self) -> None:
        """Wait for the question."""
        self.setTimeout(PATIENCE)

    def lineReceived(self, line: bytes) -> None:
        """Answer the first line; there should be no other."""
        if self._answering is None:
            self.setTimeout(None)
            self._answering = maybeDeferred(self._answer, line)
            self._answering.addCallbacks(lambda answer: {"answer": answer}, self._failed)
            self._answering.addCallback(self._say)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Hang up."""
        self.timeoutConnection()

    def timeoutConnection(self) -> None:
        """Hang up, also on who does not read what it asked for."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop working on an answer whose client is gone."""
        self._gone = True
        self.setTimeout(None)
        if self._answering is not None:
            self._answering.cancel()
        self._ended()

    def _answer(self, line: bytes) -> Any:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError("a question is one line of JSON") from None
        asked = question.get("ask") if isinstance(question, dict) else None
        answer = self._answers.get(asked) if isinstance(asked, str) else None
        if answer is None:
            raise UsageError(f"this daemon knows how to answer {', '.join(self._answers)}; is it of another version?")
        return answer(question)

    def _failed(self, failure: Failure) -> dict[str, object]:
        error = failure.value
        if not self._gone and not isinstance(error, SeamlessError):
            self._log.failure("a mistake while answering at the control socket", failure)
            error = SeamlessError("a mistake in seamless; the daemon's log has more")
        return {"error": str(error), "exit_code": getattr(error, "exit_code", EXIT_FAILED)}

    def _say(self, answer: dict[str, object]) -> None:
        transport: Any = self.transport
        if not self._gone:
            self.sendLine(json.dumps(answer).encode())
            self.setTimeout(PATIENCE)
            transport.loseConnection()


class ControlSocketFactory(Factory):
    """Lets `CLIENTS_MAX` in at a time; others are hung up on."""

    noisy = False

    def __init__(self, reactor: Any, answers: Answers) -> None:
        self._reactor = reactor
        self._answers = answers
        self._clients = 0

    def buildProtocol(self, addr: Any) -> Conversation | None:
        """Return the conversation with a new client, if there is room for it."""
        if self._clients >= CLIENTS_MAX:
            return None
        self._clients += 1
        return Conversation(self._reactor, self._answers, self._ended)

    def _ended(self) -> None:
        self._clients -= 1


class ControlService(MultiService):
    """Listens at ``path`` for what people want to know of ``node``.

    A node whose socket cannot be made carries traffic all the same, and says so in the log.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: Path,
        node: RunningNode,
        pings: PingService,
        interceptors: Mapping[str, Intercepting],
        firewall: RuleKeeping | None = None,
        more: Answers | None = None,
    ) -> None:
        """``more``: answers to further questions."""
        super().__init__()
        self._reactor = reactor
        self._path = path
        self._node = node
        self._pings = pings
        self._more = more or {}
        self._port: IListeningPort | None = None
        self.reporter = Reporter(reactor, node, interceptors, firewall)
        self.reporter.setServiceParent(self)

    def open(self) -> None:
        """Listen, with the privilege that the directory needs; raise `SeamlessError` if this node runs here already.

        Call it before the node binds its UDP ports, which would only say that they are taken. Questions are heard once
        the reactor runs, and the services of this node with it.
        """
        control_socket.refuse_second(self._path)
        answers: Answers = {
            "status": lambda _: attrs.asdict(self.reporter.report()),
            "metrics": lambda _: exposition(self.reporter.report()),
            "ping": self._ping,
            "configuration": self._configuration,
            "measure": self._measure,
            **self._more,
        }
        try:
            control_socket.make_room(self._path)
            self._port = self._reactor.listenUNIX(
                str(self._path), ControlSocketFactory(self._reactor, answers), mode=control_socket.SOCKET_MODE
            )
        except (OSError, CannotListenError) as error:
            self._log.warn(
                "seamless status will get no answer from this node: cannot listen at {path} ({error}); name a "
                "directory that can be written to with the variable {variable}",
                path=self._path,
                error=getattr(error, "socketError", error),
                variable=control_socket.DIRECTORY_VARIABLE,
            )

    def stopService(self) -> Any:
        """Answer no more, and remove the socket."""
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return None
        # The socket may be gone already, or be for another to remove: it was made with a privilege that is gone.
        return maybeDeferred(port.stopListening).addErrback(lambda failure: failure.trap(OSError) and None)

    def _configuration(self, _: Question) -> dict[str, str]:
        core = self._node.driver.node
        return {"node": core.name, "text": core.configuration.text}

    def _ping(self, question: Question) -> Deferred[dict[str, object]]:
        core = self._node.driver.node
        peer = _peer(question.get("node"), core)
        nbytes = question.get("bytes", PING_BYTES)
        if not isinstance(nbytes, int) or not 0 < nbytes <= PING_MAX_BYTES:
            raise UsageError(f"{nbytes!r} bytes cannot be sent: say from 1 to {PING_MAX_BYTES}")

        def answered(seconds: float) -> dict[str, object]:
            return {"round_trip": seconds, "node": peer, "path": [*self.reporter.path(peer)]}

        def silent(failure: Failure) -> dict[str, object]:
            failure.trap(UnreachableError)
            return {"round_trip": None, "node": peer, "reason": str(failure.value)}

        return maybeDeferred(self._pings.ping, peer, nbytes).addCallbacks(answered, silent)

    def _measure(self, question: Question) -> Deferred[dict[str, object]]:
        neighbor = question.get("node")
        if not isinstance(neighbor, str):
            raise UsageError("a measurement needs the name of the neighbor at the other end of the link")
        driver = self._node.driver
        return driver.measure(neighbor).addCallback(partial(_measured, driver.node.configuration, driver.name))


def _measured(configuration: Configuration, node: str, ended: MeasurementEnded) -> dict[str, object]:
    """Return what was measured; raise `SeamlessError` if nothing was."""
    if ended.out is None or ended.back is None:
        raise SeamlessError(f"the link to {ended.neighbor} could not be measured: {ended.reason}")
    (link,) = [link for link in configuration.links if set(link.ends) == {node, ended.neighbor}]
    return {**attrs.asdict(ended), "node": node, "congestion": link.congestion}


def _peer(named: object, core: Node) -> str:
    """Return the other node that is named: by its name, or by an application's address that it serves."""
    configuration = core.configuration
    others = [name for name in configuration.nodes if name != core.name]
    if not isinstance(named, str):
        raise UsageError(f"node {core.name} knows no other node {named!r}: ping one of {', '.join(others)}")
    if named in others:
        return named
    try:
        serving = configuration.serving_node(named)
    except ValueError:
        raise UsageError(f"node {core.name} knows no other node {named!r}: ping one of {', '.join(others)}") from None
    if serving is None:
        raise UsageError(f"no node serves {named}: ping one of {', '.join(others)}")
    if serving.name == core.name:
        raise UsageError(f"node {core.name} serves {named} itself")
    return serving.name
