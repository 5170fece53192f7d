"""The egress: what it dials, what it refuses and with which words, and what becomes of early bytes."""

from __future__ import annotations

import socket
from typing import cast

from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from seamless.intercept.payload import egress
from seamless.intercept.payload.egress import PayloadEgress
from seamless.intercept.payload.flow import Flow
from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_NETWORK_UNREACHABLE,
    RESET_NOT_ALLOWED,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    RESET_TIMED_OUT,
    Address,
)
from seamless.test.transport.running import RunningTestCase
from seamless.testing import MemoryOverlay
from seamless.transport.streams import Acceptors

CLIENT: Address = ("127.0.0.1", 4000)


class Recorder:
    """The owner of a stream, which records its events."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.resets: list[tuple[int, str]] = []

    def stream_accepted(self) -> None:
        self.heard.append("accepted")

    def stream_data(self, chunks: list[bytes]) -> None:
        self.heard.extend(chunks)

    def stream_writable(self) -> None:
        self.heard.append("writable")

    def stream_finished(self) -> None:
        self.heard.append("finished")

    def stream_reset(self, code: int, reason: str) -> None:
        self.heard.append((code, reason))
        self.resets.append((code, reason))

    def stream_closed(self) -> None:
        self.heard.append("closed")


class EgressTests(RunningTestCase):
    def setUp(self) -> None:
        self.overlay = MemoryOverlay(reactor, 0.001)
        self.src = self.overlay.driver("src")
        self.dst = self.overlay.driver("dst")
        self.forbidden: str | None = None
        self.acceptors = Acceptors(self.dst)
        self.egress = self.start()
        self.addCleanup(self.stop)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.owner = Recorder()
        self.lines: list[str] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def start(self) -> PayloadEgress:
        service = PayloadEgress(
            reactor, self.dst, self.acceptors, lambda peer, destination: self.forbidden, dial_timeout=0.3
        )
        service.startService()
        return service

    def note(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "seamless.intercept.payload.egress.PayloadEgress":
            self.lines.append(event["log_level"].name)
            self.last = formatEvent(event)

    async def stop(self) -> None:
        if self.egress.running:
            self.egress.stopService()
        await self.until(lambda: self.overlay.in_flight == 0)

    def target(self) -> bytes:
        return Flow(self.listener.getsockname(), CLIENT).encode()

    async def test_connects_then_accepts_and_hands_over_early_bytes(self) -> None:
        stream = self.src.open_stream("dst", self.target(), self.owner)
        self.src.send(stream, b"early ")
        self.src.send(stream, b"bird")
        self.src.finish(stream)
        await self.until(lambda: self.egress.connections == 1)
        server, _ = self.listener.accept()
        self.addCleanup(server.close)
        server.settimeout(5)
        self.assertEqual(server.recv(100, socket.MSG_WAITALL), b"early bird")
        await self.until(lambda: self.owner.heard == ["accepted"])
        server.sendall(b"worm")
        server.close()
        await self.until(lambda: self.owner.heard == ["accepted", b"worm", "finished", "closed"])
        self.assertEqual((self.egress.connections, self.egress.counters.connected, self.lines), (0, 1, ["debug"] * 2))

    async def test_a_flood_of_refused_streams_is_few_lines(self) -> None:
        self.forbidden = "the test says no"
        for _ in range(2000):
            self.src.open_stream("dst", self.target(), Recorder())
        await self.until(lambda: self.egress.counters.not_allowed == 2000)
        self.assertLessEqual(len(self.lines), 40)
        self.egress.stopService()
        self.assertIn("more such lines were left out", self.last)

    async def refused(self, target: bytes) -> tuple[int, str]:
        self.src.open_stream("dst", target, self.owner)
        await self.until(lambda: bool(self.owner.heard))
        [reset] = self.owner.resets
        return reset

    async def test_refused_connection_is_a_refused_stream(self) -> None:
        target, port = self.target(), self.listener.getsockname()[1]
        self.listener.close()
        self.assertEqual(await self.refused(target), (RESET_REFUSED, f"connection refused by 127.0.0.1 port {port}"))
        self.assertEqual((self.egress.counters.unreachable, self.lines), (1, ["info"]))

    async def test_silent_server_is_a_refused_stream(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                self.addCleanup(filler.close)
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            code, reason = await self.refused(Flow(silent.getsockname(), CLIENT).encode())
            port = silent.getsockname()[1]
        self.assertEqual((code, reason), (RESET_TIMED_OUT, f"127.0.0.1 port {port} did not answer within 0.3 s"))

    async def test_unreachable_network_is_a_refused_stream(self) -> None:
        """240.0.0.0/4 is reserved; the kernel refuses to connect there."""
        code, reason = await self.refused(Flow(("255.255.255.255", 9), CLIENT).encode())
        self.assertEqual(code, RESET_NETWORK_UNREACHABLE)
        self.assertIn("cannot connect to 255.255.255.255 port 9: ", reason)

    async def test_forbidden_destination_is_never_dialled(self) -> None:
        self.forbidden = "because of the test"
        self.assertEqual(await self.refused(self.target()), (RESET_NOT_ALLOWED, "because of the test"))
        self.listener.setblocking(False)
        self.assertRaises(BlockingIOError, self.listener.accept)
        self.assertEqual((self.egress.counters.not_allowed, self.lines), (1, ["warn"]))

    async def test_malformed_target(self) -> None:
        code, _ = await self.refused(self.target()[:-1])
        self.assertEqual((code, self.egress.counters.not_allowed), (RESET_NOT_ALLOWED, 1))

    async def test_other_kinds_are_refused(self) -> None:
        self.assertEqual((await self.refused(b"\x77whatever"))[0], RESET_NOT_ALLOWED)
        self.owner = Recorder()
        self.assertEqual((await self.refused(b""))[0], RESET_NOT_ALLOWED)
        self.assertEqual(self.egress.counters.asked, 0)

    async def test_too_many_dials(self) -> None:
        self.patch(egress, "MAX_DIALS", 1)
        self.egress.stopService()
        self.egress = self.start()
        first, second = Recorder(), Recorder()
        self.src.open_stream("dst", self.target(), first)
        self.src.open_stream("dst", self.target(), second)
        await self.until(lambda: bool(first.heard and second.heard))
        self.assertEqual(first.heard, ["accepted"])
        self.assertEqual(second.heard, [(RESET_REFUSED, "node dst waits for too many servers already")])
        self.assertEqual(self.egress.counters.overloaded, 1)

    async def test_client_that_gave_up_leaves_no_connection(self) -> None:
        """One that has said something already: the server hears it, and the reset after it."""
        stream = self.src.open_stream("dst", self.target(), self.owner)
        self.src.send(stream, b"too late")
        self.src.reset(stream, RESET_BY_APPLICATION, "gave up")
        await self.until(lambda: self.egress.counters.connected == 1)
        server, _ = self.listener.accept()
        self.addCleanup(server.close)
        server.settimeout(5)
        await self.until(lambda: self.egress.connections == 0)
        self.assertEqual(server.recv(100), b"too late")
        self.assertRaises(ConnectionResetError, server.recv, 1)
        self.assertEqual(self.dst.open_streams, 0)

    async def test_client_that_gave_up_while_its_server_is_dialled(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                self.addCleanup(filler.close)
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            stream = self.src.open_stream("dst", Flow(silent.getsockname(), CLIENT).encode(), self.owner)
            await self.until(lambda: self.egress.waiting == 1)
            self.src.reset(stream, RESET_BY_APPLICATION, "gave up")
            await self.until(lambda: self.egress.waiting == 0)
        self.assertEqual((self.egress.counters.given_up, self.egress.counters.connected), (1, 0))
        self.assertEqual((self.egress.connections, self.dst.open_streams), (0, 0))

    async def test_stop_resets_what_is_spliced_and_what_is_dialled(self) -> None:
        self.src.open_stream("dst", self.target(), self.owner)
        await self.until(lambda: self.owner.heard == ["accepted"])
        server, _ = self.listener.accept()
        self.addCleanup(server.close)
        dialled = Recorder()
        self.src.open_stream("dst", self.target(), dialled)
        await self.until(lambda: self.egress.counters.asked == 2)
        self.egress.stopService()
        await self.until(lambda: bool(dialled.heard) and len(self.owner.heard) == 2)
        self.assertEqual(self.owner.heard[1:], [(RESET_SHUTDOWN, "node dst is stopping")])
        self.assertEqual(dialled.heard[-1:], [(RESET_SHUTDOWN, "node dst is stopping")])
        server.settimeout(5)
        self.assertRaises(ConnectionResetError, server.recv, 1)
