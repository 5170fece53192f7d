"""The table of traffic classes: it is what its module says, and its numbers are those of the wire."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.wire import traffic_class
from seamless.wire.traffic_class import (
    CLASS_BULK,
    CLASS_EXPRESS,
    ORDERED_CLASSES,
    QUEUE_CLASSES,
    TRAFFIC_CLASSES,
)


class TableTests(SynchronousTestCase):
    def test_each_stands_at_its_number(self) -> None:
        self.assertEqual([each.number for each in TRAFFIC_CLASSES], list(range(len(TRAFFIC_CLASSES))))

    def test_it_is_what_the_module_says(self) -> None:
        rows = [line.split() for line in str(traffic_class.__doc__).splitlines()]
        said = {row[0]: " ".join(row[1:]) for row in rows if row}
        for each in TRAFFIC_CLASSES:
            yes = {True: "yes", False: "no"}
            cells = (
                yes[each.is_recovered],
                yes[each.is_ordered],
                "express" if each.is_urgent else "bulk",
                "if small" if each.is_redundant else "no",
                yes[each.has_fragments],
            )
            self.assertTrue(said[each.name].startswith(" ".join(cells)), each)

    def test_the_classes_of_queues_and_streams(self) -> None:
        self.assertEqual(QUEUE_CLASSES, (CLASS_BULK, CLASS_EXPRESS))
        self.assertEqual(ORDERED_CLASSES, (CLASS_BULK, CLASS_EXPRESS))
        for number in QUEUE_CLASSES:
            self.assertEqual(TRAFFIC_CLASSES[number].queue, number)
