"""Trials: whether a queue or a loss is ours, by sending slower for a while.

A trial sends less than the path has just delivered. What is lost then is the loss floor, whatever it is due to; if that
is less than before, the rest was congestion. A queue that falls was ours. One that stays in `FAILED_TRIALS` trials
belongs to others, or the path became longer: then it counts as the path's, and queues are not looked at for a pause.
If anything was ours, the rate becomes what the path had delivered.

The first round of a trial still has acknowledgements of what was sent before it. They say best what passes (`note`).
"""

from __future__ import annotations

from math import inf
from typing import Final

from seamless.delivery.rate import RateSample
from seamless.link.congestion.path_model import PathModel

QUEUE_TRIAL_GAIN: Final = 0.75
LOSS_TRIAL_GAIN: Final = 0.9
"""Of what was delivered."""
TRIAL_GAIN_MIN: Final = 0.1
"""Of the rate that is known: no trial is slower."""
TRIAL_PACKETS: Final = 60
"""Datagrams that a trial of losses takes at least."""
TRIAL_ROUNDS: Final = 20
"""Round trips that it takes at most."""
SUDDENLY_SLOWER: Final = 0.7
"""If no more than this share of what was expected is delivered, the path has become slower."""
LOSS_ROSE: Final = 1.25
"""If the share of losses rises so much while we send slower, the path has become slower meanwhile."""
SUDDEN_LOSS: Final = 0.05
"""Losses of a few round trips beyond the floor that are looked into at once."""
QUEUE_FELL: Final = 0.7
"""A queue that is this much of what it was has gone down with our rate: it is ours."""
FAILED_TRIALS: Final = 2
"""Trials in a row after which a queue is taken for the path's: one may meet another link's probe."""
PAUSE_MIN: Final = 2.0
PAUSE_MAX: Final = 16.0
"""Seconds after a queue that turned out not to be ours, in which queues are not looked at; doubled each time."""


class Trial:
    """The trial that goes on, or the last; ``queue`` in seconds, 0 where none is tried."""

    def __init__(self, model: PathModel) -> None:
        self._model = model
        self.queue = 0.0
        self.tries_loss = False
        self.delivered_bps = 0.0
        """What the path delivered before we went slower."""
        self.fast = model.losses.phase
        """What was sent then, with what it lost."""
        self._is_noted = True
        self._is_limited = False
        """Whether that was what the traffic asked for, and not what the path carries."""
        self._pause = PAUSE_MIN
        self._failed = 0
        self._ignored_until = -inf

    def ignores_queues(self, now: float) -> bool:
        """Return whether the queue is made by others, and stays if we yield: then it says nothing."""
        return now < self._ignored_until

    def has_sudden_loss(self) -> bool:
        """Return whether much more than the floor was lost lately."""
        losses = self._model.losses
        return losses.has_excess(losses.window, SUDDEN_LOSS)

    def is_slower(self, sample: RateSample) -> bool:
        """Return whether the path carries much less than what we sent, and a queue shows that."""
        model = self._model
        expected_bps = min(sample.sent_bps, model.bottleneck_bps * (1 - model.losses.floor))
        return model.delay.latest > model.queue_limit and sample.delivered_bps < SUDDENLY_SLOWER * expected_bps

    def end_startup(self) -> None:
        """Take what Startup has sent for what went before a trial, and look for the floor anew."""
        losses = self._model.losses
        self.fast = losses.phase if losses.phase.lost else losses.previous
        self.delivered_bps = self._model.bandwidth.recent_bps
        self._is_noted = False
        losses.forget()

    def begin(self, queue: float, tries_loss: bool, delivered_bps: float | None) -> None:
        """Begin a trial of a queue, of losses, of both or of neither; ``delivered_bps`` where that is known already."""
        model = self._model
        self.queue = queue
        self.tries_loss = tries_loss
        self._is_noted = delivered_bps is not None
        self._is_limited = model.rates.is_application_limited and delivered_bps is None
        if delivered_bps is None:
            delivered_bps = model.bandwidth.recent_bps
            self.fast = model.losses.window if self.has_sudden_loss() else model.losses.phase
        self.delivered_bps = delivered_bps
        model.delay.mark()

    def bound_bps(self, rate_bps: float) -> float:
        """Return the rate of the trial, where it would be ``rate_bps`` without."""
        model = self._model
        if self.queue:
            rate_bps = min(rate_bps, QUEUE_TRIAL_GAIN * self.delivered_bps / (1 - model.losses.floor))
        # What is lost while we send less than is delivered is the loss floor.
        return max(min(rate_bps, LOSS_TRIAL_GAIN * self.delivered_bps), TRIAL_GAIN_MIN * model.bottleneck_bps)

    def note(self, sample: RateSample) -> bool:
        """Take note of the first round's sample; return whether the path is so slow that this was no slow round.

        What was delivered of the last that was sent before is the most that passes, unless the path has just become
        slower.
        """
        if self._is_noted or sample.is_stalled:
            return False
        self._is_noted = True
        is_slower = sample.delivered_bps < SUDDENLY_SLOWER * min(self.delivered_bps, sample.sent_bps)
        self.delivered_bps = sample.delivered_bps if is_slower else max(self.delivered_bps, sample.delivered_bps)
        return is_slower

    def is_undecided(self, rounds: int) -> bool:
        """Return whether losses need more rounds than these to tell."""
        losses = self._model.losses
        if not self.tries_loss or rounds >= TRIAL_ROUNDS:
            return False
        telling = losses.telling_packets(self.fast.loss - losses.floor)
        return losses.packets(losses.phase) < max(TRIAL_PACKETS, telling)

    def is_lossy_still(self) -> bool:
        """Return whether it is not certain that we went slow enough: more was lost than before we did."""
        losses = self._model.losses
        if not losses.has_excess(losses.phase):
            return False
        return not self.tries_loss or losses.phase.loss > LOSS_ROSE * self.fast.loss

    def judge(self, now: float) -> None:
        """End the trial: learn what its losses and its queue say."""
        model = self._model
        self._judge_loss()
        is_drained = model.is_drained
        if not model.has_standing_queue:
            model.delay.drained()
        if self.queue and (is_drained or model.delay.standing < QUEUE_FELL * self.queue):
            self._queue_is_ours()
        elif self.queue:
            self._queue_stays(now)
        self._is_noted = True

    def _judge_loss(self) -> None:
        losses = self._model.losses
        slow, fast = losses.phase, self.fast
        if not self.tries_loss:
            losses.learn(slow)
        elif slow.loss > (losses.floor + fast.loss) / 2:
            losses.set(slow, fast)
        else:
            losses.learn(slow, is_sure=True)
            self._model.bandwidth.replace(self.delivered_bps, losses.floor)

    def _queue_is_ours(self) -> None:
        self._failed = 0
        self._pause = PAUSE_MIN
        if not self._is_limited:
            self._model.bandwidth.replace(self.delivered_bps, self._model.losses.floor)

    def _queue_stays(self, now: float) -> None:
        self._failed += 1
        if self._failed >= FAILED_TRIALS:
            self._failed = 0
            self._model.delay.rebase(now)
            self._ignored_until = now + self._pause
            self._pause = min(2 * self._pause, PAUSE_MAX)
