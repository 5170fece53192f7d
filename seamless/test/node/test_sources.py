"""Packets in another's name are refused where they come in, unless that source's path may lead over their link."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.messages import build_initiation, mac1_key
from seamless.crypto.sealing import PROOF_BITS
from seamless.interfaces import PacketReceived
from seamless.node.status import NodeCounters
from seamless.test.node.shared import FLOOD_PACKET_BYTES, TICK, SharedLink, shared_link
from seamless.wire.header import (
    INITIATION,
    PACKET_ENDS,
    RECORD,
    SEALED_HEADER,
    word,
)
from seamless.wire.traffic_class import CLASS_BULK, CLASS_HANDSHAKE

SEEDS = range(6)
PACKETS = 600


def counters(net: SharedLink, name: str) -> NodeCounters:
    """Return a node's counters."""
    return net.node(name).status(net.now).counters


class ForgedHandshakeTests(SynchronousTestCase):
    def flood(self, net: SharedLink, by: str, over: str, message: bytes, until: float) -> None:
        """Send a packet of ``message`` to y in x's name, and one to x in y's, every millisecond."""
        for source, destination in (("x", "y"), ("y", "x")):
            net.forge(by, over, [net.head(CLASS_HANDSHAKE, source, destination) + message])
        if net.now < until:
            net.at(net.now + TICK, self.flood, net, by, over, message, until)

    def new_session(self, by: str, over: str, message: bytes, seed: int) -> SharedLink:
        """Begin a session in a flood; it must be there in a second."""
        net = shared_link(100, detour="q" if by == "q" else "", seed=seed)
        self.flood(net, by, over, message, net.now + 4.0)
        net.run(net.now + 2.5)
        net.keystrokes("x", "y", b"new")
        net.run(net.now + 1.0)
        self.assertTrue(net.latencies[b"new"], f"no session within a second, seed {seed}")
        self.assertEqual(net.resets, [])
        return net

    def test_a_leaf_prevents_no_session(self) -> None:
        """Packets of eleven bytes, each of which took one of the ten handshakes a second that y opened for x."""
        for seed in SEEDS:
            net = self.new_session("m", "r1", bytes((INITIATION,)), seed)
            self.assertGreater(counters(net, "r1").source_refused, 5000)
            self.assertEqual(net.node("y").status(net.now).sessions["x"].handshakes_refused, 0)

    def test_a_relay_beside_the_path_prevents_no_session(self) -> None:
        """x's path may lead over q, so y has to look; but it has a budget for each link."""
        forged = build_initiation(7, bytes(116), mac1_key(shared_link(100).configuration.nodes["y"].public_key))
        for seed in SEEDS[:3]:
            net = self.new_session("q", "y", forged, seed)
            self.assertGreater(net.node("y").status(net.now).sessions["x"].handshakes_refused, 3400)


class GuessedFragmentTests(SynchronousTestCase):
    """q has relayed a session and does so no more: it knows the index of its keys, and which numbers come next."""

    def guess(self, net: SharedLink, random: Random) -> None:
        """Send y the first fragment of a record to come, in x's name, every ten milliseconds."""
        session = net.node("x")._sessions.reach(net.node("y").identifier, net.now)
        key = session.association.send_key
        assert key is not None
        number = session._sender.recovery.next_number + random.randrange(8)
        name = number << PROOF_BITS | random.getrandbits(PROOF_BITS)
        fragment = SEALED_HEADER.pack(word(RECORD, key.remote_index), name) + bytes((0, 11)) + b"!"
        net.forge("q", "y", [net.head(CLASS_BULK, "x", "y") + fragment])
        net.at(net.now + 0.010, self.guess, net, random)

    def test_a_former_relay_stops_no_session(self) -> None:
        """With 0.08 Mb/s it took a transfer of 9.4 Mb/s to 1.6."""
        net = shared_link(10, detour="q")
        net.bulk("x", "y", b"bulk")
        net.run(net.now + 0.5)
        refused = net.node("y").status(net.now).sessions["x"].fragments_refused
        self.guess(net, Random(1))
        rates = net.rates(2.0)
        session = net.node("y").status(net.now).sessions["x"]
        self.assertGreater(session.fragments_refused - refused, 200)
        self.assertEqual(counters(net, "y").source_refused, 0, "its path may lead over q")
        self.assertGreater(rates[b"bulk"], 9.0)
        self.assertEqual(net.node("x").status(net.now).sessions["y"].records_lost, 0)
        self.assertEqual(net.resets, [])


class ForgedBulkTests(SynchronousTestCase):
    def forge(self, net: SharedLink) -> None:
        """Send y bulk in x's name, at the rate of m's link."""
        link = net.link("m")
        packet = net.head(CLASS_BULK, "x", "y") + bytes(FLOOD_PACKET_BYTES)
        ends = packet[PACKET_ENDS]
        missing = link.room_bytes(ends, CLASS_BULK) // len(packet)
        if missing > 0:
            net.command("m", lambda node, now: link.enqueue([packet] * missing, CLASS_BULK, ends, now))
        net.at(net.now + TICK, self.forge, net)

    def test_a_leaf_takes_no_other_flow_s_share(self) -> None:
        """Bulk in x's name took x's share: of 4.6 Mb/s it had 1.6 left."""
        net = shared_link(10)
        net.bulk("x", "y", b"bulk")
        net.bulk("w", "y", b"other")
        net.run(net.now + 0.5)
        net.link("m").pause = lambda *arguments: None  # type: ignore[method-assign]
        self.forge(net)
        rates = net.rates(3.0)
        self.assertGreater(counters(net, "r1").source_refused, 1000)
        self.assertGreater(rates[b"bulk"], 0.9 * 9.4 / 2)
        self.assertEqual(net.resets, [])


class ReturnTests(SynchronousTestCase):
    def test_what_a_relay_hands_back_is_taken(self) -> None:
        """The link from r2 to y dies, and the other way to y leads back over r1, from which r2 has it all."""
        net = shared_link(10, detour="q")
        arrived: list[bytes] = []

        def at_y(event: object) -> None:
            if isinstance(event, PacketReceived):
                arrived.append(event.packet)

        net.nodes["y"].on_event = at_y

        def send(number: int) -> None:
            packet = number.to_bytes(2, "big") + bytes(600)
            net.command("x", lambda node, now: node.send_packet("y", packet, now))

        for number in range(PACKETS):
            net.at(net.now + number * TICK, send, number)
        net.run(net.now + 0.1)
        net.broken = {"r2", "y"}
        net.run(net.now + 2.0)
        self.assertGreater(counters(net, "r2").rerouted, 50)
        self.assertEqual(counters(net, "r1").source_refused, 0)
        self.assertGreater(len(set(arrived)), PACKETS - 20, "but what only died with the link itself")
        net.broken = set()
        net.run(net.now + 3.0)
        net.forge("r2", "r1", [net.head(CLASS_HANDSHAKE, "x", "y") + bytes((INITIATION,))])
        net.run(net.now + 0.1)
        self.assertEqual(counters(net, "r1").source_refused, 1, "afterwards r2 does not speak for x")
