"""The payload interceptor's two ends over an in-memory overlay, with real applications on loopback sockets.

The firewall's part is played by ``original_destination``, which the service takes as an argument: the tests connect
straight to the capture port and say where the connection was meant to go.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from ipaddress import ip_network
from typing import Any, cast

import attrs
from twisted.internet import reactor, task
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest

from seamless.config.model import Configuration, InterceptConfig, Match, NodeConfig, Overlay, WhenUnreachable
from seamless.errors import ConfigurationError, PrivilegeError
from seamless.intercept.payload import ingress
from seamless.intercept.payload.egress import PayloadEgress
from seamless.intercept.payload.flow import CaptureTable, decode_flow
from seamless.intercept.payload.ingress import PayloadIngress
from seamless.interfaces import RESET_BY_APPLICATION, Address, StreamKey
from seamless.linux.sockopt import set_mark
from seamless.test.transport.grounds import Ground, MemoryGround, NodeGround
from seamless.test.transport.running import RunningTestCase
from seamless.test.transport.sockets import Application
from seamless.transport.streams import Acceptors

MARK = 0x5EA
STORM = 1000


def configuration(when_unreachable: WhenUnreachable) -> Configuration:
    """Everything on loopback is served by ``dst`` and captured by ``src``."""
    nodes = {
        "src": NodeConfig("src", (("10.1.1.1", 7400),), (), b"s" * 32),
        "dst": NodeConfig("dst", (("10.1.3.2", 7400),), (ip_network("127.0.0.0/8"), ip_network("::1")), b"d" * 32),
    }
    everything = InterceptConfig("payload", (Match("tcp"),), on=("src",), when_unreachable=when_unreachable)
    return Configuration(Overlay("lab"), nodes, intercepts=(everything,))


class PayloadTestCase(RunningTestCase):
    """Client, ingress, overlay, egress, server."""

    when_unreachable: WhenUnreachable = "direct"

    def make_ground(self) -> Ground:
        return MemoryGround()

    async def setUp(self) -> None:  # type: ignore[override]
        self.ground = self.make_ground()
        await self.ground.start()
        self.addCleanup(self.ground.stop)
        dst = self.ground.dst
        self.egress = PayloadEgress(reactor, dst, Acceptors(dst), lambda peer, destination: None)
        self.egress.startService()
        self.server = self.listener("127.0.0.1")
        self.destination: Address = self.server.getsockname()
        self.ingress = self.start()
        self.addCleanup(self.stop)
        self.log: list[str] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def start(self, mark: int | None = MARK) -> PayloadIngress:
        ingress = PayloadIngress(
            reactor,
            self.ground.src,
            CaptureTable(configuration(self.when_unreachable), "src"),
            [("127.0.0.1", 0), ("::1", 0)],
            mark=mark,
            original_destination=lambda sock: self.destination,
        )
        ingress.startService()
        return ingress

    def stop(self) -> None:
        for service in (self.ingress, self.egress):
            if service.running:
                service.stopService()

    def note(self, event: LogEvent) -> None:
        if (
            event.get("log_namespace", "").startswith("seamless.intercept.payload.ingress")
            and event["log_level"].name != "debug"
        ):
            self.log.append(f"{event['log_level'].name}: {formatEvent(event)}")

    def listener(self, host: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=STORM)
        listener.settimeout(10)
        self.addCleanup(listener.close)
        return listener

    async def connect(self, index: int = 0) -> Application:
        address = self.ingress.addresses[index]
        client = Application(await self.run_in_thread(socket.create_connection, address))
        self.addCleanup(client.close)
        return client

    async def accept(self, listener: socket.socket | None = None) -> Application:
        sock, _ = await self.run_in_thread((listener or self.server).accept)
        server = Application(sock)
        self.addCleanup(server.close)
        return server

    async def expect_reset(self, client: Application) -> None:
        self.assertEqual(await self.run_in_thread(client.read_to_end), (b"", "RST"))


class CarryTests(PayloadTestCase):
    async def test_carries_a_connection(self) -> None:
        client = await self.connect()
        server = await self.accept()
        await self.run_in_thread(server.send_all, b"server speaks first")
        self.assertEqual(await self.run_in_thread(client.read_exactly, 19), b"server speaks first")
        await self.run_in_thread(client.send_all, b"question")
        client.finish()
        self.assertEqual(await self.run_in_thread(server.read_to_end), (b"question", "EOF"))
        await self.run_in_thread(server.send_all, b"answer")
        server.finish()
        self.assertEqual(await self.run_in_thread(client.read_to_end), (b"answer", "EOF"))
        await self.until(lambda: self.ingress.connections == self.egress.connections == 0)
        self.assertEqual((self.ingress.counters.captured, self.ingress.counters.accepted, self.log), (1, 1, []))

    async def test_a_request_goes_with_the_opening(self) -> None:
        """Before the reactor turns again, when what was opened leaves."""
        happened: list[str] = []
        open_stream, send = self.ground.src.open_stream, self.ground.src.send

        def opening(*arguments: Any) -> StreamKey:
            happened.append("open")
            reactor.callLater(0, happened.append, "turn")
            return open_stream(*arguments)

        def sending(*arguments: Any) -> int:
            happened.append("send")
            return send(*arguments)

        self.patch(self.ground.src, "open_stream", opening)
        self.patch(self.ground.src, "send", sending)
        client = Application(socket.create_connection(self.ingress.addresses[0]))
        self.addCleanup(client.close)
        client.send_all(b"question")
        server = await self.accept()
        self.assertEqual(await self.run_in_thread(server.read_exactly, 8), b"question")
        self.assertEqual(happened[:2], ["open", "send"])

    async def test_one_port_for_both_ip_versions(self) -> None:
        (_, port4), (host6, port6) = self.ingress.addresses
        self.assertEqual((port4, host6), (port6, "::1"))
        listener = self.listener("::1")
        self.destination = listener.getsockname()[:2]
        client = await self.connect(1)
        server = await self.accept(listener)
        await self.run_in_thread(client.send_all, b"six")
        self.assertEqual(await self.run_in_thread(server.read_exactly, 3), b"six")

    async def test_refused_by_the_server(self) -> None:
        self.server.close()
        client = await self.connect()
        await self.expect_reset(client)
        port = self.destination[1]
        own = client.sock.getsockname()[1]
        self.assertEqual(
            self.log,
            [
                f"info: no connection for 127.0.0.1 port {own} to 127.0.0.1 port {port}: "
                f"connection refused by 127.0.0.1 port {port}"
            ],
        )
        self.assertEqual((self.ingress.counters.refused_by_egress, self.ingress.waiting), (1, 0))

    async def test_egress_that_dies_resets_the_client(self) -> None:
        client = await self.connect()
        await self.accept()
        await self.until(lambda: self.ingress.counters.accepted == 1)
        self.ground.cut()
        await self.expect_reset(client)

    async def test_stop_resets_what_has_not_ended(self) -> None:
        client = await self.connect()
        server = await self.accept()
        self.ingress.stopService()
        await self.expect_reset(client)
        await self.expect_reset(server)
        self.assertEqual((self.ingress.connections, self.ingress.waiting, self.ingress.addresses), (0, 0, ()))

    async def test_a_storm_of_connections_loses_none(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        serving = threading.Thread(target=self.echo_each, daemon=True)
        serving.start()
        answers = await self.run_in_thread(storm, self.ingress.addresses[0])
        self.assertEqual(answers, STORM)
        await self.run_in_thread(serving.join, 10)
        await self.until(lambda: self.ingress.connections == self.egress.connections == 0)
        self.assertEqual((self.ingress.counters.captured, self.ingress.counters.accepted), (STORM, STORM))

    def echo_each(self) -> None:
        connections = [self.server.accept()[0] for _ in range(STORM)]
        for sock in connections:
            sock.sendall(sock.recv(4))
            sock.close()


class NodeCarryTests(CarryTests):
    """The same over real nodes."""

    def make_ground(self) -> Ground:
        return NodeGround()


class PayloadTests(PayloadTestCase):
    """What only the double shows."""

    def make_ground(self) -> Ground:
        ground = MemoryGround()
        self.src, self.dst = ground.src, ground.dst
        return ground

    async def test_target_names_destination_and_client(self) -> None:
        client = await self.connect()
        await self.until(lambda: bool(self.src.targets))
        flow = decode_flow(self.src.targets[0])
        self.assertEqual((flow.destination, flow.client), (self.destination, client.sock.getsockname()))

    async def test_connection_straight_to_the_capture_port_is_refused(self) -> None:
        self.destination = self.ingress.addresses[0]
        await self.expect_reset(await self.connect())
        self.assertEqual((self.ingress.counters.straight, self.src.targets), (1, []))
        [line] = self.log
        self.assertIn("it was made straight to the capture port", line)

    async def test_a_flood_straight_to_the_capture_port_is_few_lines(self) -> None:
        self.destination = self.ingress.addresses[0]

        def flood() -> None:
            for _ in range(500):
                with contextlib.suppress(ConnectionResetError):
                    socket.create_connection(self.ingress.addresses[0]).close()

        await self.run_in_thread(flood)
        await self.until(lambda: self.ingress.counters.straight == 500)
        self.assertLessEqual(len(self.log), 40)
        self.ingress.stopService()
        self.assertIn("more such lines were left out", self.log[-1])

    async def test_destination_that_no_interceptor_names_is_refused(self) -> None:
        self.destination = ("10.66.66.66", 80)
        await self.expect_reset(await self.connect())
        self.assertEqual((self.ingress.counters.not_configured, self.src.targets), (1, []))
        [line] = self.log
        self.assertIn("to 10.66.66.66 port 80: no interceptor on this node names its destination", line)

    async def test_direct_needs_the_mark(self) -> None:
        self.ground.cut()
        self.ingress.stopService()
        self.ingress = self.start(mark=None)
        await self.expect_reset(await self.connect())
        self.assertEqual(self.ingress.waiting, 0)
        [line] = self.log
        self.assertIn("without CAP_NET_ADMIN a direct connection would be captured again", line)

    async def test_client_that_gave_up_while_nothing_is_read_is_dropped(self) -> None:
        self.src.withhold_room()
        self.dst.listen(lambda stream, peer, target: None)  # an egress that dials for ever
        client = await self.connect()
        await self.run_in_thread(client.send_all, b"x" * 100_000)
        await self.until(lambda: self.ingress.waiting == 1)
        client.reset()
        await self.until(lambda: self.ingress.waiting == 0)
        self.assertEqual((self.ingress.counters.gave_up, self.ingress.connections), (1, 0))
        self.assertEqual(self.src.resets, [(RESET_BY_APPLICATION, "the client gave up")])

    async def test_waiting_connections_are_bounded_for_each_client(self) -> None:
        self.patch(ingress, "MAX_WAITING_PER_CLIENT", 2)
        self.ingress.stopService()
        self.ingress = self.start()
        self.dst.listen(lambda stream, peer, target: None)
        waiting = [await self.connect(), await self.connect()]
        await self.expect_reset(await self.connect())
        self.assertEqual((self.ingress.counters.overloaded, self.ingress.waiting), (1, len(waiting)))

    def test_port_in_use_is_a_sentence(self) -> None:
        host, port = self.ingress.addresses[0]
        table = CaptureTable(configuration("direct"), "src")
        other = PayloadIngress(reactor, self.src, table, [("::1", 0), (host, port)])
        error = self.assertRaises(ConfigurationError, other.startService)
        self.assertEqual(
            str(error), f"TCP 127.0.0.1 port {port} is in use by another program: stop it, or free the port"
        )
        self.assertEqual(other.addresses, ())


class ReloadTests(PayloadTestCase):
    """Other captures while connections are open."""

    async def test_what_has_no_way_any_more_is_reset_and_the_rest_goes_on(self) -> None:
        kept = await self.connect()
        kept_server = await self.accept()
        other = self.listener("127.0.0.1")
        here, self.destination = self.destination, other.getsockname()
        gone = await self.connect()
        gone_server = await self.accept(other)
        await self.run_in_thread(gone_server.send_all, b"last words")
        self.assertEqual(await self.run_in_thread(gone.read_exactly, 10), b"last words")
        only = configuration("direct")
        rule = Match("tcp", ports=((here[1], here[1]),))
        only = attrs.evolve(only, intercepts=(attrs.evolve(only.intercepts[0], rules=(rule,)),))
        self.assertEqual(self.ingress.configure(CaptureTable(only, "src")), 1)
        await self.expect_reset(gone)
        await self.expect_reset(gone_server)
        await self.run_in_thread(kept.send_all, b"still here")
        self.assertEqual(await self.run_in_thread(kept_server.read_exactly, 10), b"still here")
        await self.expect_reset(await self.connect())
        self.assertIn("no interceptor on this node names its destination", self.log[-1])

    async def test_the_egress_resets_what_it_may_not_dial_any_more(self) -> None:
        clients, servers = [], []
        for _ in range(2):
            clients.append(await self.connect())
            servers.append(await self.accept())
        self.assertEqual(self.egress.configure(lambda peer, destination: None), 0)
        self.assertEqual(self.egress.configure(lambda peer, destination: f"not for {peer}"), 2)
        for end in (*clients, *servers):
            await self.expect_reset(end)
        self.assertIn("not for src", self.ground.dst.resets[0][1])  # type: ignore[attr-defined]
        self.assertEqual((self.egress.connections, self.ingress.connections), (0, 0))

    async def test_listening_elsewhere_leaves_connections_alone(self) -> None:
        client = await self.connect()
        server = await self.accept()
        before = self.ingress.addresses[0]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.ingress.listen([("127.0.0.1", port)])
        self.ingress.listen_only([("127.0.0.1", port)])
        self.assertEqual(self.ingress.addresses, (("127.0.0.1", port),))
        with self.assertRaises(ConnectionRefusedError):
            await self.run_in_thread(socket.create_connection, before)
        await self.connect()
        await self.accept()
        await self.run_in_thread(client.send_all, b"still here")
        self.assertEqual(await self.run_in_thread(server.read_exactly, 10), b"still here")


class DirectTests(PayloadTestCase):
    """Where the overlay does not reach the egress and connections go round it."""

    async def setUp(self) -> None:  # type: ignore[override]
        with socket.socket() as sock:
            try:
                set_mark(sock, MARK)
            except PrivilegeError as error:
                raise SkipTest(str(error)) from error
        await super().setUp()

    async def test_unreachable_goes_direct(self) -> None:
        self.ground.cut()
        client = await self.connect()
        server = await self.accept()
        data = bytes(range(256)) * 8000
        sending = self.run_in_thread(client.send_all, data)
        reading = self.run_in_thread(server.read_to_end)
        await sending
        client.finish()
        self.assertEqual(await reading, (data, "EOF"))
        await self.run_in_thread(server.send_all, b"thanks")
        server.reset()
        self.assertEqual((await self.run_in_thread(client.read_to_end))[1], "RST")
        await self.until(lambda: self.ingress.connections == 0)
        self.assertEqual((self.ingress.counters.direct, self.egress.counters.asked), (1, 0))
        [line] = self.log
        self.assertIn("goes direct: node dst cannot be reached now", line)

    async def test_direct_obeys_a_stopped_reader(self) -> None:
        self.ground.cut()
        client = await self.connect()
        server = await self.accept()
        data = bytes(range(256)) * 80_000
        sending = self.run_in_thread(client.send_all, data)
        await task.deferLater(reactor, 0.3)
        self.assertFalse(sending.called)
        reading = self.run_in_thread(server.read_to_end)
        await sending
        client.finish()
        self.assertEqual(await reading, (data, "EOF"))

    async def test_direct_to_nobody_is_a_reset(self) -> None:
        self.ground.cut()
        self.server.close()
        await self.expect_reset(await self.connect())
        self.assertEqual((self.ingress.counters.direct_failed, self.ingress.waiting), (1, 0))
        self.assertIn(f"connection refused by 127.0.0.1 port {self.destination[1]}", self.log[-1])


class RefuseTests(PayloadTestCase):
    """Where the configuration refuses what the overlay cannot carry."""

    when_unreachable: WhenUnreachable = "refuse"

    async def test_unreachable_is_refused(self) -> None:
        self.ground.cut()
        await self.expect_reset(await self.connect())
        self.server.setblocking(False)
        self.assertRaises(BlockingIOError, self.server.accept)
        self.assertEqual((self.ingress.counters.unreachable, self.ingress.counters.direct), (1, 0))


def storm(address: Address) -> int:
    """Open many connections before using any; return how many got their own bytes back."""
    clients = [socket.socket() for _ in range(STORM)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(address)
    answers = 0
    for number, client in enumerate(clients):
        client.setblocking(True)
        client.settimeout(20)
        client.sendall(number.to_bytes(4, "big"))
    for number, client in enumerate(clients):
        answers += client.recv(4, socket.MSG_WAITALL) == number.to_bytes(4, "big")
        client.close()
    return answers
