"""A peer with good keys that forges whole packets: it sends each that it is told as if it had captured it."""

from __future__ import annotations

from seamless.test.lab.impostor import Impostor, run


class Injector(Impostor):
    """Says ``sent``."""

    def act(self, data: bytes) -> None:
        """Send one packet."""
        self.service.driver.send_packets(self.peer, [data])
        self.sendLine(b"sent")


if __name__ == "__main__":
    run(Injector)
