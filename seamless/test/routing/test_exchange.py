"""How two databases come to the same state: summaries, answers, requests, and the budgets of all of them."""

from __future__ import annotations

from seamless.routing.exchange import (
    ANSWER_BURST,
    ANSWER_PER_SECOND,
    ANSWER_STEP,
    REQUEST_DELAY,
    SUMMARY_MIN_BURST,
    VERIFY_MIN_BURST,
)
from seamless.routing.lsa import KIND_LSA, Lsa, LsaLink, LsaRefusedError, Refusal, decode_lsa, digest_of, encode_lsa
from seamless.routing.routing import Routing
from seamless.routing.summary import KIND_SUMMARY, MAX_IDENTIFIER, Summary, decode_summary, encode_summary
from seamless.test.routing.core import RoutingTestCase, lsa_bytes
from seamless.test.routing.network import MTU_BYTES, make_core, make_topology, sign_as


def shown(*datas: bytes, first: int = 0, last: int = MAX_IDENTIFIER) -> bytes:
    """Return the summary of a database that holds these LSAs."""
    ranks = {decode_lsa(data).origin: (decode_lsa(data).sequence, digest_of(data)) for data in datas}
    return encode_summary(Summary(first, last, ranks))


class SummaryTests(RoutingTestCase):
    """Node 1 and what it says to neighbor 2."""

    def setUp(self) -> None:
        super().setUp()
        self.core.receive_lsa(lsa_bytes(4, 5, [3]), 3, 1.5)
        self.core.receive_lsa(lsa_bytes(2, 5, [1, 3]), 3, 1.5)
        self.flood()

    def summaries(self) -> list[Summary]:
        """Return the summaries that neighbor 2 is about to get."""
        messages = self.core.lsas_to_flood()
        return [decode_summary(data) for neighbor, data in messages if neighbor == 2 and data[0] == KIND_SUMMARY]

    def origins(self) -> list[int]:
        return sorted(lsa.origin for neighbor, lsa in self.flood() if neighbor == 2)

    def test_neighbor_that_comes_up_gets_a_summary(self) -> None:
        """Also when it was UP before, but forgot; and of LSAs only what is news."""
        self.core.link_down(2, 3.0)
        self.flood()
        self.core.link_up(2, 10, MTU_BYTES, 4.0)
        (summary,) = self.summaries()
        self.assertEqual((summary.first, summary.last, sorted(summary.ranks)), (0, MAX_IDENTIFIER, [1, 2, 4]))
        self.core.link_up(2, 10, MTU_BYTES, 4.1)
        self.assertEqual(len(self.summaries()), 1)

    def test_answered_with_what_is_lacking_or_older(self) -> None:
        self.core.receive_lsa(shown(lsa_bytes(4, 4, [3])), 2, 2.0)
        self.assertEqual(self.origins(), [1, 4])
        self.core.receive_lsa(shown(lsa_bytes(4, 5, [3])), 2, 2.0)
        self.assertEqual(self.origins(), [1])

    def test_answer_stays_within_the_range(self) -> None:
        self.core.receive_lsa(shown(first=2), 2, 2.0)
        self.assertEqual(self.origins(), [4])

    def test_neighbor_gets_its_own_only_if_it_has_an_older_one(self) -> None:
        self.core.receive_lsa(shown(lsa_bytes(2, 6, [1])), 2, 2.0)
        self.assertEqual(self.origins(), [1, 4])
        self.core.receive_lsa(shown(lsa_bytes(2, 4, [1])), 2, 2.0)
        self.assertEqual(self.origins(), [1, 2, 4])

    def test_summary_before_the_link_is_up_is_answered_when_it_is(self) -> None:
        self.core.link_down(2, 3.0)
        self.flood()
        self.core.receive_lsa(shown(), 2, 3.5)
        self.assertEqual(self.origins(), [])
        self.core.link_up(2, 10, MTU_BYTES, 4.0)
        self.assertEqual(self.origins(), [1, 4])

    def test_what_is_shown_and_does_not_come_is_asked_for_once(self) -> None:
        newer = lsa_bytes(4, 6, [2, 3])
        self.core.link_up(2, 10, MTU_BYTES, 2.0)
        self.flood()
        self.core.receive_lsa(shown(lsa_bytes(1, 1, []), newer), 2, 2.1)
        self.flood()
        self.assertEqual(self.core.next_timeout(), 2.0 + REQUEST_DELAY)
        self.core.handle_timeout(2.0 + REQUEST_DELAY)
        (request,) = self.summaries()
        self.assertEqual(request.ranks[4][0], 5)
        self.core.handle_timeout(2.0 + 9 * REQUEST_DELAY)
        self.assertEqual(self.summaries(), [])

    def test_what_comes_is_not_asked_for(self) -> None:
        newer = lsa_bytes(4, 6, [2, 3])
        self.core.link_up(2, 10, MTU_BYTES, 2.0)
        self.core.receive_lsa(shown(newer), 2, 2.1)
        self.core.receive_lsa(newer, 2, 2.2)
        self.flood()
        self.core.handle_timeout(2.0 + REQUEST_DELAY)
        self.assertEqual(self.summaries(), [])

    def test_neighbor_whose_end_alone_went_down_is_asked_at_once(self) -> None:
        """It sends a summary, and we do not, since our end was UP all the time."""
        self.core.receive_lsa(shown(lsa_bytes(4, 6, [2, 3])), 2, 60.0)
        self.core.handle_timeout(60.0)
        (request,) = self.summaries()
        self.assertEqual(request.ranks[4][0], 5)

    def test_summaries_have_a_budget(self) -> None:
        for _ in range(SUMMARY_MIN_BURST):
            self.core.receive_lsa(shown(), 2, 2.0)
        self.flood()
        self.assertIs(self.refusal(shown()), Refusal.OVER_BUDGET)


def hub(leaves: int) -> Routing:
    """Return node 1 of a star with so many others behind node 2, knowing all of them."""
    topology = make_topology([(1, 2), (1, 3), *((2, node) for node in range(10, 10 + leaves))])
    return make_core(1, topology)


class BudgetTests(RoutingTestCase):
    def test_verifications_have_a_budget_and_what_exceeds_it_is_asked_for(self) -> None:
        """A neighbor that forges 2000 LSAs costs a bounded number of verifications, and no true one for ever."""
        verified = self.core.counters.lsas_verified
        for sequence in range(100, 2100):
            data = lsa_bytes(4, sequence, [3], forger=2)
            self.assertRaises(LsaRefusedError, self.core.receive_lsa, data, 2, 2.0)
        counters = self.core.counters
        self.assertEqual(counters.lsas_verified - verified, VERIFY_MIN_BURST)
        self.assertEqual(counters.refused[Refusal.OVER_BUDGET], 2000 - VERIFY_MIN_BURST)
        self.assertEqual(counters.refused[Refusal.NOT_AUTHENTIC], VERIFY_MIN_BURST)
        good = lsa_bytes(4, 5, [3])
        self.assertRaises(LsaRefusedError, self.core.receive_lsa, good, 2, 2.0)
        self.core.receive_lsa(good, 3, 2.0)
        self.assertEqual(counters.lsas_changed, 1)

    def test_dropped_for_the_budget_is_asked_for_when_there_is_one_again(self) -> None:
        for sequence in range(100, 100 + VERIFY_MIN_BURST):
            self.assertRaises(LsaRefusedError, self.core.receive_lsa, lsa_bytes(4, sequence, [3], forger=2), 2, 2.0)
        good = lsa_bytes(4, 5, [3])
        self.assertRaises(LsaRefusedError, self.core.receive_lsa, good, 2, 2.0)
        self.core.lsas_to_flood()
        at = self.core.next_timeout()
        assert at is not None
        self.assertLess(at, 2.1)
        self.core.handle_timeout(at)
        requests = [data for neighbor, data in self.core.lsas_to_flood() if neighbor == 2 and data[0] == KIND_SUMMARY]
        self.assertEqual(len(requests), 1)
        self.assertNotIn(4, decode_summary(requests[0]).ranks)
        self.core.receive_lsa(good, 2, at)
        self.assertEqual(self.core.counters.lsas_changed, 1)

    def test_answers_are_paced(self) -> None:
        """A whole database goes out in steps, since CONTROL passes all other traffic of the link."""
        count = 1000
        core = hub(count)
        core.link_up(2, 10, MTU_BYTES, 0.0)
        for node in range(10, 10 + count):
            links = lsa_bytes_of(node)
            core.receive_lsa(links, 2, 0.0)
        core.lsas_to_flood()
        core.link_up(3, 10, MTU_BYTES, 1.0)
        core.lsas_to_flood()
        core.receive_lsa(shown(), 3, 1.0)
        sent, now = 0, 1.0
        steps = []
        while sent < count:
            batch = [data for neighbor, data in core.lsas_to_flood() if neighbor == 3 and data[0] == KIND_LSA]
            steps.append(len(batch))
            sent += len(batch)
            if sent < count:
                at = core.next_timeout()
                assert at is not None
                now = max(now, at)
                core.handle_timeout(now)
        self.assertEqual(steps[0], ANSWER_BURST)
        self.assertLess(abs(now - 1.0 - (count - ANSWER_BURST) / ANSWER_PER_SECOND), 0.05)
        self.assertLess(len(steps), count / ANSWER_STEP)


def lsa_bytes_of(node: int) -> bytes:
    """Return the LSA of a node behind node 2."""
    return encode_lsa(Lsa(node, 1, False, (LsaLink(2, 10, MTU_BYTES),)), sign_as(node))
