"""What an observer of every wire gets: nothing of the payload, no names, and nothing by sending it all again.

Simulated: whole nodes, handshakes and all, so a recording is what a capture of the same nodes' sockets would be. The
same question is put to the kernel's wires in `test_capture`.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from seamless.intercept.payload.flow import Flow
from seamless.interfaces import StreamOpened
from seamless.link.link import Link
from seamless.test.trust.tapped import Applications, TappedBed, refusals, tapped_bed
from seamless.wire.header import CONTROL, DATA, INITIATION, RESPONSE

NODES = ("src", "r1", "r2", "dst")
HOPS = (("src", "r1"), ("r1", "r2"), ("r2", "dst"))
FLOW = Flow(("10.1.9.2", 22), ("10.1.9.1", 40000))
SECRET = b"the quick brown fox and all that an application may say "
UP, DOWN = SECRET * 2000, SECRET[::-1] * 2000


def transfer(test: SynchronousTestCase, bed: TappedBed, up: bytes = UP, down: bytes = DOWN) -> Applications:
    """Move bytes both ways between src and dst and check that they arrive."""
    applications = Applications(test, bed, "src", "dst")
    applications.open(FLOW.encode(), up, down)
    bed.run(bed.now + 60, applications.done)
    applications.check()
    return applications


class CaptureTests(SynchronousTestCase):
    def test_nothing_of_a_transfer_is_readable(self) -> None:
        bed = tapped_bed()
        transfer(self, bed)
        secrets = [UP[:16], DOWN[:16], FLOW.encode(), FLOW.encode()[2:8], FLOW.encode()[8:14]]
        secrets += [b"10.1.9.1", b"10.1.9.2", b"src", b"dst"]
        for one, other in HOPS:
            wire = b"".join(datagram.data for datagram in bed.between(one, other))
            self.assertGreater(len(wire), len(UP) + len(DOWN))
            for secret in secrets:
                self.assertNotIn(secret, wire, f"between {one} and {other}")

    def test_a_relay_sees_who_talks_to_whom_and_no_more(self) -> None:
        """What r1 forwards, opened with its link keys: identifiers of two nodes, and sealed records."""
        bed = tapped_bed()
        forwarded: list[bytes] = []
        forwarding = bed.node("r1")._forwarding
        receive = forwarding.receive

        def watched(packets: list[bytes], link: Link, now: float) -> None:
            forwarded.extend(packets)
            receive(packets, link, now)

        self.patch(forwarding, "receive", watched)
        transfer(self, bed)
        seen = b"".join(forwarded)
        self.assertGreater(len(seen), len(UP) + len(DOWN))
        ends = bed.node("src").identifier.to_bytes(4, "big") + bed.node("dst").identifier.to_bytes(4, "big")
        self.assertIn(ends, seen)
        for secret in (UP[:16], DOWN[:16], FLOW.encode(), FLOW.encode()[2:8]):
            self.assertNotIn(secret, seen)


class ReplayTests(SynchronousTestCase):
    """All recorded traffic comes again, from the right addresses, while a transfer goes on."""

    def replay(self, speed: float, *, restart: bool) -> None:
        bed = tapped_bed()
        # From the first handshake on: the recording holds every type that there is.
        transfer(self, bed, UP[:60_000], DOWN[:60_000])
        recording = list(bed.seen)
        self.assertGreaterEqual({d.kind for d in recording}, {INITIATION, RESPONSE, DATA, CONTROL})
        if restart:
            for name in NODES:
                bed.crash(name)
            for name in NODES:
                bed.start(name)
            bed.run(bed.now + 30, lambda: all(bed.node(a).is_reachable(b) for a in NODES for b in NODES if a != b))
            bed.run(bed.now + 1)
        before = sum(refusals(bed.status(name)) for name in NODES)
        begin = bed.now
        for datagram in recording:
            bed.at(begin + (datagram.at - recording[0].at) / speed, bed.inject, datagram)
        end = begin + (recording[-1].at - recording[0].at) / speed
        applications = Applications(self, bed, "src", "dst")
        changes = bed.watch()
        fresh = Random(2).randbytes(300_000)
        applications.open(b"live", fresh, fresh)
        bed.run(begin + 60, lambda: applications.done() and bed.now > end)
        applications.check()
        opened = [event.target for event in changes if isinstance(event, StreamOpened)]
        self.assertEqual(opened, [b"live"], "a recording has a connection dialled")
        self.assertEqual(len(changes), 1, f"no link goes up or down: {changes}")
        refused = sum(refusals(bed.status(name)) for name in NODES) - before
        self.assertGreaterEqual(refused, len(recording), "every recorded datagram came again, and was refused")

    def test_to_those_who_made_it(self) -> None:
        for speed in (1, 100):
            self.replay(speed, restart=False)

    def test_after_a_restart(self) -> None:
        for speed in (1, 100):
            self.replay(speed, restart=True)
