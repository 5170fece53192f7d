"""Numbers and tables as people see them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.tools import units
from seamless.tools.text_table import WIDTH, table


class UnitsTests(SynchronousTestCase):
    def test_rates_and_sizes_have_three_digits(self) -> None:
        expected = {
            0: "0 b/s",
            999: "999 b/s",
            1000: "1.00 kb/s",
            9_999: "10.0 kb/s",
            99_960: "100 kb/s",
            999_499: "999 kb/s",
            999_500: "1.00 Mb/s",
            312_400_000: "312 Mb/s",
            4e18: "4000 Pb/s",
        }
        self.assertEqual({value: units.rate(value) for value in expected}, expected)
        self.assertEqual((units.size(0.4), units.size(41.2e9)), ("0 B", "41.2 GB"))

    def test_ratios(self) -> None:
        expected = {0.0: "0 %", 0.00001: "0.00 %", 0.0052: "0.52 %", 0.0999: "9.99 %", 0.5: "50.0 %", 1.0: "100 %"}
        self.assertEqual({value: units.ratio(value) for value in expected}, expected)
        self.assertEqual((units.ratio(None), units.quotient(1, 0), units.quotient(1, 200)), ("-", "-", "0.50 %"))

    def test_times(self) -> None:
        expected = {
            0.2: "0 s",
            59.9: "59 s",
            60: "1 min 0 s",
            3600: "1 h 0 min",
            8000: "2 h 13 min",
            200_000: "2 d 7 h",
        }
        self.assertEqual({value: units.duration(value) for value in expected}, expected)
        self.assertEqual(units.duration(-3), "0 s", "clocks of two machines may differ")
        self.assertEqual(
            [units.milliseconds(value) for value in (0.00084, 0.0304, 1.5)], ["0.84 ms", "30.4 ms", "1500 ms"]
        )

    def test_addresses(self) -> None:
        self.assertEqual(units.address(("10.1.1.1", 7400)), "10.1.1.1:7400")
        self.assertEqual(units.address(["2001:db8::1", 7400]), "[2001:db8::1]:7400")

    def test_counts(self) -> None:
        self.assertEqual(units.counts({"captured": 12, "straight": 0, "gave_up": 1}), "captured 12, gave up 1")
        self.assertEqual(units.counts({"captured": 0}), "nothing so far")


class TableTests(SynchronousTestCase):
    def test_columns_stand_below_one_another(self) -> None:
        text = table(("NAME", "STATE", "WHY"), [("a", "UP", "-"), "a remark", ("longer", "DOWN", "no datagram")])
        self.assertEqual(
            text.splitlines(),
            [
                "NAME    STATE  WHY",
                "a       UP     -",
                "        a remark",
                "longer  DOWN   no datagram",
            ],
        )

    def test_nothing_goes_beyond_the_last_column(self) -> None:
        path = " - ".join(f"node{number}" for number in range(40))
        lines = table(("NODE", "PATH"), [("n" * 60, path), f"because: {path}"]).splitlines()
        self.assertLessEqual(max(map(len, lines)), WIDTH)
        self.assertTrue(lines[1].startswith("n" * 23 + "…  node0 - node1"))
        self.assertEqual(" ".join(lines[1:]).split().count("node39"), 2)

    def test_an_empty_last_cell(self) -> None:
        self.assertEqual(table(("A", "B"), [("x", "")]), "A  B\nx")
