"""Pings over an overlay in memory: the time they take, and every way in which there is no answer."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import UnreachableError
from seamless.testing import WINDOW_BYTES, MemoryNode, MemoryOverlay
from seamless.transport.endpoints import OverlayClientEndpoint, OverlayServerEndpoint
from seamless.transport.ping import PING_SERVICE, PING_TIMEOUT, PingService

LATENCY = 0.01


class Flooding(Protocol):
    """Sends more than a window, and reads nothing."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.pauseProducing()  # type: ignore[attr-defined]
        for _ in range(8):
            self.transport.write(bytes(WINDOW_BYTES // 2))


class PingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overlay = MemoryOverlay(self.clock, LATENCY)
        self.src, self.dst = MemoryNode(self.overlay, "src"), MemoryNode(self.overlay, "dst")
        self.pings = PingService(self.clock, self.src)
        self.answering = PingService(self.clock, self.dst)
        for service in (self.pings, self.answering):
            service.startService()

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / LATENCY)):
            self.clock.advance(LATENCY)

    def no_answer(self, pinging: Deferred[float]) -> str:
        return str(self.failureResultOf(pinging, UnreachableError).value)

    def test_round_trip(self) -> None:
        pinging = self.pings.ping("dst")
        self.run_for(1.0)
        self.assertAlmostEqual(self.successResultOf(pinging), 2 * LATENCY)
        self.assertEqual((self.src.driver.open_streams, self.dst.driver.open_streams), (0, 0))

    def test_as_many_bytes_as_are_asked_for(self) -> None:
        """All of them are back when the ping counts as answered."""
        for nbytes in (1, 3 * WINDOW_BYTES):
            before = self.dst.driver.peak_unconsumed_bytes
            pinging = self.pings.ping("dst", nbytes)
            self.run_for(1.0)
            self.assertGreaterEqual(self.successResultOf(pinging), 2 * LATENCY - 1e-9)
            self.assertEqual(self.dst.driver.peak_unconsumed_bytes > before + WINDOW_BYTES // 2, nbytes > 1)

    def test_both_ways_at_once(self) -> None:
        pinging = [self.pings.ping("dst"), self.answering.ping("src"), self.pings.ping("dst")]
        self.run_for(1.0)
        for each in pinging:
            self.assertAlmostEqual(self.successResultOf(each), 2 * LATENCY)

    def test_no_path(self) -> None:
        self.overlay.cut("src", "dst")
        with self.assertRaisesRegex(UnreachableError, "there is no path to node dst now"):
            self.pings.ping("dst")

    def test_a_path_that_breaks(self) -> None:
        pinging = self.pings.ping("dst")
        self.overlay.cut("src", "dst")
        self.assertIn("node dst does not answer", self.no_answer(pinging))

    def test_a_node_that_answers_no_pings(self) -> None:
        self.answering.stopService()
        pinging = self.pings.ping("dst")
        self.run_for(1.0)
        self.assertIn(f"nobody listens for service '{PING_SERVICE}' on node dst", self.no_answer(pinging))

    def test_silence_before_and_after_the_connection(self) -> None:
        self.answering.stopService()
        OverlayServerEndpoint(self.dst, PING_SERVICE).listen(Factory.forProtocol(Protocol))
        connected = self.pings.ping("dst")
        self.dst.acceptors.unregister(2)
        self.dst.acceptors.register(2, lambda stream, peer, target: None)
        undecided = self.pings.ping("dst")
        self.run_for(PING_TIMEOUT - 0.1)
        self.assertNoResult(connected)
        self.assertNoResult(undecided)
        self.run_for(0.2)
        for pinging in (connected, undecided):
            self.assertEqual(self.no_answer(pinging), f"node dst has not answered for {PING_TIMEOUT:g} s")
        self.assertEqual(self.src.driver.open_streams, 0)

    def test_a_ping_that_nobody_waits_for_any_more(self) -> None:
        pinging = self.pings.ping("dst")
        pinging.cancel()
        self.failureResultOf(pinging, ConnectingCancelledError)
        self.assertEqual(self.src.driver.open_streams, 0)

    def test_a_peer_that_floods_and_never_reads_is_held_to_its_window(self) -> None:
        OverlayClientEndpoint(self.src, "dst", PING_SERVICE).connect(Factory.forProtocol(Flooding))
        self.run_for(1.0)
        echoed = self.src.driver.peak_unconsumed_bytes
        self.assertGreater(echoed, 0)
        self.assertLessEqual(echoed, WINDOW_BYTES + WINDOW_BYTES // 2)
        self.assertGreater(self.dst.driver.peak_unconsumed_bytes, WINDOW_BYTES)
