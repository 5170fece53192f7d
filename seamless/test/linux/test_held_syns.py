"""Which held SYNs wait, and what becomes of them: packets and times in, verdicts and messages out."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.linux.held_syns import (
    LOCAL_GRACE,
    REPEAT_SLACK,
    Flow,
    HeldSyns,
    HoldCounters,
    Outcome,
    Syn,
    decode_counters,
    decode_decisions,
    decode_message,
    encode_counters,
    encode_decisions,
    parse_syn,
)

SERVER = "10.1.9.2"


def syn(client: str = "10.2.1.1", port: int = 40_000, sequence: int = 7, server: str = SERVER) -> bytes:
    """Return the headers of a SYN to port 22 of the server."""
    source, destination = ip_address(client), ip_address(server)
    tcp = struct.pack("!HHIIBBHHH", port, 22, sequence, 0, 0x50, 2, 65_535, 0, 0)
    if source.version == 4:
        return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, source.packed, destination.packed) + tcp
    return struct.pack("!IHBB16s16s", 6 << 28, 20, 6, 64, source.packed, destination.packed) + tcp


def flow(packet: bytes) -> Flow:
    """Return the flow that a SYN opens."""
    found = parse_syn(packet)
    assert found is not None
    return found.flow


class HeldSynsTestCase(SynchronousTestCase):
    """At most six SYNs, four of one client."""

    def setUp(self) -> None:
        self.syns = HeldSyns(limit=6, share=4)
        self.number = 0
        self.living: set[Flow] = set()

    def receive(self, packet: bytes, now: float = 0.0, *, is_local: bool = False) -> int:
        self.number += 1
        self.syns.receive(self.number, packet, is_local, now)
        return self.number

    def sweep(self, now: float) -> None:
        self.syns.sweep(now, lambda: self.living)

    def verdicts(self) -> list[tuple[int, Outcome]]:
        taken, self.syns.verdicts = self.syns.verdicts, []
        return taken

    def told(self) -> list[tuple[int, Flow | None]]:
        return [news for message, _ in self.syns.messages() for news in decode_message(message)]


class WaitingTests(HeldSynsTestCase):
    def test_it_waits_until_the_daemon_decides(self) -> None:
        number = self.receive(syn())
        self.assertEqual(self.told(), [(number, flow(syn()))])
        self.assertEqual((self.verdicts(), len(self.syns)), ([], 1))
        self.syns.decide(number, Outcome.HOST_UNREACHABLE)
        self.assertEqual((self.verdicts(), len(self.syns)), ([(number, Outcome.HOST_UNREACHABLE)], 0))
        self.syns.decide(number, Outcome.PASS)
        self.assertEqual((self.verdicts(), self.told()), ([], []))

    def test_one_that_is_sent_again_counts_once(self) -> None:
        first = self.receive(syn())
        self.told()
        for at in (1.0, 3.0, 7.0):
            again = self.receive(syn(), at)
            self.assertEqual((self.verdicts(), self.told()), ([(again, Outcome.DROP)], []))
        self.assertEqual((self.syns.counters.held, self.syns.counters.repeated), (1, 3))
        self.syns.decide(first, Outcome.PASS)
        self.assertEqual(self.verdicts(), [(first, Outcome.PASS)])

    def test_another_connection_from_the_same_port(self) -> None:
        first = self.receive(syn())
        self.told()
        second = self.receive(syn(sequence=8), 0.1)
        self.assertEqual(self.verdicts(), [(first, Outcome.DROP)])
        self.assertEqual(self.told(), [(first, None), (second, flow(syn()))])
        self.assertEqual(self.syns.counters.gave_up, 1)

    def test_bounds_in_all_and_of_one_client(self) -> None:
        """What is too much is refused at once; it makes no room by being refused."""
        for port in range(4):
            self.receive(syn(port=port + 1))
        self.assertEqual(self.verdicts(), [])
        self.assertFalse(self.syns.is_crowded)
        greedy = self.receive(syn(port=9))
        self.assertEqual(self.verdicts(), [(greedy, Outcome.REFUSED)])
        self.assertTrue(self.syns.is_crowded)
        for port in range(2):
            self.receive(syn("10.2.1.2", port + 1))
        self.assertEqual(self.verdicts(), [])
        late = self.receive(syn("10.2.1.3"))
        self.assertEqual(self.verdicts(), [(late, Outcome.REFUSED)])
        self.assertEqual((len(self.syns), self.syns.counters.full, len(self.told())), (6, 2, 6))
        self.syns.decide(1, Outcome.PASS)
        self.receive(syn("10.2.1.3"))
        self.assertEqual(self.verdicts(), [(1, Outcome.PASS)])

    def test_a_client_of_ipv6_is_its_network(self) -> None:
        for host in range(1, 5):
            self.receive(syn(f"2001:db8::{host}", server="2001:db8:9::2"))
        other_network = self.receive(syn("2001:db8:0:1::1", server="2001:db8:9::2"))
        same_network = self.receive(syn("2001:db8::5", server="2001:db8:9::2"))
        self.assertEqual(self.verdicts(), [(same_network, Outcome.REFUSED)])
        self.assertEqual([number for number, _ in self.told()], [1, 2, 3, 4, other_network])

    def test_what_the_daemon_does_not_read_goes_on(self) -> None:
        self.receive(syn())
        ((_, numbers),) = self.syns.messages()
        self.syns.not_handed_over(numbers)
        self.assertEqual((self.verdicts(), len(self.syns)), ([(1, Outcome.UNDECIDED)], 0))
        self.assertEqual(self.syns.counters.unread, 1)

    def test_what_waits_is_dropped_when_the_daemon_is_gone(self) -> None:
        """Its client sends it again, when there are no rules any more."""
        self.receive(syn())
        self.receive(syn("2001:db8::1", server="2001:db8:9::2"))
        self.syns.release_all()
        self.assertEqual(self.verdicts(), [(1, Outcome.DROP), (2, Outcome.DROP)])

    def test_what_is_no_plain_tcp_goes_on(self) -> None:
        routed = bytearray(syn("2001:db8::1", server="2001:db8:9::2"))
        routed[6] = 43  # a routing header comes first
        for packet in (b"", bytes(routed), syn()[:27], bytes(40)):
            number = self.receive(bytes(packet))
            self.assertEqual((self.verdicts(), self.told()), ([(number, Outcome.UNDECIDED)], []))


class GivingUpTests(HeldSynsTestCase):
    def test_a_client_on_this_host_without_its_socket(self) -> None:
        stays, goes = syn(port=1), syn(port=2)
        self.receive(stays, is_local=True)
        self.receive(goes, is_local=True)
        self.told()
        self.living = {flow(stays)}
        self.sweep(LOCAL_GRACE / 2)
        self.assertEqual(len(self.syns), 2, "it may not be in the list yet")
        self.sweep(60.0)
        self.assertEqual((self.verdicts(), self.told()), ([(2, Outcome.DROP)], [(2, None)]))
        self.assertEqual((len(self.syns), self.syns.counters.gave_up), (1, 1))

    def test_a_client_elsewhere_that_does_not_send_its_syn_again(self) -> None:
        """One that backs off as RFC 6298 says is given up by its own schedule only."""
        self.receive(syn())
        self.told()
        sent_at = [0.0]
        for now in range(64):
            if now == 2 * sent_at[-1] + 1:
                self.receive(syn(), now)
                sent_at.append(now)
            self.sweep(now)
        self.assertEqual((sent_at, len(self.syns)), ([0, 1, 3, 7, 15, 31, 63], 1))
        self.sweep(2 * 63 + REPEAT_SLACK)
        self.assertEqual(len(self.syns), 1)
        self.sweep(2 * 63 + REPEAT_SLACK + 0.1)
        self.assertEqual((len(self.syns), self.told()), (0, [(1, None)]))

    def test_a_client_that_gave_up_before_the_daemon_was_told(self) -> None:
        self.receive(syn())
        self.receive(syn(sequence=8))
        self.assertEqual(self.told(), [(2, flow(syn()))])

    def test_a_hundred_thousand_that_give_up(self) -> None:
        """One after another from one client: room comes back, and nothing is left."""
        self.syns = HeldSyns()
        for attempt in range(100_000):
            self.receive(syn(port=attempt % 60_000 + 1, sequence=attempt), attempt / 1000, is_local=True)
            self.syns.messages()
            if self.syns.is_crowded:
                self.sweep(attempt / 1000 + LOCAL_GRACE)
        self.sweep(1000.0)
        counters = self.syns.counters
        self.assertEqual((len(self.syns), counters.held, counters.gave_up), (0, counters.gave_up, counters.held))
        self.assertEqual(counters.held + counters.full, 100_000)
        self.assertEqual(len(self.verdicts()), 100_000)


class MessageTests(SynchronousTestCase):
    def test_counters(self) -> None:
        counters = HoldCounters(1, 2, 3, 4, 5)
        self.assertEqual(decode_counters(encode_counters(counters)), counters)

    def test_decisions(self) -> None:
        decisions = [(number, outcome) for number, outcome in enumerate(Outcome)]
        self.assertEqual(list(decode_decisions(encode_decisions(decisions))), decisions)

    @given(st.binary(max_size=100))
    def test_whatever_the_daemon_says_is_a_decision_or_nothing(self, message: bytes) -> None:
        for number, outcome in decode_decisions(message):
            self.assertIsInstance(outcome, Outcome)
            self.assertIsInstance(number, int)

    @given(st.binary(max_size=120))
    def test_whatever_is_queued_is_a_syn_or_none(self, packet: bytes) -> None:
        found = parse_syn(packet)
        self.assertIsInstance(found, (Syn, type(None)))
