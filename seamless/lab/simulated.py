"""The lab on virtual time: every node of a configuration in this process, wires by the same model as the emulator's.

A `Simulation` runs a transfer of seconds in milliseconds, the same way every time for the same seed, on one machine
without privilege. What a test learns here about recovery, routing or sessions is learned about the code that runs in
the daemon: these are whole `Node`s, handshakes included; only sockets, interceptors and the clock are missing.

Time begins at 0 and moves from one event to the next (`seamless.lab.agenda`): a piece arriving, a node's deadline, a
call that the test planned. Nothing here reads a clock or draws a number that the seed does not give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs

from seamless.config.model import Configuration, Impairment, WireConfig
from seamless.errors import SeamlessError
from seamless.interfaces import Address, Event, Transmit
from seamless.lab.agenda import Agenda
from seamless.lab.impair import Counters, ImpairedDirection, Randomness, corrupted
from seamless.node import Node
from seamless.node.change import Change
from seamless.wire.header import ip_udp_bytes

SOCKET_BUFFER_BYTES: Final = 8 << 20
"""What waits for a stopped process at most, as in the kernel's buffers of a daemon's sockets; the rest is dropped."""


class Seeded(Randomness, Protocol):
    """What the simulation needs of a seeded ``random.Random``."""

    def randbytes(self, n: int) -> bytes:
        """Return ``n`` random bytes."""
        ...


@attrs.define
class SocketBuffer:
    """Datagrams that the kernel keeps for a stopped process; ``dropped`` counts the batches that had no room."""

    batches: list[tuple[Transmit, bytes, float]] = attrs.Factory(list)
    """What waits, and when it came."""
    size_bytes: int = 0
    dropped: int = 0

    def put(self, transmit: Transmit, data: bytes, now: float) -> None:
        """Keep a batch, if there is room."""
        if self.size_bytes + len(data) > SOCKET_BUFFER_BYTES:
            self.dropped += 1
        else:
            self.size_bytes += len(data)
            self.batches.append((transmit, data, now))


@attrs.define
class SimulatedNode:
    """A node of the simulation, or the place of one that was stopped."""

    name: str
    node: Node | None
    incarnation: int = 0
    events: list[Event] = attrs.Factory(list)
    """What happened, for the test to read; ``on_event`` gets them instead when it is set."""
    on_event: Callable[[Event], None] | None = None
    wake_at: float | None = None
    socket: SocketBuffer | None = None
    """What waits for the process while it is stopped (`Simulation.stop_process`); None while it runs."""


class Simulation(Agenda):
    """All nodes of ``configuration`` on virtual time."""

    def __init__(
        self,
        configuration: Configuration,
        private_keys: Callable[[str], bytes],
        randomness: Seeded,
        *,
        others: Mapping[str, Configuration] | None = None,
    ) -> None:
        """``private_keys(name)``: the raw key of each node. Links between hosts without a wire are perfect.

        ``others``: the configurations of the nodes that have another file than ``configuration``, by name; wires, and
        where nodes are, are what ``configuration`` says.
        """
        super().__init__()
        self.configuration = configuration
        self.configurations = {**dict.fromkeys(configuration.nodes, configuration), **(others or {})}
        """What each node starts with the next time: a test may change it."""
        self.datagrams = 0
        self._private_keys = private_keys
        self._randomness = randomness
        self._directions: dict[tuple[str, str], ImpairedDirection] = {}
        self._wire_of: dict[frozenset[str], WireConfig] = {}
        for wire in configuration.wires:
            self._add_wire(wire)
        self._nodes_at: dict[Address, str] = {
            address: node.name for node in configuration.nodes.values() for address in node.addresses
        }
        self.nodes = {name: SimulatedNode(name, None) for name in configuration.nodes}
        for name in configuration.nodes:
            self.start(name)

    def _add_wire(self, wire: WireConfig) -> None:
        one, other = (str(interface.ip) for interface in wire.addresses)
        self._wire_of[frozenset(wire.ends)] = wire
        for ends, impairment in (((one, other), wire.forward), ((other, one), wire.backward)):
            if impairment.black_hole_bytes is None:
                impairment = attrs.evolve(impairment, black_hole_bytes=wire.mtu_bytes)
            self._directions[ends] = ImpairedDirection(impairment, self._randomness)

    # Nodes.

    def start(self, name: str) -> Node:
        """Start a node, or start it again as after a crash: with nothing but its key."""
        place = self.nodes[name]
        place.incarnation += 1
        place.wake_at = None
        place.socket = None
        place.node = Node(
            self.configurations[name],
            name,
            self._private_keys(name),
            random=self._randomness.randbytes,
            # Like the wall clock: greater with every start.
            incarnation=1_700_000_000_000_000_000 + place.incarnation * 1_000_000_000_000,
            now=self.now,
        )
        self._after(place)
        return place.node

    def apply(self, name: str, configuration: Configuration) -> Change:
        """Have a running node go on with another configuration, with which it also starts the next time.

        Addresses of nodes that are new are added to those where datagrams arrive; wires stay as they are.
        """
        change: Change = self.command(name, lambda node, now: node.apply(configuration, now))
        self.configurations[name] = configuration
        self.add(configuration)
        return change

    def add(self, configuration: Configuration) -> None:
        """Make room for the nodes of ``configuration`` that are new; start them when they shall run."""
        for node in configuration.nodes.values():
            if node.name not in self.nodes:
                self.nodes[node.name] = SimulatedNode(node.name, None)
                self.configurations[node.name] = configuration
                self._nodes_at.update(dict.fromkeys(node.addresses, node.name))

    def crash(self, name: str) -> None:
        """Stop a node without a word, as ``kill -9`` does."""
        self.nodes[name].node = None
        self.nodes[name].socket = None

    def stop_process(self, name: str) -> None:
        """Stop a node's process as SIGSTOP does: no timer fires, and datagrams wait in its sockets' buffers."""
        self.node(name)
        self.nodes[name].socket = self.nodes[name].socket or SocketBuffer()

    def continue_process(self, name: str, *, timers_first: bool = False) -> SocketBuffer:
        """Continue a stopped process as SIGCONT does; return what had waited in its sockets' buffers.

        It reads its sockets before its timers fire, as a process does that was stopped while it waited for its sockets;
        or ``timers_first``, as one that was stopped elsewhere.
        """
        place = self.nodes[name]
        socket, place.socket = place.socket, None
        if socket is None or place.node is None:
            raise SeamlessError(f"node {name} of the simulation is not stopped; stop it first")
        if timers_first:
            place.node.handle_timeout(self.now)
        for transmit, data, received_at in socket.batches:
            self._arrive(transmit, data, received_at)
        self._after(place)
        return socket

    def node(self, name: str) -> Node:
        """Return a node that was started."""
        node = self.nodes[name].node
        if node is None:
            raise SeamlessError(f"node {name} of the simulation is not running; start it first")
        return node

    def command(self, name: str, command: Callable[[Node, float], Any]) -> Any:
        """Run ``command(node, now)`` in a running process, and let the node send what follows from it."""
        if self.nodes[name].socket is not None:
            raise SeamlessError(f"node {name} of the simulation is stopped; continue it first")
        result = command(self.node(name), self.now)
        self._after(self.nodes[name])
        return result

    # Wires.

    def _ends(self, one: str, other: str) -> tuple[str, str]:
        wire = self._wire_of[frozenset((one, other))]
        first, second = (str(interface.ip) for interface in wire.addresses)
        return (first, second) if wire.ends[0] == one else (second, first)

    def impair(self, one: str, other: str, **changes: Any) -> None:
        """Change what host ``one`` sends to ``other``; ``changes`` are fields of `Impairment`."""
        direction = self._directions[self._ends(one, other)]
        direction.change(attrs.evolve(direction.impairment, **changes), self.now)

    def counters(self, one: str, other: str) -> Counters:
        """Return what befell the packets from host ``one`` to ``other``."""
        return self._directions[self._ends(one, other)].counters

    # Time.

    def _wake(self, place: SimulatedNode, at: float, node: Node) -> None:
        if place.wake_at == at and place.node is node and place.socket is None:
            place.wake_at = None
            node.handle_timeout(self.now)
            self._after(place)

    def _after(self, place: SimulatedNode) -> None:
        """Hand out the node's events, put what it sends on the wires, and note when it wants to be woken."""
        node = place.node
        if node is None:
            return
        self._take_events(place, node)
        for transmit in node.datagrams_to_send(self.now):
            self._transmit(transmit)
        self._take_events(place, node)
        if place.node is not node:
            return
        at = node.next_timeout()
        if place.wake_at is None or at < place.wake_at or place.wake_at <= self.now:
            place.wake_at = max(at, self.now)
            self.at(place.wake_at, self._wake, place, place.wake_at, node)

    def _take_events(self, place: SimulatedNode, node: Node) -> None:
        event = node.next_event()
        while event is not None:
            if place.on_event is None:
                place.events.append(event)
            else:
                place.on_event(event)
            event = node.next_event()

    def _transmit(self, transmit: Transmit) -> None:
        self.datagrams += transmit.count
        data = b"".join(transmit.buffers)
        direction = self._directions.get((transmit.local[0], transmit.remote[0]))
        if direction is None:
            self._arrive(transmit, data)
            return
        header_bytes = ip_udp_bytes(transmit.local[0])
        size = transmit.segment_size
        for piece in direction.offer(self.now, header_bytes, len(data), size):
            part = data[piece.first * size : (piece.first + piece.packets) * size]
            if piece.corrupt:
                part = corrupted(part, self._randomness.random())
            self.at(piece.at, self._arrive, transmit, part)

    def _arrive(self, transmit: Transmit, data: bytes, received_at: float | None = None) -> None:
        name = self._nodes_at.get(transmit.remote)
        place = self.nodes.get(name) if name is not None else None
        if place is None or place.node is None or not data:
            return
        if place.socket is not None:
            place.socket.put(transmit, data, self.now)
        else:
            place.node.receive_datagrams(
                data, transmit.segment_size, transmit.remote, transmit.local, self.now, received_at
            )
            self._after(place)

    def set_wire(self, one: str, other: str, impairment: Impairment) -> None:
        """Make the wire between two hosts another one, in both directions."""
        for first, second in (self._ends(one, other), self._ends(other, one)):
            self._directions[first, second].change(impairment, self.now)
