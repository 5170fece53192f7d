"""What ``congestion auto`` makes of a path, in virtual time: real links over the lab's model of a wire.

First the share of the wire that is used after two seconds, what is sent for each byte delivered (times what is not
lost), drops of the first two seconds in bandwidth-delay products, and how long a datagram waits in the wire's buffer;
for rates, round trips, buffers and losses. Then shares of one bottleneck with ``cubic`` and with another ``auto``, one
of them 10 s late. Figures are the same on every machine; one processor needs some minutes for all.
"""

from __future__ import annotations

from itertools import product
from typing import Final

from bench.experiment import Conditions
from seamless.lab.demo_report import percent
from seamless.test.link.shared_path import SharedPath, measure, queue_samples, wire

RATES_BPS: Final = (20e6, 60e6)
RTTS: Final = (0.002, 0.01, 0.05)
BUFFER_BDPS: Final = (0.2, 1.0, 5.0)
LOSSES: Final = ((0.005, 1.0), (0.02, 1.0), (0.05, 1.0), (0.05, 8.0), (0.2, 1.0))
WARM_UP_SECONDS: Final = 2.0
DUEL_BPS: Final = 60e6
DUEL_RTT: Final = 0.02
DUEL_BUFFERS: Final = (0.5, 1.0, 4.0)
LATE_SECONDS: Final = 10.0


def run(conditions: Conditions) -> None:
    """Print both tables."""
    titles = ("used", "sent in vain", "first drops", "queue 50 %", "95 %", "99 %")
    print(f"{'':<34}" + "".join(f"{title:>14}" for title in titles))
    for rate_bps, rtt, buffer_bdps in conditions.cases(tuple(product(RATES_BPS, RTTS, BUFFER_BDPS))):
        _row(rate_bps, rtt, buffer_bdps, 0.0, 1.0, conditions.seconds)
    for loss, burst in conditions.cases(LOSSES):
        _row(60e6, 0.01, 1.0, loss, burst, conditions.seconds)
    print(f"{'shares of one bottleneck':<34}" + "".join(f"{buffer_bdps:>10} BDP" for buffer_bdps in DUEL_BUFFERS))
    for name, words, late in conditions.cases(
        (
            ("auto beside cubic", ["auto", "cubic"], 0.0),
            ("auto beside auto", ["auto", "auto"], 0.0),
            ("auto, 10 s later than auto", ["auto", "auto"], LATE_SECONDS),
        )
    ):
        shares = [_share(words, buffer_bdps, late, conditions) for buffer_bdps in conditions.cases(DUEL_BUFFERS)]
        print(f"{name:<34}" + "".join(f"{percent(share):>14}" for share in shares), flush=True)


def _row(rate_bps: float, rtt: float, buffer_bdps: float, loss: float, burst: float, seconds: float) -> None:
    path = SharedPath(["auto"], wire(rate_bps, rtt, buffer_bdps, loss, burst_packets=burst))
    path.begin(path.flows[0])
    first = measure(path, WARM_UP_SECONDS)[0]
    measured = measure(path, seconds)[0]
    samples = queue_samples(path, seconds)
    name = f"{rate_bps / 1e6:g} Mb/s {rtt * 1e3:g} ms {buffer_bdps:g} BDP {percent(loss)}"
    name += f" by {burst:g}" if burst > 1 else ""
    waits = "".join(f"{samples[int(len(samples) * share)] * 1e3:>11.1f} ms" for share in (0.5, 0.95, 0.99))
    used = percent(measured.rate_bps / rate_bps / (1 - loss))
    vain = percent(measured.sent_ratio * (1 - loss) - 1)
    drops = first.queue_dropped * 1500 / (rate_bps * rtt / 8)
    print(f"{name:<34}{used:>14}{vain:>14}{drops:>10.2f} BDP{waits}", flush=True)


def _share(words: list[str], buffer_bdps: float, late: float, conditions: Conditions) -> float:
    """Return the share of the first of two links; of the later one, if one is."""
    path = SharedPath(words, wire(DUEL_BPS, DUEL_RTT, buffer_bdps))
    for flow, at in zip(path.flows, (0.0, late)):
        path.at(path.now + at, path.begin, flow)
    path.run(path.now + late + (LATE_SECONDS if late else WARM_UP_SECONDS))
    rates = [measured.rate_bps for measured in measure(path, conditions.seconds * 3)]
    return rates[1 if late else 0] / sum(rates)
