"""Every core has the verbs of `seamless.interfaces.Core`, with the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.association import Association, AssociationEvent
from seamless.interfaces import Core, DatagramCore, Event
from seamless.link.events import LinkEvent
from seamless.link.link import Link
from seamless.node import Node
from seamless.routing.routes import RoutesChanged
from seamless.routing.routing import Routing
from seamless.session.events import SessionEvent
from seamless.session.session import Session

if TYPE_CHECKING:

    def conform(node: Node, link: Link, session: Session, routing: Routing, association: Association) -> None:
        """mypy checks these."""
        _node: DatagramCore[Event] = node
        _link: DatagramCore[LinkEvent] = link
        _session: Core[SessionEvent] = session
        _routing: Core[RoutesChanged] = routing
        _association: Core[AssociationEvent] = association


def arguments(method: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a call must give, in order; a core may take more, of its own owner."""
    return [name for name, each in signature(method).parameters.items() if each.default is Parameter.empty]


class CoreTests(SynchronousTestCase):
    def same(self, verbs: list[str], protocol: type, *cores: type) -> None:
        for core in cores:
            for verb in verbs:
                expected = arguments(getattr(protocol, verb))
                self.assertEqual(arguments(getattr(core, verb)), expected, f"{core.__name__}.{verb}")

    def test_time_and_events(self) -> None:
        verbs = ["next_timeout", "handle_timeout", "next_event"]
        self.same(verbs, Core, Node, Link, Session, Routing, Association)

    def test_datagrams(self) -> None:
        self.same(["receive_datagrams", "datagrams_to_send"], DatagramCore, Node, Link)
