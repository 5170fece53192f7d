"""All interceptors of one node: what its configuration asks for, and what another configuration changes while they run.

Another configuration is taken in three steps, so that it can be refused while nothing has changed: `prepare` opens
listening sockets and raises what is wrong; `configure` replaces the tables that decide, and resets what they forbid;
`finish` closes the listening sockets to which no rule leads any more. `withdraw` undoes the first step.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from seamless.config.model import Configuration
from seamless.errors import ConfigurationError, PrivilegeError
from seamless.intercept.firewall import Channels
from seamless.intercept.node_rules import capture_addresses
from seamless.intercept.packets.crossings import packet_queues
from seamless.intercept.packets.interceptor import PacketInterceptor
from seamless.intercept.payload.egress import PayloadEgress
from seamless.intercept.payload.flow import ENDED_KEPT, CaptureTable, Carried, Ended, ReleaseTable
from seamless.intercept.payload.hold_rules import holds
from seamless.intercept.payload.ingress import PayloadIngress
from seamless.intercept.payload.source_rules import ClientAddresses, uses_clients
from seamless.intercept.rule_matches import OWN_MARK
from seamless.interfaces import Address
from seamless.linux.privileged_channel import CAPTURE, DIAL, HOLD
from seamless.linux.sockopt import set_mark
from seamless.linux.transparent import lossy_settings
from seamless.transport.driver import Driver
from seamless.transport.report import Intercepting
from seamless.transport.splice import Splice
from seamless.transport.streams import Acceptors
from seamless.transport.transparent_dials import TransparentDials


def _own_mark() -> int | None:
    """Return the firewall mark that the rules let pass, None if this process may not put it on its connections."""
    with socket.socket() as probe:
        try:
            set_mark(probe, OWN_MARK)
        except PrivilegeError:
            return None
    return OWN_MARK


class Interceptors(MultiService):
    """The interceptors of the node ``name``; ``reported`` has those that run, for the node's report.

    ``is_left_out``: the rules leave out the user that this process runs as.
    """

    _log = Logger()

    def __init__(self, reactor: Any, configuration: Configuration, name: str, *, is_left_out: bool) -> None:
        super().__init__()
        self.reported: dict[str, Intercepting] = {}
        self._reactor = reactor
        self._configuration = configuration
        self._node = name
        self._is_left_out = is_left_out
        self._driver: Driver | None = None
        self._ingress: PayloadIngress | None = None
        self._egress: PayloadEgress | None = None
        self._whole: PacketInterceptor | None = None
        self._transparent = TransparentDials(reactor)

    def stopService(self) -> Any:
        """Stop all, and connect with no client's address any more."""
        stopped = super().stopService()
        self._transparent.close()
        return stopped

    def use(self, driver: Driver, acceptors: Acceptors) -> None:
        """Make the interceptors that the configuration asks for; they start with this service."""
        self._driver = driver
        self._acceptors = acceptors
        self._mark = _own_mark()
        self._add_missing(self._configuration)

    def channels(self) -> Channels:
        """Return what needs a socket to the privileged part, by the word with which it is handed over."""
        channels: dict[str, Callable[[socket.socket], None]] = {}
        if self._whole is not None and packet_queues(self._configuration, self._node):
            channels[CAPTURE] = self._whole.attach
        if self._ingress is not None and holds(self._configuration, self._node):
            channels[HOLD] = self._ingress.confirmer.attach
        if uses_clients(self._configuration, self._node):
            channels[DIAL] = self._transparent.attach
        return channels

    def _listens_at(self, configuration: Configuration) -> tuple[Address, ...]:
        return capture_addresses(configuration, self._node)

    def _add_missing(self, configuration: Configuration) -> None:
        assert self._driver is not None
        self._add_ingress(configuration)
        reactor, driver, name = self._reactor, self._driver, self._node
        if configuration.nodes[name].serves and self._egress is None:
            release = ReleaseTable(configuration, name, self._listens_at(configuration))
            self._egress = PayloadEgress(
                reactor,
                driver,
                self._acceptors,
                release.refusal,
                mark=self._mark,
                clients=ClientAddresses(configuration, name),
                dials=self._transparent,
            )
            self._add("payload egress", self._egress)
            self._warn_of_settings(configuration)
        if packet_queues(configuration, name) and self._whole is None:
            self._whole = PacketInterceptor(reactor, driver, configuration, name)
            self._add("whole packets", self._whole)

    def _warn_of_settings(self, configuration: Configuration) -> None:
        for setting in lossy_settings() if uses_clients(configuration, self._node) else ():
            self._log.warn(
                "source client: with {setting}=1 this kernel drops what servers behind this host answer: "
                "sysctl -w {setting}=0, or say source egress",
                setting=setting,
            )

    def _add_ingress(self, configuration: Configuration) -> None:
        listen = self._listens_at(configuration)
        if not listen or self._ingress is not None:
            return
        assert self._driver is not None
        captures = CaptureTable(configuration, self._node)
        ingress = PayloadIngress(
            self._reactor, self._driver, captures, listen, mark=self._mark, is_left_out=self._is_left_out
        )
        try:
            self._add("payload ingress", ingress)
        except ConfigurationError:  # this service runs, and the port is taken
            ingress.disownServiceParent()
            raise
        self._ingress = ingress
        self.reported["payload connect"] = ingress.confirmer

    def _add(self, name: str, interceptor: Any) -> None:
        interceptor.setServiceParent(self)
        self.reported[name] = interceptor

    def carried(self) -> Iterator[tuple[bool, Carried, Splice]]:
        """Yield all connections that are spliced on this node, each with whether it is captured here."""
        if self._ingress is not None:
            yield from ((True, *each) for each in self._ingress.carried())
        if self._egress is not None:
            yield from ((False, *each) for each in self._egress.carried())

    def ended(self) -> list[tuple[bool, Ended]]:
        """Return the last connections that were refused or have ended, the latest first, and where they were."""
        found = [(True, each) for each in (self._ingress.ended if self._ingress is not None else ())]
        found += [(False, each) for each in (self._egress.ended if self._egress is not None else ())]
        return sorted(found, key=lambda each: each[1].at, reverse=True)[:ENDED_KEPT]

    # Another configuration.

    def prepare(self, new: Configuration) -> None:
        """Listen where ``new`` wants connections diverted to; raise `ConfigurationError` if that cannot be."""
        if self._ingress is None:
            self._add_ingress(new)
        else:
            self._ingress.listen(self._listens_at(new))

    def withdraw(self) -> None:
        """Listen only where the present configuration says."""
        if self._ingress is not None:
            self._ingress.listen_only(self._listens_at(self._configuration))

    def configure(self, new: Configuration) -> int:
        """Decide by ``new`` from now on; return how many connections were reset because it does not let them pass."""
        self._add_missing(new)
        self._configuration = new
        reset = 0
        if self._ingress is not None:
            reset += self._ingress.configure(CaptureTable(new, self._node))
        if self._egress is not None:
            refusal = ReleaseTable(new, self._node, self._listens_at(new)).refusal
            reset += self._egress.configure(refusal, ClientAddresses(new, self._node))
        return reset

    def finish(self) -> None:
        """Stop listening where nothing is diverted to any more."""
        self.withdraw()
