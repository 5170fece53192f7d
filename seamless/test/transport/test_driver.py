"""Two drivers with whole nodes in virtual time: flushes, the timer, events, and how a node stops."""

from __future__ import annotations

from functools import partial
from typing import cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import SeamlessError, UnreachableError
from seamless.interfaces import RESET_BY_APPLICATION, RESET_REFUSED, StreamKey
from seamless.link.status import LinkStatus
from seamless.test.node.network import node, overlay
from seamless.test.transport.memory_ports import LATENCY, DriverNetwork, Owner
from seamless.transport.driver import SETTLE_TIMEOUT, TIMER_SLACK

A, A2, B = ("10.0.0.1", 7400), ("10.0.0.3", 7400), ("10.0.0.2", 7400)
NODES = (node("a", "10.0.0.1:7400"), node("b", "10.0.0.2:7400"))
CONFIGURATION = overlay(*NODES, "link a b { rate 100 mbit; congestion off; }")
HELLO_INTERVAL, DEAD_INTERVAL = 0.1, 0.3


class Teller(Owner):
    """An owner that answers all it reads with the same bytes, and FIN with FIN."""

    def stream_data(self, chunks: list[bytes]) -> None:
        super().stream_data(chunks)
        self.driver.send(self.stream, b"".join(chunks))

    def stream_finished(self) -> None:
        super().stream_finished()
        self.driver.finish(self.stream)


class Failing(Owner):
    """An owner with a mistake in it."""

    def stream_data(self, chunks: list[bytes]) -> None:
        super().stream_data(chunks)
        raise ZeroDivisionError("a mistake of this owner")


class DriverTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.net = DriverNetwork(CONFIGURATION)
        self.a, self.b = self.net.drivers["a"], self.net.drivers["b"]
        self.accepted: list[Owner] = []
        self.make_owner: type[Owner] = Owner
        self.b.listen(self.opened)

    def opened(self, stream: StreamKey, peer: str, target: bytes) -> None:
        self.accepted.append(self.make_owner(self.b))
        self.accepted[-1].stream = stream
        self.b.accept_stream(stream, self.accepted[-1])

    def start(self) -> None:
        """Start both; return when each reaches the other and nothing is under way."""
        self.a.start()
        self.b.start()
        self.net.run(5.0, lambda: self.a.reachable("b") and self.b.reachable("a"))
        self.net.run(1.0)

    def open(self, owner: Owner | None = None) -> Owner:
        """Open a stream from a to b."""
        owner = owner or Owner(self.a)
        owner.stream = self.a.open_stream("b", b"target", owner)
        return owner

    def link_states(self) -> list[str]:
        now = self.net.clock.seconds()
        return [driver.node.status(now).links[0].state for driver in (self.a, self.b)]


class FlushTests(DriverTestCase):
    def test_bytes_there_and_back(self) -> None:
        self.start()
        self.make_owner = Teller
        owner = self.open()
        self.net.run(1.0)
        began_at = self.net.clock.seconds()
        self.a.send(owner.stream, b"hello")
        self.net.run(1.0, lambda: bool(owner.received))
        self.assertEqual(owner.received, b"hello")
        self.assertApproximates(self.net.clock.seconds() - began_at, 2 * LATENCY, 0.001)

    def test_commands_of_one_turn_are_sent_by_one_flush(self) -> None:
        self.start()
        owner = self.open()
        self.net.run(1.0)
        port = self.net.ports[A]
        port.sent_at.clear()
        before = port.counters.datagrams_out
        for _ in range(20):
            self.a.send(owner.stream, b"x" * 10)
        self.assertEqual(port.sent_at, [], "a command does not flush: the turn may bring more")
        self.net.run(LATENCY / 2)
        self.assertEqual(port.counters.datagrams_out - before, 1)
        self.net.run(LATENCY)
        self.assertEqual(self.accepted[0].received, b"x" * 200)

    def test_commands_of_owners_go_out_with_the_flush_that_called_them(self) -> None:
        """An echo leaves at the instant at which its bytes came, without another turn of the reactor."""
        self.start()
        self.make_owner = Teller
        owner = self.open()
        self.net.run(1.0)
        self.a.send(owner.stream, b"hello")
        self.net.run(1.0, lambda: bool(self.accepted[0].received))
        self.assertEqual(self.net.ports[B].sent_at[-1], self.net.clock.seconds())

    def test_a_keystroke_does_not_wait_for_a_timer(self) -> None:
        """Bytes that are written just before the node's timer fires leave at once, and not with it."""
        self.start()
        owner = self.open()
        self.net.run(1.0)
        (next_at,) = self.net.timers_of(self.a)
        self.net.run(next_at - self.net.clock.seconds() - TIMER_SLACK / 2)
        written_at = self.net.clock.seconds()
        self.a.send(owner.stream, b"x")
        self.net.run(LATENCY / 2)
        self.assertIn(written_at, self.net.ports[A].sent_at)

    def test_flush_called_by_an_owner_does_not_nest(self) -> None:
        self.start()
        depths: list[int] = []
        depth = 0

        class Flushing(Owner):
            def stream_data(self, chunks: list[bytes]) -> None:
                nonlocal depth
                depth += 1
                depths.append(depth)
                super().stream_data(chunks)
                self.driver.flush()
                depth -= 1

        self.make_owner = Flushing
        owner = self.open()
        for _ in range(50):
            self.a.send(owner.stream, bytes(10_000))
        self.net.run(1.0)
        self.assertEqual(len(self.accepted[0].received), 500_000)
        self.assertEqual(set(depths), {1})

    def test_back_pressure(self) -> None:
        """An owner that heeds ``send`` writes all, with a pause for want of room."""
        self.start()

        class Writing(Owner):
            left = 400

            def stream_writable(self) -> None:
                super().stream_writable()
                while self.left:
                    self.left -= 1
                    if self.driver.send(self.stream, bytes(16_000)) <= 0:
                        return
                self.driver.finish(self.stream)

        owner = Writing(self.a)
        self.open(owner)
        owner.stream_writable()
        self.assertGreater(owner.left, 0, "there is room for all at once")
        self.net.run(5.0)
        self.assertEqual(len(self.accepted[0].received), 400 * 16_000)
        self.assertIn("finished", self.accepted[0].happened)

    def test_whole_packets(self) -> None:
        self.start()
        received: list[tuple[str, bytes]] = []
        self.b.listen_packets(lambda peer, packet: received.append((peer, packet)))
        self.a.send_packets("b", [b"one", b"two"])
        self.a.send_packets("b", [b"three"], is_recovered=False)
        self.net.run(0.1)
        self.assertEqual(sorted(received), [("a", b"one"), ("a", b"three"), ("a", b"two")])

    def test_packets_without_a_listener_are_dropped(self) -> None:
        self.start()
        self.a.send_packets("b", [b"one"])
        self.net.run(0.1)
        self.assertEqual(self.link_states(), ["UP", "UP"])


class TimerTests(DriverTestCase):
    def test_one_timer_not_later_than_the_next_deadline(self) -> None:
        """It may fire too early, never too late; at each instant there is one, and at most one flush besides."""
        self.start()
        owner = self.open()
        for _ in range(200):
            self.a.send(owner.stream, bytes(5_000))
            self.net.run(0.01)
            now = self.net.clock.seconds()
            timers = self.net.timers_of(self.a)
            self.assertEqual(len(timers), 1)
            self.assertLessEqual(timers[0], max(now, self.a.node.next_timeout()) + 1e-9)

    def test_quiet_link_costs_its_hellos(self) -> None:
        """For a minute without traffic: UP, and per second the hellos, their ACKs and little else."""
        self.start()
        sent = len(self.net.ports[A].sent_at)
        self.net.run(60.0)
        self.assertEqual(self.link_states(), ["UP", "UP"])
        per_second = (len(self.net.ports[A].sent_at) - sent) / 60
        self.assertGreater(per_second, 0.9 / HELLO_INTERVAL)
        self.assertLess(per_second, 2.5 / HELLO_INTERVAL)

    def test_dead_neighbor_is_noticed_in_time(self) -> None:
        self.start()
        changes: list[tuple[str, bool]] = []
        changed_at: list[float] = []

        def changed(peer: str, is_reachable: bool) -> None:
            changes.append((peer, is_reachable))
            changed_at.append(self.net.clock.seconds())

        self.a.watch_reachable(changed)
        self.net.is_cut = True
        cut_at = self.net.clock.seconds()
        self.net.run(1.0)
        self.assertEqual(changes, [("b", False)])
        self.assertLess(changed_at[0] - cut_at, DEAD_INTERVAL + LATENCY + 0.001)
        self.net.is_cut = False
        self.net.run(10.0)
        self.assertEqual(changes, [("b", False), ("b", True)])

    def test_lost_bytes_are_sent_again_by_the_timer(self) -> None:
        self.start()
        owner = self.open()
        self.net.run(1.0)
        self.net.is_cut = True
        self.a.send(owner.stream, b"lost at first")
        self.net.run(LATENCY)
        self.net.is_cut = False
        self.net.run(0.2)
        self.assertEqual(self.accepted[0].received, b"lost at first")


class EventTests(DriverTestCase):
    def test_life_of_a_stream(self) -> None:
        self.start()
        self.make_owner = Teller
        owner = self.open()
        self.a.send(owner.stream, b"hello")
        self.a.finish(owner.stream)
        self.net.run(1.0)
        self.assertEqual(owner.happened, ["accepted", "data", "finished", "closed"])
        self.assertEqual(self.accepted[0].happened, ["data", "finished", "closed"])
        self.assertEqual(self.a.node.streams_kept, 0)

    def test_what_comes_before_the_answer_waits_for_the_owner(self) -> None:
        self.start()
        asked: list[tuple[StreamKey, str, bytes]] = []
        self.b.listen(lambda *question: asked.append(question))
        owner = self.open()
        self.a.send(owner.stream, b"early")
        self.a.finish(owner.stream)
        self.net.run(1.0)
        [(stream, peer, target)] = asked
        self.assertEqual((peer, target, owner.happened), ("a", b"target", []))
        self.opened(*asked[0])
        self.net.run(0.001)
        self.assertEqual(self.accepted[0].received, b"early")
        self.assertEqual(self.accepted[0].happened, ["data", "finished"])
        self.b.finish(stream)
        self.net.run(1.0)
        self.assertEqual(owner.happened, ["accepted", "finished", "closed"])

    def test_refused_where_nothing_listens(self) -> None:
        self.start()
        self.b._on_open = None
        owner = self.open()
        self.net.run(1.0)
        self.assertEqual(owner.happened, [f"reset {RESET_REFUSED}"])

    def test_reset_from_within_an_owner(self) -> None:
        """It comes after the bytes before it, and is the last that the other end hears."""
        self.start()

        class Leaving(Owner):
            def stream_data(self, chunks: list[bytes]) -> None:
                super().stream_data(chunks)
                self.driver.send(self.stream, b"no more")
                self.driver.reset(self.stream, RESET_BY_APPLICATION, "enough")

        self.make_owner = Leaving
        owner = self.open()
        self.a.send(owner.stream, b"hello")
        self.net.run(1.0)
        self.assertEqual(owner.received, b"no more")
        self.assertEqual(owner.happened, ["accepted", "data", f"reset {RESET_BY_APPLICATION}"])
        self.assertEqual(self.accepted[0].happened, ["data"])

    def test_streams_opened_from_within_an_owner(self) -> None:
        self.start()
        inner = Owner(self.a)
        test = self

        class Opening(Owner):
            def stream_accepted(self) -> None:
                super().stream_accepted()
                test.open(inner)

        self.open(Opening(self.a))
        self.net.run(1.0)
        self.assertEqual(inner.happened, ["accepted"])
        self.assertEqual(len(self.accepted), 2)

    def test_exception_of_an_owner_harms_no_other(self) -> None:
        self.start()
        self.make_owner = Failing
        failing = self.open()
        self.net.run(1.0)
        self.make_owner = Owner
        other = self.open()
        self.a.send(failing.stream, b"x")
        self.a.send(other.stream, b"y")
        self.net.run(1.0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([owner.received for owner in self.accepted], [b"x", b"y"])
        self.assertEqual(self.link_states(), ["UP", "UP"])

    def test_exception_while_asked_for_a_stream(self) -> None:
        self.start()

        def mistaken(stream: StreamKey, peer: str, target: bytes) -> None:
            raise ZeroDivisionError("a mistake of whoever listens")

        self.b.listen(mistaken)
        self.open()
        self.net.run(1.0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.b.listen(self.opened)
        owner = self.open()
        self.net.run(1.0)
        self.assertEqual(owner.happened, ["accepted"])

    def test_no_such_peer(self) -> None:
        self.start()
        self.assertRaises(UnreachableError, self.a.open_stream, "c", b"target", Owner(self.a))


class StuckPortTests(SynchronousTestCase):
    """Node a has a port for its link with b and one for its link with c; the first takes nothing for a while."""

    def setUp(self) -> None:
        blocks = (node("a", "10.0.0.1:7400, 10.0.0.3:7400"), NODES[1], node("c", "10.0.0.4:7400"))
        links = (
            "link a b { between 10.0.0.1:7400 10.0.0.2:7400; rate 100 mbit; congestion off; }",
            "link a c { between 10.0.0.3:7400 10.0.0.4:7400; rate 100 mbit; congestion off; }",
        )
        self.net = DriverNetwork(overlay(*blocks, *links))
        self.a = self.net.drivers["a"]
        self.owners: dict[str, Owner] = {}
        self.readers: dict[str, Owner] = {}
        for driver in self.net.drivers.values():
            driver.start()
        self.net.run(2.0)
        for name in ("b", "c"):
            self.net.drivers[name].listen(partial(self.opened, name))
            self.owners[name] = Owner(self.a)
            self.owners[name].stream = self.a.open_stream(name, b"target", self.owners[name])
        self.net.run(1.0)
        self.stuck, self.live = self.net.ports[A], self.net.ports[A2]

    def opened(self, name: str, stream: StreamKey, peer: str, target: bytes) -> None:
        driver = self.net.drivers[name]
        self.readers[name] = Owner(driver)
        self.readers[name].stream = stream
        driver.accept_stream(stream, self.readers[name])

    def link(self, name: str, neighbor: str) -> LinkStatus:
        links = self.net.drivers[name].node.status(self.net.clock.seconds()).links
        return next(link for link in links if link.neighbor == neighbor)

    def send(self, nbytes: int) -> None:
        for name in ("b", "c"):
            self.a.send(self.owners[name].stream, bytes(nbytes))

    def test_live_port_goes_on_beside_a_stuck_one(self) -> None:
        self.stuck.fill()
        self.send(200_000)
        self.net.run(3.0)
        self.assertEqual(len(self.readers["c"].received), 200_000)
        self.assertEqual(self.link("c", "a").state, "UP")
        self.assertGreater(len(self.live.sent_at), 3.0 / HELLO_INTERVAL)
        self.assertTrue(self.stuck.held, "the port was never full")
        self.assertEqual(self.link("b", "a").state, "DOWN", "b heard something of a stuck port")
        self.assertEqual(len(self.readers["b"].received), 0)

    def test_nothing_is_sealed_for_a_stuck_port(self) -> None:
        """What the port holds is of the one flush in which it was found full."""
        self.stuck.fill()
        self.send(200_000)
        self.net.run(0.05)
        self.assertEqual(len(set(self.stuck.sent_at[-len(self.stuck.held) :])), 1)
        before, held = self.link("a", "b"), len(self.stuck.held)
        self.net.run(1.0)
        after = self.link("a", "b")
        self.assertEqual(len(self.stuck.held), held)
        self.assertEqual(after.data_sent + after.control_sent, before.data_sent + before.control_sent)

    def test_all_arrives_when_the_port_takes_batches_again(self) -> None:
        self.stuck.fill()
        self.send(200_000)
        self.net.run(0.2)
        self.stuck.drain()
        began_at = self.net.clock.seconds()
        self.net.run(1.0, lambda: len(self.readers["b"].received) == 200_000)
        self.assertLess(self.net.clock.seconds() - began_at, 0.1)
        self.assertEqual(self.link("b", "a").state, "UP")
        self.net.run(1.0)
        link = self.link("a", "b")
        self.assertEqual(link.lost, link.spurious, "something was lost and not only late")

    def test_link_that_was_down_meanwhile_comes_back(self) -> None:
        self.stuck.fill()
        self.net.run(5.0)
        self.assertEqual(self.link("a", "b").state, "INIT")
        self.stuck.drain()
        self.send(200_000)
        self.net.run(2.0)
        self.assertEqual([len(self.readers[name].received) for name in ("b", "c")], [200_000, 200_000])

    def test_stuck_port_does_not_wake_the_node_all_the_time(self) -> None:
        """Deadlines of a link that cannot send pass, and are looked at every now and then."""
        self.stuck.fill()
        self.send(200_000)
        self.net.run(1.0)
        before = self.net.turns
        self.net.run(1.0)
        self.assertLess(self.net.turns - before, 200)


class StopTests(DriverTestCase):
    def test_start_that_fails_leaves_no_port_open(self) -> None:
        net = DriverNetwork(overlay(node("a", "10.0.0.1:7400, 10.0.0.3:7400"), NODES[1], "link a b { cost 1; }"))
        net.taken.add(A2)
        error = self.assertRaises(SeamlessError, net.drivers["a"].start)
        self.assertIn("another program has it", str(error))
        self.assertFalse(net.ports[A].is_open)
        self.assertEqual(net.drivers["a"].ports, [])
        self.assertEqual(net.clock.getDelayedCalls(), [])

    def test_stop_tells_the_neighbors_and_leaves_nothing(self) -> None:
        self.start()
        self.a.stop("the daemon is stopping")
        self.net.run(2 * LATENCY)
        [link] = self.b.node.status(self.net.clock.seconds()).links
        self.assertEqual(link.state, "DOWN")
        self.assertIn("the daemon is stopping", link.reason)
        self.assertFalse(self.net.ports[A].is_open)
        self.b.stop("so is this one")
        self.net.run(2 * LATENCY)
        self.assertEqual(self.net.clock.getDelayedCalls(), [])

    def test_commands_after_stop_send_nothing(self) -> None:
        self.start()
        owner = self.open()
        self.net.run(1.0)
        self.a.stop("the daemon is stopping")
        sent = len(self.net.ports[A].sent_at)
        self.a.send(owner.stream, b"too late")
        self.a.flush()
        self.net.run(1.0)
        self.assertEqual(len(self.net.ports[A].sent_at), sent)

    def settle(self, timeout: float = SETTLE_TIMEOUT) -> tuple[Deferred[None], list[float]]:
        settled_at: list[float] = []
        settled = self.a.settle(timeout).addCallback(lambda _: settled_at.append(self.net.clock.seconds()))
        return settled, settled_at

    def test_settle_without_streams_is_at_once(self) -> None:
        self.start()
        self.assertEqual(self.settle()[1], [self.net.clock.seconds()])

    def test_settle_waits_until_the_peer_knows(self) -> None:
        self.start()
        owner = self.open()
        self.net.run(1.0)
        self.a.reset(owner.stream, RESET_BY_APPLICATION, "the daemon is stopping")
        began_at = self.net.clock.seconds()
        _, settled_at = self.settle()
        self.assertEqual(settled_at, [])
        self.net.run(2.0)
        self.assertEqual(self.accepted[0].happened, [f"reset {RESET_BY_APPLICATION}"])
        self.assertLess(settled_at[0] - began_at, 0.1)

    def test_settle_does_not_wait_for_a_dead_peer(self) -> None:
        self.start()
        self.open()
        self.net.run(1.0)
        self.net.is_cut = True
        began_at = self.net.clock.seconds()
        _, settled_at = self.settle(0.5)
        self.net.run(2.0)
        self.assertApproximates(settled_at[0] - began_at, 0.5, 0.02)


class SilentNeighborTests(DriverTestCase):
    """A neighbor that never runs, and one that runs no more."""

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def note(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("seamless.transport.driver"):
            self.lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    def reason(self) -> str:
        return self.a.node.status(self.net.clock.seconds()).links[0].reason

    def test_a_link_that_never_came_up_is_one_line(self) -> None:
        self.a.start()
        self.net.run(10 * DEAD_INTERVAL - 0.2)
        self.assertEqual((self.lines, self.reason()), ([], "it was not heard yet"))
        self.net.run(60.0)
        self.assertEqual(self.reason(), "nothing has ever come from it")
        (line,) = self.lines
        self.assertIn("warn: link to b has not come up: nothing came from 10.0.0.2 port 7400 to 10.0.0.1", line)
        self.b.start()
        self.net.run(10.0, lambda: self.a.reachable("b"))
        self.assertEqual(self.reason(), "we hear each other")

    def test_a_reason_does_not_outlive_what_it_says(self) -> None:
        self.start()
        self.b.stop("the daemon is stopping")
        self.net.run(1.0)
        self.assertIn("b says: the daemon is stopping", self.reason())
        self.net.run(60.0)
        self.assertEqual(self.reason(), "nothing has come from it since")
        self.assertEqual([line for line in self.lines if "has not come up" in line], [])
