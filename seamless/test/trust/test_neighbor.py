"""A neighbor with good keys and bad intentions: r1 of the simulated bed is taken over, and others notice nothing.

Meanwhile r2 and dst move bytes; after whatever r1 does they must all arrive, in bounded memory.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.initiation import InitiationReader
from seamless.crypto.messages import build_initiation, mac1_key
from seamless.interfaces import LinkDown, LinkUp
from seamless.link.misbehavior import BLOCKED_SECONDS, VIOLATIONS_MAX
from seamless.routing.exchange import VERIFY_MIN_BURST, VERIFY_PER_SECOND
from seamless.routing.flooding import MIN_ARRIVAL_INTERVAL
from seamless.routing.lsa import Lsa, LsaLink, Refusal, encode_lsa
from seamless.session.limits import Limits
from seamless.session.record import INCOMPLETE_AGE_MAX
from seamless.test.trust.tapped import Applications, Datagram, tapped_bed
from seamless.wire.ack import encode_ack
from seamless.wire.header import (
    CONTROL,
    DATA,
    PACKET_HEADER,
    RECORD,
    word,
)
from seamless.wire.link_frames import INIT, UP, Close, Hello, LsaFrame, Pause, Ping, encode_ack_frame
from seamless.wire.ranges import RangeSet
from seamless.wire.traffic_class import CLASS_BULK, CLASS_EXPRESS, CLASS_HANDSHAKE
from seamless.wire.varint import MAX_VARINT

BYTES = 2_000_000
LATER_INCARNATION = 1_700_009_000_000
"""Milliseconds of a clock that is ahead of the simulation's."""
TURN = 0.001
"""Seconds between two acts of the villain."""


def ack_of(*ranges: tuple[int, int]) -> bytes:
    """Return an ACK frame."""
    numbers = RangeSet()
    for first, last in ranges:
        numbers.add(first, last)
    return encode_ack_frame(0.0, encode_ack(numbers, 0))


def hello(state: int = UP) -> bytes:
    """Return a HELLO frame of a neighbor that is in this state."""
    return Hello(state, 100, 300, 0).encode()


class Villain:
    """Who has r1's keys, after r1 is gone; it has relayed a session of src and dst, under ``session_key``."""

    def __init__(self) -> None:
        self.bed = bed = tapped_bed()
        node = bed.node("r1")
        self.identifier = {name: bed.node(name).identifier for name in bed.nodes}
        self.sign = node._identity.sign
        bed.command("src", lambda node, now: node.send_packet("dst", b"hello", now))
        bed.run(bed.now + 0.5)
        session_key = bed.node("src")._sessions.reach(self.identifier["dst"], bed.now).association.send_key
        assert session_key is not None
        self.session_key = session_key
        (link,) = [link for link in node._links if link.settings.neighbor == "r2"]
        key = link._association.send_key
        assert key is not None
        self.key = key
        self.number = link._recovery.next_number
        self.addresses = link.remote, link.local
        bed.crash("r1")
        bed.is_recording = False
        self.changes = bed.watch()
        # Well-behaved in this one thing: it says hello as often as it should.
        for turn in range(100):
            bed.at(bed.now + turn * 0.1, self.say, hello())

    def seal(self, kind: int, content: bytes) -> None:
        """Send r2 a datagram under r1's key."""
        r2, own = self.addresses
        self.bed.inject(Datagram(self.bed.now, own, r2, self.key.seal(kind, self.number, content)))
        self.number += 1

    def say(self, *frames: bytes) -> None:
        """Send frames of a link."""
        self.seal(CONTROL, b"".join(frames))

    def packet(self, destination: str, payload: bytes, *, source: str = "r1", kind: int = CLASS_BULK, hops: int = 32
               ) -> None:  # fmt: skip
        """Send an overlay packet."""
        header = PACKET_HEADER.pack(kind, hops, self.identifier[source], self.identifier[destination])
        self.seal(DATA, header + payload)

    def lsa(self, origin: str, sequence: int, *neighbors: str) -> bytes:
        """Return an LSA frame under r1's keys."""
        links = tuple(LsaLink(number, 10, 1400) for number in sorted(self.identifier[name] for name in neighbors))
        return LsaFrame(encode_lsa(Lsa(self.identifier[origin], sequence, False, links), self.sign)).encode()


class NeighborTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.villain = Villain()
        self.bed = self.villain.bed

    def misbehave(self, act: Callable[[int], None], turns: int = 1000, memory_max: int = 8 << 20) -> None:
        """Do ``act`` again and again while r2 and dst move bytes; others are not touched, memory is bounded."""
        bed = self.bed
        applications = Applications(self, bed, "r2", "dst")
        self.villain.changes = bed.watch()
        for turn in range(turns):
            bed.at(bed.now + turn * TURN, act, turn)
        until = bed.now + turns * TURN + 0.01
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        applications.open(b"x", bytes(BYTES), b"")
        bed.run(bed.now + 5, lambda: applications.done() and bed.now > until)
        grown = tracemalloc.get_traced_memory()[0] - before - BYTES
        tracemalloc.stop()
        applications.check()
        self.assertLess(grown, memory_max)
        self.assertEqual(bed.link("r2", "dst").state, "UP")
        self.assertEqual(bed.link("dst", "r2").malformed, 0)
        downs = [change for change in self.villain.changes if isinstance(change, LinkDown) and change.neighbor != "r1"]
        self.assertEqual(downs, [])

    def ups_and_downs(self) -> int:
        """Return how many lines of log r2 wrote about its link."""
        return len([change for change in self.villain.changes if isinstance(change, (LinkUp, LinkDown))])

    def assertShutOut(self, reason: str) -> None:
        """It is, with a reason; and comes back when the time is over and it behaves."""
        link = self.bed.link("r2", "r1")
        self.assertIn(reason, link.reason)
        self.assertIn("blocked", link.reason)
        self.assertEqual(link.state, "DOWN")
        self.assertLessEqual(link.malformed, VIOLATIONS_MAX + 4)
        self.bed.run(self.bed.now + BLOCKED_SECONDS + 1)
        self.villain.say(hello())
        self.bed.run(self.bed.now + 0.01)
        self.assertEqual(self.bed.link("r2", "r1").state, "UP")

    # The link.

    def test_acknowledgements_of_what_was_never_sent(self) -> None:
        self.misbehave(lambda turn: self.villain.say(ack_of((0, 1 << 30))))
        self.assertShutOut("never sent")

    def test_acknowledgements_by_the_hundred(self) -> None:
        self.misbehave(lambda turn: self.villain.say(*[ack_of((0, 0), (2, 2))] * 100))
        self.assertShutOut("two ACKs in one datagram")

    def test_acknowledgements_of_every_second_number(self) -> None:
        """Correct in form: r2 sends again what it takes for lost, and no more than that."""
        (link,) = [link for link in self.bed.node("r2")._links if link.settings.neighbor == "r1"]

        def act(turn: int) -> None:
            newest = link._recovery.next_number - 1
            self.villain.say(ack_of(*((number, number) for number in range(newest % 2, newest + 1, 2))))

        self.misbehave(act)
        self.assertLess(self.bed.link("r2", "r1").resent, 10)
        self.assertEqual(self.bed.link("r2", "r1").state, "UP")

    def test_garbage(self) -> None:
        self.misbehave(lambda turn: self.villain.say(bytes((0x77, turn & 255))))
        self.assertShutOut("unknown link frame")

    def test_a_few_mistakes_are_forgiven(self) -> None:
        for _ in range(VIOLATIONS_MAX // 2):
            self.villain.say(b"\x77")
        self.assertEqual(self.bed.link("r2", "r1").state, "UP")
        self.assertEqual(self.bed.link("r2", "r1").malformed, VIOLATIONS_MAX // 2)

    def test_it_comes_and_goes(self) -> None:
        self.misbehave(lambda turn: self.villain.say(hello(UP if turn % 2 else 0)))
        self.assertLessEqual(self.ups_and_downs(), 2 * VIOLATIONS_MAX + 2)
        self.assertShutOut("it comes and goes")

    def test_it_says_goodbye_again_and_again(self) -> None:
        def act(turn: int) -> None:
            self.villain.say(hello(INIT), Close("\x1b[2J bye").encode(), hello(INIT))

        self.misbehave(act)
        link = self.bed.link("r2", "r1")
        self.assertEqual(link.state, "DOWN")
        self.assertIn("r1 says: ", link.reason)
        self.assertLessEqual(self.ups_and_downs(), 2, "its keys went with the first one")
        self.assertGreater(self.bed.node("r2").counters.unknown_index, 900)

    def test_numbers_far_ahead(self) -> None:
        """Each is accepted, and each makes a range; ranges stay few."""

        def act(turn: int) -> None:
            self.villain.number = (turn + 1) << 40
            self.villain.say(Ping().encode())

        self.misbehave(act)
        self.assertEqual(self.bed.link("r2", "r1").state, "UP")

    def test_numbers_that_no_acknowledgement_can_say(self) -> None:
        self.villain.number = MAX_VARINT + 1
        self.villain.say(Ping().encode())
        self.assertEqual(self.bed.link("r2", "r1").replayed, 1)

    def test_pauses(self) -> None:
        """Of every session at once and for an hour: what r2 sends by other links goes on."""
        names = list(self.bed.nodes)
        pairs = [(self.villain.identifier[a], self.villain.identifier[b]) for a in names for b in names]
        frames = [Pause(a, b, 0xFFFFFFFF).encode() for a, b in [*pairs, *((n, n + 1) for n in range(20))]]
        self.misbehave(lambda turn: self.villain.say(*frames))
        self.assertGreater(self.bed.link("r2", "r1").pauses_received, 10_000)

    # Routing.

    def test_an_lsa_sequence_that_never_rests(self) -> None:
        seen = self.bed.status("dst").routing.counters.lsas_received
        start = LATER_INCARNATION << 22

        def act(turn: int) -> None:
            self.villain.say(*(self.villain.lsa("r1", start + 10 * turn + step, "r2") for step in range(5)))

        self.misbehave(act)
        flooded = self.bed.status("dst").routing.counters.lsas_received - seen
        self.assertGreater(self.bed.status("r2").routing.counters.lsas_postponed, 3000)
        self.assertLess(flooded, 1.2 / MIN_ARRIVAL_INTERVAL + 10)
        self.bed.run(self.bed.now + 0.5)
        newest = [entry.lsa.sequence for entry in self.bed.status("dst").routing.lsas
                  if entry.lsa.origin == self.villain.identifier["r1"]]  # fmt: skip
        self.assertEqual(newest, [start + 10 * 999 + 4], "what it said last counts")

    def test_lsas_of_others(self) -> None:
        """r1 cannot take dst off the map; a link that it makes up is no link, and what else it says counts."""

        def act(turn: int) -> None:
            sequence = (LATER_INCARNATION << 22) + turn
            self.villain.say(self.villain.lsa("dst", sequence), self.villain.lsa("r1", sequence, "r2", "dst"))

        before = self.bed.status("r2").routing.counters.refused.copy()
        self.misbehave(act)
        routing = self.bed.status("r2").routing
        refused = routing.counters.refused
        forged = refused[Refusal.NOT_AUTHENTIC] - before[Refusal.NOT_AUTHENTIC]
        over_budget = refused[Refusal.OVER_BUDGET] - before[Refusal.OVER_BUDGET]
        self.assertGreaterEqual(forged + over_budget, 1000)
        self.assertLess(forged, VERIFY_MIN_BURST + VERIFY_PER_SECOND + 10, "a bounded number was verified")
        self.assertGreater(routing.counters.unknown_links, 0)
        announced = [entry.lsa for entry in routing.lsas if entry.lsa.origin == self.villain.identifier["r1"]]
        self.assertEqual([link.neighbor for link in announced[0].links], [self.villain.identifier["r2"]])
        self.assertTrue(self.bed.node("r2").is_reachable("dst"))

    # Packets.

    def test_packets_longer_than_any_link_takes(self) -> None:
        """They are refused where they come in: r2's link to dst would send them in vain for ever."""
        self.misbehave(lambda turn: self.villain.packet("dst", bytes(1473 + 10 * turn)))
        self.assertGreater(self.bed.link("r2", "r1").malformed, 990)
        link = self.bed.link("r2", "dst")
        self.assertEqual(link.queued_bytes, 0)
        self.assertLess(link.bytes_in_flight, 300, "a HELLO at most")

    def test_packets_of_the_longest_kind_pass(self) -> None:
        longest = 1500 - 28 - 28 - PACKET_HEADER.size
        before = self.bed.status("r2").counters.forwarded
        self.villain.packet("dst", bytes(longest))
        self.assertEqual(self.bed.status("r2").counters.forwarded, before + 1)
        self.assertEqual(self.bed.link("r2", "dst").too_big, 0)

    def test_hop_limits_and_addresses(self) -> None:
        """One packet in is at most one packet out, whatever its header says."""

        def act(turn: int) -> None:
            for hops in (0, 1, 2, 255):
                for destination in self.bed.nodes:
                    for source in ("src", "r2", "dst"):
                        self.villain.packet(destination, b"x", source=source, hops=hops, kind=CLASS_EXPRESS)
            self.villain.seal(DATA, PACKET_HEADER.pack(0, 9, 1, 2) + b"x")
            self.villain.seal(DATA, b"short")

        self.misbehave(act, turns=100)
        counters = self.bed.status("r2").counters
        self.assertEqual(counters.malformed_packets, 100)
        self.assertGreater(counters.hop_limit, 0)
        self.assertLessEqual(counters.forwarded, 100 * 4 * 4 * 3 + 10_000)

    def test_handshakes_in_the_name_of_others(self) -> None:
        """Each would cost dst a public-key operation: it opens a few a second in the name of one peer."""
        opened = 0
        reader = self.session_reader()
        really_open = reader.open

        def counted(message: bytes) -> object:
            nonlocal opened
            opened += 1
            return really_open(message)

        self.patch(reader, "open", counted)
        key = mac1_key(self.bed.configuration.nodes["dst"].x25519_public_key)
        forged = build_initiation(7, bytes(116), key)
        self.misbehave(lambda turn: self.villain.packet("dst", forged, source="src", kind=CLASS_HANDSHAKE))
        self.assertGreater(opened, 0)
        self.assertLess(opened, 60)

    def session_reader(self) -> InitiationReader:
        """Return what opens initiations at dst in the name of src."""
        self.villain.packet("dst", b"\1", source="src", kind=CLASS_HANDSHAKE)
        self.bed.run(self.bed.now + 0.1)
        return self.bed.node("dst")._sessions.reach(self.villain.identifier["src"], self.bed.now)._handshakes._reader

    def test_fragments_of_records_that_never_end(self) -> None:
        """r1 was on the path from src to dst, and knows the index of the keys; it holds no proof of what comes next."""
        index = self.villain.session_key.remote_index
        before = self.bed.status("dst").sessions["src"].fragments_refused

        def act(turn: int) -> None:
            for number in range(20):
                head = word(RECORD, index).to_bytes(4, "big") + (1000 + turn * 20 + number << 24 | 77).to_bytes(
                    8, "big"
                )
                self.villain.packet("dst", head + bytes((0, 255)) + bytes(1400), source="src")

        self.misbehave(act, turns=500)
        session = self.bed.status("dst").sessions["src"]
        self.assertEqual(session.fragments_refused - before, 10_000)
        self.assertEqual(session.reassembly_bytes, 0)

    def test_proven_fragments_of_records_that_never_end(self) -> None:
        """What one could do who had recorded fragments of each: reassembly is bounded, and empty in the end."""
        key = self.villain.session_key
        nonces = [key.record_nonce(number) for number in range(1000, 6000)]
        largest = 0

        def act(turn: int) -> None:
            nonlocal largest
            for nonce in nonces[turn * 10 : turn * 10 + 10]:
                for place in (0, 355):
                    self.villain.packet("dst", nonce + place.to_bytes(2, "big") + bytes(1400), source="src")
            largest = max(largest, self.bed.status("dst").sessions["src"].reassembly_bytes)

        self.misbehave(act, turns=500, memory_max=40 << 20)
        self.assertGreater(largest, 10 << 20, "they reach reassembly")
        self.assertLessEqual(largest, Limits().reassembly_max)
        self.bed.run(self.bed.now + 2 * INCOMPLETE_AGE_MAX)
        self.assertEqual(self.bed.status("dst").sessions["src"].reassembly_bytes, 0)


class HonestNeighborTests(SynchronousTestCase):
    def test_an_honest_neighbor_that_restarts_often(self) -> None:
        """Ten restarts in ten seconds are bad luck and no attack."""
        bed = tapped_bed()

        def restart() -> None:
            bed.start("r1")

        for turn in range(10):
            bed.at(bed.now + turn, bed.crash, "r1")
            bed.at(bed.now + turn + 0.2, restart)
        bed.run(bed.now + 15)
        self.assertEqual(bed.link("r2", "r1").state, "UP")
