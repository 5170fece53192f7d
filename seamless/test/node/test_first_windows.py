"""Windows begin at what the path carries, grow for readers who keep up, and hold little for those who do not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import StreamReset
from seamless.test.node.objects import Objects
from seamless.transport.dial import KEPT_BYTES

MBIT = 500
PROCESSING = 0.008
"""Seconds."""
HEADERS = 0.94
"""What headers leave of a link's rate."""
ALLOWED_BYTES = (1 << 20) - KEPT_BYTES
"""What may be accepted and not delivered beyond twice the bandwidth-delay product; kernels hold the rest of 1 MiB."""


def limit(round_trip: float, nbytes: int) -> float:
    """Return the bound of the time to the last byte: 1.2 times a round trip and the time on the wire."""
    return 1.2 * (round_trip + nbytes * 8 / (MBIT * 1e6 * HEADERS)) + PROCESSING


def delay_product(round_trip: float) -> int:
    return int(MBIT * 1e6 / 8 * round_trip)


class FirstWindowTests(SynchronousTestCase):
    def test_objects_take_a_round_trip_and_their_time_on_the_wire(self) -> None:
        """Windows that began at 1 MB cost 4 MB at 120 ms two round trips more."""
        for round_trip, nbytes in ((0.03, 1_000_000), (0.12, 4_000_000)):
            net = Objects(MBIT, round_trip)
            net.fetch(1000)
            self.assertLess(net.fetch(nbytes), limit(round_trip, nbytes), (round_trip, nbytes))

    def test_a_request_and_its_answer_take_a_round_trip(self) -> None:
        """Both of up to a record."""
        net = Objects(MBIT, 0.1)
        net.fetch(1000)
        self.assertLess(net.fetch(15_000), 0.1 + 0.003)

    def test_a_longer_path_needs_its_memory(self) -> None:
        """At 300 ms the default of 64 MiB allows a window of 16 MiB, and the path carries 18.75 MB."""
        took = {}
        for memory in ("64 MiB", "512 MiB"):
            net = Objects(MBIT, 0.3, memory=memory)
            net.fetch(1000)
            took[memory] = net.fetch(20_000_000)
        self.assertLess(took["512 MiB"], limit(0.3, 20_000_000))
        self.assertGreater(took["64 MiB"], took["512 MiB"] + 0.05)

    def test_after_many_idle_connections(self) -> None:
        """They hold windows that they do not use: a new one begins small, and has the whole path a round trip later."""
        net = Objects(MBIT, 0.03)
        for _ in range(200):
            net.ask(10)
        net.run(net.now + 0.5)
        self.assertLess(net.fetch(1_000_000), 0.03 + limit(0.03, 1_000_000))


class SlowReaderTests(SynchronousTestCase):
    def test_a_reader_that_reads_nothing(self) -> None:
        net = Objects(MBIT, 0.03)
        asked = net.ask(20_000_000, reads=False)
        net.run(net.now + 1.0)
        self.assertGreater(net.written, delay_product(0.03))
        self.assertLess(net.written, 2 * delay_product(0.03) + ALLOWED_BYTES)
        self.assertEqual(asked.unread, asked.nbytes)

    def test_a_reader_that_is_slower_than_the_path(self) -> None:
        """It had the window double with every update, up to 16 MB: its writer was 10 MB ahead of it."""
        net = Objects(MBIT, 0.03)
        asked = net.ask(60_000_000, reads=False)
        for _ in range(100):
            net.run(net.now + 0.02)
            self.assertLess(net.written - (asked.nbytes - asked.unread), 2 * delay_product(0.03) + ALLOWED_BYTES)
            net.read(asked, 400_000)
        self.assertGreater(asked.nbytes, 30_000_000)

    def test_a_reader_that_stops_after_it_kept_up(self) -> None:
        """Losses on the way made the window grow; what it grew by is given up once the reader is behind."""
        net = Objects(MBIT, 0.03, loss="2 %")
        asked = net.ask(60_000_000)
        net.run(net.now + 0.5)
        asked.reads = False
        for _ in range(40):
            net.run(net.now + 0.02)
            net.read(asked, 400_000)
        self.assertLess(net.written - (asked.nbytes - asked.unread), 2 * delay_product(0.03) + ALLOWED_BYTES)


class ResetTests(SynchronousTestCase):
    """A server that says something and resets its connection, as a server does that hangs up on an upload."""

    def test_all_that_was_said_before_it_arrives(self) -> None:
        """Right after hundreds of connections a window was 16 kB, and what was beyond it was lost."""
        net = Objects(MBIT, 0.03)
        for _ in range(200):
            net.ask(10)
        net.run(net.now + 0.5)
        net.resets_after = True
        asked = net.ask(150_000)
        net.run(net.now + 1.0)
        self.assertEqual(asked.nbytes, 150_000)
        self.assertEqual([type(event) for event in net.ends], [StreamReset])

    def test_a_reader_who_stopped_holds_it_up_for_a_while(self) -> None:
        net = Objects(MBIT, 0.03)
        for _ in range(200):
            net.ask(10)
        net.run(net.now + 0.5)
        net.resets_after = True
        asked = net.ask(150_000, reads=False)
        net.run(net.now + 9.0)
        self.assertEqual(net.ends, [])
        net.run(net.now + 2.0)
        self.assertLess(asked.nbytes, 150_000)
        self.assertEqual([type(event) for event in net.ends], [StreamReset])
        self.assertEqual(net.node("server").streams_kept, 200)
