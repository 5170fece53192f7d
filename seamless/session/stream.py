"""A stream as its session knows it: two halves, and how far its life has come.

    opened here:    OPEN sent ──ACCEPT──> flowing          (a RESET instead of the ACCEPT is a refusal)
    opened there:   OPEN came: flowing; whether to accept is the application's to say

    flowing         is over when both FINs are delivered and acknowledged: StreamClosed
    reset here      is over when our RESET and the bytes before it are acknowledged, and the peer's end is known
    reset there     is over when, besides, it is reported to the application: StreamReset

Records overtake one another, so bytes may come before the OPEN or ACCEPT that they follow; they are held back till
then. A RESET that comes early waits for the bytes before it, unless its code says that they will never come; one with
such a code replaces one without (`severity`), on both ends, and at the same final offset. A FIN
that was still to be sent when its stream was reset goes with the RESET: whoever reads sees the end of file and not the
reset, as it does when TCP brings FIN and RST one right after the other (Linux: SOCK_DONE goes before sk_err).

A RESET with an orderly code says where the stream ends, and both windows must allow that. What an application wrote
before it reset its connection, and the windows do not allow yet, is not dropped: the stream is *ending*, its bytes go
as the windows open, and the RESET when they allow the last of them. It waits no longer than `ENDING_TIMEOUT` for a
window that does not open; then the rest is dropped.

A restarted peer knows no stream, so its streams are reset; but one that was opened here and that the old peer gave no
sign of is opened again with the new one, from its first byte, and the application notices nothing (`unanswered`).
Nearly always the old peer never heard of it: it was opened when that was dead already, and we did not know. It may
have, though: it may have dialled, even handed on the first bytes, and died with the ACCEPT and the acknowledgement
still to come. Then the server sees a second connection, as it does from any client whose SYN a rebooted host gets
again; the first one was reset with the old peer, and the application never learned that there was one. That cannot
happen any more once a byte, the FIN or the ACCEPT is known to have arrived: such a stream is reset.
"""

from __future__ import annotations

from typing import Final

from seamless.interfaces import CONNECT_FAILURES, RESET_BY_APPLICATION, RESET_NOT_ALLOWED
from seamless.session.receive_half import ReceiveHalf
from seamless.session.send_half import SendHalf
from seamless.wire.session_frames import ResetFrame

ORDERLY_RESETS: Final = CONNECT_FAILURES | {RESET_BY_APPLICATION, RESET_NOT_ALLOWED}
"""Codes of a RESET that follows the bytes in flight. With any other, what is missing will never come."""


ENDING_TIMEOUT: Final = 10.0
"""Seconds for which the RESET of an application waits for the reader of the bytes before it."""


def severity(code: int) -> int:
    """Return the rank of a RESET code: 1 when bytes that are missing will never come, 0 when they are to be waited for.

    The RESET of the higher rank holds, in whatever order two of one stream arrive.
    """
    return 0 if code in ORDERLY_RESETS else 1


class Stream:
    """One stream of a session. ``ours`` says whether this end opened it."""

    __slots__ = (
        "key",
        "ours",
        "target",
        "send",
        "receive",
        "flowing",
        "accepted",
        "end_reported",
        "ending",
        "own_reset",
        "reset_acked",
        "peer_reset",
    )

    def __init__(self, key: tuple[int, int], ours: bool, send: SendHalf, receive: ReceiveHalf) -> None:
        self.key = key
        self.ours = ours
        self.send = send
        self.receive = receive
        self.target = b""
        """The target of a stream that this end opened, until the peer accepts."""
        self.flowing = False
        self.accepted = False
        self.end_reported = False
        self.ending: tuple[int, str] | None = None
        """Code and reason of our RESET while it waits until the windows allow the bytes before it."""
        self.own_reset: ResetFrame | None = None
        self.reset_acked = False
        self.peer_reset: ResetFrame | None = None

    @property
    def reset_sent(self) -> bool:
        """Return whether this end has reset the stream, or will; no application knows it then."""
        return self.own_reset is not None or self.ending is not None

    @property
    def reset_severity(self) -> int:
        """Return the severity of our own reset, sent or waiting."""
        if self.own_reset is not None:
            return severity(self.own_reset.code)
        return 0

    @property
    def unanswered(self) -> bool:
        """Return whether the peer has given no sign of this stream, which this end opened."""
        heard = self.flowing or self.receive.highest > 0 or self.receive.final is not None
        return self.ours and not heard and not self.reset_sent and self.send.early is not None

    @property
    def reset_due(self) -> bool:
        """Return whether the peer's RESET can be reported: all bytes before it are delivered, or will never be."""
        reset = self.peer_reset
        if reset is None:
            return False
        nothing_came_before = reset.final_offset == 0 and not reset.fin
        if severity(reset.code) or nothing_came_before:
            return True
        return self.flowing and self.receive.complete

    @property
    def over(self) -> bool:
        """Return whether the stream can be forgotten: neither end waits for anything of it."""
        if self.reset_sent:
            delivered = self.send.dropped or (self.send.under_way == 0 and self.send.unsent == 0)
            return self.reset_acked and delivered and self.receive.final is not None and self.receive.discarding
        return self.send.ended and self.end_reported
