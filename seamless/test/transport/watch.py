"""A reactor for tests whose readers are asked by hand, and whose time passes by hand."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock


class Watch(Clock):
    """A reactor that only remembers whom it watches."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
