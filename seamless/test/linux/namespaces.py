"""Network namespaces of our own for tests of sockets and firewall rules: nothing outside them is touched."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x4000_0000
_numbers = count()

SKIP_WITHOUT_ROOT = None if os.geteuid() == 0 else "making network namespaces and firewall rules takes root"


class Namespace:
    """A network namespace with its loopback interface up."""

    def __init__(self) -> None:
        self.name = f"smlx{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a program inside; return what it printed."""
        full = ["ip", "netns", "exec", self.name, *argv]
        return subprocess.run(full, check=True, input=stdin, capture_output=True, text=True).stdout

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make sockets, and start programs, inside: a socket stays in the namespace in which it was made."""
        with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{self.name}") as inside:
            _set_namespace(inside.fileno())
            try:
                yield
            finally:
                _set_namespace(outside.fileno())

    def join(self, other: Namespace, own: str, others: str, mtu: int = 1500) -> None:
        """Lay a veth pair to ``other`` with these addresses (with prefix lengths), both interfaces named ``veth0``."""
        self.run("ip", "link", "add", "veth0", "mtu", str(mtu), "type", "veth", "peer", "name", "veth0",
                 "mtu", str(mtu), "netns", other.name)  # fmt: skip
        for namespace, address in ((self, own), (other, others)):
            nodad = ["nodad"] if ":" in address else []
            namespace.run("ip", "address", "add", address, "dev", "veth0", *nodad)
            namespace.run("ip", "link", "set", "veth0", "up")

    def remove(self) -> None:
        """Remove the namespace, and with it its interfaces and rules."""
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


class NamespaceTestCase(SynchronousTestCase):
    """A namespace that the test is in."""

    skip = SKIP_WITHOUT_ROOT

    def setUp(self) -> None:
        self.namespace = Namespace()
        self.addCleanup(self.namespace.remove)
        inside = self.namespace.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")
