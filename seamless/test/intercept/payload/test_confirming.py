"""What the ingress does with held SYNs: over an in-memory overlay in virtual time, with the privileged end played.

The connections that come to the capture port are real sockets elsewhere (`seamless.test.lab.test_connect`);
here `Confirmer.claim` stands for them.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Configuration, Connect, InterceptConfig, Match, NodeConfig, Overlay, WhenUnreachable
from seamless.errors import DialError
from seamless.intercept.payload import confirming
from seamless.intercept.payload.confirming import ASKS_PER_TURN, CLAIM_TIMEOUT, OUTCOMES, Confirmer
from seamless.intercept.payload.egress import failure_code
from seamless.intercept.payload.flow import CaptureTable, Flow, decode_flow
from seamless.intercept.payload.learned import LEARNED_FOR, MAX_LEARNED, LearnedServers
from seamless.interfaces import (
    CONNECT_FAILURES,
    RESET_BY_APPLICATION,
    RESET_HOST_UNREACHABLE,
    RESET_NETWORK_UNREACHABLE,
    RESET_PEER_LOST,
    RESET_PORT_UNREACHABLE,
    RESET_PROHIBITED,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    RESET_TIMED_OUT,
    StreamKey,
)
from seamless.linux.held_syns import GONE, MAX_HELD, OPENED, Outcome, decode_decisions
from seamless.testing import MemoryOverlay
from seamless.transport.limited_log import LimitedLog

LATENCY = 0.010
SERVER = ("10.1.9.2", 22)
CLIENT = "10.2.1.1"
NEWS = struct.Struct("!cQB")


def configuration(connect: Connect, when_unreachable: WhenUnreachable) -> Configuration:
    """Everything in 10.1.9.0/24 and 2001:db8:9::/64 is served by ``dst`` and captured by ``src``."""
    served = ip_network("10.1.9.0/24"), ip_network("2001:db8:9::/64")
    nodes = {
        "src": NodeConfig("src", (("10.1.1.1", 7400),), (), b"s" * 32),
        "dst": NodeConfig("dst", (("10.1.3.2", 7400),), served, b"d" * 32),
    }
    everything = InterceptConfig(
        "payload", (Match("tcp"),), on=("src",), when_unreachable=when_unreachable, connect=connect
    )
    return Configuration(Overlay("lab"), nodes, intercepts=(everything,))


class VirtualReactor(Clock):
    """Virtual time, and descriptors that the test itself polls."""

    def addReader(self, reader: Any) -> None:
        """Do nothing."""

    removeReader = addWriter = removeWriter = addReader


class Owner:
    """The splice that takes a stream over: writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def stream_accepted(self) -> None:
        self.heard.append("accepted")

    def stream_data(self, chunks: list[bytes]) -> None:
        self.heard.append(b"".join(chunks))

    def stream_writable(self) -> None:
        self.heard.append("writable")

    def stream_finished(self) -> None:
        self.heard.append("FIN")

    def stream_reset(self, code: int, reason: str) -> None:
        self.heard.append(code)

    def stream_closed(self) -> None:
        self.heard.append("closed")


class ConfirmerTestCase(SynchronousTestCase):
    connect: Connect = "confirmed"
    when_unreachable: WhenUnreachable = "direct"

    def setUp(self) -> None:
        self.clock = VirtualReactor()
        self.overlay = MemoryOverlay(self.clock, LATENCY)
        self.src, self.dst = self.overlay.driver("src"), self.overlay.driver("dst")
        self.asked: list[tuple[StreamKey, Flow]] = []
        self.dst.listen(self.opened)
        self.given_up = 0
        captures = CaptureTable(configuration(self.connect, self.when_unreachable), "src")
        self.confirmer = Confirmer(self.clock, self.src, captures, LimitedLog(self.clock, Logger()))
        self.counters = self.confirmer.counters
        self.attach()
        self.number = 0

    def opened(self, stream: StreamKey, peer: str, target: bytes) -> None:
        self.asked.append((stream, decode_flow(target)))
        self.dst.watch_stream(stream, self.note_given_up)

    def note_given_up(self) -> None:
        self.given_up += 1

    def attach(self) -> None:
        ours, self.privileged = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.privileged):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.confirmer.attach(ours)

    def tell(self, message: bytes) -> None:
        self.privileged.send(message)
        reader = self.confirmer._reader
        assert reader is not None
        reader.doRead()

    def hold(self, client: str = CLIENT, port: int = 40_000, server: tuple[str, int] = SERVER) -> int:
        """Have a SYN held; return its number."""
        self.number += 1
        packed = ip_address(client).packed + ip_address(server[0]).packed + struct.pack("!HH", port, server[1])
        self.tell(NEWS.pack(OPENED, self.number, len(packed)) + packed)
        return self.number

    def decisions(self) -> list[tuple[int, Outcome]]:
        taken: list[tuple[int, Outcome]] = []
        while True:
            try:
                taken += decode_decisions(self.privileged.recv(10_000))
            except BlockingIOError:
                return taken

    def advance(self, seconds: float = 2 * LATENCY) -> None:
        self.clock.pump([LATENCY / 4] * round(seconds / LATENCY * 4))

    def accept(self) -> StreamKey:
        """Have the egress accept the oldest stream."""
        stream, _ = self.asked.pop(0)
        self.dst.accept_stream(stream, Owner())
        return stream


class ConfirmedTests(ConfirmerTestCase):
    def test_a_server_that_accepts(self) -> None:
        number = self.hold()
        self.advance()
        self.assertEqual(self.decisions(), [], "not before the egress has answered")
        self.assertEqual([flow for _, flow in self.asked], [Flow(SERVER, (CLIENT, 40_000))])
        stream = self.accept()
        self.dst.send(stream, b"server speaks first")
        self.dst.finish(stream)
        self.advance()
        self.assertEqual(self.decisions(), [(number, Outcome.PASS)])
        held = self.confirmer.claim(Flow(SERVER, (CLIENT, 40_000)))
        assert held is not None and held.stream is not None
        owner = Owner()
        self.src.change_owner(held.stream, owner)
        held.replay(owner)
        self.assertEqual(owner.heard, [b"server speaks first", "FIN"])
        self.src.finish(held.stream)
        self.advance()
        self.assertEqual(owner.heard[2:], ["closed"])
        self.assertEqual((self.confirmer.waiting, self.counters.confirmed), (0, 1))
        self.assertIsNone(self.confirmer.claim(Flow(SERVER, (CLIENT, 40_000))), "once")

    def test_every_failure_ends_the_clients_connect_in_the_same_way(self) -> None:
        for code in sorted(CONNECT_FAILURES):
            number = self.hold()
            self.advance()
            stream, _ = self.asked.pop(0)
            self.dst.reset(stream, code, "as the test says")
            self.advance()
            self.assertEqual(self.decisions(), [(number, OUTCOMES[code])])
        self.assertEqual(OUTCOMES[RESET_TIMED_OUT], Outcome.DROP, "the client's own time goes on")
        self.assertEqual((self.counters.timed_out, self.counters.refused), (1, len(CONNECT_FAILURES) - 1))
        self.assertEqual((self.confirmer.waiting, self.src.open_streams), (0, 0))

    def test_ipv6(self) -> None:
        number = self.hold("2001:db8:1::1", server=("2001:db8:9::2", 80))
        self.advance()
        self.assertEqual(self.asked[0][1], Flow(("2001:db8:9::2", 80), ("2001:db8:1::1", 40_000)))
        self.accept()
        self.advance()
        self.assertEqual(self.decisions(), [(number, Outcome.PASS)])

    def test_a_client_that_gives_up_while_it_waits(self) -> None:
        number = self.hold()
        self.advance()
        self.tell(NEWS.pack(GONE, number, 0))
        self.advance()
        self.assertEqual(self.src.resets, [(RESET_BY_APPLICATION, "the client gave up")])
        self.assertEqual((self.confirmer.waiting, self.counters.gave_up, self.given_up), (0, 1, 1))

    def test_a_client_that_gives_up_before_the_egress_was_asked(self) -> None:
        self.hold()  # is asked about at once, and others in the reactor's next turn
        self.tell(NEWS.pack(GONE, self.hold(port=2), 0))
        self.advance()
        self.assertEqual(([flow.client[1] for _, flow in self.asked], self.confirmer.waiting), ([40_000], 1))

    def test_a_client_that_never_comes(self) -> None:
        self.hold()
        self.advance()
        self.accept()
        self.advance()
        self.assertEqual(self.confirmer.waiting, 1)
        self.advance(CLAIM_TIMEOUT)
        self.assertEqual((self.confirmer.waiting, self.counters.gave_up), (0, 1))
        self.assertEqual(self.src.resets, [(RESET_BY_APPLICATION, "the client gave up")])

    def test_a_syn_again_after_the_answer(self) -> None:
        """The SYN-ACK was lost: it passes too, and the egress is not asked again."""
        self.hold()
        self.advance()
        self.accept()
        self.advance()
        self.decisions()
        again = self.hold()
        self.advance()
        self.assertEqual((self.decisions(), self.asked), ([(again, Outcome.PASS)], []))

    def test_a_connection_that_is_reset_before_it_is_claimed(self) -> None:
        self.hold()
        self.advance()
        stream = self.accept()
        self.dst.reset(stream, RESET_BY_APPLICATION, "the server changed its mind")
        self.advance()
        held = self.confirmer.claim(Flow(SERVER, (CLIENT, 40_000)))
        assert held is not None
        owner = Owner()
        held.replay(owner)
        self.assertEqual(owner.heard, [RESET_BY_APPLICATION])

    def test_no_way_to_the_egress(self) -> None:
        self.overlay.cut("src", "dst")
        number = self.hold()
        self.assertEqual(self.decisions(), [(number, Outcome.NATIVE)])
        self.assertEqual((self.counters.unreachable, self.counters.direct, self.confirmer.waiting), (1, 1, 0))

    def test_an_egress_that_dies_while_it_is_asked(self) -> None:
        for code in (RESET_PEER_LOST, RESET_SHUTDOWN):
            number = self.hold()
            self.advance()
            stream, _ = self.asked.pop(0)
            self.dst.reset(stream, code, "gone")
            self.advance()
            self.assertEqual(self.decisions(), [(number, Outcome.NATIVE)])

    def test_what_no_interceptor_names_goes_to_the_capture_port(self) -> None:
        number = self.hold(server=("10.66.66.66", 80))
        self.assertEqual(self.decisions(), [(number, Outcome.PASS)])

    def test_clients_take_turns(self) -> None:
        """A flood of one client's is asked about between the others'."""
        for port in range(200):
            self.hold(port=port + 1)
        self.hold("10.2.1.2")
        self.clock.advance(0)
        self.clock.advance(LATENCY)
        asked = [flow.client[0] for _, flow in self.asked]
        self.assertIn("10.2.1.2", asked[:ASKS_PER_TURN])
        self.advance(1.0)
        self.assertEqual(len(self.asked), 201)

    def test_those_that_wait_are_bounded(self) -> None:
        self.patch(confirming, "MAX_HELD_PER_CLIENT", 3)
        self.setUp()
        numbers = [self.hold(port=port) for port in range(1, 5)]
        self.assertEqual(self.decisions(), [(numbers[3], Outcome.REFUSED)])
        self.assertEqual((self.counters.overloaded, self.confirmer.waiting), (1, 3))
        self.assertLess(3, MAX_HELD)

    def test_another_privileged_part(self) -> None:
        """What the former one held is gone with it; numbers begin anew."""
        self.hold()
        self.advance()
        self.accept()
        self.advance()
        waiting = self.hold(port=2)
        self.advance()
        self.privileged.close()
        reader = self.confirmer._reader
        assert reader is not None
        reader.doRead()
        self.assertEqual(self.confirmer.waiting, 1, "the one that was let through may still come")
        self.assertEqual(self.src.resets[-1][0], RESET_SHUTDOWN)
        self.attach()
        self.number = 0
        self.assertEqual(self.hold(port=3), 1)
        self.assertNotEqual(waiting, 1)
        self.advance(CLAIM_TIMEOUT)
        self.assertEqual(self.confirmer.waiting, 1, "the new one of the same number still waits")

    def test_another_configuration(self) -> None:
        """What it captures no more is dropped: the client's next SYN meets no rule, or one for another egress."""
        waiting = self.hold()
        self.advance()
        self.hold(port=2)
        self.advance()
        self.dst.accept_stream(self.asked[1][0], Owner())
        self.advance()
        self.assertEqual(self.decisions(), [(2, Outcome.PASS)])
        same = CaptureTable(configuration("confirmed", "direct"), "src")
        self.confirmer.configure(same)
        self.assertEqual(self.confirmer.waiting, 2)
        none = attrs.evolve(configuration("confirmed", "direct"), intercepts=())
        self.confirmer.configure(CaptureTable(none, "src"))
        self.advance()
        self.assertEqual((self.decisions(), self.confirmer.waiting), ([(waiting, Outcome.DROP)], 0))
        self.assertEqual(self.src.open_streams, 0)

    def test_close(self) -> None:
        self.hold()
        self.advance()
        self.accept()
        self.advance()
        self.hold(port=2)
        self.advance()
        self.confirmer.close()
        self.advance()
        self.assertEqual((self.confirmer.waiting, self.src.open_streams, self.dst.open_streams), (0, 0, 0))
        self.assertEqual({code for code, _ in self.src.resets}, {RESET_SHUTDOWN})
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefuseTests(ConfirmerTestCase):
    when_unreachable: WhenUnreachable = "refuse"

    def test_no_way_to_the_egress(self) -> None:
        self.overlay.cut("src", "dst")
        number = self.hold()
        self.assertEqual(self.decisions(), [(number, Outcome.REFUSED)])


class LearnedTests(ConfirmerTestCase):
    connect: Connect = "learned"

    def confirm(self) -> None:
        self.hold()
        self.advance()
        self.accept()
        self.advance()
        self.confirmer.claim(Flow(SERVER, (CLIENT, 40_000)))
        self.decisions()

    def test_the_second_connection_is_accepted_at_once(self) -> None:
        self.confirm()
        number = self.hold(port=2)
        self.assertEqual(self.decisions(), [(number, Outcome.PASS)])
        self.assertEqual((self.counters.learned, self.confirmer.waiting, self.asked), (1, 0, []))
        self.hold(port=2, server=(SERVER[0], 23))
        self.assertEqual(self.decisions(), [], "another port is another server")

    def test_for_ten_seconds(self) -> None:
        self.confirm()
        self.advance(LEARNED_FOR)
        self.hold(port=2)
        self.assertEqual(self.decisions(), [])

    def test_one_failure_forgets_it(self) -> None:
        self.confirm()
        self.confirmer.servers.failed(SERVER)
        self.hold(port=2)
        self.assertEqual(self.decisions(), [])

    def test_confirmed_learns_nothing(self) -> None:
        self.connect = "confirmed"
        self.setUp()
        self.confirm()
        self.hold(port=2)
        self.assertEqual(self.decisions(), [])

    def test_a_bound(self) -> None:
        servers = LearnedServers()
        for port in range(MAX_LEARNED + 1):
            servers.accepted(("10.1.9.2", port), 0.0)
        self.assertFalse(servers.accepts(("10.1.9.2", 0), 1.0))
        self.assertTrue(servers.accepts(("10.1.9.2", 1), 1.0))


class FailureCodeTests(SynchronousTestCase):
    """The egress says how dialling failed, as a router on the way would have said it."""

    def test_codes(self) -> None:
        four, six = ("10.1.9.2", 22), ("2001:db8:9::2", 22)
        for errno_name, icmp_code, server, code in (
            ("ECONNREFUSED", None, four, RESET_REFUSED),
            ("ECONNREFUSED", 3, four, RESET_PORT_UNREACHABLE),
            ("EHOSTUNREACH", 1, four, RESET_HOST_UNREACHABLE),
            ("EHOSTUNREACH", None, four, RESET_HOST_UNREACHABLE),
            ("EHOSTUNREACH", 13, four, RESET_PROHIBITED),
            ("EHOSTUNREACH", 3, six, RESET_HOST_UNREACHABLE),
            ("EHOSTUNREACH", None, six, RESET_NETWORK_UNREACHABLE),
            ("ENETUNREACH", None, four, RESET_NETWORK_UNREACHABLE),
            ("EACCES", 1, six, RESET_PROHIBITED),
            ("ETIMEDOUT", None, four, RESET_TIMED_OUT),
            ("EMFILE", None, four, RESET_REFUSED),
        ):
            error = DialError("", getattr(errno, errno_name), icmp_code)
            self.assertEqual(failure_code(error, server), code, (errno_name, icmp_code, server))
