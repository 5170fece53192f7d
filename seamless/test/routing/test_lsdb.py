"""The database: what takes whose place, what is refused, and what age does."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from seamless.routing.lsa import Lsa, LsaLink, LsaRefusedError, Refusal
from seamless.routing.lsdb import MAX_AGE_SECONDS, Lsdb, Verdict
from seamless.test.routing.network import make_topology

TOPOLOGY = make_topology([(1, 2), (2, 3)], leaves=[3])
SAMPLE = Lsa(1, 100, False, (LsaLink(2, 10, 1400),))


def newer(lsa: Lsa, by: int = 1) -> Lsa:
    return attrs.evolve(lsa, sequence=lsa.sequence + by)


class OfferTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lsdb = Lsdb(TOPOLOGY)
        self.assertIs(self.lsdb.offer(SAMPLE, b"first", 0.0), Verdict.CHANGED)

    def kept(self) -> list[tuple[Lsa, bytes]]:
        return [(entry.lsa, entry.data) for entry in self.lsdb]

    def test_newer_replaces(self) -> None:
        changed = attrs.evolve(SAMPLE, sequence=101, links=())
        self.assertIs(self.lsdb.offer(changed, b"second", 1.0), Verdict.CHANGED)
        self.assertEqual(self.kept(), [(changed, b"second")])

    def test_newer_that_says_the_same_is_a_refresh(self) -> None:
        self.assertIs(self.lsdb.offer(newer(SAMPLE), b"second", 1.0), Verdict.REFRESHED)
        self.assertEqual(self.kept(), [(newer(SAMPLE), b"second")])

    def test_duplicate_and_older_leave_all_as_it_was(self) -> None:
        self.assertIs(self.lsdb.offer(SAMPLE, b"again", 1.0), Verdict.DUPLICATE)
        self.assertIs(self.lsdb.offer(newer(SAMPLE, -1), b"replayed", 1.0), Verdict.OLDER)
        self.assertEqual(self.kept(), [(SAMPLE, b"first")])

    def test_unrefreshed_expires(self) -> None:
        self.assertEqual(self.lsdb.next_expiry(), MAX_AGE_SECONDS)
        self.assertEqual(self.lsdb.expire(MAX_AGE_SECONDS - 0.001), 0)
        self.assertEqual(self.lsdb.expire(MAX_AGE_SECONDS), 1)
        self.assertEqual(len(self.lsdb), 0)
        self.assertIsNone(self.lsdb.next_expiry())

    def test_refresh_puts_expiry_off(self) -> None:
        self.lsdb.offer(Lsa(2, 5, False, ()), b"other", 10.0)
        self.lsdb.offer(newer(SAMPLE), b"second", 30.0)
        self.assertEqual(self.lsdb.next_expiry(), 10.0 + MAX_AGE_SECONDS)
        self.lsdb.expire(10.0 + MAX_AGE_SECONDS)
        self.assertEqual(self.lsdb.next_expiry(), 30.0 + MAX_AGE_SECONDS)

    def test_expired_is_remembered_and_not_believed_again(self) -> None:
        self.lsdb.expire(MAX_AGE_SECONDS)
        self.assertIs(self.lsdb.offer(SAMPLE, b"replayed", 100.0), Verdict.DUPLICATE)
        self.assertIs(self.lsdb.offer(newer(SAMPLE, -1), b"replayed", 100.0), Verdict.OLDER)
        self.assertEqual(len(self.lsdb), 0)
        newest = self.lsdb.newest(1)
        assert newest is not None
        self.assertEqual(newest.data, b"first")

    def test_origin_that_returns_after_expiry_is_news(self) -> None:
        self.lsdb.expire(MAX_AGE_SECONDS)
        self.assertIs(self.lsdb.offer(newer(SAMPLE), b"back", 100.0), Verdict.CHANGED)
        self.assertEqual(self.kept(), [(newer(SAMPLE), b"back")])


class CheckTests(SynchronousTestCase):
    def refusal(self, lsa: Lsa) -> Refusal:
        refused: LsaRefusedError = self.assertRaises(LsaRefusedError, Lsdb(TOPOLOGY).check, lsa)
        return refused.refusal

    def test_what_the_configuration_names_passes(self) -> None:
        lsdb = Lsdb(TOPOLOGY)
        lsdb.check(SAMPLE)
        lsdb.check(Lsa(2, 1, False, (LsaLink(1, 1, 1400), LsaLink(3, 1, 1400))))

    def test_link_that_is_not_configured_counts_for_nothing(self) -> None:
        """The others of the LSA do, and it goes on as it came."""
        known = LsaLink(2, 1, 1400)
        for unknown in (LsaLink(3, 1, 1400), LsaLink(1, 1, 1400), LsaLink(77, 1, 1400)):
            lsdb = Lsdb(TOPOLOGY)
            lsa = Lsa(1, 1, False, tuple(sorted((known, unknown), key=lambda link: link.neighbor)))
            lsdb.check(lsa)
            self.assertIs(lsdb.offer(lsa, b"as it came", 0.0), Verdict.CHANGED)
            (entry,) = lsdb
            self.assertEqual((entry.lsa.links, entry.data, entry.unknown_links), ((known,), b"as it came", 1))
            dearer = attrs.evolve(lsa, sequence=2, links=(known, attrs.evolve(unknown, neighbor=77, cost=9)))
            self.assertIs(lsdb.offer(dearer, b"second", 1.0), Verdict.REFRESHED, "nothing new that counts")

    def test_leaf_may_not_offer_transit_but_anybody_may_decline_it(self) -> None:
        self.assertIs(self.refusal(Lsa(3, 1, False, ())), Refusal.NOT_A_LEAF)
        Lsdb(TOPOLOGY).check(Lsa(3, 1, True, ()))
        Lsdb(TOPOLOGY).check(attrs.evolve(SAMPLE, leaf=True))
