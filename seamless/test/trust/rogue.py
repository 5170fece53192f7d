"""A peer with good keys and bad intentions: it asks for each target that it is told."""

from __future__ import annotations

from collections.abc import Callable

from seamless.test.lab.impostor import Impostor, run


class Asking:
    """The owner of one stream."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def stream_accepted(self) -> None:
        self._say("accepted")

    def stream_reset(self, code: int, reason: str) -> None:
        self._say(f"{code} {reason}")

    def stream_data(self, chunks: list[bytes]) -> None:
        """Nothing of it matters."""

    stream_writable = stream_finished = stream_closed = lambda self: None


class Asker(Impostor):
    """Says ``accepted``, or the code and reason of the reset."""

    def act(self, data: bytes) -> None:
        """Ask for one target."""
        self.service.driver.open_stream(self.peer, data, Asking(lambda answer: self.sendLine(answer.encode())))


if __name__ == "__main__":
    run(Asker)
