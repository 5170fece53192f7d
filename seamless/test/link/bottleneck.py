"""Senders with congestion controllers before one bottleneck with a drop-tail buffer, in virtual time.

What a link would do around a controller is done here in its plainest form: full datagrams, paced, within the window;
each acknowledged, or missed, one round trip after its turn in the buffer came.
"""

from __future__ import annotations

from seamless.interfaces import AckEvent, CongestionController
from seamless.lab.agenda import Agenda

DATAGRAM_BYTES = 1500
SMOOTHING = 1 / 8


def lost(sent_at: float, now: float) -> AckEvent:
    """Return what a link says of the loss of a datagram."""
    return AckEvent(now, 0, 0.1, lost_bytes=DATAGRAM_BYTES, lost_packets=1, lost_batches=[(sent_at, DATAGRAM_BYTES)])


class Sender:
    """A flow that always has something to send, from ``starts_at`` on."""

    def __init__(self, controller: CongestionController, starts_at: float = 0.0) -> None:
        self.controller = controller
        self.starts_at = starts_at
        self.bytes_in_flight = 0
        self.peak_window_bytes = 0
        self.delivered_bytes = 0
        self.lost = 0
        self.first_loss_at: float | None = None
        self.waits_for_window = False
        self.smoothed_rtt: float | None = None


class Bottleneck(Agenda):
    """A path of ``rate_bps`` and ``rtt`` seconds with a buffer of ``buffer_bytes``."""

    def __init__(self, senders: list[Sender], *, rate_bps: float, rtt: float, buffer_bytes: float) -> None:
        super().__init__()
        self.senders = senders
        self.peak_backlog_bytes = 0.0
        self._rate_bps = rate_bps
        self._rtt = rtt
        self._buffer_bytes = buffer_bytes
        self._free_at = 0.0
        for sender in senders:
            self.at(sender.starts_at, self._send, sender)

    def _send(self, sender: Sender) -> None:
        window_bytes = sender.controller.window_bytes()
        sender.peak_window_bytes = max(sender.peak_window_bytes, window_bytes)
        if sender.bytes_in_flight + DATAGRAM_BYTES > window_bytes:
            sender.waits_for_window = True
            return
        sender.waits_for_window = False
        sender.bytes_in_flight += DATAGRAM_BYTES
        sent_at = self.now
        backlog_bytes = max(0.0, self._free_at - self.now) * self._rate_bps / 8
        if backlog_bytes + DATAGRAM_BYTES > self._buffer_bytes:
            self.at(max(self.now, self._free_at) + self._rtt, self._lost, sender, sent_at)
        else:
            self.peak_backlog_bytes = max(self.peak_backlog_bytes, backlog_bytes)
            self._free_at = max(self.now, self._free_at) + DATAGRAM_BYTES * 8 / self._rate_bps
            self.at(self._free_at + self._rtt, self._acked, sender, sent_at)
        self.at(self.now + DATAGRAM_BYTES * 8 / sender.controller.pacing_rate_bps(), self._send, sender)

    def _acked(self, sender: Sender, sent_at: float) -> None:
        sender.bytes_in_flight -= DATAGRAM_BYTES
        sender.delivered_bytes += DATAGRAM_BYTES
        rtt = self.now - sent_at
        before = rtt if sender.smoothed_rtt is None else sender.smoothed_rtt
        sender.smoothed_rtt = before + SMOOTHING * (rtt - before)
        sender.controller.on_ack(
            AckEvent(self.now, sender.bytes_in_flight, sender.smoothed_rtt, DATAGRAM_BYTES, sent_at, rtt)
        )
        if sender.waits_for_window:
            self._send(sender)

    def _lost(self, sender: Sender, sent_at: float) -> None:
        sender.bytes_in_flight -= DATAGRAM_BYTES
        sender.lost += 1
        if sender.first_loss_at is None:
            sender.first_loss_at = self.now
        sender.controller.on_ack(lost(sent_at, self.now))
        if sender.waits_for_window:
            self._send(sender)
