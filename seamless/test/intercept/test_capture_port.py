"""The capture port in the kernel: what the rules redirect comes in, and nothing else does."""

from __future__ import annotations

import socket

from seamless.config.load import load_text
from seamless.intercept.node_rules import capture_addresses, rulesets
from seamless.linux import iptables
from seamless.linux.sockopt import original_destination
from seamless.test.intercept.test_node_rules import NODES
from seamless.test.linux.namespaces import Namespace, NamespaceTestCase

# SYNs are not held: nobody here would decide about them.
TEXT = NODES + "intercept payload { tcp port 22; connect early; }"


class CapturePortTests(NamespaceTestCase):
    """Node src at 10.1.1.1, with a host behind it at 10.1.1.9; everything goes out by their wire."""

    text = TEXT
    port = 7401

    def setUp(self) -> None:
        super().setUp()
        self.behind = Namespace()
        self.addCleanup(self.behind.remove)
        self.namespace.join(self.behind, "10.1.1.1/24", "10.1.1.9/24")
        self.namespace.run("ip", "route", "add", "default", "via", "10.1.1.9")
        self.behind.run("ip", "route", "add", "default", "via", "10.1.1.1")
        configuration = load_text(self.text, "test.conf")
        self.listeners = []
        for address in capture_addresses(configuration, "src"):
            if ":" not in address[0]:
                listener = socket.create_server(address)
                listener.settimeout(0.5)
                self.addCleanup(listener.close)
                self.listeners.append(listener)
        iptables.apply(rulesets(configuration, "src"))

    def connect(self, address: tuple[str, int]) -> None:
        self.addCleanup(socket.create_connection(address, timeout=5).close)

    def captured(self) -> tuple[str, int]:
        """Return where the one connection that waits was to go."""
        for listener in self.listeners:
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                continue
            self.addCleanup(accepted.close)
            return original_destination(accepted)
        self.fail("nothing was captured")

    def test_redirected_connections_come_in(self) -> None:
        self.connect(("10.1.9.2", 22))
        self.assertEqual(self.captured(), ("10.1.9.2", 22))
        with self.behind.entered():
            self.connect(("10.1.9.2", 22))
        self.assertEqual(self.captured(), ("10.1.9.2", 22))

    def test_straight_connections_are_refused_by_the_kernel(self) -> None:
        for address in ("127.0.0.1", "10.1.1.1"):
            self.assertRaises(ConnectionRefusedError, self.connect, (address, self.port))
        with self.behind.entered():
            self.assertRaises(ConnectionRefusedError, self.connect, ("10.1.1.1", self.port))
        for listener in self.listeners:
            self.assertRaises(TimeoutError, listener.accept)

    def test_the_same_port_of_another_host_is_not_ours(self) -> None:
        with self.behind.entered():
            server = socket.create_server(("10.1.1.9", self.port))
        self.addCleanup(server.close)
        self.connect(("10.1.1.9", self.port))


class ConfiguredPortTests(CapturePortTests):
    """The same with the loopback address, the interface's, and another port."""

    text = TEXT.replace("serves 10.1.9.1", "capture at 127.0.0.1, 10.1.1.1 port 9401; serves 10.1.9.1")
    port = 9401
