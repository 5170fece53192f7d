"""Tests of a class that share one bed, which is taken down behind the last of them."""

from __future__ import annotations

import unittest
from typing import Protocol

from twisted.trial.runner import TestLoader, TestSuite


class SharesBed(Protocol):
    """A class of tests with one bed."""

    @classmethod
    def close_bed(cls) -> None:
        """Take the bed down."""
        ...


class ClassSuite(TestSuite):
    """The tests of a class, and after them its bed goes."""

    def __init__(self, case: type[SharesBed]) -> None:
        super().__init__(TestLoader().loadClass(case))
        self._case = case

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Run them all; whatever happens, nothing of the bed is left."""
        try:
            super().run(result)
        finally:
            self._case.close_bed()
        return result
