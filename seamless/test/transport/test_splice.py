"""Splices between real loopback connections and in-memory streams: every rule of the table in `transport.splice`.

The applications are plain blocking sockets in threads, so what they see is what any program would see.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet import task
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from seamless.interfaces import RESET_BY_APPLICATION, RESET_PEER_LOST, RESET_SHUTDOWN, StreamKey
from seamless.test.transport.grounds import Ground, MemoryGround, NodeGround
from seamless.test.transport.running import RunningTestCase
from seamless.test.transport.sockets import Application, connected_pair
from seamless.testing import MemoryDriver, MemoryOverlay
from seamless.transport.dial import KEEPALIVE_INTERVAL, MAX_RTO_MILLISECONDS, TCP_RTO_MAX_MS, prepare
from seamless.transport.splice import DRAIN_INTERVAL, DRAIN_TIMEOUT, READ_BYTES, Splice

reactor: Any = global_reactor

PATTERN = bytes(range(251))
"""251 is prime, so a displaced buffer never looks right."""


def pattern(nbytes: int) -> bytes:
    return (PATTERN * (nbytes // len(PATTERN) + 1))[:nbytes]


@attrs.define
class SaidDriver:
    """A driver that notes what a splice sends."""

    said: list[object]

    def send(self, stream: StreamKey, data: bytes) -> int:
        self.said.append(data)
        return 1 << 20

    def finish(self, stream: StreamKey) -> None:
        self.said.append("FIN")

    def reset(self, stream: StreamKey, code: int, reason: str) -> None:
        self.said.append(code)

    def consumed(self, stream: StreamKey, nbytes: int) -> None:
        """Do nothing: nothing is handed out."""


class SpliceTestCase(RunningTestCase):
    """Client application, splice, stream, splice, server application."""

    def make_ground(self) -> Ground:
        return MemoryGround()

    async def setUp(self) -> None:  # type: ignore[override]
        self.timers = TimersApart()
        self.ended: list[tuple[Splice, tuple[int, str] | None]] = []
        self.ground = self.make_ground()
        await self.ground.start()
        self.addCleanup(self.ground.stop)
        self.client, near = self.application()
        self.server, far = self.application()
        self.near_sock, self.far_sock = near, far
        self.near, self.far = self.join(near, far)

    def application(self) -> tuple[Application, socket.socket]:
        ours, theirs = connected_pair()
        prepare(ours)
        application = Application(theirs)
        self.addCleanup(application.close)
        return application, ours

    def join(self, near: socket.socket, far: socket.socket) -> tuple[Splice, Splice]:
        egress_side = Splice(self.timers, far, self.ground.dst, self.note_end)
        ingress_side = Splice(reactor, near, self.ground.src, self.note_end)
        self.addCleanup(egress_side.abort, RESET_SHUTDOWN, "the test is over")
        self.addCleanup(ingress_side.abort, RESET_SHUTDOWN, "the test is over")

        def opened(stream: StreamKey, peer: str, target: bytes) -> None:
            egress_side.start(stream)
            self.ground.dst.accept_stream(stream, egress_side)

        self.ground.dst.listen(opened)
        ingress_side.start(self.ground.src.open_stream("dst", b"\x01", ingress_side))
        return ingress_side, egress_side

    def note_end(self, splice: Splice, reset: tuple[int, str] | None) -> None:
        self.ended.append((splice, reset))

    async def settle(self) -> None:
        """Let the reactor run until nothing comes up any more."""
        before = -1
        while before != self.near.bytes_up or not before:
            before = self.near.bytes_up
            await task.deferLater(reactor, 0.2)

    async def all_ended(self) -> None:
        await self.until(lambda: len(self.ended) == 2)
        await self.until(self.ground.settled)


class OneTurnTests(TestCase):
    def test_a_fin_goes_with_the_bytes_before_it(self) -> None:
        """In one turn of the reactor, so that they need one datagram."""
        said: list[object] = []
        driver = SaidDriver(said)
        ours, theirs = connected_pair()
        prepare(ours)
        self.addCleanup(theirs.close)
        splice = Splice(reactor, ours, driver, lambda splice, reset: None)
        splice.start((1, 1))
        self.addCleanup(splice.abort, RESET_SHUTDOWN, "the test is over")
        theirs.sendall(b"answer")
        theirs.shutdown(socket.SHUT_WR)
        splice.doRead()
        self.assertEqual(said, [b"answer", "FIN"])


class SpliceTests(SpliceTestCase):
    async def test_bytes_and_fin_both_ways(self) -> None:
        up, down = pattern(3_000_000), pattern(2_000_001)
        sending = [self.run_in_thread(self.client.send_all, up), self.run_in_thread(self.server.send_all, down)]
        reading = [self.run_in_thread(self.server.read_to_end), self.run_in_thread(self.client.read_to_end)]
        for sent in sending:
            await sent
        self.client.finish()
        self.server.finish()
        got_up, got_down = await reading[0], await reading[1]
        self.assertEqual((got_up, got_down), ((up, "EOF"), (down, "EOF")))
        await self.all_ended()
        self.assertEqual([reset for _, reset in self.ended], [None, None])
        self.assertEqual((self.near.bytes_up, self.near.bytes_down), (len(up), len(down)))
        self.assertEqual((self.far.bytes_up, self.far.bytes_down), (len(down), len(up)))

    async def test_half_close_lets_the_other_direction_live(self) -> None:
        self.client.finish()
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"", "EOF"))
        answer = pattern(1_500_000)
        sending = self.run_in_thread(self.server.send_all, answer)
        reading = self.run_in_thread(self.client.read_to_end)
        await sending
        self.assertEqual(self.ended, [])
        self.server.finish()
        self.assertEqual(await reading, (answer, "EOF"))
        await self.all_ended()

    async def test_server_half_closes_first_and_the_upload_goes_on(self) -> None:
        self.server.finish()
        self.assertEqual(await self.run_in_thread(self.client.read_to_end), (b"", "EOF"))
        upload = pattern(1_500_000)
        sending = self.run_in_thread(self.client.send_all, upload)
        reading = self.run_in_thread(self.server.read_to_end)
        await sending
        self.client.finish()
        self.assertEqual(await reading, (upload, "EOF"))
        await self.all_ended()

    async def test_application_reset_passes_after_the_bytes(self) -> None:
        data = pattern(1_000_000)
        reading = self.run_in_thread(self.server.read_to_end)
        await self.run_in_thread(self.client.send_all, data)
        await self.until(lambda: self.client.unacknowledged() == 0)
        self.client.reset()
        self.assertEqual(await reading, (data, "RST"))
        await self.all_ended()
        self.assertEqual({reset[0] for _, reset in self.ended if reset}, {RESET_BY_APPLICATION})

    async def test_reset_waits_for_a_slow_reader(self) -> None:
        data = pattern(3_000_000)
        sending = self.run_in_thread(self.client.send_all, data)
        reading = self.run_in_thread(self.server.read_to_end, 0.002)
        await sending
        await self.until(lambda: self.client.unacknowledged() == 0)
        self.client.reset()
        self.assertEqual(await reading, (data, "RST"))
        await self.all_ended()

    async def test_reset_waits_for_bytes_that_the_kernel_has_not_taken(self) -> None:
        for sock, option in ((self.far_sock, socket.SO_SNDBUF), (self.server.sock, socket.SO_RCVBUF)):
            sock.setsockopt(socket.SOL_SOCKET, option, 8192)
        data = pattern(200_000)
        await self.run_in_thread(self.client.send_all, data)
        await self.settle()
        self.assertEqual(self.near.bytes_up, len(data))
        self.assertLess(self.far.bytes_down, len(data) // 2)
        self.client.reset()
        await self.until(lambda: len(self.ended) == 1)
        await task.deferLater(reactor, 0.05)
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (data, "RST"))
        await self.all_ended()

    async def test_urgent_bytes_keep_their_place(self) -> None:
        """RFC 6093: the mark is lost, the byte is not."""
        await self.run_in_thread(self.client.send_all, b"before")
        self.client.sock.send(b"!", socket.MSG_OOB)
        await self.run_in_thread(self.client.send_all, b"after")
        self.client.finish()
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"before!after", "EOF"))

    async def test_half_closed_connections_are_kept_alive(self) -> None:
        """On both sides; and no sooner, so that an application's own silence is never cut."""
        self.assertGreater(self.keepalive(self.near_sock), KEEPALIVE_INTERVAL)
        self.client.finish()
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"", "EOF"))
        for sock in (self.near_sock, self.far_sock):
            self.assertEqual(self.keepalive(sock), KEEPALIVE_INTERVAL)
            self.assertEqual(self.longest_wait_for_a_window(sock), MAX_RTO_MILLISECONDS)

    async def test_a_connection_that_stands_still_is_kept_alive(self) -> None:
        """A FIN may wait behind what is not read."""
        sending = self.run_in_thread(self.client.try_to_send, pattern(60_000_000))
        await self.until(lambda: self.far.bytes_down > 0)
        await self.until(lambda: self.keepalive(self.near_sock) == KEEPALIVE_INTERVAL)
        self.near.abort(RESET_SHUTDOWN, "the test is over")
        await sending

    def longest_wait_for_a_window(self, sock: socket.socket) -> int:
        """Return the milliseconds after which a socket asks a closed window again, where the kernel can be told."""
        try:
            return sock.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)
        except OSError:
            return MAX_RTO_MILLISECONDS

    def keepalive(self, sock: socket.socket) -> int:
        """Return the seconds of silence after which a socket asks for a sign of life."""
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

    async def test_splice_that_the_reactor_let_go_is_watched_again(self) -> None:
        for splice in (self.near, self.far):
            reactor.removeReader(splice)
            splice.connectionLost(Failure(ConnectionLost()))
        await self.run_in_thread(self.client.send_all, b"still here")
        self.assertEqual(await self.run_in_thread(self.server.read_exactly, 10), b"still here")

    async def test_splice_whose_own_method_failed_is_reset(self) -> None:
        reactor.removeReader(self.near)
        self.near.connectionLost(Failure(ZeroDivisionError()))
        self.assertEqual(await self.run_in_thread(self.client.read_to_end), (b"", "RST"))
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"", "RST"))
        await self.all_ended()

    async def test_reset_of_the_stream_reaches_both_applications(self) -> None:
        await self.run_in_thread(self.client.send_all, b"hello")
        self.assertEqual(await self.run_in_thread(self.server.read_exactly, 5), b"hello")
        self.ground.cut()
        self.assertEqual(await self.run_in_thread(self.client.read_to_end), (b"", "RST"))
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"", "RST"))
        await self.all_ended()
        self.assertEqual({reset[0] for _, reset in self.ended if reset}, {RESET_PEER_LOST})

    async def test_stream_cut_short_never_ends_with_eof(self) -> None:
        sent = pattern(2_000_000)
        sending = self.run_in_thread(self.client.try_to_send, sent)
        reading = self.run_in_thread(self.server.read_to_end)
        await self.until(lambda: self.far.bytes_down > 300_000)
        self.ground.cut()
        got, ending = await reading
        self.assertEqual(ending, "RST")
        self.assertEqual(got, sent[: len(got)])
        self.assertGreater(len(got), 300_000)
        await sending
        await self.all_ended()

    async def test_early_answer_of_a_closing_server_arrives_whole(self) -> None:
        """The server answers and closes with the upload unread: its kernel sends RST on the heels of the answer."""
        ending, uploaded = await self.answer_and_hang_up(says_fin=False)
        # The kernel tells of a reset once, to whoever asks first: here the sending or the receiving thread.
        self.assertIn("RST", (ending, "RST" if uploaded == errno.ECONNRESET else "sent"))

    async def test_fin_of_a_closing_server_arrives_before_its_reset(self) -> None:
        """As above, after a FIN: with TCP alone the reader finds end of file, and the writer EPIPE."""
        self.assertEqual(await self.answer_and_hang_up(says_fin=True), ("EOF", errno.EPIPE))

    async def answer_and_hang_up(self, *, says_fin: bool) -> tuple[str, int]:
        """Answer during an upload, and close with it unread; return how reading ended, and the writer's error."""
        answer = pattern(200_000)
        upload = self.run_in_thread(self.client.try_to_send, pattern(20_000_000))
        reading = self.run_in_thread(self.client.read_to_end)
        await self.run_in_thread(self.server.read_exactly, 1000)
        await self.run_in_thread(self.server.send_all, answer)
        await self.until(lambda: self.server.unacknowledged() == 0)
        if says_fin:
            self.server.finish()
        self.server.close()
        got, ending = await reading
        self.assertEqual(got, answer)
        uploaded = await upload
        await self.all_ended()
        return ending, uploaded

    async def test_stopped_reader_stops_the_writer(self) -> None:
        data = pattern(60_000_000)
        sending = self.run_in_thread(self.client.send_all, data)
        await self.settle()
        self.assertFalse(sending.called)
        self.assertLess(self.near.bytes_up, len(data))
        reading = self.run_in_thread(self.server.read_to_end)
        await sending
        self.client.finish()
        self.assertEqual(await reading, (data, "EOF"))

    async def test_stopped_reader_does_not_keep_a_reset_forever(self) -> None:
        data = pattern(30_000_000)
        sending = self.run_in_thread(self.client.try_to_send, data)
        await self.settle()
        clock = task.Clock()
        self.timers.clock = clock
        self.ground.cut()
        await self.until(lambda: len(self.ended) == 1 and bool(clock.getDelayedCalls()))
        clock.pump([DRAIN_INTERVAL] * int(DRAIN_TIMEOUT / DRAIN_INTERVAL + 2))
        got, ending = await self.run_in_thread(self.server.read_to_end)
        self.assertEqual((got, ending), (data[: len(got)], "RST"))
        await sending
        await self.all_ended()

    async def test_abort_resets_both(self) -> None:
        self.near.abort(RESET_SHUTDOWN, "the daemon is stopping")
        self.assertEqual(await self.run_in_thread(self.client.read_to_end), (b"", "RST"))
        self.assertEqual(await self.run_in_thread(self.server.read_to_end), (b"", "RST"))
        await self.all_ended()
        self.assertEqual([reset for _, reset in self.ended], [(RESET_SHUTDOWN, "the daemon is stopping")] * 2)


class NodeSpliceTests(SpliceTests):
    """The same over real nodes: what the double promises, they keep."""

    def make_ground(self) -> Ground:
        return NodeGround()


class FullStreamTests(SpliceTestCase):
    """What only the double can be made to do: have no room just when something happens."""

    def make_ground(self) -> Ground:
        ground = MemoryGround()
        self.egress, self.window_bytes = ground.dst, ground.overlay.window_bytes
        return ground

    async def test_answer_left_in_the_kernel_by_a_failed_write_is_read(self) -> None:
        """FIN and answer wait unread when the next write fails with EPIPE: nothing of them is lost."""
        answer = pattern(100_000)
        self.egress.withhold_room()
        await self.run_in_thread(self.server.send_all, answer)
        await self.until(lambda: self.server.unacknowledged() == 0)
        self.server.close()
        await self.run_in_thread(self.client.send_all, b"one")
        await self.until(lambda: self.far.bytes_down == 3)
        await task.deferLater(reactor, 0.05)
        await self.run_in_thread(self.client.send_all, b"two")
        await self.until(lambda: self.far.gave_up() and self.near.bytes_up == 6)
        await task.deferLater(reactor, 0.05)
        self.assertLess(self.far.bytes_up, len(answer))
        self.egress.give_room()
        got, ending = await self.run_in_thread(self.client.read_to_end)
        self.assertEqual(got, answer)
        self.assertIn(ending, ("EOF", "RST"))
        await self.all_ended()

    async def test_eof_after_a_failed_write_is_not_believed(self) -> None:
        """RST without FIN, and our write learns of it first: the recv that follows returns end of file, falsely."""
        self.egress.withhold_room()
        answer = pattern(100_000)
        await self.run_in_thread(self.server.send_all, answer)
        await self.until(lambda: self.server.unacknowledged() == 0)
        self.server.reset()
        await self.until(self.far.gave_up)
        await self.run_in_thread(self.client.send_all, b"into the void")
        await self.until(lambda: self.near.bytes_up == 13)
        await task.deferLater(reactor, 0.05)
        self.assertLess(self.far.bytes_up, len(answer))
        self.egress.give_room()
        self.assertEqual(await self.run_in_thread(self.client.read_to_end), (answer, "RST"))
        await self.all_ended()

    async def test_memory_stays_within_the_window_of_a_stopped_reader(self) -> None:
        data = pattern(30_000_000)
        sending = self.run_in_thread(self.client.send_all, data)
        await self.settle()
        settled = self.near.bytes_up
        self.assertLess(settled, len(data))
        # What the kernel of the server's side holds has been given back; only the rest may wait in the daemon.
        self.assertLessEqual(settled - self.far.bytes_down, self.window_bytes + READ_BYTES)
        self.assertLessEqual(self.egress.peak_unconsumed_bytes, self.window_bytes + READ_BYTES)
        reading = self.run_in_thread(self.server.read_to_end)
        await sending
        self.client.finish()
        self.assertEqual(await reading, (data, "EOF"))


class TimersApart:
    """The real reactor, but for timers once ``clock`` is set."""

    clock: Any = reactor

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> Any:
        return self.clock.callLater(delay, call, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class KilledProcessTests(TestCase):
    """A process that dies with prepared sockets leaves RST."""

    def test_kill_leaves_reset(self) -> None:
        ours, theirs = connected_pair()
        self.addCleanup(theirs.close)
        prepare(ours)
        program = "import sys, time; sys.stdout.write('up'); sys.stdout.flush(); time.sleep(60)"
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, pass_fds=[ours.fileno()], env=dict(os.environ)
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.read(2), b"up")
        ours.close()
        process.kill()
        process.wait()
        theirs.settimeout(5)
        self.assertRaises(ConnectionResetError, theirs.recv, 1)


class PairTests(TestCase):
    """The double that these tests stand on notices an owner that breaks the rules."""

    def test_double_is_strict(self) -> None:
        overlay = MemoryOverlay(task.Clock())
        driver: MemoryDriver = overlay.driver("src")
        overlay.driver("dst")
        stream = driver.open_stream("dst", b"\x01", Silent())
        self.assertRaises(AssertionError, driver.consumed, stream, 1)
        driver.finish(stream)
        self.assertRaises(AssertionError, driver.send, stream, b"late")


class Silent:
    """An owner that does nothing."""

    def stream_accepted(self) -> None: ...

    def stream_data(self, chunks: list[bytes]) -> None: ...

    def stream_writable(self) -> None: ...

    def stream_finished(self) -> None: ...

    def stream_reset(self, code: int, reason: str) -> None: ...

    def stream_closed(self) -> None: ...
