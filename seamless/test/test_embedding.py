"""`seamless.connect` and `seamless.listen`: on Twisted in this process, on asyncio in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectingCancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.errors import UnreachableError
from seamless.interfaces import RESET_BY_APPLICATION
from seamless.testing import WINDOW_BYTES, MemoryNode, MemoryOverlay

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"

CANCEL = """
import asyncio, sys, tempfile
sys.path.insert(0, sys.argv[1])
import seamless
from two_nodes import write_files

async def main():
    with tempfile.TemporaryDirectory() as folder:
        configuration, keys = write_files(folder)
        src = await seamless.start(configuration, "src", keys["src"])
        try:
            await asyncio.wait_for(seamless.connect(src, "dst", "echo"), 0.2)
        except asyncio.TimeoutError:
            print("gave up")
        try:
            await seamless.connect(src, "nobody", "echo")
        except seamless.errors.UnreachableError as error:
            print("unreachable")
        try:
            await seamless.start(configuration, "src", folder + "/missing.key")
        except seamless.errors.ConfigurationError:
            print("no key")
        await seamless.stop(src)

asyncio.run(main())
"""


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python; return what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, env=environment)


class ExampleTests(SynchronousTestCase):
    def expect(self, arguments: list[str], output: str) -> None:
        done = run(arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, output, ""))

    def test_asyncio(self) -> None:
        refused = "nobody listens for service 'no such service' on node dst\n"
        self.expect([str(EXAMPLES / "echo_asyncio.py")], "hello from asyncio\n" + refused)

    def test_twisted(self) -> None:
        refused = "nobody listens for service 'no such service' on node dst\n"
        self.expect([str(EXAMPLES / "echo_twisted.py")], "hello from Twisted\n" + refused)

    def test_endpoints(self) -> None:
        self.expect([str(EXAMPLES / "echo_endpoints.py")], "hello from an endpoint\n")

    def test_asyncio_programs_may_give_up(self) -> None:
        self.expect(["-c", CANCEL, str(EXAMPLES)], "gave up\nunreachable\nno key\n")

    def test_importing_a_core_imports_no_framework(self) -> None:
        program = "import seamless, seamless.node, sys; print({'twisted', 'txaio', 'asyncio'} & set(sys.modules))"
        self.expect(["-c", program], "set()\n")


class ConnectionTests(SynchronousTestCase):
    """What a program sees of one connection, on Twisted."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.overlay = MemoryOverlay(self.clock, 0.01)
        self.src, self.dst = MemoryNode(self.overlay, "src"), MemoryNode(self.overlay, "dst")
        self.accepted: list[seamless.Connection] = []

    def run_all(self) -> None:
        while self.overlay.in_flight:
            self.clock.advance(0.01)

    def pair(self) -> tuple[seamless.Connection, seamless.Connection]:
        self.successResultOf(seamless.listen(self.dst, "test", self.accepted.append))
        connecting = seamless.connect(self.src, "dst", "test")
        self.assertIsInstance(connecting, Deferred)
        self.run_all()
        return self.successResultOf(connecting), self.accepted[0]

    def read(self, connection: seamless.Connection) -> bytes:
        reading = connection.read()
        self.run_all()
        data: bytes = self.successResultOf(reading)
        return data

    def test_names_that_do_not_exist(self) -> None:
        self.assertRaises(AttributeError, getattr, seamless, "conect")

    def test_bytes_and_both_ends(self) -> None:
        near, far = self.pair()
        self.assertEqual((near.peer, far.peer), ("dst", "src"))
        near.write(b"question")
        self.assertEqual(self.read(far), b"question")
        near.finish()
        self.assertEqual(self.read(far), b"")
        far.write(b"answer")
        far.finish()
        self.assertEqual((self.read(near), self.read(near), self.read(near)), (b"answer", b"", b""))
        self.assertEqual((self.src.driver.open_streams, self.dst.driver.open_streams), (0, 0))

    def test_what_was_held_is_read_before_the_end(self) -> None:
        near, far = self.pair()
        near.write(b"held")
        near.close()
        self.run_all()
        self.assertEqual((self.read(far), self.read(far)), (b"held", b""))

    def test_reset_is_not_an_end(self) -> None:
        near, far = self.pair()
        near.write(b"not all")
        near.abort()
        self.run_all()
        self.assertEqual(self.read(far), b"not all")
        error = self.failureResultOf(far.read(), ConnectionResetError).value
        self.assertEqual(str(error), "the application aborted the connection")
        self.failureResultOf(far.drain(), ConnectionResetError)

    def test_waiting_reader_and_writer_hear_of_a_reset(self) -> None:
        _, far = self.pair()
        reading = far.read()
        while (draining := far.drain()).called:
            far.write(b"x" * 10_000)
        self.overlay.cut("src", "dst")
        self.failureResultOf(reading, ConnectionResetError)
        self.failureResultOf(draining, ConnectionResetError)

    def test_back_pressure(self) -> None:
        near, far = self.pair()
        written = 0
        draining = near.drain()
        while draining.called:
            near.write(b"x" * 10_000)
            written += 10_000
            self.run_all()
            draining = near.drain()
        self.assertLessEqual(written, 2 * WINDOW_BYTES + 20_000)
        read = b""
        while len(read) < written:
            read += self.read(far)
        self.successResultOf(draining)
        self.assertEqual(len(read), written)

    def test_two_readers_are_a_mistake(self) -> None:
        near, _ = self.pair()
        reading = near.read()
        self.assertRaises(RuntimeError, near.read)
        reading.addErrback(lambda failure: None)

    def test_connected_that_raises_resets(self) -> None:
        async def broken(connection: seamless.Connection) -> None:
            await connection.read()
            raise ZeroDivisionError

        self.successResultOf(seamless.listen(self.dst, "test", broken))
        connecting = seamless.connect(self.src, "dst", "test")
        self.run_all()
        near = self.successResultOf(connecting)
        near.write(b"x")
        self.run_all()
        self.failureResultOf(near.read(), ConnectionResetError)

    def fails(self, future: Any, kind: type[BaseException]) -> str:
        self.run_all()
        return str(self.failureResultOf(future, kind).value)

    def test_connect_that_fails(self) -> None:
        self.successResultOf(seamless.listen(self.dst, "other", self.accepted.append))
        connecting = seamless.connect(self.src, "dst", "test")
        reason = self.fails(connecting, ConnectionRefusedError)
        self.assertEqual(reason, "nobody listens for service 'test' on node dst")
        self.overlay.cut("src", "dst")
        self.fails(seamless.connect(self.src, "dst", "test"), UnreachableError)

    def test_connect_that_is_cancelled(self) -> None:
        connecting = seamless.connect(self.src, "dst", "test")
        connecting.cancel()
        self.fails(connecting, ConnectingCancelledError)
        self.assertEqual([code for code, _ in self.src.driver.resets], [RESET_BY_APPLICATION])

    def test_service_that_is_taken(self) -> None:
        port = self.successResultOf(seamless.listen(self.dst, "test", self.accepted.append))
        self.fails(seamless.listen(self.dst, "test", self.accepted.append), CannotListenError)
        self.successResultOf(port.stopListening())
        self.successResultOf(seamless.listen(self.dst, "test", self.accepted.append))
