"""Plays the applications of a schedule on a simulation, and tells the oracle all that they see.

An application lives with its node: it is stopped with it, and dies with it, and after a crash another one serves new
streams, with other bytes. What it does, it does in steps of its own, never from within a node's call.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from seamless.interfaces import (
    RESET_BY_APPLICATION,
    DataReceived,
    Event,
    PacketReceived,
    StreamAccepted,
    StreamClosed,
    StreamFinished,
    StreamKey,
    StreamOpened,
    StreamReset,
    StreamWritable,
)
from seamless.lab.schedules.conditions import Conditions
from seamless.lab.schedules.oracle import End, PacketRules, Violation
from seamless.lab.schedules.plan import ACCEPT, Conversation, Packets, Schedule, Script
from seamless.lab.simulated import Simulation
from seamless.node import Node

WRITE_BYTES: Final = 16 << 10
"""What an application writes at once."""


class Applications:
    """All applications of a schedule, at all nodes."""

    def __init__(self, schedule: Schedule, net: Simulation, conditions: Conditions) -> None:
        self.net = net
        self.conditions = conditions
        self.ends: list[End] = []
        """Every end of every stream that there ever was."""
        self.packets = PacketRules()
        self.delivered: dict[tuple[str, str], int] = {}
        """Bytes that were read, by (node of the writer, node of the reader)."""
        self.crashes: dict[str, list[float]] = {}
        self._seed = schedule.seed
        self._give_up = net.configuration.overlay.give_up
        self._ends: dict[tuple[str, StreamKey], End] = {}
        self._clients: dict[bytes, End] = {}
        self._played: dict[End, _Play] = {}
        self._postponed: dict[str, list[Callable[[], None]]] = {name: [] for name in schedule.nodes}
        self._conversations = {each.target: each for each in schedule.conversations}
        for name in schedule.nodes:
            self._listen(name)
        for conversation in schedule.conversations:
            net.at(conversation.at, self.do, conversation.client, self._open, conversation)
        for train in schedule.packets:
            for index in range(train.count):
                net.at(train.at + index * train.interval, self.do, train.source, self._send_packet, train, index)

    def _listen(self, name: str) -> None:
        self.net.nodes[name].on_event = lambda event: self._hear(name, event)

    def add(self, conversation: Conversation, train: Packets) -> None:
        """Begin a conversation now, and send a packet at its time, that the schedule does not hold."""
        self._conversations[conversation.target] = conversation
        self.net.at(self.net.now, self.do, conversation.client, self._open, conversation)
        self.net.at(train.at, self.do, train.source, self._send_packet, train, 0)

    # Life and death.

    def do(self, name: str, step: Callable[..., None], *arguments: Any) -> None:
        """Let an application do something: now, when its process goes on, or never when its node is dead."""
        place = self.net.nodes[name]
        if place.socket is not None:
            self._postponed[name].append(lambda: self.do(name, step, *arguments))
        elif place.node is not None:
            step(*arguments)

    def go_on(self, name: str) -> None:
        """Do all that was to be done while a process was stopped."""
        postponed, self._postponed[name] = self._postponed[name], []
        for step in postponed:
            step()

    def die(self, name: str) -> None:
        """Crash all applications of a node."""
        self.crashes.setdefault(name, []).append(self.net.now)
        self._postponed[name].clear()
        for key in [key for key in self._ends if key[0] == name]:
            end = self._ends.pop(key)
            if not end.over:
                end.over = "dead"

    # What applications do.

    def _open(self, conversation: Conversation) -> None:
        name = conversation.client
        end = self._end(conversation, name, conversation.up)
        self._clients[conversation.target] = end
        end.key = self.net.command(
            name, lambda node, now: node.open_stream(conversation.server, conversation.target, now)
        )
        self._ends[name, end.key] = end
        self._begin(end)

    def _end(self, conversation: Conversation, name: str, script: Script) -> End:
        life = self.net.nodes[name].incarnation
        content = Random(f"{self._seed} {conversation.number} {name} {life}").randbytes(script.size)
        end = End(conversation, name, life, script, content, self.net.now)
        self.ends.append(end)
        return end

    def _begin(self, end: End) -> None:
        """Let an application begin to write, at either end."""
        play = self._played[end] = _Play(self, end)
        play.next_write()
        if end.script.abort_after is not None:
            self.net.at(self.net.now + end.script.abort_after, self.do, end.node, play.reset, RESET_BY_APPLICATION)

    def _send_packet(self, train: Packets, index: int) -> None:
        head = train.number.to_bytes(4, "big") + index.to_bytes(4, "big")
        packet = (head * (-(-train.size_bytes // len(head))))[: train.size_bytes]
        self.packets.note_sent(train.source, train.destination, packet)
        self.net.command(
            train.source,
            lambda node, now: node.send_packet(train.destination, packet, now, is_recovered=train.is_recovered),
        )

    # What applications see.

    def _hear(self, name: str, event: Event) -> None:
        if isinstance(event, PacketReceived):
            source = self.net.node(name).peer_name(event.peer)
            self.packets.check_received(source, name, bytes(event.packet))
        elif isinstance(event, StreamOpened):
            self._opened(name, event)
        elif isinstance(
            event, (StreamAccepted, DataReceived, StreamFinished, StreamWritable, StreamReset, StreamClosed)
        ):
            end = self._ends.get((name, event.stream))
            if end is None:
                raise Violation("order", f"{name}: {type(event).__name__} of an unknown stream {event.stream}")
            self._stream_event(end, event)

    def _opened(self, name: str, event: StreamOpened) -> None:
        conversation = self._conversations.get(bytes(event.target))
        client = self._clients.get(bytes(event.target))
        if conversation is None or client is None or conversation.server != name:
            raise Violation("order", f"{name}: a stream was opened to {event.target!r}, which was not asked for")
        before = client.far
        if before is not None and (before.life == self.net.nodes[name].incarnation or client.accepted):
            raise Violation("once", f"{client} was opened at {name} again")
        if before is not None and (client.received or client.eof):
            raise Violation("once", f"{client} had an answer, and was opened at {name} again")
        end = self._end(conversation, name, conversation.down)
        end.key, end.far, client.far = event.stream, client, end
        self._ends[name, end.key] = end
        self.net.at(self.net.now + conversation.answer_delay, self.do, name, self._answer, end)

    def _answer(self, end: End) -> None:
        """Accept or refuse, unless the stream is gone by now."""
        if end.over:
            return
        if end.conversation.answer != ACCEPT:
            self._played[end] = _Play(self, end)
            self._played[end].reset(end.conversation.answer)
            return
        end.accepted = True
        self.net.command(end.node, lambda node, now: node.accept_stream(end.key, now))
        self._begin(end)

    def _stream_event(self, end: End, event: Event) -> None:
        if isinstance(event, DataReceived):
            before = end.received
            end.check_data(event.chunks)
            assert end.far is not None
            way = (end.far.node, end.node)
            self.delivered[way] = self.delivered.get(way, 0) + end.received - before
            self._read_later(end, before)
        elif isinstance(event, StreamAccepted):
            end.check_alive("StreamAccepted")
            if end.accepted or end.far is None or not end.far.accepted:
                raise Violation("order", f"{end}: accepted, though the peer did not accept it")
            end.accepted = True
        elif isinstance(event, StreamFinished):
            end.check_eof()
        elif isinstance(event, StreamWritable):
            end.check_alive("StreamWritable")
            self.net.at(self.net.now, self.do, end.node, self._played[end].write)
        elif isinstance(event, StreamReset):
            self._check_reset(end, event)
        elif isinstance(event, StreamClosed):
            end.check_closed()

    def _check_reset(self, end: End, event: StreamReset) -> None:
        conversation = end.conversation
        client = self._clients[conversation.target]
        far_node = conversation.server if end.is_client else conversation.client
        pair = frozenset((end.node, far_node))
        end.check_reset(
            event.code,
            event.reason,
            gap=self.conditions.longest_gap(pair, client.opened_at, self.net.now),
            give_up=self._give_up,
            far_restarted=any(at >= client.opened_at for at in self.crashes.get(far_node, ())),
        )

    def _read_later(self, end: End, before: int) -> None:
        """Give back what came, when the script says that it is read."""
        script = end.script
        nbytes = end.received - before
        at = self.net.now + script.read_delay
        if script.stop_at is not None and end.received > script.stop_at:
            if before <= script.stop_at:
                end.reads_at = self.net.now + script.stop_seconds
            at = max(at, end.reads_at)
        self.net.at(at, self.do, end.node, self._consume, end, nbytes)

    def _consume(self, end: End, nbytes: int) -> None:
        end.unread -= nbytes
        if not end.over:
            self.net.command(end.node, lambda node, now: node.consumed(end.key, nbytes, now))


class _Play:
    """Plays the script of one end."""

    def __init__(self, applications: Applications, end: End) -> None:
        self._applications = applications
        self._net = applications.net
        self._end = end
        self._step = 0
        self._left = 0

    def _later(self, pause: float, step: Callable[..., None]) -> None:
        self._net.at(self._net.now + pause, self._applications.do, self._end.node, step)

    def next_write(self) -> None:
        """Begin with the next write, or with the ending."""
        writes = self._end.script.writes
        if self._step < len(writes):
            pause, self._left = writes[self._step]
            self._step += 1
            self._later(pause, self.write)
        else:
            self._later(self._end.script.ending_pause, self._finish)

    def write(self) -> None:
        """Write while there is room."""
        end = self._end
        if end.over or end.finished or not self._left:
            return
        self._net.command(end.node, self._write)
        if not self._left:
            self.next_write()

    def _write(self, node: Node, now: float) -> None:
        end = self._end
        room = 1
        while self._left and room > 0:
            piece = end.content[end.written : end.written + min(WRITE_BYTES, self._left)]
            self._left -= len(piece)
            end.written += len(piece)
            room = node.send(end.key, piece, now)

    def _finish(self) -> None:
        end = self._end
        if end.over:
            return
        if end.script.resets_at_end:
            self.reset(RESET_BY_APPLICATION)
            return
        end.finished = True
        self._net.command(end.node, lambda node, now: node.finish(end.key, now))

    def reset(self, code: int) -> None:
        """Reset the stream, unless it is over."""
        end = self._end
        if end.over:
            return
        end.reset_code = code
        end.over = "own reset"
        self._net.command(end.node, lambda node, now: node.reset(end.key, code, "the schedule says so", now))
