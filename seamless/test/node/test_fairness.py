"""One link, many who want it: neither a flood that calls itself express nor honest small writers starve bulk.

Fair shares are those of the bytes that the link carries. A bulk stream alone has 94 % of it: headers and tags take the
rest.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.test.node.shared import SharedLink, shared_link

ALONE = 0.94
FAIR_ENOUGH = 0.6
KEYSTROKE_MAX = 0.005
"""Seconds that a keystroke may be late, beyond the wires' delay."""
WRITERS = 40
WRITE_BYTES = 400
WRITE_INTERVAL = 0.010
"""Together 12.8 Mb/s."""


class FairnessTests(SynchronousTestCase):
    def begin(self, mbit: float) -> SharedLink:
        """Return the network with bulk from x to y, and keystrokes beside it: in its session and in one by itself."""
        net = shared_link(mbit)
        net.bulk("x", "y", b"bulk")
        net.keystrokes("x", "y", b"beside")
        net.keystrokes("k", "z", b"alone")
        net.run(net.now + 0.5)
        return net

    def check_keystrokes(self, net: SharedLink) -> None:
        for target in (b"beside", b"alone"):
            _, latest = net.lateness(target)
            self.assertLess(latest, KEYSTROKE_MAX, target)
        self.assertEqual(net.resets, [])

    def flooded(self, mbit: float, seconds: float, nbytes: int = 1400) -> None:
        net = self.begin(mbit)
        before = net.link("m").counters.data_sent
        net.flood("m", "y", nbytes)
        rates = net.rates(seconds, after=seconds)
        sent_bytes = (net.link("m").counters.data_sent - before) * nbytes
        self.assertGreater(sent_bytes * 8e-6, 1.2 * mbit / 2 * seconds, "the flood is more than a fair share")
        self.assertGreater(rates[b"bulk"], FAIR_ENOUGH * ALONE * mbit / 2)
        self.check_keystrokes(net)

    def test_a_flood_of_express_at_10(self) -> None:
        """Bulk had 0.00 Mb/s beside it."""
        self.flooded(10, 4.0)

    def test_a_flood_of_express_at_100(self) -> None:
        self.flooded(100, 0.5)

    def test_a_flood_of_express_at_500(self) -> None:
        self.flooded(500, 0.2)

    def test_a_flood_of_short_express(self) -> None:
        """Headers count: a flood of them is no cheaper."""
        self.flooded(10, 2.0, nbytes=200)

    def test_forty_honest_small_writers(self) -> None:
        """Bulk had 0.00 Mb/s beside them, and they 0.45: all else were bytes that the sessions sent again."""
        net = self.begin(10)
        net.small_writers("w", "y", b"small", WRITERS, WRITE_BYTES, WRITE_INTERVAL)
        rates = net.rates(8.0, after=2.0)
        self.assertGreater(rates[b"bulk"], FAIR_ENOUGH * ALONE * 10 / 2)
        self.assertGreater(rates[b"small"], 0.8 * ALONE * 10 / 2)
        self.check_keystrokes(net)
        self.assertGreater(net.link("w").counters.pauses_received, 0)
        for name in ("w", "x"):
            session = net.node(name).status(net.now).sessions["y"]
            self.assertLess(session.records_lost, 0.01 * session.records_sent)
        dropped = sum(link.dropped_express for link in net.node("r1").status(net.now).links)
        self.assertEqual(dropped, 0)

    def test_small_writers_get_what_they_ask_where_there_is_room(self) -> None:
        net = self.begin(50)
        net.small_writers("w", "y", b"small", WRITERS, WRITE_BYTES, WRITE_INTERVAL)
        rates = net.rates(1.0, after=1.0)
        self.assertGreater(rates[b"small"], 12.6)
        self.assertGreater(rates[b"bulk"], FAIR_ENOUGH * ALONE * (50 - 12.8))
        self.check_keystrokes(net)
