"""What ``seamless connections`` says of real connections over two real nodes, when something is broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import UsageError
from seamless.intercept import connections
from seamless.intercept.connections import Connections, Selection, selection
from seamless.intercept.interceptors import Interceptors
from seamless.intercept.payload.flow import Carried, Ended
from seamless.test.intercept.payload.test_ingress import PayloadTestCase
from seamless.test.transport.grounds import Ground, NodeGround
from seamless.tools.connections_command import text
from seamless.transport.splice import Splice


class One:
    """One interceptor, in the place of all of a node."""

    def __init__(self, is_ingress: bool, interceptor: Any, driver: Any) -> None:
        self._is_ingress = is_ingress
        self._interceptor = interceptor
        self.driver = driver
        self.acceptors: Any = None

    def carried(self) -> Iterator[tuple[bool, Carried, Splice]]:
        return ((self._is_ingress, *each) for each in self._interceptor.carried())

    def ended(self) -> list[tuple[bool, Ended]]:
        return [(self._is_ingress, each) for each in reversed(self._interceptor.ended)]


class ConnectionsTests(PayloadTestCase):
    def make_ground(self) -> Ground:
        return NodeGround()

    async def ask(self, at: str = "src", **question: Any) -> dict[str, Any]:
        is_ingress = at == "src"
        one = One(is_ingress, self.ingress if is_ingress else self.egress, getattr(self.ground, at))
        looking = Connections(reactor, one, cast(Interceptors, one), lambda peer: (at, peer))
        return await looking.ask(question)

    async def test_a_transfer(self) -> None:
        client = await self.connect()
        server = await self.accept()
        for name in ("src", "dst"):
            asking = Deferred.fromCoroutine(self.ask(name))
            sending = self.run_in_thread(client.send_all, bytes(3_000_000))
            await self.run_in_thread(server.read_exactly, 3_000_000)
            await sending
            answer = await asking
            (row,) = answer["connections"]
            self.assertEqual((row["client"], row["server"]), (client.sock.getsockname(), self.destination))
            self.assertEqual((row["ingress"], row["egress"], row["path"]), ("src", "dst", ("src", "dst")))
            self.assertEqual((row["held_by"], row["resends"], answer["ended"]), (None, 0, []))
            self.assertGreater(row["to_server_bps"], 1e6)
            self.assertEqual((row["to_client_bps"], row["to_client_bytes"]), (0.0, 0))
            self.assertGreater(row["rtt"], 0)
            self.assertGreater(row["to_server_bytes"], 0)
        (row,) = (await self.ask())["connections"]
        self.assertEqual(row["to_server_bytes"], 6_000_000)

    async def test_a_server_that_does_not_read(self) -> None:
        client = await self.connect()
        server = await self.accept()
        other = await self.connect()
        await self.accept()
        await self.run_in_thread(other.send_all, b"nothing holds this up")
        sending = self.run_in_thread(client.send_all, bytes(40_000_000))
        await self.until(lambda: any(splice.unwritten_bytes for _, splice in self.egress.carried()))
        port = self.destination[1]
        for name, why in (("src", "and its window at node dst is full"), ("dst", "the server does not read")):
            answer = await self.ask(name, slow=True, port=port)
            self.assertEqual((answer["open"], answer["matching"]), (2, 1))
            (row,) = answer["connections"]
            self.assertIn(why, row["held_by"])
            self.assertIn("the server does not read", text(answer, 10))
        server.reset()
        self.assertIsInstance((await sending.addErrback(lambda failure: failure.value)), OSError)
        await self.until(lambda: self.ingress.connections == 1)
        (ended,) = (await self.ask())["ended"]
        self.assertIn("reset by the application", ended["reason"])
        self.assertIn("reset by the application", " ".join(text(await self.ask(), 10).split()))

    async def test_refused_ones_and_those_that_ended(self) -> None:
        client = await self.connect()
        server = await self.accept()
        client.finish()
        server.finish()
        await self.until(lambda: self.ingress.connections == 0)
        self.server.close()
        await self.expect_reset(await self.connect())
        answer = await self.ask()
        refused, ended = answer["ended"]
        self.assertEqual((refused["refused"], ended["refused"]), (True, False))
        self.assertIn("connection refused by 127.0.0.1", refused["reason"])
        self.assertEqual(ended["reason"], "both ends closed it")
        self.assertIn("refused", text(answer, 10))

    async def test_so_many_rows_and_no_more(self) -> None:
        self.patch(connections, "SLICE", 2)
        for _ in range(5):
            await self.connect()
            await self.accept()
        answer = await self.ask(rows=3, sort="age")
        self.assertEqual((answer["open"], answer["matching"], len(answer["connections"])), (5, 5, 3))
        ages = [row["age"] for row in answer["connections"]]
        self.assertEqual(ages, sorted(ages, reverse=True))
        self.assertIn("5 of them asked for, 3 shown", text(answer, 10))
        none = await self.ask(to="10.0.0.0/8")
        self.assertEqual((none["open"], none["matching"]), (5, 0))


class SelectionTests(SynchronousTestCase):
    def test_what_is_asked_for(self) -> None:
        chosen = selection({"to": "10.1.9.0/24", "port": 22})
        self.assertTrue(chosen.has(("10.1.9.7", 22)))
        self.assertFalse(chosen.has(("10.1.8.7", 22)) or chosen.has(("10.1.9.7", 23)) or chosen.has(("fd00::1", 22)))
        self.assertEqual(selection({}), Selection())

    def test_nonsense(self) -> None:
        nonsense: tuple[dict[str, Any], ...] = (
            {"to": "dst"}, {"to": 3.5}, {"to": []}, {"port": 0}, {"port": "22"}, {"port": 70000}, {"rows": 0},
            {"rows": "x"}, {"rows": 10_000_000}, {"sort": "name"}, {"sort": "\x1b[2J"},
        )  # fmt: skip
        for question in nonsense:
            error = self.assertRaises(UsageError, selection, question)
            self.assertTrue(str(error).isprintable())
