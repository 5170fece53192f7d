"""Batches that the kernel joined from datagrams of two senders who bear the same address (UDP_GRO)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import PacketReceived
from seamless.test.node.network import Network, node, overlay

HERE, THERE = ("10.0.0.1", 7400), ("10.0.0.2", 7400)
LONGER_BYTES = 100


class JoinedTests(SynchronousTestCase):
    """Node a sends to b; an attacker on the path puts forged datagrams in front of what it sends."""

    def setUp(self) -> None:
        self.net = Network()
        configuration = overlay(node("a", HERE[0]), node("b", THERE[0]), "link a b { rate 100 mbit; congestion off; }")
        self.a, self.b = (self.net.start(configuration, name) for name in "ab")
        self.net.run(1.0)
        self.a.send_packet("b", b"first", self.net.now)
        self.net.run(1.0)
        self.net.events.clear()

    def sealed(self, packet: bytes) -> bytes:
        """Return the one datagram that carries a whole packet from a to b."""
        self.a.send_packet("b", packet, self.net.now)
        transmits = self.a.datagrams_to_send(self.net.now)
        (datagram,) = [b"".join(each.buffers) for each in transmits if each.segment_size > len(packet)]
        return datagram

    def arrive(self, batch: bytes, segment_size: int) -> list[bytes]:
        """Bring a batch to b; return the whole packets that it had."""
        self.b.receive_datagrams(batch, segment_size, THERE, HERE, self.net.now)
        packets = []
        while (event := self.b.next_event()) is not None:
            if isinstance(event, PacketReceived):
                packets.append(event.packet)
        return packets

    def malformed(self) -> int:
        """Return what b's link has counted as malformed."""
        (link,) = self.b.status(self.net.now).links
        return link.malformed

    def test_longer_than_the_link_allows(self) -> None:
        """Three forged datagrams that are too long cost no more than themselves."""
        datagram = self.sealed(bytes(1300))
        mtu_bytes = 1500 - 28
        forged = datagram[:12] + bytes(mtu_bytes + LONGER_BYTES - 12)
        self.assertEqual(self.arrive(forged * 3 + datagram, len(forged)), [bytes(1300)])
        self.assertEqual(self.malformed(), 3)

    def test_all_of_them_too_long(self) -> None:
        datagram = self.sealed(bytes(1300))
        forged = datagram[:12] + bytes(2000)
        self.assertEqual(self.arrive(forged * 2 + forged[:-1], len(forged)), [])
        self.assertEqual(self.malformed(), 3)
        self.assertEqual(self.arrive(forged * 2, len(forged)), [])
        self.assertEqual(self.malformed(), 5)

    def test_longer_than_the_true_one(self) -> None:
        datagram = self.sealed(bytes(1300))
        forged = datagram[:12] + bytes(len(datagram))
        self.assertEqual(self.arrive(forged + datagram, len(forged)), [bytes(1300)])

    def test_a_short_one_of_another_kind(self) -> None:
        """A last one that is too short for a datagram of ours is counted and no more."""
        datagram = self.sealed(bytes(1300))
        self.assertEqual(self.arrive(datagram + datagram[:3], len(datagram)), [bytes(1300)])
