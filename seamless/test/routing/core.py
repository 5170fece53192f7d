"""One routing core between hand-made neighbors, for the tests that ask it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import RemoteProtocolError
from seamless.routing.lsa import KIND_LSA, Lsa, LsaLink, LsaRefusedError, Refusal, decode_lsa, encode_lsa
from seamless.test.routing.network import MTU_BYTES, make_core, make_topology, sign_as

TOPOLOGY = make_topology([(1, 2), (1, 3), (2, 3), (3, 4), (2, 4)], leaves=[4])


def lsa_bytes(origin: int, sequence: int, neighbors: list[int], forger: int | None = None) -> bytes:
    """Return an LSA of ``origin``, signed by it or by a forger."""
    links = tuple(LsaLink(neighbor, 10, MTU_BYTES) for neighbor in neighbors)
    return encode_lsa(Lsa(origin, sequence, origin in TOPOLOGY.leaves, links), sign_as(forger or origin))


class RoutingTestCase(SynchronousTestCase):
    """Node 1 with neighbors 2 and 3, both UP; node 4 behind them."""

    def setUp(self) -> None:
        self.core = make_core(1, TOPOLOGY)
        self.core.link_up(2, 10, MTU_BYTES, 0.0)
        self.core.link_up(3, 10, MTU_BYTES, 1.0)
        self.flood()

    def flood(self) -> list[tuple[int, Lsa]]:
        """Return the LSAs that are to be sent now; summaries are left out."""
        messages = self.core.lsas_to_flood()
        return [(neighbor, decode_lsa(data)) for neighbor, data in messages if data[0] == KIND_LSA]

    def own_lsas(self) -> list[Lsa]:
        """Return the LSAs of node 1 that neighbor 2 is about to get."""
        return [lsa for neighbor, lsa in self.flood() if neighbor == 2 and lsa.origin == 1]

    def refusal(self, data: bytes) -> Refusal:
        """Hand ``data`` to the core; return why it refused, having checked that it was counted and nothing moved."""
        before = self.core.status()
        refused: LsaRefusedError = self.assertRaises(LsaRefusedError, self.core.receive_lsa, data, 2, 2.0)
        after = self.core.status()
        self.assertIsInstance(refused, RemoteProtocolError)
        self.assertEqual(after.counters.refused[refused.refusal], before.counters.refused[refused.refusal] + 1)
        self.assertEqual((after.lsas, after.routes, self.flood()), (before.lsas, before.routes, []))
        return refused.refusal
