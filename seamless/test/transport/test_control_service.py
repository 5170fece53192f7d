"""The daemon's side of the control socket: conversations in memory, hostile ones too, then a socket and real nodes."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from seamless.config.load import load_text
from seamless.errors import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, SeamlessError, UnreachableError, UsageError
from seamless.linux import control_socket
from seamless.service import NodeService
from seamless.test.tools.test_main import configuration_text
from seamless.test.transport.grounds import own_address
from seamless.transport.control_service import CLIENTS_MAX, PATIENCE, ControlService, ControlSocketFactory
from seamless.transport.ping import PingService


class ConversationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.later: Deferred[Any] = Deferred()
        self.asked: list[Any] = []
        self.factory = ControlSocketFactory(
            self.clock, {"echo": self.echo, "later": lambda _: self.later, "fail": self.fail_as_asked}
        )

    def echo(self, question: Any) -> Any:
        self.asked.append(question)
        return question["words"]

    def fail_as_asked(self, question: Any) -> Any:
        raise {"unreachable": UnreachableError("nobody is there"), "mistake": ZeroDivisionError()}[question["how"]]

    def connect(self) -> tuple[Any, StringTransport]:
        conversation, transport = self.factory.buildProtocol(None), StringTransport()
        assert conversation is not None
        conversation.makeConnection(transport)
        return conversation, transport

    def say(self, line: bytes) -> StringTransport:
        conversation, transport = self.connect()
        conversation.dataReceived(line)
        return transport

    def answer(self, line: bytes) -> Any:
        """Return the only line that comes back; after it the daemon hangs up."""
        transport = self.say(line)
        self.assertTrue(transport.disconnecting)
        (answered, rest) = transport.value().split(b"\n")
        self.assertEqual(rest, b"")
        return json.loads(answered)

    def test_question_and_answer(self) -> None:
        self.assertEqual(self.answer(b'{"ask": "echo", "words": [1]}\n'), {"answer": [1]})

    def test_byte_by_byte(self) -> None:
        conversation, transport = self.connect()
        for byte in b'{"ask": "echo", "words": "slow"}\n':
            conversation.dataReceived(bytes([byte]))
        self.assertEqual(json.loads(transport.value()), {"answer": "slow"})

    def test_only_the_first_line_is_a_question(self) -> None:
        answer = self.answer(b'{"ask": "echo", "words": 1}\n{"ask": "echo", "words": 2}\n')
        self.assertEqual(answer, {"answer": 1})
        self.assertEqual([question["words"] for question in self.asked], [1])

    def test_what_is_no_question(self) -> None:
        for line in (
            b"",
            b"status",
            b"\xff\xfe",
            b"[" * 4000,
            b"{" * 4000,
            b'{"ask": ["echo"]}',
            b"3",
            b'{"ask": "x"}',
        ):
            with self.subTest(line=line[:20]):
                answer = self.answer(line + b"\n")
                self.assertEqual(answer["exit_code"], EXIT_USAGE)
                self.assertTrue(answer["error"])
        self.assertIn("knows how to answer echo, later, fail", answer["error"])

    def test_a_question_without_an_end(self) -> None:
        transport = self.say(b"x" * (control_socket.MAX_REQUEST_BYTES + 1))
        self.assertTrue(transport.disconnected)
        self.assertEqual(transport.value(), b"")

    def test_errors(self) -> None:
        answer = self.answer(b'{"ask": "fail", "how": "unreachable"}\n')
        self.assertEqual(answer, {"error": "nobody is there", "exit_code": EXIT_UNREACHABLE})

    def test_a_mistake_is_logged_here_and_not_told_there(self) -> None:
        answer = self.answer(b'{"ask": "fail", "how": "mistake"}\n')
        self.assertEqual(
            answer, {"error": "a mistake in seamless; the daemon's log has more", "exit_code": EXIT_FAILED}
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_asks_nothing_is_hung_up_on(self) -> None:
        _, transport = self.connect()
        self.clock.advance(PATIENCE - 0.1)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnected)

    def test_an_answer_may_take_its_time(self) -> None:
        transport = self.say(b'{"ask": "later"}\n')
        self.clock.advance(PATIENCE * 10)
        self.assertFalse(transport.disconnected)
        self.later.callback("at last")
        self.assertEqual(json.loads(transport.value()), {"answer": "at last"})

    def test_who_does_not_read_the_answer_is_hung_up_on(self) -> None:
        transport = self.say(b'{"ask": "echo", "words": 1}\n')
        self.clock.advance(PATIENCE + 0.1)
        self.assertTrue(transport.disconnected)

    def test_who_goes_away_is_not_worked_for(self) -> None:
        conversation, transport = self.connect()
        conversation.dataReceived(b'{"ask": "later"}\n')
        conversation.connectionLost(Failure(ConnectionError()))
        self.assertTrue(self.later.called)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_so_many_and_no_more(self) -> None:
        crowd = [self.connect()[0] for _ in range(CLIENTS_MAX)]
        self.assertIsNone(self.factory.buildProtocol(None))
        crowd.pop().connectionLost(Failure(ConnectionError()))
        self.assertIsNotNone(self.factory.buildProtocol(None))


class ControlTests(TestCase):
    """A real socket, two real nodes, and questions from another thread as from another process."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.directory = Path(tempfile.mkdtemp(prefix="seamless-control-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        text = configuration_text()
        for host in ("127.0.0.1", "127.0.0.2"):
            text = text.replace(f"{host}:", f"{own_address()[0]}:")
        configuration = load_text(text, "pair.conf")
        self.nodes = {
            name: NodeService(configuration, name, bytes([key]) * 32) for name, key in (("src", 1), ("dst", 2))
        }
        for node in self.nodes.values():
            node.startService()
            self.addCleanup(node.stopService)
        self.path = self.directory / "sockets" / "src.sock"
        self.control = self.make_control()
        self.control.open()
        self.control.startService()
        self.addCleanup(self.control.stopService)
        while not self.nodes["src"].driver.reachable("dst"):
            await task.deferLater(reactor, 0.01)

    def make_control(self) -> ControlService:
        node = self.nodes["src"]
        return ControlService(reactor, self.path, node, PingService(reactor, node), {})

    async def ask(self, **question: object) -> Any:
        return await deferToThread(control_socket.ask, self.path, question)

    async def test_who_may_ask(self) -> None:
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o660)

    async def test_status(self) -> None:
        report = await self.ask(ask="status")
        self.assertEqual([(link["neighbor"], link["state"]) for link in report["links"]], [("dst", "UP")])
        self.assertEqual(report["routes"][0]["path"], ["src", "dst"])
        (port,) = report["ports"]
        self.assertEqual(port["local"], report["links"][0]["local"])
        self.assertGreater(port["counters"]["datagrams_in"], 0)

    async def test_metrics(self) -> None:
        self.assertIn('seamless_node_info{node="src"', await self.ask(ask="metrics"))

    async def test_ping(self) -> None:
        answer = await self.ask(ask="ping", node="dst")
        self.assertEqual(answer["path"], ["src", "dst"])
        self.assertTrue(0 < answer["round_trip"] < 1, answer)

    async def test_ping_an_address_that_a_node_serves(self) -> None:
        answer = await self.ask(ask="ping", node="10.1.9.2", bytes=10_000)
        self.assertEqual((answer["node"], answer["path"]), ("dst", ["src", "dst"]))
        for question, why in (
            ({"node": "10.1.9.1"}, "node src serves 10.1.9.1 itself"),
            ({"node": "192.0.2.1"}, "no node serves 192.0.2.1"),
            ({"node": "dst", "bytes": 0}, "0 bytes cannot be sent"),
            ({"node": "dst", "bytes": 1 << 30}, "cannot be sent: say from 1 to 1048576"),
            ({"node": "dst", "bytes": "x"}, "'x' bytes cannot be sent"),
        ):
            with self.assertRaisesRegex(UsageError, why):
                await self.ask(ask="ping", **question)

    async def test_ping_whom(self) -> None:
        for peer in ("nobody", "src", 3, None):
            with self.assertRaisesRegex(UsageError, "node src knows no other node .*: ping one of dst"):
                await self.ask(ask="ping", node=peer)

    async def test_ping_without_a_path(self) -> None:
        await self.nodes["dst"].stopService()
        while self.nodes["src"].driver.reachable("dst"):
            await task.deferLater(reactor, 0.01)
        answer = await self.ask(ask="ping", node="dst")
        self.assertIsNone(answer["round_trip"])
        self.assertIn("there is no path to node dst", answer["reason"])

    async def test_a_second_daemon_of_this_node(self) -> None:
        with self.assertRaisesRegex(SeamlessError, "node src runs on this host already"):
            self.make_control().open()
        self.assertEqual((await self.ask(ask="status"))["node"], "src")

    async def test_a_socket_that_a_killed_daemon_left(self) -> None:
        await self.control.stopService()
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(self.path))
        again = self.make_control()
        again.open()
        again.startService()
        self.addCleanup(again.stopService)
        self.assertEqual((await self.ask(ask="status"))["node"], "src")

    async def test_nothing_is_left(self) -> None:
        await self.control.stopService()
        self.assertFalse(self.path.exists())

    async def test_somebody_tidied_the_socket_away(self) -> None:
        self.path.unlink()
        await self.control.stopService()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_node_without_a_place_for_its_socket_runs(self) -> None:
        (self.directory / "file").write_text("")
        self.path = self.directory / "file" / "src.sock"
        control = self.make_control()
        control.open()
        control.startService()
        self.addCleanup(control.stopService)
        with self.assertRaises(UnreachableError):
            await self.ask(ask="status")
