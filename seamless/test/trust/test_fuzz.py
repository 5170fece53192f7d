"""Random and half-right bytes for every way in: nothing raises what it should not, and memory stays.

What is fed here in CI for a few hundred examples is fed by bench/micro/fuzz.py for as long as somebody likes, guided by
coverage; docs/security.rst has the figures.
"""

from __future__ import annotations

import tracemalloc
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.link import misbehavior
from seamless.test.trust.tapped import refusals, tapped_bed
from seamless.test.trust.targets import CORES, PARSERS, Target

any_bytes = st.binary(max_size=1500)
# Type and length of many frames look like this: small numbers, and a few very large ones.
frame_bytes = st.lists(
    st.one_of(
        st.integers(0, 0x1F).map(lambda value: bytes((value,))),
        st.sampled_from([b"\x40\x00", b"\x7f\xff", b"\xff" * 8, b"\xc0" + bytes(7), b"\xbf\xff\xff\xff"]),
        st.binary(max_size=20),
    ),
    max_size=40,
).map(b"".join)
pieces = st.lists(st.one_of(any_bytes, frame_bytes), max_size=5).map(
    lambda found: b"".join(len(piece).to_bytes(2, "big") + piece for piece in found)
)


class ParserTests(SynchronousTestCase):
    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.one_of(any_bytes, frame_bytes))
    def test_any_bytes(self, data: bytes) -> None:
        for target in PARSERS.values():
            target(data)


class CoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        # One target changes it for good.
        self.patch(misbehavior, "VIOLATIONS_MAX", misbehavior.VIOLATIONS_MAX)

    def feed(self, name: str, examples: int) -> None:
        target: Target = CORES[name]()

        @settings(derandomize=True, max_examples=examples, deadline=None)
        @given(pieces)
        def run(data: bytes) -> None:
            target(data)

        run()

    def test_stranger(self) -> None:
        self.feed("stranger", 300)

    def test_neighbor(self) -> None:
        self.feed("neighbor", 200)

    def test_packets(self) -> None:
        self.feed("packets", 200)

    def test_relay(self) -> None:
        self.feed("relay", 200)

    def test_peer(self) -> None:
        self.feed("peer", 40)


class MutationTests(SynchronousTestCase):
    """Datagrams that were good, with a few bytes changed, cut or joined: most of a node's code is not far away."""

    def test_mutated_traffic(self) -> None:
        bed = tapped_bed()
        stream = bed.command("src", lambda node, now: node.open_stream("dst", b"x", now))
        bed.command("src", lambda node, now: node.send(stream, bytes(100_000), now))
        bed.run(bed.now + 0.1)
        recording = list(bed.seen)
        bed.is_recording = False
        changes = bed.watch()
        randomness = Random(4)
        before = sum(refusals(bed.status(name)) for name in bed.nodes)
        bed.run(bed.now + 1)
        tracemalloc.start()
        first = tracemalloc.get_traced_memory()[0]
        count = 5000
        for _ in range(count):
            datagram = randomness.choice(recording)
            bed.inject(datagram, mutated(datagram.data, randomness))
        bed.run(bed.now + 1)
        grown = tracemalloc.get_traced_memory()[0] - first
        tracemalloc.stop()
        self.assertLess(grown, 1 << 20)
        self.assertEqual(changes, [])
        refused = sum(refusals(bed.status(name)) for name in bed.nodes) - before
        self.assertGreaterEqual(refused, count)
        self.assertTrue(all(link.state == "UP" for name in bed.nodes for link in bed.status(name).links))


def mutated(data: bytes, randomness: Random) -> bytes:
    """Return ``data`` with a few changes."""
    changed = bytearray(data)
    for _ in range(randomness.randint(1, 4)):
        what = randomness.randrange(3)
        place = randomness.randrange(len(changed))
        if what == 0:
            changed[place] ^= 1 << randomness.randrange(8)
        elif what == 1:
            del changed[max(1, place) :]
        else:
            changed += randomness.randbytes(randomness.randint(1, 40))
    return bytes(changed)
