"""What is under way between this node and one neighbor: the budgets, the LSAs it must get, those it must send.

Flooding brings news; this brings two databases to the same state when a link comes up, and after LSAs were dropped. The
sequence is in `seamless.routing.routing`.
"""

from __future__ import annotations

from seamless.delivery.token_bucket import TokenBucket
from seamless.routing.lsa import Rank

VERIFY_MIN_BURST = 256
VERIFY_BURST_PER_NODE = 4
"""Signatures verified for one neighbor at once: every node of the overlay may have that much news when it starts."""
VERIFY_PER_SECOND = 200.0
"""And in the long run: 2 % of a processor (0.11 ms each), and sixty times what 1,000 nodes need for refreshing."""
ANSWER_BURST = 256
ANSWER_PER_SECOND = 1000.0
"""LSAs sent to one neighbor in answer to summaries: about 1 Mb/s, since CONTROL passes all other traffic."""
ANSWER_STEP = 10
"""And at least so many at once, if there are: about a datagram full."""
SUMMARY_MIN_BURST = 64
SUMMARIES_PER_SECOND = 10.0
"""Summaries of one neighbor that are answered; each costs a look at the whole database."""
REQUEST_DELAY = 2.0
"""Seconds that a neighbor has to send by itself what our summary shows that we lack."""


class Exchange:
    """The state of the exchange with one neighbor in an overlay of ``nodes`` nodes."""

    def __init__(self, nodes: int, now: float) -> None:
        self.verifications = TokenBucket(max(VERIFY_MIN_BURST, VERIFY_BURST_PER_NODE * nodes), VERIFY_PER_SECOND, now)
        self.summaries = TokenBucket(max(SUMMARY_MIN_BURST, nodes), SUMMARIES_PER_SECOND, now)
        self.described_at = float("-inf")
        """When our whole database was last described to the neighbor."""
        self.request_at: float | None = None
        self._answers = TokenBucket(ANSWER_BURST, ANSWER_PER_SECOND, now)
        self._to_answer: dict[int, None] = {}
        self._wanted: dict[int, Rank] = {}

    @property
    def is_idle(self) -> bool:
        """Return whether neither an answer nor a request waits."""
        return not self._to_answer and self.request_at is None

    def answer(self, origin: int) -> None:
        """Queue the LSA of ``origin`` for the neighbor."""
        self._to_answer[origin] = None

    def answered(self, origin: int) -> None:
        """Take the LSA of ``origin``, which the neighbor has, off the queue."""
        self._to_answer.pop(origin, None)

    def take_answers(self, now: float) -> list[int]:
        """Return, once, the origins whose LSAs may go to the neighbor now."""
        taken: list[int] = []
        if not self._to_answer or self._answers.ready_at(min(ANSWER_STEP, len(self._to_answer))) > now:
            return taken
        while self._to_answer and self._answers.take(now):
            origin = next(iter(self._to_answer))
            del self._to_answer[origin]
            taken.append(origin)
        return taken

    def answers_at(self, now: float) -> float | None:
        """Return when `take_answers` has something; None when nothing waits."""
        if not self._to_answer:
            return None
        return self._answers.ready_at(min(ANSWER_STEP, len(self._to_answer)))

    def want(self, origin: int, rank: Rank, at: float) -> None:
        """Request an LSA of at least ``rank`` from the neighbor at ``at``, unless it has come until then."""
        self._wanted[origin] = max(rank, self._wanted.get(origin, rank))
        self.request_at = at if self.request_at is None else min(at, self.request_at)

    def take_wanted(self) -> dict[int, Rank]:
        """Return, once, what is to be asked for: each claim of the neighbor costs one question."""
        wanted, self._wanted, self.request_at = self._wanted, {}, None
        return wanted

    def link_down(self) -> None:
        """Forget what is under way: the databases are compared anew when the link comes up."""
        self._to_answer.clear()
        self._wanted.clear()
        self.request_at = None
        self.described_at = float("-inf")
