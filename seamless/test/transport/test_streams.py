"""`StreamTransport` keeps its rules: back-pressure both ways, order, half-close, and a truthful ``connectionLost``."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from seamless.interfaces import RESET_BY_APPLICATION, RESET_NOT_ALLOWED, RESET_PEER_LOST, StreamKey
from seamless.testing import WINDOW_BYTES, MemoryDriver, MemoryOverlay
from seamless.transport.streams import DISCARD_LIMIT_BYTES, Acceptors, OverlayAddress, StreamTransport


class Recorder(Protocol):
    """Writes down what it hears."""

    transport: StreamTransport

    def __init__(self) -> None:
        self.data = b""
        self.heard: list[str] = []
        self.endings: list[type[BaseException]] = []
        self.reason = ""

    def connectionMade(self) -> None:
        self.heard.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        assert reason.type is not None
        self.endings.append(reason.type)
        self.reason = str(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """Lives on after one direction has ended."""

    def readConnectionLost(self) -> None:
        self.heard.append("read lost")

    def writeConnectionLost(self) -> None:
        self.heard.append("write lost")


class Producer:
    """A streaming producer that counts."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def pauseProducing(self) -> None:
        self.heard.append("pause")

    def resumeProducing(self) -> None:
        self.heard.append("resume")

    def stopProducing(self) -> None:
        self.heard.append("stop")


class PullProducer:
    """Writes one piece when asked, until there are none."""

    def __init__(self, transport: StreamTransport, pieces: int, piece: bytes) -> None:
        self.transport = transport
        self.left = pieces
        self.piece = piece

    def resumeProducing(self) -> None:
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            return
        self.left -= 1
        self.transport.write(self.piece)

    def stopProducing(self) -> None:
        self.left = 0


class StreamTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overlay = MemoryOverlay(self.clock, 0.01)
        self.src, self.dst = self.overlay.driver("src"), self.overlay.driver("dst")

    def join(self, near: Recorder, far: Recorder) -> None:
        def opened(stream: StreamKey, peer: str, target: bytes) -> None:
            transport = self.transport(self.dst, "src")
            self.dst.accept_stream(stream, transport)
            transport.start(stream, cast(IProtocol, far))

        self.dst.listen(opened)
        transport = self.transport(self.src, "dst")
        transport.start(self.src.open_stream("dst", b"\x02", transport), cast(IProtocol, near))
        self.run_all()
        self.assertEqual((near.heard, far.heard), (["made"], ["made"]))

    def transport(self, driver: MemoryDriver, peer: str) -> StreamTransport:
        return StreamTransport(driver, OverlayAddress(driver.name), OverlayAddress(peer, "test"))

    def run_all(self) -> None:
        while self.overlay.in_flight:
            self.clock.advance(0.01)

    def pair(self) -> tuple[Recorder, Recorder]:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        return near, far

    def half_closing_pair(self) -> tuple[HalfCloser, HalfCloser]:
        near, far = HalfCloser(), HalfCloser()
        self.join(near, far)
        return near, far

    def assert_all_gone(self) -> None:
        self.assertEqual((self.src.open_streams, self.dst.open_streams), (0, 0))

    def test_interfaces(self) -> None:
        from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport

        for interface in (ITCPTransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.transport(self.src, "dst")))

    def test_addresses(self) -> None:
        near, _ = self.pair()
        self.assertEqual(near.transport.getHost(), OverlayAddress("src"))
        self.assertEqual(near.transport.getPeer(), OverlayAddress("dst", "test"))

    def test_bytes_then_clean_close(self) -> None:
        near, far = self.pair()
        near.transport.write(b"ques")
        near.transport.writeSequence([b"ti", b"on"])
        far.transport.write(b"answer")
        self.run_all()
        near.transport.write(b" last")
        near.transport.loseConnection()
        near.transport.write(b"after the end")
        self.run_all()
        self.assertEqual((far.data, near.data), (b"question last", b"answer"))
        self.assertEqual((near.endings, far.endings), ([ConnectionDone], [ConnectionDone]))
        self.assert_all_gone()

    def test_abort_is_not_a_clean_end(self) -> None:
        near, far = self.pair()
        near.transport.write(b"before")
        near.transport.abortConnection()
        self.run_all()
        self.assertEqual((far.data, near.endings, far.endings), (b"before", [ConnectionAborted], [ConnectionLost]))
        self.assertEqual(self.src.resets, [(RESET_BY_APPLICATION, "the application aborted the connection")])
        self.assert_all_gone()

    def test_lost_peer_is_not_a_clean_end(self) -> None:
        near, far = self.pair()
        far.transport.loseConnection()
        self.overlay.cut("src", "dst")
        self.run_all()
        self.assertEqual((near.endings, far.endings), ([ConnectionLost], [ConnectionLost]))
        self.assertIn("node dst was silent for too long", near.reason)

    def test_half_close(self) -> None:
        near, far = self.half_closing_pair()
        near.transport.write(b"all I have")
        near.transport.loseWriteConnection()
        self.run_all()
        self.assertEqual((near.heard, far.heard), (["made", "write lost"], ["made", "read lost"]))
        far.transport.write(b"hours later")
        self.run_all()
        self.assertEqual((near.data, far.data, near.endings), (b"hours later", b"all I have", []))
        far.transport.loseWriteConnection()
        self.run_all()
        self.assertEqual((near.endings, far.endings), ([ConnectionDone], [ConnectionDone]))
        self.assertEqual(near.heard[2:], ["read lost"])

    def test_paused_protocol_stops_the_writer_within_the_window(self) -> None:
        near, far = self.pair()
        producer = Producer()
        near.transport.registerProducer(producer, True)
        far.transport.pauseProducing()
        while not producer.heard:
            near.transport.write(b"x" * 10_000)
            self.run_all()
        self.assertEqual((producer.heard, far.data), (["pause"], b""))
        self.assertLessEqual(self.dst.peak_unconsumed_bytes, WINDOW_BYTES + 10_000)
        far.transport.resumeProducing()
        self.run_all()
        self.assertEqual(producer.heard, ["pause", "resume"])
        self.assertGreater(len(far.data), WINDOW_BYTES - 10_000)

    def test_nothing_overtakes_bytes_to_a_paused_protocol(self) -> None:
        near, far = self.pair()
        far.transport.pauseProducing()
        near.transport.write(b"one")
        near.transport.write(b"two")
        near.transport.abortConnection()
        self.run_all()
        self.assertEqual((far.data, far.endings), (b"", []))
        far.transport.resumeProducing()
        self.assertEqual((far.data, far.endings), (b"onetwo", [ConnectionLost]))

    def test_pause_from_within_data_received(self) -> None:
        near, far = self.pair()
        received: list[bytes] = []

        def once(data: bytes) -> None:
            received.append(data)
            far.transport.pauseProducing()

        self.patch(far, "dataReceived", once)
        for piece in (b"1", b"2", b"3"):
            near.transport.write(piece)
        self.run_all()
        self.assertEqual(received, [b"1"])
        far.transport.resumeProducing()
        self.assertEqual(received, [b"1", b"2"])

    def test_pull_producer_is_asked_as_long_as_there_is_room(self) -> None:
        near, far = self.pair()
        producer = PullProducer(near.transport, 100, b"p" * 10_000)
        far.transport.pauseProducing()
        near.transport.registerProducer(producer, False)
        self.run_all()
        self.assertEqual(100 - producer.left, WINDOW_BYTES // 10_000 + 1)
        far.transport.resumeProducing()
        self.run_all()
        self.assertEqual((producer.left, len(far.data)), (0, 1_000_000))
        self.assertEqual((near.endings, far.endings), ([ConnectionDone], [ConnectionDone]))

    def test_close_waits_for_the_producer(self) -> None:
        near, far = self.pair()
        producer = Producer()
        near.transport.registerProducer(producer, True)
        near.transport.loseConnection()
        near.transport.write(b"the rest")
        self.run_all()
        self.assertEqual(far.endings, [])
        near.transport.unregisterProducer()
        self.run_all()
        self.assertEqual((far.data, far.endings), (b"the rest", [ConnectionDone]))

    def test_second_producer_is_refused_and_a_late_one_stopped(self) -> None:
        near, _ = self.pair()
        producer = Producer()
        near.transport.registerProducer(producer, True)
        self.assertRaises(RuntimeError, near.transport.registerProducer, Producer(), True)
        near.transport.abortConnection()
        late = Producer()
        near.transport.registerProducer(late, True)
        self.assertEqual((producer.heard, late.heard), (["stop"], ["stop"]))

    def test_peer_that_talks_on_after_close_is_heard_no_more_and_at_last_reset(self) -> None:
        near, far = self.half_closing_pair()
        near.transport.loseConnection()
        self.run_all()
        far.transport.write(b"x" * DISCARD_LIMIT_BYTES)
        self.run_all()
        self.assertEqual((near.data, near.endings, self.src.resets), (b"", [], []))
        far.transport.write(b"x")
        self.run_all()
        self.assertEqual((near.endings, far.endings), ([ConnectionLost], [ConnectionLost]))
        self.assertEqual([code for code, _ in self.src.resets], [RESET_BY_APPLICATION])

    def test_protocol_that_raises_is_reset(self) -> None:
        near, far = self.pair()

        def broken(data: bytes) -> None:
            raise ZeroDivisionError

        self.patch(far, "dataReceived", broken)
        near.transport.write(b"x")
        self.run_all()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((far.endings, near.endings), ([ConnectionAborted], [ConnectionLost]))


class AcceptorTests(SynchronousTestCase):
    def test_kinds_are_apart_and_unknown_ones_refused(self) -> None:
        clock = Clock()
        overlay = MemoryOverlay(clock)
        src, dst = overlay.driver("src"), overlay.driver("dst")
        acceptors = Acceptors(dst)
        seen: list[Any] = []
        acceptors.register(1, lambda stream, peer, target: seen.append((peer, target)))
        for target in (b"\x01mine", b"\x02other", b""):
            src.open_stream("dst", target, StreamTransport(src, OverlayAddress("src"), OverlayAddress("dst")))
        clock.advance(0)
        self.assertEqual(seen, [("src", b"\x01mine")])
        self.assertEqual([code for code, _ in dst.resets], [RESET_NOT_ALLOWED] * 2)
        acceptors.unregister(1)
        src.open_stream("dst", b"\x01late", StreamTransport(src, OverlayAddress("src"), OverlayAddress("dst")))
        clock.pump([0, 0])
        self.assertEqual((len(seen), len(dst.resets)), (1, 3))
        self.assertNotIn(RESET_PEER_LOST, [code for code, _ in dst.resets])
