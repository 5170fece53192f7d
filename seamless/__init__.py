"""seamless: an overlay network that carries unmodified TCP applications.

A program that wants the overlay without sockets calls `start`, `connect`, `listen` and `stop` (`seamless.embedding`);
they are looked up when they are first used, so that importing a pure core imports no Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamless.embedding import Connection, connect, listen, start, stop

__all__ = ["Connection", "connect", "listen", "start", "stop"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("seamless.embedding"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
