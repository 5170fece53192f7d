"""The control socket without a daemon: where it is, whose it is, and what the asking side says when it gets nowhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import PrivilegeError, SeamlessError, UnreachableError, UsageError
from seamless.linux import control_socket


class SocketDirectory(SynchronousTestCase):
    """A directory with a short name, since that of a socket may have 107 bytes."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="seamless-control-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.patch(os, "environ", {**os.environ, control_socket.DIRECTORY_VARIABLE: str(self.directory)})

    def listen(self, node: str) -> socket.socket:
        """Return a socket that listens as the daemon of ``node`` would."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(control_socket.path_of(node)))
        listening.listen()
        return listening

    def answer(self, node: str, line: bytes) -> list[bytes]:
        """Answer one question to ``node`` in a thread; the list will have the question."""
        listening = self.listen(node)
        questions: list[bytes] = []

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                questions.append(client.recv(control_socket.MAX_REQUEST_BYTES))
                client.sendall(line)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        return questions


class PlaceTests(SocketDirectory):
    def environment(self, **variables: str) -> None:
        self.patch(os, "environ", variables)

    def test_the_variable_wins(self) -> None:
        self.assertEqual(control_socket.path_of("src"), self.directory / "src.sock")

    def test_root(self) -> None:
        self.environment(XDG_RUNTIME_DIR="/run/user/0")
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(control_socket.path_of("src"), Path("/run/seamless/src.sock"))

    def test_another_user(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        self.environment(XDG_RUNTIME_DIR="/somewhere")
        self.assertEqual(control_socket.path_of("src"), Path("/somewhere/seamless/src.sock"))
        self.environment()
        self.assertEqual(control_socket.path_of("src"), Path("/run/user/1000/seamless/src.sock"))


class DaemonTests(SocketDirectory):
    def test_a_directory_is_made(self) -> None:
        path = self.directory / "one" / "two" / "src.sock"
        control_socket.refuse_second(path)
        control_socket.make_room(path)
        self.assertTrue(path.parent.is_dir())

    def test_what_a_dead_daemon_left_is_removed(self) -> None:
        self.listen("src").close()
        path = control_socket.path_of("src")
        self.assertTrue(path.is_socket())
        control_socket.refuse_second(path)
        control_socket.make_room(path)
        self.assertFalse(path.exists())

    def test_a_living_daemon_is_not_replaced(self) -> None:
        self.listen("src")
        path = control_socket.path_of("src")
        with self.assertRaises(SeamlessError) as caught:
            control_socket.refuse_second(path)
        sentence = str(caught.exception)
        self.assertIn(f"node src runs on this host already (process {os.getpid()}, {path})", sentence)
        self.assertTrue(path.is_socket())

    def test_a_daemon_that_has_no_time_lives_too(self) -> None:
        listening = self.listen("src")
        listening.listen(0)
        path = control_socket.path_of("src")
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            self.assertRaises(SeamlessError, control_socket.refuse_second, path)

    def test_a_file_that_is_no_socket_stays(self) -> None:
        path = control_socket.path_of("src")
        path.write_text("important")
        control_socket.refuse_second(path)
        self.assertRaises(FileExistsError, control_socket.make_room, path)
        self.assertEqual(path.read_text(), "important")


class FindTests(SocketDirectory):
    def test_a_path_is_taken_as_it_is(self) -> None:
        self.assertEqual(control_socket.find("src", "/elsewhere"), Path("/elsewhere"))

    def test_the_only_one(self) -> None:
        self.listen("r1")
        self.listen("dead").close()
        self.assertEqual(control_socket.find(None, None), control_socket.path_of("r1"))

    def test_the_namesake_of_the_host(self) -> None:
        self.listen("r1"), self.listen("r2")
        self.patch(socket, "gethostname", lambda: "r2.example.org")
        self.assertEqual(control_socket.find(None, None), control_socket.path_of("r2"))

    def test_several(self) -> None:
        self.listen("r1"), self.listen("r2")
        self.patch(socket, "gethostname", lambda: "host")
        with self.assertRaisesRegex(UsageError, r"--node which one is meant \(r1, r2\)"):
            control_socket.find(None, None)

    def test_none(self) -> None:
        self.listen("dead").close()
        with self.assertRaisesRegex(UnreachableError, "no node runs on this host .* twistd seamless"):
            control_socket.find(None, None)


class AskTests(SocketDirectory):
    def ask(self, node: str = "src", **question: object) -> Any:
        return control_socket.ask(control_socket.path_of(node), question)

    def test_question_and_answer(self) -> None:
        questions = self.answer("src", b'{"answer": [1, 2]}\n')
        self.assertEqual(self.ask(ask="status"), [1, 2])
        self.assertEqual([json.loads(question) for question in questions], [{"ask": "status"}])

    def test_errors_keep_their_kind(self) -> None:
        for number, kind in ((1, SeamlessError), (2, UsageError), (4, PrivilegeError), (5, UnreachableError)):
            self.answer(f"n{number}", json.dumps({"error": "too bad", "exit_code": number}).encode())
            with self.assertRaises(kind) as caught:
                self.ask(f"n{number}")
            self.assertEqual((type(caught.exception), str(caught.exception)), (kind, "too bad"))

    def test_no_daemon(self) -> None:
        with self.assertRaisesRegex(UnreachableError, "no daemon answers at .*nobody.sock: start the node"):
            self.ask("nobody")
        self.listen("dead").close()
        with self.assertRaisesRegex(UnreachableError, "no daemon answers at .*dead.sock: start the node"):
            self.ask("dead")

    def test_a_daemon_that_hangs_up(self) -> None:
        self.answer("src", b"")
        with self.assertRaisesRegex(UnreachableError, "hung up: it is stopping"):
            self.ask()

    def test_a_daemon_that_is_stopped(self) -> None:
        self.listen("src")
        with self.assertRaisesRegex(UnreachableError, "has not answered for 0.05 s: it is stopped or overloaded"):
            control_socket.ask(control_socket.path_of("src"), {"ask": "status"}, timeout=0.05)

    def test_not_permitted(self) -> None:
        def connect(self: socket.socket, address: object) -> None:
            raise PermissionError(13, "Permission denied")

        # Root is permitted everything, so the kernel cannot show this one.
        self.patch(socket, "socket", type("Refused", (socket.socket,), {"connect": connect}))
        with self.assertRaisesRegex(PrivilegeError, "not permitted to ask .*: run this as its user"):
            self.ask()

    def test_a_path_that_is_too_long(self) -> None:
        with self.assertRaisesRegex(UnreachableError, "cannot ask the daemon at .*: AF_UNIX path too long"):
            self.ask("n" * 200)
