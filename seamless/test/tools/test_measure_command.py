"""``seamless measure``: what people read, and which rate it says."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.test.node.test_change import file
from seamless.tools.measure_command import rate_to_configure, text


def found(out_bps: int, back_bps: int, is_least: bool = False) -> dict[str, Any]:
    """Return an answer of the daemon."""

    def way(rate_bps: int) -> dict[str, Any]:
        return {
            "capacity_bps": round(rate_bps / 0.96),
            "rate_bps": rate_bps,
            "loss_floor": 0.005,
            "queue_delay": 0.0009,
            "mtu_bytes": 1500,
            "is_least": is_least,
        }

    return {
        "node": "src",
        "neighbor": "r1",
        "local": ["10.1.1.1", 7400],
        "remote": ["10.1.1.2", 7400],
        "out": way(out_bps),
        "back": way(back_bps),
    }


class TextTests(SynchronousTestCase):
    def test_the_lower_rate_of_both_directions_is_said(self) -> None:
        for out_bps, back_bps, wanted_bps in (
            (479_812_345, 480_000_000, 479_000_000),
            (96_000_000, 19_199_999, 19_100_000),
            (1_204_000_000, 2_000_000_000, 1_200_000_000),
            (777, 778, 777),
            (5, 12, 5),
        ):
            self.assertEqual(rate_to_configure(found(out_bps, back_bps)), wanted_bps)

    def test_the_line_can_be_pasted(self) -> None:
        answer = found(479_812_345, 19_200_000)
        lines = text(answer, rate_to_configure(answer)).splitlines()
        self.assertEqual(lines[0], "path 10.1.1.1:7400 to 10.1.1.2:7400")
        self.assertEqual(
            lines[3].split(), ["to", "r1", "500", "Mb/s", "0.50", "%", "480", "Mb/s", "0.90", "ms", "1500"]
        )
        self.assertEqual(lines[4].split()[:4], ["from", "r1", "20.0", "Mb/s"])
        loaded = file(("rate 100 mbit;", lines[-1].strip()))
        self.assertEqual(loaded.links[0].rate_bps, 19_200_000)

    def test_a_path_that_carries_more(self) -> None:
        answer = found(900_000_000, 950_000_000, is_least=True)
        shown = text(answer, rate_to_configure(answer))
        self.assertIn("at least 938 Mb/s", shown)
        self.assertIn("that is no bound of the path", shown)
