"""A daemon takes all the descriptors that it may have."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from seamless.linux.system import raise_descriptor_limit


class DescriptorLimitTests(SynchronousTestCase):
    def test_the_soft_limit_becomes_the_hard_one(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        self.assertEqual(raise_descriptor_limit(), hard)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
