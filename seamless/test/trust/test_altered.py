"""Every byte of one sample of every datagram type altered, and every length of it: refused, counted, and no more.

The kernel's checksums are out of the question here, as they are for who alters a datagram and repairs them.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from seamless.crypto.messages import MAC_BYTES
from seamless.test.trust.tapped import Datagram, TappedBed, refusals, starting_bed, tapped_bed
from seamless.wire.header import CONTROL, COOKIE, DATA, INITIATION, RESPONSE

TIMES = 3
MEMORY_SLACK_BYTES = 300_000
"""What Python's own caches may grow by in the meantime; 3600 copies of a datagram would take 4 MB."""


def sample(kind: int) -> tuple[TappedBed, Datagram]:
    """Return a bed, and a datagram of this type that its node has not had."""
    if kind in (INITIATION, RESPONSE, COOKIE):
        bed = starting_bed()
        if kind == INITIATION:
            # The first ones are answered with a cookie; what follows that is the real thing.
            bed.run(0.012)
        return bed, bed.hold(kind)
    bed = tapped_bed()
    stream = bed.command("src", lambda node, now: node.open_stream("dst", b"x", now))
    bed.command("src", lambda node, now: node.send(stream, bytes(50_000), now))
    return bed, bed.hold(kind)


def variants(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every byte flipped in two ways, and every shorter length."""
    for place in range(len(data)):
        for mask in (0xFF, 0x01):
            yield f"byte {place} ^ {mask:#x}", data[:place] + bytes((data[place] ^ mask,)) + data[place + 1 :]
    for length in range(1, len(data)):
        yield f"the first {length} bytes", data[:length]


class AlteredTests(SynchronousTestCase):
    def altered(self, kind: int) -> None:
        bed, datagram = sample(kind)
        self.victim = bed.node_at(datagram.destination)
        before = bed.status(self.victim)
        changes = bed.watch()
        count, answers = self.send_variants(bed, datagram)
        after = bed.status(self.victim)
        self.assertEqual(refusals(after) - refusals(before), count, "each is counted, and only once")
        self.assertEqual(changes, [])
        for was, link in zip(before.links, after.links):
            self.assertEqual((link.state, link.received_bytes), (was.state, was.received_bytes))
        mac2_variants = 2 * MAC_BYTES * TIMES
        # Only an INITIATION with a good mac1 and a mac2 that is not ours is worth a COOKIE: it may be a neighbor's.
        self.assertEqual(answers, mac2_variants if kind == INITIATION else 0)
        self.assert_good(bed, datagram)

    def send_variants(self, bed: TappedBed, datagram: Datagram) -> tuple[int, int]:
        """Let all variants arrive; return how many, and how many cookies were the answer."""
        node, now = bed.node(self.victim), bed.now
        node.datagrams_to_send(now)
        count = answers = 0
        tracemalloc.start()
        first = tracemalloc.get_traced_memory()[0]
        for name, data in variants(datagram.data):
            for _ in range(TIMES):
                node.receive_datagrams(data, len(data), datagram.destination, datagram.source, now)
                count += 1
            for transmit in node.datagrams_to_send(now):
                self.assertEqual({answer[0] for answer in transmit.buffers}, {COOKIE}, name)
                self.assertLessEqual(len(transmit.buffers[0]), len(data))
                answers += transmit.count
        grown = tracemalloc.get_traced_memory()[0] - first
        tracemalloc.stop()
        self.assertLess(grown, MEMORY_SLACK_BYTES)
        return count, answers

    def assert_good(self, bed: TappedBed, datagram: Datagram) -> None:
        """The datagram itself is accepted still, so what was altered was not refused for another reason."""
        before = bed.status(self.victim)
        bed.inject(datagram)
        after = bed.status(self.victim)
        if datagram.kind == INITIATION:
            self.assertEqual(after.gate["admitted"], before.gate["admitted"] + 1)
        else:
            self.assertEqual(refusals(after), refusals(before))
        bed.run(bed.now + 5)
        self.assertEqual({link.state for link in bed.status(self.victim).links}, {"UP"})

    def test_initiation(self) -> None:
        self.altered(INITIATION)

    def test_response(self) -> None:
        self.altered(RESPONSE)

    def test_cookie(self) -> None:
        self.altered(COOKIE)

    def test_data(self) -> None:
        self.altered(DATA)

    def test_control(self) -> None:
        self.altered(CONTROL)
