"""What one link does for the packets that are given to it: two links and a wire between them."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import Transmit
from seamless.link.batches import BATCH_DATAGRAMS, SEALING_BYTES, open_batch, seal_batches
from seamless.link.link import ACK_INTERVAL, QUEUE_TARGET_MIN_BYTES
from seamless.link.sender import MAX_RESENDS
from seamless.test.link.pair import ADDRESSES, BODY_AT, LinkPair, is_data, packet
from seamless.wire.header import (
    CONTROL,
    DATA,
    PACKET_ENDS,
)
from seamless.wire.link_frames import LsaFrame, Pause
from seamless.wire.traffic_class import CLASS_EXPRESS, CLASS_HANDSHAKE, CLASS_UNRECOVERED

PACKETS = [packet(number) for number in range(400)]


class DeliveryTests(SynchronousTestCase):
    def deliver(self, pair: LinkPair, seconds: float = 5.0) -> None:
        """Send `PACKETS` from end 0 and wait until nothing is under way."""
        sender, receiver = pair.ends
        sender.put(*PACKETS)
        pair.run_until(lambda: len(receiver.packets) >= len(PACKETS) and not sender.status.bytes_in_flight, seconds)

    def test_without_loss_nothing_goes_twice(self) -> None:
        pair = LinkPair()
        self.deliver(pair)
        self.assertEqual(pair.ends[1].packets, PACKETS)
        self.assertEqual(pair.ends[0].status.data_sent, len(PACKETS))
        self.assertEqual(pair.ends[0].status.lost, 0)

    def test_loss_is_recovered_and_each_packet_comes_once(self) -> None:
        pair = LinkPair(1)
        pair.wires[0].loss = pair.wires[1].loss = 0.2
        self.deliver(pair)
        status = pair.ends[0].status
        self.assertGreater(pair.wires[0].lost, 50)
        self.assertEqual(sorted(pair.ends[1].packets), sorted(PACKETS))
        self.assertEqual(status.data_sent, len(PACKETS) + status.resent)
        self.assertEqual(status.spurious, 0)
        self.assertEqual(status.undelivered, 0)

    def test_packets_go_up_at_once_whatever_is_missing(self) -> None:
        pair = LinkPair(2)
        pair.wires[0].loss = 0.05
        self.deliver(pair)
        numbers = pair.ends[1].numbers
        self.assertNotEqual(numbers, sorted(numbers))
        self.assertEqual(sorted(numbers), list(range(len(PACKETS))))

    def test_a_path_that_reorders_soon_has_few_spurious_resends(self) -> None:
        pair = LinkPair(3)
        pair.wires[0].delay, pair.wires[0].jitter = 0.040, 0.002  # less than an eighth of the round trip
        self.deliver(pair)
        first = pair.ends[0].status
        self.assertGreater(pair.wires[0].overtaken, 100)
        self.assertGreater(first.spurious, 0)
        pair.ends[1].packets.clear()
        self.deliver(pair)
        second = pair.ends[0].status
        self.assertEqual({*pair.ends[1].packets}, {*PACKETS})
        self.assertEqual(second.spurious, second.lost)
        self.assertLess(second.spurious - first.spurious, first.spurious / 10)

    def test_what_the_wire_doubles_is_dropped(self) -> None:
        pair = LinkPair(4)
        pair.wires[0].duplication = 0.5
        self.deliver(pair)
        self.assertGreater(pair.wires[0].doubled, 100)
        self.assertEqual(len(pair.ends[1].packets), len(PACKETS))
        self.assertGreater(pair.ends[1].status.replayed, 100)

    def test_the_last_packet_is_asked_for_by_a_probe(self) -> None:
        pair = LinkPair()
        pair.run(1.0)
        self.lose(pair, 1)
        began = pair.now
        pair.ends[0].put(packet(1))
        pair.run_until(lambda: bool(pair.ends[1].packets), 1.0)
        self.assertEqual(pair.wires[0].lost, 1)
        self.assertEqual(pair.ends[0].status.probes, 1)
        # One probe timeout: a round trip of 10 ms, what it varies, and what the neighbor may wait with its ACK.
        self.assertGreater(pair.now - began, 0.010)
        self.assertLess(pair.now - began, 0.050)

    def test_probes_back_off_while_nothing_is_acknowledged(self) -> None:
        pair = LinkPair()
        pair.run(1.0)
        times: list[float] = []

        def loses(datagram: bytes) -> bool:
            if is_data(datagram):
                times.append(pair.now)
            return is_data(datagram)

        pair.wires[0].loses = loses
        # Control goes on to be acknowledged, and every ACK starts the probe timeout anew: so no hello for a moment.
        pair.run(0.01)
        pair.ends[0].put(packet(1))
        pair.run(0.08)
        gaps = [after - before for before, after in pairwise(times)]
        self.assertGreater(len(gaps), 1)
        self.assertGreater(gaps[1], 1.5 * gaps[0])

    def test_a_packet_that_never_passes_is_given_back(self) -> None:
        pair = LinkPair()
        pair.wires[0].loses = lambda datagram: is_data(datagram) and len(datagram) < 1000
        never = packet(1, 600)
        pair.ends[0].put(never, *PACKETS)
        pair.run_until(lambda: pair.ends[0].status.undelivered > 0, 60.0)
        self.assertEqual(pair.ends[0].link.take_undelivered(), [never])
        self.assertEqual(pair.ends[0].status.resent, MAX_RESENDS)
        self.assertTrue(pair.ends[0].link.is_up)

    def test_the_unrecovered_class_is_not_sent_again(self) -> None:
        pair = LinkPair(5)
        pair.wires[0].loss = 0.2
        pair.ends[0].put(*(packet(number, packet_class=CLASS_UNRECOVERED) for number in range(200)))
        pair.run(1.0)
        status = pair.ends[0].status
        self.assertGreater(status.forgotten, 10)
        self.assertEqual(status.data_sent, 200)
        self.assertEqual(len(pair.ends[1].packets), 200 - status.forgotten)

    def test_acknowledgements_come_once_per_interval_under_load(self) -> None:
        pair = LinkPair()
        before = pair.ends[1].status.control_sent
        began = pair.now
        self.deliver(pair)
        most = (pair.now - began) / ACK_INTERVAL + 2 * (pair.now - began) / 0.1 + 3
        self.assertLess(pair.ends[1].status.control_sent - before, most)
        self.assertGreater(pair.ends[1].status.control_sent - before, 5)

    def lose(self, pair: LinkPair, count: int) -> None:
        """Lose the next ``count`` datagrams with packets that end 0 sends."""
        left = count

        def loses(datagram: bytes) -> bool:
            nonlocal left
            hit = is_data(datagram) and left > 0
            left -= hit
            return hit

        pair.wires[0].loses = loses


class RedundantSendTests(SynchronousTestCase):
    def test_few_small_packets_go_thrice_on_a_link_that_loses(self) -> None:
        pair = LinkPair(6)
        pair.wires[0].loss = 0.1
        pair.ends[0].put(*PACKETS)
        pair.run_until(lambda: len(pair.ends[1].packets) == len(PACKETS), 5.0)
        pair.run(0.2)
        pair.wires[0].loss = 0.0
        pair.ends[1].packets.clear()
        pair.ends[0].put(packet(1, 100, CLASS_EXPRESS))
        pair.run(0.2)
        self.assertEqual(pair.ends[0].status.redundant, 2)
        self.assertEqual(pair.ends[1].numbers, [1])
        self.assertEqual(pair.ends[1].status.duplicates_dropped, 2)

    def test_not_on_a_link_that_loses_nothing(self) -> None:
        pair = LinkPair(6)
        pair.ends[0].put(packet(1, 100, CLASS_EXPRESS))
        pair.run(0.2)
        self.assertEqual(pair.ends[0].status.redundant, 0)
        self.assertEqual(pair.ends[1].numbers, [1])

    def test_handshakes_are_sent_once(self) -> None:
        pair = LinkPair(6)
        pair.wires[0].loses = lambda datagram: len(datagram) > 1000 and pair.random.random() < 0.2
        pair.ends[0].put(*PACKETS)
        pair.run(2.0)
        pair.ends[0].put(packet(1, 100, CLASS_HANDSHAKE))
        pair.run(0.2)
        self.assertGreater(pair.wires[0].lost, 10)
        self.assertEqual(pair.ends[0].status.redundant, 0)


class OrderTests(SynchronousTestCase):
    def test_control_and_express_pass_bulk_that_waits(self) -> None:
        pair = LinkPair(rate_bps=10e6)
        sender, receiver = pair.ends
        sender.put(*PACKETS)
        pair.run(0.05)
        waiting = sender.status.queued_bytes
        self.assertGreater(waiting, 200_000)
        sender.put(packet(9999, 100, CLASS_EXPRESS))
        sender.link.send_lsa(bytes(200))
        began = pair.now
        pair.run_until(lambda: 9999 in receiver.numbers and LsaFrame(bytes(200)) in receiver.frames, 1.0)
        # The wire's 5 ms, and what is already spent of the pacer's budget; the queue alone is of 400 ms.
        self.assertLess(pair.now - began, 0.020)

    def test_an_lsa_is_sent_until_it_is_acknowledged(self) -> None:
        pair = LinkPair(7)
        pair.wires[0].loss = 0.5
        lsas = [bytes((number,)) * 300 for number in range(40)]
        for lsa in lsas:
            pair.ends[0].link.send_lsa(lsa)
        pair.run(2.0)
        self.assertGreater(pair.wires[0].lost, 5)
        self.assertEqual({frame.data for frame in pair.ends[1].frames if isinstance(frame, LsaFrame)}, {*lsas})

    def test_a_pause_stops_one_class_of_one_flow_for_its_time(self) -> None:
        pair = LinkPair(rate_bps=20e6)
        sender, receiver = pair.ends
        receiver.link.send_pause(1, 2, 0.2, 0)
        pair.run(0.02)
        (pause,) = (frame for frame in sender.frames if isinstance(frame, Pause))
        sender.link.pause(PACKETS[0][PACKET_ENDS], pause.packet_class, pair.now + pause.microseconds / 1e6)
        began = pair.now
        sender.put(packet(1))
        sender.put(packet(2, source=7))
        sender.put(packet(3, 100, CLASS_EXPRESS))
        pair.run_until(lambda: len(receiver.packets) == 2, 0.1)
        self.assertEqual({*receiver.numbers}, {2, 3})
        pair.run_until(lambda: len(receiver.packets) == 3, 1.0)
        self.assertGreater(pair.now - began, 0.2)
        self.assertLess(pair.now - began, 0.22)
        self.assertEqual(receiver.status.pauses_sent, 1)
        self.assertEqual(sender.status.pauses_received, 1)

    def test_a_queue_that_grows_asks_for_a_longer_pause(self) -> None:
        pair = LinkPair(rate_bps=10e6)
        self.assertEqual(pair.ends[0].put(*PACKETS[:20]).pause, 0.0)
        accepted = pair.ends[0].put(*PACKETS[20:120])
        excess = accepted.waiting_bytes - QUEUE_TARGET_MIN_BYTES
        self.assertGreater(excess, 0)
        self.assertAlmostEqual(accepted.pause, excess * 8 / 10e6, 6)


class MtuTests(SynchronousTestCase):
    def test_packets_are_cut_to_what_the_path_carries(self) -> None:
        pair = LinkPair(settle=False)
        pair.wires[0].mtu_bytes = 1400
        pair.run_until(lambda: all(end.link.mtu_is_found for end in pair.ends), 5.0)
        sender, receiver = pair.ends
        self.assertEqual((sender.status.mtu_bytes, receiver.status.mtu_bytes), (1400, 1500))
        whole = packet(1, 1440)
        sender.put(whole)
        pair.run(0.2)
        self.assertEqual(sender.status.cut, 1)
        self.assertEqual(b"".join(part[BODY_AT:] for part in receiver.packets), whole[BODY_AT:])

    def test_a_path_that_shrinks_is_noticed_and_loses_nothing(self) -> None:
        pair = LinkPair(rate_bps=20e6)
        sender, receiver = pair.ends
        sender.put(*PACKETS)
        pair.run(0.05)
        pair.wires[0].mtu_bytes = 1350
        body = sum(len(each) - BODY_AT for each in PACKETS)
        pair.run_until(lambda: sum(len(each) - BODY_AT for each in receiver.packets) >= body, 5.0)
        self.assertGreater(pair.wires[0].too_long, 10)
        self.assertEqual(sender.status.black_holes, 1)
        pair.run_until(lambda: sender.link.mtu_is_found, 5.0)
        self.assertEqual(sender.status.mtu_bytes, 1348)  # a multiple of four
        self.assertEqual({*receiver.numbers}, {*range(len(PACKETS))})


class BatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = LinkPair()
        key = self.pair.ends[0].association.send_key
        assert key is not None
        self.key = key

    def seal(self, *sizes: int) -> list[Transmit]:
        """Return the batches of packets of these sizes, after all came out of them under the numbers from 500 on."""
        packets = [packet(number, size) for number, size in enumerate(sizes)]
        batches = seal_batches(self.key, 500, packets, *ADDRESSES)
        opening = self.pair.ends[1].association.receive_key(self.key.remote_index)
        assert opening is not None
        numbers: list[int] = []
        contents: list[bytes] = []
        for batch in batches:
            opened = open_batch(opening, memoryview(b"".join(batch.buffers)), batch.segment_size)
            numbers += opened[0]
            contents += opened[1]
            self.assertEqual(opened[2], 0)
            self.assertEqual(len(opened[0]), batch.count)
            self.assertEqual((batch.local, batch.remote), ADDRESSES)
        self.assertEqual(numbers, list(range(500, 500 + len(sizes))))
        self.assertEqual(contents, packets)
        return batches

    def test_only_the_last_of_a_batch_is_shorter(self) -> None:
        batches = self.seal(1400, 1400, 900, 900, 1200, 300, 1400)
        self.assertEqual([batch.count for batch in batches], [3, 1, 2, 1])
        self.assertEqual([batch.segment_size - SEALING_BYTES for batch in batches], [1400, 900, 1200, 1400])

    def test_a_batch_is_what_one_system_call_takes(self) -> None:
        self.assertEqual([batch.count for batch in self.seal(*(100,) * 150)], [BATCH_DATAGRAMS, BATCH_DATAGRAMS, 22])
        for batch in self.seal(*(1400,) * 100):
            self.assertLessEqual(sum(map(len, batch.buffers)), 64_000)

    def test_what_is_forged_is_counted_and_nothing_else(self) -> None:
        (batch,) = seal_batches(self.key, 500, [packet(number) for number in range(3)], *ADDRESSES)
        joined = bytearray(b"".join(batch.buffers))
        joined[batch.segment_size + 100] ^= 1
        self.pair.ends[1].receive(bytes(joined), batch.segment_size, self.pair.now, self.pair.now)
        self.assertEqual(self.pair.ends[1].numbers, [0, 2])
        self.assertEqual(self.pair.ends[1].status.failed_authentication, 1)

    def test_a_type_is_sealed_with_the_rest(self) -> None:
        (batch,) = seal_batches(self.key, 500, [packet(1)], *ADDRESSES)
        joined = bytearray(b"".join(batch.buffers))
        self.assertEqual(joined[0], DATA)
        joined[0] = CONTROL
        self.pair.ends[1].receive(bytes(joined), batch.segment_size, self.pair.now, self.pair.now)
        self.assertEqual(self.pair.ends[1].status.failed_authentication, 1)
