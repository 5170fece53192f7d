"""One node as a Twisted service: the node, its driver, its interceptors and its rules, started and stopped in order.

`NodeService` is what ``twistd seamless`` runs and what a program embeds. Rules come last, when everything they send
traffic to is there; on the way down they go first.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.logger import Logger

from seamless.config.model import Configuration
from seamless.errors import PrivilegeError, SeamlessError
from seamless.intercept.firewall import FirewallService
from seamless.intercept.node_rules import capture_addresses
from seamless.intercept.packets.crossings import packet_queues
from seamless.intercept.packets.interceptor import PacketInterceptor
from seamless.intercept.payload.egress import PayloadEgress
from seamless.intercept.payload.flow import CaptureTable, ReleaseTable
from seamless.intercept.payload.ingress import PayloadIngress
from seamless.intercept.rule_matches import OWN_MARK
from seamless.linux import control_socket
from seamless.linux.sockopt import set_mark
from seamless.linux.system import raise_descriptor_limit
from seamless.node import Node
from seamless.transport import clock
from seamless.transport.control_service import ControlService
from seamless.transport.driver import Driver
from seamless.transport.ping import PingService
from seamless.transport.report import Intercepting
from seamless.transport.streams import Acceptors

GC_THRESHOLD: Final = 50_000
"""Objects between two looks of the garbage collector: batches make thousands of short-lived tuples, none in a cycle."""


def _may_mark() -> bool:
    """Return whether this process may put the firewall mark on its connections that its own rules let pass."""
    with socket.socket() as probe:
        try:
            set_mark(probe, OWN_MARK)
        except PrivilegeError:
            return False
    return True


class NodeService(MultiService):
    """A running node; embed it in any service collection.

    A program that only wants streams leaves ``config_file`` out: nothing is captured then, and no privilege is needed.
    With it the node's interceptors run too; the file is read again by the privileged part, which trusts no other
    process about the rules. ``failed`` is called when the daemon cannot go on without its rules.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        node_name: str,
        private_key: bytes,
        reactor: Any | None = None,
        *,
        config_file: str | Path | None = None,
        failed: Callable[[SeamlessError], None] | None = None,
        user: int | None = None,
        standing: str | None = None,
    ) -> None:
        """``private_key``: 32 raw bytes, an Ed25519 seed. ``reactor``: the global one when left out.

        ``user`` and ``standing`` as in `FirewallService`.
        """
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.configuration = configuration
        self.node_name = node_name
        self._private_key = private_key
        self._reactor: Any = reactor
        self._driver: Driver | None = None
        self._is_prepared = False
        self._is_left_out = user is not None or standing is not None
        self._captures_here = config_file is not None and bool(capture_addresses(configuration, node_name))
        self._whole_here = config_file is not None and bool(packet_queues(configuration, node_name))
        self._whole: PacketInterceptor | None = None
        self._releases_here = config_file is not None and bool(configuration.nodes[node_name].serves)
        # Children start in this order and stop in the other one: rules are there only while interceptors are.
        self._interceptors = MultiService()
        self._interceptors.setServiceParent(self)
        self._reported: dict[str, Intercepting] = {}
        firewall = None
        if config_file is not None and (self._captures_here or self._whole_here):
            firewall = FirewallService(
                self._reactor,
                config_file,
                node_name,
                failed or self._rules_failed,
                user=user,
                standing=standing,
                packets=self._attach_packets if self._whole_here else None,
            )
            firewall.setServiceParent(self)
        pings = PingService(self._reactor, self)
        pings.setServiceParent(self)
        self._control: ControlService | None = None
        if config_file is not None:
            path = control_socket.path_of(node_name)
            self._control = ControlService(self._reactor, path, self, pings, self._reported, firewall)
            self._control.setServiceParent(self)

    @property
    def driver(self) -> Driver:
        """Return the driver of the running node."""
        if self._driver is None:
            raise RuntimeError("the node service has not been started")
        return self._driver

    def privilegedStartService(self) -> None:
        """Bind the UDP sockets, while the process may give them large buffers, and start the links."""
        if self._is_prepared:
            return
        self._is_prepared = True
        if self._control is not None:
            self._control.open()
            # Only in a daemon, not in a program that embeds a node: every connection takes a descriptor.
            raise_descriptor_limit()
        gc.set_threshold(GC_THRESHOLD)
        # One clock for the node's deadlines and Twisted's timers, before the first of either.
        clock.make_monotonic(self._reactor)
        node = Node(
            self.configuration,
            self.node_name,
            self._private_key,
            random=os.urandom,
            incarnation=time.time_ns(),
            now=clock.now(),
        )
        self._driver = Driver(self._reactor, node)
        self._driver.start()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the interceptors and all other services that use the node."""
        self.privilegedStartService()
        self.acceptors = Acceptors(self.driver)
        self._add_interceptors(self.driver)
        super().startService()
        self._log.info("node {name} is up", name=self.node_name)

    def _add_interceptors(self, driver: Driver) -> None:
        mark = OWN_MARK if _may_mark() else None
        listen = capture_addresses(self.configuration, self.node_name) if self._captures_here else ()
        if self._releases_here:
            release = ReleaseTable(self.configuration, self.node_name, listen)
            egress = PayloadEgress(self._reactor, driver, self.acceptors, release.refusal, mark=mark)
            egress.setServiceParent(self._interceptors)
            self._reported["payload egress"] = egress
        if self._captures_here:
            captures = CaptureTable(self.configuration, self.node_name)
            ingress = PayloadIngress(self._reactor, driver, captures, listen, mark=mark, is_left_out=self._is_left_out)
            ingress.setServiceParent(self._interceptors)
            self._reported["payload ingress"] = ingress

        if self._whole_here:
            self._whole = PacketInterceptor(self._reactor, driver, self.configuration, self.node_name)
            self._whole.setServiceParent(self._interceptors)
            self._reported["whole packets"] = self._whole

    def _attach_packets(self, channel: socket.socket) -> None:
        assert self._whole is not None, "interceptors start before the rules"
        self._whole.attach(channel)

    def _rules_failed(self, error: SeamlessError) -> None:
        self._log.critical("{error}; nothing is captured any more", error=error)

    def stopService(self) -> Any:
        """Stop the services that use the node, wait until peers have their resets, then send CLOSE to neighbors."""
        stopped = maybeDeferred(super().stopService)
        self._is_prepared = False
        if self._driver is None:
            return stopped
        told = self._driver.settle().addCallback(lambda _: self.driver.stop("the daemon is stopping"))
        return gatherResults([stopped, told])
