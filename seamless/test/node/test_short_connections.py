"""Short connections, one after the other: a request, its answer and both FINs take a round trip, and few datagrams."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import DataReceived, Event, StreamClosed, StreamFinished, StreamKey, StreamOpened, StreamReset
from seamless.node import Node
from seamless.test.node.objects import REQUEST, Objects

ANSWER = bytes(1000)
ANSWERS_AFTER = 0.0003
"""Seconds that the server takes."""
ROUND_TRIP = 0.001


class ShortConnections(Objects):
    """A client that opens a connection when the one before it has ended, and a server that closes after its answer."""

    def __init__(self, *, answers_after: float = ANSWERS_AFTER) -> None:
        super().__init__(500, ROUND_TRIP)
        self.answers_after = answers_after
        self.took: list[float] = []
        self.closed: list[StreamKey] = []
        self._opened_at = 0.0

    def run_connections(self, count: int) -> None:
        """Run so many, and a little longer."""
        self._open(count)
        self.run(self.now + 5.0, lambda: len(self.took) == count)
        self.run(self.now + 0.1)

    def _open(self, left: int) -> None:
        self._left_over = left
        if left:
            self._opened_at = self.now
            self.command("client", self._request)

    def _request(self, node: Node, now: float) -> None:
        node.send(node.open_stream("server", b"page", now), REQUEST, now)

    def _at_server(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self.at(self.now, self.command, "server", lambda node, now: node.accept_stream(event.stream, now))
        elif isinstance(event, DataReceived):
            self.at(self.now + self.answers_after, self.command, "server", self._answer_to(event.stream))
        elif isinstance(event, StreamClosed):
            self.closed.append(event.stream)

    def _answer_to(self, stream: StreamKey) -> object:
        def answer(node: Node, now: float) -> None:
            node.consumed(stream, len(REQUEST), now)
            node.send(stream, ANSWER, now)
            node.finish(stream, now)

        return answer

    def _at_client(self, event: Event) -> None:
        if isinstance(event, StreamFinished):
            self.took.append(self.now - self._opened_at)
            self.at(self.now, self._close, event.stream)
        elif isinstance(event, StreamReset):
            self.ends.append(event)
        elif isinstance(event, StreamClosed):
            self.closed.append(event.stream)

    def _close(self, stream: StreamKey) -> None:
        self.command("client", lambda node, now: node.finish(stream, now))
        self._open(self._left_over - 1)


class ShortConnectionTests(SynchronousTestCase):
    def test_datagrams_of_a_connection(self) -> None:
        """On each of two links one there, one back, and what acknowledges them: 7 in all, and 11 when ACCEPT and FIN
        went by themselves."""
        net = ShortConnections()
        net.run_connections(5)
        net.took.clear()
        before = net.datagrams
        net.run_connections(50)
        self.assertEqual(len(net.closed), 2 * 55)
        self.assertLess(max(net.took), ROUND_TRIP + ANSWERS_AFTER + 0.001)
        self.assertLess((net.datagrams - before) / 50, 8)

    def test_a_server_that_answers_later(self) -> None:
        """The ACCEPT does not wait for it, nor does anything else."""
        net = ShortConnections(answers_after=0.05)
        net.run_connections(3)
        self.assertEqual(len(net.closed), 2 * 3)
        self.assertLess(max(net.took), ROUND_TRIP + 0.05 + 0.001)
