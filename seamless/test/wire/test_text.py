"""What peers say, as a log shows it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.wire.text import MAX_REASON_BYTES, printable


class PrintableTests(SynchronousTestCase):
    def test_sentences_stay(self) -> None:
        self.assertEqual(
            printable("no route to 10.1.9.2: Straße gesperrt".encode()), "no route to 10.1.9.2: Straße gesperrt"
        )

    def test_nothing_that_a_terminal_obeys(self) -> None:
        self.assertEqual(printable(b"a\x1b[2Jb\nc\r\x00"), r"a\x1b[2Jb\nc\r\x00")
        self.assertEqual(printable("up\u202edown\u2028".encode()), r"up\u202edown\u2028")

    @given(st.binary(max_size=2 * MAX_REASON_BYTES))
    def test_any_bytes(self, data: bytes) -> None:
        text = printable(data)
        self.assertTrue(text.isprintable())
        self.assertLessEqual(len(text), MAX_REASON_BYTES)
