"""A neighbor that comes, restarts, falls silent, says goodbye: two links and a wire between them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.association import FRESH_SECONDS
from seamless.test.link.pair import DEAD_INTERVAL, LinkPair, packet
from seamless.wire.header import CONTROL, DATA, INITIATION

PACKETS = [packet(number) for number in range(400)]


class NeighborTests(SynchronousTestCase):
    def test_both_dial_and_both_come_up(self) -> None:
        pair = LinkPair(settle=False)
        pair.run(0.1)
        self.assertEqual([end.status.state for end in pair.ends], ["UP", "UP"])
        self.assertEqual([end.status.restarts for end in pair.ends], [0, 0])

    def test_a_handshake_gets_through_a_bad_wire(self) -> None:
        pair = LinkPair(8, settle=False)
        for wire in pair.wires:
            wire.loss, wire.duplication, wire.jitter = 0.3, 0.3, 0.02
        pair.run_until(lambda: all(end.link.is_up for end in pair.ends), 15.0)
        self.assertGreater(sum(wire.lost for wire in pair.wires), 0)

    def test_silence_of_a_dead_interval_and_back(self) -> None:
        pair = LinkPair()
        pair.ends[0].put(*PACKETS)
        pair.run(0.005)
        for wire in pair.wires:
            wire.loses = lambda datagram: True
        began = pair.now
        pair.run_until(lambda: not any(end.link.is_up for end in pair.ends), 1.0)
        self.assertGreater(pair.now - began, DEAD_INTERVAL - 0.1)
        sent = pair.wires[0].types[DATA]
        pair.run(1.0)
        self.assertEqual(pair.wires[0].types[DATA], sent)
        for wire in pair.wires:
            wire.loses = lambda datagram: False
        # The keys are good still: no handshake.
        handshakes = pair.wires[0].types[INITIATION]
        pair.run_until(lambda: all(end.link.is_up for end in pair.ends), FRESH_SECONDS)
        self.assertEqual(pair.wires[0].types[INITIATION], handshakes)

    def test_a_dead_link_gives_back_what_was_not_acknowledged(self) -> None:
        pair = LinkPair(rate_bps=20e6)
        sender, receiver = pair.ends
        sender.put(*PACKETS)
        pair.run(0.05)
        for wire in pair.wires:
            wire.loses = lambda datagram: True
        pair.run_until(lambda: not sender.link.is_up, 1.0)
        sender.link.abandon()
        orphans = sender.link.take_orphans()
        self.assertEqual({*orphans} | {*receiver.packets}, {*PACKETS})
        self.assertEqual(orphans, sorted(orphans, key=PACKETS.index))
        self.assertEqual((sender.status.bytes_in_flight, sender.status.queued_bytes), (0, 0))

    def test_a_restart_is_noticed_and_nothing_is_lost(self) -> None:
        pair = LinkPair(rate_bps=20e6)
        sender, receiver = pair.ends
        sender.put(*PACKETS)
        pair.run(0.05)
        pair.start(1)
        pair.run_until(lambda: sender.status.restarts == 1, 2.0)
        orphans = sender.link.take_orphans()
        self.assertGreater(len(orphans), 100)
        self.assertEqual({*orphans} | {*receiver.packets}, {*PACKETS})
        pair.run_until(lambda: sender.link.is_up and sender.link.mtu_is_found, 2.0)
        sender.put(*orphans)
        pair.run_until(lambda: {*receiver.packets} == {*PACKETS}, 2.0)
        self.assertEqual(sender.status.malformed, 0)
        self.assertEqual(receiver.status.restarts, 0)

    def test_a_goodbye_ends_the_link_at_once(self) -> None:
        pair = LinkPair()
        sender, receiver = pair.ends
        receiver.link.close("bye")
        pair.run(0.01)
        self.assertEqual(sender.status.state, "DOWN")
        self.assertIn("bye", sender.status.reason)
        pair.start(1)
        pair.run_until(lambda: all(end.link.is_up for end in pair.ends), 2.0)

    def test_a_flood_does_not_end_the_link(self) -> None:
        pair = LinkPair(9, rate_bps=10e6)
        pair.wires[0].loss = pair.wires[1].loss = 0.1
        up_since = [end.status.since for end in pair.ends]
        for _ in range(20):
            pair.ends[0].put(*PACKETS)
            pair.ends[1].put(*PACKETS)
            pair.run(0.1)
        self.assertEqual([end.status.since for end in pair.ends], up_since)
        self.assertGreater(pair.wires[0].lost, 50)

    def test_a_link_full_of_data_lives_without_hellos(self) -> None:
        pair = LinkPair(rate_bps=20e6)
        pair.ends[0].put(*PACKETS)
        up_since = pair.ends[1].status.since

        def loses(datagram: bytes) -> bool:
            return datagram[0] == CONTROL

        pair.wires[0].loses = loses
        pair.run(0.2)
        lost = pair.wires[0].lost
        self.assertGreater(lost, 0)
        pair.run(0.02)
        self.assertEqual(pair.ends[1].status.since, up_since)
        self.assertTrue(pair.ends[1].link.is_up)
        pair.run_until(lambda: not pair.ends[1].link.is_up, 2.0)  # and not without either

    def test_time_in_which_the_process_was_stopped_gives_no_rtt(self) -> None:
        pair = LinkPair()
        sender = pair.ends[0]
        rtt = sender.status.rtt
        pair.wires[1].loses = lambda datagram: True
        sender.put(packet(1))
        pair.run(0.1)
        pair.wires[1].loses = lambda datagram: False
        sender.link.resumed(pair.now)
        pair.run(0.2)
        self.assertEqual(sender.status.bytes_in_flight, 0)
        self.assertLess(sender.status.rtt, rtt + 0.005)
        self.assertGreater(pair.wires[1].lost, 0)
