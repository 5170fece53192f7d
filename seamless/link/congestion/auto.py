"""Congestion control ``auto``: finds the rate of a path, fills it, and keeps its queue short.

A model of the path after BBR (draft-ietf-ccwg-bbr): the bottleneck's rate, the least round trip time, and what is in
flight. States and names are the draft's; docs/congestion.rst has what differs, and why. The rules:

* Pace at the bottleneck's rate. Probe for more every `PROBE_INTERVAL` (REFILL, UP), then drain what queue that made
  (DOWN), then stay (CRUISE).
* A queue or a loss is ours only if it goes away when we send slower. So where one appears, DOWN is a *trial*: we send
  less than the path has just delivered. What loss there is then is the loss floor, and what queue is left belongs to
  the path. If either went away the rate becomes what the path had delivered; otherwise it stays.
* Work is done per ACK, decisions are taken per round trip.
* What is application-limited teaches nothing but that more is possible. In idleness the model stays as it is.
"""

from __future__ import annotations

import enum
from math import inf
from typing import Final

from seamless.delivery.rate import RateSample
from seamless.interfaces import AckEvent, PathEstimate
from seamless.link.congestion.path_model import PathModel
from seamless.link.congestion.startup import MAX_WINDOW_BYTES, Startup
from seamless.link.congestion.trial import Trial

# Of the draft.
CWND_GAIN: Final = 2.0
PROBE_RTT_CWND_GAIN: Final = 0.5
DRAIN_GAIN: Final = 0.5
DOWN_GAIN: Final = 0.9
UP_GAIN: Final = 1.25
MIN_PIPE_DATAGRAMS: Final = 4
PROBE_RTT_INTERVAL: Final = 10.0
"""Seconds without a round trip as short as the least (BBR.MinRTTFilterLen), after which ProbeRTT looks for it."""
PROBE_RTT_DURATION: Final = 0.2
DRAIN_ROUNDS: Final = 3
CRUISE_GAIN: Final = 0.99
"""BBR.PacingMarginPercent."""

# Our own choices.
QUEUE_CRUISE_GAIN: Final = 0.96
"""CRUISE while there is a short queue."""
UP_GAINS: Final = (1.5, 2.0)
"""Of further rounds of UP, while the path delivers more each time. So links that have little of a shared path gain more
of themselves in one probe than those that have much, and shares become equal."""
UP_GROWTH: Final = 0.5
"""Of the first gain's surplus: so much more must be delivered to go on."""
UP_ROUNDS_WITHOUT_GROWTH: Final = 2
PROBE_INTERVAL: Final = 1.0
"""Seconds from one probe for more to the next at least, and up to half as many more, by chance."""
PROBE_ROUNDS: Final = 10
"""Round trips from one to the next at least."""
DOWN_ROUNDS: Final = 2
"""Round trips that DOWN takes at least: the second has acknowledgements of what was sent in the first."""
PATIENCE_MIN: Final = 0.05
PATIENCE_RTTS: Final = 4
PATIENCE_QUEUES: Final = 6
"""Seconds, round trips, and times the queue that was tried, for which DOWN waits for a queue to drain."""
WINDOW_ROUNDS: Final = 6
"""Round trips over which a sudden rise of losses is looked for in CRUISE."""
QUEUE_ROUNDS: Final = 4
"""Round trips for which a queue stands before we send slower: another link's probe is over by then."""
LONG_QUEUE: Final = 3
QUEUE_ROUNDS_LONG: Final = 2
"""The same for a queue that is so many times as long as a probe makes one."""
VALIDATED_IDLE: Final = 1.0
"""Seconds without traffic after which what is known of the path is validated."""
VALIDATING_ROUNDS: Final = 2
"""Round trips that this takes: the first has no more than the beginning of what is sent."""
WINDOW_SLACK: Final = 0.006
"""Seconds of the rate in flight beyond the path's: batches, and processes that are late."""


class State(enum.Enum):
    """What the controller does now, in the words of the draft."""

    STARTUP = "Startup"
    DRAIN = "Drain"
    DOWN = "ProbeBW_DOWN"
    CRUISE = "ProbeBW_CRUISE"
    REFILL = "ProbeBW_REFILL"
    UP = "ProbeBW_UP"
    PROBE_RTT = "ProbeRTT"


class Auto:
    """The controller; rates in bits per second, ``datagram_bytes`` is the size of a full IP packet."""

    name = "auto"
    min_burst_bytes = 2 * 1500

    def __init__(self, ceiling_bps: float | None, floor_bps: float | None, datagram_bytes: int, now: float) -> None:
        self._ceiling_bps = ceiling_bps or inf
        self._floor_bps = floor_bps or 0.0
        self._min_window = MIN_PIPE_DATAGRAMS * datagram_bytes
        self._model = PathModel(datagram_bytes, now)
        self._startup = Startup(self._model)
        self._trial = Trial(self._model)
        self.state = State.STARTUP
        self._state_at = now
        self._state_round = 0
        self._probe_at = now
        self._queue_rounds = 0
        self._up_gain = UP_GAIN
        self._up_queue = 0.0
        self._up_steps = 0
        self._full_bw = 0.0
        self._full_bw_count = 0
        self._probe_rtt_until: float | None = None
        self._validates = 0
        """Round trips, and one, until what was known before a pause counts as valid."""
        self._acked_at = now
        self._rate_bps = 0.0
        self._window = 0
        self._set_control(now)

    # What it asks for.

    def window_bytes(self) -> int:
        """Return the congestion window."""
        return self._window

    def pacing_rate_bps(self) -> float:
        """Return the pacing rate."""
        return self._rate_bps

    def next_timeout(self) -> float | None:
        """Return when ProbeRTT ends."""
        return self._probe_rtt_until

    def handle_timeout(self, now: float) -> None:
        """End ProbeRTT."""
        if self._probe_rtt_until is not None and now >= self._probe_rtt_until:
            self._end_probe_rtt(now)
            self._set_control(now)

    # What it is told.

    def on_sent(self, bytes_in_flight: int, is_application_limited: bool, now: float) -> None:
        """Take note of a batch."""
        if self._model.on_sent(bytes_in_flight, is_application_limited, now):
            self._restart_from_idle(now)

    def _restart_from_idle(self, now: float) -> None:
        """Begin at the rate that is known, but after a longer pause with no more in flight than a round trip's worth:
        if the path became slower meanwhile, its buffer gets no more than that."""
        if self.state in (State.REFILL, State.UP):
            self._enter(State.CRUISE, now)
        is_long = self.state is not State.STARTUP and now > self._acked_at + VALIDATED_IDLE
        self._validates = VALIDATING_ROUNDS + 1 if is_long else 0
        self._set_control(now)

    def on_ack(self, event: AckEvent) -> None:
        """Update the model, and what follows from it."""
        now = event.now
        rates = self._model.rates
        if not rates.is_idle:
            self._acked_at = now
        is_limited = rates.is_application_limited
        sample = self._model.on_ack(event)
        if self.state is State.STARTUP:
            if not is_limited and self._startup.on_ack(event):
                self._end_startup(now)
        elif self.state is State.UP:
            self._look_for_end_of_up(now)
        elif self.state is State.PROBE_RTT:
            self._probe_rtt(event.bytes_in_flight, now)
        if sample is not None:
            self._end_round(sample, now)
        self._set_control(now)

    def on_abandoned(self) -> None:
        """Go on with what is known of the path."""
        self._model.rates.abandon()

    # Rounds and states.

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self._state_at = now
        self._state_round = self._model.rates.rounds
        self._model.losses.begin_phase(now)

    @property
    def _rounds_in_state(self) -> int:
        return self._model.rates.rounds - self._state_round

    def _end_round(self, sample: RateSample, now: float) -> None:
        self._validates = max(0, self._validates - 1)
        if self._validates == 1 and self._trial.is_slower(sample):
            self._validates = 0
            self._start_down(now, self._model.delay.latest, tries_loss=True, delivered_bps=sample.delivered_bps)
            return
        if self._model.is_sparse(sample):
            return
        state = self.state
        if state in (State.DRAIN, State.DOWN) and self._rounds_in_state == 1 and self._trial.note(sample):
            self._enter(state, now)
        if state is State.STARTUP:
            if self._startup.end_round(sample, now):
                self._end_startup(now)
        elif state is State.DRAIN:
            if self._model.is_drained or self._rounds_in_state > DRAIN_ROUNDS:
                trial = self._trial
                self._start_down(now, tries_loss=trial.fast.lost > 0, delivered_bps=trial.delivered_bps)
        elif state is State.DOWN:
            self._end_down_round(now)
        elif state is State.CRUISE:
            self._end_cruise_round(sample, now)
        elif state is State.REFILL:
            self._start_up(now)
        elif state is State.UP:
            self._end_up_round(sample, now)

    def _end_startup(self, now: float) -> None:
        self._trial.end_startup()
        self._enter(State.DRAIN, now)

    # ProbeBW.

    def _start_down(
        self, now: float, queue: float = 0.0, tries_loss: bool = False, delivered_bps: float | None = None
    ) -> None:
        self._trial.begin(queue, tries_loss, delivered_bps)
        interval = max(PROBE_INTERVAL, PROBE_ROUNDS * min(self._model.min_rtt, self._model.smoothed_rtt))
        self._probe_at = now + interval * (1 + self._chance(now) / 2)
        self._enter(State.DOWN, now)

    def _chance(self, now: float) -> float:
        """Return a number from 0 to 1 that differs between links: who probes together learns nothing."""
        return (int(now * 1e6) * 2654435761 + self._model.rates.delivered * 40503) % 4099 / 4099

    def _end_down_round(self, now: float) -> None:
        model, trial = self._model, self._trial
        rounds = self._rounds_in_state
        if rounds == 1:
            model.bandwidth.advance()
        if rounds < DOWN_ROUNDS or trial.is_undecided(rounds):
            return
        patience = max(PATIENCE_RTTS * model.min_rtt, PATIENCE_QUEUES * trial.queue, PATIENCE_MIN)
        if not model.is_drained and now < self._state_at + patience:
            return
        if model.has_standing_queue and not trial.queue and not trial.ignores_queues(now):
            self._start_down(now, model.delay.standing, trial.tries_loss)
        elif trial.is_lossy_still():
            self._start_down(now, trial.queue, tries_loss=True)
        else:
            trial.judge(now)
            self._queue_rounds = 0
            self._enter(State.CRUISE, now)

    def _end_cruise_round(self, sample: RateSample, now: float) -> None:
        model, losses = self._model, self._model.losses
        if self._trial.has_sudden_loss() or losses.has_excess(losses.phase):
            self._start_down(now, tries_loss=True)
            return
        if self._rounds_in_state % WINDOW_ROUNDS == 0:
            losses.begin_window(now)
        has_queue = model.has_standing_queue and not sample.is_application_limited
        self._queue_rounds = self._queue_rounds + 1 if has_queue else 0
        is_long = model.delay.standing > LONG_QUEUE * model.queue_limit
        stands = self._queue_rounds >= (QUEUE_ROUNDS_LONG if is_long else QUEUE_ROUNDS)
        if stands and not self._trial.ignores_queues(now):
            self._start_down(now, model.delay.standing)
        elif now >= model.delay.confirmed_at + PROBE_RTT_INTERVAL and not sample.is_application_limited:
            model.delay.mark()
            self._enter(State.PROBE_RTT, now)
        elif now >= self._probe_at:
            self._enter(State.REFILL, now)

    def _start_up(self, now: float) -> None:
        self._full_bw = self._model.bottleneck_bps
        self._full_bw_count = 0
        self._up_gain = self._first_up_gain()
        self._up_steps = 0
        self._up_queue = self._model.delay.standing
        self._enter(State.UP, now)

    def _first_up_gain(self) -> float:
        """Return a gain that makes no longer a queue in a round trip than we want: the first news takes as long."""
        return 1 + min(UP_GAIN - 1, self._model.queue_limit / self._model.min_rtt)

    def _look_for_end_of_up(self, now: float) -> None:
        has_queue = self._model.delay.recent > self._up_queue + self._model.queue_limit
        if has_queue and not self._trial.ignores_queues(now):
            self._start_down(now)

    def _end_up_round(self, sample: RateSample, now: float) -> None:
        losses = self._model.losses
        if losses.has_excess(losses.phase):
            self._start_down(now, tries_loss=True)
            return
        if sample.is_application_limited:
            return
        if self._model.bottleneck_bps >= self._full_bw * (1 + UP_GROWTH * (self._first_up_gain() - 1)):
            self._full_bw = self._model.bottleneck_bps
            self._full_bw_count = 0
            self._up_steps += 1
            self._up_gain = UP_GAINS[min(self._up_steps, len(UP_GAINS)) - 1]
            return
        self._full_bw_count += 1
        if self._full_bw_count >= UP_ROUNDS_WITHOUT_GROWTH:
            self._start_down(now)

    # ProbeRTT.

    def _probe_rtt(self, bytes_in_flight: int, now: float) -> None:
        if self._probe_rtt_until is None and bytes_in_flight <= self._probe_rtt_window():
            self._probe_rtt_until = now + max(PROBE_RTT_DURATION, self._model.min_rtt)

    def _probe_rtt_window(self) -> float:
        return max(PROBE_RTT_CWND_GAIN * self._model.bdp_bytes, self._min_window)

    def _end_probe_rtt(self, now: float) -> None:
        self._probe_rtt_until = None
        self._model.delay.rebase(now)
        self._enter(State.CRUISE, now)

    # What follows.

    def _pacing_gain(self, now: float) -> float:
        state = self.state
        if state is State.UP:
            return self._up_gain
        if state is State.CRUISE:
            if self._trial.ignores_queues(now):
                return 1.0
            return CRUISE_GAIN if self._model.is_drained else QUEUE_CRUISE_GAIN
        if state is State.DRAIN:
            return DRAIN_GAIN
        if state is State.DOWN:
            return DOWN_GAIN
        return 1.0

    def _set_control(self, now: float) -> None:
        model = self._model
        if self.state is State.STARTUP:
            rate, window = self._startup.pacing_rate_bps(), self._startup.window_bytes
        else:
            rate = self._pacing_gain(now) * model.bottleneck_bps
            if self.state is State.DOWN:
                rate = self._trial.bound_bps(rate)
            window = CWND_GAIN * model.bdp_bytes + model.extra_acked + model.bottleneck_bps * WINDOW_SLACK / 8
            if self.state is State.PROBE_RTT:
                window = self._probe_rtt_window()
            elif self._validates:
                window -= (CWND_GAIN - 1) * model.bdp_bytes
        self._rate_bps = max(self._floor_bps, min(rate, self._ceiling_bps), 8.0 * self._min_window)
        least = max(self._min_window, self._floor_bps * model.smoothed_rtt / 8)
        self._window = int(min(max(window, least), MAX_WINDOW_BYTES))

    # Looking in.

    def path_estimate(self) -> PathEstimate:
        """Return the state, the estimates, and why the rate is what it is."""
        model, losses = self._model, self._model.losses
        return PathEstimate(
            state=self.state.value,
            reason=self._reason(),
            bottleneck_bps=model.bottleneck_bps or None,
            min_rtt=model.min_rtt if model.has_rtt else None,
            queue_delay=model.delay.standing,
            loss_floor=losses.floor,
            congestion_loss=max(0.0, losses.phase.loss - losses.floor),
        )

    def _reason(self) -> str:
        if self._rate_bps >= self._ceiling_bps:
            return "it is the configured bound"
        if self._rate_bps <= self._floor_bps:
            return "it is the configured floor"
        if self.state is State.STARTUP:
            return "it still looks for the path's rate"
        if self._model.rates.is_application_limited:
            return "the traffic does not ask for more, and the path carried this before"
        if self.state is State.DOWN and self._trial.tries_loss:
            return "datagrams were lost, and it looks whether fewer are when it sends slower"
        if self.state is State.DOWN and self._trial.queue:
            return "a queue formed on the path, and it looks whether that goes when it sends slower"
        if self.state is State.UP:
            return "it looks whether the path carries more"
        return "the path delivers this"
