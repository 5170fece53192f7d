"""Leaves that share one link between two relays, on virtual time: who gets how much of it, and how late.

::

    x, w, k, m ── r1 ── r2 ── y, z

x sends bulk; w, k and m are what a test makes of them: forty honest small writers, a keystroke, a flood.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from statistics import median

from seamless.config.load import load_text
from seamless.interfaces import DataReceived, Event, StreamKey, StreamOpened, StreamReset, StreamWritable, Transmit
from seamless.lab.daemons import private_key
from seamless.lab.simulated import Simulation
from seamless.link.link import Link
from seamless.node import Node
from seamless.test.lab.test_simulated import settle
from seamless.test.node.network import public_key
from seamless.wire.header import (
    INITIAL_HOP_LIMIT,
    PACKET_ENDS,
    PACKET_HEADER,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS

DELAY = 0.002
"""Seconds, one way, of every wire."""
LEAVES = {"x": "r1", "w": "r1", "k": "r1", "m": "r1", "y": "r2", "z": "r2"}
TICK = 0.001
FLOOD_PACKET_BYTES = 1400
DETOUR_COST = 5000
"""More than the way over r1 and r2 costs, and than any change of it."""
WRITE_BYTES = 40_000


def shared_link(mbit: float, *, detour: str = "", seed: int = 1) -> SharedLink:
    """Return the network above with every link up; all run at ``mbit`` Mb/s.

    ``detour`` names another relay, which has costly links to r1 and y.
    """
    relays = ("r1", "r2", detour) if detour else ("r1", "r2")
    hosts = {name: f"10.0.0.{number}" for number, name in enumerate((*LEAVES, *relays), 1)}
    blocks = ["overlay test { }"]
    for name, host in hosts.items():
        leaf = "leaf; " if name in LEAVES else ""
        blocks.append(f'node {name} {{ address {host}:7400; {leaf}key "{public_key(name)}"; }}')
    for one, other in (*LEAVES.items(), ("r1", "r2")):
        blocks.append(f"link {one} {other} {{ rate {mbit:g} mbit; congestion off; }}")
    for end in ("r1", "y") if detour else ():
        blocks.append(f"link {detour} {end} {{ rate {mbit:g} mbit; congestion off; cost {DETOUR_COST}; }}")
    return SharedLink("\n".join(blocks), seed)


class SharedLink(Simulation):
    """What y and z have received of each stream, and what arrived when of the keystrokes."""

    def __init__(self, text: str, seed: int) -> None:
        self.broken: set[str] = set()
        """The ends of the link whose wire is broken."""
        super().__init__(load_text(text, "test.conf"), private_key, Random(seed))
        settle(self)
        self.received: Counter[bytes] = Counter()
        self.resets: list[StreamReset] = []
        self.latencies: dict[bytes, list[float]] = {}
        self._names: dict[StreamKey, bytes] = {}
        self._sent_at: dict[bytes, list[float]] = {}
        self._writers: dict[StreamKey, str] = {}
        for name in ("y", "z"):
            self.nodes[name].on_event = partial(self._at_server, name)
        for name in ("x", "w", "k", "m"):
            self.nodes[name].on_event = partial(self._at_client, name)

    def _transmit(self, transmit: Transmit) -> None:
        data = b"".join(transmit.buffers)
        self.datagrams += transmit.count
        if {self._nodes_at[transmit.local], self._nodes_at[transmit.remote]} == self.broken:
            return
        self.at(self.now + DELAY, self._arrive, transmit, data)

    # The streams.

    def _at_server(self, name: str, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._names[event.stream] = event.target
            self.at(self.now, self.command, name, lambda node, now: node.accept_stream(event.stream, now))
        elif isinstance(event, DataReceived):
            target = self._names[event.stream]
            nbytes = sum(map(len, event.chunks))
            self.received[target] += nbytes
            for _ in range(nbytes if target in self._sent_at else 0):
                self.latencies[target].append(self.now - self._sent_at[target].pop(0))
            self.at(self.now, self.command, name, lambda node, now: node.consumed(event.stream, nbytes, now))
        elif isinstance(event, StreamReset):
            self.resets.append(event)

    def _at_client(self, name: str, event: Event) -> None:
        if isinstance(event, StreamWritable):
            self.at(self.now, self._pump, name, event.stream)
        elif isinstance(event, StreamReset):
            self.resets.append(event)

    def _open(self, client: str, server: str, target: bytes) -> StreamKey:
        stream: StreamKey = self.command(client, lambda node, now: node.open_stream(server, target, now))
        return stream

    def bulk(self, client: str, server: str, target: bytes) -> None:
        """Send as much as goes, for ever."""
        self._pump(client, self._open(client, server, target))

    def _pump(self, client: str, stream: StreamKey) -> None:
        def write(node: Node, now: float) -> None:
            while node.send(stream, bytes(WRITE_BYTES), now) > 0:
                pass

        self.command(client, write)

    def small_writers(self, client: str, server: str, target: bytes, count: int, nbytes: int, interval: float) -> None:
        """Write ``nbytes`` to each of ``count`` streams every ``interval`` seconds, unless its buffer is full."""
        for number in range(count):
            stream = self._open(client, server, target)
            self.at(self.now + interval * number / count, self._write, client, stream, nbytes, interval, [1])

    def _write(self, client: str, stream: StreamKey, nbytes: int, interval: float, room: list[int]) -> None:
        if room[0] > 0:
            room[0] = self.command(client, lambda node, now: node.send(stream, bytes(nbytes), now))
        else:
            room[0] = self.command(client, lambda node, now: node.send(stream, b"", now))
        self.at(self.now + interval, self._write, client, stream, nbytes, interval, room)

    def keystrokes(self, client: str, server: str, target: bytes, interval: float = 0.1) -> None:
        """Write one byte every ``interval`` seconds, and note when it arrives."""
        self.latencies[target] = []
        self._sent_at[target] = []
        self._type(client, self._open(client, server, target), target, interval)

    def _type(self, client: str, stream: StreamKey, target: bytes, interval: float) -> None:
        self._sent_at[target].append(self.now)
        self.command(client, lambda node, now: node.send(stream, b"k", now))
        self.at(self.now + interval, self._type, client, stream, target, interval)

    # The flood.

    def link(self, name: str) -> Link:
        """Return the link of a leaf."""
        (link,) = self.node(name)._links
        return link

    def forge(self, by: str, over: str, packets: list[bytes]) -> None:
        """Let a node send packets that are none of its own over its link to a neighbor, as they are."""
        (link,) = [link for link in self.node(by)._links if link.settings.neighbor == over]
        self.command(by, lambda node, now: link.enqueue(packets, CLASS_EXPRESS, packets[0][PACKET_ENDS], now))

    def head(self, packet_class: int, source: str, destination: str) -> bytes:
        """Return the header of an overlay packet."""
        ends = self.node(source).identifier, self.node(destination).identifier
        return PACKET_HEADER.pack(packet_class, INITIAL_HOP_LIMIT, *ends)

    def flood(self, name: str, server: str, nbytes: int = FLOOD_PACKET_BYTES) -> None:
        """Let a leaf send express packets in its own name at the rate of its link, whatever it is asked."""
        link = self.link(name)
        link.pause = lambda *arguments: None  # type: ignore[method-assign]
        packet = self.head(CLASS_EXPRESS, name, server) + bytes(nbytes)
        self._flood(name, packet, link)

    def _flood(self, name: str, packet: bytes, link: Link) -> None:
        ends = packet[PACKET_ENDS]
        waiting_bytes = link.status().queued_bytes
        missing = (link.room_bytes(b"", CLASS_BULK) - waiting_bytes) // len(packet)
        if missing > 0:
            self.command(name, lambda node, now: link.enqueue([packet] * missing, CLASS_EXPRESS, ends, now))
        self.at(self.now + TICK, self._flood, name, packet, link)

    # The figures.

    def rates(self, seconds: float, after: float = 0.5) -> dict[bytes, float]:
        """Return the Mb/s of every stream's name over ``seconds``, beginning ``after`` seconds from now."""
        self.run(self.now + after)
        before = self.received.copy()
        self.latencies.update({name: [] for name in self.latencies})
        self.run(self.now + seconds)
        return {name: (self.received[name] - before[name]) * 8e-6 / seconds for name in self.received}

    def lateness(self, target: bytes) -> tuple[float, float]:
        """Return (median, maximum) of the keystrokes' latencies beyond the wires' delay, in seconds."""
        beyond = [latency - 3 * DELAY for latency in self.latencies[target]]
        return median(beyond), max(beyond)
