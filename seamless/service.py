"""One node as a Twisted service: the node, its driver, its interceptors and its rules, started and stopped in order.

`NodeService` is what ``twistd seamless`` runs and what a program embeds. Rules come last, when everything they send
traffic to is there; on the way down they go first.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.logger import Logger

from seamless.config.model import Configuration
from seamless.errors import SeamlessError
from seamless.intercept.connections import Connections
from seamless.intercept.explain import destination_of, explain
from seamless.intercept.firewall import FirewallService
from seamless.intercept.interceptors import Interceptors
from seamless.intercept.reload import Reloader
from seamless.intercept.rule_changes import has_rules
from seamless.linux import control_socket
from seamless.linux.system import raise_descriptor_limit
from seamless.node import Node
from seamless.transport import clock
from seamless.transport.control_service import ControlService, Question
from seamless.transport.driver import Driver
from seamless.transport.overview import Overview
from seamless.transport.ping import PingService
from seamless.transport.remote_status import StatusService
from seamless.transport.streams import Acceptors

GC_THRESHOLD: Final = 50_000
"""Objects between two looks of the garbage collector: batches make thousands of short-lived tuples, none in a cycle."""


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
        self._first_configuration = configuration
        self.node_name = node_name
        self._private_key = private_key
        self._reactor: Any = reactor
        self._driver: Driver | None = None
        self._is_prepared = False
        # Children start in this order and stop in the other one: rules are there only while interceptors are.
        self._interceptors: Interceptors | None = None
        self._control: ControlService | None = None
        self._reloader: Reloader | None = None
        pings = PingService(self._reactor, self)
        if config_file is not None:
            is_left_out = user is not None or standing is not None
            interceptors = Interceptors(self._reactor, configuration, node_name, is_left_out=is_left_out)
            interceptors.setServiceParent(self)
            firewall = FirewallService(
                self._reactor,
                config_file,
                node_name,
                failed or self._rules_failed,
                user=user,
                standing=standing,
                channels=interceptors.channels,
                is_needed=has_rules(configuration, node_name),
            )
            firewall.setServiceParent(self)
            self._has_rules_installed = lambda: firewall.counters.installed > 0
            self._interceptors = interceptors
            self._reloader = Reloader(self._reactor, Path(config_file), lambda: self.driver, interceptors, firewall)
            path = control_socket.path_of(node_name)
            self._control = ControlService(
                self._reactor,
                path,
                self,
                pings,
                interceptors.reported,
                firewall,
                {
                    "reload": lambda _: self.reload(),
                    "connections": self._ask_connections,
                    "explain": self._explain,
                    "status of": lambda question: self._overview.of(question.get("node")),
                    "status of all": lambda _: self._overview.all(),
                    "trace": lambda question: self._overview.trace(question.get("node")),
                },
            )
            reporter = self._control.reporter
            status = StatusService(self._reactor, self, lambda: self._overview.report(), self._may_ask)
            status.setServiceParent(self)
            self._overview = Overview(self, reporter, status)
            self._connections = Connections(self._reactor, self, interceptors, self._control.reporter.path)
        pings.setServiceParent(self)
        if self._control is not None:
            self._control.setServiceParent(self)

    @property
    def configuration(self) -> Configuration:
        """Return the configuration that the node has now, or starts with."""
        return self._first_configuration if self._driver is None else self._driver.node.configuration

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
        if self._interceptors is not None:
            self._interceptors.use(self.driver, self.acceptors)
        super().startService()
        self._log.info("node {name} is up", name=self.node_name)

    def reload(self) -> Deferred[tuple[str, ...]]:
        """Read the configuration file again and apply the difference; see `Reloader.reload`."""
        if self._reloader is None or not self.running:
            return fail(SeamlessError("this node has no configuration file to read again, or is stopping"))
        return self._reloader.reload()

    def reload_upon_signal(self) -> None:
        """Reload for nobody who waits for the answer: the log has it."""
        self.reload().addErrback(lambda failure: failure.trap(SeamlessError) and None)

    def _ask_connections(self, question: Question) -> Deferred[dict[str, Any]]:
        return self._connections.ask(question)

    def _explain(self, question: Question) -> dict[str, Any]:
        assert self._control is not None, "this answers at its socket"
        destination = destination_of(question.get("to"))
        configuration = self.driver.node.configuration
        explained = explain(configuration, self.node_name, destination, self._control.reporter.path)
        return {**attrs.asdict(explained), "rules_installed": self._has_rules_installed()}

    def _may_ask(self, peer: str) -> bool:
        operators = self.driver.node.configuration.overlay.operators
        return operators is None or peer in operators

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
