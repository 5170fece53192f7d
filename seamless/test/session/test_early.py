"""What happens to a stream before the application accepts it: the session keeps it, and reports it in order then."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.interfaces import RESET_BY_APPLICATION, RESET_PEER_LOST, StreamFinished, StreamOpened, StreamReset
from seamless.test.session.pair import Pair


class EarlyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair()
        self.here, self.there = self.pair.open()

    def test_bytes_and_fin_wait(self) -> None:
        pair = self.pair
        pair.a.write(self.here, b"early", pair.now)
        pair.a.finish(self.here, pair.now)
        pair.run(0.5)
        self.assertEqual((pair.b.kinds(self.there), pair.b.received), ([StreamOpened], {}))
        self.assertEqual(pair.b.session.status(pair.now).unread_bytes, 5)
        pair.b.session.accept_stream(self.there, pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.received[self.there], b"early")
        self.assertEqual(pair.b.kinds(self.there), [StreamOpened, StreamFinished])

    def test_a_reset_waits(self) -> None:
        """The owner of the stream is known only when it is accepted; the session has forgotten the stream by then."""
        pair = self.pair
        pair.a.write(self.here, b"early", pair.now)
        pair.run(0.2)
        pair.a.session.reset(self.here, RESET_BY_APPLICATION, "changed its mind", pair.now)
        pair.run(0.5)
        self.assertEqual(pair.b.kinds(self.there), [StreamOpened])
        self.assertEqual(pair.b.session.streams_kept, 0)
        pair.b.session.accept_stream(self.there, pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.received[self.there], b"early")
        self.assertEqual(pair.b.kinds(self.there), [StreamOpened, StreamReset])

    def test_a_peer_that_restarts(self) -> None:
        """Bytes came before the reset, so both wait."""
        pair = self.pair
        pair.a.write(self.here, b"early", pair.now)
        pair.run(0.2)
        pair.start(1)
        pair.b.session.open_stream(b"the other way", pair.now)
        pair.run(0.5)
        self.assertEqual((pair.b.ups(), pair.b.reset_of(self.there)), (2, None))
        pair.b.session.accept_stream(self.there, pair.now)
        pair.run(0.1)
        reset = pair.b.reset_of(self.there)
        assert reset is not None
        self.assertEqual(reset.code, RESET_PEER_LOST)

    def test_a_reset_before_all_else_is_reported_at_once(self) -> None:
        """The client gave up: the owner can stop to look for the server, and need not accept the stream."""
        pair = self.pair
        pair.run(0.2)
        pair.a.session.reset(self.here, RESET_BY_APPLICATION, "gave up", pair.now)
        pair.run(0.2)
        self.assertEqual(pair.b.kinds(self.there), [StreamOpened, StreamReset])
        pair.b.session.accept_stream(self.there, pair.now)
        pair.run(0.5)
        self.assertEqual(pair.b.kinds(self.there), [StreamOpened, StreamReset], "once")
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)

    def test_refused(self) -> None:
        """Nothing of it is reported, and what it sent is given back to the window."""
        pair = self.pair
        pair.a.write(self.here, b"early", pair.now)
        pair.run(0.2)
        pair.b.session.reset(self.there, RESET_BY_APPLICATION, "not here", pair.now)
        pair.run(0.5)
        self.assertEqual((pair.b.kinds(self.there), pair.b.received), ([StreamOpened], {}))
        self.assertEqual(pair.b.session.status(pair.now).unread_bytes, 0)
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)
