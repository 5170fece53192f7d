"""A wire is changed in the words of the configuration language, and described in them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Impairment
from seamless.errors import UsageError
from seamless.lab.wire_settings import changes, described


class Changes(SynchronousTestCase):
    def test_statements_need_no_semicolons_and_set_only_their_own_fields(self) -> None:
        self.assertEqual(
            changes(["loss", "5", "%", "delay", "10", "ms", "black", "hole", "1400", "bytes"]),
            {"loss": 0.05, "delay": 0.01, "black_hole_bytes": 1400},
        )
        self.assertEqual(changes(["reorder", "1%", "by", "5", "ms"]), {"reorder": 0.01, "reorder_delay": 0.005})

    def test_statements_that_lean_on_others_can_stand_alone(self) -> None:
        self.assertEqual(changes(["queue", "1", "MiB"]), {"queue_bytes": 1 << 20})
        self.assertEqual(changes(["burst", "4", "packets"]), {"burst_packets": 4})

    def test_down_up_and_no(self) -> None:
        self.assertEqual(changes(["down"]), {"down": True})
        self.assertEqual(changes(["up"]), {"down": False})
        perfect = {"loss": 0, "rate_bps": None, "black_hole_bytes": None}
        self.assertEqual(changes(["no", "loss", "no", "rate", "no", "black", "hole"]), perfect)

    def test_nonsense_is_refused_with_a_sentence(self) -> None:
        for words in (
            "",
            "los 5 %",
            "5 % loss",
            "loss 5",
            "loss 101 %",
            "delay 5 mbit",
            "no",
            "no delight",
            "no loss hello",
            "loss 1 % hello",
        ):
            self.assertRaises(UsageError, changes, words.split())


class Described(SynchronousTestCase):
    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.none() | st.integers(1, 10_000),
        st.none() | st.integers(1, 1 << 30),
        st.integers(0, 100),
        st.integers(0, 100),
        st.integers(1, 50),
        st.booleans(),
    )
    def test_what_is_said_can_be_typed_again(
        self, delay_ms: int, rate_mbit: int | None, queue: int | None, loss: int, reorder: int, burst: int, down: bool
    ) -> None:
        impairment = Impairment(
            delay=delay_ms / 1000,
            rate_bps=None if rate_mbit is None else rate_mbit * 1_000_000,
            queue_bytes=queue,
            loss=loss / 100,
            burst_packets=burst,
            reorder=reorder / 100,
            reorder_delay=0.007 if reorder else 0,
            down=down,
        )
        said = described(impairment)
        again = Impairment() if said == "perfect" else Impairment(**changes(said.split()))
        self.assertEqual(described(again), said)
        self.assertEqual((again.queue_bytes, again.down, again.burst_packets), (queue, down, burst))
