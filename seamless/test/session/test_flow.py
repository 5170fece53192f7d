"""Windows, turns, back-pressure: no stream takes more than its share or waits for another; nothing is resent idly."""

from __future__ import annotations

import tracemalloc
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import LocalProtocolError
from seamless.interfaces import StreamWritable
from seamless.session.limits import Limits
from seamless.session.scheduler import UNSENT_MAX_BYTES
from seamless.test.session.pair import Pair
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS


class FlowTests(SynchronousTestCase):
    """Two sessions, one wire, applications that write all they can."""

    def test_window_grows_to_the_path(self) -> None:
        """From the first window to the full rate of 500 Mb/s over 30 ms; with a fifth of the packets late, too."""
        for late in (0.0, 0.2):
            pair = Pair(room=100)
            pair.accept_all()
            for wire in pair.wires.values():
                wire.rate_pps, wire.late, wire.lateness = 43_000, late, 0.015
            here, there = pair.open()
            pair.a.write(here, bytes(70_000_000), pair.now)
            pair.run(0.6)
            before = len(pair.b.received[there])
            pair.run(0.2)
            rate = (len(pair.b.received[there]) - before) * 8 / 0.2
            self.assertGreater(rate, 0.93 * 43_000 * 1420 * 8, f"late {late}")
            status = pair.a.session.status(pair.now)
            self.assertEqual((status.records_lost, status.records_spurious), (0, 0))
            self.assertEqual(pair.wires[1].made_late > 0, late > 0)
            pair.b.stopped.add(there)
            pair.run(0.3)
            self.assertLess(pair.b.session.status(pair.now).unread_bytes, (10 << 20) if not late else (16 << 20) + 1)

    def test_a_long_fat_path(self) -> None:
        """2.5 Gb/s over 100 ms: 31 MB under way in a window of 32 MiB, of which a third was kept back."""
        rate_bps, packet_bytes = 2.5e9, 16_460
        pair = Pair(limits=Limits.within(128 << 20, give_up=30.0), room=2000)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.delay, wire.rate_pps = 0.05, rate_bps / 8 / packet_bytes
        for end in (pair.a, pair.b):
            end.session.path_changed(packet_bytes, pair.now)
            end.session.path_carries(rate_bps, 0.1)
        here, there = pair.open()
        pair.a.write(here, bytes(200_000_000), pair.now)
        pair.run(0.6)
        before = len(pair.b.received[there])
        pair.run(0.1)
        self.assertGreater((len(pair.b.received[there]) - before) * 8 / 0.1, 0.93 * rate_bps)

    def test_no_resend_of_what_is_only_late(self) -> None:
        """Hops recover within 60 ms; in twenty thousand records nothing is sent twice."""
        pair = Pair(room=100)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps, wire.late, wire.lateness = 43_000, 0.05, 0.030
        here, there = pair.open()
        pair.a.write(here, bytes(30_000_000), pair.now)
        pair.run_until(lambda: len(pair.b.received.get(there, b"")) == 30_000_000, 5)
        status = pair.a.session.status(pair.now)
        self.assertEqual((status.records_lost, status.records_spurious), (0, 0))
        self.assertGreater(pair.wires[1].made_late, 1000)
        overhead = pair.wires[1].carried_bytes / 30_000_000
        self.assertLess(overhead, 1.025)

    def test_stopped_reader_stalls_only_its_own_stream(self) -> None:
        """Though what the stopped readers leave unread is more than the session window."""
        pair = Pair(room=100, limits=Limits(session_window_max=4 << 20))
        pair.accept_all()
        stopped = [pair.open() for _ in range(6)]
        running = pair.open()
        for _, there in stopped:
            pair.b.stopped.add(there)
        for here, _ in [*stopped, running]:
            pair.a.write(here, bytes(20_000_000), pair.now)
        pair.run_until(lambda: len(pair.b.received.get(running[1], b"")) == 20_000_000, 3)
        for _, there in stopped:
            self.assertLess(len(pair.b.received[there]), 2_000_000)
        self.assertGreater(pair.b.most_unread, 4 << 20)
        self.assertLess(pair.b.most_unread, pair.limits.unread_max)
        for _, there in stopped:
            pair.b.resume(there, pair.now)
        pair.run_until(lambda: all(len(pair.b.received[there]) == 20_000_000 for _, there in stopped), 10)

    def test_many_stopped_readers_leave_room(self) -> None:
        """A hundred readers who stopped hold what they may, and one who reads still gets on."""
        limits = Limits(unread_max=8 << 20, session_window_max=8 << 20)
        pair = Pair(limits=limits, room=200)
        pair.accept_all()
        keys = [pair.open() for _ in range(100)]
        for _, there in keys:
            pair.b.stopped.add(there)
        for here, _ in keys:
            pair.a.session.send(here, bytes(400_000), pair.now)
        pair.run(2)
        here, there = pair.open()
        pair.a.write(here, bytes(2_000_000), pair.now)
        pair.run_until(lambda: len(pair.b.received.get(there, b"")) == 2_000_000, 5)
        self.assertLess(pair.b.most_unread, 16 << 20)

    def test_a_thousand_full_windows_stay_within_the_memory(self) -> None:
        """Each begins with 64 KiB at least, 62 MiB together; what the node keeps of them is what it was given."""
        memory = 8 << 20
        pair = Pair(limits=Limits.within(memory, give_up=30.0), room=400)
        pair.accept_all()
        keys = [pair.open() for _ in range(1000)]
        for _, there in keys:
            pair.b.stopped.add(there)
        pair.run(0.2)
        self.assertGreater(pair.b.session.status(pair.now).granted_bytes, 1000 * (63 << 10))
        for here, _ in keys:
            pair.a.session.send(here, bytes(64 << 10), pair.now)
        pair.run(2)
        status = pair.b.session.status(pair.now)
        self.assertGreater(status.unread_bytes, memory)
        self.assertLessEqual(status.unread_bytes + status.held_bytes + status.reassembly_bytes, memory + memory // 2)
        self.assertEqual((pair.a.lost(), pair.b.lost()), ([], []))

    def test_back_pressure_and_its_end(self) -> None:
        """``send`` says when to stop; the unsent bytes stay within their bound; `StreamWritable` comes once."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.run(0.2)
        written = 0
        while pair.a.session.send(here, bytes(65536), pair.now) > 0:
            written += 65536
        self.assertLess(written, UNSENT_MAX_BYTES + 65536)
        pair.run(1)
        for _ in range(20):
            while pair.a.session.send(here, bytes(65536), pair.now) > 0:
                pass
            pair.run(0.1)
        self.assertLess(pair.a.session.status(pair.now).unsent_bytes, UNSENT_MAX_BYTES + 2 * 65536 * 20)
        pair.a.events.clear()
        pair.b.resume(there, pair.now)
        pair.run(1)
        self.assertEqual(pair.a.events, [StreamWritable(here)])

    def test_many_writers_share_the_buffer(self) -> None:
        """A thousand stalled writers hold no more than the buffer for all, and a record each."""
        limits = Limits(send_buffer_max=8 << 20)
        pair = Pair(limits=limits)
        keys = [pair.open()[0] for _ in range(1000)]
        for key in keys:
            while pair.a.session.send(key, bytes(8192), pair.now) > 0:
                pass
        self.assertLess(pair.a.session.status(pair.now).unsent_bytes, (8 << 20) + 1000 * (16 << 10) + 1000 * 8192)

    def test_eight_streams_are_served_alike(self) -> None:
        pair = Pair(room=100)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps = 43_000
        keys = [pair.open() for _ in range(8)]
        for here, _ in keys:
            pair.a.write(here, bytes(10_000_000), pair.now)
        pair.run(0.8)
        got = [len(pair.b.received[there]) for _, there in keys]
        self.assertGreater(sum(got), 30_000_000)
        self.assertGreater(min(got), 0.9 * max(got))

    def test_keystroke_beside_bulk(self) -> None:
        """It goes express, so it takes what the path takes, however much bulk waits."""
        pair = Pair(room=200)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps = 43_000
        bulk, _ = pair.open()
        shell, there = pair.open()
        pair.a.write(bulk, bytes(60_000_000), pair.now)
        pair.run(0.5)
        slowest = 0.0
        for _ in range(20):
            begin = pair.now
            pair.a.write(shell, b"k", pair.now)
            pair.run_until(lambda: pair.b.received.get(there) == pair.a.written[shell], 1)
            slowest = max(slowest, pair.now - begin)
        self.assertLess(slowest, 0.0151 + 0.001)
        self.assertGreater(pair.wires[1].busy_until, pair.now, "bulk did wait all the while")

    def test_bulk_does_not_pass_itself_off_as_express(self) -> None:
        """Whatever the size of the writes, only so much of a busy stream goes express."""
        for size in (100, 4096, 16_000):
            pair = Pair()
            pair.accept_all()
            here, _ = pair.open()
            pair.run(0.2)
            express = bulk = 0
            for _ in range(1000):
                pair.a.session.send(here, bytes(size), pair.now)
                packets = pair.a.session.packets_to_send(48, pair.now)
                express += sum(map(len, packets[0]))
                bulk += sum(map(len, packets[1]))
                pair.now += 0.0002
            self.assertLess(express, (16 << 10) * 4 + 1000 * 60)
            self.assertGreaterEqual(express + bulk, min(1000 * size, 1 << 20))

    def test_bulk_behind_a_keystroke(self) -> None:
        """A small write that a large one follows, before either was sent, takes none of it along."""
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(0.2)
        express = 0
        for _ in range(100):
            pair.a.session.send(here, b"x", pair.now)
            pair.a.session.send(here, bytes(100_000), pair.now)
            packets = pair.a.session.packets_to_send(1000, pair.now)
            express += sum(map(len, packets[0]))
            pair.now += 0.0002
        self.assertLess(express, (16 << 10) * 3)

    def test_bulk_packets_are_of_one_size(self) -> None:
        """What UDP segmentation offload needs: only the last packet of what there is to send is shorter."""
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(0.2)
        pair.a.session.send(here, bytes(500_000), pair.now)
        express, bulk = pair.a.session.packets_to_send(1000, pair.now)
        self.assertEqual({packet[0] for packet in bulk}, {CLASS_BULK})
        self.assertEqual({packet[0] for packet in express} - {CLASS_EXPRESS}, set())
        self.assertEqual({len(packet) for packet in bulk[:-1]}, {1444})
        self.assertLessEqual(len(bulk[-1]), 1444)

    def test_room_is_kept_to_a_record(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(0.2)
        pair.a.session.send(here, bytes(500_000), pair.now)
        for room in (0, 1, 11, 12, 30):
            _, bulk = pair.a.session.packets_to_send(room, pair.now)
            self.assertTrue(room <= len(bulk) < room + 11 if room else not bulk, f"{room}: {len(bulk)}")

    def test_small_writes_do_not_wait(self) -> None:
        """One byte is one express packet, at once."""
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(0.2)
        pair.a.session.send(here, b"x", pair.now)
        express, bulk = pair.a.session.packets_to_send(48, pair.now)
        self.assertEqual((len(express), bulk), (1, []))
        self.assertLess(len(express[0]), 64)

    def test_more_streams_than_allowed(self) -> None:
        pair = Pair(limits=Limits(max_streams=3))
        for _ in range(3):
            pair.open()
        error = self.assertRaises(LocalProtocolError, pair.a.session.open_stream, b"x", pair.now)
        self.assertIn("close some", str(error))

    def test_ten_thousand_idle_streams(self) -> None:
        """Less than 2 kB each at both ends together with the test's own books, and no work while they are idle."""
        pair = Pair()
        pair.accept_all()
        pair.open()
        pair.run(1)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            pair.open()
        pair.run(2)
        used = (tracemalloc.get_traced_memory()[0] - before) / 2000 / 2
        tracemalloc.stop()
        self.assertLess(used, 2048)
        self.assertEqual(pair.b.session.status(pair.now).streams, 2001)
        steps = pair.steps
        pair.run(60)
        self.assertLess(pair.steps - steps, 200)


class PacketTests(SynchronousTestCase):
    """Whole packets beside streams."""

    def send_packet(self, pair: Pair, packet: bytes) -> None:
        pair.a.session.send_packet(packet, pair.now)

    def run_until_received(self, pair: Pair, packet: bytes) -> None:
        pair.run_until(lambda: packet in pair.b.packets)

    def test_packets_go_beside_bulk(self) -> None:
        pair = Pair(room=48)
        pair.accept_all()
        for wire in pair.wires.values():
            wire.rate_pps = 20_000
        here, _ = pair.open()
        pair.run(0.2)
        pair.a.write(here, bytes(20_000_000), pair.now)
        packets = [bytes([number]) * 1400 for number in range(100)]
        for number, packet in enumerate(packets):
            pair.at(0.3 + number * 0.002, partial(self.send_packet, pair, packet))
        pair.run(0.5)
        self.assertEqual(sorted(pair.b.packets), packets)

    def test_old_packets_are_dropped(self) -> None:
        pair = Pair()
        pair.open()
        pair.run(0.2)
        pair.a.session.path_changed(None, pair.now)
        pair.a.session.send_packet(b"too late", pair.now)
        pair.run(1.5)
        pair.a.session.send_packet(b"in time", pair.now)
        pair.a.session.path_changed(1444, pair.now)
        pair.run(1)
        self.assertEqual(pair.b.packets, [b"in time"])
        self.assertEqual(pair.a.session.status(pair.now).packets_dropped, 1)

    def test_too_many_packets(self) -> None:
        """The oldest give way."""
        pair = Pair()
        for number in range(3000):
            pair.a.session.send_packet(number.to_bytes(2, "big") * 700, pair.now)
        pair.run(0.5)
        dropped = pair.a.session.status(pair.now).packets_dropped
        self.assertGreater(dropped, 1000)
        self.assertEqual(len(pair.b.packets), 3000 - dropped)
        self.assertEqual(max(pair.b.packets), (2999).to_bytes(2, "big") * 700)

    def test_longest_packet(self) -> None:
        pair = Pair()
        longest = bytes(range(255)) * 257
        self.assertEqual(len(longest), 65_535)
        pair.a.session.send_packet(longest, pair.now)
        pair.run(0.5)
        self.assertEqual(pair.b.packets, [longest])
        self.assertRaises(LocalProtocolError, pair.a.session.send_packet, longest + b"x", pair.now)

    def test_an_unrecovered_packet_is_a_record_of_its_own(self) -> None:
        """A fragment that no link sends again costs one packet; what is recovered shares records."""
        for is_recovered, records in ((True, 1), (False, 10)):
            pair = Pair()
            pair.open()
            pair.run(0.5)
            before = pair.b.session.status(pair.now).records_received
            packets = [bytes((number,)) * 1400 for number in range(10)]
            for packet in packets:
                pair.a.session.send_packet(packet, pair.now, is_recovered=is_recovered)
            pair.run(0.1)
            self.assertTrue(sorted(pair.b.packets) == packets)
            self.assertEqual(pair.b.session.status(pair.now).records_received - before, records)

    def test_acknowledgements_come_along_with_answers(self) -> None:
        """Requests and answers, 20 ms after one another, take a record each and none for acknowledgements alone."""
        pair = Pair()
        pair.open()
        pair.run(0.5)
        before = pair.b.session.status(pair.now).records_received
        for number in range(100):
            packet = bytes((number,)) * 64
            pair.a.session.send_packet(packet, pair.now)
            self.run_until_received(pair, packet)
            pair.b.session.send_packet(packet, pair.now)
            pair.run(0.020)
        self.assertEqual(len(pair.a.packets), 100)
        self.assertLess(pair.b.session.status(pair.now).records_received - before, 105)
        pair.run(1.0)
        statuses = [end.session.status(pair.now) for end in pair.ends.values()]
        self.assertEqual([status.records_lost for status in statuses], [0, 0])
