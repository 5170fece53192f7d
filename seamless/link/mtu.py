"""Which size of datagram one direction of a link carries: Datagram PLPMTUD (RFC 8899), a pure core.

The problem: a path may carry less than the link's ``mtu`` says (tunnels, clouds), or begin to, and says nothing: large
datagrams vanish and small ones, hellos among them, pass. So the link sends *probes*, CONTROL datagrams padded to a
size, whose acknowledgements say what passes. A lost probe is no sign of congestion, and nothing is sent again for it.

It stands beside the way of a byte: the link hands probes to the wire and their fate to this, and cuts what it sends to
`mtu_bytes`. All sizes are those of IP packets. The states are those of RFC 8899, section 5.2:

===============  ====================================================================================================
DISABLED         the neighbor is not heard
BASE             the base size is being confirmed, and the ceiling tried at once: the usual path has it in a round trip
SEARCHING        a larger size is looked for, or the one in use is in doubt
SEARCH_COMPLETE  the largest size is known; it is tried to rise after `RAISE_INTERVAL`
ERROR            not even the base size passes: the link cannot carry data, and is asked again after `ERROR_INTERVAL`
===============  ====================================================================================================

The rules:

* A search goes by *rounds*: a few sizes between the largest that passed and the smallest that did not, all at once, the
  largest first, and behind them a small datagram that tells size from silence. Each round divides what is unknown by
  `SPREAD` + 1. (RFC 8899, section 5.3.2 leaves the choice open; one probe per round trip would take ten times as long.)
* A size has failed after `MAX_PROBES` losses in rounds of which something else came through.
* `mtu_bytes` rises when a search ends and falls as soon as the size in use has failed, so that routing hears of few
  changes.
* Black holes (section 4.3): when `SUSPICIOUS_LOSSES` large datagrams are lost and none as large is acknowledged
  meanwhile, the size in use is verified. Whatever a neighbor acknowledges or not, it is verified once per
  `VERIFY_INTERVAL` at most, and a search ends after `MAX_ROUNDS`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import attrs

from seamless.interfaces import counter

# Fixed by RFC 8899, section 5.1.2.
MAX_PROBES: Final = 3

# Our own choices.
BASE_MTU_BYTES: Final = 1280
"""The smallest MTU of IPv6, and the BASE_PLPMTU that RFC 8899 recommends in bytes of the IP packet, rounded up: every
handshake message and every LSA fits."""
SPREAD: Final = 8
"""Sizes between the bounds in one round: 220 bytes of doubt are 4 after two rounds."""
STEP_BYTES: Final = 4
"""Sizes are multiples of it, since fragments begin at multiples of four bytes."""
MAX_ROUNDS: Final = 24
"""Of one search: three times what the widest range takes without other losses."""
RAISE_INTERVAL: Final = 60.0
"""Seconds until a size below the ceiling is tried to rise (PMTU_RAISE_TIMER, 600 s in RFC 8899): ten datagrams a
minute cost nothing, and a path that is whole again is soon used."""
ERROR_INTERVAL: Final = 1.0
"""Seconds between two looks whether the base size passes again."""
SUSPICIOUS_LOSSES: Final = 3
LARGE_BYTES: Final = 576
"""Losses of shorter datagrams say nothing about size: every path carries those (RFC 791)."""
SUSPICION_DELAY: Final = 0.02
"""Seconds for which large datagrams must have been lost and not one acknowledged: a burst of losses is shorter."""
VERIFY_INTERVAL: Final = 1.0
"""Seconds after the size in use was found to pass in which it is not verified again."""

SMALL: Final = 0
"""In the place of a size: a datagram that is not padded."""


class MtuState(enum.Enum):
    """The states of RFC 8899, section 5.2."""

    DISABLED = "disabled"
    BASE = "base"
    SEARCHING = "searching"
    SEARCH_COMPLETE = "search complete"
    ERROR = "error"


@attrs.frozen
class Probe:
    """One probe: the length of its IP packet (or `SMALL`), and the round that it belongs to."""

    size_bytes: int
    round_number: int


@attrs.define(slots=False)
class MtuCounters:
    """What happened so far."""

    mtu_probes: int = counter("Datagrams sent to find the MTU of the path")
    mtu_probes_lost: int = counter("Datagrams sent to find the MTU of the path, and lost")
    black_holes: int = counter("Times that the path was found to carry less than before")
    """How often the path was found to carry less than before."""


class MtuSearch:
    """The search for the largest datagram, up to ``ceiling_bytes``."""

    def __init__(self, ceiling_bytes: int) -> None:
        self.ceiling_bytes = ceiling_bytes
        self.base_bytes = min(BASE_MTU_BYTES, ceiling_bytes)
        self.mtu_bytes = self.base_bytes
        """The size in use."""
        self.state = MtuState.DISABLED
        self.counters = MtuCounters()
        self._round = 0
        self._verify_after = float("-inf")
        self.stop()

    # Life.

    def stop(self) -> None:
        """Forget what was found: the neighbor is not heard any more, and may come back by another path."""
        self.state = MtuState.DISABLED
        self._largest_passed = 0
        self._failures: dict[int, int] = {}
        self._waiting: list[int] = []
        self._unsettled = 0
        self._lost: list[int] = []
        self._answered = False
        self._rounds = 0
        self._is_in_doubt = False
        self._again_at: float | None = None
        self._raise_at: float | None = None
        self._large_lost = 0
        self._large_lost_at = 0.0
        self._least_lost_bytes = self.ceiling_bytes

    def begin(self) -> None:
        """Search from the base: the neighbor is heard from now on."""
        self.stop()
        self.mtu_bytes = self.base_bytes
        self._search(MtuState.BASE, 0, [self.ceiling_bytes, self.base_bytes])

    def set_ceiling(self, ceiling_bytes: int, now: float) -> None:
        """Search up to another ceiling. What is known to pass goes on to be used, as far as the ceiling allows."""
        self.ceiling_bytes = ceiling_bytes
        self.mtu_bytes = min(self.mtu_bytes, ceiling_bytes)
        if self.state is MtuState.DISABLED:
            self.stop()
        elif self.state is MtuState.BASE:
            self.begin()
        elif self.state is not MtuState.ERROR:
            self._search(MtuState.SEARCHING, self.mtu_bytes)
            if self.mtu_bytes == ceiling_bytes:
                self._complete(now)

    @property
    def carries_base(self) -> bool:
        """Return whether the path carries datagrams of the base size, as far as is known."""
        return self.state is not MtuState.ERROR

    # Probes.

    def probes_to_send(self) -> list[Probe]:
        """Return the probes that are to go out now, in this order; each must be settled once."""
        if not self._waiting:
            return []
        sizes, self._waiting = self._waiting, []
        self._unsettled += len(sizes)
        self.counters.mtu_probes += len(sizes)
        return [Probe(size, self._round) for size in sizes]

    def probe_acked(self, probe: Probe, now: float) -> None:
        """Take note that a probe was acknowledged."""
        if probe.round_number != self._round:
            return
        self._answered = True
        self._largest_passed = max(self._largest_passed, probe.size_bytes)
        if self._largest_passed >= self.ceiling_bytes:
            self._complete(now)
        else:
            self._settled(now)

    def probe_lost(self, probe: Probe, now: float) -> None:
        """Take note that a probe was lost."""
        self.counters.mtu_probes_lost += 1
        if probe.round_number == self._round:
            self._lost.append(probe.size_bytes)
            self._settled(now)

    # What befalls other datagrams.

    def data_acked(self, largest_bytes: int) -> None:
        """Take note of the largest datagram with data that an ACK has acknowledged."""
        if self._large_lost and largest_bytes >= self._least_lost_bytes:
            self._large_lost = 0

    def data_lost(self, sizes: Sequence[int], now: float) -> None:
        """Take note of lost datagrams with data; begin to verify the size in use when only large ones vanish."""
        large = [size for size in sizes if size > LARGE_BYTES]
        if not large:
            return
        if not self._large_lost:
            self._large_lost_at = now
            self._least_lost_bytes = self.ceiling_bytes
        self._large_lost += len(large)
        self._least_lost_bytes = min(self._least_lost_bytes, *large)
        if (
            self.state is MtuState.SEARCH_COMPLETE
            and self._large_lost >= SUSPICIOUS_LOSSES
            and now >= self._large_lost_at + SUSPICION_DELAY
            and now >= self._verify_after
        ):
            self._verify(now)

    def _verify(self, now: float) -> None:
        self._large_lost = 0
        self._verify_after = now + VERIFY_INTERVAL
        self._raise_at = self._again_at
        sizes = [self.mtu_bytes] * MAX_PROBES
        if self.mtu_bytes > self.base_bytes:
            sizes += [self.base_bytes] * (MAX_PROBES - 1)
        self._search(MtuState.SEARCHING, 0, sizes)
        self._is_in_doubt = True

    # Rounds.

    def _search(self, state: MtuState, passed_bytes: int, sizes: Sequence[int] = ()) -> None:
        """Begin a search above ``passed_bytes``, with ``sizes`` if there are any."""
        self.state = state
        self._largest_passed = passed_bytes
        self._failures = {}
        self._rounds = 0
        self._is_in_doubt = False
        self._again_at = None
        self._begin_round(sizes or self._next_sizes())

    def _begin_round(self, sizes: Sequence[int]) -> None:
        self._round += 1
        self._rounds += 1
        self._waiting = [*sorted(sizes, reverse=True), SMALL]
        self._unsettled = 0
        self._lost = []
        self._answered = False

    def _settled(self, now: float) -> None:
        self._unsettled -= 1
        if not self._unsettled and not self._waiting:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        """Draw the conclusions of a round whose probes are all acknowledged or lost."""
        if self._answered:
            for size in self._lost:
                self._failures[size] = self._failures.get(size, 0) + 1
        failed_bytes = min(
            (size for size, losses in self._failures.items() if losses >= MAX_PROBES and size > self._largest_passed),
            default=self.ceiling_bytes + 1,
        )
        if failed_bytes <= self.base_bytes:
            self._fail(now)
        elif self._is_in_doubt and self._largest_passed >= self.mtu_bytes:
            self._complete(now)
            self._again_at = self._raise_at
        else:
            if self.mtu_bytes >= failed_bytes:
                self.counters.black_holes += 1
                self.mtu_bytes = max(self._largest_passed, self.base_bytes)
                self._is_in_doubt = False
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        sizes = self._next_sizes()
        if sizes and self._rounds < MAX_ROUNDS:
            if self._largest_passed:
                self.state = MtuState.SEARCHING
            self._begin_round(sizes)
        elif self.carries_base or self._largest_passed:
            self._complete(now)
        else:
            self._fail(now)

    def _next_sizes(self) -> list[int]:
        """Return the sizes of the next round; none when the largest is known."""
        failures, passed = self._failures, self._largest_passed
        if not passed:
            return [self.base_bytes]
        bound = min((size for size in failures if size > passed), default=self.ceiling_bytes)
        step = max(STEP_BYTES, -(-(bound - passed) // (SPREAD + 1)))
        between = {(passed + step * index) & -STEP_BYTES for index in range(1, SPREAD + 1)}
        sizes = [size for size in between if passed < size < bound]
        for size, copies in ((bound, 1 if sizes else MAX_PROBES), (self.ceiling_bytes, 1)):
            if size > passed and size not in sizes:
                sizes += [size] * min(copies, MAX_PROBES - failures.get(size, 0))
        return sizes

    def _complete(self, now: float) -> None:
        self._waiting = []
        self._round += 1  # what is under way says nothing any more
        self.state = MtuState.SEARCH_COMPLETE
        self.mtu_bytes = max(self._largest_passed, self.base_bytes)
        self._large_lost = 0
        self._again_at = now + RAISE_INTERVAL if self.mtu_bytes < self.ceiling_bytes else None

    def _fail(self, now: float) -> None:
        if self.state is not MtuState.ERROR:
            self.counters.black_holes += 1
        self.state = MtuState.ERROR
        self.mtu_bytes = self.base_bytes
        self._again_at = now + ERROR_INTERVAL

    # Time.

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called."""
        return self._again_at

    def handle_timeout(self, now: float) -> None:
        """Try to rise, or whether the base passes again, when it is time."""
        if self._again_at is None or now < self._again_at:
            return
        if self.state is MtuState.ERROR:
            self._search(MtuState.ERROR, 0, [self.base_bytes] * MAX_PROBES)
        else:
            self._search(MtuState.SEARCHING, self.mtu_bytes)
