"""One routing core against hand-made neighbors: flooding, replay, forgery, rate limits, restarts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from seamless.errors import RemoteProtocolError
from seamless.routing.flooding import MIN_ARRIVAL_INTERVAL
from seamless.routing.lsa import KIND_LSA, SIGNATURE_BYTES, Lsa, LsaLink, Refusal, decode_lsa, encode_lsa
from seamless.routing.lsdb import MAX_AGE_SECONDS
from seamless.routing.origination import (
    MIN_JUMP_INTERVAL,
    MIN_ORIGINATION_INTERVAL,
    ORIGINATION_BURST,
    ORIGINATIONS_PER_SECOND,
    REFRESH_INTERVAL,
)
from seamless.test.routing.core import TOPOLOGY, RoutingTestCase, lsa_bytes
from seamless.test.routing.network import INCARNATION, MTU_BYTES, make_core, sign_as


class FloodingTests(RoutingTestCase):
    def test_news_goes_to_all_but_the_sender(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.assertEqual([(neighbor, lsa.origin) for neighbor, lsa in self.flood()], [(2, 4)])
        self.assertEqual(self.flood(), [])

    def test_bytes_are_handed_on_as_they_came(self) -> None:
        data = lsa_bytes(4, 5, [3])
        self.core.receive_lsa(data, 3, 2.0)
        self.assertEqual(self.core.lsas_to_flood(), [(2, data)])

    def test_duplicate_stops_here(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.flood()
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 2, 2.1)
        self.assertEqual(self.flood(), [])
        self.assertEqual(self.core.counters.lsas_duplicate, 1)

    def test_what_a_neighbor_has_shown_is_not_sent_to_it(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 2, 2.0)
        self.assertEqual(self.flood(), [])

    def test_older_is_answered_with_newer(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.flood()
        self.core.receive_lsa(lsa_bytes(4, 4, []), 2, 2.1)
        self.assertEqual([(neighbor, lsa.sequence) for neighbor, lsa in self.flood()], [(2, 5)])
        self.assertEqual(self.core.counters.lsas_older, 1)
        self.assertEqual([entry.lsa.sequence for entry in self.core.status().lsas if entry.lsa.origin == 4], [5])

    def test_two_nodes_that_both_forgot_do_not_answer_each_other_forever(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.core.handle_timeout(2.0 + MAX_AGE_SECONDS)
        self.assertEqual(self.core.counters.lsas_expired, 1)
        self.flood()
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 2, 3.0 + MAX_AGE_SECONDS)
        self.assertEqual(self.flood(), [])

    def test_newest_supersedes_what_was_not_yet_sent(self) -> None:
        for sequence in range(5, 25):
            self.core.receive_lsa(lsa_bytes(4, sequence, [3]), 3, 2.0 + sequence * MIN_ARRIVAL_INTERVAL)
        self.assertEqual([lsa.sequence for _, lsa in self.flood()], [24])

    def test_an_origin_that_never_stops(self) -> None:
        """It costs us and the network a fixed number a second, and what it said last counts in the end."""
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.flood()
        flooded = 0
        for sequence in range(6, 2006):
            now = 2.0 + sequence * 0.0005
            self.core.receive_lsa(lsa_bytes(4, sequence, [3] if sequence % 2 else []), 3, now)
            self.core.handle_timeout(now)
            self.core.next_event()
            flooded += len(self.flood())
        self.assertLessEqual(flooded, 1.0 / MIN_ARRIVAL_INTERVAL + 2)
        self.assertLessEqual(self.core.counters.table_computations, 1.0 / MIN_ARRIVAL_INTERVAL + 4)
        self.assertGreater(self.core.counters.lsas_postponed, 1900)
        at = self.core.next_timeout()
        assert at is not None
        self.core.handle_timeout(at)
        self.assertEqual([lsa.sequence for _, lsa in self.flood()], [2005])

    def test_neighbor_that_is_down_gets_nothing(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.core.link_down(2, 2.0)
        self.core.receive_lsa(lsa_bytes(4, 4, []), 2, 2.0)
        self.assertEqual({neighbor for neighbor, _ in self.flood()}, {3})

    def test_lsa_that_arrives_before_the_link_is_up_counts(self) -> None:
        core = make_core(1, TOPOLOGY)
        core.receive_lsa(lsa_bytes(2, 5, [1]), 2, 0.0)
        core.link_up(2, 10, MTU_BYTES, 0.1)
        self.assertEqual(core.next_hop(2), 2)


class RefusalTests(RoutingTestCase):
    def test_forged_lsa_of_another_node(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 1.9)
        self.flood()
        self.assertIs(self.refusal(lsa_bytes(4, 6, [2], forger=2)), Refusal.NOT_AUTHENTIC)

    def test_forged_lsa_that_waits_does_not_displace_a_true_one(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 2.0)
        self.flood()
        self.core.receive_lsa(lsa_bytes(4, 6, [2, 3]), 3, 2.001)
        self.core.receive_lsa(lsa_bytes(4, 99, [2], forger=2), 2, 2.002)
        self.assertEqual(self.core.counters.lsas_postponed, 2)
        self.core.handle_timeout(2.0 + MIN_ARRIVAL_INTERVAL)
        self.assertEqual(self.core.counters.refused[Refusal.NOT_AUTHENTIC], 1)
        self.assertEqual([(neighbor, lsa.sequence) for neighbor, lsa in self.flood()], [(2, 6)])

    def test_changed_on_the_way(self) -> None:
        changed = bytearray(lsa_bytes(4, 5, [3]))
        lowest_byte_of_cost = 16 + 4 + 3
        changed[lowest_byte_of_cost] ^= 1
        self.assertEqual(decode_lsa(bytes(changed)).links, (LsaLink(3, 11, MTU_BYTES),))
        self.assertIs(self.refusal(bytes(changed)), Refusal.NOT_AUTHENTIC)

    def test_forged_lsa_of_our_own_does_not_make_us_jump(self) -> None:
        self.assertIs(self.refusal(lsa_bytes(1, (1 << 64) - 1, [2, 3], forger=2)), Refusal.NOT_AUTHENTIC)
        self.assertEqual(self.core.counters.jumps, 0)

    def test_origin_that_is_not_configured(self) -> None:
        self.assertIs(self.refusal(lsa_bytes(99, 5, [2])), Refusal.UNKNOWN_ORIGIN)

    def test_link_that_is_not_configured(self) -> None:
        """It counts for nothing and is counted; the rest of the LSA does, and all of it goes on."""
        data = lsa_bytes(4, 5, [1, 3])
        self.core.receive_lsa(data, 3, 2.0)
        (entry,) = self.core.status().lsas[1:]
        self.assertEqual([link.neighbor for link in entry.lsa.links], [3])
        self.assertEqual(self.core.counters.unknown_links, 1)
        self.assertEqual(self.flood(), [(2, decode_lsa(data))])
        self.assertEqual(sum(self.core.counters.refused.values()), 0)

    def test_leaf_that_offers_transit(self) -> None:
        self.assertIs(self.refusal(encode_lsa(Lsa(4, 5, False, ()), sign_as(4))), Refusal.NOT_A_LEAF)

    def test_spoiled_copy_is_refused_and_a_good_one_taken_from_another_neighbor(self) -> None:
        good = lsa_bytes(4, 5, [3])
        spoiled = good[:-SIGNATURE_BYTES] + bytes(SIGNATURE_BYTES)
        self.assertIs(self.refusal(spoiled), Refusal.NOT_AUTHENTIC)
        self.core.receive_lsa(good, 3, 2.0)
        self.assertEqual(self.core.counters.lsas_changed, 1)

    def test_replay_of_a_former_life_is_refused(self) -> None:
        self.core.receive_lsa(lsa_bytes(4, INCARNATION << 22, [2]), 2, 2.0)
        self.core.receive_lsa(lsa_bytes(4, (INCARNATION + 1) << 22, [3]), 3, 2.1)
        before = self.core.status().lsas
        self.core.receive_lsa(lsa_bytes(4, (INCARNATION << 22) + 1000, [2]), 2, 2.2)
        self.assertEqual(self.core.status().lsas, before)
        self.assertEqual(self.core.counters.lsas_older, 1)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=200) | st.binary(max_size=180).map(lambda data: b"\x01\x00\x00\x00\x04" + data))
    def test_any_bytes_raise_one_kind_of_error_and_are_counted(self, data: bytes) -> None:
        core = make_core(1, TOPOLOGY)
        self.assertRaises(RemoteProtocolError, core.receive_lsa, data, 2, 0.0)
        self.assertEqual(sum(core.counters.refused.values()), 1)

    def test_memory_is_bounded_by_the_configuration(self) -> None:
        """Whatever valid LSAs come, one per node is kept and one per node and neighbor waits to be sent."""
        for sequence in range(1, 300):
            for origin in (2, 3, 4):
                neighbors = [node for node in (1, 2, 3, 4) if TOPOLOGY.allows_link(origin, node)]
                self.core.receive_lsa(lsa_bytes(origin, sequence, neighbors[: sequence % 4]), 2, 2.0)
        self.assertEqual(self.core.counters.lsas_received, 897)
        self.assertEqual(len(self.core.status().lsas), 4)
        self.assertEqual(len(self.core.lsas_to_flood()), 3)


class OriginationTests(RoutingTestCase):
    def test_first_change_is_announced_at_once(self) -> None:
        self.core.link_down(3, 5.0)
        self.assertEqual([[link.neighbor for link in lsa.links] for lsa in self.own_lsas()], [[2]])

    def test_flapping_link_cannot_flood(self) -> None:
        before = self.core.counters.lsas_originated
        announced = 0
        for step in range(1000):
            now = 5.0 + step * 0.001
            flap = self.core.link_down if step % 2 else self._bring_up_3
            flap(3, now)
            timeout = self.core.next_timeout()
            if timeout is not None and timeout <= now:
                self.core.handle_timeout(now)
            announced += len(self.own_lsas())
        allowed = ORIGINATION_BURST + int(ORIGINATIONS_PER_SECOND) - 1
        self.assertEqual(self.core.counters.lsas_originated - before, allowed)
        self.assertEqual(announced, allowed)

    def _bring_up_3(self, neighbor: int, now: float) -> None:
        self.core.link_up(neighbor, 10, MTU_BYTES, now)

    def test_last_state_of_a_flapping_link_is_announced(self) -> None:
        self.core.link_down(3, 5.0)
        self.core.link_up(3, 10, MTU_BYTES, 5.001)
        self.core.link_down(3, 5.002)
        self.core.link_up(3, 10, MTU_BYTES, 5.003)
        self.assertEqual(self.core.next_timeout(), 5.0 + MIN_ORIGINATION_INTERVAL)
        self.flood()
        self.core.handle_timeout(5.0 + MIN_ORIGINATION_INTERVAL)
        self.assertEqual([[link.neighbor for link in lsa.links] for lsa in self.own_lsas()], [[2, 3]])

    def test_our_own_table_does_not_wait_for_the_announcement(self) -> None:
        self.core.receive_lsa(lsa_bytes(2, 5, [1, 3]), 2, 2.0)
        self.core.receive_lsa(lsa_bytes(3, 5, [1, 2]), 3, 2.0)
        self.core.link_up(3, 10, MTU_BYTES, 5.0)
        self.core.link_down(3, 5.001)
        self.assertGreater(self.core.next_timeout() or 0, 5.001)
        self.assertEqual(self.core.path(3), (1, 2, 3))

    def test_refreshed_with_jitter_before_it_expires_elsewhere(self) -> None:
        for jitter, expected in ((0.0, REFRESH_INTERVAL), (1.0, REFRESH_INTERVAL * 0.75)):
            core = make_core(1, TOPOLOGY, jitter=jitter)
            core.link_up(2, 10, MTU_BYTES, 0.0)
            core.lsas_to_flood()
            self.assertEqual(core.next_timeout(), expected)
            core.handle_timeout(expected)
            self.assertEqual(len(core.lsas_to_flood()), 1)
            self.assertLess(expected * 2, MAX_AGE_SECONDS)

    def test_small_changes_of_cost_are_ignored_until_they_add_up(self) -> None:
        self.core.link_cost(2, 100, 5.0)
        self.flood()
        for cost in (110, 124, 76, 125, 75):
            self.core.link_cost(2, cost, 6.0)
        self.assertEqual(self.own_lsas(), [])
        self.core.link_cost(2, 126, 7.0)
        self.assertEqual([lsa.links[0].cost for lsa in self.own_lsas()], [126])

    def test_changed_mtu_is_announced(self) -> None:
        self.core.link_up(2, 10, 1200, 5.0)
        self.assertEqual([lsa.links[0].mtu_bytes for lsa in self.own_lsas()], [1200])


class RestartTests(RoutingTestCase):
    def newest_sequence(self) -> int:
        return max(lsa.sequence for lsa in self.own_lsas())

    def test_later_incarnation_is_newer_than_anything_before(self) -> None:
        first = decode_lsa(lsa_bytes(1, (INCARNATION << 22) + 4_000_000, []))
        core = make_core(1, TOPOLOGY, incarnation=INCARNATION + 1)
        core.link_up(2, 10, MTU_BYTES, 0.0)
        (own,) = (data for _, data in core.lsas_to_flood() if data[0] == KIND_LSA)
        self.assertGreater(decode_lsa(own).sequence, first.sequence)

    def test_clock_set_back_is_outjumped_at_once(self) -> None:
        former = (INCARNATION + 1_000_000) << 22
        self.core.receive_lsa(lsa_bytes(1, former, [2]), 2, 5.0)
        self.assertEqual(self.newest_sequence(), former + 1)
        self.assertEqual(self.core.counters.jumps, 1)

    def test_former_life_with_links_that_the_configuration_lost_is_outjumped_too(self) -> None:
        former = (INCARNATION + 1_000_000) << 22
        self.core.receive_lsa(lsa_bytes(1, former, [2, 4]), 2, 5.0)
        self.assertEqual(self.newest_sequence(), former + 1)

    def test_same_sequence_with_other_content_is_outjumped(self) -> None:
        self.core.link_cost(2, 100, 5.0)
        sequence = self.newest_sequence()
        self.core.receive_lsa(lsa_bytes(1, sequence, []), 2, 6.0)
        self.assertEqual(self.newest_sequence(), sequence + 1)

    def test_many_conflicts_in_a_second_delay_the_next_jump_by_no_more_than_one(self) -> None:
        former = (INCARNATION + 1_000_000) << 22
        for number, now in enumerate((5.0, 5.1, 5.2, 5.3, 5.4)):
            self.core.receive_lsa(lsa_bytes(1, former + 10 * number, [2]), 2, now)
        self.assertEqual(self.newest_sequence(), former + 1)
        self.assertEqual(self.core.next_timeout(), 5.0 + MIN_JUMP_INTERVAL)
        self.core.handle_timeout(5.0 + MIN_JUMP_INTERVAL)
        self.assertEqual(self.newest_sequence(), former + 41)
        self.core.receive_lsa(lsa_bytes(1, former + 50, [2]), 2, 6.1)
        self.assertEqual(self.core.next_timeout(), 5.0 + 2 * MIN_JUMP_INTERVAL)

    def test_two_nodes_with_one_key_do_not_flood_the_network(self) -> None:
        other = make_core(1, TOPOLOGY, incarnation=INCARNATION + 5)
        other.link_up(2, 10, MTU_BYTES, 0.0)
        before = self.core.counters.lsas_originated + other.counters.lsas_originated
        steps = 10_000
        for step in range(steps):
            now = 5.0 + step * 0.001
            for one, two in ((self.core, other), (other, self.core)):
                one.handle_timeout(now)
                for neighbor, data in one.lsas_to_flood():
                    if neighbor == 2:
                        two.receive_lsa(data, 2, now)
        self.assertGreater(self.core.counters.jumps, 5)
        originated = self.core.counters.lsas_originated + other.counters.lsas_originated - before
        self.assertLess(originated, 2 * (steps * 0.001 / MIN_JUMP_INTERVAL + 1) + 2)
