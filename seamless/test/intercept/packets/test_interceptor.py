"""The whole-packet interceptor between its two ends: a channel that captures, and a driver that carries."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import cast

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import IP, TCP, UDP  # noqa: E402

from seamless.intercept.packets.crossings import FIRST_QUEUE  # noqa: E402
from seamless.intercept.packets.interceptor import PacketInterceptor  # noqa: E402
from seamless.linux.capture import BIND, FAILED, FRAME, ORDER, PACKETS, UNBIND  # noqa: E402
from seamless.linux.ip_packet import is_intact, parse  # noqa: E402
from seamless.test.intercept.packets.in_namespaces import LOCAL, configuration  # noqa: E402
from seamless.test.transport.watch import Watch  # noqa: E402
from seamless.transport.capture_reader import capture_channel  # noqa: E402
from seamless.transport.driver import Driver  # noqa: E402

A, B = "10.1.9.1", "10.1.9.2"
ROOM = 1300


class Carrier:
    """What the interceptor needs of a driver, and of its node."""

    def __init__(self) -> None:
        self.node = self
        self.sent: list[tuple[str, bytes, bool]] = []
        self.up = {"b": True, "c": False}
        self.on_packet: Callable[[str, bytes], None] | None = None
        self.on_reachable: Callable[[str, bool], None] | None = None

    def listen_packets(self, callback: Callable[[str, bytes], None]) -> None:
        self.on_packet = callback

    def watch_reachable(self, callback: Callable[[str, bool], None]) -> None:
        self.on_reachable = callback

    def reachable(self, peer: str) -> bool:
        return self.up[peer]

    def whole_packet_bytes(self, peer: str) -> int:
        return ROOM

    def send_packets(self, peer: str, packets: list[bytes], *, is_recovered: bool = True) -> None:
        self.sent += [(peer, packet, is_recovered) for packet in packets]


class InterceptorTests(SynchronousTestCase):
    def start(self, text: str = LOCAL) -> None:
        self.reactor, self.carrier = Watch(), Carrier()
        self.interceptor = PacketInterceptor(self.reactor, cast(Driver, self.carrier), configuration(text), "a")
        self.interceptor.startService()
        self.addCleanup(self.interceptor.stopService)
        ours, self.privileged = capture_channel()
        self.addCleanup(self.privileged.close)
        self.privileged.settimeout(0.1)
        self.interceptor.attach(ours)

    def orders(self) -> list[tuple[bytes, int]]:
        """Return what the privileged end was told since the last call."""
        orders = []
        try:
            while message := self.privileged.recv(100):
                orders.append(ORDER.unpack(message))
        except TimeoutError:
            pass
        return [(bytes(word), queue) for word, queue in orders]

    def capture(self, *packets: tuple[int, bytes]) -> None:
        frames = b"".join(FRAME.pack(queue, len(packet)) + packet for queue, packet in packets)
        self.privileged.send(bytes((PACKETS,)) + frames)
        self.reactor.readers[0].doRead()

    def test_captured_packets_go_to_the_peer_of_their_queue(self) -> None:
        self.start("intercept local { tcp port 22; on a; recovery none; }")
        to_b, to_c = bytes(IP(src=A, dst=B) / TCP(dport=22)), bytes(IP(src=A, dst="10.1.9.3") / TCP(dport=22))
        self.capture((FIRST_QUEUE, to_b), (FIRST_QUEUE, to_b), (FIRST_QUEUE + 1, to_c), (9999, b"unknown"))
        self.assertEqual(self.carrier.sent, [("b", to_b, False), ("b", to_b, False), ("c", to_c, False)])
        self.assertEqual(self.interceptor.counters.captured, 3)

    def test_queues_are_bound_while_there_is_a_path(self) -> None:
        self.start("intercept local { tcp port 22; on a; }")
        self.assertEqual(self.orders(), [(BIND, FIRST_QUEUE), (UNBIND, FIRST_QUEUE + 1)])
        assert self.carrier.on_reachable is not None
        self.carrier.on_reachable("b", False)
        self.carrier.on_reachable("c", True)
        self.assertEqual(self.orders(), [(UNBIND, FIRST_QUEUE), (BIND, FIRST_QUEUE + 1)])

    def test_refuse_keeps_them_bound(self) -> None:
        self.start("intercept local { tcp port 22; on a; when unreachable refuse; }")
        self.assertEqual(self.orders(), [(BIND, FIRST_QUEUE), (BIND, FIRST_QUEUE + 1)])

    def test_a_new_channel_takes_over(self) -> None:
        """The privileged part died and another one was started."""
        self.start()
        self.orders()
        ours, self.privileged = capture_channel()
        self.addCleanup(self.privileged.close)
        self.privileged.settimeout(0.1)
        self.interceptor.attach(ours)
        self.assertEqual(self.orders(), [(BIND, FIRST_QUEUE), (BIND, FIRST_QUEUE + 1)])
        self.assertEqual(len(self.reactor.readers), 1)
        self.interceptor.stopService()
        self.assertEqual(self.reactor.readers, [])

    def test_clamped(self) -> None:
        self.start("intercept local { tcp to 10.1.9.2 port 22; on a; clamp mss; }")
        syn = bytes(IP(src=A, dst=B) / TCP(dport=22, flags="S", options=[("MSS", 1460)]))
        data = bytes(IP(src=A, dst=B) / TCP(dport=22, flags="A") / b"x")
        self.capture((FIRST_QUEUE, syn), (FIRST_QUEUE, data))
        (_, clamped, _), (_, other, _) = self.carrier.sent
        self.assertTrue(is_intact(clamped, parse(clamped)))
        self.assertEqual(IP(clamped)[TCP].options, [("MSS", ROOM - 40)])
        self.assertEqual(other, data)
        self.assertEqual(self.interceptor.counters.clamped, 1)

    def test_what_no_interceptor_names_is_refused(self) -> None:
        self.start()
        assert self.carrier.on_packet is not None
        self.carrier.on_packet("c", bytes(IP(src="10.1.9.3", dst=A) / TCP(sport=22)))
        self.carrier.on_packet("b", bytes(IP(src=B, dst=A) / TCP(sport=23)))
        counters = self.interceptor.counters
        self.assertEqual((counters.refused_source, counters.refused_ports, counters.admitted), (1, 1, 0))

    def test_nothing_is_released_before_there_is_an_outlet(self) -> None:
        self.start()
        assert self.carrier.on_packet is not None
        self.carrier.on_packet("b", bytes(IP(src=B, dst=A) / UDP(sport=53)))
        self.assertEqual((self.interceptor.counters.admitted, self.interceptor.counters.not_handed_back), (1, 1))

    def test_what_the_privileged_part_cannot_do_is_said(self) -> None:
        self.start()
        self.privileged.send(bytes((FAILED,)) + b"cannot listen to packet queue 7400")
        with capturedLogs() as logged:
            self.reactor.readers[0].doRead()
        self.assertEqual(
            [formatEvent(event) for event in logged],
            ["cannot listen to packet queue 7400; these packets go the native way"],
        )

    def test_the_end_of_the_channel(self) -> None:
        self.start()
        self.privileged.shutdown(socket.SHUT_RDWR)
        self.reactor.readers[0].doRead()
        self.assertEqual(self.reactor.readers, [])
