"""Token buckets: what is let through at once and in the long run, and by key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.delivery.token_bucket import TokenBucket, TokenBuckets


class TokenBucketTests(SynchronousTestCase):
    def test_a_burst_and_then_the_rate(self) -> None:
        bucket = TokenBucket(5, 2.0, 0.0)
        self.assertEqual(sum(bucket.take(0.0) for _ in range(10)), 5)
        self.assertEqual(sum(bucket.take(0.1 * step) for step in range(1, 101)), 20)

    def test_a_debt_is_repaid_first(self) -> None:
        bucket = TokenBucket(2, 1.0, 0.0)
        bucket.spend(5, 0.0)
        self.assertFalse(bucket.take(3.9))
        self.assertTrue(bucket.take(4.0))

    @given(st.floats(0.001, 1e9), st.floats(1, 1e6), st.floats(0, 1e5))
    def test_at_ready_at_the_tokens_are_there(self, per_second: float, burst: float, now: float) -> None:
        bucket = TokenBucket(burst, per_second, now)
        bucket.spend(burst, now)
        at = bucket.ready_at(1)
        if (at - now) * per_second < burst:
            self.assertGreaterEqual(bucket.refill(at + 1e-9 * at), 1)

    def test_a_full_bucket_is_ready(self) -> None:
        self.assertLessEqual(TokenBucket(2, 1.0, 7.0).ready_at(), 7.0)


class TokenBucketsTests(SynchronousTestCase):
    def test_each_key_has_its_own(self) -> None:
        buckets: TokenBuckets[str] = TokenBuckets(1, 1.0)
        self.assertEqual([buckets.take(key, 0.0) for key in "aabb"], [True, False, True, False])

    def test_the_one_not_used_for_longest_gives_way(self) -> None:
        buckets: TokenBuckets[str] = TokenBuckets(1, 0.001, 2)
        for key in "abac":
            buckets.take(key, 0.0)
        self.assertEqual(len(buckets), 2)
        self.assertEqual([buckets.take(key, 0.0) for key in "ab"], [False, True])
