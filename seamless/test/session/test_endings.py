"""How streams end (DESIGN, section 6): FIN, half-close, RESET after the bytes, refusal, a lost or restarted peer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import LocalProtocolError
from seamless.interfaces import (
    RESET_BY_APPLICATION,
    RESET_PEER_LOST,
    RESET_REFUSED,
    RESET_SHUTDOWN,
    StreamAccepted,
    StreamClosed,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from seamless.session.limits import Limits
from seamless.session.stream import ENDING_TIMEOUT
from seamless.test.session.pair import Pair


class FinTests(SynchronousTestCase):
    """Clean ends."""

    def test_events_of_a_whole_life(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open(b"10.1.9.2:5201")
        pair.a.write(here, b"question", pair.now)
        pair.a.finish(here, pair.now)
        pair.run(1)
        pair.b.write(there, b"answer", pair.now)
        pair.b.finish(there, pair.now)
        pair.run(1)
        self.assertEqual(pair.a.kinds(here), [StreamAccepted, StreamFinished, StreamClosed])
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamFinished, StreamClosed])
        self.assertEqual(pair.b.events[1], StreamOpened(there, b"10.1.9.2:5201"))
        self.assertEqual((pair.b.received[there], pair.a.received[here]), (b"question", b"answer"))

    def test_half_close_lasts_for_hours(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.a.finish(here, pair.now)
        pair.run(3 * 3600)
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamFinished])
        pair.b.write(there, bytes(1_000_000), pair.now)
        pair.b.finish(there, pair.now)
        pair.run(2)
        self.assertEqual(len(pair.a.received[here]), 1_000_000)
        self.assertEqual(pair.a.kinds(here)[-1], StreamClosed)
        self.assertEqual(pair.a.lost() + pair.b.lost(), [])

    def test_fin_waits_for_every_byte(self) -> None:
        """While packets are late and lost, EOF never comes before the bytes."""
        for seed in range(20):
            self.check_fin(Pair(seed))

    def check_fin(self, pair: Pair) -> None:
        pair.accept_all()
        pair.wires[1].loss, pair.wires[1].late = 0.02, 0.3
        here, there = pair.open()
        pair.a.write(here, pair.random.randbytes(300_000), pair.now)
        pair.a.finish(here, pair.now)
        pair.run_until(lambda: StreamFinished in pair.b.kinds(there))
        self.assertEqual(pair.b.received[there], pair.a.written[here])
        self.assertGreater(pair.wires[1].lost, 0)

    def test_empty_stream(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.a.finish(here, pair.now)
        pair.b.finish(there, pair.now)
        pair.run(1)
        self.assertEqual(pair.a.kinds(here), [StreamAccepted, StreamFinished, StreamClosed])
        self.assertEqual(pair.a.received, {})

    def test_data_follows_the_open_at_once(self) -> None:
        """The first bytes are there one way after the handshake, together with the request for the stream."""
        pair = Pair()
        pair.accept_all()
        pair.open()
        pair.run(1)
        here, there = pair.open()
        begin = pair.now
        pair.a.write(here, b"x" * 16_000, pair.now)
        pair.run_until(lambda: len(pair.b.received.get(there, b"")) == 16_000)
        self.assertLess(pair.now - begin, 0.016)

    def test_writing_after_the_end_is_the_callers_fault(self) -> None:
        pair = Pair()
        here, _ = pair.open()
        pair.a.session.finish(here, pair.now)
        self.assertRaises(LocalProtocolError, pair.a.session.send, here, b"x", pair.now)


class ResetTests(SynchronousTestCase):
    """Ends that are not clean."""

    def test_refusal_carries_code_and_reason(self) -> None:
        pair = Pair()
        here, there = pair.open()
        pair.a.write(here, b"early bytes", pair.now)
        pair.b.on_open = lambda event: pair.b.session.reset(
            event.stream, RESET_REFUSED, "nobody listens at 10.1.9.2:22", pair.now
        )
        pair.run(1)
        self.assertEqual(pair.a.reset_of(here), StreamReset(here, RESET_REFUSED, "nobody listens at 10.1.9.2:22"))
        self.assertEqual(pair.a.kinds(here), [StreamReset])
        self.assertEqual(pair.b.kinds(there), [StreamOpened])
        self.assertEqual(pair.a.session.status(pair.now).streams, 0)
        self.assertEqual(pair.a.session.status(pair.now).unread_bytes, 0)

    def test_reset_comes_after_the_bytes_in_flight(self) -> None:
        for seed in range(20):
            pair = Pair(seed)
            pair.accept_all()
            pair.wires[1].late = 0.3
            here, there = pair.open()
            pair.run(0.2)
            pair.a.session.send(here, pair.random.randbytes(200_000), pair.now)
            pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
            pair.run(2)
            self.assertEqual(len(pair.b.received[there]), 200_000)
            self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamReset])
            self.assertGreater(pair.wires[1].made_late, 0)

    def test_fin_and_reset_at_once(self) -> None:
        """The end of file is told, after every byte and before the reset, whatever overtakes what."""
        for seed in range(20):
            for nbytes in (0, 200_000):
                pair = Pair(seed)
                pair.accept_all()
                pair.wires[1].late = pair.wires[2].late = 0.3
                here, there = pair.open()
                pair.run(0.2)
                for end, key in ((pair.a, here), (pair.b, there)):
                    end.session.send(key, bytes(nbytes), pair.now)
                    end.session.finish(key, pair.now)
                pair.b.session.reset(there, RESET_BY_APPLICATION, "RST", pair.now)
                pair.run(2)
                self.assertEqual(len(pair.a.received.get(here, b"")), nbytes)
                self.assertEqual(pair.a.kinds(here), [StreamAccepted, StreamFinished, StreamReset])
                self.assertEqual(pair.b.kinds(there), [StreamOpened])
                self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)

    def test_fin_and_reset_overtake_the_accept(self) -> None:
        """A server that accepts, says nothing, ends and resets at once; and the ACCEPT is lost."""
        for seed in range(20):
            pair = Pair(seed)
            pair.wires[2].late, pair.wires[2].lateness = 0.5, 0.1

            def hang_up(event: StreamOpened, pair: Pair = pair) -> None:
                pair.b.session.accept_stream(event.stream, pair.now)
                pair.b.session.packets_to_send(0, pair.now)
                pair.b.session.finish(event.stream, pair.now)
                pair.b.session.reset(event.stream, RESET_BY_APPLICATION, "", pair.now)

            pair.b.on_open = hang_up
            here, _ = pair.open()
            pair.run(3)
            self.assertEqual(pair.a.kinds(here), [StreamAccepted, StreamFinished, StreamReset])

    def test_bytes_beyond_the_window_are_dropped_with_a_reset(self) -> None:
        self.reset_beyond_the_window(says_fin=False)

    def test_no_fin_after_bytes_that_were_dropped(self) -> None:
        self.reset_beyond_the_window(says_fin=True)

    def reset_beyond_the_window(self, *, says_fin: bool) -> None:
        """Reset with more unsent than a reader that has stopped lets go: it is waited for, but not for ever."""
        pair = Pair(limits=Limits(stream_window_initial=65536))
        pair.accept_all()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.run(0.2)
        pair.a.session.send(here, bytes(200_000), pair.now)
        if says_fin:
            pair.a.session.finish(here, pair.now)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
        pair.run(ENDING_TIMEOUT - 1)
        self.assertEqual(pair.b.kinds(there), [StreamOpened])
        pair.run(2)
        self.assertEqual(len(pair.b.received[there]), 65536)
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamReset])

    def test_bytes_beyond_the_window_arrive_when_the_reader_goes_on(self) -> None:
        """And so does the FIN before the reset."""
        pair = Pair(limits=Limits(stream_window_initial=65536))
        pair.accept_all()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.run(0.2)
        pair.a.session.send(here, bytes(200_000), pair.now)
        pair.a.session.finish(here, pair.now)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
        pair.run(1)
        pair.b.resume(there, pair.now)
        pair.run(1)
        self.assertEqual(len(pair.b.received[there]), 200_000)
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamFinished, StreamReset])
        self.assertEqual((pair.a.session.streams_kept, pair.b.session.streams_kept), (0, 0))

    def test_a_peer_that_resets_too_ends_the_waiting(self) -> None:
        pair = Pair(limits=Limits(stream_window_initial=65536))
        pair.accept_all()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.run(0.2)
        pair.a.session.send(here, bytes(200_000), pair.now)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
        pair.run(1)
        pair.b.session.reset(there, RESET_BY_APPLICATION, "no more", pair.now)
        pair.run(1)
        self.assertEqual((pair.a.session.streams_kept, pair.b.session.streams_kept), (0, 0))

    def test_a_harsher_reset_while_one_waits(self) -> None:
        pair = Pair(limits=Limits(stream_window_initial=65536))
        pair.accept_all()
        here, there = pair.open()
        pair.b.stopped.add(there)
        pair.run(0.2)
        pair.a.session.send(here, bytes(200_000), pair.now)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "RST", pair.now)
        pair.run(1)
        pair.a.session.reset(here, RESET_SHUTDOWN, "the daemon is stopping", pair.now)
        pair.run(0.2)
        self.assertEqual(pair.b.reset_of(there), StreamReset(there, RESET_SHUTDOWN, "the daemon is stopping"))
        self.assertEqual((pair.a.session.streams_kept, pair.b.session.streams_kept), (0, 0))

    def test_answer_arrives_whole_though_the_upload_is_cut(self) -> None:
        """The server answers early and resets while the client still uploads."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.a.write(here, bytes(5_000_000), pair.now)
        pair.run(0.1)
        pair.b.session.send(there, b"413 too large" * 1000, pair.now)
        pair.b.session.reset(there, RESET_BY_APPLICATION, "", pair.now)
        pair.run(2)
        self.assertEqual(pair.a.received[here], b"413 too large" * 1000)
        self.assertEqual(pair.a.kinds(here)[-1], StreamReset)
        self.assertEqual(pair.a.session.status(pair.now).unsent_bytes, 0)

    def test_writing_on_while_a_reset_waits_for_its_bytes(self) -> None:
        """The RESET overtakes the answer before it. What is written meanwhile goes nowhere, and is not counted as sent:
        the peer would take that for more than its window, and end the session."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.run(0.5)
        pair.wires[2].rate_pps = 500
        pair.b.write(there, pair.random.randbytes(100_000), pair.now)
        pair.run(0.03)
        pair.b.session.reset(there, RESET_BY_APPLICATION, "had enough", pair.now)
        for _ in range(60):
            if pair.a.reset_of(here) is None:
                pair.a.session.send(here, bytes(65_536), pair.now)
            pair.run(0.005)
        self.assertIsNotNone(pair.a.reset_of(here))
        self.assertTrue(pair.a.received[here] == pair.b.written[there], "the whole answer")
        self.assertEqual((pair.a.lost(), pair.b.lost()), ([], []))
        self.assertEqual(pair.a.session.status(pair.now).unsent_bytes, 0)
        other, elsewhere = pair.open()
        pair.a.write(other, b"the session lives on", pair.now)
        pair.run(1)
        self.assertEqual(pair.b.received[elsewhere], b"the session lives on")

    def test_both_reset_at_once(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.run(0.2)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "", pair.now)
        pair.b.session.reset(there, RESET_BY_APPLICATION, "", pair.now)
        pair.run(1)
        self.assertEqual((pair.a.kinds(here), pair.b.kinds(there)), ([StreamAccepted], [StreamOpened]))
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)

    def test_reset_after_half_close(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.a.write(here, b"all of it", pair.now)
        pair.a.finish(here, pair.now)
        pair.run(1)
        pair.a.session.reset(here, RESET_BY_APPLICATION, "gone", pair.now)
        pair.run(1)
        self.assertEqual(pair.b.kinds(there), [StreamOpened, StreamFinished, StreamReset])
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)

    def test_shutdown_waits_for_nothing(self) -> None:
        """A node that stops has no time for the bytes in flight."""
        pair = Pair(limits=Limits(stream_window_initial=65536))
        pair.accept_all()
        here, there = pair.open()
        pair.run(0.2)
        pair.a.session.send(here, bytes(2_000_000), pair.now)
        pair.a.session.reset(here, RESET_SHUTDOWN, "the daemon is stopping", pair.now)
        pair.run(0.1)
        self.assertEqual(pair.b.reset_of(there), StreamReset(there, RESET_SHUTDOWN, "the daemon is stopping"))

    def test_windows_survive_many_resets(self) -> None:
        """Credit of the session window is settled to the byte, whichever end resets, whatever was under way."""
        pair = Pair(limits=Limits(session_window_max=4 << 20, unread_max=4 << 20))
        pair.accept_all()
        pair.wires[1].late = pair.wires[2].late = 0.3
        for turn in range(30):
            here, there = pair.open()
            pair.run(0.1)
            pair.a.session.send(here, bytes(600_000), pair.now)
            pair.b.session.send(there, bytes(600_000), pair.now)
            pair.run(0.02)
            end, key = ((pair.a, here), (pair.b, there))[turn % 2]
            end.session.reset(key, RESET_BY_APPLICATION if turn % 3 else RESET_SHUTDOWN, "", pair.now)
            pair.run(0.3)
        here, there = pair.open()
        pair.a.write(here, pair.random.randbytes(3_000_000), pair.now)
        pair.run_until(lambda: pair.b.received.get(there) == pair.a.written[here], 5)
        self.assertEqual(pair.a.session.streams_kept, 1)


class LostPeerTests(SynchronousTestCase):
    """The peer does not answer, there is no path to it, or it was restarted and has none of the streams."""

    def test_give_up(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(1)
        for wire in pair.wires.values():
            wire.down = True
        begin = pair.now
        pair.a.session.send(here, b"anybody there?", pair.now)
        pair.run_until(lambda: bool(pair.a.lost()))
        self.assertLess(abs(pair.now - begin - 30), 0.1)
        reset = pair.a.reset_of(here)
        self.assertEqual((reset and reset.code, pair.a.lost()), (RESET_PEER_LOST, ["no answer for 30 s"]))
        self.assertGreater(pair.wires[1].lost, 1)
        pair.run(10)
        self.assertEqual(len(pair.b.lost()), 1, "the silent end watches, too")

    def test_streams_wait_for_the_path_to_return(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.a.write(here, pair.random.randbytes(3_000_000), pair.now)
        pair.run(0.15)
        for end in pair.ends.values():
            end.session.path_changed(None, pair.now)
        sent = pair.wires[1].carried
        pair.run(28)
        self.assertEqual(pair.wires[1].carried, sent, "nothing is sent where there is no path")
        for end in pair.ends.values():
            end.session.path_changed(1444, pair.now)
        pair.run_until(lambda: pair.b.received[there] == pair.a.written[here], 2)
        self.assertEqual(pair.a.lost() + pair.b.lost(), [])

    def test_no_path_for_too_long(self) -> None:
        pair = Pair()
        pair.a.session.path_changed(None, pair.now)
        here, _ = pair.open()
        pair.run(31)
        reset = pair.a.reset_of(here)
        self.assertEqual(reset and reset.code, RESET_PEER_LOST)

    def test_the_end_that_did_not_give_up_is_told(self) -> None:
        """One end gave up in an outage that the other just survived: no stream is left half alive."""
        pair = Pair()
        pair.accept_all()
        here, there = pair.open()
        pair.run(1)
        for wire in pair.wires.values():
            wire.down = True
        pair.a.session.send(here, b"lost", pair.now)
        pair.run(30.2)
        self.assertEqual((len(pair.a.lost()), len(pair.b.lost())), (1, 0))
        for wire in pair.wires.values():
            wire.down = False
        pair.run(10)
        reset = pair.b.reset_of(there)
        self.assertEqual(reset and reset.code, RESET_PEER_LOST)
        self.assertEqual(pair.a.session.streams_kept + pair.b.session.streams_kept, 0)

    def test_restarted_peer(self) -> None:
        """The old streams are reset, and new ones work."""
        for restarted in (1, 2):
            pair = Pair(restarted)
            pair.accept_all()
            here, there = pair.open()
            pair.a.write(here, bytes(100_000), pair.now)
            pair.run(7)
            pair.start(restarted)
            survivor, key = (pair.b, there) if restarted == 1 else (pair.a, here)
            survivor.session.send(key, b"are you there?", pair.now)
            if restarted == 1:
                pair.open()
            pair.run(20)
            reset = survivor.reset_of(key)
            self.assertEqual(reset and (reset.code, reset.reason), (RESET_PEER_LOST, "the peer was restarted"))
            self.assertEqual(survivor.ups(), 2)
            new, there = pair.open()
            pair.a.write(new, b"hello again", pair.now)
            pair.run(1)
            self.assertTrue(pair.b.received[there].endswith(b"hello again"))

    def test_restarted_peer_speaks_first(self) -> None:
        """Its record numbers begin at 0 again, which the silent survivor does not take for a recording."""
        pair = Pair()
        pair.accept_all()
        pair.open()
        pair.run(2)
        pair.start(1)
        new, there = pair.open(b"10.1.9.2:80")
        pair.a.write(new, b"first words", pair.now)
        pair.run(0.5)
        self.assertTrue(pair.b.received[there].endswith(b"first words"))
        self.assertEqual(pair.b.ups(), 2)

    def test_dead_egress_is_noticed_by_an_idle_stream(self) -> None:
        pair = Pair()
        pair.accept_all()
        here, _ = pair.open()
        pair.run(20)
        pair.wires[2].down = True
        pair.run(36)
        reset = pair.a.reset_of(here)
        self.assertEqual(reset and reset.code, RESET_PEER_LOST)
        self.assertGreater(pair.wires[2].lost, 0)
