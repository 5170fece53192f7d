"""Deficit round robin by bytes in which who had nothing waiting goes first, as in RFC 8290 (FQ-CoDel), section 4.2.

Who takes turns (a flow, a conversation) may send a quantum of bytes per turn (Shreedhar and Varghese 1995); what a
packet exceeds it by is taken off the next. One that had nothing waiting is *new*, and goes before the others for one
quantum, in one packet or in several with pauses between them. One whose queue is empty stays until the round is over:
only then it gets another quantum, since by sending a packet at a time it would always be new otherwise.

A link's bulk takes turns of its own (`seamless.link.queue`): a flow may be paused there, and shares one deficit with
its express packets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs


@attrs.define
class Turn:
    """What one that takes turns may still send in its turn, in bytes, and whether it has a turn at all."""

    deficit_bytes: int = 0
    is_waiting: bool = False
    is_resting: bool = False
    """Whether it has nothing to send, and may still send as a new one what is left of its quantum."""


class TakesTurns(Protocol):
    """One of those that share a link or a session."""

    turn: Turn


Member = TypeVar("Member", bound=TakesTurns)


class RoundRobin(Generic[Member]):
    """Those that take turns. ``has_packets`` says whether one may send; ``left`` is called with one that is out."""

    def __init__(
        self,
        quantum_bytes: int,
        has_packets: Callable[[Member], object],
        left: Callable[[Member], None] = lambda member: None,
    ) -> None:
        self._quantum_bytes = quantum_bytes
        self._has_packets = has_packets
        self._left = left
        self._new: deque[Member] = deque()
        self._old: deque[Member] = deque()

    def join(self, member: Member) -> None:
        """Give ``member``, which has packets now, turns, the first as a new one, unless it has them."""
        turn = member.turn
        if not turn.is_waiting:
            member.turn = Turn(self._quantum_bytes, True)
            self._new.append(member)
        elif turn.is_resting:
            turn.is_resting = False
            self._old.remove(member)
            self._new.append(member)

    def rejoin(self, member: Member) -> None:
        """Give ``member``, which was removed, turns again, behind the others."""
        self._old.append(member)

    def remove(self, member: Member) -> bool:
        """Take the turns of ``member`` away for a while; return whether it had any."""
        for members in (self._new, self._old):
            if member in members:
                members.remove(member)
                member.turn.is_resting = False
                return True
        return False

    def is_new(self, member: Member) -> bool:
        """Return whether ``member``, whose turn it is, has its first turn."""
        return bool(self._new) and self._new[0] is member

    def may_go(self, serves_new: bool = True, serves_old: bool = True) -> bool:
        """Return whether one of those served is next; it may turn out to have nothing."""
        return bool((serves_new and self._new) or (serves_old and self._old))

    def head(self, serves_new: bool = True, serves_old: bool = True) -> Member | None:
        """Return the one with packets whose turn it is; None when none of those served has any."""
        while members := (serves_new and self._new) or (serves_old and self._old):
            member = members[0]
            has_packets = self._has_packets(member)
            if has_packets and member.turn.deficit_bytes > 0:
                return member
            members.popleft()
            if has_packets:
                member.turn.deficit_bytes += self._quantum_bytes
                self._old.append(member)
            elif members is self._new:
                member.turn.is_resting = member.turn.deficit_bytes > 0
                self._old.append(member)
            else:
                member.turn.is_waiting = member.turn.is_resting = False
                self._left(member)
        return None
