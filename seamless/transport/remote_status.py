"""A node's status for its peers: every node answers the service ``seamless.status`` with its report, as JSON.

Who may ask is in the configuration (``operators`` of the overlay); who asks is what the session has authenticated. One
report is made for all questions of half a second, and each peer has so many questions and so many answers under way at
a time, so a peer that asks all the time costs no more than its streams do.

What comes back is from another node, so it is bounded, must be JSON, and every text in it is escaped before anything
else sees it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from seamless.delivery.token_bucket import TokenBuckets
from seamless.errors import UnreachableError
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayNode, OverlayServerEndpoint, ServicePort
from seamless.wire.text import printable

STATUS_SERVICE: Final = "seamless.status"
ANSWER_TIMEOUT: Final = 2.0
"""Seconds: a person waits for the answers of all nodes at once."""
REUSE_INTERVAL: Final = 0.5
"""Seconds for which one report answers all questions."""
QUESTIONS: Final = 8.0
QUESTIONS_PER_SECOND: Final = 2.0
"""Of one peer: a person who watches, and a monitor beside it."""
ANSWERS_MAX: Final = 4
"""Answers on their way to one peer: each is held in memory until the peer has read it."""
ANSWER_MAX_BYTES: Final = 1 << 20
"""A thousand links."""
DEPTH_MAX: Final = 16
"""Levels of a report: it has five."""

Report = dict[str, Any]


class _Answering(Protocol):
    """Sends one answer."""

    def __init__(self, answer: bytes, ended: Callable[[], None]) -> None:
        self._answer = answer
        self._ended = ended

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._answer)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()


class _Asking(Protocol):
    """Receives one answer."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.answer: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > ANSWER_MAX_BYTES:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.answer.called:
            return
        if reason.check(ConnectionDone):
            self.answer.callback(bytes(self._received))
        else:
            self.answer.errback(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _AnswerFactory(Factory):
    """Answers peers within the limits of each; what is beyond them is refused."""

    noisy = False

    def __init__(self, service: StatusService) -> None:
        self._service = service

    def buildProtocol(self, addr: Any) -> _Answering | None:
        return self._service.answering(addr.node)


class _AskFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: Any) -> _Asking:
        return _Asking()


class StatusService(Service):
    """Answers the questions of peers, and asks them.

    ``report()`` returns what is said of this node; ``may_ask(peer)`` whether a peer is told.
    """

    def __init__(
        self, reactor: Any, node: OverlayNode, report: Callable[[], Report], may_ask: Callable[[str], bool]
    ) -> None:
        self._reactor = reactor
        self._node = node
        self._report = report
        self._may_ask = may_ask
        self._port: ServicePort | None = None
        self._made = b""
        self._made_at = -REUSE_INTERVAL
        self._questions: TokenBuckets[str] = TokenBuckets(QUESTIONS, QUESTIONS_PER_SECOND)
        self._under_way: Counter[str] = Counter()
        self.reports_made = 0
        self.refused = 0
        """Questions that were not answered: of peers that may not ask, or ask too often."""

    def startService(self) -> None:
        """Answer from now on."""
        super().startService()
        OverlayServerEndpoint(self._node, STATUS_SERVICE).listen(_AnswerFactory(self)).addCallback(self._listening)

    def _listening(self, port: ServicePort) -> None:
        self._port = port

    def stopService(self) -> Any:
        """Answer no more."""
        super().stopService()
        return self._port.stopListening() if self._port is not None else None

    # Answers.

    def answering(self, peer: str) -> _Answering | None:
        """Return what answers a question of this peer; None for a peer that asks too often."""
        now = self._reactor.seconds()
        if self._under_way[peer] >= ANSWERS_MAX or not self._questions.bucket(peer, now).take(now):
            self.refused += 1
            return None
        self._under_way[peer] += 1
        return _Answering(self._answer(peer, now), lambda: self._ended(peer))

    def _ended(self, peer: str) -> None:
        self._under_way[peer] -= 1
        if not self._under_way[peer]:
            del self._under_way[peer]

    def _answer(self, peer: str, now: float) -> bytes:
        if not self._may_ask(peer):
            self.refused += 1
            name = self._node.driver.name
            return json.dumps({"error": f"node {name} does not tell {peer}: see `operators` in `overlay`"}).encode()
        if now >= self._made_at + REUSE_INTERVAL:
            self._made, self._made_at = json.dumps(self._report()).encode(), now
            self.reports_made += 1
        return self._made

    # Questions.

    def ask(self, peer: str) -> Deferred[Report]:
        """Return a Deferred of the report of node ``peer``; it fails with `UnreachableError` and a sentence."""
        if not self._node.driver.reachable(peer):
            return fail(UnreachableError(f"there is no path to node {peer} now"))

        def too_late(result: object, seconds: float) -> NoReturn:
            raise UnreachableError(f"node {peer} has not answered for {seconds:g} s")

        def failed(failure: Failure) -> NoReturn:
            failure.trap(ConnectError, ConnectionClosed)
            raise UnreachableError(f"node {peer} does not answer: {failure.getErrorMessage()}")

        asking: Deferred[Any] = OverlayClientEndpoint(self._node, peer, STATUS_SERVICE).connect(_AskFactory())
        asking.addCallback(_answer_of).addErrback(failed).addTimeout(ANSWER_TIMEOUT, self._reactor, too_late)
        return asking.addCallback(lambda answer: read_report(answer, peer))


def _answer_of(protocol: IProtocol) -> Deferred[bytes]:
    assert isinstance(protocol, _Asking)
    return protocol.answer


def read_report(answer: bytes, peer: str) -> Report:
    """Return the report in an answer of ``peer``, its texts escaped; raise `UnreachableError` when it is none."""
    try:
        report = _escaped(json.loads(answer), DEPTH_MAX)
    except (ValueError, RecursionError):
        report = None
    if isinstance(report, dict) and isinstance(report.get("error"), str):
        raise UnreachableError(report["error"])
    if not isinstance(report, dict) or report.get("node") != peer:
        raise UnreachableError(f"node {peer} answered with something that is no report: is it of another version?")
    return report


def _escaped(value: Any, depth: int) -> Any:
    """Return a value of JSON with every text in it escaped; raise ``ValueError`` when it is too deep."""
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(value, str):
        return printable(value.encode(errors="replace"))
    if isinstance(value, list):
        return [_escaped(each, depth - 1) for each in value]
    if isinstance(value, dict):
        return {printable(key.encode(errors="replace")): _escaped(each, depth - 1) for key, each in value.items()}
    return value
